//! Tiny random models, written in the Hugging Face layout: what tests and benches run on when no trained
//! model is needed.

pub mod bytes;

use std::path::Path;

use rand::RngExt as _;
use safetensors::Dtype;
use serde_json::json;

use super::config::Config;
use super::families::LLAMA;
use super::family::{Family, TensorEntry};
use super::save::save;
use super::source::Source;
use crate::base::{Result, files, rng};

/// The characters that the tokenizer of characters knows.
pub const ALPHABET: &str = "? etaoinshrdlucmfwypvbgkjqxz\n.,'0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Which tokenizer a tiny model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// One token for each of the first characters of [`ALPHABET`], as many as the vocabulary has; any other
    /// character becomes `?`.
    Characters,
    /// Bytes, some pairs joined, and special tokens at both ends ([`bytes`]).
    Bytes,
}

/// Sizes of a tiny model.
#[derive(Debug, Clone, Copy)]
pub struct Pico {
    /// Layers.
    pub layers: usize,
    /// Residual width.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Neurons.
    pub neurons: usize,
    /// Vocabulary.
    pub vocabulary: usize,
    /// Biases everywhere, in a family whose configuration says whether there are any.
    pub bias: bool,
    /// Whether the output projection is the embedding.
    pub tied: bool,
    /// Its family.
    pub family: &'static Family,
    /// Longest context.
    pub context: usize,
    /// The tokenizer.
    pub tokens: Tokens,
}

impl Default for Pico {
    fn default() -> Self {
        let context = 256;
        let tokens = Tokens::Characters;
        Self {
            layers: 3,
            hidden: 32,
            heads: 4,
            kv_heads: 2,
            neurons: 48,
            vocabulary: 64,
            bias: false,
            tied: true,
            family: &LLAMA,
            context,
            tokens,
        }
    }
}

impl Pico {
    /// With the tokenizer of bytes, for texts of any kind.
    pub fn of_bytes(context: usize) -> Self {
        Self { vocabulary: bytes::VOCABULARY, tokens: Tokens::Bytes, context, ..Self::default() }
    }

    /// The configuration.
    pub fn config(&self) -> Result<Config> {
        let raw = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": self.family.model_type, "hidden_act": "silu", "hidden_size": self.hidden,
            "intermediate_size": self.neurons, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "vocab_size": self.vocabulary, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "max_position_embeddings": self.context, "tie_word_embeddings": self.tied, "attention_bias": self.bias, "mlp_bias": self.bias,
            "bos_token_id": 0, "eos_token_id": 1,
        });
        Config::parse_with(&[self.family], &raw.to_string())
    }

    fn tokenizer(&self) -> serde_json::Value {
        match self.tokens {
            Tokens::Characters => self.characters(),
            Tokens::Bytes => bytes::tokenizer(),
        }
    }

    fn characters(&self) -> serde_json::Value {
        let vocabulary: serde_json::Map<_, _> = ALPHABET
            .chars()
            .take(self.vocabulary)
            .enumerate()
            .map(|(i, c)| (c.to_string(), json!(i)))
            .collect();
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "decoder": { "type": "Fuse" },
            "model": {
                "type": "BPE", "dropout": null, "unk_token": "?", "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": [],
            },
        })
    }

    /// Writes the model, its weights drawn from `seed`, and its tokenizer.
    pub fn write(&self, folder: &Path, seed: u64) -> Result<Source> {
        let config = self.config()?;
        files::create_dir(folder)?;
        files::write_json(&folder.join("tokenizer.json"), &self.tokenizer())?;
        if self.tokens == Tokens::Bytes {
            files::write_json(
                &folder.join("tokenizer_config.json"),
                &json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}}),
            )?;
        }
        save(folder, &config, &Source::Builtin(&[]), Dtype::F32, |tensor| {
            let TensorEntry { name, shape, .. } = tensor;
            let mut rng = rng::stream(seed, name);
            let count = shape.iter().product();
            let scale =
                if name.contains("norm") { 0.2 } else { 1.5 / (*shape.last().unwrap_or(&1) as f32).sqrt() };
            let middle = if name.contains("norm") { 1.0 } else { 0.0 };
            Ok((0..count).map(|_| middle + scale * rng.random_range(-1.0f32..1.0)).collect())
        })?;
        Source::folder(folder)
    }
}
