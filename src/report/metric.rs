//! Metrics of results: what a number measures. One prints itself as the `metric` column of `results.csv` has
//! it, reads itself back from there, and has its place in the order of the tables.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bench::Workload;
use crate::bench::quantity::Quantity;
use crate::eval;
use crate::spec::Form;

/// What a number measures; each variant says its text in results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Metric {
    /// `parameters` of the model.
    Parameters,
    /// `sparsity`: the fraction removed of what the spec's target counts.
    Sparsity,
    /// `sparsity/asked`: the fraction that the spec asks for.
    AskedSparsity,
    /// `perplexity/<corpus>`, of tokens.
    Perplexity(String),
    /// `kl`: KL(dense ‖ model), nats per token.
    Kl,
    /// `acc/<task>`, `acc_norm/<task>` (fractions, not per cent), `word_perplexity/<task>`,
    /// `byte_perplexity/<task>`, `bits_per_byte/<task>`.
    Task(eval::Metric, String),
    /// `acc_mean`: the mean of acc over what the spec names, a group once.
    MeanAccuracy,
    /// `acc_diff/<task>`, `acc_norm_diff/<task>`: pruned − dense on the same documents, with the standard
    /// error of the paired difference.
    Difference(eval::Metric, String),
    /// `acc_diff_mean`: the same of `acc_mean`.
    MeanDifference,
    /// `acc_retained`: `acc_mean` as a ratio to the dense model's, the paper's retained accuracy.
    Retained,
    /// `export_bytes/<form>`: of the files of an export.
    ExportBytes(Form),
    /// `export_logit_difference/<form>`: the largest, between the export read back and the model.
    ExportLogitDifference(Form),
    /// `export_perplexity/<form>`: of the export read back, on the text that both were compared on.
    ExportPerplexity(Form),
    /// `seconds/<step>`.
    Seconds(String),
    /// `peak_bytes/<step>`.
    PeakBytes(String),
    /// `bench_<quantity>/<workload>`: how fast the model writes, a workload being `512+64x8` for 8 prompts of 512
    /// tokens with 64 written after each.
    Bench(Quantity, Workload),
    /// `lm_eval:<metric>/<task>`: what the lm-evaluation-harness says of the metric.
    Harness(Box<Metric>),
    /// Any other text: metrics that only the harness has, and those of logs of other builds.
    Other(String),
}

/// Before the metrics that the harness measured.
const HARNESS: &str = "lm_eval:";
/// Before quantities of a bench.
const BENCH: &str = "bench_";
/// After the name of a metric, for the difference to the dense model's.
const DIFFERENCE: &str = "_diff";

impl Metric {
    /// Of a task, as the harness measured it.
    pub fn harness(metric: &str, task: &str) -> Self {
        Self::Harness(Box::new(format!("{metric}/{task}").into()))
    }

    /// Whether it is a cost, which differs from run to run.
    pub fn is_cost(&self) -> bool {
        matches!(self, Self::Seconds(_) | Self::PeakBytes(_) | Self::Bench(..))
    }

    /// Whether it is a fraction of documents, or a difference or ratio of such fractions. The harness has
    /// more accuracies than are known here, all of them called `acc…`.
    pub fn is_accuracy(&self) -> bool {
        match self {
            Self::Task(metric, _) | Self::Difference(metric, _) => metric.is_accuracy(),
            Self::MeanAccuracy | Self::MeanDifference | Self::Retained => true,
            Self::Other(text) => text.starts_with("acc"),
            _ => false,
        }
    }

    /// The form of an export that it is of.
    pub fn form(&self) -> Option<Form> {
        match self {
            Self::ExportBytes(form) | Self::ExportLogitDifference(form) | Self::ExportPerplexity(form) => {
                Some(*form)
            }
            _ => None,
        }
    }

    /// Place in the order of metrics: size, then quality, then costs, then the rest.
    fn rank(&self) -> u8 {
        match self {
            Self::Parameters => 0,
            Self::Sparsity | Self::AskedSparsity => 1,
            Self::Perplexity(_) => 2,
            Self::Kl => 3,
            Self::Task(eval::Metric::Acc, _) => 4,
            Self::Task(eval::Metric::AccNorm, _) => 5,
            Self::MeanAccuracy => 6,
            Self::Difference(eval::Metric::Acc, _) => 7,
            Self::Difference(eval::Metric::AccNorm, _) => 8,
            Self::MeanDifference => 9,
            Self::Retained => 10,
            Self::ExportBytes(_) | Self::ExportLogitDifference(_) | Self::ExportPerplexity(_) => 11,
            Self::Seconds(_) => 12,
            Self::PeakBytes(_) => 13,
            Self::Bench(..) => 14,
            Self::Task(..) | Self::Difference(..) | Self::Harness(_) | Self::Other(_) => 15,
        }
    }

    /// One that belongs to something: a corpus, a task or a step.
    fn of(family: &str, name: &str) -> Option<Self> {
        let name = || name.to_string();
        let form = || name().parse().ok();
        let task = || eval::Metric::from_name(family).map(|metric| Self::Task(metric, name()));
        let difference = || {
            let metric = eval::Metric::from_name(family.strip_suffix(DIFFERENCE)?)?;
            Some(Self::Difference(metric, name()))
        };
        let bench = || {
            let quantity = Quantity::from_name(family.strip_prefix(BENCH)?)?;
            Some(Self::Bench(quantity, name().parse().ok()?))
        };
        match family {
            "perplexity" => Some(Self::Perplexity(name())),
            "seconds" => Some(Self::Seconds(name())),
            "peak_bytes" => Some(Self::PeakBytes(name())),
            "export_bytes" => form().map(Self::ExportBytes),
            "export_logit_difference" => form().map(Self::ExportLogitDifference),
            "export_perplexity" => form().map(Self::ExportPerplexity),
            _ => task().or_else(difference).or_else(bench),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Parameters => f.write_str("parameters"),
            Self::Sparsity => f.write_str("sparsity"),
            Self::AskedSparsity => f.write_str("sparsity/asked"),
            Self::Perplexity(corpus) => write!(f, "perplexity/{corpus}"),
            Self::Kl => f.write_str("kl"),
            Self::Task(metric, task) => write!(f, "{}/{task}", metric.name()),
            Self::MeanAccuracy => f.write_str("acc_mean"),
            Self::Difference(metric, task) => write!(f, "{}{DIFFERENCE}/{task}", metric.name()),
            Self::MeanDifference => f.write_str("acc_diff_mean"),
            Self::Retained => f.write_str("acc_retained"),
            Self::Seconds(step) => write!(f, "seconds/{step}"),
            Self::PeakBytes(step) => write!(f, "peak_bytes/{step}"),
            Self::ExportBytes(form) => write!(f, "export_bytes/{form}"),
            Self::ExportLogitDifference(form) => write!(f, "export_logit_difference/{form}"),
            Self::ExportPerplexity(form) => write!(f, "export_perplexity/{form}"),
            Self::Bench(quantity, workload) => write!(f, "{BENCH}{quantity}/{workload}"),
            Self::Harness(metric) => write!(f, "{HARNESS}{metric}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl From<&str> for Metric {
    fn from(text: &str) -> Self {
        match text {
            "parameters" => return Self::Parameters,
            "sparsity" => return Self::Sparsity,
            "sparsity/asked" => return Self::AskedSparsity,
            "kl" => return Self::Kl,
            "acc_mean" => return Self::MeanAccuracy,
            "acc_diff_mean" => return Self::MeanDifference,
            "acc_retained" => return Self::Retained,
            _ => {}
        }
        if let Some(metric) = text.strip_prefix(HARNESS) {
            return Self::Harness(Box::new(metric.into()));
        }
        let known = text.split_once('/').and_then(|(family, name)| Self::of(family, name));
        known.unwrap_or_else(|| Self::Other(text.to_string()))
    }
}

impl From<String> for Metric {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<Metric> for String {
    fn from(metric: Metric) -> Self {
        metric.to_string()
    }
}

/// Size, then quality, then costs, then the rest, by name within a family.
impl Ord for Metric {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank()).then_with(|| self.to_string().cmp(&other.to_string()))
    }
}

impl PartialOrd for Metric {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(metrics: &[&str]) -> Vec<String> {
        let mut metrics: Vec<Metric> = metrics.iter().map(|&m| m.into()).collect();
        metrics.sort();
        metrics.iter().map(Metric::to_string).collect()
    }

    #[test]
    fn every_text_reads_back_as_the_same_metric() {
        let known = [
            "parameters",
            "sparsity",
            "sparsity/asked",
            "perplexity/a/b",
            "kl",
            "acc/boolq",
            "acc_norm/arc_easy",
            "word_perplexity/wikitext",
            "byte_perplexity/wikitext",
            "bits_per_byte/wikitext",
            "acc_mean",
            "acc_diff/boolq",
            "acc_norm_diff/arc_easy",
            "acc_diff_mean",
            "acc_retained",
            "export_bytes/gguf",
            "export_logit_difference/mlx",
            "export_perplexity/stock",
            "seconds/search-1",
            "peak_bytes/search-1",
            "bench_tokens_per_s/512+64x8",
            "bench_dense_first_token_s_low/1+2x1",
            "bench_read_share_high/1+2x1",
            "bench_peak_bytes/1+2x1",
        ];
        for text in known {
            let metric = Metric::from(text);
            assert!(!matches!(metric, Metric::Other(_)), "{text}");
            assert_eq!(metric.to_string(), text);
            let harness = format!("{HARNESS}{text}");
            assert_eq!(Metric::from(harness.as_str()), Metric::Harness(Box::new(metric)));
            assert_eq!(Metric::from(harness.as_str()).to_string(), harness);
        }
        for text in [
            "",
            "other",
            "acc",
            "exact_match/gsm8k",
            "kl/x",
            "loss_diff/x",
            "bench_x/1+2x1",
            "bench_kv_bytes/1+2",
        ] {
            assert_eq!(Metric::from(text), Metric::Other(text.into()));
            assert_eq!(Metric::from(text).to_string(), text);
        }
    }

    #[test]
    fn metrics_have_a_fixed_order() {
        let order = [
            "parameters",
            "sparsity",
            "sparsity/asked",
            "perplexity/w",
            "kl",
            "acc/a",
            "acc/b",
            "acc_norm/b",
            "acc_mean",
            "acc_diff/a",
            "acc_diff/b",
            "acc_norm_diff/a",
            "acc_diff_mean",
            "acc_retained",
            "export_bytes/hf",
            "export_perplexity/gguf",
            "seconds/a",
            "peak_bytes/a",
            "bench_decode_ratio/1+2x1",
            "bits_per_byte/a",
            "lm_eval:acc/a",
            "other",
            "word_perplexity/a",
        ];
        let reversed: Vec<&str> = order.into_iter().rev().collect();
        assert_eq!(sorted(&reversed), order);
    }

    #[test]
    fn accuracies_are_known_by_what_they_are() {
        let is = |text: &str| Metric::from(text).is_accuracy();
        assert!(
            ["acc/a", "acc_norm/a", "acc_mean", "acc_retained", "acc_norm_diff/a", "acc_all/a"]
                .into_iter()
                .all(is)
        );
        assert!(
            !["kl", "perplexity/acc", "word_perplexity/a", "exact_match/a", "seconds/acc"]
                .into_iter()
                .any(is)
        );
    }
}
