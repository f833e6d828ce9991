//! Token-level perplexity and divergence from the dense model on an evaluation set, as the pruning papers
//! measure them.

use candle_core::Tensor;

use super::BATCH_TOKENS;
use crate::base::{Estimate, Result, Watch};
use crate::data::EvaluationSet;
use crate::model::Model;
use crate::tensor::attention::Segments;
use crate::tensor::loss::{Teacher, token_logprobs};

/// A mean over tokens from sums over windows of `per_window` tokens each. Its standard error takes windows as
/// independent and is absent for one window.
fn over_windows(sums: &[f64], per_window: usize) -> Estimate {
    let windows = sums.len() as f64;
    let means: Vec<f64> = sums.iter().map(|s| s / per_window as f64).collect();
    let value = means.iter().sum::<f64>() / windows;
    let squares: f64 = means.iter().map(|m| (m - value).powi(2)).sum();
    let stderr = (sums.len() > 1).then(|| (squares / (windows - 1.0) / windows).sqrt());
    Estimate::mean(value, stderr, sums.len() * per_window)
}

/// Perplexity over windows side by side: exp of the mean negative log-likelihood of every token but each
/// window's first.
pub fn perplexity(model: &Model, set: &EvaluationSet, watch: &dyn Watch) -> Result<Estimate> {
    let length = set.0.length;
    let sums = per_window(model, set, watch, |tokens, hidden| {
        let blocks = model.config().logit_blocks(length - 1).map(|rows| {
            let logits = model.logits(&hidden.narrow(0, rows.start, rows.len())?)?;
            let next = &tokens[rows.start + 1..rows.end + 1];
            Ok(token_logprobs(&logits, next)?.iter().map(|(lp, _)| -lp).sum::<f64>())
        });
        blocks.sum()
    })?;
    Ok(over_windows(&sums, length - 1).exp())
}

/// Mean KL(dense ‖ model) over all positions of the windows, nats.
pub fn divergence(model: &Model, dense: &Model, set: &EvaluationSet, watch: &dyn Watch) -> Result<Estimate> {
    let sums = per_window(model, set, watch, |tokens, hidden| {
        let teacher = dense.hidden(tokens, &Segments::windows(1, tokens.len()))?;
        let blocks = model.config().logit_blocks(tokens.len()).map(|rows| {
            let logits =
                |model: &Model, hidden: &Tensor| model.logits(&hidden.narrow(0, rows.start, rows.len())?);
            Teacher::new(&logits(dense, &teacher)?, 0)?.divergence(&logits(model, &hidden)?, 0)
        });
        blocks.sum()
    })?;
    Ok(over_windows(&sums, set.0.length))
}

/// Runs the model batch by batch and hands each window's tokens and last hidden states on.
fn per_window(
    model: &Model,
    set: &EvaluationSet,
    watch: &dyn Watch,
    mut each: impl FnMut(&[u32], Tensor) -> Result<f64>,
) -> Result<Vec<f64>> {
    let length = set.0.length;
    let mut sums = Vec::with_capacity(set.0.count());
    for tokens in set.0.batches(BATCH_TOKENS) {
        watch.checkpoint()?;
        let hidden = model.hidden(tokens, &Segments::windows(tokens.len() / length, length))?;
        for (i, window) in tokens.chunks_exact(length).enumerate() {
            sums.push(each(window, hidden.narrow(0, i * length, length)?)?);
            watch.advance(1);
        }
    }
    Ok(sums)
}
