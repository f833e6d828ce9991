//! The tokens of a selection stage: sequences of the search set drawn from a stream named by generation and
//! stage.

use rand::seq::SliceRandom;

use crate::base::{Error, Kind, Result, rng};
use crate::data::{SearchSet, Sequences};
use crate::search::Draw;

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

    /// Indices of the sequences of a draw and the tokens taken of each: whole sequences, or the start of one
    /// when a stage asks for less.
    ///
    /// # Errors
    /// The draw asks for fewer than two tokens, or for more than the search set has.
    pub fn sequences(&self, draw: &Draw) -> Result<(Vec<usize>, usize)> {
        let sequences = &self.set.0;
        if draw.tokens < 2 {
            let what = format!("a selection stage asks for {} tokens: nothing can be predicted", draw.tokens);
            return Err(Error::new(Kind::Spec, what)
                .at("search.stages")
                .hint("give every stage two tokens at least"));
        }
        let length = draw.tokens.min(sequences.length);
        let count = draw.tokens / length;
        if count > sequences.count() {
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
        order.truncate(count);
        Ok((order, length))
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
