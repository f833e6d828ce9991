//! The key/value cache of a text: every layer keeps what its own heads need, and a layer without heads keeps
//! nothing.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::base::{Error, Kind, Result};
use crate::model::stored::StoredLayer;
use crate::model::{Layer, Matrix, Model};
use crate::tensor::attention::Heads;
use crate::tensor::cached::Kv;
use crate::tensor::stored::FEW;
use crate::tensor::{rms_norm, swiglu};

/// What a model keeps of one text.
#[derive(Debug)]
pub struct Cache {
    length: usize,
    layers: Vec<Kv>,
}

impl Cache {
    /// An empty cache for a model.
    pub fn new(model: &Model) -> Self {
        let layers = model.config().layers.iter().map(|l| Kv::new(l.kv_heads(), model.device())).collect();
        Self { length: 0, layers }
    }

    /// Tokens that were run.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Bytes of all layers' keys and values.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(Kv::bytes).sum()
    }
}

/// The next tokens of a text, with what is kept of its earlier ones.
pub struct Part<'a> {
    /// The next tokens.
    pub tokens: &'a [u32],
    /// The cache, which they are added to.
    pub cache: &'a mut Cache,
}

/// Runs the next tokens of several texts at once: the last layer's output [Σ tokens, d], text after text.
///
/// # Errors
/// A token outside the vocabulary, or a text longer than the model's context. The caches are of no use after
/// an error.
pub fn extend(model: &Model, parts: &mut [Part]) -> Result<Tensor> {
    let weights = Weights::for_parts(model, parts);
    run(model, weights, parts)
}

/// Runs the next tokens of several texts at once and gives the logits [texts, V] of what follows each.
///
/// # Errors
/// As [`extend`]; a text without a next token.
pub fn next_logits(model: &Model, parts: &mut [Part]) -> Result<Tensor> {
    if parts.iter().any(|part| part.tokens.is_empty()) {
        return Err(Error::new(Kind::Internal, "a text without a next token has no logits"));
    }
    let mut end = 0;
    let ends: Vec<u32> = parts
        .iter()
        .map(|part| {
            end += part.tokens.len() as u32;
            end - 1
        })
        .collect();
    let last = |hidden: Tensor| -> Result<Tensor> {
        Ok(hidden.index_select(&Tensor::from_iter(ends.clone(), hidden.device())?, 0)?)
    };
    let weights = Weights::for_parts(model, parts);
    match weights {
        Weights::Wide => model.next_logits(&last(run(model, weights, parts)?)?),
        // Inside the pool, where the many short loops of a token hand nothing over between threads.
        Weights::Stored => rayon::scope(|_| model.few_logits(&last(run(model, weights, parts)?)?)),
    }
}

/// How a pass reads the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weights {
    /// As they are stored: once, for the few rows of a pass that writes one token per text. Prompts, which come
    /// first, have shown that all weights are numbers.
    Stored,
    /// In f32, for many rows.
    Wide,
}

impl Weights {
    fn for_parts(model: &Model, parts: &[Part]) -> Self {
        match parts.iter().all(|part| is_writing(part.tokens.len(), part.cache.length)) {
            true => Self::to_write(model, parts.len()),
            false => Self::Wide,
        }
    }

    /// For one token of each text.
    fn to_write(model: &Model, texts: usize) -> Self {
        match model.device().is_cpu() && texts <= FEW {
            true => Self::Stored,
            false => Self::Wide,
        }
    }
}

/// Whether the next tokens of a text after so many others are one that is being written.
fn is_writing(tokens: usize, length: usize) -> bool {
    tokens == 1 && length > 0
}

/// Whether a pass over the next tokens of one text after so many others reads weights as they are stored.
pub fn reads_stored(model: &Model, tokens: usize, length: usize) -> bool {
    is_writing(tokens, length) && Weights::to_write(model, 1) == Weights::Stored
}

/// Bytes of weights that writing one token of each of so many texts reads: all but an embedding that gives no
/// logits, of which single rows are read.
///
/// # Errors
/// The checkpoint lacks the embedding.
pub fn step_bytes(model: &Model, texts: usize) -> Result<usize> {
    let config = model.config();
    let embedding = config.required(Matrix::Embedding, 0)?;
    let passed_over = !config.tied;
    Ok(match Weights::to_write(model, texts) {
        Weights::Stored => {
            let embedding = model.checkpoint().rows(&embedding)?.1.len();
            model.checkpoint().bytes() - if passed_over { embedding } else { 0 }
        }
        Weights::Wide => {
            let parameters = config.parameters();
            let embedding = if passed_over { parameters.of(Matrix::Embedding) } else { 0 };
            (parameters.total() - embedding) * size_of::<f32>()
        }
    })
}

fn run(model: &Model, weights: Weights, parts: &mut [Part]) -> Result<Tensor> {
    let tokens: Vec<u32> = parts.iter().flat_map(|p| p.tokens).copied().collect();
    for part in parts.iter_mut() {
        part.cache.length += part.tokens.len();
        check_length(model, part.cache.length)?;
    }
    (0..model.config().layers.len()).try_fold(model.embed(&tokens)?, |x, l| match weights {
        Weights::Stored => write_layer(model, &model.stored_layer(l), l, &x, parts),
        Weights::Wide => run_layer(model, &*model.layer(l)?, l, &x, parts),
    })
}

fn check_length(model: &Model, length: usize) -> Result<()> {
    let context = model.config().context;
    if length > context {
        return Err(Error::new(
            Kind::Data,
            format!("a text of {length} tokens is longer than the model's context of {context}"),
        )
        .hint("give a shorter prompt or ask for fewer tokens"));
    }
    Ok(())
}

fn run_layer(model: &Model, layer: &Layer, l: usize, x: &Tensor, parts: &mut [Part]) -> Result<Tensor> {
    let attention = &layer.attention;
    let h = rms_norm(x, &attention.norm, model.config().norm_epsilon)?;
    let inputs = [attention.q.forward(&h)?, attention.k.forward(&h)?, attention.v.forward(&h)?];
    let x = (x + attention.o.forward(&context(model, &attention.kv_of, l, inputs, parts)?)?)?;
    Ok((&x + layer.mlp.down.forward(&model.mlp_activations(&layer.mlp, &x)?)?)?)
}

/// The same for one token of each of a few texts.
fn write_layer(
    model: &Model,
    layer: &StoredLayer,
    l: usize,
    x: &Tensor,
    parts: &mut [Part],
) -> Result<Tensor> {
    let epsilon = model.config().norm_epsilon;
    let h = rms_norm(x, &layer.norm(Matrix::AttentionNorm)?, epsilon)?;
    let [q, k, v] = [Matrix::Query, Matrix::Key, Matrix::Value].map(|matrix| layer.product(matrix, &h));
    let context = context(model, &layer.kv_of, l, [q?, k?, v?], parts)?;
    let x = (x + layer.product(Matrix::AttentionOutput, &context)?)?;
    let h = rms_norm(&x, &layer.norm(Matrix::MlpNorm)?, epsilon)?;
    let activations = swiglu(layer.product(Matrix::Gate, &h)?, &layer.product(Matrix::Up, &h)?)?;
    Ok((&x + layer.product(Matrix::Down, &activations)?)?)
}

/// Input of `o_proj`: [Σ tokens, heads·c], from queries, keys and values.
fn context(
    model: &Model,
    kv_of: &[usize],
    l: usize,
    [q, k, v]: [Tensor; 3],
    parts: &mut [Part],
) -> Result<Tensor> {
    if kv_of.is_empty() {
        return Ok(q);
    }
    let config = model.config();
    let heads = Heads { kv_of, width: config.head_width, window: config.window };
    let rotary = model.rotary(parts.iter().map(|part| part.cache.length).max().unwrap_or(0));
    let mut end = 0;
    let starts: Vec<usize> = parts
        .iter()
        .map(|part| {
            end += part.tokens.len();
            end - part.tokens.len()
        })
        .collect();
    let each = parts.par_iter_mut().zip(starts).map(|(part, start)| {
        let rows = |x: &Tensor| x.narrow(0, start, part.tokens.len());
        part.cache.layers[l].attend(&rows(&q)?, &rows(&k)?, &rows(&v)?, heads, &rotary)
    });
    Ok(Tensor::cat(&each.collect::<Result<Vec<_>>>()?, 0)?)
}
