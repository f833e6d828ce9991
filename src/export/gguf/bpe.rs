//! Byte-level BPE: which of llama.cpp's ways to cut a text before merging is the file's.

use candle_core::quantized::gguf_file::Value as Item;
use serde_json::Value;

use super::file::{Metadata, text};
use super::tokenizer::{File, unknown};
use crate::base::Result;

/// A way to cut texts that llama.cpp has a name for.
struct Known {
    /// The name.
    name: &'static str,
    /// The pattern of the pieces, as tokenizer.json has it.
    pattern: &'static str,
    /// Whether a piece that is a token is not merged, which goes with the name.
    ignore_merges: bool,
}

const KNOWN: [Known; 3] = [
    Known {
        name: "llama-bpe",
        pattern: r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ignore_merges: true,
    },
    Known {
        name: "qwen2",
        pattern: r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ignore_merges: false,
    },
    Known {
        name: "tekken",
        pattern: r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ignore_merges: true,
    },
];

/// The steps by which a text is cut, outer ones first.
fn steps(cutter: &Value) -> Vec<&Value> {
    match cutter["pretokenizers"].as_array() {
        Some(all) => all.iter().flat_map(steps).collect(),
        None if cutter.is_null() => Vec::new(),
        None => vec![cutter],
    }
}

/// Whether a step turns bytes into visible characters; and whether it cuts by GPT-2's pattern.
fn is_byte_level(step: &Value, cuts: bool) -> bool {
    step["type"] == "ByteLevel"
        && step["add_prefix_space"].as_bool() != Some(true)
        && step["use_regex"].as_bool().unwrap_or(true) == cuts
}

/// The way to cut, by its name.
fn known(file: &File) -> Result<(&'static str, bool)> {
    let cutter = file.part("pre_tokenizer");
    match steps(cutter)[..] {
        [bytes] if is_byte_level(bytes, true) => Ok(("gpt-2", false)),
        [digits, bytes]
            if digits["type"] == "Digits"
                && digits["individual_digits"].as_bool() == Some(true)
                && is_byte_level(bytes, true) =>
        {
            Ok(("smollm", false))
        }
        [split, bytes]
            if split["type"] == "Split"
                && split["behavior"] == "Isolated"
                && split["invert"].as_bool() != Some(true)
                && is_byte_level(bytes, false) =>
        {
            let pattern = split["pattern"]["Regex"].as_str();
            let known = KNOWN.iter().find(|known| Some(known.pattern) == pattern);
            let known = known.ok_or_else(|| unknown(format!("it cuts texts by {}", split["pattern"])))?;
            Ok((known.name, known.ignore_merges))
        }
        _ => Err(unknown(format!("its pre_tokenizer is {}", shortened(cutter)))),
    }
}

/// The start of a long value.
fn shortened(value: &Value) -> String {
    const LONGEST: usize = 200;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The keys of the way to cut and of the merges.
///
/// # Errors
/// A way to cut, to normalise or to merge that no name of llama.cpp stands for.
pub(super) fn metadata(file: &File) -> Result<Metadata> {
    let (name, ignore_merges) = known(file)?;
    let normalizer = file.part("normalizer");
    let is_nfc = normalizer["type"] == "NFC" && name == "qwen2";
    if !normalizer.is_null() && !is_nfc {
        return Err(unknown(format!("its normalizer is {}", shortened(normalizer))));
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if file.model(key).as_str().is_some_and(|affix| !affix.is_empty()) {
            return Err(unknown(format!("its {key} is {}", file.model(key))));
        }
    }
    if file.model("ignore_merges").as_bool().unwrap_or(false) != ignore_merges {
        return Err(unknown(format!(
            "its ignore_merges is {}, unlike {name}'s",
            file.model("ignore_merges")
        )));
    }
    let merges = file.merges()?.into_iter().map(|(left, right)| text(format!("{left} {right}")));
    Ok(vec![
        ("tokenizer.ggml.model".into(), text("gpt2")),
        ("tokenizer.ggml.pre".into(), text(name)),
        ("tokenizer.ggml.merges".into(), Item::Array(merges.collect())),
    ])
}
