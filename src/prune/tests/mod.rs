//! Local pruning against known answers, against brute force, and at its edges.

mod edges;
mod groups;
mod known;
mod laws;
mod magnitude;
mod shrinkage;
mod sums;

use faer::prelude::*;
use faer::{Mat, MatRef};

use super::obs::{Damping, Obs, Problem};
use super::{PrunedLevel, PrunedModule, Units};
use crate::base::{Result, rng};
use crate::space::ModuleKind;
use crate::spec::{DampingMean, Ranking, Saliency, Step};

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
    bare(x.transpose() * x, targets.map(|y| x.transpose() * y), weight)
}

/// A problem whose units the setup gives.
fn bare(gram: Mat<f64>, correlation: Option<Mat<f64>>, weight: Mat<f64>) -> Problem {
    let units = Units { count: weight.nrows(), width: 1 };
    Problem { kind: ModuleKind::Mlp, units, groups: 1, gram, correlation, weight }
}

/// A module's units and how it is pruned.
#[derive(Clone, Copy)]
struct Setup {
    units: usize,
    width: usize,
    step: usize,
    saliency: Saliency,
    ranking: Ranking,
    damping: Damping,
}

fn prune(problem: &Problem, setup: &Setup, removed: &[usize]) -> Result<PrunedModule> {
    let step = Step { heads: setup.step, neurons: setup.step };
    let to_layer = Obs::to_layer(step, setup.damping);
    let obs = Obs { saliency: setup.saliency, ranking: setup.ranking, ..to_layer };
    let units = Units { count: setup.units, width: setup.width };
    obs.solve(&Problem { units, ..problem.clone() }, removed)
}

/// A level's loss, which this method knows.
fn loss(level: &PrunedLevel) -> f64 {
    level.loss.unwrap()
}

/// The paper's damping, a multiple of the arithmetic mean.
fn arithmetic(coefficient: f64) -> Damping {
    Damping { coefficient, mean: DampingMean::Arithmetic }
}

fn setup(units: usize, width: usize, step: usize) -> Setup {
    Setup { units, width, step, saliency: BOTH, ranking: Ranking::Progressive, damping: arithmetic(0.01) }
}

/// The level's B̂ on all channels, \[d_in, d_out\], zero where removed.
fn spread(level: &PrunedLevel, keep_order: &[u32], setup: &Setup) -> Mat<f64> {
    let mut weight = Mat::zeros(setup.units * setup.width, level.weight.nrows());
    for j in 0..level.weight.ncols() {
        let channel = keep_order[j / setup.width] as usize * setup.width + j % setup.width;
        (0..level.weight.nrows()).for_each(|i| weight[(channel, i)] = f64::from(level.weight[(i, j)]));
    }
    weight
}

fn distance(a: MatRef<f64>, b: MatRef<f64>) -> f64 {
    (a - b).norm_max() / b.norm_max().max(1e-300)
}
