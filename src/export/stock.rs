//! The form for every runtime: a folder of a plain family, all layers with the sizes of those that need most,
//! filled up with zeros. A model whose layers are all alike is written as it is.

use serde_json::json;

use super::layout::Layout;
use super::notes::{filled, larger};
use super::{Draft, refusal};
use crate::base::{Error, Result};
use crate::model::family::Biases;
use crate::model::{Config, LayerShape, plain};

/// A configuration of the plain family that says these layers; `None` where there is none.
fn plainly(config: &Config, layer: &LayerShape) -> Option<Config> {
    let Biases { qkv, attention_output, gate_up, mlp_output } = config.biases;
    // Llama has all biases of a sub-layer or none: those that the model lacks are zeros.
    let attention = qkv || attention_output;
    let mlp = gate_up || mlp_output;
    let whole = Biases { qkv: attention, attention_output: attention, gate_up: mlp, mlp_output: mlp };
    let mut raw = config.raw.clone();
    raw.insert("head_dim".into(), json!(config.head_width));
    let layers = vec![layer.clone(); config.layers.len()];
    [config.biases, whole].into_iter().find_map(|biases| {
        let said = Config { layers: layers.clone(), biases, raw: raw.clone(), ..config.clone() };
        plain::of(&said, config.family)
    })
}

/// The folder of a model.
///
/// # Errors
/// Biases and windows that no plain family has together.
pub(super) fn draft(config: &Config) -> Result<Draft> {
    let layout = Layout::alike(config, |layer| plainly(config, layer).is_some());
    let layout = layout.ok_or_else(|| no_family(config))?;
    let target = plainly(config, &layout.layers[0].shape()).ok_or_else(|| no_family(config))?;
    let notes = [filled(config, &layout), larger(config, target.parameters().total())];
    Ok(Draft { notes: notes.into_iter().flatten().collect(), layout, target })
}

fn no_family(config: &Config) -> Error {
    let last = config.layers.len() - 1;
    let window = match config.window {
        Some(window) => format!(" and a sliding window of {window} tokens"),
        None => String::new(),
    };
    let why = format!(
        "no plain family has what layers 0 to {last} have together: {:?}{window}, {} channels and {} in a head",
        config.biases, config.hidden, config.head_width
    );
    refusal("stock", why, "export.to = [\"hf\"] carries it")
}
