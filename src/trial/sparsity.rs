//! The sparsity that a spec asks of a model: as fractions, as bounds, as the uniform distribution, as the budget of
//! its searches; and the one that a smaller model reaches.

use crate::base::{Error, Kind, Result};
use crate::bench::Latencies;
use crate::fitness::{flops, kv_head_bytes, mean_keys};
use crate::model::{Config, LayerShape};
use crate::space::{Bounds, Budget, Curve, ModuleId, ModuleKind, Request, Shape, SparsityDistribution};
use crate::spec::{AttentionUnit, Basis, Rounding, SparsityShape, Spec};

/// Halvings after which a fraction is known as well as its number can be written.
const HALVINGS: usize = 60;

/// What every module of a model has to keep, as a spec asks. Where query heads leave in rounds of one per
/// key/value head, the kept ones are a multiple of these. Where only the key/value cache counts, all neurons are
/// kept but those that are no multiple.
pub fn bounds(spec: &Spec, config: &Config) -> Bounds {
    let rounds = spec.keeps_equal_heads() && config.group() > 1;
    let heads = if rounds { config.kv_heads } else { 1 };
    let neurons = spec.prune.align.neurons.max(1);
    let keep = &spec.prune.keep_at_least;
    let neurons_at_least = match spec.sparsity.basis {
        Basis::KvBytes => keep.neurons.max(config.neurons / neurons * neurons),
        Basis::Prunable | Basis::Total | Basis::Flops | Basis::Latency => keep.neurons,
    };
    Bounds { multiples: [heads, neurons], at_least: [keep.heads, neurons_at_least] }
}

/// A spec's sparsity on a model.
#[derive(Debug, Clone, Copy)]
pub struct Sizing<'a> {
    spec: &'a Spec,
    config: &'a Config,
    /// There where `sparsity.basis` is time.
    latencies: Option<&'a Latencies>,
}

impl<'a> Sizing<'a> {
    /// Of a spec and the dense model's configuration; `latencies` where `sparsity.basis` is time.
    pub fn new(spec: &'a Spec, config: &'a Config, latencies: Option<&'a Latencies>) -> Self {
        Self { spec, config, latencies }
    }

    fn shape(&self) -> Shape {
        self.config.shape(self.spec.prune.unit.attention)
    }

    fn latencies(&self) -> Result<&'a Latencies> {
        self.latencies.ok_or_else(|| Error::new(Kind::Internal, "modules were not timed"))
    }

    /// The fractions of a module's units to remove, of attention and of the MLP.
    ///
    /// # Errors
    /// Less time than what cannot be removed takes.
    pub fn fractions(&self) -> Result<[f64; 2]> {
        let (spec, config) = (self.spec, self.config);
        let target = spec.sparsity.target;
        let shape = self.shape();
        let both = |fraction| Ok([fraction; 2]);
        match spec.sparsity.basis {
            Basis::Prunable => both(target),
            Basis::Total => both(target * config.parameters().total() as f64 / shape.prunable() as f64),
            Basis::Flops => {
                let of = |kind| self.unit_operations(kind) * shape.units(kind).units as u64;
                let removable = ModuleKind::ALL.into_iter().map(of).sum::<u64>() * shape.layers as u64;
                both(target * flops(config, spec.calibration.sequence_length) / removable as f64)
            }
            Basis::KvBytes => Ok([target, 0.0]),
            Basis::Latency => both(self.fraction_of_time(&shape)?),
        }
    }

    /// The least fraction of all units without which a pass takes no more than the time that is left.
    fn fraction_of_time(&self, shape: &Shape) -> Result<f64> {
        let latencies = self.latencies()?;
        let target = self.spec.sparsity.target;
        let bounds = bounds(self.spec, self.config);
        let dense = latencies.of(shape, &SparsityDistribution::dense(shape));
        let most = ((1.0 - target) * dense as f64) as u64;
        // Within the bounds, nothing but a fraction of less than a unit is refused.
        let takes = |fraction| {
            let removed = bounds.uniform(shape, self.request(fraction));
            removed.map_or(dense, |removed| latencies.of(shape, &removed))
        };
        let removable = |kind: &ModuleKind| {
            let (_, most) = bounds.removable(shape, *kind)?;
            Ok(most as f64 / shape.units(*kind).units.max(1) as f64)
        };
        let all = ModuleKind::ALL.iter().map(removable).collect::<Result<Vec<f64>>>()?;
        let all = all.into_iter().fold(1.0, f64::min);
        if takes(all) > most {
            return Err(self.out_of_reach(1.0 - takes(all) as f64 / dense as f64, latencies));
        }
        let halve = |[few, many]: [f64; 2], _| {
            let half = 0.5 * (few + many);
            if takes(half) > most { [half, many] } else { [few, half] }
        };
        let none = takes(0.0) <= most;
        Ok(if none { 0.0 } else { (0..HALVINGS).fold([0.0, all], halve)[1] })
    }

    /// Time is to be saved that the units which may go do not take.
    fn out_of_reach(&self, reachable: f64, latencies: &Latencies) -> Error {
        let by = if latencies.is_estimate() { ", by operations: modules are not timed yet" } else { "" };
        let what = format!(
            "a pass cannot take {}% less time: without all units that may go it takes {:.1}% less{by}",
            100.0 * self.spec.sparsity.target,
            100.0 * reachable
        );
        let most = (reachable * 1000.0).floor().max(0.0) / 1000.0;
        let hint = format!("set sparsity.target to at most {most:.3}");
        Error::new(Kind::Search, what).at("sparsity.target").hint(hint)
    }

    fn request(&self, fraction: f64) -> Request {
        match (self.spec.sparsity.shape, self.spec.sparsity.rounding) {
            (SparsityShape::Free, Rounding::Total) => Request::Total(fraction),
            (SparsityShape::Free, Rounding::Layer) | (SparsityShape::Uniform, _) => {
                Request::PerLayer(fraction)
            }
        }
    }

    /// Operations of one unit for one token.
    fn unit_operations(&self, kind: ModuleKind) -> u64 {
        let (spec, config) = (self.spec, self.config);
        let heads = match (kind, spec.prune.unit.attention) {
            (ModuleKind::Mlp, _) => 0,
            (ModuleKind::Attention, AttentionUnit::Head) => 1,
            (ModuleKind::Attention, AttentionUnit::KvGroup) => config.group(),
        };
        let scores =
            4.0 * (heads * config.head_width) as f64 * mean_keys(config, spec.calibration.sequence_length);
        2 * self.shape().units(kind).parameters as u64 + scores as u64
    }

    /// What a module costs by the units that it keeps, of attention and of the MLP.
    fn curves(&self) -> Result<[Curve; 2]> {
        let shape = self.shape();
        let linear = |per_unit: &dyn Fn(ModuleKind) -> u64| {
            ModuleKind::ALL.map(|kind| Curve::linear(shape.units(kind).units, per_unit(kind)))
        };
        Ok(match self.spec.sparsity.basis {
            Basis::Prunable | Basis::Total => linear(&|kind| shape.units(kind).parameters as u64),
            Basis::Flops => linear(&|kind| self.unit_operations(kind)),
            Basis::KvBytes => linear(&|kind| match kind {
                ModuleKind::Attention => kv_head_bytes(self.config) as u64,
                ModuleKind::Mlp => 0,
            }),
            Basis::Latency => self.latencies()?.curves(),
        })
    }

    /// The uniform distribution that the sparsity means for the model.
    ///
    /// # Errors
    /// A fraction that cannot be removed, or that is less than one unit; bounds that no module can keep to, or
    /// that the fraction breaks; layers that are all alike and have no heads or no neurons; a cache of key/value
    /// heads that leave only with their query heads.
    pub fn uniform(&self) -> Result<SparsityDistribution> {
        let spec = self.spec;
        self.refuse_shared_heads()?;
        let shape = self.shape();
        let fractions = self.fractions()?;
        let bounds = bounds(spec, self.config);
        let requests = fractions.map(|fraction| self.request(fraction));
        let uniform = bounds.uniform_by_kind(&shape, requests).and_then(|uniform| {
            if spec.sparsity.shape == SparsityShape::Uniform {
                self.refuse_empty(&shape, &bounds, fractions, &uniform)?;
            }
            Ok(uniform)
        });
        uniform.map_err(|e| if e.place.is_some() { e } else { e.at("sparsity.target") })
    }

    /// What the searches of a spec keep constant, from the first interval to the last: what the uniform
    /// distribution removes of each kind, or where units may be traded what it keeps of that which
    /// `sparsity.basis` counts.
    ///
    /// # Errors
    /// As [`Sizing::uniform`].
    pub fn budget(&self) -> Result<Budget> {
        let uniform = self.uniform()?;
        // Neurons take nothing of the cache, so that there is nothing to trade.
        if !self.spec.sparsity.trade || self.spec.sparsity.basis == Basis::KvBytes {
            return Ok(Budget::units(&uniform));
        }
        Ok(Budget::cost(&self.shape(), &uniform, self.curves()?))
    }

    /// Refuses a share of the key/value cache where heads leave one by one and share key/value heads: which of
    /// these go is known only after pruning.
    fn refuse_shared_heads(&self) -> Result<()> {
        let group = self.config.group();
        let single = self.spec.prune.unit.attention == AttentionUnit::Head;
        if self.spec.sparsity.basis != Basis::KvBytes || !single || group == 1 {
            return Ok(());
        }
        let what = format!(
            "the key/value cache shrinks by whole key/value heads, and these leave only with the last of their \
             {group} query heads"
        );
        let hint = "set prune.unit.attention to \"kv_group\"";
        Err(Error::new(Kind::Spec, what).at("prune.unit.attention").hint(hint))
    }

    /// Refuses layers that are all alike and have no heads, or no neurons, left: no plain family has such layers,
    /// and keeping a unit nevertheless would remove less than what is asked.
    fn refuse_empty(
        &self,
        shape: &Shape,
        bounds: &Bounds,
        fractions: [f64; 2],
        uniform: &SparsityDistribution,
    ) -> Result<()> {
        let units = |kind: &ModuleKind| shape.units(*kind).units;
        let is_empty =
            |kind: &ModuleKind| uniform.removed[ModuleId { layer: 0, kind: *kind }.index()] == units(kind);
        let Some(kind) = ModuleKind::ALL.into_iter().find(is_empty) else { return Ok(()) };
        let (name, multiple) = (named(self.spec, kind), bounds.multiple(kind));
        let steps = if multiple > 1 { format!(" in steps of {multiple}") } else { String::new() };
        let what = format!(
            "every layer would lose all of its {} {name}: {:.4} of them, rounded to whole ones{steps}, is all, and \
             `sparsity.shape = \"uniform\"` keeps some in each layer",
            units(&kind),
            fractions[kind as usize]
        );
        // Up to half a step before all of them, the last step stays.
        let most = |kind: ModuleKind| {
            let last = 1.0 - 0.5 * bounds.multiple(kind) as f64 / units(&kind) as f64;
            last * self.spec.sparsity.target / fractions[kind as usize]
        };
        let most = ModuleKind::ALL.map(most).into_iter().fold(f64::INFINITY, f64::min);
        // Less than half a step, whatever the last bits are.
        let most = ((most * 1000.0 - 1e-6).ceil() - 1.0) / 1000.0;
        let lower = match self.spec.sparsity.basis {
            // Time does not fall in proportion.
            Basis::Latency => "lower sparsity.target".to_string(),
            Basis::Prunable | Basis::Total | Basis::Flops | Basis::KvBytes => {
                format!("set sparsity.target to at most {most}")
            }
        };
        let hint = format!("{lower}, or sparsity.shape to \"free\"");
        Err(Error::new(Kind::Search, what).at("sparsity.target").hint(hint))
    }

    /// The fraction of what `sparsity.basis` counts that a smaller model lacks, given its sizes, its distribution
    /// and all parameters of the dense model and of it.
    ///
    /// # Errors
    /// Modules that were not timed.
    pub fn reached(
        &self,
        small: &Config,
        distribution: &SparsityDistribution,
        [before, after]: [usize; 2],
    ) -> Result<f64> {
        let lacks = |before: f64, after: f64| 1.0 - after / before;
        let operations = |config| flops(config, self.spec.calibration.sequence_length);
        let kv_heads = |config: &Config| config.layers.iter().map(LayerShape::kv_heads).sum::<usize>() as f64;
        let shape = self.shape();
        Ok(match self.spec.sparsity.basis {
            Basis::Prunable => distribution.sparsity(&shape),
            Basis::Total => lacks(before as f64, after as f64),
            Basis::Flops => lacks(operations(self.config), operations(small)),
            Basis::KvBytes => lacks(kv_heads(self.config), kv_heads(small)),
            Basis::Latency => {
                let takes = |distribution| self.latencies().map(|l| l.of(&shape, distribution) as f64);
                lacks(takes(&SparsityDistribution::dense(&shape))?, takes(distribution)?)
            }
        })
    }
}

/// The units of a kind that a spec removes.
fn named(spec: &Spec, kind: ModuleKind) -> &'static str {
    match (kind, spec.prune.unit.attention) {
        (ModuleKind::Mlp, _) => "neurons",
        (ModuleKind::Attention, AttentionUnit::Head) => "query heads",
        (ModuleKind::Attention, AttentionUnit::KvGroup) => "key/value heads",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pico::Pico;
    use crate::spec::{Latency, Sparsity};

    const PASS: Latency = Latency { tokens: 1, context: 8 };

    fn spec(basis: Basis, target: f64, trade: bool) -> Spec {
        let mut spec: Spec = toml::from_str(crate::spec::defaults_toml()).unwrap();
        spec.sparsity = Sparsity { basis, target, trade, latency: PASS, ..spec.sparsity };
        spec.prune.unit.attention = AttentionUnit::KvGroup;
        spec
    }

    fn config() -> Config {
        Pico { layers: 8, ..Pico::default() }.config().unwrap()
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
        let config = config();
        for target in [0.1, 0.25, 0.5] {
            let spec = spec(Basis::Flops, target, false);
            let sizing = Sizing::new(&spec, &config, None);
            let uniform = sizing.uniform().unwrap();
            let small = small(&config, &uniform);
            let totals = [&config, &small].map(|config| config.parameters().total());
            let reached = sizing.reached(&small, &uniform, totals).unwrap();
            let largest = ModuleKind::ALL.map(|kind| sizing.unit_operations(kind)).into_iter().max().unwrap();
            let unit = largest as f64 / flops(&config, spec.calibration.sequence_length);
            assert!((reached - target).abs() <= unit, "{target} {reached} {unit}");
            let prunable = uniform.sparsity(&config.shape(AttentionUnit::KvGroup));
            assert!(prunable > target, "the output projection stays");
        }
    }

    #[test]
    fn units_cost_the_operations_that_a_model_without_them_lacks() {
        let config = config();
        let spec = spec(Basis::Flops, 0.5, false);
        let of = |config: &Config| flops(config, spec.calibration.sequence_length);
        let shape = config.shape(AttentionUnit::KvGroup);
        for kind in ModuleKind::ALL {
            let mut one = SparsityDistribution::dense(&shape);
            one.removed[ModuleId { layer: 1, kind }.index()] = 1;
            let lacks = of(&config) - of(&small(&config, &one));
            let cost = Sizing::new(&spec, &config, None).unit_operations(kind);
            assert!((lacks - cost as f64).abs() < 1.0, "{kind:?} {lacks}");
        }
    }

    #[test]
    fn the_budget_is_what_the_uniform_distribution_removes_or_keeps() {
        let config = config();
        let shape = config.shape(AttentionUnit::KvGroup);
        let latencies = Latencies::estimated(&config, AttentionUnit::KvGroup, PASS);
        for (basis, target, trades) in [
            (Basis::Prunable, 0.5, false),
            (Basis::Prunable, 0.5, true),
            (Basis::Flops, 0.3, true),
            (Basis::Latency, 0.3, false),
            (Basis::Latency, 0.3, true),
        ] {
            let spec = spec(basis, target, trades);
            let sizing = Sizing::new(&spec, &config, Some(&latencies));
            let uniform = sizing.uniform().unwrap();
            let budget = sizing.budget().unwrap();
            assert!(budget.allows(&shape, &uniform), "{basis:?}");
            let mut denser = uniform.clone();
            denser.removed[1] -= 1;
            assert!(!budget.allows(&shape, &denser), "{basis:?}");
            let mut sparser = uniform.clone();
            sparser.removed[1] += 1;
            assert_eq!(budget.allows(&shape, &sparser), trades, "{basis:?}");
        }
    }

    #[test]
    fn a_share_of_the_cache_is_a_share_of_groups_and_of_no_neurons() {
        let config = config();
        for (target, trade) in [(0.25, false), (0.5, true)] {
            let spec = spec(Basis::KvBytes, target, trade);
            let sizing = Sizing::new(&spec, &config, None);
            let uniform = sizing.uniform().unwrap();
            assert_eq!(uniform.total(ModuleKind::Mlp), 0);
            assert_eq!(sizing.reached(&small(&config, &uniform), &uniform, [2, 1]).unwrap(), target);
            assert_eq!(sizing.budget().unwrap(), Budget::units(&uniform), "nothing can be traded");
            let bounds = bounds(&spec, &config);
            assert_eq!(bounds.removable(&sizing.shape(), ModuleKind::Mlp).unwrap(), (0, 0));
        }
        let mut aligned = spec(Basis::KvBytes, 0.5, false);
        aligned.prune.align.neurons = 32;
        let uniform = Sizing::new(&aligned, &config, None).uniform().unwrap();
        assert_eq!(uniform.removed[1], config.neurons % 32, "what is no multiple goes all the same");
        let mut single = spec(Basis::KvBytes, 0.5, false);
        single.prune.unit.attention = AttentionUnit::Head;
        let refused = Sizing::new(&single, &config, None).uniform().unwrap_err();
        assert_eq!(refused.place.as_deref(), Some("prune.unit.attention"));
        let own = Pico { kv_heads: 4, heads: 4, ..Pico::default() }.config().unwrap();
        assert!(Sizing::new(&single, &own, None).uniform().is_ok(), "each head has its own");
    }

    /// Times that rise by steps, 1000 of what stays.
    fn stepped(config: &Config) -> Latencies {
        let shape = config.shape(AttentionUnit::KvGroup);
        let times =
            |units: usize, step: usize| (0..=units).map(|kept| (kept, (kept / step) as f64 * 1e-6)).collect();
        let modules = [times(shape.attention.units, 1), times(shape.mlp.units, 16)];
        Latencies { isa: "AVX2".into(), threads: 1, pass: PASS, modules, rest: 1e-6 }
    }

    #[test]
    fn no_more_is_removed_than_the_time_that_is_left_needs() {
        let config = config();
        let shape = config.shape(AttentionUnit::KvGroup);
        let latencies = stepped(&config);
        let dense = latencies.of(&shape, &SparsityDistribution::dense(&shape)) as f64;
        for target in [0.0, 0.05, 0.3, 0.9] {
            let spec = spec(Basis::Latency, target, false);
            let sizing = Sizing::new(&spec, &config, Some(&latencies));
            let uniform = sizing.uniform().unwrap();
            let takes = |removed: &SparsityDistribution| latencies.of(&shape, removed) as f64;
            assert!(takes(&uniform) <= (1.0 - target) * dense, "{target}");
            let reached = sizing.reached(&small(&config, &uniform), &uniform, [2, 1]).unwrap();
            assert!(reached >= target && reached < target + 0.05, "{target} {reached}");
            let fraction = sizing.fractions().unwrap()[0];
            let less = Bounds::NONE.uniform(&shape, Request::Total(fraction - 1e-3));
            assert!(
                target == 0.0 || less.is_ok_and(|less| takes(&less) > (1.0 - target) * dense),
                "{target}"
            );
        }
    }

    #[test]
    fn time_that_nothing_can_save_is_an_error_with_what_can_be_saved() {
        let config = config();
        let mut latencies = stepped(&config);
        latencies.rest = 1e-3;
        let spec = spec(Basis::Latency, 0.5, false);
        let refused = Sizing::new(&spec, &config, Some(&latencies)).uniform().unwrap_err();
        assert_eq!(refused.place.as_deref(), Some("sparsity.target"));
        let hint = refused.hint.unwrap();
        let most: f64 = hint.rsplit(' ').next().unwrap().parse().unwrap();
        let reachable = Spec { sparsity: Sparsity { target: most, ..spec.sparsity.clone() }, ..spec.clone() };
        assert!(Sizing::new(&reachable, &config, Some(&latencies)).uniform().is_ok(), "{hint}");
        let farther =
            Spec { sparsity: Sparsity { target: most + 2e-3, ..spec.sparsity.clone() }, ..spec.clone() };
        assert!(Sizing::new(&farther, &config, Some(&latencies)).uniform().is_err(), "{hint}");
        assert_eq!(Sizing::new(&spec, &config, None).uniform().unwrap_err().kind, Kind::Internal);
    }
}
