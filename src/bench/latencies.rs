//! What modules take by the units that they keep: a table, measured ([`super::modules`]) or estimated, and the time of
//! whole models that follows from it.

use serde::{Deserialize, Serialize};

use crate::model::cost::{self, Tokens};
use crate::model::{Config, LayerShape};
use crate::space::{Curve, ModuleKind, Shape, SparsityDistribution};
use crate::spec::{AttentionUnit, Latency};

/// Sizes of a kind of module that are timed, beside the empty one, at most.
const SIZES: usize = 16;
/// What stands for a machine where nothing was measured.
const ESTIMATED: &str = "estimated";
/// Nanoseconds of a second.
const NANO: f64 = 1e9;

/// Seconds of a pass by the sizes of its modules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// What computed, as [`crate::tensor::isa`] names it.
    pub isa: String,
    /// How many threads did.
    pub threads: usize,
    /// What was timed.
    pub pass: Latency,
    /// Units that an attention module keeps, and an MLP, ascending, each with the seconds of one module; never less
    /// for more units.
    pub modules: [Vec<(usize, f64)>; 2],
    /// Seconds of everything else: the embedding, the layers' own work, the output projection.
    pub rest: f64,
}

impl Latencies {
    /// What a module takes by the units that it keeps, nanoseconds, of attention and of the MLP.
    pub fn curves(&self) -> [Curve; 2] {
        let nanoseconds = |&(kept, seconds): &(usize, f64)| (kept, (seconds * NANO).round() as u64);
        self.modules.each_ref().map(|sizes| Curve::through(sizes.iter().map(nanoseconds)))
    }

    /// What a model of a distribution takes, nanoseconds.
    pub fn of(&self, shape: &Shape, distribution: &SparsityDistribution) -> u64 {
        (self.rest * NANO).round() as u64 + Curve::total(&self.curves(), shape, distribution)
    }

    /// By the operations that a pass takes, at one of them a nanosecond, for use before anything is measured.
    pub fn estimated(config: &Config, unit: AttentionUnit, pass: Latency) -> Self {
        let shape = config.shape(unit);
        let seconds = |flops: f64| flops / NANO;
        let of = |kind, kept| seconds(operations(config, &layer_of(config, unit, kind, kept), pass));
        let modules = ModuleKind::ALL.map(|kind| {
            let sizes = sizes(shape.units(kind).units);
            std::iter::once(0).chain(sizes).map(|kept| (kept, of(kind, kept))).collect()
        });
        let rest = seconds(cost::logits(config, 1.0).flops());
        Self { isa: ESTIMATED.into(), threads: rayon::current_num_threads(), pass, modules, rest }
    }

    /// Whether operations stand for time.
    pub fn is_estimate(&self) -> bool {
        self.isa == ESTIMATED
    }

    /// What to know of them where they were measured by something else than what computes now.
    pub fn foreign(&self) -> Option<String> {
        let (isa, threads) = (crate::tensor::isa(), rayon::current_num_threads());
        let same = self.isa == isa && self.threads == threads;
        (!same).then(|| {
            format!(
                "modules were timed with {} on {} threads, and {isa} on {threads} computes now: the stored times count, \
                 until `tyr cache --prune --step latency` removes them",
                self.isa, self.threads
            )
        })
    }

    /// The dense model's time and the machine's, for people.
    pub fn summary(&self, shape: &Shape) -> String {
        let dense = self.of(shape, &SparsityDistribution::dense(shape)) as f64;
        let [attention, mlp] = self.modules.each_ref().map(|sizes| sizes.last().map_or(0.0, |(_, s)| *s));
        let share = |seconds: f64| 100.0 * seconds * NANO / dense;
        let Latency { tokens, context } = self.pass;
        format!(
            "{tokens} token{} after {context} take the dense model {:.3} ms with {} on {} thread{}: {:.0}% attention, \
             {:.0}% MLPs, {:.0}% what is not pruned",
            if tokens == 1 { "" } else { "s" },
            dense / 1e6,
            self.isa,
            self.threads,
            if self.threads == 1 { "" } else { "s" },
            share(attention * shape.layers as f64),
            share(mlp * shape.layers as f64),
            share(self.rest),
        )
    }
}

/// The sizes of a module of so many units that are timed: all, or as many evenly spaced ones, ascending; the empty one
/// is none of them.
pub fn sizes(units: usize) -> Vec<usize> {
    let count = units.min(SIZES);
    (1..=count).map(|i| units * i / count).collect()
}

/// A layer whose module of a kind keeps some units and whose other module none. Single query heads lie over as many
/// key/value heads as there are.
pub fn layer_of(config: &Config, unit: AttentionUnit, kind: ModuleKind, kept: usize) -> LayerShape {
    let (heads, neurons) = match kind {
        ModuleKind::Attention => (kept, 0),
        ModuleKind::Mlp => (0, kept),
    };
    let query_heads_per_kv = match unit {
        AttentionUnit::KvGroup => vec![config.group(); heads],
        AttentionUnit::Head => LayerShape::spread(heads, heads.min(config.kv_heads)),
    };
    LayerShape { query_heads_per_kv, intermediate_size: neurons }
}

/// Operations of one layer for the tokens of a pass.
pub(super) fn operations(config: &Config, layer: &LayerShape, pass: Latency) -> f64 {
    let earlier = 4.0 * (layer.heads() * config.head_width) as f64 * (pass.context * pass.tokens) as f64;
    cost::layer(config, layer, Tokens::new(pass.tokens, pass.tokens)).flops() + earlier
}
