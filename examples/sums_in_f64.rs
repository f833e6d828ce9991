//! How far the sums of local pruning lie from sums in f64 on a checkpoint, and what that does to re-fitted weights:
//! `cargo run --release --example sums_in_f64 -- MODEL_FOLDER TEXT_FILE [TOKENS]`
//!
//! For every module: the ratio of the largest channel's energy to the damping λ; the largest error of an entry of
//! X̃ᵀX̃ over √(diagᵢ diagⱼ); and, half of the units removed, the distance of the two re-fitted outputs over the loss
//! that pruning causes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // what fails here may end the program

use std::collections::BTreeMap;
use std::env;
use std::path::Path;

use candle_core::{Device, Tensor};
use faer::linalg::matmul::matmul;
use faer::prelude::Solve;
use faer::{Accum, Mat, Par, Side};
use tyr::data::Tokenizer;
use tyr::model::{Linear, Model, Source};
use tyr::prune::gram::{Statistics, Sums};
use tyr::tensor::attention::Segments;

/// Tokens of a sequence.
const LENGTH: usize = 256;
/// Sequences of one token.
const SINKS: usize = 1024;
/// The damping coefficient, the default of specs.
const DAMPING: f64 = 0.01;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut args = env::args().skip(1);
    let (folder, text) = (args.next().expect("name a model folder"), args.next().expect("name a text"));
    let tokens: usize = args.next().map_or(Ok(16384), |n| n.parse())?;
    let source = Source::folder(Path::new(&folder))?;
    let model = Model::open(&source, &Device::Cpu)?;
    let mut ids = Tokenizer::open(&source)?.encode(&std::fs::read_to_string(text)?)?;
    ids.truncate(tokens / LENGTH * LENGTH);
    let mut streams =
        vec![(model.embed(&ids)?, Segments::sequences(ids.len() / LENGTH, LENGTH)), sinks(&model, &ids)?];
    println!(
        "{:16} {:>12} {:>12} {:>12} {:>12}",
        "module", "largest/λ", "entry error", "output/loss", "large rows"
    );
    for l in 0..model.config().layers.len() {
        let layer = model.layer(l)?;
        let mut inputs = Vec::new();
        for (x, segments) in &mut streams {
            let context = model.attention_context(&layer.attention, x, segments)?;
            *x = (&*x + layer.attention.o.forward(&context)?)?;
            inputs.push(context);
        }
        show(&format!("attention {l}"), model.config().head_width, &inputs, &layer.attention.o)?;
        inputs.clear();
        for (x, _) in &mut streams {
            let activations = model.mlp_activations(&layer.mlp, x)?;
            *x = (&*x + layer.mlp.down.forward(&activations)?)?;
            inputs.push(activations);
        }
        show(&format!("mlp {l}"), 1, &inputs, &layer.mlp.down)?;
    }
    Ok(())
}

/// The commonest tokens as texts of one token.
fn sinks(model: &Model, ids: &[u32]) -> Result<(Tensor, Segments), Failure> {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    ids.iter().for_each(|&id| *counts.entry(id).or_default() += 1);
    let mut commonest: Vec<_> = counts.into_iter().collect();
    commonest.sort_by_key(|&(id, count)| (std::cmp::Reverse(count), id));
    let ids: Vec<u32> = commonest.into_iter().take(SINKS).map(|(id, _)| id).collect();
    Ok((model.embed(&ids)?, Segments::sequences(ids.len(), 1)))
}

fn values(x: &Tensor) -> Result<Vec<f32>, Failure> {
    Ok(x.flatten_all()?.to_vec1::<f32>()?)
}

/// The sums of [`Statistics`], the same in f64, and how many rows have a value above 64 times their stream's mean.
fn collect(
    inputs: &[Tensor],
    output: &Linear,
    [d_in, d_out]: [usize; 2],
) -> Result<([Sums; 2], usize), Failure> {
    let mut statistics = Statistics::new(d_in, Some(d_out));
    let mut exact =
        Sums { rows: 0, gram: Mat::zeros(d_in, d_in), correlation: Some(Mat::zeros(d_in, d_out)) };
    let mut large = 0;
    for input in inputs {
        let x = values(input)?;
        let y = values(&output.forward(input)?)?;
        statistics.add(&x, Some(&y))?;
        let rows = x.len() / d_in;
        let mean = x.iter().map(|v| v.abs()).sum::<f32>() / x.len() as f32;
        large += x.chunks(d_in).filter(|row| row.iter().any(|v| v.abs() > 64.0 * mean)).count();
        let x = Mat::from_fn(rows, d_in, |i, j| f64::from(x[i * d_in + j]));
        let y = Mat::from_fn(rows, d_out, |i, j| f64::from(y[i * d_out + j]));
        matmul(exact.gram.as_mut(), Accum::Add, x.transpose(), x.as_ref(), 1.0, Par::rayon(0));
        let correlation = exact.correlation.as_mut().unwrap();
        matmul(correlation.as_mut(), Accum::Add, x.transpose(), y.as_ref(), 1.0, Par::rayon(0));
    }
    Ok(([statistics.finish()?, exact], large))
}

/// The largest error of an entry over √(diagᵢ diagⱼ).
fn entry_error(sums: &Sums, exact: &Sums) -> f64 {
    let scale = |i: usize, j: usize| (exact.gram[(i, i)] * exact.gram[(j, j)]).sqrt();
    let error = |i: usize, j: usize| (sums.gram[(i, j)] - exact.gram[(i, j)]).abs() / scale(i, j);
    let d = exact.gram.nrows();
    let entries = (0..d).flat_map(|j| (0..d).map(move |i| (i, j))).filter(|&(i, j)| scale(i, j) > 0.0);
    entries.map(|(i, j)| error(i, j)).fold(0.0, f64::max)
}

/// The weight of the kept channels, zeros elsewhere; none where there is no Cholesky factor.
fn refit(sums: &Sums, weight: &Mat<f64>, lambda: f64, kept: &[usize]) -> Option<Mat<f64>> {
    let k = kept.len();
    let correlation = sums.correlation.as_ref()?;
    let h = Mat::from_fn(k, k, |i, j| sums.gram[(kept[i], kept[j])] + if i == j { lambda } else { 0.0 });
    let g = Mat::from_fn(k, weight.ncols(), |i, j| correlation[(kept[i], j)] + lambda * weight[(kept[i], j)]);
    let solved = h.llt(Side::Lower).ok()?.solve(&g);
    let mut whole = Mat::zeros(weight.nrows(), weight.ncols());
    kept.iter().enumerate().for_each(|(i, &p)| whole.row_mut(p).copy_from(solved.row(i)));
    Some(whole)
}

/// ‖XB‖ of a weight on the inputs.
fn output_norm(exact: &Sums, b: &Mat<f64>) -> f64 {
    let gb = &exact.gram * b;
    (0..b.ncols()).map(|j| b.col(j).transpose() * gb.col(j)).sum::<f64>().sqrt()
}

fn show(name: &str, width: usize, inputs: &[Tensor], output: &Linear) -> Result<(), Failure> {
    let (d_in, d_out) = (output.weight.dim(1)?, output.weight.dim(0)?);
    let weight = values(&output.weight)?;
    let weight = Mat::from_fn(d_in, d_out, |i, j| f64::from(weight[j * d_in + i]));
    let ([sums, exact], large) = collect(inputs, output, [d_in, d_out])?;
    let live: Vec<f64> = (0..d_in).map(|i| exact.gram[(i, i)]).filter(|d| *d > 0.0).collect();
    let lambda = DAMPING * (live.iter().map(|d| d.ln()).sum::<f64>() / live.len() as f64).exp();
    let largest = live.iter().copied().fold(0.0, f64::max);
    let kept: Vec<usize> = (0..d_in).filter(|i| (i / width).is_multiple_of(2)).collect();
    let fitted = |sums| refit(sums, &weight, lambda, &kept);
    let moved = match (fitted(&sums), fitted(&exact)) {
        (Some(ours), Some(right)) => {
            format!(
                "{:.2e}",
                output_norm(&exact, &(&ours - &right)) / output_norm(&exact, &(&weight - &right))
            )
        }
        _ => "no factor".into(),
    };
    let error = entry_error(&sums, &exact);
    println!("{name:16} {:12.1e} {error:12.1e} {moved:>12} {large:12}", largest / lambda);
    Ok(())
}
