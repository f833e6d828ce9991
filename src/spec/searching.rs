//! `[search]`: what the search starts from, how it evolves, and what text it reads.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::types::{MOST_OFFSPRING, MOST_TOKENS};

/// `[search]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// What the first generation starts from.
    pub start: SearchStart,
    /// How single changes are measured: `start = "sensitivity"`.
    pub sensitivity: Sensitivity,
    /// Generations per interval, at most.
    #[schemars(range(max = MOST_OFFSPRING), extend("x-unit" = "generations", "x-paper" = "generations, 50"))]
    pub generations: usize,
    /// Distinct offspring of a generation.
    #[schemars(range(min = 1, max = MOST_OFFSPRING), extend("x-unit" = "candidates", "x-paper" = "offspring, 128"))]
    pub offspring: usize,
    /// Largest number of flips in one mutation: the minimum of two draws from 1..=max_flips. A flip moves one
    /// level of sparsity from one module to another of the same kind.
    #[schemars(range(min = 1, max = 1_000), extend("x-unit" = "flips", "x-paper" = "number of flips, 3"))]
    pub max_flips: usize,
    /// Selection stages; the last one keeps one and also scores the parent.
    #[schemars(length(min = 1), extend("x-paper" = "multi-stage selection: 2K/16, 16K/4, 128K/1"))]
    pub stages: Vec<Stage>,
    /// Generations in a row that may find nothing better, by more than chance (paired
    /// differences over the last stage's sequences, at a level of 5%); then the search of the interval is over. 0 runs all generations (the
    /// paper's).
    #[schemars(range(max = MOST_OFFSPRING), extend("x-unit" = "generations"))]
    pub patience: usize,
    /// Whether flips that should cost less, by what single changes cost, are drawn more often: with
    /// `start = "sensitivity"`.
    pub guided: bool,
    /// Whether a stage drops candidates before they have read all its tokens: after a quarter and a half of its
    /// sequences those that lose, by more than chance (paired differences, at a level of 5%), against the last of
    /// those that would be kept. Stages of fewer than 32 sequences, and scripts, are read whole.
    pub racing: bool,
    /// Text that fitness is measured on: sequences apart from the calibration sequences, or the same ones.
    pub text: SearchText,
    /// Tokens of the search set; stages draw theirs from it.
    #[schemars(range(min = 1, max = MOST_TOKENS), extend("x-unit" = "tokens"))]
    pub tokens: usize,
}

impl Search {
    /// Tokens that single changes are scored on: those asked, or all of the search set where it has fewer.
    pub fn sensitivity_tokens(&self) -> usize {
        self.sensitivity.tokens.min(self.tokens)
    }

    /// Tokens that the optimum of a round is checked on, those of the last stage, and the tokens before them in the
    /// round's draw: all of the round's, unless the search set has too few beside them.
    pub fn sensitivity_check(&self) -> (usize, usize) {
        let fitted = self.sensitivity_tokens();
        let most = self.stages.last().map_or(fitted, |stage| stage.tokens);
        let others = self.tokens - fitted;
        if others < fitted { (fitted, 0) } else { (most.min(others), fitted) }
    }
}

/// One selection stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Tokens that each candidate is scored on.
    #[schemars(range(min = 1, max = MOST_TOKENS), extend("x-unit" = "tokens"))]
    pub tokens: usize,
    /// Candidates kept.
    #[schemars(range(min = 1, max = MOST_OFFSPRING), extend("x-unit" = "candidates", "x-paper" = "survivors"))]
    pub survivors: usize,
}

/// Where the search set comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SearchText {
    /// Sequences of the training text that no calibration sequence overlaps.
    Disjoint,
    /// The calibration sequences themselves (the paper's).
    Calibration,
}

/// What a search starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SearchStart {
    /// The distribution that the supernet is built around: the uniform one, then what the interval before found
    /// (the paper's).
    Uniform,
    /// The optimum of the sum of what single changes around that cost, each measured alone.
    Sensitivity,
}

/// How single changes of a distribution are measured: each level of each module on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sensitivity {
    /// Tokens of the search set that each change is scored on, at most.
    #[schemars(range(min = 2, max = MOST_TOKENS), extend("x-unit" = "tokens"))]
    pub tokens: usize,
    /// Rounds, each around what the one before found.
    #[schemars(range(min = 1, max = 100), extend("x-unit" = "rounds"))]
    pub rounds: usize,
}
