//! A checked configuration: sizes, switches, and what every layer keeps (read in `wire.rs`).

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::families::FAMILIES;
use super::family::{Biases, Family};
use super::matrix::Axis;
use super::rope::{RopeScaling, scaled};
use super::wire::WIDEST;
use crate::base::{Error, Kind, Result};
use crate::space::{Shape, UnitSpec};
use crate::spec::AttentionUnit;

/// What one layer keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerShape {
    /// Query heads of every key/value head; no entry is 0.
    pub query_heads_per_kv: Vec<usize>,
    /// Neurons of the MLP.
    pub intermediate_size: usize,
}

impl LayerShape {
    /// Query heads.
    pub fn heads(&self) -> usize {
        self.query_heads_per_kv.iter().sum()
    }

    /// Key/value heads.
    pub fn kv_heads(&self) -> usize {
        self.query_heads_per_kv.len()
    }

    /// So many query heads over so many key/value heads, as evenly as whole numbers allow.
    pub fn spread(heads: usize, kv_heads: usize) -> Vec<usize> {
        (0..kv_heads).map(|g| heads * (g + 1) / kv_heads - heads * g / kv_heads).collect()
    }

    /// Key/value head of every query head; query heads lie together by key/value head.
    pub fn kv_of(&self) -> Vec<usize> {
        self.query_heads_per_kv.iter().enumerate().flat_map(|(kv, &n)| std::iter::repeat_n(kv, n)).collect()
    }
}

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Residual width d.
    pub hidden: usize,
    /// Width of a head c.
    pub head_width: usize,
    /// Query heads of a dense layer.
    pub heads: usize,
    /// Key/value heads of a dense layer.
    pub kv_heads: usize,
    /// Neurons of a dense layer.
    pub neurons: usize,
    /// Vocabulary V.
    pub vocabulary: usize,
    /// ε of the RMS norms.
    pub norm_epsilon: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Its RoPE scaling.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the output projection is the embedding.
    pub tied: bool,
    /// Which projections have biases.
    pub biases: Biases,
    /// Keys that a query sees, itself included.
    pub window: Option<usize>,
    /// Longest context.
    pub context: usize,
    /// Beginning-of-text token.
    pub bos: Option<u32>,
    /// End-of-text tokens.
    pub eos: Vec<u32>,
    /// What every layer keeps.
    pub layers: Vec<LayerShape>,
    /// Its family.
    pub family: &'static Family,
    /// What its user should know of it.
    pub notes: Vec<String>,
    /// The file as read, with the family's values of what it leaves out, for what we write.
    pub raw: serde_json::Map<String, serde_json::Value>,
}

pub(super) fn error(what: impl Into<String>) -> Error {
    Error::new(Kind::Checkpoint, what)
}

impl Config {
    /// Reads the text of a config.json.
    ///
    /// # Errors
    /// No JSON, a missing key, an unsupported family or option, or sizes that contradict each other.
    pub fn parse(text: &str) -> Result<Self> {
        Self::parse_with(FAMILIES, text)
    }

    pub(super) fn check(&self) -> Result<()> {
        let sizes = [
            ("hidden_size", self.hidden),
            ("head_dim", self.head_width),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("vocab_size", self.vocabulary),
            ("num_hidden_layers", self.layers.len()),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, n)| *n == 0) {
            return Err(error(format!("{name} is 0")));
        }
        if self.heads * self.head_width > WIDEST {
            return Err(error(format!(
                "`num_attention_heads` x `head_dim` is {} x {}, and more than {WIDEST} is no model's",
                self.heads, self.head_width
            )));
        }
        if self.norm_epsilon < 0.0 {
            return Err(error(format!("`rms_norm_eps` is {}, below 0", self.norm_epsilon)));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(error(format!(
                "{} query heads cannot share {} key/value heads evenly",
                self.heads, self.kv_heads
            )));
        }
        if !self.head_width.is_multiple_of(2) {
            return Err(error(format!(
                "head_dim {} is odd: the rotary embedding needs pairs",
                self.head_width
            )));
        }
        Ok(())
    }

    /// The dtype that the file names; f32, the widest, where it names none.
    pub fn named_dtype(&self) -> Dtype {
        let name = ["torch_dtype", "dtype"].iter().find_map(|key| self.raw.get(*key)?.as_str());
        match name.map(|name| name.trim_start_matches("torch.")) {
            Some("bfloat16") => Dtype::BF16,
            Some("float16") => Dtype::F16,
            _ => Dtype::F32,
        }
    }

    /// Query heads per key/value head of a dense layer.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// A dense layer's shape.
    pub fn dense_layer(&self) -> LayerShape {
        LayerShape { query_heads_per_kv: vec![self.group(); self.kv_heads], intermediate_size: self.neurons }
    }

    /// Whether no layer was pruned.
    pub fn is_dense(&self) -> bool {
        self.layers.iter().all(|l| *l == self.dense_layer())
    }

    /// Whether modules can be pruned: all of a kind have the same units.
    ///
    /// # Errors
    /// The model was pruned already.
    pub fn check_prunable(&self) -> Result<()> {
        if self.is_dense() {
            return Ok(());
        }
        Err(error(
            "the model is a pruned one: its layers have sizes of their own, and it is not pruned again",
        )
        .hint("name the dense model in model.source, and remove more of it with sparsity.target"))
    }

    /// Inverse frequencies of the rotary embedding, one per pair of channels.
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        let width = self.head_width as f64;
        (0..self.head_width / 2)
            .map(|i| self.rope_theta.powf(-2.0 * i as f64 / width))
            .map(|f| scaled(f, self.rope_scaling.as_ref()))
            .collect()
    }

    /// The prunable part, for the search space.
    pub fn shape(&self, unit: AttentionUnit) -> Shape {
        let c = self.head_width;
        let head = self.unit_parameters(Axis::QueryHeads);
        let attention = match unit {
            AttentionUnit::Head => UnitSpec { units: self.heads, width: c, parameters: head },
            AttentionUnit::KvGroup => UnitSpec {
                units: self.kv_heads,
                width: c * self.group(),
                parameters: self.group() * head + self.unit_parameters(Axis::KvHeads),
            },
        };
        let neuron = self.unit_parameters(Axis::Neurons);
        let mlp = UnitSpec { units: self.neurons, width: 1, parameters: neuron };
        Shape { layers: self.layers.len(), attention, mlp }
    }
}
