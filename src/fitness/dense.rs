//! The dense model's side of a divergence: its last hidden states on sequences of the search set.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;

use crate::base::Result;
use crate::model::Model;
use crate::tensor::attention::Segments;

/// Last hidden states of the dense model by sequence of the search set, each computed once. All searches of a
/// trial share them: a clone is another handle to the same states, which are of one model and one search set.
///
/// Memory: hidden width floats a token of the sequences that were requested.
#[derive(Clone, Default)]
pub struct DenseStates(Arc<Mutex<BTreeMap<usize, Tensor>>>);

impl DenseStates {
    /// The states of some sequences, one after the other [sequences × length, hidden width]; `tokens` are the
    /// first `length` of each.
    pub(super) fn of(
        &self,
        model: &Model,
        sequences: &[usize],
        tokens: &[u32],
        length: usize,
    ) -> Result<Tensor> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut parts = Vec::with_capacity(sequences.len());
        for (sequence, tokens) in sequences.iter().zip(tokens.chunks(length)) {
            let long_enough = |states: &&Tensor| states.dim(0).is_ok_and(|rows| rows >= length);
            let states = match known.get(sequence).filter(long_enough) {
                Some(states) => states.clone(),
                None => model.hidden(tokens, &Segments::sequences(1, length))?,
            };
            parts.push(states.narrow(0, 0, length)?);
            known.insert(*sequence, states);
        }
        Ok(Tensor::cat(&parts, 0)?)
    }
}
