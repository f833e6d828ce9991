//! What building a supernet costs: statistics, local pruning at every level, and the pass onward, module by
//! module.

use crate::base::Work;
use crate::eval::cost as evaluating;
use crate::model::Config;
use crate::model::cost::{self, Tokens, attention_inputs, layer_parameters, mlp_inputs, output};
use crate::prune::gram::BLOCK;
use crate::space::{ModuleId, ModuleKind, Space};
use crate::spec::{Accumulation, Sequential, Shrink, Spec, Target};
use crate::supernet::KEPT_BYTES;

/// Bytes of an f64 and of an f32.
const DOUBLE: f64 = 8.0;
const SINGLE: f64 = 4.0;

/// A supernet that is to be built.
pub struct Building<'a> {
    /// The dense model.
    pub config: &'a Config,
    /// Its levels.
    pub space: &'a Space,
    /// The experiment.
    pub spec: &'a Spec,
    /// Bytes of a stored number.
    pub stored: f64,
}

/// One module with its sizes.
struct Module {
    kind: ModuleKind,
    /// Input channels.
    channels: f64,
    /// Channels kept at each stored level, from the densest on.
    levels: Vec<f64>,
    /// Whether one of them is the checkpoint's own.
    has_dense: bool,
}

impl Building<'_> {
    /// Operations.
    pub fn work(&self) -> Work {
        let modules: Work = self.modules().map(|m| self.module(&m)).sum();
        let bytes = self.disk();
        modules
            + cost::conversions(self.config, 1.0)
            + Work { written: bytes, read: bytes, ..Work::default() }
    }

    /// Bytes written.
    pub fn disk(&self) -> f64 {
        let of = |m: &Module| {
            let unit = self.space.shape.units(m.kind);
            let seals = 180.0 + 100.0 * m.levels.len() as f64; // the file's header and the seal beside it
            self.level_elements(m) * self.stored + 4.0 * unit.units as f64 + seals
        };
        self.modules().map(|m| of(&m)).sum()
    }

    /// Memory that building takes beside what is there already, mapped files apart, bytes.
    pub fn memory(&self) -> f64 {
        let layer = if cost::is_resident(self.config) { 0.0 } else { layer_parameters(self.config) * SINGLE };
        let busiest = self.modules().map(|m| self.module_memory(&m)).fold(0.0, f64::max);
        layer + self.stream_bytes() + busiest
    }

    fn modules(&self) -> impl Iterator<Item = Module> {
        (0..self.space.shape.modules()).map(|i| self.of(ModuleId::from_index(i)))
    }

    fn of(&self, module: ModuleId) -> Module {
        let unit = self.space.shape.units(module.kind);
        let removed = self.space.levels(module).map(|level| self.space.removed(module, level));
        let refitted = self.streams() > 1.0;
        let levels = removed
            .clone()
            .filter(|&r| refitted || r > 0)
            .map(|r| ((unit.units - r) * unit.width) as f64)
            .collect();
        Module {
            kind: module.kind,
            channels: (unit.units * unit.width) as f64,
            levels,
            has_dense: !refitted && removed.min() == Some(0),
        }
    }

    fn level_elements(&self, m: &Module) -> f64 {
        m.levels.iter().sum::<f64>() * self.config.hidden as f64
    }

    /// Streams of hidden states: the accumulated one, and the dense one when the target needs it.
    fn streams(&self) -> f64 {
        let two = self.spec.prune.target != Target::Layer && self.spec.prune.blend > 0.0;
        if two { 2.0 } else { 1.0 }
    }

    /// Tokens of the windows and of the starts, as if those were windows too: they ask for a little less
    /// attention.
    fn tokens(&self) -> Tokens {
        Tokens::new(self.spec.calibration.tokens + self.starts(), self.spec.calibration.sequence_length)
    }

    /// Starts at most; a text with fewer different tokens has fewer.
    fn starts(&self) -> usize {
        let calibration = &self.spec.calibration;
        calibration.starts.min(calibration.tokens).min(self.config.vocabulary)
    }

    fn stream_bytes(&self) -> f64 {
        self.tokens().count * self.config.hidden as f64 * SINGLE * self.streams()
    }

    /// Whether the sums over two halves of the text are compared.
    fn halves(&self) -> bool {
        self.streams() > 1.0 && self.spec.prune.shrink == Shrink::Halves
    }

    /// Bytes of a module's inputs and dense outputs over all tokens when they are kept between statistics and
    /// pass onward, else 0.
    fn kept_inputs(&self, m: &Module) -> f64 {
        let width = m.channels + (self.streams() - 1.0) * self.config.hidden as f64;
        let bytes = self.tokens().count * width * SINGLE;
        let kept = bytes <= KEPT_BYTES as f64 && self.spec.supernet.sequential == Sequential::Module;
        if kept { bytes } else { 0.0 }
    }

    /// How often a module's inputs are computed.
    fn passes(&self, m: &Module) -> f64 {
        match (self.spec.supernet.sequential, m.kind) {
            (Sequential::Layer, ModuleKind::Attention) => 3.0,
            (Sequential::Layer, ModuleKind::Mlp) => 2.0,
            (Sequential::Module, _) if self.kept_inputs(m) > 0.0 => 1.0,
            (Sequential::Module, _) => 2.0,
        }
    }

    fn module(&self, m: &Module) -> Work {
        let onward = if self.spec.supernet.sequential == Sequential::Layer && m.kind == ModuleKind::Attention
        {
            2.0
        } else {
            1.0
        };
        let inputs = self.inputs(m.kind) * (self.passes(m) * self.streams());
        let dense = self.passes(m) * (self.streams() - 1.0);
        inputs
            + output(self.config, m.channels, self.tokens().count) * (onward + dense)
            + self.statistics(m)
            + self.local(m)
            + self.mean(m)
    }

    fn inputs(&self, kind: ModuleKind) -> Work {
        let c = self.config;
        match kind {
            ModuleKind::Attention => attention_inputs(c, c.heads as f64, c.kv_heads as f64, self.tokens()),
            ModuleKind::Mlp => mlp_inputs(c, c.neurons as f64, self.tokens()),
        }
    }

    /// Gram matrix and correlation.
    fn statistics(&self, m: &Module) -> Work {
        let d = self.config.hidden as f64;
        let t = self.tokens().count;
        let p = m.channels;
        let blocks = (t / self.block_rows()).ceil();
        let gram = Work { products: p * p * t, elements: p * p / 2.0 * blocks, ..Work::default() };
        if self.streams() < 2.0 {
            return gram;
        }
        let correlation = Work { products: 2.0 * p * d * t, elements: p * d * blocks, ..Work::default() };
        gram + correlation + Work { solves: self.blending(m), ..Work::default() }
    }

    /// Operations of comparing the halves and of mixing the targets.
    fn blending(&self, m: &Module) -> f64 {
        let d = m.channels;
        let o = self.config.hidden as f64;
        let mixing = if self.halves() || self.spec.prune.blend < 1.0 { 2.0 * d * d * o } else { 0.0 };
        mixing + if self.halves() { 12.0 * d * d * o + 2.0 * d.powi(3) / 3.0 } else { 0.0 }
    }

    /// Rows of one product that is added to the sums.
    fn block_rows(&self) -> f64 {
        (self.batch() as f64).min(BLOCK as f64)
    }

    /// Rows of one batch of windows.
    fn batch(&self) -> usize {
        evaluating::batch(Tokens::new(self.spec.calibration.tokens, self.spec.calibration.sequence_length))
    }

    /// Local pruning of one module to all levels; the parts are those of the table in `prune`.
    fn local(&self, m: &Module) -> Work {
        let d = m.channels;
        let o = self.config.hidden as f64;
        let removed = d - m.levels.iter().copied().fold(d, f64::min);
        let densest = m.levels.iter().copied().fold(0.0, f64::max);
        let energy = 2.0 * d * d * o;
        let inverse = d * d * d;
        let updates = removed * (d - removed / 2.0) * d + 2.0 * d * o * removed;
        let start = if self.streams() > 1.0 { 2.0 * d * d * o } else { 0.0 };
        let refit =
            densest.powi(3) / 3.0 + densest * densest * o + m.levels.iter().map(|k| k * k * o).sum::<f64>();
        let steps = (removed / self.step(m.kind)).ceil();
        let sweeps = steps * d * o / 4.0; // each step passes over what is left of the weight in f64
        let copies = self.level_elements(m) * 4.0 + 6.0 * d * o + 3.0 * d * d;
        Work {
            solves: energy + inverse + updates + start + refit,
            elements: sweeps,
            weights: copies,
            ..Work::default()
        }
    }

    /// Channels of one step.
    fn step(&self, kind: ModuleKind) -> f64 {
        let (step, width) = match kind {
            ModuleKind::Attention => (self.spec.prune.step.heads, self.space.shape.attention.width),
            ModuleKind::Mlp => (self.spec.prune.step.neurons, 1),
        };
        (step * width).max(1) as f64
    }

    /// The mean weight that is passed on.
    fn mean(&self, m: &Module) -> Work {
        let all = self.level_elements(m) + if m.has_dense { self.dense_copy(m) } else { 0.0 };
        let weights = match self.spec.supernet.accumulation {
            Accumulation::None => 0.0,
            Accumulation::Single | Accumulation::Random => 2.0 * all / m.levels.len().max(1) as f64,
            Accumulation::Uniform | Accumulation::Expectation => 2.0 * all,
        };
        Work { weights, ..Work::default() }
    }

    /// Elements moved to bring the checkpoint's own weight in order of survival.
    fn dense_copy(&self, m: &Module) -> f64 {
        let again = if cost::is_resident(self.config) { 0.0 } else { layer_parameters(self.config) };
        again + m.channels * self.config.hidden as f64
    }

    /// The most that one module takes beside the streams: while statistics are collected, while it is pruned,
    /// or while it is written.
    fn module_memory(&self, m: &Module) -> f64 {
        let d = m.channels;
        let o = self.config.hidden as f64;
        let two = self.streams() > 1.0;
        let halves = if self.halves() { 2.0 } else { 1.0 };
        let sums = d * d * DOUBLE + if two { d * o * DOUBLE } else { 0.0 };
        let problem = sums + d * o * DOUBLE;
        let collecting = halves * (sums + d * d.max(o).min(2048.0) * SINGLE) + self.batch_memory(m.kind);
        let comparing = if self.halves() { 2.0 * sums + DOUBLE * (d * d + 6.0 * d * o) } else { 0.0 };
        self.kept_inputs(m) + collecting.max(comparing).max(problem + self.pruning(m).max(self.writing(m)))
    }

    /// Activations of one batch.
    fn batch_memory(&self, kind: ModuleKind) -> f64 {
        let c = self.config;
        let rows = self.batch() as f64;
        let d = c.hidden as f64;
        let channels = match kind {
            ModuleKind::Attention => d + (c.head_width * (2 * c.heads + 2 * c.kv_heads)) as f64,
            ModuleKind::Mlp => d + 3.0 * c.neurons as f64,
        };
        rows * SINGLE * (channels + self.streams() * d)
    }

    /// Beside the problem: three weights, then the larger of removal and refit, and the levels.
    fn pruning(&self, m: &Module) -> f64 {
        let d = m.channels;
        let o = self.config.hidden as f64;
        let densest = m.levels.iter().copied().fold(0.0, f64::max);
        let first_order = if self.spec.prune.saliency.first_order { 1.0 } else { 0.0 };
        let removal = 2.0 * d * d + (1.0 + first_order) * d * o + 160.0 * d;
        let refit = densest * densest + 2.0 * densest * o + self.level_elements(m) * SINGLE / DOUBLE;
        DOUBLE * (3.0 * d * o + removal.max(refit))
    }

    /// Beside the problem: the levels, in f32, in the storage dtype, and in the file's bytes.
    fn writing(&self, m: &Module) -> f64 {
        self.level_elements(m) * (SINGLE + 2.0 * self.stored)
    }
}
