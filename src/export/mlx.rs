//! The form for MLX-LM: its model type `openelm`, which has heads, key/value heads and widths of every
//! layer's own. Checked with mlx-lm 0.32.2.
//!
//! It has no biases, no RoPE scaling and no sliding window; groups are regular inside a layer, and a layer has
//! one head and one neuron at least.

use std::path::Path;

use candle_core::Device;
use serde_json::{Map, Value, json};

use super::layout::Layout;
use super::notes::{Dummies, dummies, groups, larger};
use super::{Draft, refusal, refuse_window, write_folder};
use crate::base::{Error, Kind, Result, Watch, files};
use crate::model::checkpoint::SINGLE;
use crate::model::companions::{Companions, TOKENIZER_CONFIG};
use crate::model::family::When::{Always, Untied};
use crate::model::family::{BiasKeys, Biases, Family, Given, TensorRule, Windows, weight};
use crate::model::matrix::Matrix::*;
use crate::model::{Config, LayerShape, Model, Source};

/// Its name, which is also MLX-LM's.
const NAME: &str = "openelm";

/// Its layout, as a table of ours.
static OPENELM: Family = family(false);

/// The same with a configuration of our own keys, which reading back makes.
static OPENELM_IN_OUR_KEYS: Family = family(true);

const fn family(per_layer: bool) -> Family {
    let none = Given::Never;
    Family {
        model_type: NAME,
        per_layer,
        windows: Windows::Ignored,
        biases: BiasKeys { qkv: none, attention_output: none, gate_up: none, mlp_output: none },
        defaults: &[],
        keys: &[],
        tensors: TENSORS,
        pruned: None,
    }
}

const TENSORS: &[TensorRule] = &[
    weight("transformer.token_embeddings.weight", &[Embedding], Always),
    weight("transformer.norm.weight", &[FinalNorm], Always),
    weight("lm_head.weight", &[Output], Untied),
    weight("transformer.layers.{layer}.attn_norm.weight", &[AttentionNorm], Always),
    weight("transformer.layers.{layer}.attn.qkv_proj.weight", &[Query, Key, Value], Always),
    weight("transformer.layers.{layer}.attn.out_proj.weight", &[AttentionOutput], Always),
    weight("transformer.layers.{layer}.ffn_norm.weight", &[MlpNorm], Always),
    weight("transformer.layers.{layer}.ffn.proj_1.weight", &[Gate, Up], Always),
    weight("transformer.layers.{layer}.ffn.proj_2.weight", &[Down], Always),
];

/// The folder of a model.
///
/// # Errors
/// Biases, RoPE scaling, or a window that hides tokens.
pub(super) fn draft(config: &Config) -> Result<Draft> {
    const INSTEAD: &str = "export.to = [\"gguf\"], [\"hf\"] or [\"stock\"] carries them";
    let last = config.layers.len() - 1;
    if config.biases != Biases::default() {
        let why = format!("the projections of layers 0 to {last} have biases, and MLX-LM's {NAME} has none");
        return Err(refusal("mlx", why, INSTEAD));
    }
    if let Some(scaling) = &config.rope_scaling {
        let why = format!("layers 0 to {last} have RoPE scaling ({scaling:?}), and MLX-LM's {NAME} has none");
        return Err(refusal("mlx", why, INSTEAD));
    }
    refuse_window("mlx", config)?;
    let mut layout = Layout::regular(config);
    for written in &mut layout.layers {
        written.fill_attention();
        written.fill_mlp(1);
    }
    let layers = layout.shapes();
    let raw = settings(config, &layers);
    let target = Config { family: &OPENELM, layers, raw, notes: Vec::new(), ..config.clone() };
    let notes = [
        groups(config, &layout),
        dummies(config, &layout, Dummies::Everywhere),
        larger(config, target.parameters().total()),
    ];
    Ok(Draft { notes: notes.into_iter().flatten().collect(), layout, target })
}

/// Writes the folder; the names of its files and the notes. The tokenizer's class, which MLX-LM leaves to
/// transformers, is named where the model's own files leave it to the model type: transformers has none for this
/// one.
pub(super) fn write(
    model: &Model,
    source: &Source,
    out: &Path,
    watch: &dyn Watch,
) -> Result<(Vec<String>, Vec<String>)> {
    let (mut names, notes) = write_folder(model, source, draft(model.config())?, out, watch)?;
    if let Some(settings) = Companions::open(source)?.with_tokenizer_class() {
        files::write_json(&out.join(TOKENIZER_CONFIG), &settings)?;
        if !names.iter().any(|name| name == TOKENIZER_CONFIG) {
            names.push(TOKENIZER_CONFIG.into());
        }
    }
    Ok((names, notes))
}

/// The config.json that MLX-LM reads.
fn settings(config: &Config, layers: &[LayerShape]) -> Map<String, Value> {
    let each = |size: fn(&LayerShape) -> usize| layers.iter().map(size).collect::<Vec<_>>();
    // MLX-LM rounds multiplier x width to the nearest whole number.
    let multipliers: Vec<f64> =
        layers.iter().map(|l| l.intermediate_size as f64 / config.hidden as f64).collect();
    let value = json!({
        "model_type": NAME,
        "architectures": ["OpenELMForCausalLM"],
        "head_dim": config.head_width,
        "num_transformer_layers": layers.len(),
        "model_dim": config.hidden,
        "vocab_size": config.vocabulary,
        "num_query_heads": each(LayerShape::heads),
        "num_kv_heads": each(LayerShape::kv_heads),
        "ffn_multipliers": multipliers,
        "ffn_dim_divisor": 1,
        "ffn_with_glu": true,
        "normalize_qk_projections": false,
        "share_input_output_layers": config.tied,
        "rms_norm_eps": config.norm_epsilon,
        "rope_freq_constant": config.rope_theta,
        "max_context_length": config.context,
        "bos_token_id": config.bos,
        "eos_token_id": config.eos,
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Opens such a folder: the weights as they lie there, and in `into` a configuration of our keys.
pub(super) fn read_back(folder: &Path, into: &Path) -> Result<Model> {
    let settings: Map<String, Value> = files::read_json(&folder.join("config.json"))?;
    let raw = our_settings(&settings).map_err(|e| e.at(folder.join("config.json").display()))?;
    files::create_dir(into)?;
    files::write_json(&into.join("config.json"), &raw)?;
    link(&folder.join(SINGLE), &into.join(SINGLE))?;
    Model::open_with(&[&OPENELM_IN_OUR_KEYS], &Source::folder(into)?, &Device::Cpu)
}

/// A second name for a file; a copy where the file system has no such names.
fn link(from: &Path, to: &Path) -> Result<()> {
    let linked = std::fs::hard_link(from, to).or_else(|_| std::fs::copy(from, to).map(drop));
    linked.map_err(|e| files::io_error(from, "copy", &e))
}

fn our_settings(settings: &Map<String, Value>) -> Result<Value> {
    let lacks = |key: &str| Error::new(Kind::Checkpoint, format!("`{key}` is missing or of another type"));
    let value = |key: &str| settings.get(key).cloned().ok_or_else(|| lacks(key));
    let list = |key: &str| value(key)?.as_array().cloned().ok_or_else(|| lacks(key));
    let width = value("model_dim")?.as_f64().ok_or_else(|| lacks("model_dim"))?;
    let whole = |key: &str, list: Vec<Value>| -> Result<Vec<usize>> {
        list.iter().map(|n| n.as_u64().map(|n| n as usize).ok_or_else(|| lacks(key))).collect()
    };
    let heads = whole("num_query_heads", list("num_query_heads")?)?;
    let kv_heads = whole("num_kv_heads", list("num_kv_heads")?)?;
    let neurons =
        list("ffn_multipliers")?.iter().map(|m| Some((m.as_f64()? * width).round() as usize)).collect();
    let neurons: Option<Vec<usize>> = neurons;
    let neurons = neurons.ok_or_else(|| lacks("ffn_multipliers"))?;
    let layers = heads.iter().zip(&kv_heads).zip(&neurons).map(|((&heads, &kv), &neurons)| LayerShape {
        query_heads_per_kv: vec![heads.checked_div(kv).unwrap_or(0); kv],
        intermediate_size: neurons,
    });
    let mut raw = super::ours::sizes(&layers.collect::<Vec<_>>());
    let taken = [
        ("hidden_size", "model_dim"),
        ("head_dim", "head_dim"),
        ("vocab_size", "vocab_size"),
        ("rms_norm_eps", "rms_norm_eps"),
        ("rope_theta", "rope_freq_constant"),
        ("max_position_embeddings", "max_context_length"),
        ("tie_word_embeddings", "share_input_output_layers"),
        ("bos_token_id", "bos_token_id"),
        ("eos_token_id", "eos_token_id"),
        ("model_type", "model_type"),
    ];
    for (ours, theirs) in taken {
        raw.insert(ours.into(), value(theirs)?);
    }
    raw.insert("hidden_act".into(), json!("silu"));
    Ok(Value::Object(raw))
}
