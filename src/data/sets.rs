//! Token windows of the three uses. Each use has a type of its own, so that a fitness cannot be handed the
//! evaluation set.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Tokenizer;
use super::corpus::{Pieces, Text};
use super::overlap::Passages;
use super::windows::Drawing;
use crate::base::{Error, Kind, Result, hash, rng};
use crate::spec::SearchText;

/// Windows of equal length, side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// All tokens, window after window.
    pub tokens: Vec<u32>,
    /// Tokens of one window.
    pub length: usize,
}

impl Windows {
    /// Number of windows.
    pub fn count(&self) -> usize {
        self.tokens.len() / self.length
    }

    /// One window.
    pub fn get(&self, i: usize) -> &[u32] {
        &self.tokens[i * self.length..(i + 1) * self.length]
    }

    /// Batches of whole windows, of about so many tokens each.
    pub fn batches(&self, tokens: usize) -> impl Iterator<Item = &[u32]> {
        self.tokens.chunks(batch(tokens, self.length))
    }

    /// Some windows, in the given order.
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

/// Tokens of a batch of whole windows of a length, about so many: at least one window.
pub fn batch(tokens: usize, length: usize) -> usize {
    (tokens / length).max(1) * length
}

/// What Gram matrices are collected on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrationSet {
    /// Windows of the text.
    pub windows: Windows,
    /// Texts of one token each. The first token of a text sees only itself, and many models mark it with a
    /// huge activation that attention leans on ever after; a text has few first tokens, so that windows alone
    /// say little about them.
    pub starts: Windows,
}

impl CalibrationSet {
    /// Windows, and their `starts` commonest tokens as starts (fewer when there are fewer; ties to the lower
    /// token).
    pub fn new(windows: Windows, starts: usize) -> Self {
        let mut counts = BTreeMap::new();
        windows.tokens.iter().for_each(|&token| *counts.entry(token).or_insert(0_usize) += 1);
        let mut commonest: Vec<(u32, usize)> = counts.into_iter().collect();
        commonest.sort_by_key(|&(_, count)| Reverse(count));
        let tokens = commonest.into_iter().take(starts).map(|(token, _)| token).collect();
        Self { windows, starts: Windows { tokens, length: 1 } }
    }

    /// Hash of the tokens.
    pub fn hash(&self) -> String {
        hash::of_bytes(format!("{} {}", self.windows.hash(), self.starts.hash()).as_bytes())
    }
}

/// What fitness is measured on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchSet(pub Windows);

/// What results are measured on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluationSet(pub Windows);

/// How many tokens are drawn for which use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Tokens of the calibration set.
    pub calibration: usize,
    /// Tokens that are calibrated on as starts too.
    pub starts: usize,
    /// Tokens of the search set.
    pub search: usize,
    /// Tokens of a window.
    pub length: usize,
    /// Whether the search set is drawn apart from the calibration set.
    pub text: SearchText,
}

/// Draws the calibration and search sets from a corpus's training text: windows at random places, no two
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
        windows(name, tokenizer.stream(pieces), tokens, draw.length, (seed, use_), None)
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
    Ok((CalibrationSet::new(calibration, draw.starts), SearchSet(search)))
}

/// Draws a search set alone, from windows that share no passage with those to `avoid`.
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
    Ok(SearchSet(windows(name, stream, draw.search, draw.length, (seed, use_), avoid)?))
}

fn split(windows: &Windows, at: usize) -> (Windows, Windows) {
    let part = |tokens: &[u32]| Windows { tokens: tokens.to_vec(), length: windows.length };
    let (first, second) = windows.tokens.split_at(at / windows.length * windows.length);
    (part(first), part(second))
}

/// `count` tokens in windows at random places of a stream, drawn under a seed for a use.
fn windows(
    name: &str,
    stream: impl Iterator<Item = Result<Vec<u32>>>,
    count: usize,
    length: usize,
    (seed, use_): (u64, &str),
    avoid: Option<&Passages>,
) -> Result<Windows> {
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
        Some(_) => format!(", {} windows of it apart from the calibration text", drawing.slots),
        None => String::new(),
    };
    let what = format!(
        "corpus `{name}` has {tokens} tokens of training text{apart}; {count} are asked for {use_} in windows of {length}"
    );
    Err(Error::new(Kind::Data, what)
        .hint("ask for fewer tokens (calibration.tokens, search.tokens) or give more text"))
}

/// The evaluation set of a corpus: its held-out text from the start, cut into windows side by side; a last
/// part of a window is left out. No more text is read than it takes.
///
/// # Errors
/// The text does not fill one window.
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
            format!("the held-out text of corpus `{name}` does not fill one window of {length} tokens"),
        )
        .hint("lower evaluate.sequence_length or give more text"));
    }
    Ok(EvaluationSet(Windows { tokens, length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(
        name: &str,
        tokens: &[u32],
        count: usize,
        length: usize,
        seed: u64,
        use_: &str,
    ) -> Result<Windows> {
        super::windows(name, std::iter::once(Ok(tokens.to_vec())), count, length, (seed, use_), None)
    }

    fn stream(n: u32) -> Vec<u32> {
        (0..n).collect()
    }

    #[test]
    fn windows_do_not_overlap_and_lie_within_the_text() {
        let w = windows("c", &stream(1000), 640, 64, 3, "calibration").unwrap();
        assert_eq!(w.count(), 10);
        let mut starts: Vec<u32> = (0..10).map(|i| w.get(i)[0]).collect();
        starts.sort();
        assert!(starts.windows(2).all(|p| p[1] - p[0] >= 64));
        assert!((0..10).all(|i| w.get(i).windows(2).all(|p| p[1] == p[0] + 1)));
    }

    #[test]
    fn the_draw_depends_on_the_seed() {
        let draw = |seed| windows("c", &stream(5000), 640, 64, seed, "calibration").unwrap();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn a_corpus_that_just_suffices_is_taken_whole_and_a_shorter_one_is_an_error() {
        assert_eq!(windows("c", &stream(640), 640, 64, 1, "search").unwrap().count(), 10);
        let e = windows("c", &stream(639), 640, 64, 1, "search").unwrap_err();
        assert_eq!(e.kind, Kind::Data);
        assert!(e.to_string().contains("639 tokens"), "{e}");
    }

    #[test]
    fn starts_are_the_commonest_tokens_once_each() {
        let set =
            |starts| CalibrationSet::new(Windows { tokens: vec![5, 3, 5, 9, 3, 5, 1, 1], length: 4 }, starts);
        assert_eq!(set(2).starts, Windows { tokens: vec![5, 1], length: 1 });
        assert_eq!(set(100).starts.tokens, [5, 1, 3, 9]);
        assert_eq!((set(0).starts.count(), set(0).starts.batches(4).count()), (0, 0));
        assert_ne!(set(1).hash(), set(2).hash());
    }

    #[test]
    fn batches_hold_whole_windows() {
        let w = Windows { tokens: stream(70).to_vec(), length: 10 };
        assert_eq!(w.batches(35).map(<[u32]>::len).collect::<Vec<_>>(), [30, 30, 10]);
        assert_eq!(w.batches(1).count(), 7);
    }

    #[test]
    fn splitting_gives_disjoint_parts() {
        let w = windows("c", &stream(5000), 640, 64, 1, "calibration").unwrap();
        let (a, b) = split(&w, 256);
        assert_eq!((a.count(), b.count()), (4, 6));
        assert!(a.tokens.iter().all(|t| !b.tokens.contains(t)));
    }
}
