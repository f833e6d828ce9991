//! What a GGUF file says of its model: sizes, rotary embedding, and where it comes from.

use candle_core::quantized::gguf_file::Value;
use serde_json::json;

use super::file::{Metadata, text};
use super::numbers::Numbers;
use crate::base::last_part;
use crate::model::rope::RopeScaling;
use crate::model::{Config, LayerShape, Source};

/// The key under which the RoPE scaling of the model is told as config.json has it, for reading back.
pub(super) const ROPE_SCALING: &str = "tyr.rope_scaling";

fn whole(value: usize) -> Value {
    Value::U32(value as u32)
}

/// A size of every layer: one number under `llama`, whose layers are all alike, else a list.
fn each(architecture: &str, config: &Config, size: fn(&LayerShape) -> usize) -> Value {
    match architecture {
        "llama" => whole(size(&config.layers[0])),
        _ => Value::Array(config.layers.iter().map(|layer| Value::I32(size(layer) as i32)).collect()),
    }
}

/// The keys of an architecture, and those of the file.
pub(super) fn of_architecture(architecture: &str, config: &Config, numbers: Numbers) -> Metadata {
    let mut general = vec![
        ("general.architecture".to_string(), text(architecture)),
        ("general.type".to_string(), text("model")),
        ("general.file_type".to_string(), Value::U32(numbers.file_type())),
    ];
    if numbers.is_quantised() {
        general.push(("general.quantization_version".into(), Value::U32(2)));
    }
    let mut own = vec![
        ("block_count", whole(config.layers.len())),
        ("context_length", whole(config.context)),
        ("embedding_length", whole(config.hidden)),
        ("feed_forward_length", each(architecture, config, |layer| layer.intermediate_size)),
        ("attention.head_count", each(architecture, config, LayerShape::heads)),
        ("attention.head_count_kv", each(architecture, config, LayerShape::kv_heads)),
        ("attention.key_length", whole(config.head_width)),
        ("attention.value_length", whole(config.head_width)),
        ("attention.layer_norm_rms_epsilon", Value::F32(config.norm_epsilon as f32)),
        ("rope.dimension_count", whole(config.head_width)),
        ("rope.freq_base", Value::F32(config.rope_theta as f32)),
        ("vocab_size", whole(config.vocabulary)),
    ];
    if let Some(RopeScaling::Linear { factor }) = config.rope_scaling {
        own.push(("rope.scaling.type", text("linear")));
        own.push(("rope.scaling.factor", Value::F32(factor as f32)));
    }
    let own = own.into_iter().map(|(key, value)| (format!("{architecture}.{key}"), value));
    general.into_iter().chain(own).collect()
}

/// Keys of our own, which other readers pass over.
pub(super) fn provenance(config: &Config) -> Metadata {
    let groups: Vec<_> = config.layers.iter().map(|layer| &layer.query_heads_per_kv).collect();
    let neurons: Vec<_> = config.layers.iter().map(|layer| layer.intermediate_size).collect();
    let scaling = match config.rope_scaling {
        None => serde_json::Value::Null,
        Some(RopeScaling::Linear { factor }) => json!({"rope_type": "linear", "factor": factor}),
        Some(RopeScaling::Llama3 { factor, low, high, original }) => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }),
    };
    let own = [
        ("tyr.version", env!("CARGO_PKG_VERSION").to_string()),
        ("tyr.query_heads_per_kv", json!(groups).to_string()),
        ("tyr.intermediate_size", json!(neurons).to_string()),
        (ROPE_SCALING, scaling.to_string()),
    ];
    let parameters = ("tyr.parameters".to_string(), Value::U64(config.parameters().total() as u64));
    own.into_iter().map(|(key, value)| (key.to_string(), text(value))).chain([parameters]).collect()
}

/// What runtimes call the model: as config.json does, else as its folder.
pub(super) fn name(source: &Source, config: &Config) -> String {
    let named =
        config.raw.get("_name_or_path").and_then(|name| name.as_str()).filter(|name| !name.is_empty());
    last_part(named.unwrap_or(&source.place())).to_string()
}
