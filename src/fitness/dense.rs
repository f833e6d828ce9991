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
        let long_enough = |states: &Tensor| states.dim(0).is_ok_and(|rows| rows >= length);
        let missing: Vec<(usize, &[u32])> = sequences
            .iter()
            .copied()
            .zip(tokens.chunks(length))
            .filter(|(sequence, _)| !known.get(sequence).is_some_and(long_enough))
            .collect();
        if !missing.is_empty() {
            let texts: Vec<u32> = missing.iter().flat_map(|(_, tokens)| *tokens).copied().collect();
            let states = model.hidden(&texts, &Segments::sequences(missing.len(), length))?;
            for (i, (sequence, _)) in missing.iter().enumerate() {
                known.insert(*sequence, states.narrow(0, i * length, length)?.force_contiguous()?);
            }
        }
        let kept = |sequence| Ok(known[sequence].narrow(0, 0, length)?);
        Ok(Tensor::cat(&sequences.iter().map(kept).collect::<Result<Vec<_>>>()?, 0)?)
    }
}
