//! A tokenizer in GGUF, made of tokenizer.json and the small files beside it: pieces with their kinds, the
//! special tokens, and how chats are written. Which of llama.cpp's tokenizers does the same as the file says
//! is decided in [`super::bpe`] and [`super::sentencepiece`]; a file that none of them is known to follow is
//! refused.

use std::collections::BTreeMap;

use candle_core::quantized::gguf_file::Value as Item;
use serde_json::Value;

use super::file::{Metadata, text};
use super::{bpe, sentencepiece};
use crate::base::{Error, Kind, Result, ResultExt};
use crate::data::{SpecialTokens, Tokenizer};
use crate::model::companions::{Companions, Named, Special, TOKENIZER};
use crate::model::{Config, Source};

/// llama.cpp's kinds of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// A file of the tokenizers library, as JSON.
pub(super) struct File {
    json: Value,
    /// Pieces with their numbers.
    pieces: BTreeMap<u32, String>,
    /// Added tokens: text, and whether it is special.
    added: BTreeMap<u32, (String, bool)>,
}

/// An error of a tokenizer that GGUF has no name for.
pub(super) fn unknown(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Data, format!("no tokenizer of llama.cpp is known to do what tokenizer.json says: {why}"))
        .at(TOKENIZER)
        .hint("name a GGUF file of the dense model, whose tokenizer is taken over: --gguf-base FILE, or export.gguf_base")
}

impl File {
    fn open(source: &Source) -> Result<Self> {
        let broken = |what: &str| Error::new(Kind::Data, what.to_string()).at(TOKENIZER).at(source.place());
        let json: Value = serde_json::from_slice(&source.file(TOKENIZER)?)
            .or_error(Kind::Data, "not JSON")
            .map_err(|e| e.at(TOKENIZER).at(source.place()))?;
        let vocabulary = json["model"]["vocab"].as_object();
        let vocabulary =
            vocabulary.ok_or_else(|| unknown(format!("its model is {}", json["model"]["type"])))?;
        let piece = |(piece, id): (&String, &Value)| Some((u32::try_from(id.as_u64()?).ok()?, piece.clone()));
        let pieces: Option<BTreeMap<_, _>> = vocabulary.iter().map(piece).collect();
        let pieces = pieces.ok_or_else(|| broken("the vocabulary has a number that is none"))?;
        let added = json["added_tokens"].as_array().into_iter().flatten().map(|token| {
            let id = u32::try_from(token["id"].as_u64()?).ok()?;
            Some((id, (token["content"].as_str()?.to_string(), token["special"].as_bool().unwrap_or(false))))
        });
        let added: Option<BTreeMap<_, _>> = added.collect();
        let added = added.ok_or_else(|| broken("an added token has no number or no text"))?;
        Ok(Self { pieces, added, json })
    }

    /// A value of its model.
    pub(super) fn model(&self, key: &str) -> &Value {
        &self.json["model"][key]
    }

    /// A part of the file.
    pub(super) fn part(&self, key: &str) -> &Value {
        &self.json[key]
    }

    /// Number of a piece.
    pub(super) fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.get(&id).map(String::as_str)
    }

    /// Pieces with their numbers, by number.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u32, &str)> {
        self.pieces.iter().map(|(id, piece)| (*id, piece.as_str()))
    }

    /// The merges, each of two pieces, in order.
    pub(super) fn merges(&self) -> Result<Vec<(&str, &str)>> {
        let all = self.model("merges").as_array().into_iter().flatten();
        all.map(|merge| {
            let both = match merge {
                Value::String(text) => text.split_once(' '),
                pair => pair[0].as_str().zip(pair[1].as_str()),
            };
            both.ok_or_else(|| Error::new(Kind::Data, "a merge is not of two pieces").at(TOKENIZER))
        })
        .collect()
    }

    /// Text and kind of a token; `kind` is that of one that was not added.
    fn token(&self, id: u32, kind: impl Fn(u32, &str) -> Token) -> (String, Token) {
        match (self.added.get(&id), self.pieces.get(&id)) {
            (Some((text, special)), _) => {
                let own = kind(id, text);
                let added = if *special { Token::Control } else { Token::UserDefined };
                (text.clone(), if own == Token::Unknown { own } else { added })
            }
            (None, Some(piece)) => (piece.clone(), kind(id, piece)),
            (None, None) => (format!("[PAD{id}]"), Token::Unused),
        }
    }

    /// Whether the file puts the token that begins a text before every text.
    fn begins(&self, bos: Option<u32>) -> bool {
        let first = |template: &Value| template["single"][0]["SpecialToken"]["id"].as_str().map(String::from);
        let processor = &self.json["post_processor"];
        let all = processor["processors"].as_array();
        let found = all.into_iter().flatten().chain([processor]).find_map(first);
        let text = bos.and_then(|id| self.added.get(&id)).map(|(text, _)| text);
        found.is_some() && found.as_ref() == text
    }
}

/// The keys of a model's tokenizer.
///
/// # Errors
/// A tokenizer that no one of llama.cpp's is known to be, or with more tokens than the model.
pub(super) fn metadata(source: &Source, config: &Config) -> Result<Metadata> {
    let file = File::open(source)?;
    let vocabulary = config.vocabulary as u32;
    let largest = file.pieces.keys().chain(file.added.keys()).max();
    if let Some(&largest) = largest.filter(|id| **id >= vocabulary) {
        let what = format!("the tokenizer has a token {largest}, and the model a vocabulary of {vocabulary}");
        return Err(Error::new(Kind::Data, what)
            .at(source.place())
            .hint("tokenizer.json must belong to the model"));
    }
    let is_byte_level = file.model("byte_fallback").as_bool() != Some(true);
    let (mut pairs, kind): (Metadata, fn(u32, &str) -> Token) = match file.model("type").as_str() {
        Some("BPE") | None if is_byte_level => (bpe::metadata(&file)?, |_, _| Token::Normal),
        Some("BPE") | None => (sentencepiece::metadata(&file, source, vocabulary)?, sentencepiece::kind),
        Some(other) => return Err(unknown(format!("its model is {other}"))),
    };
    let tokens: Vec<_> = (0..vocabulary).map(|id| file.token(id, kind)).collect();
    let kinds = tokens.iter().map(|(_, kind)| Item::I32(*kind as i32)).collect();
    let texts = tokens.iter().map(|(piece, _)| text(piece)).collect();
    pairs.push(("tokenizer.ggml.tokens".into(), Item::Array(texts)));
    pairs.push(("tokenizer.ggml.token_type".into(), Item::Array(kinds)));
    pairs.extend(special(source, config, &file)?);
    Ok(pairs)
}

/// The tokens with a part of their own, and the template of chats.
fn special(source: &Source, config: &Config, file: &File) -> Result<Metadata> {
    let settings = Companions::open(source)?;
    let tokens = SpecialTokens::of(source, config, &Tokenizer::open(source)?)?;
    let numbered = |text: &str| file.added.iter().find(|(_, (added, _))| added == text).map(|(id, _)| *id);
    let pad = match settings.special(Special::Pad) {
        Named::As(text) => numbered(&text),
        Named::Absent | Named::Unsaid => None,
    };
    let turn = config.eos.iter().copied().find(|id| Some(*id) != tokens.eos);
    let unknown = file
        .model("unk_token")
        .as_str()
        .and_then(|text| file.pieces.iter().find(|(_, piece)| *piece == text).map(|(id, _)| *id));
    let ids =
        [("bos", tokens.bos), ("eos", tokens.eos), ("eot", turn), ("padding", pad), ("unknown", unknown)];
    let ids = ids.into_iter().filter_map(|(name, id)| Some((name, id?)));
    let mut pairs: Metadata =
        ids.map(|(name, id)| (format!("tokenizer.ggml.{name}_token_id"), Item::U32(id))).collect();
    pairs.push(("tokenizer.ggml.add_bos_token".into(), Item::Bool(file.begins(tokens.bos))));
    pairs.push(("tokenizer.ggml.add_eos_token".into(), Item::Bool(false)));
    if let Some(template) = settings.chat_template() {
        pairs.push(("tokenizer.chat_template".into(), text(template)));
    }
    Ok(pairs)
}
