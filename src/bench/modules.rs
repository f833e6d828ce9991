//! Timing modules of several sizes: models of a few layers that hold nothing but them are written, and run by the code
//! that runs every smaller model.
//!
//! Their weights are made up, which changes no time. What a layer takes without any module is timed too, and taken off.
//! Before each pass weights of the dense model are read, as the layers before would be, so that caches hold no more
//! of the module than they would in a model. Models are timed in turn, and of each the least time counts: whatever else
//! the machine does only adds to it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Tensor;
use safetensors::Dtype;
use serde_json::json;

use super::latencies::{self, Latencies, layer_of, sizes};
use super::timing::pass_over;
use crate::base::{Error, Kind, Result, Watch, Work, files};
use crate::generate::cache::{Cache, Part, extend, reads_stored};
use crate::generate::stream::CHUNK;
use crate::model::cost::layer_parameters;
use crate::model::save::{save, with_layers};
use crate::model::{Config, LayerShape, Model, Source};
use crate::space::ModuleKind;
use crate::spec::{AttentionUnit, Latency};
use crate::tensor;

/// Times that each model is timed.
const ROUNDS: usize = 12;
/// Bytes of stored weights that the layers of a timed model have at least, where all layers have more: few, so that
/// a pass is over before the system turns to other work.
const TIMED_BYTES: f64 = 8e6;
/// Bytes of weights that are read before each pass: more than caches hold.
const EVICTING: usize = 128 << 20;
/// Tokens that a timed model knows.
const VOCABULARY: usize = 16;
/// Part of the context by which it may grow before it is filled anew.
const GROWTH: usize = 32;

/// What is timed.
pub struct Timed<'a> {
    /// The dense model.
    pub model: &'a Model,
    /// Units of attention.
    pub unit: AttentionUnit,
    /// As smaller models are stored.
    pub dtype: Dtype,
    /// What they do.
    pub pass: Latency,
}

/// Refuses a pass that a model with a context of so many tokens does not do.
///
/// # Errors
/// Of kind [`Kind::Spec`].
pub fn check(pass: Latency, context: usize) -> Result<()> {
    if pass.tokens.saturating_add(pass.context) <= context {
        return Ok(());
    }
    let what = format!(
        "{} tokens after {} are more than the model's context of {context}",
        pass.tokens, pass.context
    );
    let hint = match context.checked_sub(pass.tokens) {
        Some(most) => format!("set sparsity.latency.context to at most {most}"),
        None => format!("set sparsity.latency.tokens to at most {context}"),
    };
    Err(Error::new(Kind::Spec, what).at("sparsity.latency").hint(hint))
}

/// Layers of a timed model.
fn layers(config: &Config, bytes_of_a_weight: f64) -> usize {
    let layer = layer_parameters(config) * bytes_of_a_weight;
    ((TIMED_BYTES / layer.max(1.0)).ceil() as usize).clamp(1, config.layers.len())
}

/// What timing takes: passes over models whose modules have half of their units, and reading weights before. Timed
/// models are written, and read once.
pub fn work(config: &Config, unit: AttentionUnit, pass: Latency, bytes_of_a_weight: f64) -> Work {
    let shape = config.shape(unit);
    let layers = layers(config, bytes_of_a_weight) as f64;
    let timed = |kind: ModuleKind| sizes(shape.units(kind).units).len() as f64;
    let models: f64 = ModuleKind::ALL.into_iter().map(timed).sum();
    let once = latencies::operations(config, &config.dense_layer(), pass) * layers / 4.0;
    let fill = Latency { tokens: pass.context, context: 0 };
    let filled = latencies::operations(
        config,
        &layer_of(config, unit, ModuleKind::Attention, shape.attention.units),
        fill,
    );
    let written = layer_parameters(config) * layers / 4.0 * models;
    Work {
        products: once * models * 2.0 * ROUNDS as f64 + filled * layers / 2.0 * timed(ModuleKind::Attention),
        weights: written * (2.0 + ROUNDS as f64),
        read: written * bytes_of_a_weight,
        written: written * bytes_of_a_weight,
        ..Work::default()
    }
}

/// Bytes of timed models that lie on disk meanwhile.
pub fn disk(config: &Config, unit: AttentionUnit, bytes_of_a_weight: f64) -> f64 {
    let shape = config.shape(unit);
    let models: usize = ModuleKind::ALL.into_iter().map(|kind| sizes(shape.units(kind).units).len()).sum();
    layer_parameters(config) * layers(config, bytes_of_a_weight) as f64 / 4.0
        * models as f64
        * bytes_of_a_weight
}

/// Bytes of memory that timing takes: the largest timed model in f32, and what it keeps of the context.
pub fn memory(config: &Config, pass: Latency, bytes_of_a_weight: f64) -> f64 {
    let layers = layers(config, bytes_of_a_weight) as f64;
    let kept = (2 * config.kv_heads * config.head_width * (pass.context + pass.tokens)) as f64;
    4.0 * layers * (layer_parameters(config) + kept * sizes(config.kv_heads).len() as f64)
}

/// One model that is timed.
struct Subject {
    folder: PathBuf,
    /// Tokens that its cache holds before the pass.
    context: usize,
    cache: Option<Cache>,
    seconds: Vec<f64>,
}

impl Timed<'_> {
    /// Times modules of all sizes that the table has; the models for it are written into `scratch`, which is
    /// emptied before and removed after.
    ///
    /// # Errors
    /// A pass that the model does not do, those of writing and running models, and a stop requested through
    /// `watch`.
    pub fn measure(&self, scratch: &Path, watch: &dyn Watch) -> Result<Latencies> {
        check(self.pass, self.model.config().context)?;
        let clear = || if scratch.exists() { files::remove_folder(scratch) } else { Ok(()) };
        clear()?;
        let measured = self.measure_in(scratch, watch);
        clear()?;
        measured
    }

    fn measure_in(&self, scratch: &Path, watch: &dyn Watch) -> Result<Latencies> {
        let config = self.model.config();
        let shape = config.shape(self.unit);
        let modules: Vec<(ModuleKind, usize)> = ModuleKind::ALL
            .into_iter()
            .flat_map(|kind| sizes(shape.units(kind).units).into_iter().map(move |kept| (kind, kept)))
            .collect();
        let layers = layers(config, self.dtype.bitsize() as f64 / 8.0);
        let empty = LayerShape { query_heads_per_kv: vec![], intermediate_size: 0 };
        let shapes = modules.iter().map(|&(kind, kept)| layer_of(config, self.unit, kind, kept));
        let shapes: Vec<LayerShape> = std::iter::once(empty).chain(shapes).collect();
        let steps = shapes.len() * (ROUNDS + 1) + ROUNDS;
        watch.step("latencies", steps as u64, || {
            let write = |(i, layer): (usize, &LayerShape)| {
                watch.checkpoint()?;
                let subject = self.write(&scratch.join(i.to_string()), layer, layers);
                watch.advance(1);
                subject
            };
            let mut subjects: Vec<Subject> = shapes.iter().enumerate().map(write).collect::<Result<_>>()?;
            let mut logits = Vec::new();
            for _ in 0..ROUNDS {
                for subject in &mut subjects {
                    watch.checkpoint()?;
                    let seconds = self.time(subject)?;
                    subject.seconds.push(seconds);
                    watch.advance(1);
                }
                logits.push(self.time_logits()?);
                watch.advance(1);
            }
            let seconds: Vec<f64> = subjects.into_iter().map(|subject| least(&subject.seconds)).collect();
            Ok(self.table(&modules, &seconds, layers, least(&logits)))
        })
    }

    /// The table of times: of a model of empty layers, then of those of modules, and of a row of logits.
    fn table(&self, modules: &[(ModuleKind, usize)], times: &[f64], layers: usize, logits: f64) -> Latencies {
        let empty = times.first().copied().unwrap_or_default();
        let of_module = |time: &f64| ((time - empty) / layers as f64).max(0.0);
        let seconds: Vec<f64> = times.iter().skip(1).map(of_module).collect();
        let of_kind = |wanted: ModuleKind| {
            let (sizes, seconds): (Vec<usize>, Vec<f64>) = modules
                .iter()
                .zip(&seconds)
                .filter(|((kind, _), _)| *kind == wanted)
                .map(|((_, kept), seconds)| (*kept, *seconds))
                .unzip();
            std::iter::once((0, 0.0)).chain(sizes.into_iter().zip(rising(&seconds))).collect()
        };
        let all = self.model.config().layers.len() as f64;
        Latencies {
            isa: tensor::isa().into(),
            threads: rayon::current_num_threads(),
            pass: self.pass,
            modules: ModuleKind::ALL.map(of_kind),
            rest: empty * all / layers as f64 + logits,
        }
    }

    /// Writes a model of alike layers.
    fn write(&self, folder: &Path, layer: &LayerShape, layers: usize) -> Result<Subject> {
        let mut base = self.model.config().clone();
        base.vocabulary = VOCABULARY;
        base.raw.insert("vocab_size".into(), json!(VOCABULARY));
        base.raw.insert("num_hidden_layers".into(), json!(layers));
        if let Some(types) = base.raw.get_mut("layer_types").and_then(|types| types.as_array_mut()) {
            types.truncate(layers);
        }
        let config = with_layers(&base, vec![layer.clone(); layers])?;
        files::create_dir(folder)?;
        // No file goes along with the weights.
        let nothing = Source::folder(folder)?;
        save(folder, &config, &nothing, self.dtype, |tensor| Ok(made_up(tensor.shape.iter().product())))?;
        // Layers without attention keep nothing of a context; one token makes the next one a later one.
        let context = if layer.heads() > 0 { self.pass.context } else { self.pass.context.min(1) };
        Ok(Subject { folder: folder.to_path_buf(), context, cache: None, seconds: vec![] })
    }

    /// Seconds of one pass, after one that touches all weights.
    fn time(&self, subject: &mut Subject) -> Result<f64> {
        let model = Model::open(&Source::folder(&subject.folder)?, self.model.device())?;
        let tokens = tokens(self.pass.tokens);
        let mut cache = self.filled(&model, subject)?;
        run(&model, &tokens, &mut cache)?;
        subject.cache = Some(cache);
        let mut cache = self.filled(&model, subject)?;
        pass_over(self.model, EVICTING);
        let started = Instant::now();
        run(&model, &tokens, &mut cache)?;
        let seconds = started.elapsed().as_secs_f64();
        subject.cache = Some(cache);
        Ok(seconds)
    }

    /// The model's cache, filled as far as the pass wants, or a little farther.
    fn filled(&self, model: &Model, subject: &mut Subject) -> Result<Cache> {
        let most = subject.context + subject.context / GROWTH;
        if let Some(cache) = subject.cache.take().filter(|cache| cache.length() <= most) {
            return Ok(cache);
        }
        let mut cache = Cache::new(model);
        run(model, &tokens(subject.context), &mut cache)?;
        Ok(cache)
    }

    /// Seconds of a row of logits, after one that touches the output projection.
    fn time_logits(&self) -> Result<f64> {
        let model = self.model;
        let width = model.config().hidden;
        let hidden = Tensor::from_vec(made_up(width), (1, width), model.device())?;
        let stored = reads_stored(model, self.pass.tokens, self.pass.context);
        let row = || match stored {
            true => rayon::scope(|_| model.few_logits(&hidden)),
            false => model.next_logits(&hidden),
        };
        row()?;
        pass_over(model, EVICTING);
        let started = Instant::now();
        row()?.device().synchronize()?;
        Ok(started.elapsed().as_secs_f64())
    }
}

/// Runs the next tokens of a text as it would be read or written: a prompt in parts, one token in the pool.
fn run(model: &Model, tokens: &[u32], cache: &mut Cache) -> Result<()> {
    for tokens in tokens.chunks(CHUNK) {
        let stored = reads_stored(model, tokens.len(), cache.length());
        let parts = &mut [Part { tokens, cache }];
        let hidden = match stored {
            true => rayon::scope(|_| extend(model, parts)),
            false => extend(model, parts),
        };
        hidden?.device().synchronize()?;
    }
    Ok(())
}

fn least(seconds: &[f64]) -> f64 {
    seconds.iter().copied().fold(f64::INFINITY, f64::min)
}

/// Tokens of a timed model's vocabulary.
fn tokens(count: usize) -> Vec<u32> {
    (0..count).map(|i| (i % VOCABULARY) as u32).collect()
}

/// Weights that are neither zero nor alike.
fn made_up(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 2_654_435_761) % 1000) as f32 / 20_000.0 - 0.025).collect()
}

/// The nearest values that never fall, by least squares: neighbours that do share their mean.
pub(super) fn rising(values: &[f64]) -> Vec<f64> {
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for &value in values {
        let mut pool = (value, 1);
        while let Some(&(mean, count)) = pools.last().filter(|(mean, _)| *mean > pool.0) {
            pool = ((mean * count as f64 + pool.0 * pool.1 as f64) / (count + pool.1) as f64, count + pool.1);
            pools.pop();
        }
        pools.push(pool);
    }
    pools.into_iter().flat_map(|(mean, count)| std::iter::repeat_n(mean, count)).collect()
}
