//! The Gram sums against plain f64.

use faer::prelude::Solve;

use super::*;
use crate::base::Kind;
use crate::prune::gram::{BLOCK, Statistics};

fn rounded(matrix: &Mat<f64>) -> (Vec<f32>, Mat<f64>) {
    let values: Vec<f32> =
        (0..matrix.nrows()).flat_map(|i| (0..matrix.ncols()).map(move |j| matrix[(i, j)] as f32)).collect();
    let exact =
        Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| f64::from(values[i * matrix.ncols() + j]));
    (values, exact)
}

/// The largest |error| of an entry over √(diagᵢ diagⱼ).
fn error(found: &Mat<f64>, x: &Mat<f64>, y: &Mat<f64>) -> f64 {
    let exact = x.transpose() * y;
    let norm = |m: &Mat<f64>, j: usize| m.col(j).norm_l2();
    let at = |i: usize, j: usize| (found[(i, j)] - exact[(i, j)]).abs() / (norm(x, i) * norm(y, j));
    (0..x.ncols())
        .flat_map(|i| (0..y.ncols()).map(move |j| (i, j)))
        .map(|(i, j)| at(i, j))
        .fold(0.0, f64::max)
}

#[test]
fn blocks_in_f32_agree_with_sums_in_f64() {
    // Shifted, so that the sums do not average out.
    let shifted = |m: Mat<f64>| Mat::from_fn(m.nrows(), m.ncols(), |i, j| m[(i, j)] + 0.5);
    let (xs, x) = rounded(&shifted(noise("x", 2 * BLOCK + 301, 37)));
    let (ys, y) = rounded(&shifted(noise("y", 2 * BLOCK + 301, 53)));
    let mut sums = Statistics::new(37, Some(53));
    sums.add(&xs[..37 * 999], Some(&ys[..53 * 999])).unwrap();
    sums.add(&xs[37 * 999..], Some(&ys[53 * 999..])).unwrap();
    let sums = sums.finish().unwrap();
    assert_eq!(sums.rows, 2 * BLOCK + 301);
    let gram = error(&sums.gram, &x, &x);
    let correlation = error(&sums.correlation.unwrap(), &x, &y);
    println!("largest relative error: {gram:e} (gram), {correlation:e} (correlation)");
    assert!(gram < 2e-6 && correlation < 2e-6);
    assert_eq!(sums.gram, sums.gram.transpose());
}

/// Tokens of which every fortieth is a sink: huge in the first channels, always in nearly the same direction.
/// The other channels are small and correlated.
fn with_sinks(rows: usize, channels: usize) -> Mat<f64> {
    let noise = noise("sinks", rows, channels);
    Mat::from_fn(rows, channels, |i, j| {
        let common = noise[(i, 0)];
        match i % 40 == 0 && j < channels / 4 {
            true => 1e4 * (1.0 + 0.1 * j as f64) * (1.0 + 1e-3 * noise[(i, j)]),
            false => 0.1 * (common + 0.05 * noise[(i, j)]),
        }
    })
}

/// Half of the channels re-fitted to targets under the default damping.
fn refitted(gram: &Mat<f64>, correlation: &Mat<f64>) -> Mat<f64> {
    let live: Vec<f64> = (0..gram.nrows()).map(|i| gram[(i, i)]).collect();
    let lambda = 0.01 * (live.iter().map(|d| d.ln()).sum::<f64>() / live.len() as f64).exp();
    let kept = gram.nrows() / 2;
    let system = Mat::from_fn(kept, kept, |i, j| gram[(2 * i, 2 * j)] + if i == j { lambda } else { 0.0 });
    let target = Mat::from_fn(kept, correlation.ncols(), |i, j| correlation[(2 * i, j)]);
    system.partial_piv_lu().solve(&target)
}

#[test]
fn outputs_refitted_beside_massive_activations_are_those_of_sums_in_f64() {
    let (xs, x) = rounded(&with_sinks(2 * BLOCK, 64));
    let (ys, y) = rounded(&(&x * noise("map", 64, 8)));
    let mut sums = Statistics::new(64, Some(8));
    sums.add(&xs, Some(&ys)).unwrap();
    let sums = sums.finish().unwrap();
    let exact = refitted(&(x.transpose() * &x), &(x.transpose() * &y));
    let found = refitted(&sums.gram, &sums.correlation.unwrap());
    let kept = Mat::from_fn(x.nrows(), 32, |i, j| x[(i, 2 * j)]);
    let loss = (&kept * &exact - &y).norm_l2();
    let moved = (&kept * (&found - &exact)).norm_l2();
    println!("{:e} of pruning's own error", moved / loss);
    assert!(moved < 1e-6 * loss);
}

#[test]
fn a_module_wider_than_a_strip_is_summed_whole() {
    let (xs, x) = rounded(&noise("wide", 5, 2100));
    let mut sums = Statistics::new(2100, None);
    sums.add(&xs, None).unwrap();
    let sums = sums.finish().unwrap();
    assert!(sums.correlation.is_none());
    assert!((sums.gram - x.transpose() * &x).norm_max() < 1e-5);
}

#[test]
fn rows_that_do_not_fit_and_numbers_that_are_none_are_errors() {
    let mut sums = Statistics::new(3, Some(2));
    assert_eq!(sums.add(&[1.0; 4], Some(&[1.0; 2])).unwrap_err().kind, Kind::Internal);
    assert_eq!(sums.add(&[1.0; 6], Some(&[1.0; 2])).unwrap_err().kind, Kind::Internal);
    assert_eq!(sums.add(&[1.0; 6], None).unwrap_err().kind, Kind::Internal);
    sums.add(&[], Some(&[])).unwrap();
    sums.add(&[1.0, f32::NAN, 0.0], Some(&[1.0, 1.0])).unwrap();
    assert_eq!(sums.finish().unwrap_err().kind, Kind::Numeric);
}
