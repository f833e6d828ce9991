//! Local pruning against known answers, against brute force, and at its edges.

mod blend;
mod edges;
mod known;
mod laws;
mod sums;

use faer::prelude::*;
use faer::{Mat, MatRef};

use super::{Damping, Level, Problem, Rule, prune};
use crate::base::rng;
use crate::spec::{DampingMean, Ranking, Saliency};

const BOTH: Saliency = Saliency { first_order: true, second_order: true };

/// Uniform numbers in [-1, 1) from a named stream.
fn noise(name: &str, rows: usize, columns: usize) -> Mat<f64> {
    use rand::RngExt as _;
    let mut stream = rng::stream(11, name);
    Mat::from_fn(rows, columns, |_, _| stream.random_range(-1.0..1.0))
}

/// Inputs whose channels are correlated.
fn inputs(name: &str, rows: usize, columns: usize) -> Mat<f64> {
    noise(name, rows, columns)
        * (Mat::<f64>::identity(columns, columns) + Scale(0.4) * noise("mix", columns, columns))
}

fn problem(x: &Mat<f64>, weight: Mat<f64>, targets: Option<&Mat<f64>>) -> Problem {
    Problem { gram: x.transpose() * x, correlation: targets.map(|y| x.transpose() * y), weight }
}

/// The paper's damping, a share of the arithmetic mean.
fn arithmetic(share: f64) -> Damping {
    Damping { share, mean: DampingMean::Arithmetic }
}

fn rule(units: usize, width: usize, step: usize) -> Rule {
    Rule { units, width, step, saliency: BOTH, ranking: Ranking::Progressive, damping: arithmetic(0.01) }
}

/// The level's B̂ on all channels, \[d_in, d_out\], zero where removed.
fn spread(level: &Level, order: &[u32], rule: &Rule) -> Mat<f64> {
    let mut weight = Mat::zeros(rule.units * rule.width, level.weight.nrows());
    for j in 0..level.weight.ncols() {
        let channel = order[j / rule.width] as usize * rule.width + j % rule.width;
        (0..level.weight.nrows()).for_each(|i| weight[(channel, i)] = f64::from(level.weight[(i, j)]));
    }
    weight
}

fn distance(a: MatRef<f64>, b: MatRef<f64>) -> f64 {
    (a - b).norm_max() / b.norm_max().max(1e-300)
}
