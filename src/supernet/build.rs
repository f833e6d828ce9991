//! Building the supernet layer by layer: collect a module's statistics on the accumulated stream, prune it to
//! all levels, pass its accumulated output on.
//!
//! Two streams of hidden states run through the model: the *accumulated* one, which sees pruned modules, and,
//! when the reconstruction target needs it, the *dense* one. Neither runs for a pruning method that needs no
//! statistics of inputs. A module that is already on disk is not pruned again: its levels are read and passed
//! on, so a build that was stopped resumes with the same result.

use std::sync::Arc;

use candle_core::Tensor;
use safetensors::Dtype;

use super::accumulate::level_weights;
use super::store::{Supernet, module_output, module_weight};
use crate::base::{Result, Watch};
use crate::data::{BATCH_TOKENS, CalibrationSet};
use crate::model::{Layer, Linear, Model};
use crate::prune::collect::{Collected, Collector};
use crate::prune::{Method, Module, Needs, Units, transposed};
use crate::space::{ModuleId, ModuleKind};
use crate::spec::{self, Sequential, Target};
use crate::tensor::attention::{Part, Segments};
use crate::tensor::{add, add_bias, add_difference, linear, stacked, with_slice};

/// A module's inputs are kept from the statistics to the forward pass when they take at most this many bytes;
/// otherwise they are computed twice.
const KEPT_BYTES: usize = 1 << 30;

/// Bytes of a module's inputs of `d_in` channels, and of its dense outputs where weights are fitted to another
/// target than the layer's own output, over all `rows` of the calibration text; none where they are not kept.
pub(super) fn kept_bytes(
    needs: &Needs,
    sequential: Sequential,
    rows: usize,
    d_in: usize,
    hidden: usize,
) -> Option<usize> {
    let width = d_in + if needs.refits_dense() { hidden } else { 0 };
    let bytes = rows * width * size_of::<f32>();
    (sequential == Sequential::Module && bytes <= KEPT_BYTES).then_some(bytes)
}

/// How to build.
#[derive(Debug, Clone)]
pub struct Options {
    /// Local pruning.
    pub method: Arc<dyn Method>,
    /// Levels and accumulation.
    pub supernet: spec::Supernet,
    /// Storage of the levels.
    pub dtype: Dtype,
    /// Seed of the random accumulation.
    pub seed: u64,
    /// Name of the build in random streams: the iteration.
    pub name: String,
    /// Groups of neighbouring units of an attention module that have to lose equally many: 1 where any units may
    /// go, the number of key/value heads where these have to keep equally many query heads.
    pub head_groups: usize,
}

/// One batch of sequences with its streams, [rows, d] each.
struct Batch {
    segments: Segments,
    accumulated: Tensor,
    dense: Option<Tensor>,
}

/// Prunes every module to the levels of the supernet's space and writes them.
///
/// # Errors
/// The user stopped it, the disk is full, or a module's statistics hold no finite numbers.
pub fn build(
    model: &Model,
    supernet: &Supernet,
    calibration: &CalibrationSet,
    options: &Options,
    watch: &dyn Watch,
) -> Result<()> {
    let needs = options.method.needs();
    let batches = if needs.text() { batches(model, calibration, &needs)? } else { vec![] };
    let mut builder = Builder { model, supernet, options, needs, watch, batches };
    let layers = 0..model.config().layers.len();
    let modules = supernet.space().shape.modules() as u64;
    watch.step("supernet", modules, || layers.into_iter().try_for_each(|l| builder.layer(l)))
}

fn batches(model: &Model, calibration: &CalibrationSet, needs: &Needs) -> Result<Vec<Batch>> {
    let two_streams = needs.refits_dense();
    let batch = |tokens: &[u32], length: usize| {
        let accumulated = model.embed(tokens)?;
        let dense = two_streams.then(|| accumulated.clone());
        Ok(Batch { segments: Segments::sequences(tokens.len() / length, length), accumulated, dense })
    };
    let parts = [&calibration.sequences, &calibration.sinks];
    parts
        .iter()
        .flat_map(|part| part.batches(BATCH_TOKENS).map(|tokens| batch(tokens, part.length)))
        .collect()
}

struct Builder<'a> {
    model: &'a Model,
    supernet: &'a Supernet<'a>,
    options: &'a Options,
    needs: Needs,
    watch: &'a dyn Watch,
    batches: Vec<Batch>,
}

impl Builder<'_> {
    fn layer(&mut self, l: usize) -> Result<()> {
        let layer = self.model.layer(l)?;
        match self.options.supernet.sequential {
            Sequential::Layer if self.needs.text() => self.both_modules(&layer, l),
            Sequential::Layer | Sequential::Module => {
                ModuleKind::ALL.iter().try_for_each(|&kind| self.module(&layer, ModuleId { layer: l, kind }))
            }
        }
    }

    /// Prunes one module and passes it on before anything else is looked at.
    fn module(&mut self, layer: &Layer, module: ModuleId) -> Result<()> {
        let inputs = self.prune(layer, module)?;
        self.pass_on(layer, module, inputs)?;
        self.watch.advance(1);
        Ok(())
    }

    /// Prunes both modules on statistics collected with both dense, then passes both on (the released code's
    /// order).
    fn both_modules(&mut self, layer: &Layer, l: usize) -> Result<()> {
        let [attention, mlp] = ModuleKind::ALL.map(|kind| ModuleId { layer: l, kind });
        self.prune(layer, attention)?;
        let before: Vec<_> = self.batches.iter().map(|b| (b.accumulated.clone(), b.dense.clone())).collect();
        self.advance(layer, ModuleKind::Attention, &layer.attention.o, None)?;
        self.prune(layer, mlp)?;
        for (batch, (accumulated, dense)) in self.batches.iter_mut().zip(before) {
            batch.accumulated = accumulated;
            batch.dense = dense;
        }
        for module in [attention, mlp] {
            self.pass_on(layer, module, None)?;
            self.watch.advance(1);
        }
        Ok(())
    }

    /// Builds a module's levels unless they are there; returns the module's inputs when they were computed
    /// and are worth keeping.
    fn prune(&self, layer: &Layer, module: ModuleId) -> Result<Option<Vec<Inputs>>> {
        self.watch.checkpoint()?;
        if self.supernet.has(module, |e| self.watch.note(&format!("{e}; it is rebuilt"))) {
            return Ok(None);
        }
        let space = self.supernet.space();
        let unit = space.shape.units(module.kind);
        let units = Units { count: unit.units, width: unit.width };
        let (collected, inputs) = self.statistics(layer, module.kind, units)?;
        let weight = with_slice(module_weight(layer, module.kind), |w| {
            transposed(w, self.model.config().hidden, units.channels())
        })?;
        let rows = if self.needs.rows { row_squares(layer, module.kind, units)? } else { vec![] };
        let groups = match module.kind {
            ModuleKind::Attention => self.options.head_groups,
            ModuleKind::Mlp => 1,
        };
        let dense = Module { kind: module.kind, units, groups, weight, rows, collected };
        let removed: Vec<usize> = space.levels(module).map(|level| space.removed(module, level)).collect();
        let pruned = self.options.method.prune(dense, &removed).map_err(|e| e.at(module))?;
        pruned.notes.iter().for_each(|note| self.watch.note(&format!("{module}: {note}")));
        self.supernet.write(module, &pruned, self.options.dtype, self.needs.refits_dense())?;
        Ok(inputs)
    }

    /// What the method needs to know of a module's inputs, over all batches.
    fn statistics(
        &self,
        layer: &Layer,
        kind: ModuleKind,
        units: Units,
    ) -> Result<(Collected, Option<Vec<Inputs>>)> {
        if !self.needs.text() {
            return Ok((Collected::default(), None));
        }
        let mut collector = Collector::new(&self.needs, units.channels(), self.model.config().hidden);
        let mut kept = self.keeps(units.channels()).then(Vec::new);
        for (i, batch) in self.batches.iter().enumerate() {
            let inputs = self.inputs(layer, kind, batch)?;
            let target = self.target(batch, &inputs)?;
            let first = self.first_half(i);
            with_slice(&inputs.accumulated, |x| match &target {
                None => collector.add(x, None, first),
                Some(y) => with_slice(y, |y| collector.add(x, Some(y), first)),
            })?;
            kept.iter_mut().for_each(|k| k.push(inputs.clone()));
        }
        Ok((collector.finish()?, kept))
    }

    /// Whether the inputs of a module of `d_in` channels are kept until its output is computed.
    fn keeps(&self, d_in: usize) -> bool {
        let rows: usize = self.batches.iter().map(|b| b.segments.rows()).sum();
        let hidden = self.model.config().hidden;
        kept_bytes(&self.needs, self.options.supernet.sequential, rows, d_in, hidden).is_some()
    }

    /// Rows of a batch that count to the first half of the text: those of half its sequences; single
    /// sequences go to either half in turn.
    fn first_half(&self, batch: usize) -> usize {
        let segments = &self.batches[batch].segments;
        match segments.0.len() {
            1 => segments.rows() * ((batch + 1) % 2),
            sequences => segments.rows() / sequences * (sequences / 2),
        }
    }

    /// Parts of the batch go through the layer one by one, as in [`Model::hidden`].
    fn inputs(&self, layer: &Layer, kind: ModuleKind, batch: &Batch) -> Result<Inputs> {
        let units = self.supernet.space().shape.units(kind);
        let parts = self.model.parts(&batch.segments);
        let of = |stream: &Tensor, part: &Part| {
            let rows = stream.narrow(0, part.rows.start, part.rows.len())?;
            match kind {
                ModuleKind::Attention => {
                    self.model.attention_context(&layer.attention, &rows, &part.segments)
                }
                ModuleKind::Mlp => self.model.mlp_activations(&layer.mlp, &rows),
            }
        };
        let output = |stream: &Tensor| {
            let of = |part: &Part| linear(&of(stream, part)?, module_weight(layer, kind));
            stacked(&parts, self.model.config().hidden, of)
        };
        Ok(Inputs {
            accumulated: stacked(&parts, units.units * units.width, |part| of(&batch.accumulated, part))?,
            dense_output: batch.dense.as_ref().map(output).transpose()?,
        })
    }

    /// The reconstruction target Y before shrinkage: XB, or R + XB − R̃; none for the layer target.
    fn target(&self, batch: &Batch, inputs: &Inputs) -> Result<Option<Tensor>> {
        let (Some(stream), Some(y)) = (&batch.dense, &inputs.dense_output) else { return Ok(None) };
        match self.needs.gram.map(|gram| gram.target) {
            Some(Target::Residual) => Ok(Some(add_difference(y, stream, &batch.accumulated)?)),
            Some(Target::Dense) => Ok(Some(y.clone())),
            Some(Target::Layer) | None => Ok(None),
        }
    }

    /// Adds a module's accumulated output to the accumulated stream and its dense output to the dense one.
    fn pass_on(&mut self, layer: &Layer, module: ModuleId, inputs: Option<Vec<Inputs>>) -> Result<()> {
        if self.batches.is_empty() {
            return Ok(());
        }
        let mode = self.options.supernet.accumulation;
        let level_weights =
            level_weights(mode, self.supernet.space(), module, self.options.seed, &self.options.name);
        let dense = module_output(layer, module.kind);
        let mean = level_weights
            .map(|level_weights| self.supernet.mean(module, &level_weights, dense))
            .transpose()?;
        self.advance(layer, module.kind, mean.as_ref().unwrap_or(dense), inputs)
    }

    /// The same with a stand-in for the module's output projection on the accumulated stream.
    fn advance(
        &mut self,
        layer: &Layer,
        kind: ModuleKind,
        accumulated: &Linear,
        inputs: Option<Vec<Inputs>>,
    ) -> Result<()> {
        let dense = module_output(layer, kind);
        let mut kept = inputs.map(Vec::into_iter);
        for i in 0..self.batches.len() {
            let inputs = match kept.as_mut().and_then(Iterator::next) {
                Some(inputs) => inputs,
                None => self.inputs(layer, kind, &self.batches[i])?,
            };
            let batch = &mut self.batches[i];
            batch.accumulated = accumulated.onto(&batch.accumulated, &inputs.accumulated)?;
            if let (Some(stream), Some(output)) = (&batch.dense, &inputs.dense_output) {
                batch.dense = Some(add(stream, &add_bias(output.clone(), dense.bias.as_ref())?)?);
            }
        }
        Ok(())
    }
}

/// Squared norm of the rows that each unit owns before the module: of q and, where every unit has key/value
/// heads of its own, of k and v; of gate and up.
fn row_squares(layer: &Layer, kind: ModuleKind, units: Units) -> Result<Vec<f64>> {
    let attention = &layer.attention;
    let own_kv = attention.kv_of.last().is_some_and(|&last| last + 1 == units.count);
    let matrices: &[&Linear] = match kind {
        ModuleKind::Attention if own_kv => &[&attention.q, &attention.k, &attention.v],
        ModuleKind::Attention => &[&attention.q],
        ModuleKind::Mlp => &[&layer.mlp.gate, &layer.mlp.up],
    };
    let mut squares = vec![0.0; units.count];
    for matrix in matrices {
        with_slice(&matrix.weight, |weight| {
            let rows = weight.chunks_exact(weight.len() / units.count);
            let sum = |rows: &[f32]| rows.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>();
            squares.iter_mut().zip(rows).for_each(|(square, rows)| *square += sum(rows));
            Ok(())
        })?;
    }
    Ok(squares)
}

/// One module's inputs and dense outputs, for one batch.
#[derive(Clone)]
struct Inputs {
    /// X̃, the inputs on the accumulated stream, [rows, d_in].
    accumulated: Tensor,
    /// XB, the dense model's output without its bias, [rows, d].
    dense_output: Option<Tensor>,
}
