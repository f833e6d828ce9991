//! What building a supernet costs: statistics, local pruning at every level, and the pass onward, module by
//! module; and what writing a model of it costs.

use std::sync::Arc;

use super::build::kept_bytes;
use crate::base::Work;
use crate::data::{self, BATCH_TOKENS};
use crate::model::Config;
use crate::model::cost::{self, THREADS, Tokens, attention_inputs, layer_parameters, mlp_inputs, output};
use crate::model::decoder::PART_ROWS;
use crate::prune::cost::{Size, collecting};
use crate::prune::{self, Method, Needs, Units};
use crate::space::{ModuleId, ModuleKind, Space};
use crate::spec::{Accumulation, Sequential, Spec};

/// Bytes of an f32.
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
        let needs = self.needs();
        let of = |m: &Size| {
            // The file's header and the record beside it.
            let records = 180.0 + 100.0 * m.made(&needs).len() as f64;
            m.made_elements(&needs) * self.stored + 4.0 * m.units.count as f64 + records
        };
        self.modules().map(|m| of(&m)).sum()
    }

    /// Memory that building takes beside what is there already, mapped files apart, bytes.
    pub fn memory(&self) -> f64 {
        let layer = if cost::is_resident(self.config) { 0.0 } else { layer_parameters(self.config) * SINGLE };
        let busiest = self.modules().map(|m| self.module_memory(&m)).fold(0.0, f64::max);
        layer + self.stream_bytes() + busiest
    }

    fn method(&self) -> Arc<dyn Method> {
        prune::method(&self.spec.prune)
    }

    fn needs(&self) -> Needs {
        self.method().needs()
    }

    fn modules(&self) -> impl Iterator<Item = Size> {
        (0..self.space.shape.modules()).map(|i| self.size(ModuleId::from_index(i)))
    }

    fn size(&self, module: ModuleId) -> Size {
        let unit = self.space.shape.units(module.kind);
        let removed = self.space.levels(module).map(|level| self.space.removed(module, level));
        Size {
            kind: module.kind,
            units: Units { count: unit.units, width: unit.width },
            outputs: self.config.hidden,
            removed: removed.collect(),
        }
    }

    /// Streams of hidden states: none for a method that needs no text, the accumulated one, and the dense one
    /// when the target needs it.
    fn streams(&self) -> f64 {
        match self.needs() {
            needs if !needs.text() => 0.0,
            needs if needs.refits_dense() => 2.0,
            _ => 1.0,
        }
    }

    /// Tokens of the sequences and the sink tokens, as if these came in long sequences too: they need a
    /// little less attention.
    fn tokens(&self) -> Tokens {
        Tokens::new(self.spec.calibration.tokens + self.sink_tokens(), self.spec.calibration.sequence_length)
    }

    /// Largest number of sink tokens; a text with fewer different tokens has fewer.
    fn sink_tokens(&self) -> usize {
        let calibration = &self.spec.calibration;
        calibration.sink_tokens.min(calibration.tokens).min(self.config.vocabulary)
    }

    fn stream_bytes(&self) -> f64 {
        self.tokens().count * self.config.hidden as f64 * SINGLE * self.streams()
    }

    /// Bytes of a module's inputs and dense outputs over all tokens when they are kept between statistics and
    /// pass onward, else 0.
    fn kept_inputs(&self, m: &Size) -> f64 {
        let rows = self.spec.calibration.tokens + self.sink_tokens();
        let sequential = self.spec.supernet.sequential;
        kept_bytes(&self.needs(), sequential, rows, m.units.channels(), self.config.hidden).unwrap_or(0)
            as f64
    }

    /// How often a module's inputs are computed.
    fn passes(&self, m: &Size) -> f64 {
        match (self.spec.supernet.sequential, m.kind) {
            (Sequential::Layer, ModuleKind::Attention) => 3.0,
            (Sequential::Layer, ModuleKind::Mlp) => 2.0,
            (Sequential::Module, _) if self.kept_inputs(m) > 0.0 => 1.0,
            (Sequential::Module, _) => 2.0,
        }
    }

    fn module(&self, m: &Size) -> Work {
        let method = self.method();
        let local = method.cost(m).work;
        if !method.needs().text() {
            return local;
        }
        let onward = if self.spec.supernet.sequential == Sequential::Layer && m.kind == ModuleKind::Attention
        {
            2.0
        } else {
            1.0
        };
        let inputs = self.inputs(m.kind) * (self.passes(m) * self.streams());
        let dense = self.passes(m) * (self.streams() - 1.0);
        inputs
            + output(self.config, m.d_in(), self.tokens().count) * (onward + dense)
            + collecting(&method.needs(), m, self.tokens().count, self.batch()).work
            + local
            + self.mean(m)
    }

    fn inputs(&self, kind: ModuleKind) -> Work {
        let c = self.config;
        match kind {
            ModuleKind::Attention => attention_inputs(c, c.heads as f64, c.kv_heads as f64, self.tokens()),
            ModuleKind::Mlp => mlp_inputs(c, c.neurons as f64, self.tokens()),
        }
    }

    /// Rows of one batch of sequences.
    fn batch(&self) -> usize {
        let calibration = &self.spec.calibration;
        data::batch(BATCH_TOKENS, calibration.sequence_length.max(1)).min(calibration.tokens)
    }

    /// The mean weight that is passed on.
    fn mean(&self, m: &Size) -> Work {
        let needs = self.needs();
        let has_dense = !needs.refits_dense() && m.removed.first() == Some(&0);
        let all = m.made_elements(&needs) + if has_dense { self.dense_copy(m) } else { 0.0 };
        let weights = match self.spec.supernet.accumulation {
            Accumulation::None => 0.0,
            Accumulation::Single | Accumulation::Random => 2.0 * all / m.made(&needs).len().max(1) as f64,
            Accumulation::Uniform | Accumulation::Expectation => 2.0 * all,
        };
        Work { weights, ..Work::default() }
    }

    /// Elements moved to bring the checkpoint's own weight in keep order.
    fn dense_copy(&self, m: &Size) -> f64 {
        let again = if cost::is_resident(self.config) { 0.0 } else { layer_parameters(self.config) };
        again + m.d_in() * m.d_out()
    }

    /// The most that one module takes beside the streams: while statistics are collected, while it is pruned,
    /// or while it is written.
    fn module_memory(&self, m: &Size) -> f64 {
        let method = self.method();
        let needs = method.needs();
        let pruning = method.cost(m).memory;
        // What was pruned may still be resident while its levels are written: memory is given back late.
        let writing = m.problem(&needs) + self.writing(m, &needs);
        if !needs.text() {
            return pruning.max(writing);
        }
        let collecting = collecting(&needs, m, self.tokens().count, self.batch()).memory;
        let collecting = collecting + self.batch_memory(m);
        self.kept_inputs(m) + collecting.max(pruning).max(writing)
    }

    /// The levels, in f32, in the storage dtype, and in the file's bytes.
    fn writing(&self, m: &Size, needs: &Needs) -> f64 {
        m.made_elements(needs) * (SINGLE + 2.0 * self.stored)
    }

    /// What one batch's inputs, outputs and targets take, and what each thread has at once: one part's activations.
    fn batch_memory(&self, m: &Size) -> f64 {
        let c = self.config;
        let rows = self.batch() as f64;
        let part = (self.spec.calibration.sequence_length.max(PART_ROWS) as f64).min(rows);
        let d = c.hidden as f64;
        let channels = match m.kind {
            ModuleKind::Attention => d + (c.head_width * (2 * c.heads + 2 * c.kv_heads)) as f64,
            ModuleKind::Mlp => d + 3.0 * c.neurons as f64,
        };
        SINGLE * (rows * (m.d_in() + self.streams() * d) + THREADS * part * channels)
    }
}

/// Writing a smaller model of `stored` bytes a number.
pub fn compaction(config: &Config, dense: &Config, stored: f64) -> Work {
    let small = config.parameters().total() as f64;
    let all = dense.parameters().total() as f64;
    Work {
        weights: 2.0 * all + 3.0 * small,
        written: small * stored,
        read: 2.0 * small * stored,
        ..Work::default()
    }
}

/// Memory of writing a smaller model: the largest matrix, whole, cut and in the storage dtype.
pub fn compaction_memory(dense: &Config, stored: f64) -> f64 {
    let d = dense.hidden as f64;
    let m = dense.neurons as f64;
    let largest = (dense.vocabulary as f64 * d).max(m * d);
    largest * (2.0 * SINGLE + stored)
}
