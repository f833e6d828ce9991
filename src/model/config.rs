//! `config.json` of a Hugging Face folder, checked, for the families whose decoder is Llama's; and of models
//! that `tyr` pruned.

use serde::{Deserialize, Serialize};

use crate::base::{Error, Kind, Result};
use crate::space::{Shape, UnitSpec};
use crate::spec::AttentionUnit;

/// A model family: what differs from plain Llama, as data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// `model_type` in config.json.
    pub model_type: &'static str,
    /// Whether `sliding_window` is honoured.
    pub sliding_window: bool,
}

/// The families that the decoder runs.
pub const FAMILIES: &[Family] = &[
    Family { model_type: "llama", sliding_window: false },
    Family { model_type: "mistral", sliding_window: true },
    Family { model_type: PRUNED, sliding_window: true },
];

/// `model_type` of a model with sizes of its own in every layer.
pub const PRUNED: &str = "pruned_llama";

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

    /// Key/value head of every query head; query heads lie together by key/value head.
    pub fn kv_of(&self) -> Vec<usize> {
        self.query_heads_per_kv.iter().enumerate().flat_map(|(kv, &n)| std::iter::repeat_n(kv, n)).collect()
    }
}

/// Stretching of the rotary embedding to longer contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// All frequencies divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths longer than `original / low` are stretched whole.
        low: f64,
        /// Wavelengths shorter than `original / high` are kept.
        high: f64,
        /// Context of the original training.
        original: f64,
    },
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
    /// Its stretching.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the output projection is the embedding.
    pub tied: bool,
    /// Whether q, k, v and o have biases.
    pub attention_bias: bool,
    /// Whether gate, up and down have biases.
    pub mlp_bias: bool,
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
    /// The file as read, for what we write.
    pub raw: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Wire {
    model_type: String,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<WireRope>,
    rope_parameters: Option<WireRope>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    sliding_window: Option<usize>,
    max_position_embeddings: usize,
    bos_token_id: Option<u32>,
    eos_token_id: Option<Tokens>,
    #[serde(default = "silu")]
    hidden_act: String,
    per_layer_config: Option<std::collections::BTreeMap<usize, WireLayer>>,
}

fn silu() -> String {
    "silu".into()
}

#[derive(Deserialize)]
struct WireRope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Tokens {
    One(u32),
    Many(Vec<u32>),
}

impl Tokens {
    fn all(self) -> Vec<u32> {
        match self {
            Self::One(token) => vec![token],
            Self::Many(tokens) => tokens,
        }
    }
}

/// One entry of `per_layer_config`; the head counts repeat what other readers look for.
#[derive(Serialize, Deserialize)]
pub(super) struct WireLayer {
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub query_heads_per_kv: Vec<usize>,
    pub intermediate_size: usize,
}

fn error(what: impl Into<String>) -> Error {
    Error::new(Kind::Checkpoint, what)
}

impl Config {
    /// Reads the text of a config.json.
    ///
    /// # Errors
    /// No JSON, a missing key, an unsupported family or option, or sizes that contradict each other.
    pub fn parse(text: &str) -> Result<Self> {
        let raw: serde_json::Map<_, _> =
            serde_json::from_str(text).map_err(|e| error(format!("not a JSON object: {e}")))?;
        let wire: Wire = serde_json::from_str(text)
            .map_err(|e| error(format!("a key is missing or of the wrong type: {e}")))?;
        let family = family(&wire.model_type)?;
        if wire.hidden_act != "silu" {
            return Err(error(format!("hidden_act is `{}`", wire.hidden_act))
                .hint("only gated SiLU (`silu`) is supported"));
        }
        let layers = layers(&wire)?;
        let rope = wire.rope_parameters.as_ref().or(wire.rope_scaling.as_ref());
        let config = Self {
            hidden: wire.hidden_size,
            head_width: wire.head_dim.unwrap_or(wire.hidden_size / wire.num_attention_heads.max(1)),
            heads: wire.num_attention_heads,
            kv_heads: wire.num_key_value_heads.unwrap_or(wire.num_attention_heads),
            neurons: wire.intermediate_size,
            vocabulary: wire.vocab_size,
            norm_epsilon: wire.rms_norm_eps,
            rope_theta: rope.and_then(|r| r.rope_theta).or(wire.rope_theta).unwrap_or(10_000.0),
            rope_scaling: rope.map(scaling).transpose()?.flatten(),
            tied: wire.tie_word_embeddings,
            attention_bias: wire.attention_bias,
            mlp_bias: wire.mlp_bias,
            window: wire.sliding_window.filter(|_| family.sliding_window),
            context: wire.max_position_embeddings,
            bos: wire.bos_token_id,
            eos: wire.eos_token_id.map(Tokens::all).unwrap_or_default(),
            layers,
            raw,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
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

    /// Inverse frequencies of the rotary embedding, one per pair of channels.
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        let width = self.head_width as f64;
        (0..self.head_width / 2)
            .map(|i| self.rope_theta.powf(-2.0 * i as f64 / width))
            .map(|f| stretched(f, self.rope_scaling.as_ref()))
            .collect()
    }

    /// Parameters of every matrix and vector that really exist, by the kind of matrix.
    pub fn parameters(&self) -> Parameters {
        let d = self.hidden;
        let c = self.head_width;
        let sum = |f: &dyn Fn(&LayerShape) -> usize| self.layers.iter().map(f).sum::<usize>();
        let attention_bias = self.attention_bias as usize;
        let mlp_bias = self.mlp_bias as usize;
        Parameters {
            embedding: self.vocabulary * d,
            output: if self.tied { 0 } else { self.vocabulary * d },
            query: sum(&|l| l.heads() * c * (d + attention_bias)),
            key_value: sum(&|l| 2 * l.kv_heads() * c * (d + attention_bias)),
            attention_output: sum(&|l| l.heads() * c * d + attention_bias * d),
            gate_up: sum(&|l| 2 * l.intermediate_size * (d + mlp_bias)),
            down: sum(&|l| l.intermediate_size * d + mlp_bias * d),
            norms: (2 * self.layers.len() + 1) * d,
        }
    }

    /// The prunable part, for the search space.
    pub fn shape(&self, unit: AttentionUnit) -> Shape {
        let d = self.hidden;
        let c = self.head_width;
        let bias = self.attention_bias as usize;
        let head = c * (d + bias) + c * d;
        let attention = match unit {
            AttentionUnit::Head => UnitSpec { units: self.heads, width: c, parameters: head },
            AttentionUnit::KvGroup => UnitSpec {
                units: self.kv_heads,
                width: c * self.group(),
                parameters: self.group() * head + 2 * c * (d + bias),
            },
        };
        let mlp = UnitSpec { units: self.neurons, width: 1, parameters: 3 * d + 2 * self.mlp_bias as usize };
        Shape { layers: self.layers.len(), attention, mlp }
    }
}

/// Parameter counts by kind of matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// `embed_tokens`
    pub embedding: usize,
    /// `lm_head`, 0 when tied
    pub output: usize,
    /// `q_proj`
    pub query: usize,
    /// `k_proj` and `v_proj`
    pub key_value: usize,
    /// `o_proj`
    pub attention_output: usize,
    /// `gate_proj` and `up_proj`
    pub gate_up: usize,
    /// `down_proj`
    pub down: usize,
    /// All norms
    pub norms: usize,
}

impl Parameters {
    /// All of them.
    pub fn total(&self) -> usize {
        self.embedding
            + self.output
            + self.query
            + self.key_value
            + self.attention_output
            + self.gate_up
            + self.down
            + self.norms
    }
}

fn family(model_type: &str) -> Result<&'static Family> {
    FAMILIES.iter().find(|f| f.model_type == model_type).ok_or_else(|| {
        let known: Vec<_> = FAMILIES.iter().map(|f| f.model_type).collect();
        error(format!("model_type `{model_type}` is not supported"))
            .hint(format!("supported: {}", known.join(", ")))
    })
}

fn layers(wire: &Wire) -> Result<Vec<LayerShape>> {
    let kv = wire.num_key_value_heads.unwrap_or(wire.num_attention_heads);
    let dense = LayerShape {
        query_heads_per_kv: vec![wire.num_attention_heads.checked_div(kv).unwrap_or(0); kv],
        intermediate_size: wire.intermediate_size,
    };
    if wire.model_type != PRUNED {
        return Ok(vec![dense; wire.num_hidden_layers]);
    }
    let each = wire
        .per_layer_config
        .as_ref()
        .ok_or_else(|| error(format!("`{PRUNED}` without per_layer_config")))?;
    (0..wire.num_hidden_layers)
        .map(|l| {
            each.get(&l)
                .ok_or_else(|| error(format!("per_layer_config lacks layer {l}")))
                .and_then(|w| layer(l, w))
        })
        .collect()
}

fn layer(l: usize, wire: &WireLayer) -> Result<LayerShape> {
    let shape = LayerShape {
        query_heads_per_kv: wire.query_heads_per_kv.clone(),
        intermediate_size: wire.intermediate_size,
    };
    let said = (wire.num_attention_heads, wire.num_key_value_heads);
    if shape.query_heads_per_kv.contains(&0) || said != (shape.heads(), shape.kv_heads()) {
        return Err(error(format!(
            "per_layer_config of layer {l} contradicts itself: {said:?} heads against groups {:?}",
            shape.query_heads_per_kv
        )));
    }
    Ok(shape)
}

fn scaling(rope: &WireRope) -> Result<Option<RopeScaling>> {
    let need =
        |value: Option<f64>, key: &str| value.ok_or_else(|| error(format!("rope scaling lacks `{key}`")));
    match rope.rope_type.as_deref() {
        None | Some("default") => Ok(None),
        Some("linear") => Ok(Some(RopeScaling::Linear { factor: need(rope.factor, "factor")? })),
        Some("llama3") => Ok(Some(RopeScaling::Llama3 {
            factor: need(rope.factor, "factor")?,
            low: need(rope.low_freq_factor, "low_freq_factor")?,
            high: need(rope.high_freq_factor, "high_freq_factor")?,
            original: need(rope.original_max_position_embeddings, "original_max_position_embeddings")?,
        })),
        Some(other) => Err(error(format!("rope scaling `{other}` is not supported"))
            .hint("supported: default, linear, llama3")),
    }
}

fn stretched(frequency: f64, scaling: Option<&RopeScaling>) -> f64 {
    match *match scaling {
        None => return frequency,
        Some(s) => s,
    } {
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low, high, original } => {
            let turns = original * frequency / std::f64::consts::TAU; // how often the pair turns within the original context
            let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        }
    }
}
