//! `[evaluate.bench]`: how fast models write, at which lengths and batch sizes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::repeated::repeated;
use super::types::{MOST_OF_A_MODEL, MOST_OFFSPRING};

/// `[evaluate.bench]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// Lengths of the prompts.
    #[serde(default = "prompts")]
    #[schemars(inner(range(min = 1, max = MOST_OF_A_MODEL)), length(min = 1), extend("x-unit" = "tokens"))]
    pub prompt: Vec<usize>,
    /// Lengths of what is written after them; the first token of each text is timed with its prompt.
    #[serde(default = "outputs")]
    #[schemars(inner(range(min = 2, max = MOST_OF_A_MODEL)), length(min = 1), extend("x-unit" = "tokens"))]
    pub output: Vec<usize>,
    /// Numbers of texts that are written together.
    #[serde(default = "batches")]
    #[schemars(inner(range(min = 1, max = MOST_OFFSPRING)), length(min = 1), extend("x-unit" = "texts"))]
    pub batch: Vec<usize>,
    /// How often each model is timed at each setting, in turn with the others.
    #[serde(default = "repeats")]
    #[schemars(range(min = 1, max = MOST_OFFSPRING), extend("x-unit" = "rounds"))]
    pub repeats: usize,
}

impl Default for Bench {
    fn default() -> Self {
        Self { prompt: prompts(), output: outputs(), batch: batches(), repeats: repeats() }
    }
}

impl Bench {
    /// What a list has twice: the list's key, the place, the number.
    pub fn repeated(&self) -> Vec<(&'static str, usize, usize)> {
        let lists = [("prompt", &self.prompt), ("output", &self.output), ("batch", &self.batch)];
        let of = |(key, list): (&'static str, &Vec<usize>)| {
            repeated(list).into_iter().map(|i| (key, i, list[i])).collect::<Vec<_>>()
        };
        lists.into_iter().flat_map(of).collect()
    }
}

fn prompts() -> Vec<usize> {
    vec![512]
}

fn outputs() -> Vec<usize> {
    vec![64]
}

fn batches() -> Vec<usize> {
    vec![1]
}

fn repeats() -> usize {
    5
}
