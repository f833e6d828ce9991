//! Token-level perplexity and divergence from the dense model on an evaluation set, as the pruning papers
//! measure them.

use candle_core::Tensor;

use crate::base::{Result, Watch};
use crate::data::{BATCH_TOKENS, EvaluationSet};
use crate::model::Model;
use crate::tensor::attention::Segments;
use crate::tensor::loss::{Teacher, token_logprobs};

/// A mean over tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// The mean.
    pub value: f64,
    /// Standard error of the mean, taking windows as independent; absent for one window.
    pub stderr: Option<f64>,
    /// Tokens.
    pub n: usize,
}

impl Mean {
    /// From sums over windows of `per_window` tokens each.
    fn of(sums: &[f64], per_window: usize) -> Self {
        let windows = sums.len() as f64;
        let means: Vec<f64> = sums.iter().map(|s| s / per_window as f64).collect();
        let value = means.iter().sum::<f64>() / windows;
        let squares: f64 = means.iter().map(|m| (m - value).powi(2)).sum();
        let stderr = (sums.len() > 1).then(|| (squares / (windows - 1.0) / windows).sqrt());
        Self { value, stderr, n: sums.len() * per_window }
    }

    /// exp of a mean negative log-likelihood: the perplexity, its standard error by the delta method.
    pub fn exp(self) -> Self {
        let value = self.value.exp();
        Self { value, stderr: self.stderr.map(|s| s * value), n: self.n }
    }
}

/// Perplexity over windows side by side: exp of the mean negative log-likelihood of every token but each
/// window's first.
pub fn perplexity(model: &Model, set: &EvaluationSet, watch: &dyn Watch) -> Result<Mean> {
    let length = set.0.length;
    let sums = per_window(model, set, watch, |tokens, hidden| {
        by_rows(model, length - 1, |start, count| {
            let logits = model.logits(&hidden.narrow(0, start, count)?)?;
            let next = &tokens[start + 1..start + 1 + count];
            Ok(token_logprobs(&logits, next)?.iter().map(|(lp, _)| -lp).sum())
        })
    })?;
    Ok(Mean::of(&sums, length - 1).exp())
}

/// Mean KL(dense ‖ model) over all positions of the windows, nats.
pub fn divergence(model: &Model, dense: &Model, set: &EvaluationSet, watch: &dyn Watch) -> Result<Mean> {
    let sums = per_window(model, set, watch, |tokens, hidden| {
        let teacher = dense.hidden(tokens, &Segments::windows(1, tokens.len()))?;
        by_rows(model, tokens.len(), |start, count| {
            let side = Teacher::new(&dense.logits(&teacher.narrow(0, start, count)?)?, 0)?;
            side.divergence(&model.logits(&hidden.narrow(0, start, count)?)?, 0)
        })
    })?;
    Ok(Mean::of(&sums, set.0.length))
}

/// Sums what `part(first row, rows)` gives over `rows` rows of logits, as many at once as the model holds.
fn by_rows(model: &Model, rows: usize, part: impl Fn(usize, usize) -> Result<f64>) -> Result<f64> {
    let at_once = model.config().logit_rows();
    (0..rows).step_by(at_once).map(|start| part(start, at_once.min(rows - start))).sum()
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
