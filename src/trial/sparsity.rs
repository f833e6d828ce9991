//! The sparsity that a spec asks of a model: as a fraction, as bounds, as the uniform distribution; and the one
//! that a smaller model reaches.

use crate::base::{Error, Kind, Result};
use crate::model::Config;
use crate::space::{Bounds, Budget, ModuleId, ModuleKind, Request, Shape, SparsityDistribution};
use crate::spec::{AttentionUnit, Basis, Rounding, SparsityShape, Spec};

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
/// the fraction breaks; layers that are all alike and have no heads or no neurons.
pub fn uniform(spec: &Spec, config: &Config) -> Result<SparsityDistribution> {
    let shape = config.shape(spec.prune.unit.attention);
    let fraction = fraction(spec, config);
    let request = match (spec.sparsity.shape, spec.sparsity.rounding) {
        (SparsityShape::Free, Rounding::Total) => Request::Total(fraction),
        (SparsityShape::Free, Rounding::Layer) | (SparsityShape::Uniform, _) => Request::PerLayer(fraction),
    };
    let bounds = bounds(spec, config);
    let uniform = bounds.uniform(&shape, request).and_then(|uniform| {
        if spec.sparsity.shape == SparsityShape::Uniform {
            refuse_empty(spec, &shape, &bounds, fraction, &uniform)?;
        }
        Ok(uniform)
    });
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

/// Refuses layers that are all alike and have no heads, or no neurons, left: no plain family has such layers, and
/// keeping a unit nevertheless would remove less than what is asked.
fn refuse_empty(
    spec: &Spec,
    shape: &Shape,
    bounds: &Bounds,
    fraction: f64,
    uniform: &SparsityDistribution,
) -> Result<()> {
    let units = |kind: &ModuleKind| shape.units(*kind).units;
    let is_empty =
        |kind: &ModuleKind| uniform.removed[ModuleId { layer: 0, kind: *kind }.index()] == units(kind);
    let Some(kind) = ModuleKind::ALL.into_iter().find(is_empty) else { return Ok(()) };
    let (name, multiple) = (named(spec, kind), bounds.multiple(kind));
    let steps = if multiple > 1 { format!(" in steps of {multiple}") } else { String::new() };
    let what = format!(
        "every layer would lose all of its {} {name}: {:.4} of them, rounded to whole ones{steps}, is all, and \
         `sparsity.shape = \"uniform\"` keeps some in each layer",
        units(&kind),
        fraction
    );
    // Up to half a step before all of them, the last step stays.
    let most = |kind: ModuleKind| 1.0 - 0.5 * bounds.multiple(kind) as f64 / units(&kind) as f64;
    let most = ModuleKind::ALL.map(most).into_iter().fold(1.0, f64::min) * spec.sparsity.target / fraction;
    let hint = format!(
        "set sparsity.target to at most {}, or sparsity.shape to \"free\"",
        // Less than half a step, whatever the last bits are.
        ((most * 1000.0 - 1e-6).ceil() - 1.0) / 1000.0
    );
    Err(Error::new(Kind::Search, what).at("sparsity.target").hint(hint))
}

/// The units of a kind that a spec removes.
fn named(spec: &Spec, kind: ModuleKind) -> &'static str {
    match (kind, spec.prune.unit.attention) {
        (ModuleKind::Mlp, _) => "neurons",
        (ModuleKind::Attention, AttentionUnit::Head) => "query heads",
        (ModuleKind::Attention, AttentionUnit::KvGroup) => "key/value heads",
    }
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
