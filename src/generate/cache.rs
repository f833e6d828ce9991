//! The key/value cache of a text: every layer keeps what its own heads need, and a layer without heads keeps
//! nothing.

use candle_core::Tensor;

use crate::base::{Error, Kind, Result};
use crate::model::Model;
use crate::model::decoder::{Attention, Layer};
use crate::tensor::attention::Heads;
use crate::tensor::cached::Kv;
use crate::tensor::rms_norm;

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
    let tokens: Vec<u32> = parts.iter().flat_map(|p| p.tokens).copied().collect();
    for part in parts.iter_mut() {
        part.cache.length += part.tokens.len();
        check_length(model, part.cache.length)?;
    }
    (0..model.config().layers.len())
        .try_fold(model.embed(&tokens)?, |x, l| run_layer(model, &*model.layer(l)?, l, &x, parts))
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
    let x = (x + layer.attention.o.forward(&context(model, &layer.attention, l, x, parts)?)?)?;
    Ok((&x + layer.mlp.down.forward(&model.mlp_activations(&layer.mlp, &x)?)?)?)
}

/// Input of `o_proj`: [Σ tokens, heads·c].
fn context(model: &Model, attention: &Attention, l: usize, x: &Tensor, parts: &mut [Part]) -> Result<Tensor> {
    let config = model.config();
    let h = rms_norm(x, &attention.norm, config.norm_epsilon)?;
    let q = attention.q.forward(&h)?;
    let k = attention.k.forward(&h)?;
    let v = attention.v.forward(&h)?;
    if attention.kv_of.is_empty() {
        return Ok(q);
    }
    let heads = Heads { kv_of: &attention.kv_of, width: config.head_width, window: config.window };
    let rotary = model.rotary(parts.iter().map(|part| part.cache.length).max().unwrap_or(0));
    let mut start = 0;
    let each = parts.iter_mut().map(|part| {
        let rows = |x: &Tensor| x.narrow(0, start, part.tokens.len());
        let context = part.cache.layers[l].attend(&rows(&q)?, &rows(&k)?, &rows(&v)?, heads, &rotary);
        start += part.tokens.len();
        context
    });
    Ok(Tensor::cat(&each.collect::<Result<Vec<_>>>()?, 0)?)
}
