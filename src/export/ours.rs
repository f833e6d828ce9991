//! Our own configuration of a model that is read back from another form.

use serde_json::{Map, Value, json};

use crate::model::LayerShape;

/// The keys of our own form that say the sizes of these layers, whose groups are regular: of a dense layer
/// that has as much of everything as any.
pub(super) fn sizes(layers: &[LayerShape]) -> Map<String, Value> {
    let most = |size: fn(&LayerShape) -> usize| layers.iter().map(size).max().unwrap_or(0).max(1);
    let kv_heads = most(LayerShape::kv_heads);
    let each = layers.iter().enumerate().map(|(l, layer)| {
        let shape = json!({
            "num_attention_heads": layer.heads(),
            "num_key_value_heads": layer.kv_heads(),
            "query_heads_per_kv": layer.query_heads_per_kv,
            "intermediate_size": layer.intermediate_size,
        });
        (l.to_string(), shape)
    });
    let value = json!({
        "num_hidden_layers": layers.len(),
        "num_attention_heads": most(LayerShape::heads).next_multiple_of(kv_heads),
        "num_key_value_heads": kv_heads,
        "intermediate_size": most(|layer| layer.intermediate_size),
        "per_layer_config": each.collect::<Map<String, Value>>(),
    });
    value.as_object().cloned().unwrap_or_default()
}
