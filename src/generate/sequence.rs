//! One text that is being generated, and the step that extends several of them at once.

use std::sync::Arc;

use candle_core::Tensor;

use super::cache::Cache;
use super::sample::{Sampler, Sampling};
use super::stream::{Stream, pass};
use super::text::{Passed, Stops, Writer};
use crate::base::Result;
use crate::data::tokenizer::Tokenizer;
use crate::model::Model;
use crate::tensor::loss::{pair_logprobs, top_logprobs};

/// What is requested.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The largest number of tokens; the model's context may end the text earlier.
    pub max_tokens: usize,
    /// Texts that end the text and are no part of it.
    pub stop: Arc<[String]>,
    /// Log-probabilities of each token and of this many likeliest ones.
    pub logprobs: Option<usize>,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// An end-of-text token or a stop string.
    Stop,
    /// The limit of tokens, or the model's context.
    Length,
}

/// A token with its log-probability, nats.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The token.
    pub token: u32,
    /// Its log-probability; [`FLOOR`] instead of −∞.
    pub logprob: f64,
    /// The likeliest tokens of its place, the likeliest first.
    pub top: Vec<(u32, f64)>,
}

/// What stands for a log-probability of −∞, which JSON cannot write.
pub const FLOOR: f64 = -1e4;

impl Entry {
    /// Puts [`FLOOR`] where a log-probability is −∞.
    pub fn floored(mut self) -> Self {
        let floor = |x: &mut f64| *x = if *x == f64::NEG_INFINITY { FLOOR } else { *x };
        floor(&mut self.logprob);
        self.top.iter_mut().for_each(|(_, logprob)| floor(logprob));
        self
    }
}

/// What one more token brought.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The token.
    pub token: u32,
    /// Its log-probabilities, where they were requested.
    pub entry: Option<Entry>,
    /// What the token adds to the text; the pieces of all tokens join to the text and the stop string that
    /// ended it. Empty for a token that leaves a character incomplete.
    pub piece: String,
    /// The text that may be shown now.
    pub text: String,
    /// Whether the text ended with it.
    pub finish: Option<Finish>,
}

/// A text being written.
pub struct Sequence<'a> {
    stream: Stream,
    sampler: Sampler,
    writer: Writer<'a>,
    stops: Stops,
    left: usize,
    logprobs: Option<usize>,
}

impl<'a> Sequence<'a> {
    /// Begins after a prompt of at least one token, which must fit the model's context.
    pub fn new(model: &Model, tokenizer: &'a Tokenizer, prompt: &[u32], settings: &Settings) -> Self {
        let room = (model.config().context + 1).saturating_sub(prompt.len());
        Self {
            stream: Stream::new(model, prompt),
            sampler: Sampler::new(settings.sampling),
            writer: Writer::new(tokenizer, prompt),
            stops: Stops::new(settings.stop.clone()),
            left: settings.max_tokens.min(room),
            logprobs: settings.logprobs,
        }
    }

    /// What is kept of the tokens so far.
    pub fn cache(&self) -> &Cache {
        self.stream.cache()
    }

    /// Chooses the next token from logits [V] and takes it.
    fn take(&mut self, model: &Model, logits: &Tensor) -> Result<Step> {
        let token = self.sampler.next(logits)?;
        let entry = self.logprobs.map(|k| entry(logits, token, k)).transpose()?;
        self.accept(model, token, entry)
    }

    /// Takes a token that was chosen elsewhere.
    pub fn accept(&mut self, model: &Model, token: u32, entry: Option<Entry>) -> Result<Step> {
        self.left = self.left.saturating_sub(1);
        self.stream.push(token);
        if model.config().eos.contains(&token) {
            let piece = self.writer.finish()?;
            let text = self.last(&piece).0;
            return Ok(Step { token, entry, piece, text, finish: Some(Finish::Stop) });
        }
        let mut piece = self.writer.push(token)?;
        let (text, finish) = if self.left == 0 {
            piece.push_str(&self.writer.finish()?);
            let (text, finish) = self.last(&piece);
            (text, Some(finish))
        } else {
            match self.stops.push(&piece) {
                Passed::Stopped(text) => (text, Some(Finish::Stop)),
                Passed::Text(text) => (text, None),
            }
        };
        Ok(Step { token, entry, piece, text, finish })
    }

    /// The last piece, with what was held back because of stop strings.
    fn last(&mut self, piece: &str) -> (String, Finish) {
        match self.stops.push(piece) {
            Passed::Stopped(text) => (text, Finish::Stop),
            Passed::Text(text) => (format!("{text}{}", self.stops.finish()), Finish::Length),
        }
    }
}

fn entry(logits: &Tensor, token: u32, top: usize) -> Result<Entry> {
    let row = logits.unsqueeze(0)?;
    let logprob = pair_logprobs(&row, &[(0, token)])?[0].0;
    Ok(Entry { token, logprob, top: top_logprobs(&row, top)?.concat() }.floored())
}

/// Extends texts, together: each runs its waiting tokens (a long prompt only a part of them, which gives
/// `None`) and takes its next one. A text that finished, or whose own result is an error, must not be
/// extended again.
///
/// # Errors
/// One that concerns all of them.
pub fn advance(model: &Model, sequences: &mut [&mut Sequence]) -> Result<Vec<Option<Result<Step>>>> {
    let mut streams: Vec<&mut Stream> = sequences.iter_mut().map(|s| &mut s.stream).collect();
    let logits = pass(model, &mut streams)?;
    let take =
        |(s, logits): (&mut &mut Sequence, Option<Tensor>)| logits.map(|logits| s.take(model, &logits));
    Ok(sequences.iter_mut().zip(logits).map(take).collect())
}
