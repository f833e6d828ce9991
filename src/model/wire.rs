//! The keys of config.json that are read, and how they become a [`Config`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::{Config, LayerShape, error};
use super::family::{BiasKeys, Biases, Family, Given, Windows};
use super::rope::{WireRope, scaling};
use crate::base::Result;

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
    sliding_window: Option<usize>,
    #[serde(default)]
    use_sliding_window: bool,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    max_position_embeddings: usize,
    bos_token_id: Option<u32>,
    eos_token_id: Option<Tokens>,
    #[serde(default = "silu")]
    hidden_act: String,
    per_layer_config: Option<BTreeMap<usize, WireLayer>>,
}

fn silu() -> String {
    "silu".into()
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

impl Config {
    /// Reads the text of a config.json of one of `families`.
    ///
    /// # Errors
    /// No JSON, a missing key, another family, an unsupported option, or sizes that contradict each other.
    pub fn parse_with(families: &[&'static Family], text: &str) -> Result<Self> {
        let raw: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| error(format!("not a JSON object: {e}")))?;
        let wire: Wire = serde_json::from_str(text)
            .map_err(|e| error(format!("a key is missing or of the wrong type: {e}")))?;
        let family = family(families, &wire.model_type)?;
        if wire.hidden_act != "silu" {
            return Err(error(format!("hidden_act is `{}`", wire.hidden_act))
                .hint("only gated SiLU (`silu`) is supported"));
        }
        let layers = layers(family, &wire)?;
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
            biases: family.biases.read(&raw)?,
            window: window(family.windows, &wire)?,
            context: wire.max_position_embeddings,
            bos: wire.bos_token_id,
            eos: wire.eos_token_id.map(Tokens::all).unwrap_or_default(),
            layers,
            family,
            raw,
        };
        config.check()?;
        Ok(config)
    }
}

fn family(families: &[&'static Family], model_type: &str) -> Result<&'static Family> {
    families.iter().copied().find(|f| f.model_type == model_type).ok_or_else(|| {
        let known: Vec<_> = families.iter().map(|f| f.model_type).collect();
        error(format!("model_type `{model_type}` is not supported"))
            .hint(format!("supported: {}", known.join(", ")))
    })
}

impl Given {
    fn read(self, raw: &Map<String, Value>) -> Result<bool> {
        let keys = match self {
            Given::Always => return Ok(true),
            Given::Never => return Ok(false),
            Given::Keys(keys) => keys,
        };
        let Some((key, value)) = keys.iter().find_map(|key| Some((key, raw.get(*key)?))) else {
            return Ok(false);
        };
        value.as_bool().ok_or_else(|| error(format!("`{key}` is {value}, not true or false")))
    }

    /// Sets the first of its keys where what the keys say is not `wanted`.
    fn write(self, raw: &mut Map<String, Value>, wanted: bool) -> Result<()> {
        match (self.read(raw)? == wanted, self) {
            (true, _) => Ok(()),
            (false, Given::Keys(&[key, ..])) => {
                raw.insert(key.into(), wanted.into());
                Ok(())
            }
            (false, _) => Err(error("a family that fixes its biases cannot take others")),
        }
    }
}

impl BiasKeys {
    /// What a config.json says.
    ///
    /// # Errors
    /// A key whose value is neither true nor false.
    pub(super) fn read(&self, raw: &Map<String, Value>) -> Result<Biases> {
        Ok(Biases {
            qkv: self.qkv.read(raw)?,
            attention_output: self.attention_output.read(raw)?,
            gate_up: self.gate_up.read(raw)?,
            mlp_output: self.mlp_output.read(raw)?,
        })
    }

    /// Makes a config.json say `biases`, changing as few keys as possible.
    ///
    /// # Errors
    /// Biases that this family does not have.
    pub(super) fn write(&self, raw: &mut Map<String, Value>, biases: &Biases) -> Result<()> {
        // A projection's output may fall back on the key of its inputs, which is therefore set first.
        self.qkv.write(raw, biases.qkv)?;
        self.attention_output.write(raw, biases.attention_output)?;
        self.gate_up.write(raw, biases.gate_up)?;
        self.mlp_output.write(raw, biases.mlp_output)
    }
}

/// The sliding window of all layers.
///
/// # Errors
/// Some layers have one and others not.
fn window(windows: Windows, wire: &Wire) -> Result<Option<usize>> {
    match windows {
        Windows::Ignored => Ok(None),
        Windows::Everywhere => Ok(wire.sliding_window),
        Windows::Switched if !wire.use_sliding_window => Ok(None),
        Windows::Switched => switched_window(wire),
    }
}

fn switched_window(wire: &Wire) -> Result<Option<usize>> {
    let all = wire.num_hidden_layers;
    let sliding = match (&wire.layer_types, wire.max_window_layers) {
        (Some(types), _) => types.iter().filter(|t| *t == "sliding_attention").count(),
        (None, Some(first)) => all.saturating_sub(first),
        (None, None) => return Err(error("`use_sliding_window` is set and `max_window_layers` is missing")),
    };
    match (wire.sliding_window, sliding) {
        (None, _) | (_, 0) => Ok(None),
        (window, n) if n == all => Ok(window),
        (_, n) => Err(error(format!("{n} of {all} layers have a sliding window"))
            .hint("a window is supported in all layers or in none")),
    }
}

fn layers(family: &Family, wire: &Wire) -> Result<Vec<LayerShape>> {
    let kv = wire.num_key_value_heads.unwrap_or(wire.num_attention_heads);
    let dense = LayerShape {
        query_heads_per_kv: vec![wire.num_attention_heads.checked_div(kv).unwrap_or(0); kv],
        intermediate_size: wire.intermediate_size,
    };
    if !family.per_layer {
        return Ok(vec![dense; wire.num_hidden_layers]);
    }
    let each = wire
        .per_layer_config
        .as_ref()
        .ok_or_else(|| error(format!("`{}` without per_layer_config", family.model_type)))?;
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
    let declared = (wire.num_attention_heads, wire.num_key_value_heads);
    if shape.query_heads_per_kv.contains(&0) || declared != (shape.heads(), shape.kv_heads()) {
        return Err(error(format!(
            "per_layer_config of layer {l} contradicts itself: {declared:?} heads against groups {:?}",
            shape.query_heads_per_kv
        )));
    }
    Ok(shape)
}
