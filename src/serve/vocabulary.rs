//! The tokenizer as clients see it: text of single tokens, and what `/tokenizer_info` tells.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use crate::base::{Kind, Result, ResultExt};
use crate::data::tokenizer::Tokenizer;
use crate::model::{Config, Source};

/// Texts of tokens, made when first asked for.
pub(crate) struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    texts: Vec<OnceLock<Token>>,
    /// Answer of `/tokenizer_info`.
    pub info: Value,
}

/// One token's text.
pub(crate) struct Token {
    /// Its text, or `id:N` where its bytes are no characters.
    pub label: String,
    /// Characters of its text.
    pub length: usize,
}

impl Vocabulary {
    pub(crate) fn open(source: &Source, config: &Config, tokenizer: Arc<Tokenizer>) -> Result<Self> {
        let said = match source.optional("tokenizer_config.json")? {
            Some(bytes) => serde_json::from_slice(&bytes)
                .or_error(Kind::Checkpoint, "tokenizer_config.json is not JSON")?,
            None => Value::Null,
        };
        let special = |key: &str, id: Option<u32>| {
            let text = said[key].as_str().or(said[key]["content"].as_str()).map(String::from);
            text.or_else(|| tokenizer.inner().id_to_token(id?))
        };
        let info = json!({
            "bos_token": special("bos_token", config.bos),
            "eos_token": special("eos_token", config.eos.first().copied()),
            "pad_token": special("pad_token", None),
            "chat_template": said["chat_template"].as_str(),
        });
        Ok(Self { tokenizer, texts: (0..config.vocabulary).map(|_| OnceLock::new()).collect(), info })
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Tokens that the model knows.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// A token's text; the token must be one that the model knows.
    pub(crate) fn token(&self, id: u32) -> &Token {
        self.texts[id as usize].get_or_init(|| match self.tokenizer.decode(&[id]) {
            Ok(text) if !text.contains(char::REPLACEMENT_CHARACTER) => {
                Token { length: text.chars().count(), label: text }
            }
            Ok(text) => Token { length: text.chars().count(), label: format!("id:{id}") },
            // A row of the embedding that the tokenizer has no text for.
            Err(_) => Token { length: 0, label: format!("id:{id}") },
        })
    }
}
