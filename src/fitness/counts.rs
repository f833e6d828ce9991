//! What a model of given layer sizes costs, counted: parameters, operations, cache.

use crate::model::{Config, LayerShape};

/// Bytes of a number in the key/value cache.
const CACHE_BYTES: usize = 2;

/// The cost of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// Parameters that the model has, embeddings included.
    pub parameters: f64,
    /// Operations of one token's forward pass, see [`flops`].
    pub flops: f64,
    /// Bytes that one token adds to the key/value cache, at two bytes a number.
    pub kv_bytes: f64,
    /// Query heads by layer.
    pub heads: Vec<f64>,
    /// Key/value heads by layer.
    pub kv_heads: Vec<f64>,
    /// Neurons by layer.
    pub neurons: Vec<f64>,
}

impl Counts {
    /// Of the model that `config` describes, run on sequences of `length` tokens.
    pub fn of(config: &Config, length: usize) -> Self {
        let each =
            |f: &dyn Fn(&LayerShape) -> usize| config.layers.iter().map(|l| f(l) as f64).collect::<Vec<_>>();
        let kv_heads = each(&LayerShape::kv_heads);
        Self {
            parameters: config.parameters().total() as f64,
            flops: flops(config, length),
            kv_bytes: kv_heads.iter().sum::<f64>() * kv_head_bytes(config) as f64,
            heads: each(&LayerShape::heads),
            kv_heads,
            neurons: each(&|l| l.intermediate_size),
        }
    }
}

/// Bytes that one token adds to the cache of one key/value head, at two bytes a number.
pub fn kv_head_bytes(config: &Config) -> usize {
    config.head_width * 2 * CACHE_BYTES
}

/// Floating-point operations of one token's forward pass, a multiplication and an addition each counting as
/// one, mean over the positions of a sequence of `length` tokens:
///
/// ```text
/// 2·(Σ_l entries of layer l's matrices + V·d) + 4·c·n·Σ_l heads_l
/// ```
///
/// where n is the mean number of keys that a query sees; for Llama's matrices the first sum is
/// Σ_l [2·c·d·(heads_l + kv_heads_l) + 3·d·neurons_l]. Norms, biases, activations and the softmax are left
/// out.
pub fn flops(config: &Config, length: usize) -> f64 {
    let d = config.hidden;
    let c = config.head_width;
    let layers = config.layers.iter().map(|shape| config.layer_products(shape)).sum::<usize>();
    let matrices = layers + config.vocabulary * d;
    let heads = config.layers.iter().map(LayerShape::heads).sum::<usize>();
    2.0 * matrices as f64 + 4.0 * (c * heads) as f64 * mean_keys(config, length)
}

/// Mean number of keys that a query sees, itself included: (length + 1) / 2 without a sliding window.
pub fn mean_keys(config: &Config, length: usize) -> f64 {
    let window = config.window.unwrap_or(length).clamp(1, length.max(1));
    let full = length.saturating_sub(window); // queries that see a whole sliding window of earlier keys
    (window * (window + 1) / 2 + full * window) as f64 / length.max(1) as f64
}
