//! How far two models are apart on the same tokens.

use candle_core::Tensor;

use crate::base::{Error, Kind, Result};
use crate::model::Model;
use crate::tensor::attention::Segments;
use crate::tensor::loss::token_logprobs;

/// Two models compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parity {
    /// Largest |difference of logits|; of what another runtime gives, of log-probabilities.
    pub max_logit_difference: f64,
    /// Perplexity of the first and of the second model over every token but each sequence's first; 1 where
    /// there is no such token.
    pub perplexity: [f64; 2],
    /// Tokens whose logits were compared.
    pub tokens: usize,
}

/// Runs two models on the same sequences.
///
/// # Errors
/// Models with different vocabularies, a token outside them, a sequence longer than a context.
pub fn parity(model: &Model, other: &Model, sequences: &[&[u32]]) -> Result<Parity> {
    let vocabularies = [model, other].map(|m| m.config().vocabulary);
    if vocabularies[0] != vocabularies[1] {
        let what =
            format!("the models have vocabularies of {} and {} tokens", vocabularies[0], vocabularies[1]);
        return Err(Error::new(Kind::Checkpoint, what).hint("compare a model with an export of itself"));
    }
    let mut sums = Sums::default();
    for tokens in sequences.iter().filter(|tokens| !tokens.is_empty()) {
        let segments = Segments::sequences(1, tokens.len());
        let hidden = [model.hidden(tokens, &segments)?, other.hidden(tokens, &segments)?];
        for rows in model.config().logit_blocks(tokens.len()) {
            let logits = |model: &Model, hidden: &Tensor| {
                model.logits(&hidden.narrow(0, rows.start, rows.len())?.to_device(model.device())?)
            };
            let both = [logits(model, &hidden[0])?, logits(other, &hidden[1])?];
            sums.add(&both, &tokens[rows.start + 1..(rows.end + 1).min(tokens.len())])?;
        }
    }
    Ok(sums.parity())
}

/// Sums over tokens of what two models make of them.
#[derive(Default)]
pub(super) struct Sums {
    largest: f64,
    nats: [f64; 2],
    predicted: usize,
    tokens: usize,
}

impl Sums {
    /// Adds logits [n, V] of both models, or log-probabilities; `next` has the token after each row, none after a
    /// text's last.
    pub(super) fn add(&mut self, both: &[Tensor; 2], next: &[u32]) -> Result<()> {
        let apart = (both[0].to_device(both[1].device())? - &both[1])?.abs()?.flatten_all()?;
        let apart = apart.to_vec1::<f32>()?.into_iter().map(f64::from);
        // What is no number is an infinite difference.
        self.largest =
            apart.fold(self.largest, |most, d| if d.is_nan() { f64::INFINITY } else { most.max(d) });
        for (nats, logits) in self.nats.iter_mut().zip(both) {
            *nats -=
                token_logprobs(&logits.narrow(0, 0, next.len())?, next)?.iter().map(|(p, _)| p).sum::<f64>();
        }
        self.predicted += next.len();
        self.tokens += both[0].dim(0)?;
        Ok(())
    }

    pub(super) fn parity(self) -> Parity {
        let perplexity = self.nats.map(|nats| (nats / self.predicted.max(1) as f64).exp());
        Parity { max_logit_difference: self.largest, perplexity, tokens: self.tokens }
    }
}
