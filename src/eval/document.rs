//! A multiple-choice document, whatever it was read from, and what a model made of it.

use serde::{Deserialize, Serialize};

use crate::base::{Error, Kind, Result, hash};

use super::metric::{Metric, argmax};
use super::python;
use super::request::{Encoder, Request, Score};

/// One question with its choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What precedes the choices.
    pub context: Context,
    /// What is scored, each after one space.
    pub choices: Vec<String>,
    /// Index of the right choice.
    pub gold: usize,
}

/// What precedes the choices of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Context {
    /// The same text for all.
    Shared(String),
    /// One text per choice (Winogrande: the option stands in the context and the tail is scored).
    PerChoice(Vec<String>),
}

impl Document {
    /// A question with one context.
    pub fn new(context: impl Into<String>, choices: Vec<String>, gold: usize) -> Self {
        Self { context: Context::Shared(context.into()), choices, gold }
    }

    /// Refuses a document that has no answer.
    pub fn check(self) -> Result<Self> {
        let n = self.choices.len();
        let contexts = if let Context::PerChoice(contexts) = &self.context { contexts.len() } else { n };
        if n < 2 || contexts != n || self.gold >= n {
            let what = format!(
                "a document with {n} choices and {contexts} contexts cannot have choice {} as its answer",
                self.gold
            );
            return Err(
                Error::new(Kind::Data, what).hint("give at least two choices and count the answer from 0")
            );
        }
        Ok(self)
    }

    /// One request per choice, cut to the model's context length.
    pub fn requests(&self, encoder: &Encoder, context_length: usize) -> Result<Vec<Request>> {
        let continuations: Vec<String> = self.choices.iter().map(|choice| format!(" {choice}")).collect();
        let requests = match &self.context {
            Context::Shared(context) => encoder.requests(context, &continuations)?,
            Context::PerChoice(contexts) => one_each(encoder, contexts, &continuations)?,
        };
        requests.into_iter().map(|r| r.fit(context_length)).collect()
    }

    /// The first choice's context, hashed: equal prompts have equal hashes.
    fn context_hash(&self) -> String {
        let first = match &self.context {
            Context::Shared(context) => Some(context),
            Context::PerChoice(contexts) => contexts.first(),
        };
        hash::of_bytes(first.map(String::as_bytes).unwrap_or_default())
    }

    /// The record of the scores of this document's choices.
    pub fn sample(&self, index: usize, scores: &[Score]) -> Sample {
        let loglikelihoods: Vec<f64> = scores.iter().map(|s| s.loglikelihood).collect();
        let normalised =
            loglikelihoods.iter().zip(&self.choices).map(|(l, choice)| l / python::len(choice) as f64);
        let normalised: Vec<f64> = normalised.collect();
        let right = |values: &[f64]| u8::from(argmax(values) == Some(self.gold));
        let acc = right(&loglikelihoods);
        let acc_norm = right(&normalised);
        Sample { index, context_hash: self.context_hash(), loglikelihoods, gold: self.gold, acc, acc_norm }
    }
}

fn one_each(encoder: &Encoder, contexts: &[String], continuations: &[String]) -> Result<Vec<Request>> {
    let pairs = contexts.iter().zip(continuations);
    let requests: Result<Vec<_>> =
        pairs.map(|(context, c)| encoder.requests(context, std::slice::from_ref(c))).collect();
    Ok(requests?.into_iter().flatten().collect())
}

/// What a model made of one document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Place of the document in its task, from 0.
    pub index: usize,
    /// Hash of the first choice's context.
    pub context_hash: String,
    /// Log-likelihood of each choice, nats; one that is not finite is stored as null.
    #[serde(with = "log_likelihoods")]
    pub loglikelihoods: Vec<f64>,
    /// Index of the right choice.
    pub gold: usize,
    /// 1 if the right choice has the largest log-likelihood (the first of equals), else 0.
    pub acc: u8,
    /// The same by log-likelihood per code point of the choice.
    pub acc_norm: u8,
}

impl Sample {
    /// The value of a metric that each document has of its own.
    pub fn metric(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Acc => Some(f64::from(self.acc)),
            Metric::AccNorm => Some(f64::from(self.acc_norm)),
            Metric::WordPerplexity | Metric::BytePerplexity | Metric::BitsPerByte => None,
        }
    }
}

/// A log-likelihood in JSON, which has no NaN and no infinity: both are null there and NaN when read back.
pub(super) mod log_likelihood {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, out: S) -> Result<S::Ok, S::Error> {
        value.is_finite().then_some(*value).serialize(out)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
    }
}

/// The same of several.
mod log_likelihoods {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(values: &[f64], out: S) -> Result<S::Ok, S::Error> {
        out.collect_seq(values.iter().map(|v| v.is_finite().then_some(*v)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
        let values = Vec::<Option<f64>>::deserialize(from)?;
        Ok(values.into_iter().map(|v| v.unwrap_or(f64::NAN)).collect())
    }
}
