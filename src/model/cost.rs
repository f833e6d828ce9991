//! What the pieces of a forward pass cost.
//!
//! Counts follow the code that runs: attention computes whole blocks of scores, masked halves included, and a
//! model that is too large to keep reads its layers again.

use super::decoder::RESIDENT_BYTES;
use super::{Config, LayerShape};
use crate::base::work::Work;
use crate::tensor::attention::BLOCK;

/// Threads that an estimate of memory assumes: plans are the same on every machine, and what one thread has at once
/// is little beside the hidden states of all tokens.
pub const THREADS: f64 = 2.0;

/// How many tokens run, in sequences of which length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tokens {
    /// All of them.
    pub count: f64,
    /// Of one sequence.
    pub length: usize,
}

impl Tokens {
    /// This many, in sequences of a length.
    pub fn new(count: usize, length: usize) -> Self {
        Self { count: count as f64, length }
    }
}

/// Scores that one query head computes for a sequence of `length` tokens: whole blocks of rows over all keys
/// that any of them sees.
pub fn scores(length: usize, window: Option<usize>) -> f64 {
    let block = |start: usize| {
        let end = (start + BLOCK).min(length);
        let first = window.map_or(0, |w| (start + 1).saturating_sub(w));
        ((end - start) * (end - first)) as f64
    };
    (0..length).step_by(BLOCK).map(block).sum()
}

/// From hidden states to the input of `o_proj`, for `heads` query and `kv` key/value heads.
pub fn attention_inputs(config: &Config, heads: f64, kv: f64, tokens: Tokens) -> Work {
    let d = config.hidden as f64;
    let c = config.head_width as f64;
    let t = tokens.count;
    let sequences = t / tokens.length.max(1) as f64;
    Work {
        products: 2.0 * d * c * (heads + 2.0 * kv) * t,
        attention: 4.0 * c * heads * scores(tokens.length, config.window) * sequences,
        elements: (d + 2.0 * c * (heads + kv)) * t,
        ..Work::default()
    }
}

/// From hidden states to the input of `down_proj`, for `neurons`.
pub fn mlp_inputs(config: &Config, neurons: f64, tokens: Tokens) -> Work {
    let d = config.hidden as f64;
    let t = tokens.count;
    Work { products: 4.0 * d * neurons * t, elements: (d + 2.0 * neurons) * t, ..Work::default() }
}

/// A module's output from `channels` inputs, added to the residual stream.
pub fn output(config: &Config, channels: f64, tokens: f64) -> Work {
    let d = config.hidden as f64;
    Work { products: 2.0 * d * channels * tokens, elements: 2.0 * d * tokens, ..Work::default() }
}

/// One layer.
pub fn layer(config: &Config, shape: &LayerShape, tokens: Tokens) -> Work {
    let heads = shape.heads() as f64;
    let kv = shape.kv_heads() as f64;
    let neurons = shape.intermediate_size as f64;
    let attention = attention_inputs(config, heads, kv, tokens)
        + output(config, heads * config.head_width as f64, tokens.count);
    attention + mlp_inputs(config, neurons, tokens) + output(config, neurons, tokens.count)
}

/// All layers.
pub fn hidden(config: &Config, tokens: Tokens) -> Work {
    config.layers.iter().map(|shape| layer(config, shape, tokens)).sum()
}

/// Logits of hidden states.
pub fn logits(config: &Config, tokens: f64) -> Work {
    let v = config.vocabulary as f64;
    let d = config.hidden as f64;
    Work { products: 2.0 * v * d * tokens, elements: d * tokens, ..Work::default() }
}

/// Parameters of one layer, the mean over layers.
pub fn layer_parameters(config: &Config) -> f64 {
    let all: usize = config.layers.iter().map(|shape| config.layer_parameters(shape)).sum();
    all as f64 / config.layers.len() as f64
}

/// Weights turned to f32 by `passes` walks over the layers: once when the model is kept, each time when it is
/// too large for that.
pub fn conversions(config: &Config, passes: f64) -> Work {
    let times = if is_resident(config) { passes.min(1.0) } else { passes };
    Work { weights: layer_parameters(config) * config.layers.len() as f64 * times, ..Work::default() }
}

/// Whether the layers stay in memory in f32 once they were used.
pub fn is_resident(config: &Config) -> bool {
    config.parameters().total() * 4 <= RESIDENT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fitness::flops;
    use crate::model::pico::Pico;

    #[test]
    fn scores_of_a_window_are_whole_blocks() {
        assert_eq!(scores(1, None), 1.0);
        assert_eq!(scores(64, None), 64.0 * 64.0);
        assert_eq!(scores(130, None), 64.0 * 64.0 + 64.0 * 128.0 + 2.0 * 130.0);
        assert_eq!(scores(128, Some(1)), 64.0 * 64.0 * 2.0);
        assert_eq!(scores(0, None), 0.0);
    }

    #[test]
    fn a_forward_pass_has_the_operations_that_scripts_are_told_but_for_masked_scores() {
        let config = Pico::default().config().unwrap();
        let tokens = Tokens::new(640, 1); // sequences of one token have nothing to mask
        let counted = hidden(&config, tokens) + logits(&config, tokens.count);
        assert_eq!(counted.flops(), flops(&config, 1) * 640.0);
    }

    #[test]
    fn a_small_model_is_converted_once_and_a_large_one_each_time() {
        let small = Pico::default().config().unwrap();
        assert_eq!(conversions(&small, 5.0), conversions(&small, 1.0));
        let large = Config::parse(crate::plan::facts::config("meta-llama/Llama-2-7b-hf").unwrap()).unwrap();
        assert_eq!(conversions(&large, 5.0), conversions(&large, 1.0) * 5.0);
        assert_eq!(layer_parameters(&large) * 32.0, 6_738_415_616.0 - 2.0 * 32000.0 * 4096.0 - 4096.0);
    }
}
