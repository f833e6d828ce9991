//! What is read off logits: log-probabilities of tokens, and the divergence between two models' predictions.
//!
//! Per row of V logits: one exponential per element and one pass over memory (4·V bytes per side); sums in
//! f64 over rows.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use super::math::{exp, max, sum_exp, vectorised};
use super::with_slice;
use crate::base::Result;

/// Log-probability of one token per row, and whether it is the likeliest (the first of equals counts).
/// `logits` is [n, V].
pub fn token_logprobs(logits: &Tensor, tokens: &[u32]) -> Result<Vec<(f64, bool)>> {
    pair_logprobs(logits, &tokens.iter().copied().enumerate().collect::<Vec<_>>())
}

/// The same for pairs of row and token, in any order and number.
pub fn pair_logprobs(logits: &Tensor, pairs: &[(usize, u32)]) -> Result<Vec<(f64, bool)>> {
    let v = logits.dim(1)?;
    with_slice(logits, |data| {
        let one = |&(row, token): &(usize, u32)| logprob(&data[row * v..(row + 1) * v], token);
        Ok(pairs.par_iter().map(one).collect())
    })
}

vectorised! {
    fn logprob(row: &[f32], token: u32) -> (f64, bool) {
        let top = max(row);
        let (before, others) = row.split_at(token as usize);
        let likeliest = others[0] == top && !before.contains(&top);
        ((others[0] - top) as f64 - (sum_exp(row, top) as f64).ln(), likeliest)
    }
}

/// The `k` likeliest tokens of every row of logits [n, V] with their log-probabilities, the likeliest first,
/// of equals the lower id. A token's value is bit for bit what [`pair_logprobs`] gives.
pub fn top_logprobs(logits: &Tensor, k: usize) -> Result<Vec<Vec<(u32, f64)>>> {
    let v = logits.dim(1)?;
    with_slice(logits, |data| Ok(data.par_chunks_exact(v).map(|row| likeliest(row, k)).collect()))
}

fn likeliest(row: &[f32], k: usize) -> Vec<(u32, f64)> {
    let mut best: Vec<u32> = Vec::with_capacity(k + 1);
    for (token, &logit) in row.iter().enumerate() {
        if best.len() == k && best.last().is_none_or(|&last| row[last as usize] >= logit) {
            continue;
        }
        let place = best.partition_point(|&b| row[b as usize] >= logit);
        best.insert(place, token as u32);
        best.truncate(k);
    }
    let (top, total) = total(row);
    let log_total = (total as f64).ln();
    best.into_iter().map(|token| (token, (row[token as usize] - top) as f64 - log_total)).collect()
}

vectorised! {
    /// The largest logit, and Σ exp(logit − largest).
    fn total(row: &[f32]) -> (f32, f32) {
        let top = max(row);
        (top, sum_exp(row, top))
    }
}

/// The teacher's side of a divergence for some rows: probabilities over all tokens or over its top k.
pub struct Teacher {
    vocabulary: usize,
    rows: Vec<TeacherRow>,
}

struct TeacherRow {
    /// Token ids, for a top-k teacher.
    tokens: Option<Vec<u32>>,
    probabilities: Vec<f32>,
    /// Σ p ln p
    negative_entropy: f64,
}

impl Teacher {
    /// From the teacher's logits [n, V]; `top_k` = 0 keeps the whole vocabulary.
    pub fn new(logits: &Tensor, top_k: usize) -> Result<Self> {
        let vocabulary = logits.dim(1)?;
        let all = top_k == 0 || top_k >= vocabulary;
        let row = |row: &[f32]| if all { TeacherRow::new(row, None) } else { TeacherRow::top(row, top_k) };
        with_slice(logits, |data| {
            Ok(Self { vocabulary, rows: data.par_chunks_exact(vocabulary).map(row).collect() })
        })
    }

    /// Σ over rows of KL(teacher ‖ student), in nats; the student's logits are [n, V], renormalised over the
    /// teacher's tokens. The rows are those from `start` on.
    pub fn divergence(&self, student: &Tensor, start: usize) -> Result<f64> {
        Ok(self.divergences(student, start)?.iter().sum())
    }

    /// The same, row by row.
    pub fn divergences(&self, student: &Tensor, start: usize) -> Result<Vec<f64>> {
        let v = self.vocabulary;
        with_slice(student, |data| {
            let rows = &self.rows[start..start + data.len() / v];
            Ok(data.par_chunks_exact(v).zip(rows).map(|(z, t)| t.divergence(z)).collect())
        })
    }
}

impl TeacherRow {
    fn new(logits: &[f32], tokens: Option<Vec<u32>>) -> Self {
        let mut probabilities = vec![0.0; logits.len()];
        let negative_entropy = softmax(logits, &mut probabilities);
        Self { tokens, probabilities, negative_entropy }
    }

    fn top(logits: &[f32], k: usize) -> Self {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        // Ties go to the lower id, so that the set does not depend on the algorithm.
        order.select_nth_unstable_by(k - 1, |&a, &b| {
            logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b))
        });
        order.truncate(k);
        order.sort_unstable();
        let kept: Vec<f32> = order.iter().map(|&t| logits[t as usize]).collect();
        Self::new(&kept, Some(order))
    }

    /// Σ p (ln p − ln q)
    fn divergence(&self, student: &[f32]) -> f64 {
        let cross_entropy = match &self.tokens {
            None => cross_entropy(&self.probabilities, student),
            Some(tokens) => {
                let kept: Vec<f32> = tokens.iter().map(|&t| student[t as usize]).collect();
                cross_entropy(&self.probabilities, &kept)
            }
        };
        self.negative_entropy - cross_entropy
    }
}

vectorised! {
    /// Writes the softmax p of logits and gives Σ p ln p.
    fn softmax(logits: &[f32], probabilities: &mut [f32]) -> f64 {
        let top = max(logits);
        let total = sum_exp(logits, top);
        let scale = 1.0 / total;
        for (p, z) in probabilities.iter_mut().zip(logits) {
            *p = exp(z - top) * scale;
        }
        expectation(probabilities, logits, top) - (total as f64).ln()
    }
}

vectorised! {
    /// Σ p ln q, for q the softmax of logits.
    fn cross_entropy(probabilities: &[f32], logits: &[f32]) -> f64 {
        let top = max(logits);
        let log_total = (sum_exp(logits, top) as f64).ln();
        expectation(probabilities, logits, top) - log_total
    }
}

/// Σ p·(z − shift), in 16 partial sums.
#[inline(always)]
fn expectation(p: &[f32], z: &[f32], shift: f32) -> f64 {
    let mut lanes = [0f32; 16];
    let ps = p.chunks_exact(16);
    let zs = z.chunks_exact(16);
    let rest: f32 = ps.remainder().iter().zip(zs.remainder()).map(|(p, z)| p * (z - shift)).sum();
    for (p, z) in ps.zip(zs) {
        for i in 0..16 {
            lanes[i] += p[i] * (z[i] - shift);
        }
    }
    lanes.iter().map(|&x| x as f64).sum::<f64>() + rest as f64
}

/// Σ over rows of ‖a − b‖², for two tensors of the same shape.
pub fn squared_distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok((a - b)?.sqr()?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?)
}
