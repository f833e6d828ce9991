//! BPE with byte fallback, as sentencepiece trains it (Llama 2, Mistral 7B): pieces with scores.
//!
//! llama.cpp joins the neighbours whose join has the highest score; tokenizer.json has an ordered list of
//! joins. The scores come from tokenizer.model where it is there. Else the places in the list are scores,
//! provided that the list says nothing else: whatever gives a piece is there and lies together, so that the
//! order is one of pieces. Joins that give one piece then have one score, and of equal scores llama.cpp takes the
//! left one, where the list takes the earlier one. That is the same: before any of them is made, the piece's text is
//! cut in the one way in which it is cut alone, wherever it stands between two cuts, so that only one of its joins is
//! ever possible.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::quantized::gguf_file::Value as Item;
use serde_json::Value;

use super::file::{Metadata, text};
use super::tokenizer::{File, Token, unknown};
use crate::base::{Error, Kind, Result};
use crate::model::Source;

/// sentencepiece's own file.
const MODEL: &str = "tokenizer.model";

/// What stands for a space.
const SPACE: &str = "\u{2581}";

/// Score of a token that sentencepiece does not join, as llama.cpp's converter has it.
const ADDED: f32 = -1000.0;

/// Kind of a piece.
pub(super) fn kind(_: u32, piece: &str) -> Token {
    let is_byte = piece.len() == 6 && piece.starts_with("<0x") && piece.ends_with('>');
    match piece {
        _ if is_byte => Token::Byte,
        "<unk>" => Token::Unknown,
        _ => Token::Normal,
    }
}

/// The keys of scores and spaces.
///
/// # Errors
/// Spaces that are treated in another way, or joins that no scores express.
pub(super) fn metadata(file: &File, source: &Source, vocabulary: u32) -> Result<Metadata> {
    let prefix = puts_space_first(file)?;
    let scores = match source.optional(MODEL)? {
        Some(bytes) => trained(&bytes, file).map_err(|e| e.at(MODEL).at(source.place()))?,
        None => by_order(file)?,
    };
    let scores = (0..vocabulary).map(|id| Item::F32(scores.get(&id).copied().unwrap_or(ADDED)));
    Ok(vec![
        ("tokenizer.ggml.model".into(), text("llama")),
        ("tokenizer.ggml.pre".into(), text("default")),
        ("tokenizer.ggml.scores".into(), Item::Array(scores.collect())),
        ("tokenizer.ggml.add_space_prefix".into(), Item::Bool(prefix)),
    ])
}

/// Whether a text gets a space before it.
fn puts_space_first(file: &File) -> Result<bool> {
    let normalizer = file.part("normalizer");
    let cutter = file.part("pre_tokenizer");
    let steps: Vec<&Value> = match normalizer["normalizers"].as_array() {
        Some(steps) => steps.iter().collect(),
        None => [normalizer].into_iter().filter(|n| !n.is_null()).collect(),
    };
    let is_prepend = |step: &Value| step["type"] == "Prepend" && step["prepend"] == SPACE;
    let is_replace = |step: &Value| {
        step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == SPACE
    };
    match (&steps[..], cutter) {
        ([first, second], Value::Null) if is_prepend(first) && is_replace(second) => Ok(true),
        ([only], Value::Null) if is_replace(only) => Ok(false),
        ([], cutter)
            if cutter["type"] == "Metaspace"
                && cutter["replacement"] == SPACE
                && keeps_whole(file, cutter) =>
        {
            Ok(cutter["prepend_scheme"]
                .as_str()
                .map_or(cutter["add_prefix_space"] != false, |s| s != "never"))
        }
        _ => Err(unknown(format!("its normalizer is {normalizer} and its pre_tokenizer {cutter}"))),
    }
}

/// Whether cutting before spaces changes nothing, because no piece has one inside.
fn keeps_whole(file: &File, cutter: &Value) -> bool {
    let inside = |piece: &str| piece.trim_start_matches(SPACE).contains(SPACE);
    let several = |piece: &str| piece.starts_with(&SPACE.repeat(2));
    cutter["split"].as_bool() == Some(false)
        || !file.pieces().any(|(_, piece)| inside(piece) || several(piece))
}

/// The scores in sentencepiece's own file.
fn trained(bytes: &[u8], file: &File) -> Result<BTreeMap<u32, f32>> {
    let pieces = pieces(bytes).ok_or_else(|| {
        Error::new(Kind::Data, "not a sentencepiece model").hint("copy it again, or remove it")
    })?;
    let mut scores = BTreeMap::new();
    for (id, (piece, score)) in (0u32..).zip(pieces) {
        if file.piece(id).is_some_and(|own| own != piece) {
            let what =
                format!("token {id} is `{piece}`, and `{}` in tokenizer.json", file.piece(id).unwrap_or(""));
            return Err(Error::new(Kind::Data, what).hint("both files must belong to the same model"));
        }
        scores.insert(id, score);
    }
    Ok(scores)
}

/// The pieces with their scores of a `ModelProto`, in order: field 1 of the message, whose fields 1 and 2
/// are they.
fn pieces(bytes: &[u8]) -> Option<Vec<(String, f32)>> {
    let mut pieces = Vec::new();
    for field in Fields(bytes) {
        let (1, Content::Bytes(piece)) = field? else { continue };
        let mut text = String::new();
        let mut score = 0.0;
        for field in Fields(piece) {
            match field? {
                (1, Content::Bytes(bytes)) => text = String::from_utf8(bytes.to_vec()).ok()?,
                (2, Content::Fixed(bits)) => score = f32::from_bits(bits),
                _ => {}
            }
        }
        pieces.push((text, score));
    }
    (!pieces.is_empty()).then_some(pieces)
}

/// The content of a field of a protobuf message.
enum Content<'a> {
    Bytes(&'a [u8]),
    Fixed(u32),
    Other,
}

/// The fields of a protobuf message, with their numbers; `None` where it is none.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Content<'a>)> {
        let key = self.varint()?;
        let content = match key & 7 {
            0 => self.varint().map(|_| Content::Other)?,
            1 => self.take(8).map(|_| Content::Other)?,
            2 => {
                let count = usize::try_from(self.varint()?).ok()?;
                Content::Bytes(self.take(count)?)
            }
            5 => Content::Fixed(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, content))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Content<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Scores by the order of joins: the first joined piece has 0, the next −1.
///
/// # Errors
/// A list in which a piece's joins do not lie together or are not all there.
fn by_order(file: &File) -> Result<BTreeMap<u32, f32>> {
    let doubt = |piece: &str| {
        unknown(format!("its merges are not in the order of pieces (`{piece}`), and {MODEL} is not there"))
    };
    let numbers: BTreeMap<&str, u32> = file.pieces().map(|(id, piece)| (piece, id)).collect();
    let merges = file.merges()?;
    let listed: BTreeSet<(&str, &str)> = merges.iter().copied().collect();
    let mut scores = BTreeMap::new();
    let mut last = None;
    for (left, right) in &merges {
        let piece = format!("{left}{right}");
        let id = *numbers.get(piece.as_str()).ok_or_else(|| doubt(&piece))?;
        if last == Some(id) {
            continue;
        }
        let score = -(scores.len() as f32);
        if scores.insert(id, score).is_some() {
            return Err(doubt(&piece));
        }
        last = Some(id);
    }
    // A join that is possible and not listed would be made by llama.cpp.
    for (id, piece) in file.pieces().filter(|(_, piece)| kind(0, piece) == Token::Normal) {
        let mut cuts = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
        let unlisted = cuts.any(|(left, right)| {
            numbers.contains_key(left) && numbers.contains_key(right) && !listed.contains(&(left, right))
        });
        if unlisted {
            return Err(doubt(piece));
        }
        // Single characters are not joined; llama.cpp's converter gives all pieces a score.
        scores.entry(id).or_insert(ADDED);
    }
    Ok(scores)
}
