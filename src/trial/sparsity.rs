//! The sparsity that a spec asks of a model: as a fraction, as bounds, as the uniform distribution; and the one
//! that a smaller model reaches.

use crate::base::Result;
use crate::model::Config;
use crate::space::{Bounds, Budget, ModuleKind, Request, Shape, SparsityDistribution};
use crate::spec::{Basis, Rounding, SparsityShape, Spec};

/// The fraction of the prunable parameters that a spec asks to remove from a model.
pub fn fraction(spec: &Spec, config: &Config) -> f64 {
    let target = spec.sparsity.target;
    match spec.sparsity.basis {
        Basis::Prunable => target,
        Basis::Total => {
            let prunable = config.shape(spec.prune.unit.attention).prunable();
            target * config.parameters().total() as f64 / prunable as f64
        }
    }
}

/// What every module of a model has to keep, as a spec asks. Where query heads leave in rounds of one per
/// key/value head, the kept ones are a multiple of these.
pub fn bounds(spec: &Spec, config: &Config) -> Bounds {
    let rounds = spec.keeps_equal_heads() && config.group() > 1;
    let heads = if rounds { config.kv_heads } else { 1 };
    let keep = &spec.prune.keep_at_least;
    Bounds { multiples: [heads, spec.prune.align.neurons.max(1)], at_least: [keep.heads, keep.neurons] }
}

/// The uniform distribution that a spec's sparsity means for a model.
///
/// # Errors
/// A fraction that cannot be removed, or that is less than one unit; bounds that no module can keep to, or that
/// the fraction breaks.
pub fn uniform(spec: &Spec, config: &Config) -> Result<SparsityDistribution> {
    let shape = config.shape(spec.prune.unit.attention);
    let fraction = fraction(spec, config);
    let request = match (spec.sparsity.shape, spec.sparsity.rounding) {
        (SparsityShape::Free, Rounding::Total) => Request::Total(fraction),
        (SparsityShape::Free, Rounding::Layer) | (SparsityShape::Uniform, _) => Request::PerLayer(fraction),
    };
    let uniform = bounds(spec, config).uniform(&shape, request);
    uniform.map_err(|e| if e.place.is_some() { e } else { e.at("sparsity.target") })
}

/// What the searches of a spec keep constant, from the first interval to the last: what the uniform distribution
/// removes of each kind, or the parameters that it keeps.
///
/// # Errors
/// As [`uniform`].
pub fn budget(spec: &Spec, config: &Config) -> Result<Budget> {
    let uniform = uniform(spec, config)?;
    if !spec.sparsity.trade {
        return Ok(Budget::units(&uniform));
    }
    let shape = config.shape(spec.prune.unit.attention);
    let per_unit = ModuleKind::ALL.map(|kind| shape.units(kind).parameters as u64);
    Ok(Budget::cost(&shape, &uniform, per_unit))
}

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
