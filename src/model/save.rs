//! Writing a model folder: configuration with per-layer sizes, tokenizer files of the base model, weights one
//! tensor at a time.

use std::io::Write;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use safetensors::tensor::TensorInfo;
use serde_json::{Value, json};

use super::checkpoint::{SINGLE, narrowed};
use super::companions::{self, ANY_TOKENIZER, Companions, TOKENIZER_CLASS};
use super::config::{Config, LayerShape};
use super::family::{Biases, TensorEntry};
use super::source::Source;
use super::wire::WireLayer;
use super::{plain, remote, rope};
use crate::base::{Error, Kind, Result, ResultExt, files, hash};

/// Hash of the files that a pruned model takes over from its base.
///
/// # Errors
/// A file that cannot be read.
pub fn companions_hash(base: &Source) -> Result<String> {
    let of_file = |name: &'static str| Ok(base.optional(name)?.map(|bytes| (name, hash::of_bytes(&bytes))));
    hash::of_json(&companions::all().map(of_file).collect::<Result<Vec<_>>>()?)
}

/// A configuration like `base` with other layers: of the plain family where they are all alike
/// ([`plain::of`]), else of the one whose layers have sizes of their own.
///
/// # Errors
/// A family whose pruned models have no place for one of its tensors.
pub fn with_layers(base: &Config, layers: Vec<LayerShape>) -> Result<Config> {
    with_layers_and_biases(base, layers, base.biases)
}

/// The same with other biases, which a pruning method may have added.
///
/// # Errors
/// As for [`with_layers`].
pub fn with_layers_and_biases(base: &Config, layers: Vec<LayerShape>, biases: Biases) -> Result<Config> {
    let family = base.family.pruned.unwrap_or(base.family);
    let mut raw = base.raw.clone();
    let wire = |l: &LayerShape| WireLayer {
        num_attention_heads: l.heads(),
        num_key_value_heads: l.kv_heads(),
        query_heads_per_kv: l.query_heads_per_kv.clone(),
        intermediate_size: l.intermediate_size,
    };
    let each: serde_json::Map<String, Value> =
        layers.iter().enumerate().map(|(i, l)| (i.to_string(), json!(wire(l)))).collect();
    raw.insert("model_type".into(), json!(family.model_type));
    remote::name_classes(&mut raw, base.window.is_some());
    raw.insert("head_dim".into(), json!(base.head_width));
    // What classes of transformers do not agree on where it is not said.
    raw.insert("tie_word_embeddings".into(), json!(base.tied));
    for key in ["bos_token_id", "eos_token_id"] {
        raw.entry(key).or_insert(Value::Null);
    }
    rope::write(&mut raw, base.rope_theta, base.rope_scaling.as_ref());
    // A family that ignores the window must go on ignoring it under the new name.
    raw.insert("sliding_window".into(), json!(base.window));
    raw.insert("per_layer_config".into(), Value::Object(each));
    family.biases.write(&mut raw, &biases)?;
    let config = Config { layers, raw, biases, family, notes: Vec::new(), ..base.clone() };
    check_pieces(base, &config)?;
    Ok(plain::of(&config, base.family).unwrap_or(config))
}

/// Refuses to write a model without something that its base has.
fn check_pieces(base: &Config, config: &Config) -> Result<()> {
    let lost = base.pieces().find(|(matrix, part, _)| config.place(*matrix, *part, 0).is_none());
    match lost {
        None => Ok(()),
        Some((.., rule)) => {
            let what = format!("`{}` has no place for `{}`", config.family.model_type, rule.name);
            Err(Error::new(Kind::Checkpoint, what).hint("this family cannot be written as a pruned model"))
        }
    }
}

/// Writes a folder that [`super::Model::open`] reads: `weights` gives each tensor of `config`, as f32. Returns
/// the names of all files written.
pub fn save(
    folder: &Path,
    config: &Config,
    base: &Source,
    dtype: Dtype,
    mut weights: impl FnMut(&TensorEntry) -> Result<Vec<f32>>,
) -> Result<Vec<String>> {
    files::create_dir(folder)?;
    let mut written = Vec::new();
    for name in companions::all() {
        if let Some(bytes) = base.optional(name)? {
            files::write(&folder.join(name), &bytes)?;
            written.push(name.into());
        }
    }
    if config.family.per_layer {
        files::write(&folder.join(remote::FILE), remote::CODE.as_bytes())?;
        written.push(remote::FILE.into());
    }
    write_weights(&folder.join(SINGLE), config, dtype, &mut weights)?;
    let mut raw = config.raw.clone();
    raw.insert("torch_dtype".into(), json!(torch_name(dtype)));
    raw.remove("dtype");
    if config.family.per_layer && Companions::open(base)?.tokenizer_class().is_none() {
        // No table of transformers has a tokenizer for this model type.
        raw.entry(TOKENIZER_CLASS).or_insert(json!(ANY_TOKENIZER));
    }
    // Last, so that a folder with a configuration is whole.
    files::write_json(&folder.join("config.json"), &raw)?;
    written.extend([SINGLE.into(), "config.json".into()]);
    Ok(written)
}

fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::BF16 => "bfloat16",
        Dtype::F16 => "float16",
        _ => "float32",
    }
}

/// Gives a tensor's values, row-major.
type Weights<'a> = dyn FnMut(&TensorEntry) -> Result<Vec<f32>> + 'a;

fn write_weights(path: &Path, config: &Config, dtype: Dtype, weights: &mut Weights) -> Result<()> {
    let tensors = config.tensors();
    let header = header(&tensors, dtype)?;
    let mut failure = None;
    let written = files::write_with(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for tensor in &tensors {
            match weights(tensor).and_then(|values| narrowed(&tensor.name, dtype, &values)) {
                Ok(bytes) => out.write_all(&bytes)?,
                Err(e) => {
                    failure = Some(e);
                    return Err(std::io::Error::other("no weights to write"));
                }
            }
        }
        Ok(())
    });
    failure.map_or(written, Err)
}

/// The JSON header of a safetensors file, padded to 8 bytes.
fn header(tensors: &[TensorEntry], dtype: Dtype) -> Result<Vec<u8>> {
    let mut at = 0;
    let mut infos = Vec::new();
    for TensorEntry { name, shape, .. } in tensors {
        let end = at + shape.iter().product::<usize>() * dtype.bitsize() / 8;
        infos.push((name.clone(), TensorInfo { dtype, shape: shape.clone(), data_offsets: (at, end) }));
        at = end;
    }
    let format = [("format".to_string(), "pt".to_string())].into();
    let metadata = Metadata::new(Some(format), infos)
        .or_error(Kind::Internal, "the safetensors header cannot be written as JSON")?;
    let mut bytes = serde_json::to_vec(&metadata)
        .or_error(Kind::Internal, "the safetensors header cannot be written as JSON")?;
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    Ok(bytes)
}
