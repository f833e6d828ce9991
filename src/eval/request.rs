//! From text to log-likelihood requests, as the harness's Hugging Face model makes them: context and
//! continuation are encoded together, cut at the length of the encoded context, and shortened from the left
//! to what the model can read.

use crate::base::{Error, Kind, Result, Watch};

use super::python;

/// One log-likelihood request: token ids. Neither side is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What the continuation is conditioned on.
    pub context: Vec<u32>,
    /// The tokens whose log-probabilities are summed.
    pub continuation: Vec<u32>,
}

/// The answer to one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Sum of the continuation's log-probabilities, nats: an f64 sum of log-softmax values over f32 logits.
    pub loglikelihood: f64,
    /// Whether every continuation token is the most probable one at its place.
    pub greedy: bool,
}

/// What scores requests.
pub trait LanguageModel {
    /// Scores in request order; the result does not depend on batching. Advances `watch` by one per request
    /// and heeds its [`Watch::checkpoint`]; the caller begins and ends the step.
    fn score(&mut self, requests: &[Request], watch: &dyn Watch) -> Result<Vec<Score>>;
    /// Longest input in tokens, L: a request of L + 1 ids fits, since the last one is only predicted.
    fn context_length(&self) -> usize;
}

/// Text to token ids, without special tokens that the text does not spell out.
pub trait Tokenize: Sync {
    /// The ids of `text`.
    fn encode(&self, text: &str) -> Result<Vec<u32>>;
}

impl Tokenize for tokenizers::Tokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if self.get_truncation().is_some() || self.get_padding().is_some() {
            return Err(Error::new(
                Kind::Data,
                "the tokenizer cuts or pads its input, which would change what is scored",
            )
            .hint("remove `truncation` and `padding` from tokenizer.json"));
        }
        let encoding = self
            .encode_fast(text, false)
            .map_err(|e| Error::new(Kind::Data, format!("the tokenizer failed: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }
}

impl Tokenize for crate::data::Tokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        crate::data::Tokenizer::encode(self, text)
    }
}

/// Whether texts begin with a BOS token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bos {
    /// None is added (the harness over an API).
    Absent,
    /// This id is put before every text that does not begin with it (the harness with `add_bos_token`).
    Before(u32),
}

/// Makes requests out of text.
#[derive(Clone, Copy)]
pub struct Encoder<'a> {
    tokenizer: &'a dyn Tokenize,
    bos: Bos,
    prefix: Option<u32>,
}

impl<'a> Encoder<'a> {
    /// `prefix` is what an empty context is replaced by: the BOS id, else the EOS id of the tokenizer.
    pub fn new(tokenizer: &'a dyn Tokenize, bos: Bos, prefix: Option<u32>) -> Self {
        Self { tokenizer, bos, prefix }
    }

    /// The ids of a text, with BOS if that is on.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.tokenizer.encode(text)?;
        if let Bos::Before(bos) = self.bos
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// The id that stands for an empty context.
    pub fn prefix(&self) -> Result<u32> {
        self.prefix.ok_or_else(|| {
            Error::new(
                Kind::Data,
                "an empty context needs a first token, and the tokenizer has neither BOS nor EOS",
            )
            .hint("name one of them in tokenizer_config.json")
        })
    }

    /// One request per continuation of `context`; trailing white space of the context goes to the
    /// continuations.
    pub fn requests(&self, context: &str, continuations: &[String]) -> Result<Vec<Request>> {
        let (context, tail) = python::split_trailing_space(context);
        let context_ids = self.encode(context)?;
        continuations.iter().map(|c| self.request(context, &context_ids, &format!("{tail}{c}"))).collect()
    }

    fn request(&self, context: &str, context_ids: &[u32], continuation: &str) -> Result<Request> {
        if context.is_empty() {
            return self.without_context(continuation);
        }
        let whole = self.encode(&format!("{context}{continuation}"))?;
        let rest = whole.get(context_ids.len()..).unwrap_or_default();
        Request::new(context_ids.to_vec(), rest.to_vec(), continuation)
    }

    /// The prefix token is the context, unless the continuation itself begins with it.
    fn without_context(&self, continuation: &str) -> Result<Request> {
        let prefix = self.prefix()?;
        let mut ids = self.tokenizer.encode(continuation)?;
        if ids.first() == Some(&prefix) {
            ids.remove(0);
        }
        Request::new(vec![prefix], ids, continuation)
    }
}

impl Request {
    fn new(context: Vec<u32>, continuation: Vec<u32>, text: &str) -> Result<Self> {
        if context.is_empty() || continuation.is_empty() {
            return Err(Error::new(
                Kind::Data,
                format!("{text:?} adds no token to its context: there is nothing to score"),
            ));
        }
        Ok(Self { context, continuation })
    }

    /// Keeps the last `context_length` + 1 ids, a BOS at the front included in what is dropped.
    pub fn fit(mut self, context_length: usize) -> Result<Self> {
        let kept = (context_length + 1)
            .checked_sub(self.continuation.len())
            .filter(|&kept| kept > 0)
            .ok_or_else(|| {
                Error::new(
                    Kind::Data,
                    format!(
                        "a continuation of {} tokens is longer than the model's context",
                        self.continuation.len()
                    ),
                )
                .hint(format!("the model reads at most {context_length} tokens"))
            })?;
        self.context.drain(..self.context.len().saturating_sub(kept));
        Ok(self)
    }
}
