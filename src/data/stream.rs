//! Tokens of a long text, piece by piece, and the same as those of the whole: sections that overlap are
//! tokenised apart and joined where both sides agree.
//!
//! What a tokenizer makes of a place depends on little text around it: a normaliser and a pre-tokeniser look
//! a few characters ahead, and merges of byte pairs are decided between neighbours. So the tokens of a
//! section are those of the whole text but near its ends. Two sections overlap by more than that, and are
//! joined only if all tokens in the middle of their overlap are equal; otherwise they are tokenised again as
//! one.

use rayon::prelude::*;

use super::Tokenizer;
use super::corpus::Pieces;
use crate::base::{Error, Kind, Result};

/// Bytes of a section without its overlaps.
const SECTION: usize = 16 << 10;
/// Bytes by which sections reach over their joint, on either side.
const OVERLAP: usize = 1 << 10;
/// Sections that are tokenised at once: each takes memory.
const AT_ONCE: usize = 4;
/// Bytes of text that are tokenised at once.
pub const HELD_AT_ONCE: usize = AT_ONCE * (SECTION + 2 * OVERLAP);

/// The tokens of a text in pieces.
pub(super) struct Stream<'a> {
    pieces: Pieces<'a>,
    section: usize,
    overlap: usize,
    buffer: TextBuffer<'a>,
    /// Where the next section begins, without its overlap.
    next: usize,
    /// Whether the end of the text is held.
    complete: bool,
    /// The last section, of which the end is not handed out.
    last: Option<Section>,
    ended: bool,
}

/// The part of the text that is still needed.
struct TextBuffer<'a> {
    tokenizer: &'a Tokenizer,
    text: String,
    /// Bytes of the whole text before it.
    base: usize,
}

/// A part of the text with its tokens. Places count from the whole text's start.
struct Section {
    from: usize,
    to: usize,
    tokens: Vec<Token>,
    /// Tokens that the section before it handed out.
    skip: usize,
    /// Where it is joined to the section before it.
    joint: Option<Joint>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    id: u32,
    start: usize,
    end: usize,
}

/// The place of a joint, and the tokens around it on which both sides agree.
struct Joint {
    place: usize,
    agreed: Vec<Token>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, pieces: Pieces<'a>) -> Self {
        Self::with(tokenizer, pieces, SECTION, OVERLAP)
    }

    fn with(tokenizer: &'a Tokenizer, pieces: Pieces<'a>, section: usize, overlap: usize) -> Self {
        let buffer = TextBuffer { tokenizer, text: String::new(), base: 0 };
        Self { pieces, section, overlap, buffer, next: 0, complete: false, last: None, ended: false }
    }

    /// Tokenises the next sections and hands out what is settled; `None` at the end.
    fn round(&mut self) -> Result<Option<Vec<u32>>> {
        if self.ended {
            return Ok(None);
        }
        self.fill(self.next + AT_ONCE * self.section + self.overlap)?;
        let places: Vec<usize> = (0..AT_ONCE).map(|i| self.next + i * self.section).collect();
        let reached = |place: &usize| *place == 0 || place + self.overlap < self.buffer.end();
        let places: Vec<usize> = places.into_iter().filter(reached).collect();
        let buffer = &self.buffer;
        let overlap = self.overlap;
        let section = self.section;
        let tokenise =
            |&place: &usize| buffer.tokenise(place.saturating_sub(overlap), place + section + overlap);
        let sections: Vec<Section> = places.par_iter().map(tokenise).collect::<Result<_>>()?;
        let mut ids = Vec::new();
        for (section, place) in sections.into_iter().zip(places) {
            self.join(section, place, &mut ids)?;
        }
        self.next += AT_ONCE * self.section;
        self.ended = self.complete && self.buffer.end() <= self.next + self.overlap;
        if self.ended
            && let Some(last) = self.last.take()
        {
            ids.extend(last.tokens[last.skip..].iter().map(|token| token.id));
        }
        self.forget();
        Ok(Some(ids))
    }

    /// Reads until this many bytes of the whole text are there, or all.
    fn fill(&mut self, bytes: usize) -> Result<()> {
        while !self.complete && self.buffer.end() < bytes {
            match self.pieces.next().transpose()? {
                Some(piece) => self.buffer.text += &piece,
                None => self.complete = true,
            }
        }
        Ok(())
    }

    /// Joins a section to the last one, whose tokens before the joint are settled then.
    fn join(&mut self, mut section: Section, place: usize, ids: &mut Vec<u32>) -> Result<()> {
        let Some(last) = self.last.take() else {
            self.last = Some(section);
            return Ok(());
        };
        let reach = self.overlap / 2;
        let (before, agreed) = last.around(place, reach);
        let (skip, also) = section.around(place, reach);
        if !agreed.is_empty() && agreed == also {
            ids.extend(last.tokens[last.skip..before].iter().map(|token| token.id));
            section.joint = Some(Joint { place, agreed: agreed.to_vec() });
            section.skip = skip;
            self.last = Some(section);
        } else {
            self.last = Some(self.merge(last, section.to)?);
        }
        Ok(())
    }

    /// The last section made longer.
    fn merge(&self, last: Section, to: usize) -> Result<Section> {
        let mut merged = self.buffer.tokenise(last.from, to)?;
        if let Some(joint) = last.joint {
            let (skip, agreed) = merged.around(joint.place, self.overlap / 2);
            if agreed != joint.agreed {
                return Err(Error::new(
                    Kind::Data,
                    format!(
                        "the tokenizer makes other tokens of byte {} when more text follows, {} bytes \
                         further on",
                        joint.place,
                        to - joint.place
                    ),
                )
                .hint("break the text up: it has a very long run without a space or a line break"));
            }
            merged.skip = skip;
            merged.joint = Some(joint);
        }
        Ok(merged)
    }

    /// Drops the text that nothing needs any more.
    fn forget(&mut self) {
        let needed = self.last.as_ref().map_or(usize::MAX, |last| last.from);
        self.buffer.drop_before(needed.min(self.next.saturating_sub(self.overlap)));
    }
}

impl TextBuffer<'_> {
    /// Where it ends.
    fn end(&self) -> usize {
        self.base + self.text.len()
    }

    /// The section between two places, both moved back to where a character begins.
    fn tokenise(&self, from: usize, to: usize) -> Result<Section> {
        let first = self.text.floor_char_boundary(from.saturating_sub(self.base));
        let end = self.text.floor_char_boundary(to - self.base);
        let from = self.base + first;
        let (ids, offsets) = self.tokenizer.encode_with_offsets(&self.text[first..end])?;
        let tokens = ids.into_iter().zip(offsets);
        let tokens = tokens.map(|(id, (start, end))| Token { id, start: from + start, end: from + end });
        Ok(Section { from, to: self.base + end, tokens: tokens.collect(), skip: 0, joint: None })
    }

    fn drop_before(&mut self, place: usize) {
        let needless = self.text.floor_char_boundary(place.saturating_sub(self.base));
        self.text.drain(..needless);
        self.base += needless;
    }
}

impl Section {
    /// The tokens that lie within some bytes of a place, and the number of tokens up to their end.
    fn around(&self, place: usize, reach: usize) -> (usize, &[Token]) {
        let first = self.tokens.iter().position(|token| token.start + reach >= place);
        let last = self.tokens.iter().rposition(|token| token.end <= place + reach);
        match (first, last) {
            (Some(first), Some(last)) if first <= last => (last + 1, &self.tokens[first..=last]),
            _ => (0, &[]),
        }
    }
}

impl Iterator for Stream<'_> {
    type Item = Result<Vec<u32>>;

    fn next(&mut self) -> Option<Self::Item> {
        let round = self.round();
        self.ended |= round.is_err();
        round.transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::base::testing::shared;
    use crate::builtin as quickstart;
    use crate::model::Source;

    fn built_in() -> Tokenizer {
        Tokenizer::open(&Source::resolve("builtin:quickstart").unwrap()).unwrap()
    }

    /// In pieces of some bytes, whole characters each.
    fn pieces(text: &str, bytes: usize) -> Pieces<'_> {
        let mut rest = text;
        Box::new(std::iter::from_fn(move || {
            let piece = &rest[..rest.ceil_char_boundary(bytes)];
            rest = &rest[piece.len()..];
            (!piece.is_empty()).then(|| Ok(piece.to_string()))
        }))
    }

    fn streamed(tokenizer: &Tokenizer, text: &str, section: usize, overlap: usize) -> Result<Vec<u32>> {
        let blocks: Vec<Vec<u32>> =
            Stream::with(tokenizer, pieces(text, 97), section, overlap).collect::<Result<_>>()?;
        Ok(blocks.concat())
    }

    fn same(tokenizer: &Tokenizer, text: &str, what: &str) {
        let whole = tokenizer.encode(text).unwrap();
        for (section, overlap) in [(64, 32), (256, 64), (1000, 100), (SECTION, OVERLAP)] {
            let streamed = streamed(tokenizer, text, section, overlap).unwrap();
            assert!(
                streamed == whole,
                "{what}, sections of {section}: {} for {}",
                streamed.len(),
                whole.len()
            );
        }
    }

    /// Texts that are hard to cut: long runs, characters of several bytes, white space of all kinds.
    fn hard() -> Vec<(&'static str, String)> {
        let story = quickstart::text(quickstart::Split::Evaluation, 300_000);
        vec![
            ("nothing", String::new()),
            ("a letter", "a".into()),
            ("a story", story),
            ("one word", "abcd".repeat(800)),
            ("one letter", "a".repeat(3001)),
            ("digits", "1234567".repeat(400)),
            ("spaces", format!("a{}b{}", " ".repeat(1500), "\n \t".repeat(700))),
            ("other scripts", "naïve 日本語🎉 e\u{301}ẞ\u{200d} ".repeat(300)),
            ("lines", "one two  three\n\n\n four\r\n'tis 1,000.50 don't\n".repeat(300)),
        ]
    }

    /// A tokenizer of byte pairs learnt from nothing: merges of common letters, over words cut by `pre`.
    fn merging(normalizer: serde_json::Value, pre: serde_json::Value) -> Tokenizer {
        let mut vocabulary: Vec<String> = ["▁", "\u{0}"].map(String::from).to_vec();
        vocabulary.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
        vocabulary.extend((' '..='~').map(String::from));
        let merges = [
            ("a", "b"),
            ("c", "d"),
            ("ab", "cd"),
            ("a", "a"),
            ("aa", "aa"),
            ("t", "h"),
            ("th", "e"),
            ("▁", "the"),
            ("1", "2"),
            ("3", "4"),
            ("12", "34"),
            ("i", "n"),
            ("▁", "▁"),
            ("▁▁", "▁▁"),
            ("abcd", "abcd"),
            ("o", "n"),
        ];
        vocabulary.extend(merges.iter().map(|(a, b)| format!("{a}{b}")));
        let vocabulary: serde_json::Map<_, _> =
            vocabulary.into_iter().enumerate().map(|(i, token)| (token, json!(i))).collect();
        let merges: Vec<_> = merges.iter().map(|(a, b)| json!([a, b])).collect();
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": normalizer,
            "pre_tokenizer": pre, "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                "vocab": vocabulary, "merges": merges},
        });
        Tokenizer::parse(file.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_built_in_tokenizer_makes_the_tokens_of_the_whole() {
        let tokenizer = built_in();
        hard().iter().for_each(|(what, text)| same(&tokenizer, text, what));
    }

    #[test]
    fn a_tokenizer_without_words_makes_the_tokens_of_the_whole() {
        let llama = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
        let tokenizer = merging(llama, json!(null));
        hard().iter().for_each(|(what, text)| same(&tokenizer, text, what));
    }

    #[test]
    fn a_tokenizer_that_cuts_digits_by_threes_makes_the_tokens_of_the_whole() {
        let pre = json!({"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}|\p{L}+|\s+(?!\S)|\s+|[^\s\p{L}\p{N}]+"},
            "behavior": "Isolated", "invert": false});
        let tokenizer = merging(json!({"type": "NFC"}), pre);
        hard().iter().for_each(|(what, text)| same(&tokenizer, text, what));
    }

    #[test]
    fn real_text_gets_the_tokens_of_the_whole() {
        let (Some(model), Some(text)) = (shared("models/wt2-llama"), shared("data/wikitext2/test.txt"))
        else {
            return;
        };
        let tokenizer = Tokenizer::open(&Source::folder(&model).unwrap()).unwrap();
        let text = std::fs::read_to_string(text).unwrap();
        let streamed = streamed(&tokenizer, &text, SECTION, OVERLAP).unwrap();
        assert!(streamed == tokenizer.encode(&text).unwrap());
    }

    #[test]
    fn little_text_is_held_and_no_more_is_read_than_is_taken() {
        let tokenizer = built_in();
        let text = quickstart::text(quickstart::Split::Evaluation, 2 << 20);
        let read = std::cell::Cell::new(0);
        let counted =
            pieces(&text, 1000).inspect(|piece| read.set(read.get() + piece.as_ref().map_or(0, String::len)));
        let mut stream = Stream::new(&tokenizer, Box::new(counted));
        assert!(!stream.next().unwrap().unwrap().is_empty());
        assert!(read.get() <= HELD_AT_ONCE + 1000, "{} bytes read", read.get());
        while stream.next().is_some() {
            assert!(stream.buffer.text.len() <= HELD_AT_ONCE + SECTION + 4 * OVERLAP + 1000);
        }
        assert_eq!(read.get(), text.len());
    }

    #[test]
    fn an_error_in_the_text_ends_the_stream() {
        let tokenizer = built_in();
        let broken = Error::new(Kind::Data, "damaged");
        let pieces: Vec<Result<String>> = vec![Ok("one ".into()), Err(broken.clone()), Ok("two".into())];
        let mut stream = Stream::new(&tokenizer, Box::new(pieces.into_iter()));
        assert_eq!(stream.next(), Some(Err(broken)));
        assert_eq!(stream.next(), None);
    }
}
