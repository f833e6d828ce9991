//! Figures: single numbers under the metric, model and trial that they belong to, and the tidy CSV of them.

use serde::{Deserialize, Serialize};

use super::metric::Metric;
use super::number;
use crate::base::{Estimate, Kind, Result, ResultExt};
use crate::trial::ModelName;

/// A number and what it measures, not yet tied to a model and a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub metric: Metric,
    /// The number in the metric's unit. A value that is not a finite number is kept, and shown as missing and
    /// flagged.
    #[serde(flatten)]
    pub estimate: Estimate,
}

impl Figure {
    /// An estimate of a metric.
    pub fn new(metric: Metric, estimate: Estimate) -> Self {
        Self { metric, estimate }
    }

    /// A number that was counted.
    pub fn exact(metric: Metric, value: f64) -> Self {
        Self { metric, estimate: Estimate::exact(value) }
    }

    /// The figure of a model in a trial.
    pub fn of(self, trial: &str, model: &str) -> ResultRow {
        ResultRow { trial: trial.into(), model: model.into(), figure: self }
    }
}

/// One row of `results.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultRow {
    /// Label of the trial.
    pub trial: String,
    /// A [`ModelName`] or a baseline's name; empty where a cost belongs to no model.
    pub model: String,
    /// What was measured.
    #[serde(flatten)]
    pub figure: Figure,
}

impl ResultRow {
    /// What was measured.
    pub fn metric(&self) -> &Metric {
        &self.figure.metric
    }

    /// The value in the metric's unit.
    pub fn value(&self) -> f64 {
        self.figure.estimate.value
    }

    /// The warning for a value that is not a finite number.
    pub fn flag(&self) -> Option<String> {
        let Self { trial, model, figure: Figure { metric, estimate } } = self;
        let is = if estimate.value.is_nan() { "not a number" } else { "infinite" };
        (!estimate.value.is_finite()).then(|| format!("{trial}: {metric} of {model} is {is}"))
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

/// The tidy CSV: the rows in the order given, a missing value empty.
pub fn csv<'a>(rows: impl Iterator<Item = &'a ResultRow>) -> Result<String> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(["trial", "model", "metric", "value", "stderr", "n"])
        .or_error(Kind::Internal, "cannot write CSV")?;
    for row in rows {
        let Estimate { value, stderr, n } = row.figure.estimate;
        let metric = row.metric().to_string();
        let value = number::shortest(value);
        let stderr = stderr.map(number::shortest).unwrap_or_default();
        let n = n.map(|n| n.to_string()).unwrap_or_default();
        out.write_record([&row.trial, &row.model, &metric, &value, &stderr, &n])
            .or_error(Kind::Internal, "cannot write CSV")?;
    }
    let bytes = out.into_inner().or_error(Kind::Internal, "cannot write CSV")?;
    String::from_utf8(bytes).or_error(Kind::Internal, "cannot write CSV")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A row with a number that was counted.
    pub fn figure(trial: &str, model: &str, metric: &str, value: f64) -> ResultRow {
        Figure::exact(metric.into(), value).of(trial, model)
    }

    /// A row with a mean over `n`.
    pub fn mean(trial: &str, model: &str, metric: &str, value: f64, stderr: f64, n: usize) -> ResultRow {
        Figure::new(metric.into(), Estimate::mean(value, Some(stderr), n)).of(trial, model)
    }

    #[test]
    fn csv_leaves_missing_values_empty_and_quotes_labels() {
        let with_error = mean("a, b", "dense", "acc/arc_easy", 0.1 + 0.2, 0.01, 570);
        let figures =
            [with_error, figure("t", "uniform", "kl", f64::NAN), figure("t", "uniform", "parameters", 960.0)];
        let expected = "trial,model,metric,value,stderr,n\n\"a, b\",dense,acc/arc_easy,0.30000000000000004,0.01,570\nt,uniform,kl,,,\nt,uniform,parameters,960,,\n";
        assert_eq!(csv(figures.iter()).unwrap(), expected);
        assert_eq!(csv([].iter()).unwrap(), "trial,model,metric,value,stderr,n\n");
    }

    #[test]
    fn models_have_a_fixed_order() {
        let mut models = ["iteration-10", "wanda", "uniform", "refit", "iteration-2", "dense", "flap", ""];
        models.sort_by_key(|m| model_key(m));
        assert_eq!(models, ["", "dense", "uniform", "flap", "wanda", "iteration-2", "iteration-10", "refit"]);
    }

    #[test]
    fn a_row_is_flat_json_that_reads_back() {
        let row = mean("t", "dense", "acc/rte", 0.5, 0.1, 4);
        let text = r#"{"trial":"t","model":"dense","metric":"acc/rte","value":0.5,"stderr":0.1,"n":4}"#;
        assert_eq!(serde_json::to_string(&row).unwrap(), text);
        assert_eq!(serde_json::from_str::<ResultRow>(text).unwrap(), row);
        let infinite = figure("t", "dense", "kl", f64::INFINITY);
        let text = serde_json::to_string(&infinite).unwrap();
        assert_eq!(serde_json::from_str::<ResultRow>(&text).unwrap(), infinite);
        assert!(serde_json::from_str::<ResultRow>(r#"{"trial":"t","model":"m","metric":"kl"}"#).is_err());
    }
}
