//! What a task reports: accuracies with their standard errors, perplexities, and their means over a group of
//! tasks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::Estimate;

/// A quantity that a task reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Fraction of documents whose gold choice has the largest log-likelihood.
    Acc,
    /// The same with each log-likelihood divided by the choice's length in Unicode code points.
    AccNorm,
    /// exp(−Σ log-likelihood / Σ words).
    WordPerplexity,
    /// exp(−Σ log-likelihood / Σ bytes).
    BytePerplexity,
    /// −Σ log-likelihood / Σ bytes / ln 2.
    BitsPerByte,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Acc, Self::AccNorm, Self::WordPerplexity, Self::BytePerplexity, Self::BitsPerByte];

    /// The metric of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// Whether it is a fraction of documents.
    pub fn is_accuracy(self) -> bool {
        matches!(self, Self::Acc | Self::AccNorm)
    }

    /// The name in results and reports.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Acc => "acc",
            Metric::AccNorm => "acc_norm",
            Metric::WordPerplexity => "word_perplexity",
            Metric::BytePerplexity => "byte_perplexity",
            Metric::BitsPerByte => "bits_per_byte",
        }
    }
}

/// Values by metric.
pub type Estimates = BTreeMap<Metric, Estimate>;

/// Mean and √(Σ(x − mean)² / (n − 1)) / √n. `None` without values.
pub fn mean(values: &[f64]) -> Option<Estimate> {
    let n = values.len();
    let value = values.iter().sum::<f64>() / n as f64;
    let squares: f64 = values.iter().map(|x| (x - value).powi(2)).sum();
    let stderr = (n > 1).then(|| (squares / (n - 1) as f64).sqrt() / (n as f64).sqrt());
    (n > 0).then_some(Estimate::mean(value, stderr, n))
}

/// A group's value, its members weighted by size: Σ n_i·a_i / N, with the pooled standard error √(Σ (n_i −
/// 1)·s_i²·n_i / (N − k) / N). The error is absent if a member has none; the whole is `None` without
/// members, or if one of them is no mean.
pub fn pool(members: &[Estimate]) -> Option<Estimate> {
    let sizes: Vec<u64> = members.iter().map(|m| m.n).collect::<Option<_>>()?;
    let n: u64 = sizes.iter().sum();
    let sized = || members.iter().zip(&sizes).map(|(m, &n)| (m, n as f64));
    let value = sized().map(|(m, n)| n * m.value).sum::<f64>() / n as f64;
    let spread: Option<f64> = sized().map(|(m, n)| m.stderr.map(|s| (n - 1.0) * s * s * n)).sum();
    let stderr = spread.map(|s| (s / (n - members.len() as u64) as f64 / n as f64).sqrt());
    (n > 0).then_some(Estimate { value, stderr, n: Some(n) })
}

/// The unweighted mean over tasks, as the pruning papers report it; its standard error comes from the tasks'
/// own and is absent if one has none. `None` without tasks.
pub fn mean_of_tasks(tasks: &[Estimate]) -> Option<Estimate> {
    let count = tasks.len() as f64;
    let value = tasks.iter().map(|e| e.value).sum::<f64>() / count;
    let variance: Option<f64> = tasks.iter().map(|e| e.stderr.map(|s| s * s)).sum();
    let n = tasks.iter().map(|e| e.n).sum();
    (!tasks.is_empty()).then_some(Estimate { value, stderr: variance.map(|v| v.sqrt() / count), n })
}

/// The metrics that all members have, pooled.
pub fn pool_all(members: &[&Estimates]) -> Estimates {
    let Some((first, rest)) = members.split_first() else { return Estimates::new() };
    let shared = first.keys().filter(|metric| rest.iter().all(|m| m.contains_key(metric)));
    shared
        .filter_map(|metric| Some((*metric, pool(&members.iter().map(|m| m[metric]).collect::<Vec<_>>())?)))
        .collect()
}

/// The three perplexities of a text: `loglikelihood` in nats over this many words and bytes, from `n`
/// documents.
pub fn perplexities(loglikelihood: f64, words: usize, bytes: usize, n: usize) -> Estimates {
    let per_byte = -loglikelihood / bytes as f64;
    let values = [
        (Metric::WordPerplexity, (-loglikelihood / words as f64).exp()),
        (Metric::BytePerplexity, per_byte.exp()),
        (Metric::BitsPerByte, per_byte / std::f64::consts::LN_2),
    ];
    values.into_iter().map(|(metric, value)| (metric, Estimate::mean(value, None, n))).collect()
}

/// Place of the largest value, the first of equals; NaN is never the largest. `None` if there is no number.
pub fn argmax(values: &[f64]) -> Option<usize> {
    let better = |best: Option<usize>, i: usize| match best {
        _ if values[i].is_nan() => best,
        Some(b) if values[b] >= values[i] => best,
        _ => Some(i),
    };
    (0..values.len()).fold(None, better)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_scores_wins_and_nan_never_does() {
        assert_eq!(argmax(&[-2.0, -1.0, -1.0]), Some(1));
        assert_eq!(argmax(&[-0.0, 0.0]), Some(0));
        assert_eq!(argmax(&[f64::NAN, -9.0, f64::NAN]), Some(1));
        assert_eq!(argmax(&[f64::NEG_INFINITY, f64::NAN]), Some(0));
        assert_eq!(argmax(&[f64::NAN]), None);
        assert_eq!(argmax(&[]), None);
    }

    #[test]
    fn the_standard_error_is_the_sample_one_and_absent_for_one_value() {
        let e = mean(&[1.0, 0.0, 1.0, 1.0]).unwrap();
        assert_eq!((e.value, e.n), (0.75, Some(4)));
        assert!((e.stderr.unwrap() - 0.25).abs() < 1e-15);
        assert_eq!(mean(&[1.0]).unwrap(), Estimate::mean(1.0, None, 1));
        assert_eq!(mean(&[]), None);
    }

    #[test]
    fn a_group_is_weighted_by_size_with_the_pooled_error() {
        let a = Estimate::mean(0.5, Some(0.1), 10);
        let b = Estimate::mean(0.8, Some(0.05), 30);
        let group = pool(&[a, b]).unwrap();
        assert_eq!(group.n, Some(40));
        assert!((group.value - 0.725).abs() < 1e-15);
        // (9·0.01·10 + 29·0.0025·30) / 38 / 40 = 3.075 / 1520
        assert!((group.stderr.unwrap() - (3.075f64 / 1520.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn a_member_without_error_takes_it_from_the_group() {
        let one = Estimate::mean(1.0, None, 1);
        assert_eq!(pool(&[one, one]).unwrap(), Estimate::mean(1.0, None, 2));
        assert_eq!(pool(&[]), None);
        assert_eq!(pool(&[one, Estimate::exact(1.0)]), None);
    }

    #[test]
    fn a_group_has_the_metrics_of_all_its_members() {
        let e = Estimate::mean(0.5, Some(0.1), 10);
        let both = Estimates::from([(Metric::Acc, e), (Metric::AccNorm, e)]);
        let one = Estimates::from([(Metric::Acc, e)]);
        assert_eq!(pool_all(&[&both, &one]).keys().collect::<Vec<_>>(), [&Metric::Acc]);
        assert_eq!(pool_all(&[&both, &both]).len(), 2);
        assert!(pool_all(&[]).is_empty());
    }

    #[test]
    fn perplexities_of_a_fair_coin_per_byte() {
        let e = perplexities(-8.0 * std::f64::consts::LN_2, 2, 8, 1);
        assert!((e[&Metric::BitsPerByte].value - 1.0).abs() < 1e-15);
        assert!((e[&Metric::BytePerplexity].value - 2.0).abs() < 1e-15);
        assert!((e[&Metric::WordPerplexity].value - 16.0).abs() < 1e-12);
        assert_eq!(e[&Metric::WordPerplexity].stderr, None);
    }
}
