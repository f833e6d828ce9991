//! The form for every runtime: a folder of a plain family, all layers with the sizes of those that need most,
//! filled up with zeros. A model whose layers are all alike is written as it is.

use serde_json::{Map, Value, json};

use super::layout::Layout;
use super::notes::{filled, larger};
use super::{Draft, refusal};
use crate::base::Result;
use crate::model::families::{LLAMA, MISTRAL, QWEN2};
use crate::model::family::{Biases, Family};
use crate::model::{Config, LayerShape};

/// Keys of config.json that say sizes, biases and windows, or belong to a form with layers of their own
/// sizes: those that the plain family has are written anew.
const REPLACED: &[&str] = &[
    "model_type",
    "architectures",
    "auto_map",
    "per_layer_config",
    "attention_bias",
    "attention_output_bias",
    "mlp_bias",
    "mlp_output_bias",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "layer_types",
];

/// Biases on queries, keys and values alone.
const QKV: Biases = Biases { qkv: true, attention_output: false, gate_up: false, mlp_output: false };

/// The window, where it hides any token.
fn window(config: &Config) -> Option<usize> {
    config.window.filter(|window| *window < config.context)
}

/// Whether a plain family carries the biases and windows of a model with this many query heads. Llama's biases
/// may be zeros.
fn carries(family: &Family, config: &Config, heads: usize) -> bool {
    match family.model_type {
        // transformers 5 refuses other numbers of heads, although the width of a head has a key of its own.
        "llama" => window(config).is_none() && config.hidden.is_multiple_of(heads),
        "mistral" => config.biases == Biases::default(),
        _ => config.biases == QKV,
    }
}

/// The plain families that carry a model, its own first.
fn families(config: &Config, heads: usize) -> impl Iterator<Item = &'static Family> {
    let plain: [&'static Family; 3] = [&QWEN2, &LLAMA, &MISTRAL];
    let own = plain.into_iter().filter(|family| family.model_type == config.family.model_type);
    own.chain(plain).filter(move |family| carries(family, config, heads))
}

/// What the layers become, and the family that can say it.
fn layout(config: &Config) -> Result<(Layout, &'static Family)> {
    let found = |heads: usize| families(config, heads).next();
    let layout = Layout::alike(config, |heads| found(heads).is_some());
    let family = layout.as_ref().and_then(|layout| found(layout.layers[0].heads.len()));
    layout.zip(family).ok_or_else(|| {
        let last = config.layers.len() - 1;
        let why = format!(
            "layers 0 to {last} have biases beside those of queries, keys and values, which Llama alone has, and {}",
            match window(config) {
                Some(window) => format!("a sliding window of {window} tokens, which it has not"),
                None => format!("more query heads than divide {}, as it demands", config.hidden),
            }
        );
        refusal("stock", why, "export.to = [\"hf\"] carries them")
    })
}

/// The folder of a model.
///
/// # Errors
/// Biases and windows that no plain family has together.
pub(super) fn draft(config: &Config) -> Result<Draft> {
    let (layout, family) = layout(config)?;
    let raw = settings(config, family, &layout.layers[0].shape());
    let target = Config::parse(&Value::Object(raw).to_string())?;
    let notes = [filled(config, &layout), larger(config, target.parameters().total())];
    Ok(Draft { notes: notes.into_iter().flatten().collect(), layout, target })
}

/// Its config.json.
fn settings(config: &Config, family: &Family, layer: &LayerShape) -> Map<String, Value> {
    let mut raw = config.raw.clone();
    raw.retain(|key, _| !REPLACED.contains(&key.as_str()));
    let (architecture, own) = match family.model_type {
        "llama" => (
            "LlamaForCausalLM",
            json!({
                "attention_bias": config.biases.qkv || config.biases.attention_output,
                "mlp_bias": config.biases.gate_up || config.biases.mlp_output,
            }),
        ),
        "mistral" => ("MistralForCausalLM", json!({"sliding_window": config.window})),
        _ => ("Qwen2ForCausalLM", windows(config)),
    };
    let sizes = json!({
        "model_type": family.model_type,
        "architectures": [architecture],
        "head_dim": config.head_width,
        "num_attention_heads": layer.heads(),
        "num_key_value_heads": layer.kv_heads(),
        "intermediate_size": layer.intermediate_size,
        "num_hidden_layers": config.layers.len(),
    });
    for written in [sizes, own] {
        raw.extend(written.as_object().cloned().unwrap_or_default());
    }
    raw
}

/// Qwen 2's keys of the window.
fn windows(config: &Config) -> Value {
    match config.window {
        None => json!({"use_sliding_window": false}),
        Some(window) => {
            json!({"use_sliding_window": true, "sliding_window": window, "max_window_layers": 0})
        }
    }
}
