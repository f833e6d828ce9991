//! The tokenizer as clients see it: texts of tokens, alone and in their place, and what `/tokenizer_info`
//! tells.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use tokenizers::Encoding;

use crate::base::Result;
use crate::data::tokenizer::Tokenizer;
use crate::model::companions::{Companions, Named, Special};
use crate::model::{Config, Source};

/// Texts of tokens, made when first requested.
pub(crate) struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    labels: Vec<OnceLock<Option<Box<str>>>>,
    /// A token with a text of its own, and that text: other tokens are read after it, so that a first space,
    /// which some decoders strip from a text, is not lost.
    anchor: Option<(u32, String)>,
    /// Answer of `/tokenizer_info`.
    pub info: Value,
}

impl Vocabulary {
    pub(crate) fn open(source: &Source, config: &Config, tokenizer: Arc<Tokenizer>) -> Result<Self> {
        let settings = Companions::open(source)?;
        let special = |token: Special, id: Option<u32>| match settings.special(token) {
            Named::As(text) => Some(text),
            Named::Absent => None,
            Named::Unsaid => tokenizer.inner().id_to_token(id?),
        };
        let info = json!({
            "bos_token": special(Special::Bos, config.bos),
            "eos_token": special(Special::Eos, config.eos.first().copied()),
            "pad_token": special(Special::Pad, None),
            "chat_template": settings.chat_template(),
        });
        let ids = 0..config.vocabulary as u32;
        let anchor = ids.clone().find_map(|id| Some((id, readable(tokenizer.decode(&[id]).ok()?)?)));
        Ok(Self { tokenizer, labels: ids.map(|_| OnceLock::new()).collect(), anchor, info })
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Tokens that the model knows.
    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    /// A token's text within a text; none where it has none of its own, such as a part of a character.
    pub(super) fn label(&self, id: u32) -> Option<&str> {
        self.labels.get(id as usize)?.get_or_init(|| self.read(id).map(String::into_boxed_str)).as_deref()
    }

    fn read(&self, id: u32) -> Option<String> {
        let alone = || self.tokenizer.decode(&[id]).ok();
        let text = match &self.anchor {
            Some((anchor, before)) => {
                let both = self.tokenizer.decode(&[*anchor, id]).ok()?;
                both.strip_prefix(before.as_str()).map(String::from).or_else(alone)
            }
            None => alone(),
        };
        readable(text?)
    }
}

fn readable(text: String) -> Option<String> {
    (!text.is_empty() && !text.contains(char::REPLACEMENT_CHARACTER)).then_some(text)
}

/// A text cut at its tokens, which join to it whatever the tokenizer makes of it: what lies between two
/// tokens belongs to the second of them, and a character that several tokens make to the last.
pub(super) fn cut(text: &str, encoding: &Encoding) -> Vec<String> {
    let spans = encoding.get_offsets();
    let mut starts = Vec::with_capacity(spans.len() + 1);
    let mut covered = 0;
    let mut at = 0;
    for &(start, end) in spans {
        at = text.floor_char_boundary(covered.min(start)).max(at);
        covered = covered.max(end);
        starts.push(at);
    }
    if let Some(first) = starts.first_mut() {
        *first = 0;
    }
    starts.push(text.len());
    starts.windows(2).map(|ends| text[ends[0]..ends[1]].to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pico::bytes;

    fn encoding(text: &str) -> Encoding {
        let json = bytes::tokenizer().to_string();
        tokenizers::Tokenizer::from_bytes(json.as_bytes()).unwrap().encode(text, false).unwrap()
    }

    #[test]
    fn a_text_cut_at_its_tokens_joins_to_itself_and_spaces_lead() {
        for text in ["the hen", " in  the\n ton ", "é€\u{1f600}x", "a\u{301}</s>b", " "] {
            let encoding = encoding(text);
            let pieces = cut(text, &encoding);
            assert_eq!((pieces.concat().as_str(), pieces.len()), (text, encoding.len()), "{pieces:?}");
        }
        assert_eq!(cut("in the", &encoding("in the")), ["in", " the"]);
        assert_eq!(cut("€s", &encoding("€s")), ["", "", "€", "s"]);
    }
}
