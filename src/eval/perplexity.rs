//! Token-level perplexity and divergence from the dense model on an evaluation set, as the pruning papers
//! measure them.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::base::{Error, Estimate, Kind, Result, Watch};
use crate::data::{BATCH_TOKENS, EvaluationSet};
use crate::model::Model;
use crate::tensor::attention::Segments;
use crate::tensor::loss::{Teacher, token_logprobs};

/// A mean over tokens from sums over sequences of `per_sequence` tokens each. Its standard error takes
/// sequences as independent and is absent for one sequence.
fn over_sequences(sums: &[f64], per_sequence: usize) -> Estimate {
    let sequences = sums.len() as f64;
    let means: Vec<f64> = sums.iter().map(|s| s / per_sequence as f64).collect();
    let value = means.iter().sum::<f64>() / sequences;
    let squares: f64 = means.iter().map(|m| (m - value).powi(2)).sum();
    let stderr = (sums.len() > 1).then(|| (squares / (sequences - 1.0) / sequences).sqrt());
    Estimate::mean(value, stderr, sums.len() * per_sequence)
}

/// Perplexity over sequences side by side: exp of the mean negative log-likelihood of every token but each
/// sequence's first.
///
/// # Errors
/// One that no number holds, of kind [`Kind::Numeric`].
pub fn perplexity(model: &Model, set: &EvaluationSet, watch: &dyn Watch) -> Result<Estimate> {
    let length = set.0.length;
    let sums = per_sequence(model, set, watch, |tokens, hidden| {
        let losses = model.read_logits(&hidden.narrow(0, 0, length - 1)?, |logits, first| {
            let next = &tokens[first + 1..][..logits.dim(0)?];
            Ok(token_logprobs(logits, next)?.iter().map(|(lp, _)| -lp).collect())
        })?;
        Ok(sum_of_rows(model, &losses))
    })?;
    let mean = over_sequences(&sums, length - 1);
    let perplexity = mean.exp();
    if !perplexity.value.is_finite() {
        let what = format!("the perplexity is no number: {} nats per token", mean.value);
        return Err(Error::new(Kind::Numeric, what).hint("the checkpoint may be damaged"));
    }
    Ok(perplexity)
}

/// Mean KL(dense ‖ model) over all positions of the sequences, nats.
pub fn divergence(model: &Model, dense: &Model, set: &EvaluationSet, watch: &dyn Watch) -> Result<Estimate> {
    let sums = per_sequence(model, set, watch, |tokens, hidden| {
        let dense_states = dense.hidden(tokens, &Segments::sequences(1, tokens.len()))?;
        let losses = model.read_logits(&hidden, |logits, first| {
            let of_dense = dense.logits(&dense_states.narrow(0, first, logits.dim(0)?)?)?;
            Teacher::new(&of_dense, 0)?.divergences(logits, 0)
        })?;
        Ok(sum_of_rows(model, &losses))
    })?;
    Ok(over_sequences(&sums, set.0.length))
}

/// The sum of a sequence's losses, by blocks of rows, each on its own first.
fn sum_of_rows(model: &Model, losses: &[f64]) -> f64 {
    model.config().logit_blocks(losses.len()).map(|rows| losses[rows].iter().sum::<f64>()).sum()
}

/// Runs the model batch by batch and hands each sequence's tokens and last hidden states on, sequences side by
/// side.
fn per_sequence(
    model: &Model,
    set: &EvaluationSet,
    watch: &dyn Watch,
    each: impl Fn(&[u32], Tensor) -> Result<f64> + Sync,
) -> Result<Vec<f64>> {
    let length = set.0.length;
    let mut sums = Vec::with_capacity(set.0.count());
    for tokens in set.0.batches(BATCH_TOKENS) {
        watch.checkpoint()?;
        let hidden = model.hidden(tokens, &Segments::sequences(tokens.len() / length, length))?;
        let sequences = tokens.par_chunks_exact(length).enumerate();
        let of = sequences.map(|(i, sequence)| each(sequence, hidden.narrow(0, i * length, length)?));
        sums.extend(of.collect::<Result<Vec<_>>>()?);
        watch.advance((tokens.len() / length) as u64);
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::base::Silent;
    use crate::data::Sequences;
    use crate::model::Source;
    use crate::model::pico::Pico;

    #[test]
    fn a_perplexity_that_no_number_holds_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        Pico { tied: false, ..Pico::default() }.write(dir.path(), 1).unwrap();
        let path = dir.path().join("model.safetensors");
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        let sharp = (&tensors["lm_head.weight"] * 1e5).unwrap();
        tensors.insert("lm_head.weight".into(), sharp);
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let model = Model::open(&Source::folder(dir.path()).unwrap(), &Device::Cpu).unwrap();
        let set = EvaluationSet(Sequences { tokens: (0..32).collect(), length: 16 });
        let e = perplexity(&model, &set, &Silent).unwrap_err();
        assert!(e.kind == Kind::Numeric && e.what.contains("nats per token"), "{e}");
    }
}
