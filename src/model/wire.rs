//! The keys of config.json that are read, and how they become a [`Config`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config::{Config, LayerShape, error};
use super::family::{BiasKeys, Biases, Family, Given, Preset, Windows};
use super::keys::short;
use super::read::Keys;
use super::rope;
use crate::base::Result;

/// The largest size of an axis: several times what any model has, and small enough that no product of sizes
/// overflows.
pub(super) const WIDEST: usize = 1 << 22;

/// The most layers, and the most heads of one.
const MOST: usize = 1 << 12;

/// The longest context.
const LONGEST: usize = 1 << 40;

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
        let mut raw: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| error(format!("not a JSON object: {e}")))?;
        let family = family(families, &Keys(&raw))?;
        let unknown = family.check_keys(&raw)?;
        let absent = fill(family, &mut raw);
        let config = Self::read(family, raw)?;
        config.check()?;
        let notes = notes(&config, unknown, absent);
        Ok(Self { notes, ..config })
    }

    /// Reads every key that decides something.
    fn read(family: &'static Family, raw: Map<String, Value>) -> Result<Self> {
        let keys = Keys(&raw);
        if let Some(other) = keys.text("hidden_act")?.filter(|act| !SILU.contains(act)) {
            return Err(
                error(format!("hidden_act is `{other}`")).hint("only gated SiLU (`silu`) is supported")
            );
        }
        let hidden = keys.required("hidden_size", WIDEST)?;
        let heads = keys.required("num_attention_heads", MOST)?;
        let (rope_theta, rope_scaling) = rope::read(&keys)?;
        let mut config = Self {
            hidden,
            head_width: keys.size("head_dim", WIDEST)?.unwrap_or(hidden / heads.max(1)),
            heads,
            kv_heads: keys.size("num_key_value_heads", MOST)?.unwrap_or(heads),
            neurons: keys.required("intermediate_size", WIDEST)?,
            vocabulary: keys.required("vocab_size", WIDEST)?,
            norm_epsilon: keys.number("rms_norm_eps")?.ok_or_else(|| error("`rms_norm_eps` is missing"))?,
            rope_theta,
            rope_scaling,
            tied: keys.flag("tie_word_embeddings")?.unwrap_or(false),
            biases: family.biases.read(&raw)?,
            window: window(family.windows, &keys)?,
            context: keys.required("max_position_embeddings", LONGEST)?,
            bos: keys.tokens("bos_token_id")?.and_then(|tokens| tokens.first().copied()),
            eos: keys.tokens("eos_token_id")?.unwrap_or_default(),
            layers: Vec::new(),
            family,
            notes: Vec::new(),
            raw: Map::new(),
        };
        config.layers = layers(&config, &keys)?;
        config.raw = raw;
        Ok(config)
    }
}

/// Names of the gated SiLU's activation.
const SILU: [&str; 2] = ["silu", "swish"];

/// Puts the family's values where a config.json has no such key; gives the keys.
fn fill(family: &Family, raw: &mut Map<String, Value>) -> Vec<&'static str> {
    let mut absent = Vec::new();
    for (key, preset) in family.defaults.iter().filter(|(key, _)| !raw.contains_key(*key)).collect::<Vec<_>>()
    {
        let value = match preset {
            Preset::Whole(value) => json!(value),
            Preset::Number(value) => json!(value),
        };
        raw.insert((*key).into(), value);
        absent.push(*key);
    }
    absent
}

/// What the user of a configuration should know of it.
fn notes(config: &Config, unknown: Vec<String>, absent: Vec<&'static str>) -> Vec<String> {
    let decides =
        |key: &&str| config.window.is_some() || !["sliding_window", "max_window_layers"].contains(key);
    let say = |key: &str| format!("{key} = {}", short(&config.raw[key]));
    let absent: Vec<String> = absent.into_iter().filter(decides).map(say).collect();
    let mut notes = Vec::new();
    if !absent.is_empty() {
        let model_type = config.family.model_type;
        let absent = absent.join(", ");
        notes.push(format!("config.json leaves out what `{model_type}` models have by default: {absent}"));
    }
    if !unknown.is_empty() {
        notes.push(format!(
            "config.json has keys that are not known here and are passed over: {}",
            list(&unknown)
        ));
    }
    let architecture = config.raw.get("architectures").and_then(|all| all.get(0)?.as_str());
    if let Some(other) = architecture.filter(|name| !name.ends_with("ForCausalLM")) {
        notes.push(format!("config.json names the architecture {other}; it is read as a language model"));
    }
    notes
}

/// Names in a note; of many, the first.
pub(super) fn list(names: &[impl AsRef<str>]) -> String {
    const NAMED: usize = 12;
    let first = names.iter().take(NAMED).map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn family(families: &[&'static Family], keys: &Keys) -> Result<&'static Family> {
    let model_type = keys.text("model_type")?.ok_or_else(|| error("`model_type` is missing"))?;
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
/// Some layers have one and others not, or it is empty.
fn window(windows: Windows, keys: &Keys) -> Result<Option<usize>> {
    let given = || match keys.size("sliding_window", LONGEST)? {
        Some(0) => Err(error("`sliding_window` is 0: a token would not see itself")),
        window => Ok(window),
    };
    match windows {
        Windows::Ignored => Ok(None),
        Windows::Everywhere => given(),
        Windows::Switched if !keys.flag("use_sliding_window")?.unwrap_or(false) => Ok(None),
        Windows::Switched => switched_window(given()?, keys),
    }
}

fn switched_window(window: Option<usize>, keys: &Keys) -> Result<Option<usize>> {
    let all = keys.required("num_hidden_layers", MOST)?;
    let sliding = match (keys.texts("layer_types")?, keys.size("max_window_layers", LONGEST)?) {
        (Some(types), _) => types.iter().filter(|t| **t == "sliding_attention").count(),
        (None, Some(first)) => all.saturating_sub(first),
        (None, None) => return Err(error("`use_sliding_window` is set and `max_window_layers` is missing")),
    };
    match (window, sliding) {
        (None, _) | (_, 0) => Ok(None),
        (window, n) if n == all => Ok(window),
        (_, n) => Err(error(format!("{n} of {all} layers have a sliding window"))
            .hint("a window is supported in all layers or in none")),
    }
}

/// The shape of every layer of a configuration that is otherwise read.
fn layers(config: &Config, keys: &Keys) -> Result<Vec<LayerShape>> {
    let count = keys.required("num_hidden_layers", MOST)?;
    if !config.family.per_layer {
        let kv = config.kv_heads;
        let dense = LayerShape {
            query_heads_per_kv: vec![config.heads.checked_div(kv).unwrap_or(0); kv],
            intermediate_size: config.neurons,
        };
        return Ok(vec![dense; count]);
    }
    let each = keys
        .table("per_layer_config")?
        .ok_or_else(|| error(format!("`{}` without per_layer_config", config.family.model_type)))?;
    (0..count)
        .map(|l| {
            let entry = each.0.get(&l.to_string());
            let entry = entry.ok_or_else(|| error(format!("per_layer_config lacks layer {l}")))?;
            let wire = WireLayer::deserialize(entry)
                .map_err(|e| error(format!("per_layer_config of layer {l} cannot be read: {e}")))?;
            layer(l, wire, config)
        })
        .collect()
}

/// The shape of a pruned layer, which has no more of anything than a dense one.
fn layer(l: usize, wire: WireLayer, config: &Config) -> Result<LayerShape> {
    let shape =
        LayerShape { query_heads_per_kv: wire.query_heads_per_kv, intermediate_size: wire.intermediate_size };
    let all = shape.query_heads_per_kv.iter().try_fold(0usize, |sum, heads| sum.checked_add(*heads));
    if all.is_none_or(|heads| heads > config.heads)
        || shape.kv_heads() > config.kv_heads
        || shape.intermediate_size > config.neurons
    {
        let what = format!("per_layer_config of layer {l} has more heads or neurons than a dense layer");
        return Err(error(what));
    }
    let declared = (wire.num_attention_heads, wire.num_key_value_heads);
    if shape.query_heads_per_kv.contains(&0) || declared != (shape.heads(), shape.kv_heads()) {
        return Err(error(format!(
            "per_layer_config of layer {l} contradicts itself: {declared:?} heads against groups {:?}",
            shape.query_heads_per_kv
        )));
    }
    Ok(shape)
}
