//! Building the supernet layer by layer: collect a module's statistics on the accumulated stream, prune it to
//! all levels, pass its accumulated output on.
//!
//! Two streams of hidden states run through the model: the *accumulated* one, which sees pruned modules, and,
//! when the reconstruction target needs it, the *dense* one. A module that is already on disk is not pruned
//! again: its levels are read and passed on, so a build that was stopped goes on with the same result.

use candle_core::Tensor;
use faer::Mat;
use safetensors::Dtype;

use super::accumulate::shares;
use super::store::{Supernet, module_weight};
use crate::base::{Result, Watch};
use crate::data::CalibrationSet;
use crate::model::{Layer, Model};
use crate::prune::gram::{Statistics, Sums};
use crate::prune::{self, Damping, Problem, Rule, blend, transposed};
use crate::space::{ModuleId, ModuleKind};
use crate::spec::{self, Sequential, Shrink, Target};
use crate::tensor::attention::Segments;
use crate::tensor::{add_bias, with_slice};

/// Tokens of one batch of windows, about.
pub const BATCH_TOKENS: usize = 4096;

/// What enters a module is kept from the statistics to the pass onward when they take at most this many
/// bytes; else they are computed twice.
pub const KEPT_BYTES: usize = 1 << 30;

/// How to build.
#[derive(Debug, Clone)]
pub struct Options {
    /// Local pruning.
    pub prune: spec::Prune,
    /// Levels and accumulation.
    pub supernet: spec::Supernet,
    /// Storage of the levels.
    pub dtype: Dtype,
    /// Seed of the random accumulation.
    pub seed: u64,
    /// Name of the build in random streams: the iteration.
    pub name: String,
}

/// One batch of windows with its streams, [rows, d] each.
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
    let mut builder =
        Builder { model, supernet, options, watch, batches: batches(model, calibration, options)? };
    let layers = 0..model.config().layers.len();
    let modules = supernet.space().shape.modules() as u64;
    watch.step("supernet", modules, || layers.into_iter().try_for_each(|l| builder.layer(l)))
}

fn batches(model: &Model, calibration: &CalibrationSet, options: &Options) -> Result<Vec<Batch>> {
    let two_streams = options.prune.target != Target::Layer && options.prune.blend > 0.0;
    let batch = |tokens: &[u32], length: usize| {
        let accumulated = model.embed(tokens)?;
        let dense = two_streams.then(|| accumulated.clone());
        Ok(Batch { segments: Segments::windows(tokens.len() / length, length), accumulated, dense })
    };
    let parts = [&calibration.windows, &calibration.starts];
    parts
        .iter()
        .flat_map(|part| part.batches(BATCH_TOKENS).map(|tokens| batch(tokens, part.length)))
        .collect()
}

struct Builder<'a> {
    model: &'a Model,
    supernet: &'a Supernet<'a>,
    options: &'a Options,
    watch: &'a dyn Watch,
    batches: Vec<Batch>,
}

impl Builder<'_> {
    fn layer(&mut self, l: usize) -> Result<()> {
        let layer = self.model.layer(l)?;
        match self.options.supernet.sequential {
            Sequential::Module => {
                ModuleKind::ALL.iter().try_for_each(|&kind| self.module(&layer, ModuleId { layer: l, kind }))
            }
            Sequential::Layer => self.both_modules(&layer, l),
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
        self.advance(layer, ModuleKind::Attention, &layer.attention.o.weight, None)?;
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

    /// Makes a module's levels unless they are there; gives the module's inputs when they were computed and
    /// are worth keeping.
    fn prune(&self, layer: &Layer, module: ModuleId) -> Result<Option<Vec<Inputs>>> {
        self.watch.checkpoint()?;
        if self.supernet.has(module, |e| self.watch.note(&format!("{e}; it is made anew"))) {
            return Ok(None);
        }
        let (halves, inputs) = self.statistics(layer, module)?;
        let d_in = halves.0.gram.nrows();
        let weight = with_slice(module_weight(layer, module.kind), |w| {
            transposed(w, self.model.config().hidden, d_in)
        })?;
        let problem = self.problem(module, halves, weight)?;
        let removed: Vec<usize> = self
            .supernet
            .space()
            .levels(module)
            .map(|level| self.supernet.space().removed(module, level))
            .collect();
        let pruned = prune::prune(&problem, &self.rule(module.kind), &removed).map_err(|e| e.at(module))?;
        pruned.notes.iter().for_each(|note| self.watch.note(&format!("{module}: {note}")));
        self.supernet.write(module, &pruned, self.options.dtype, problem.correlation.is_some())?;
        Ok(inputs)
    }

    /// The reconstruction problem of a module from the sums over the text, or over each half of it.
    fn problem(&self, module: ModuleId, (first, second): Halves, weight: Mat<f64>) -> Result<Problem> {
        let (sums, shares) = match second {
            None => (first, vec![self.options.prune.blend; weight.ncols()]),
            Some(second) => {
                let shares = self.shares(module, [&first, &second], &weight)?;
                (first.with(&second), shares)
            }
        };
        let correlation = blend::blended(&sums, &weight, &shares);
        Ok(Problem { gram: sums.gram, correlation, weight })
    }

    /// How far the module's target goes beyond the layer's own output, for each output channel.
    fn shares(&self, module: ModuleId, halves: [&Sums; 2], weight: &Mat<f64>) -> Result<Vec<f64>> {
        let prune = &self.options.prune;
        let agreed = blend::agreed(halves, weight, Damping::from(prune)).map_err(|e| e.at(module))?;
        if agreed.is_none() {
            self.watch
                .note(&format!("{module}: one window of text has no two halves to compare; the blend stays"));
        }
        Ok(agreed
            .unwrap_or_else(|| vec![1.0; weight.ncols()])
            .into_iter()
            .map(|share| prune.blend * share)
            .collect())
    }

    fn rule(&self, kind: ModuleKind) -> Rule {
        let unit = self.supernet.space().shape.units(kind);
        let prune = &self.options.prune;
        let step = match kind {
            ModuleKind::Attention => prune.step.heads,
            ModuleKind::Mlp => prune.step.neurons,
        };
        let saliency = prune.saliency;
        let ranking = prune.ranking;
        let damping = Damping::from(prune);
        Rule { units: unit.units, width: unit.width, step, saliency, ranking, damping }
    }

    /// X̃ᵀX̃ and, for a target other than the layer's, X̃ᵀY over all batches, or over each half of the text
    /// where the halves are to be compared.
    fn statistics(&self, layer: &Layer, module: ModuleId) -> Result<(Halves, Option<Vec<Inputs>>)> {
        let unit = self.supernet.space().shape.units(module.kind);
        let d_in = unit.units * unit.width;
        let d_out = self.model.config().hidden;
        let new = || Statistics::new(d_in, self.batches[0].dense.is_some().then_some(d_out));
        let mut first = new();
        let mut second = self.halves().then(new);
        let mut kept = self.keeps(d_in).then(Vec::new);
        for (i, batch) in self.batches.iter().enumerate() {
            let inputs = self.inputs(layer, module.kind, batch)?;
            let target = self.target(batch, &inputs)?;
            let rows = self.first_half(i);
            with_slice(&inputs.accumulated, |x| match (&target, &mut second) {
                (None, _) => first.add(x, None),
                (Some(y), None) => with_slice(y, |y| first.add(x, Some(y))),
                (Some(y), Some(second)) => with_slice(y, |y| {
                    first.add(&x[..rows * d_in], Some(&y[..rows * d_out]))?;
                    second.add(&x[rows * d_in..], Some(&y[rows * d_out..]))
                }),
            })?;
            kept.iter_mut().for_each(|k| k.push(inputs.clone()));
        }
        Ok(((first.finish()?, second.map(Statistics::finish).transpose()?), kept))
    }

    /// Whether what enters a module of `d_in` channels is kept until it is passed on.
    fn keeps(&self, d_in: usize) -> bool {
        let rows: usize = self.batches.iter().map(|b| b.segments.rows()).sum();
        let width = d_in + if self.batches[0].dense.is_some() { self.model.config().hidden } else { 0 };
        rows * width * 4 <= KEPT_BYTES
    }

    /// Whether two halves of the text are to be compared.
    fn halves(&self) -> bool {
        self.options.prune.shrink == Shrink::Halves && self.batches[0].dense.is_some()
    }

    /// Rows of a batch that count to the first half of the text: those of half its windows; single windows go
    /// to either half in turn.
    fn first_half(&self, batch: usize) -> usize {
        let segments = &self.batches[batch].segments;
        match segments.0.len() {
            1 => segments.rows() * ((batch + 1) % 2),
            windows => segments.rows() / windows * (windows / 2),
        }
    }

    fn inputs(&self, layer: &Layer, kind: ModuleKind, batch: &Batch) -> Result<Inputs> {
        let of = |stream: &Tensor| match kind {
            ModuleKind::Attention => self.model.attention_context(&layer.attention, stream, &batch.segments),
            ModuleKind::Mlp => self.model.mlp_activations(&layer.mlp, stream),
        };
        let output = |stream: &Tensor| crate::tensor::linear(&of(stream)?, module_weight(layer, kind));
        Ok(Inputs {
            accumulated: of(&batch.accumulated)?,
            dense_output: batch.dense.as_ref().map(output).transpose()?,
        })
    }

    /// Y of the reconstruction in full: XB, or R + XB − R̃; none for the layer target.
    fn target(&self, batch: &Batch, inputs: &Inputs) -> Result<Option<Tensor>> {
        let (Some(stream), Some(y)) = (&batch.dense, &inputs.dense_output) else { return Ok(None) };
        match self.options.prune.target {
            Target::Residual => Ok(Some((y + (stream - &batch.accumulated)?)?)),
            Target::Dense | Target::Layer => Ok(Some(y.clone())),
        }
    }

    /// Adds a module's accumulated output to the accumulated stream and its dense output to the dense one.
    fn pass_on(&mut self, layer: &Layer, module: ModuleId, inputs: Option<Vec<Inputs>>) -> Result<()> {
        let mode = self.options.supernet.accumulation;
        let shares = shares(mode, self.supernet.space(), module, self.options.seed, &self.options.name);
        let weight = match shares {
            None => module_weight(layer, module.kind).clone(),
            Some(shares) => self.supernet.mean_weight(module, &shares)?,
        };
        self.advance(layer, module.kind, &weight, inputs)
    }

    fn advance(
        &mut self,
        layer: &Layer,
        kind: ModuleKind,
        weight: &Tensor,
        inputs: Option<Vec<Inputs>>,
    ) -> Result<()> {
        let linear = match kind {
            ModuleKind::Attention => &layer.attention.o,
            ModuleKind::Mlp => &layer.mlp.down,
        };
        let mut kept = inputs.map(Vec::into_iter);
        for i in 0..self.batches.len() {
            let inputs = match kept.as_mut().and_then(Iterator::next) {
                Some(inputs) => inputs,
                None => self.inputs(layer, kind, &self.batches[i])?,
            };
            let batch = &mut self.batches[i];
            batch.accumulated =
                (&batch.accumulated + linear.with_weight(weight.clone()).forward(&inputs.accumulated)?)?;
            if let (Some(stream), Some(output)) = (&batch.dense, &inputs.dense_output) {
                batch.dense = Some((stream + add_bias(output.clone(), linear.bias.as_ref())?)?);
            }
        }
        Ok(())
    }
}

/// Sums over the text, or over each half of it where the halves are to be compared.
type Halves = (Sums, Option<Sums>);

/// What one module is given and must give, for one batch.
#[derive(Clone)]
struct Inputs {
    /// X̃, the inputs on the accumulated stream, [rows, d_in].
    accumulated: Tensor,
    /// XB, the dense model's output without its bias, [rows, d].
    dense_output: Option<Tensor>,
}
