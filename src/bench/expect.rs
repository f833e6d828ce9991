//! What a workload takes, counted: operations of the prompts, bytes of a step.

use serde::Serialize;

use super::Workload;
use crate::base::Result;
use crate::generate::cache::step_bytes;
use crate::model::cost::{Tokens, hidden, logits};
use crate::model::{Config, LayerShape, Model};

/// Counts of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Expected {
    /// Floating-point operations up to the first token of each text.
    pub prompt_flops: f64,
    /// Bytes that a step reads, one token of each text: the weights, and keys and values at their mean length.
    pub step_bytes: f64,
}

impl Expected {
    /// Of a model.
    ///
    /// # Errors
    /// The checkpoint lacks a tensor.
    pub fn of(model: &Model, workload: &Workload) -> Result<Self> {
        let Workload { prompt, output, batch } = *workload;
        let config = model.config();
        let tokens = Tokens::new(prompt * batch, prompt);
        // The steps after the first token read from prompt + 1 to prompt + output − 1 tokens.
        let length = prompt as f64 + output as f64 / 2.0;
        let caches = batch as f64 * length * cache_bytes_of_a_token(config) as f64;
        Ok(Self {
            prompt_flops: (hidden(config, tokens) + logits(config, batch as f64)).flops(),
            step_bytes: step_bytes(model, batch)? as f64 + caches,
        })
    }
}

/// Bytes that a token adds to the key/value cache, in f32.
pub fn cache_bytes_of_a_token(config: &Config) -> usize {
    let heads: usize = config.layers.iter().map(LayerShape::kv_heads).sum();
    heads * config.head_width * 2 * size_of::<f32>()
}
