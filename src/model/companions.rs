//! The small files beside configuration and weights that say where texts begin and end and how chats are
//! written: fetched from the hub, and copied to a model's pruned ones.

use serde_json::{Map, Value};

use super::read::Keys;
use super::source::Source;
use crate::base::{Error, Kind, Result, ResultExt};

/// Text to tokens; every model has it.
pub const TOKENIZER: &str = "tokenizer.json";

/// Key of tokenizer_config.json and of config.json: the tokenizer's class in transformers.
pub(super) const TOKENIZER_CLASS: &str = "tokenizer_class";

/// The class that reads any tokenizer.json.
pub(super) const ANY_TOKENIZER: &str = "PreTrainedTokenizerFast";

/// Settings of the tokenizer for transformers.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// Those that a model may lack. The last two are for other readers.
pub const OPTIONAL: [&str; 6] = [
    TOKENIZER_CONFIG,
    SPECIAL_TOKENS,
    GENERATION_CONFIG,
    CHAT_TEMPLATE,
    "added_tokens.json",
    "tokenizer.model",
];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static str> {
    std::iter::once(TOKENIZER).chain(OPTIONAL)
}

/// Tokens that the settings name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Begins a text.
    Bos,
    /// Ends one.
    Eos,
    /// Fills up.
    Pad,
}

impl Special {
    fn key(self) -> &'static str {
        match self {
            Special::Bos => "bos_token",
            Special::Eos => "eos_token",
            Special::Pad => "pad_token",
        }
    }
}

/// What files say of a special token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// Its text.
    As(String),
    /// There is none.
    Absent,
    /// Nothing.
    Unsaid,
}

/// The settings in a model's small files.
#[derive(Debug, Clone, Default)]
pub struct Companions {
    tokenizer: Map<String, Value>,
    special: Map<String, Value>,
    generation: Map<String, Value>,
    template: Option<String>,
}

impl Companions {
    /// Reads those that are there.
    ///
    /// # Errors
    /// One that is not what its name says.
    pub fn open(source: &Source) -> Result<Self> {
        let template = match source.optional(CHAT_TEMPLATE)? {
            Some(_) => Some(source.text(CHAT_TEMPLATE)?),
            None => None,
        };
        Ok(Self {
            tokenizer: object(source, TOKENIZER_CONFIG)?,
            special: object(source, SPECIAL_TOKENS)?,
            generation: object(source, GENERATION_CONFIG)?,
            template,
        })
    }

    /// The tokens that end a text by generation_config.json, which goes before config.json; `None` where it
    /// does not say.
    ///
    /// # Errors
    /// A value that is no token.
    pub fn eos(&self) -> Result<Option<Vec<u32>>> {
        Keys(&self.generation).tokens("eos_token_id").map_err(|e| e.at(GENERATION_CONFIG))
    }

    /// The text of a special token by tokenizer_config.json, else by special_tokens_map.json.
    pub fn special(&self, token: Special) -> Named {
        let of = |settings: &Map<String, Value>| match settings.get(token.key()) {
            None => Named::Unsaid,
            Some(value) => match value.as_str().or(value["content"].as_str()) {
                Some(text) => Named::As(text.into()),
                None => Named::Absent,
            },
        };
        match of(&self.tokenizer) {
            Named::Unsaid => of(&self.special),
            said => said,
        }
    }

    /// The tokenizer's class in transformers, where tokenizer_config.json names it.
    pub(super) fn tokenizer_class(&self) -> Option<&str> {
        self.tokenizer.get(TOKENIZER_CLASS)?.as_str()
    }

    /// tokenizer_config.json with a class that reads any tokenizer.json; `None` where it names one.
    pub fn with_tokenizer_class(&self) -> Option<Map<String, Value>> {
        let mut settings = self.tokenizer.clone();
        self.tokenizer_class().is_none().then(|| {
            settings.insert(TOKENIZER_CLASS.into(), ANY_TOKENIZER.into());
            settings
        })
    }

    /// How chats are written: chat_template.jinja, else tokenizer_config.json; of several the default one.
    pub fn chat_template(&self) -> Option<&str> {
        let value = self.tokenizer.get("chat_template");
        let in_settings = || match value? {
            Value::String(template) => Some(template.as_str()),
            several => {
                let default = several.as_array()?.iter().find(|one| one["name"] == "default")?;
                default["template"].as_str()
            }
        };
        self.template.as_deref().or_else(in_settings)
    }
}

/// A file with a JSON object; an empty one where there is no such file.
fn object(source: &Source, name: &str) -> Result<Map<String, Value>> {
    let Some(bytes) = source.optional(name)? else { return Ok(Map::new()) };
    let value: Value = serde_json::from_slice(&bytes)
        .or_error(Kind::Checkpoint, "not JSON")
        .map_err(|e| wrong(source, name, e))?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(wrong(source, name, Error::new(Kind::Checkpoint, "not a JSON object"))),
    }
}

fn wrong(source: &Source, name: &str, e: Error) -> Error {
    e.at(name).at(source.place()).hint("copy the file again, or remove it to do without what it says")
}
