//! The sparsity that a smaller model reaches.

use crate::space::{Shape, SparsityDistribution};
use crate::spec::Basis;

/// The fraction of what `basis` counts that a smaller model lacks, given all parameters of the dense model and
/// of the smaller one.
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
