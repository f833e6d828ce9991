//! A model's own tokenizer, from its tokenizer.json.

use crate::base::{Error, Kind, Result, ResultExt};
use crate::model::Source;

/// Text to tokens and back.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Reads the tokenizer.json of a model.
    pub fn open(source: &Source) -> Result<Self> {
        let bytes = source.file("tokenizer.json")?;
        let inner = tokenizers::Tokenizer::from_bytes(&*bytes).map_err(|e| {
            Error::new(Kind::Checkpoint, format!("tokenizer.json cannot be used: {e}"))
                .at(source.place())
                .hint("export the fast tokenizer again")
        })?;
        Ok(Self { inner })
    }

    /// Tokens of a text as one stream, without the special tokens that the tokenizer would add around it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding =
            self.inner.encode_fast(text, false).or_error(Kind::Data, "a text cannot be tokenised")?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of tokens, special ones included.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        self.inner.decode(tokens, false).or_error(Kind::Data, "tokens cannot be turned into text")
    }

    /// The wrapped tokenizer.
    pub fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }
}
