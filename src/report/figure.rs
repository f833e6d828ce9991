//! Figures: single numbers with the trial, model and metric they belong to, their order, and the tidy CSV of
//! them.

use serde::{Deserialize, Serialize};

use super::number;
use crate::base::{Kind, Result, ResultExt};
use crate::trial::ModelName;

/// One measured number.
///
/// Metrics: `parameters`, `sparsity/asked`, `sparsity`, `perplexity/<corpus>` (token-level), `kl` (nats per
/// token), `acc/<task>`, `acc_norm/<task>`, `acc_mean` (shares, not per cent; the mean is over what the spec
/// names, a group once), `word_perplexity/<task>`, `byte_perplexity/<task>`, `bits_per_byte/<task>`,
/// `seconds/<step>`, `peak_bytes/<step>`.
///
/// Of pruned models, on the same documents as the dense one: `acc_diff/<task>`, `acc_norm_diff/<task>`
/// (pruned − dense, shares, with the standard error of the paired difference), `acc_diff_mean` (that of
/// `acc_mean`) and `acc_retained` (`acc_mean` as a share of the dense model's, the paper's retained
/// accuracy). `lm_eval:<metric>/<task>` is what the lm-evaluation-harness says of the same metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// Label of the trial.
    pub trial: String,
    /// A [`ModelName`] or a baseline's name; empty where a cost belongs to no model.
    pub model: String,
    /// What was measured.
    pub metric: String,
    /// The value in the metric's unit; NaN and infinity are kept, and shown as missing and flagged.
    #[serde(with = "number::json")]
    pub value: f64,
    /// Standard error of the value.
    pub stderr: Option<f64>,
    /// Documents or tokens that the value is a mean over.
    pub n: Option<u64>,
}

impl Figure {
    /// Whether this is a cost, which differs from run to run.
    pub fn is_timing(&self) -> bool {
        self.metric.starts_with("seconds/") || self.metric.starts_with("peak_bytes/")
    }

    /// What to tell the user when the value is no finite number.
    pub fn flag(&self) -> Option<String> {
        let Self { trial, model, metric, value, .. } = self;
        let is = if value.is_nan() { "not a number" } else { "infinite" };
        (!value.is_finite()).then(|| format!("{trial}: {metric} of {model} is {is}"))
    }
}

/// Sort key of a model: dense, uniform, baselines by name, then the iterations by number, then the refit.
pub fn model_key(model: &str) -> (u8, u64, String) {
    let (rank, number) = match model.parse::<ModelName>() {
        Err(_) if model.is_empty() => (0, 0),
        Ok(ModelName::Dense) => (1, 0),
        Ok(ModelName::Uniform) => (2, 0),
        Err(_) => (3, 0),
        Ok(ModelName::Iteration(number)) => (4, number as u64),
        Ok(ModelName::Refit) => (5, 0),
    };
    (rank, number, model.to_string())
}

/// Sort key of a metric: size, then quality, then the rest, by name within a family.
pub fn metric_key(metric: &str) -> (usize, String) {
    const FAMILIES: [&str; 13] = [
        "parameters",
        "sparsity",
        "perplexity",
        "kl",
        "acc",
        "acc_norm",
        "acc_mean",
        "acc_diff",
        "acc_norm_diff",
        "acc_diff_mean",
        "acc_retained",
        "seconds",
        "peak_bytes",
    ];
    let family = metric.split('/').next().unwrap_or(metric);
    (FAMILIES.iter().position(|f| *f == family).unwrap_or(FAMILIES.len()), metric.to_string())
}

/// The tidy CSV: one row per figure in the order given, a missing value empty.
pub fn csv<'a>(figures: impl Iterator<Item = &'a Figure>) -> Result<String> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(["trial", "model", "metric", "value", "stderr", "n"])
        .or_error(Kind::Internal, "cannot write CSV")?;
    for f in figures {
        let value = number::shortest(f.value);
        let stderr = f.stderr.map(number::shortest).unwrap_or_default();
        let n = f.n.map(|n| n.to_string()).unwrap_or_default();
        out.write_record([&f.trial, &f.model, &f.metric, &value, &stderr, &n])
            .or_error(Kind::Internal, "cannot write CSV")?;
    }
    let bytes = out.into_inner().or_error(Kind::Internal, "cannot write CSV")?;
    String::from_utf8(bytes).or_error(Kind::Internal, "cannot write CSV")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn figure(trial: &str, model: &str, metric: &str, value: f64) -> Figure {
        Figure {
            trial: trial.into(),
            model: model.into(),
            metric: metric.into(),
            value,
            stderr: None,
            n: None,
        }
    }

    #[test]
    fn csv_leaves_missing_values_empty_and_quotes_labels() {
        let with_error =
            Figure { stderr: Some(0.01), n: Some(570), ..figure("a, b", "dense", "acc/arc_easy", 0.1 + 0.2) };
        let figures =
            [with_error, figure("t", "uniform", "kl", f64::NAN), figure("t", "uniform", "parameters", 960.0)];
        let expected = "trial,model,metric,value,stderr,n\n\"a, b\",dense,acc/arc_easy,0.30000000000000004,0.01,570\nt,uniform,kl,,,\nt,uniform,parameters,960,,\n";
        assert_eq!(csv(figures.iter()).unwrap(), expected);
        assert_eq!(csv([].iter()).unwrap(), "trial,model,metric,value,stderr,n\n");
    }

    #[test]
    fn models_and_metrics_have_a_fixed_order() {
        let mut models = ["iteration-10", "wanda", "uniform", "refit", "iteration-2", "dense", "flap", ""];
        models.sort_by_key(|m| model_key(m));
        assert_eq!(models, ["", "dense", "uniform", "flap", "wanda", "iteration-2", "iteration-10", "refit"]);
        let mut metrics = [
            "acc_mean",
            "other",
            "acc_norm/b",
            "kl",
            "acc/b",
            "sparsity/asked",
            "perplexity/w",
            "sparsity",
            "acc/a",
            "parameters",
        ];
        metrics.sort_by_key(|m| metric_key(m));
        assert_eq!(
            metrics,
            [
                "parameters",
                "sparsity",
                "sparsity/asked",
                "perplexity/w",
                "kl",
                "acc/a",
                "acc/b",
                "acc_norm/b",
                "acc_mean",
                "other"
            ]
        );
        let mut compared = [
            "acc_retained",
            "acc_diff_mean",
            "acc_norm_diff/a",
            "lm_eval:acc/a",
            "acc_diff/b",
            "acc_diff/a",
            "acc_mean",
        ];
        compared.sort_by_key(|m| metric_key(m));
        assert_eq!(
            compared,
            [
                "acc_mean",
                "acc_diff/a",
                "acc_diff/b",
                "acc_norm_diff/a",
                "acc_diff_mean",
                "acc_retained",
                "lm_eval:acc/a"
            ]
        );
    }
}
