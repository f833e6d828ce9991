//! Tokens of texts through a model: those that were run, and those that wait.

use candle_core::Tensor;

use super::cache::{Cache, Part, next_logits};
use crate::base::Result;
use crate::model::Model;

/// Tokens of a prompt that are run at once, so that a long prompt lets others have their turn.
pub const CHUNK: usize = 1024;

/// One text's tokens.
pub struct Stream {
    cache: Cache,
    waiting: Vec<u32>,
}

impl Stream {
    /// Begins with a prompt of at least one token.
    pub fn new(model: &Model, prompt: &[u32]) -> Self {
        Self { cache: Cache::new(model), waiting: prompt.to_vec() }
    }

    /// What is kept of the tokens so far.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Goes on with a token.
    pub fn push(&mut self, token: u32) {
        self.waiting.push(token);
    }
}

/// Runs the waiting tokens of texts together, of a long prompt only a part: the logits [V] of what follows each
/// text of which none waits any more.
///
/// # Errors
/// As [`super::cache::extend`].
pub fn pass(model: &Model, streams: &mut [&mut Stream]) -> Result<Vec<Option<Tensor>>> {
    let now: Vec<Vec<u32>> =
        streams.iter_mut().map(|s| s.waiting.drain(..s.waiting.len().min(CHUNK)).collect()).collect();
    let mut parts: Vec<Part> =
        streams.iter_mut().zip(&now).map(|(s, tokens)| Part { tokens, cache: &mut s.cache }).collect();
    let logits = next_logits(model, &mut parts)?;
    let of = |(i, s): (usize, &&mut Stream)| s.waiting.is_empty().then(|| Ok(logits.get(i)?)).transpose();
    streams.iter().enumerate().map(of).collect()
}
