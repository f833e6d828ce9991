//! The sparsity that a spec asks of a model: as a fraction, as bounds, as the uniform distribution; and the one
//! that a smaller model reaches.

use crate::base::{Error, Kind, Result};
use crate::fitness::{flops, mean_keys};
use crate::model::Config;
use crate::space::{Bounds, Budget, ModuleId, ModuleKind, Request, Shape, SparsityDistribution};
use crate::spec::{AttentionUnit, Basis, Rounding, SparsityShape, Spec};

/// The fraction of all units that a spec asks to remove from a model.
pub fn fraction(spec: &Spec, config: &Config) -> f64 {
    let target = spec.sparsity.target;
    let shape = config.shape(spec.prune.unit.attention);
    match spec.sparsity.basis {
        Basis::Prunable => target,
        Basis::Total => target * config.parameters().total() as f64 / shape.prunable() as f64,
        Basis::Flops => {
            let of = |kind| unit_cost(spec, config, kind) * shape.units(kind).units as u64;
            let removable = ModuleKind::ALL.into_iter().map(of).sum::<u64>() * shape.layers as u64;
            target * flops(config, spec.calibration.sequence_length) / removable as f64
        }
    }
}

/// What one unit costs in what `sparsity.basis` counts: parameters, or operations for one token.
fn unit_cost(spec: &Spec, config: &Config, kind: ModuleKind) -> u64 {
    let unit = config.shape(spec.prune.unit.attention).units(kind);
    match spec.sparsity.basis {
        Basis::Prunable | Basis::Total => unit.parameters as u64,
        Basis::Flops => {
            let heads = match (kind, spec.prune.unit.attention) {
                (ModuleKind::Mlp, _) => 0,
                (ModuleKind::Attention, AttentionUnit::Head) => 1,
                (ModuleKind::Attention, AttentionUnit::KvGroup) => config.group(),
            };
            let scores = 4.0
                * (heads * config.head_width) as f64
                * mean_keys(config, spec.calibration.sequence_length);
            2 * unit.parameters as u64 + scores as u64
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
/// removes of each kind, or where units may be traded what it keeps of that which `sparsity.basis` counts.
///
/// # Errors
/// As [`uniform`].
pub fn budget(spec: &Spec, config: &Config) -> Result<Budget> {
    let uniform = uniform(spec, config)?;
    if !spec.sparsity.trade {
        return Ok(Budget::units(&uniform));
    }
    let shape = config.shape(spec.prune.unit.attention);
    let per_unit = ModuleKind::ALL.map(|kind| unit_cost(spec, config, kind));
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

/// The fraction of what `sparsity.basis` counts that a smaller model lacks, given both models' sizes and all their
/// parameters.
pub fn reached(
    spec: &Spec,
    [dense, small]: [&Config; 2],
    distribution: &SparsityDistribution,
    [before, after]: [usize; 2],
) -> f64 {
    let lacks = |before: f64, after: f64| 1.0 - after / before;
    let operations = |config| flops(config, spec.calibration.sequence_length);
    match spec.sparsity.basis {
        Basis::Prunable => distribution.sparsity(&dense.shape(spec.prune.unit.attention)),
        Basis::Total => lacks(before as f64, after as f64),
        Basis::Flops => lacks(operations(dense), operations(small)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LayerShape;
    use crate::model::pico::Pico;
    use crate::spec::Sparsity;

    fn spec(basis: Basis, target: f64, trade: bool) -> Spec {
        let mut spec: Spec = toml::from_str(crate::spec::defaults_toml()).unwrap();
        spec.sparsity = Sparsity { basis, target, trade, ..spec.sparsity };
        spec.prune.unit.attention = AttentionUnit::KvGroup;
        spec
    }

    /// What a distribution over whole groups leaves of a model.
    fn small(config: &Config, distribution: &SparsityDistribution) -> Config {
        let shape = config.shape(AttentionUnit::KvGroup);
        let kept = |layer, kind| distribution.kept(&shape, ModuleId { layer, kind });
        let layer = |l| LayerShape {
            query_heads_per_kv: vec![config.group(); kept(l, ModuleKind::Attention)],
            intermediate_size: kept(l, ModuleKind::Mlp),
        };
        Config { layers: (0..config.layers.len()).map(layer).collect(), ..config.clone() }
    }

    #[test]
    fn a_share_of_operations_is_reached_to_a_unit_and_counted_over_the_smaller_model() {
        let config = Pico { layers: 8, ..Pico::default() }.config().unwrap();
        for target in [0.1, 0.25, 0.5] {
            let spec = spec(Basis::Flops, target, false);
            let uniform = uniform(&spec, &config).unwrap();
            let small = small(&config, &uniform);
            let totals = [&config, &small].map(|config| config.parameters().total());
            let reached = reached(&spec, [&config, &small], &uniform, totals);
            let largest =
                ModuleKind::ALL.map(|kind| unit_cost(&spec, &config, kind)).into_iter().max().unwrap();
            let unit = largest as f64 / flops(&config, spec.calibration.sequence_length);
            assert!((reached - target).abs() <= unit, "{target} {reached} {unit}");
            let prunable = uniform.sparsity(&config.shape(AttentionUnit::KvGroup));
            assert!(prunable > target, "the output projection stays");
        }
    }

    #[test]
    fn units_cost_the_operations_that_a_model_without_them_lacks() {
        let config = Pico { layers: 2, ..Pico::default() }.config().unwrap();
        let spec = spec(Basis::Flops, 0.5, false);
        let of = |config: &Config| flops(config, spec.calibration.sequence_length);
        let shape = config.shape(AttentionUnit::KvGroup);
        for kind in ModuleKind::ALL {
            let mut one = SparsityDistribution::dense(&shape);
            one.removed[ModuleId { layer: 1, kind }.index()] = 1;
            let lacks = of(&config) - of(&small(&config, &one));
            assert!((lacks - unit_cost(&spec, &config, kind) as f64).abs() < 1.0, "{kind:?} {lacks}");
        }
    }

    #[test]
    fn the_budget_is_what_the_uniform_distribution_removes_or_keeps() {
        let config = Pico { layers: 8, ..Pico::default() }.config().unwrap();
        let shape = config.shape(AttentionUnit::KvGroup);
        for (basis, target, trades) in
            [(Basis::Prunable, 0.5, false), (Basis::Prunable, 0.5, true), (Basis::Flops, 0.3, true)]
        {
            let spec = spec(basis, target, trades);
            let uniform = uniform(&spec, &config).unwrap();
            let budget = budget(&spec, &config).unwrap();
            assert!(budget.allows(&shape, &uniform), "{basis:?}");
            let mut denser = uniform.clone();
            denser.removed[1] -= 1;
            assert!(!budget.allows(&shape, &denser), "{basis:?}");
            let mut sparser = uniform.clone();
            sparser.removed[1] += 1;
            assert_eq!(budget.allows(&shape, &sparser), trades, "{basis:?}");
        }
    }
}
