//! Token sequences of the three uses. Each use has a type of its own, so that a fitness cannot be handed the
//! evaluation set.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Tokenizer;
use super::corpus::{Pieces, Text};
use super::overlap::Passages;
use super::sequences::Drawing;
use crate::base::{Error, Kind, Result, hash, rng};
use crate::spec::SearchText;

/// Sequences of equal length, side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequences {
    /// All tokens, sequence after sequence.
    pub tokens: Vec<u32>,
    /// Tokens of one sequence.
    pub length: usize,
}

impl Sequences {
    /// Number of sequences.
    pub fn count(&self) -> usize {
        self.tokens.len() / self.length
    }

    /// One sequence.
    pub fn get(&self, i: usize) -> &[u32] {
        &self.tokens[i * self.length..(i + 1) * self.length]
    }

    /// Batches of whole sequences, of about this many tokens each.
    pub fn batches(&self, tokens: usize) -> impl Iterator<Item = &[u32]> {
        self.tokens.chunks(batch(tokens, self.length))
    }

    /// Some sequences, in the given order.
    pub fn pick(&self, indices: &[usize]) -> Self {
        Self { tokens: indices.iter().flat_map(|&i| self.get(i)).copied().collect(), length: self.length }
    }

    /// Hash of tokens and length.
    pub fn hash(&self) -> String {
        let bytes: Vec<u8> = std::iter::once(self.length as u32)
            .chain(self.tokens.iter().copied())
            .flat_map(u32::to_le_bytes)
            .collect();
        hash::of_bytes(&bytes)
    }
}

/// Tokens of one batch of texts, about, wherever a model runs over many.
pub const BATCH_TOKENS: usize = 4096;

/// Tokens of a batch of whole sequences of a length, about this many: at least one sequence.
pub fn batch(tokens: usize, length: usize) -> usize {
    (tokens / length).max(1) * length
}

/// What Gram matrices are collected on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrationSet {
    /// Sequences of the text.
    pub sequences: Sequences,
    /// Sequences of one token each. The first token of a text sees only itself, and in many models it becomes
    /// an attention sink with massive activations; a text has few first tokens, so that longer sequences
    /// alone say little about them.
    pub sinks: Sequences,
}

impl CalibrationSet {
    /// Sequences, and their `sink_tokens` most frequent tokens as sink tokens (fewer when there are fewer;
    /// ties go to the lower token).
    pub fn new(sequences: Sequences, sink_tokens: usize) -> Self {
        let mut counts = BTreeMap::new();
        sequences.tokens.iter().for_each(|&token| *counts.entry(token).or_insert(0_usize) += 1);
        let mut commonest: Vec<(u32, usize)> = counts.into_iter().collect();
        commonest.sort_by_key(|&(_, count)| Reverse(count));
        let tokens = commonest.into_iter().take(sink_tokens).map(|(token, _)| token).collect();
        Self { sequences, sinks: Sequences { tokens, length: 1 } }
    }

    /// Hash of the tokens.
    pub fn hash(&self) -> String {
        hash::of_bytes(format!("{} {}", self.sequences.hash(), self.sinks.hash()).as_bytes())
    }
}

/// What fitness is measured on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchSet(pub Sequences);

/// What results are measured on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluationSet(pub Sequences);

/// How many tokens are drawn for which use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Tokens of the calibration set.
    pub calibration: usize,
    /// Number of sink tokens to calibrate on.
    pub sink_tokens: usize,
    /// Tokens of the search set.
    pub search: usize,
    /// Tokens of a sequence.
    pub length: usize,
    /// Whether the search set is drawn apart from the calibration set.
    pub text: SearchText,
}

/// Draws the calibration and search sets from a corpus's training text: sequences at random places, no two
/// overlapping.
///
/// A corpus with a text of its own for search (the built-in one) gives the search set from there.
///
/// # Errors
/// The corpus is shorter than what is asked.
pub fn draw(
    name: &str,
    text: Text<'_>,
    tokenizer: &Tokenizer,
    draw: &Draw,
    seed: u64,
) -> Result<(CalibrationSet, SearchSet)> {
    let drawn = |pieces: Pieces<'_>, tokens: usize, use_: &str| {
        sequences(name, tokenizer.stream(pieces), tokens, draw.length, (seed, use_), None)
    };
    let (calibration, search) = match (text, draw.text) {
        (Text::Separate { calibration, search }, SearchText::Disjoint) => {
            (drawn(calibration, draw.calibration, "calibration")?, drawn(search, draw.search, "search")?)
        }
        (Text::One(text), SearchText::Disjoint) => {
            split(&drawn(text, draw.calibration + draw.search, "calibration and search")?, draw.calibration)
        }
        (Text::One(text) | Text::Separate { calibration: text, .. }, SearchText::Calibration) => {
            let c = drawn(text, draw.calibration.max(draw.search), "calibration")?;
            (split(&c, draw.calibration).0, split(&c, draw.search).0)
        }
    };
    Ok((CalibrationSet::new(calibration, draw.sink_tokens), SearchSet(search)))
}

/// Draws a search set alone, from sequences that share no passage with those to `avoid`.
///
/// # Errors
/// As [`draw`].
pub fn draw_search(
    name: &str,
    text: Text<'_>,
    tokenizer: &Tokenizer,
    draw: &Draw,
    seed: u64,
    avoid: Option<&Passages>,
) -> Result<SearchSet> {
    let (pieces, use_) = match text {
        Text::Separate { search, .. } => (search, "search"),
        Text::One(text) => (text, "calibration and search"),
    };
    let stream = tokenizer.stream(pieces);
    Ok(SearchSet(sequences(name, stream, draw.search, draw.length, (seed, use_), avoid)?))
}

fn split(sequences: &Sequences, at: usize) -> (Sequences, Sequences) {
    let part = |tokens: &[u32]| Sequences { tokens: tokens.to_vec(), length: sequences.length };
    let (first, second) = sequences.tokens.split_at(at / sequences.length * sequences.length);
    (part(first), part(second))
}

/// `count` tokens in sequences at random places of a stream, drawn under a seed for a use.
fn sequences(
    name: &str,
    stream: impl Iterator<Item = Result<Vec<u32>>>,
    count: usize,
    length: usize,
    (seed, use_): (u64, &str),
    avoid: Option<&Passages>,
) -> Result<Sequences> {
    let wanted = count / length;
    let mut drawing = Drawing::new(wanted, length, rng::stream(seed, &format!("windows/{use_}")), avoid);
    for tokens in stream {
        drawing.push(&tokens?);
    }
    let drawn = drawing.finish();
    if drawn.count() == wanted {
        return Ok(drawn);
    }
    let tokens = drawing.tokens;
    let apart = match avoid {
        Some(_) => format!(", {} sequences of it apart from the calibration text", drawing.slots),
        None => String::new(),
    };
    let what = format!(
        "corpus `{name}` has {tokens} tokens of training text{apart}; {count} are requested {use_} \
         in sequences of {length}"
    );
    Err(Error::new(Kind::Data, what)
        .hint("ask for fewer tokens (calibration.tokens, search.tokens) or give more text"))
}

/// The evaluation set of a corpus: its held-out text from the start, cut into sequences side by side; a last
/// part of a sequence is left out. No more text is read than it takes.
///
/// # Errors
/// The text does not fill one sequence.
pub fn evaluation(
    name: &str,
    text: Pieces<'_>,
    tokenizer: &Tokenizer,
    limit: usize,
    length: usize,
) -> Result<EvaluationSet> {
    let wanted = if limit == 0 { usize::MAX } else { limit };
    let mut tokens = Vec::new();
    for more in tokenizer.stream(text) {
        tokens.extend(more?);
        if tokens.len() >= wanted {
            break;
        }
    }
    tokens.truncate(wanted.min(tokens.len()) / length * length);
    if tokens.is_empty() {
        return Err(Error::new(
            Kind::Data,
            format!("the held-out text of corpus `{name}` does not fill one sequence of {length} tokens"),
        )
        .hint("lower evaluate.sequence_length or give more text"));
    }
    Ok(EvaluationSet(Sequences { tokens, length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(
        name: &str,
        tokens: &[u32],
        count: usize,
        length: usize,
        seed: u64,
        use_: &str,
    ) -> Result<Sequences> {
        super::sequences(name, std::iter::once(Ok(tokens.to_vec())), count, length, (seed, use_), None)
    }

    fn stream(n: u32) -> Vec<u32> {
        (0..n).collect()
    }

    #[test]
    fn sequences_do_not_overlap_and_lie_within_the_text() {
        let w = sequences("c", &stream(1000), 640, 64, 3, "calibration").unwrap();
        assert_eq!(w.count(), 10);
        let mut firsts: Vec<u32> = (0..10).map(|i| w.get(i)[0]).collect();
        firsts.sort();
        assert!(firsts.windows(2).all(|p| p[1] - p[0] >= 64));
        assert!((0..10).all(|i| w.get(i).windows(2).all(|p| p[1] == p[0] + 1)));
    }

    #[test]
    fn the_draw_depends_on_the_seed() {
        let draw = |seed| sequences("c", &stream(5000), 640, 64, seed, "calibration").unwrap();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn a_corpus_that_just_suffices_is_taken_whole_and_a_shorter_one_is_an_error() {
        assert_eq!(sequences("c", &stream(640), 640, 64, 1, "search").unwrap().count(), 10);
        let e = sequences("c", &stream(639), 640, 64, 1, "search").unwrap_err();
        assert_eq!(e.kind, Kind::Data);
        assert!(e.to_string().contains("639 tokens"), "{e}");
    }

    #[test]
    fn starts_are_the_commonest_tokens_once_each() {
        let set = |sink_tokens| {
            CalibrationSet::new(Sequences { tokens: vec![5, 3, 5, 9, 3, 5, 1, 1], length: 4 }, sink_tokens)
        };
        assert_eq!(set(2).sinks, Sequences { tokens: vec![5, 1], length: 1 });
        assert_eq!(set(100).sinks.tokens, [5, 1, 3, 9]);
        assert_eq!((set(0).sinks.count(), set(0).sinks.batches(4).count()), (0, 0));
        assert_ne!(set(1).hash(), set(2).hash());
    }

    #[test]
    fn batches_hold_whole_sequences() {
        let w = Sequences { tokens: stream(70).to_vec(), length: 10 };
        assert_eq!(w.batches(35).map(<[u32]>::len).collect::<Vec<_>>(), [30, 30, 10]);
        assert_eq!(w.batches(1).count(), 7);
    }

    #[test]
    fn splitting_gives_disjoint_parts() {
        let w = sequences("c", &stream(5000), 640, 64, 1, "calibration").unwrap();
        let (a, b) = split(&w, 256);
        assert_eq!((a.count(), b.count()), (4, 6));
        assert!(a.tokens.iter().all(|t| !b.tokens.contains(t)));
    }
}
