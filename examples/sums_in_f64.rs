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
/// The damping coefficient.
const DAMPING: f64 = 0.1;

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
        "module", "largest/λ", "entry error", "output/loss", "rows > 8x"
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

fn show(name: &str, width: usize, inputs: &[Tensor], output: &Linear) -> Result<(), Failure> {
    let d_in = output.weight.dim(1)?;
    let d_out = output.weight.dim(0)?;
    let weight = values(&output.weight)?;
    let weight = Mat::from_fn(d_in, d_out, |i, j| f64::from(weight[j * d_in + i]));
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
    let sums = statistics.finish()?;
    let diagonal: Vec<f64> = (0..d_in).map(|i| exact.gram[(i, i)]).collect();
    let live: Vec<f64> = diagonal.iter().copied().filter(|d| *d > 0.0).collect();
    let lambda = DAMPING * (live.iter().map(|d| d.ln()).sum::<f64>() / live.len() as f64).exp();
    let largest = diagonal.iter().copied().fold(0.0, f64::max);
    let mut error = 0.0_f64;
    for j in 0..d_in {
        for i in 0..d_in {
            let scale = (diagonal[i] * diagonal[j]).sqrt();
            if scale > 0.0 {
                error = error.max((sums.gram[(i, j)] - exact.gram[(i, j)]).abs() / scale);
            }
        }
    }
    let kept: Vec<usize> = (0..d_in).filter(|i| (i / width) % 2 == 0).collect();
    let refit = |sums: &Sums| {
        let k = kept.len();
        let h = Mat::from_fn(k, k, |i, j| sums.gram[(kept[i], kept[j])] + if i == j { lambda } else { 0.0 });
        let c = sums.correlation.as_ref().unwrap();
        let g = Mat::from_fn(k, d_out, |i, j| c[(kept[i], j)] + lambda * weight[(kept[i], j)]);
        h.llt(Side::Lower).map(|factor| factor.solve(&g))
    };
    let difference = match (refit(&sums), refit(&exact)) {
        (Ok(ours), Ok(right)) => {
            let norm = |b: &Mat<f64>, channels: &[usize]| {
                let g = Mat::from_fn(channels.len(), channels.len(), |i, j| {
                    exact.gram[(channels[i], channels[j])]
                });
                let gb = &g * b;
                (0..d_out).map(|j| b.col(j).transpose() * gb.col(j)).sum::<f64>()
            };
            let moved = norm(&(&ours - &right), &kept).sqrt();
            let mut delta = weight.clone();
            kept.iter()
                .enumerate()
                .for_each(|(i, &p)| (0..d_out).for_each(|j| delta[(p, j)] -= right[(i, j)]));
            let all: Vec<usize> = (0..d_in).collect();
            format!("{:.2e}", moved / norm(&delta, &all).sqrt())
        }
        _ => "no factor".into(),
    };
    println!("{name:16} {:12.1e} {error:12.1e} {difference:>12} {large:12}", largest / lambda);
    Ok(())
}
