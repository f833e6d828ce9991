//! What lies in a folder that is no checkpoint that can be read, and what to do: one message for each kind of
//! folder that is handed over by mistake.

use super::checkpoint::{INDEX, SINGLE};
use super::companions::TOKENIZER;
use super::source::Source;
use crate::base::{Error, Kind};

/// How a file begins that stands for one that Git LFS has not fetched.
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/v1";

/// Whether bytes only stand for a file that Git LFS keeps.
pub(super) fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(LFS)
}

/// The error for such a file.
pub(super) fn lfs_pointer(name: &str) -> Error {
    Error::new(Kind::Checkpoint, format!("{name} is a Git LFS pointer, not the file itself"))
        .hint("run `git lfs pull` in the folder, or download the model again")
}

/// The error for a file that every checkpoint has and this one lacks: what lies there instead.
pub(super) fn missing(source: &Source, name: &str) -> Error {
    let names = source.names();
    let found = match name {
        "config.json" => instead_of_config(&names),
        TOKENIZER => instead_of_tokenizer(&names),
        SINGLE => instead_of_weights(&names),
        _ => None,
    };
    let (what, hint) = found.unwrap_or_else(|| {
        (format!("{name} is missing"), "copy the whole model folder, every shard included".into())
    });
    Error::new(Kind::Checkpoint, what).at(source.place()).hint(hint)
}

/// What is wrong, and what to do.
type Found = Option<(String, String)>;

fn found(what: impl Into<String>, hint: impl Into<String>) -> Found {
    Some((what.into(), hint.into()))
}

fn ending<'a>(names: &'a [String], ends: &[&str]) -> Option<&'a str> {
    names.iter().map(String::as_str).find(|name| ends.iter().any(|end| name.to_lowercase().ends_with(end)))
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|n| n == name)
}

fn adapter(names: &[String]) -> Found {
    let name = names.iter().find(|n| n.starts_with("adapter_config.") || n.starts_with("adapter_model."))?;
    found(
        format!("the folder holds an adapter (LoRA, PEFT: {name}), not a model"),
        "merge it into its base model (`merge_and_unload` of peft) and name the folder of the result",
    )
}

fn gguf(names: &[String]) -> Found {
    let name = ending(names, &[".gguf", ".ggml"])?;
    found(format!("the folder holds a llama.cpp file ({name})"), HUGGING_FACE)
}

/// Meta's and Mistral's own layout.
fn original(names: &[String]) -> Found {
    let name = names.iter().find(|n| *n == "params.json" || n.starts_with("consolidated."))?;
    found(format!("the folder holds a checkpoint in its maker's own layout ({name})"), HUGGING_FACE)
}

const HUGGING_FACE: &str =
    "name the model's folder in the Hugging Face layout: config.json, tokenizer.json and *.safetensors";

fn instead_of_config(names: &[String]) -> Found {
    adapter(names).or_else(|| gguf(names)).or_else(|| original(names))
}

fn instead_of_tokenizer(names: &[String]) -> Found {
    let convert = "write tokenizer.json with transformers: \
                   AutoTokenizer.from_pretrained(FOLDER, use_fast=True).save_pretrained(FOLDER)";
    if has(names, "tokenizer.model") {
        return found(
            "tokenizer.json is missing; the folder has a sentencepiece tokenizer.model alone",
            convert,
        );
    }
    if has(names, "vocab.json") && has(names, "merges.txt") {
        return found("tokenizer.json is missing; the folder has vocab.json and merges.txt alone", convert);
    }
    let name = names.iter().find(|n| n.starts_with("tekken") || n.ends_with(".tiktoken"))?;
    let hint = "name a folder with the model's tokenizer.json, as on the hub";
    found(format!("tokenizer.json is missing; the folder has {name} alone"), hint)
}

fn instead_of_weights(names: &[String]) -> Found {
    let shard = |n: &&String| n.starts_with("model-") && n.ends_with(".safetensors");
    if let Some(name) = names.iter().find(shard) {
        return found(
            format!("the folder has shards ({name}) and no {INDEX}, which says what they hold"),
            "copy the index, too; a model of one shard may be renamed to model.safetensors",
        );
    }
    if let Some(name) = ending(names, &[".bin", ".pt", ".pth", ".h5", ".msgpack", ".ckpt"]) {
        return found(
            format!(
                "{SINGLE} is missing; the weights are stored in another format ({name}: pickle or alike)"
            ),
            "convert them: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER) of \
             transformers writes safetensors",
        );
    }
    let others = || {
        let name = ending(names, &[".safetensors"])?;
        let hint = "rename the file to model.safetensors if it holds the whole model";
        found(format!("{SINGLE} is missing; the folder has {name}"), hint)
    };
    adapter(names).or_else(|| gguf(names)).or_else(|| original(names)).or_else(others)
}

/// Why a checkpoint with tensors of these names lacks a tensor.
pub(super) fn missing_tensor<'a>(names: impl Iterator<Item = &'a str>, name: &str) -> Error {
    let names: Vec<&str> = names.collect();
    let (what, hint) =
        packed(&names).or_else(|| unmerged(&names)).or_else(|| wrapped(&names, name)).unwrap_or_else(|| {
            let hint =
                "config.json and the weights must belong to the same model, and every shard must be there";
            (format!("tensor `{name}` is missing"), hint.into())
        });
    Error::new(Kind::Checkpoint, what).hint(hint)
}

/// Ends of names that only quantised checkpoints have, and whose they are.
const PACKED: [(&str, &str); 9] = [
    (".g_idx", "GPTQ"),
    (".qzeros", "GPTQ or AWQ"),
    (".qweight", "GPTQ or AWQ"),
    (".absmax", "bitsandbytes"),
    (".SCB", "bitsandbytes"),
    (".weight_packed", "compressed-tensors"),
    (".weight_scale", "FP8 or compressed-tensors"),
    (".weight_scale_inv", "FP8"),
    (".scales", "MLX or GPTQ"),
];

fn packed(names: &[&str]) -> Found {
    let (end, method) = PACKED.iter().find(|(end, _)| names.iter().any(|name| name.ends_with(end)))?;
    found(
        format!("the checkpoint is quantised ({method}: it has tensors `*{end}`)"),
        "name the checkpoint that it was made of, or convert it to f32, f16 or bf16 first",
    )
}

fn unmerged(names: &[&str]) -> Found {
    let name = names.iter().find(|name| name.contains(".lora_") || name.contains(".base_layer."))?;
    found(
        format!("the weights hold an adapter that is not merged (`{name}`)"),
        "merge it into its base model (`merge_and_unload` of peft) and save that",
    )
}

/// Prefixes of names that programs leave when they save a model wrapped in another, or a part of one.
fn wrapped(names: &[&str], name: &str) -> Found {
    let prefix = |found: &&&str| found.ends_with(name) && found[..found.len() - name.len()].ends_with('.');
    if let Some(found_name) = names.iter().find(prefix) {
        let prefix = &found_name[..found_name.len() - name.len()];
        return found(
            format!("the names of tensors begin with `{prefix}`: the model was saved inside another object"),
            format!("save the model itself, or remove `{prefix}` from the names"),
        );
    }
    let bare = name.strip_prefix("model.")?;
    names.contains(&bare).then_some(())?;
    found(
        "the names of tensors lack `model.`: the decoder was saved without its output projection",
        "save the whole language model (AutoModelForCausalLM of transformers)",
    )
}
