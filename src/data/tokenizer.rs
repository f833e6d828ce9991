//! A model's own tokenizer, from its tokenizer.json.

use super::corpus::Pieces;
use super::stream::Stream;
use crate::base::{Kind, Result, ResultExt, caught};
use crate::model::Source;

/// Text to tokens and back.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

/// Places of tokens in a text, in bytes.
type Offsets = Vec<(usize, usize)>;

impl Tokenizer {
    /// Reads the tokenizer.json of a model.
    ///
    /// # Errors
    /// None is there (a checkpoint's fault), or it cannot be used (a tokenizer's).
    pub fn open(source: &Source) -> Result<Self> {
        let bytes = source.file("tokenizer.json")?;
        Self::parse(&bytes).map_err(|e| e.at(source.place()))
    }

    /// Reads the bytes of a tokenizer.json. That it cuts or pads texts, as some files say, is left out: that
    /// belongs to a call and not to a tokenizer, and would change what is measured.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        const UNUSABLE: &str = "tokenizer.json cannot be used";
        let read = caught(Kind::Data, UNUSABLE, || {
            let mut inner = tokenizers::Tokenizer::from_bytes(bytes).or_error(Kind::Data, UNUSABLE)?;
            inner.with_padding(None);
            inner.with_truncation(None).or_error(Kind::Data, UNUSABLE)?;
            Ok(inner)
        });
        let inner = read.map_err(|e| e.hint("copy it again, or export the fast tokenizer again"))?;
        Ok(Self { inner })
    }

    /// Tokens of a text as one stream, without the special tokens that the tokenizer would add around it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        const FAILED: &str = "a text cannot be tokenised";
        caught(Kind::Data, FAILED, || {
            let encoding = self.inner.encode_fast(text, false).or_error(Kind::Data, FAILED)?;
            Ok(encoding.get_ids().to_vec())
        })
    }

    /// The same with the place of each token in the text.
    pub(super) fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Offsets)> {
        const FAILED: &str = "a text cannot be tokenised";
        caught(Kind::Data, FAILED, || {
            let encoding = self.inner.encode(text, false).or_error(Kind::Data, FAILED)?;
            Ok((encoding.get_ids().to_vec(), encoding.get_offsets().to_vec()))
        })
    }

    /// Tokens of a text in pieces, as [`Tokenizer::encode`] makes them of the whole, some at a time.
    pub fn stream<'a>(&'a self, pieces: Pieces<'a>) -> impl Iterator<Item = Result<Vec<u32>>> + 'a {
        Stream::new(self, pieces)
    }

    /// Text of tokens, special ones included.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        const FAILED: &str = "tokens cannot be turned into text";
        caught(Kind::Data, FAILED, || self.inner.decode(tokens, false).or_error(Kind::Data, FAILED))
    }

    /// The wrapped tokenizer.
    pub fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn file() -> Value {
        let source = Source::resolve("builtin:quickstart").unwrap();
        serde_json::from_slice(&source.file("tokenizer.json").unwrap()).unwrap()
    }

    fn parse(file: &Value) -> Result<Tokenizer> {
        Tokenizer::parse(file.to_string().as_bytes())
    }

    #[test]
    fn a_file_that_cuts_and_pads_makes_the_tokens_of_one_that_does_not() {
        let text = "The cook took the knife and cut the bread. ".repeat(40);
        let plain = parse(&file()).unwrap();
        let cut = json!({"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0});
        let pad = |strategy: Value| {
            json!({"strategy": strategy, "direction": "Right", "pad_to_multiple_of": 64,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "x"})
        };
        for (truncation, padding) in [
            (cut.clone(), Value::Null),
            (Value::Null, pad(json!("BatchLongest"))),
            (cut, pad(json!({"Fixed": 4096}))),
        ] {
            let mut other = file();
            other["truncation"] = truncation;
            other["padding"] = padding;
            let other = parse(&other).unwrap();
            assert_eq!(other.encode(&text).unwrap(), plain.encode(&text).unwrap());
            assert_eq!(
                other.encode_with_offsets("The cook").unwrap(),
                plain.encode_with_offsets("The cook").unwrap()
            );
        }
    }

    #[test]
    fn a_damaged_file_is_a_fault_of_the_tokenizer_also_where_the_reader_panics() {
        let text = file().to_string();
        let mut prefix = file();
        prefix["model"]["continuing_subword_prefix"] = json!("a prefix that is longer than any merge");
        for damaged in [&text[..text.len() / 2], "{}", "", "[1]", &prefix.to_string()] {
            let e = Tokenizer::parse(damaged.as_bytes()).err().unwrap();
            assert!(e.kind == Kind::Data && e.hint.is_some(), "{e}");
        }
        // Cuts inside the part by which the kinds of decoder are recognised.
        let decoder = text.find("\"decoder\"").unwrap();
        for end in (decoder..decoder + 60).chain((0..text.len()).step_by(text.len() / 50)) {
            assert!(Tokenizer::parse(&text.as_bytes()[..end]).is_err_and(|e| e.kind == Kind::Data));
        }
    }
}
