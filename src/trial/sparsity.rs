//! The sparsity that a smaller model reaches.

use crate::space::{Shape, SparsityDistribution};
use crate::spec::Basis;

/// The share that is gone from a smaller model, of what `basis` counts. `parameters` are all of the dense
/// model and all of the smaller one.
pub fn reached(
    basis: Basis,
    shape: &Shape,
    distribution: &SparsityDistribution,
    [before, after]: [usize; 2],
) -> f64 {
    match basis {
        Basis::Prunable => distribution.sparsity(shape),
        Basis::Total => 1.0 - after as f64 / before as f64,
    }
}
