//! The tokens of a selection stage: sequences of the search set drawn from a stream named by generation and
//! stage, the last of them cut so that they have the tokens asked.

use rand::seq::SliceRandom;

use crate::base::{Error, Kind, Result, rng};
use crate::data::{SearchSet, Sequences};
use crate::search::Draw;

/// Tokens of the search set that candidates are scored on: whole sequences, and the start of one more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// Indices of the sequences that are scored whole.
    pub whole: Vec<usize>,
    /// Index of one more sequence, and how many tokens of its start are scored.
    pub start: Option<(usize, usize)>,
}

impl Drawn {
    /// The sequences that a draw of `tokens` takes of an order of all, of `length` tokens each.
    fn new(order: &[usize], tokens: usize, length: usize) -> Self {
        let whole = tokens / length;
        let start = order.get(whole).map(|&sequence| (sequence, tokens % length));
        Self { whole: order[..whole].to_vec(), start: start.filter(|(_, tokens)| *tokens > 0) }
    }

    /// Parts of equal length, one after the other: `at_once` gives how many sequences of a length go together.
    pub fn parts(&self, length: usize, at_once: impl Fn(usize) -> usize) -> Vec<(Vec<usize>, usize)> {
        let whole = self.whole.chunks(at_once(length).max(1)).map(|part| (part.to_vec(), length));
        whole.chain(self.start.map(|(sequence, tokens)| (vec![sequence], tokens))).collect()
    }

    /// Tokens, and tokens that are predicted: all but the first of each sequence.
    pub fn counts(&self, length: usize) -> (usize, usize) {
        let start = self.start.map_or(0, |(_, tokens)| tokens);
        let sequences = self.whole.len() + usize::from(self.start.is_some());
        let tokens = self.whole.len() * length + start;
        (tokens, tokens - sequences)
    }
}

/// Draws token subsets of the search set.
pub struct Sampler<'a> {
    set: &'a SearchSet,
    seed: u64,
    iteration: usize,
}

impl<'a> Sampler<'a> {
    /// Of one iteration of the coarse-to-fine schedule.
    pub fn new(set: &'a SearchSet, seed: u64, iteration: usize) -> Self {
        Self { set, seed, iteration }
    }

    /// The sequences of a draw, which have the tokens that it asks for.
    ///
    /// # Errors
    /// The draw asks for fewer than two tokens, or for more than the search set has.
    pub fn sequences(&self, draw: &Draw) -> Result<Drawn> {
        let sequences = &self.set.0;
        if draw.tokens < 2 {
            let what = format!("a selection stage asks for {} tokens: nothing can be predicted", draw.tokens);
            return Err(Error::new(Kind::Spec, what)
                .at("search.stages")
                .hint("give every stage two tokens at least"));
        }
        if draw.tokens > sequences.count() * sequences.length {
            let what = format!(
                "a selection stage asks for {} tokens of a search set of {}",
                draw.tokens,
                sequences.tokens.len()
            );
            return Err(Error::new(Kind::Spec, what)
                .at("search.stages")
                .hint("raise search.tokens or lower the stage's tokens"));
        }
        let mut order: Vec<usize> = (0..sequences.count()).collect();
        order.shuffle(&mut rng::stream(
            self.seed,
            &format!("tokens/{}/{}/{}", self.iteration, draw.generation, draw.stage),
        ));
        let skipped = draw.skipped.div_ceil(sequences.length);
        Ok(Drawn::new(&order[skipped..], draw.tokens - draw.skipped, sequences.length))
    }

    /// The sequences it draws from.
    pub fn set(&self) -> &Sequences {
        &self.set.0
    }

    /// The set it draws from.
    pub fn search_set(&self) -> &'a SearchSet {
        self.set
    }
}
