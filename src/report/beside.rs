//! Tables beside the wide view: pruned models against the dense one on the same documents, and the harness
//! against native scoring.

use std::collections::BTreeMap;

use super::figure::{Figure, ResultRow, model_key};
use super::grid::{Column, Grid, Role};
use super::metric::Metric;
use super::number;
use super::wide::is_subtask;
use crate::eval;
use crate::spec::Form;

/// Title of the paired differences.
pub(crate) const PAIRED: &str = "against dense on the same documents: difference in points ± standard error";
/// Title of the exports.
pub(crate) const EXPORTS: &str = "exports, read back and compared with the model on the start of the first corpus evaluated \
     on: 1024 tokens, one sequence at least";
/// Title of the harness's figures.
pub(crate) const HARNESS: &str = "native scoring / lm-evaluation-harness";

/// Rows in the order of their metrics, a cell for each model.
struct MetricTable {
    corner: &'static str,
    models: Vec<(u8, u64, String)>,
    rows: BTreeMap<Metric, (String, Vec<Option<String>>)>,
}

impl MetricTable {
    fn new(corner: &'static str, models: impl Iterator<Item = (u8, u64, String)>) -> Self {
        let mut models: Vec<_> = models.collect();
        models.sort();
        models.dedup();
        Self { corner, models, rows: BTreeMap::new() }
    }

    /// Sets a cell of the row that a metric has under a name.
    fn set(&mut self, metric: &Metric, name: String, model: &str, cell: String) {
        let Some(at) = self.models.iter().position(|(_, _, m)| m == model) else { return };
        let empty = || (name, vec![None; self.models.len()]);
        let (_, row) = self.rows.entry(metric.clone()).or_insert_with(empty);
        row[at] = Some(cell);
    }

    /// Nothing without rows.
    fn grid(self) -> Option<Grid> {
        let head = |name: &str, role| Column { name: name.into(), role };
        let models = self.models.iter().map(|(_, _, model)| head(model, Role::Summary));
        let columns = std::iter::once(head(self.corner, Role::Name)).chain(models).collect();
        let row = |(name, cells): (String, Vec<Option<String>>)| {
            std::iter::once(name).chain(cells.into_iter().map(Option::unwrap_or_default)).collect()
        };
        let rows: Vec<Vec<String>> = self.rows.into_values().map(row).collect();
        (!rows.is_empty()).then_some(Grid { columns, rows })
    }
}

/// The paired differences to the dense model, a row per task; the mean and the retained accuracy come last.
pub(crate) fn paired<'a>(results: impl Iterator<Item = &'a ResultRow> + Clone) -> Option<Grid> {
    let shown = results.filter_map(|row| Some((row, difference_name(row.metric())?)));
    let mut table = MetricTable::new("task", shown.clone().map(|(row, _)| model_key(&row.model)));
    for (row, name) in shown.filter(|(row, _)| row.value().is_finite()) {
        let Figure { metric, estimate } = &row.figure;
        let retained = *metric == Metric::Retained;
        let points = |value: f64| number::percent(value, if retained { 1 } else { 2 });
        let sign = if estimate.value > 0.0 && !retained { "+" } else { "" };
        let error = estimate.stderr.map(|s| format!(" ± {}", points(s))).unwrap_or_default();
        table.set(metric, name, &row.model, format!("{sign}{}{error}", points(estimate.value)));
    }
    table.grid()
}

fn difference_name(metric: &Metric) -> Option<String> {
    match metric {
        Metric::Difference(eval::Metric::Acc, task) if !is_subtask(task) => Some(task.clone()),
        Metric::Difference(eval::Metric::AccNorm, task) if !is_subtask(task) => Some(format!("{task} norm")),
        Metric::MeanDifference => Some("mean".into()),
        Metric::Retained => Some("retained %".into()),
        _ => None,
    }
}

/// The exports of a trial, a row per form of a model.
pub(crate) fn exports<'a>(results: impl Iterator<Item = &'a ResultRow>) -> Option<Grid> {
    let mut rows: BTreeMap<(Form, String), [String; 3]> = BTreeMap::new();
    for row in results {
        let value = row.value();
        let (form, column, cell) = match row.metric() {
            Metric::ExportBytes(form) => (form, 0, number::bytes(value)),
            Metric::ExportLogitDifference(form) => (form, 1, format!("{value:.1e}")),
            Metric::ExportPerplexity(form) => (form, 2, number::perplexity(value)),
            _ => continue,
        };
        let cells = rows.entry((*form, row.model.clone())).or_default();
        cells[column] = if value.is_finite() { cell } else { String::new() };
    }
    let head = |name: &str, role| Column { name: name.into(), role };
    let columns = [
        head("form", Role::Name),
        head("model", Role::Summary),
        head("size", Role::Summary),
        head("max |Δlogit|", Role::Summary),
        head("perplexity there", Role::Summary),
    ];
    let row = |((form, model), cells): ((Form, String), [String; 3])| {
        [form.to_string(), model].into_iter().chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = rows.into_iter().map(row).collect();
    (!rows.is_empty()).then_some(Grid { columns: columns.into(), rows })
}

/// All figures of models but costs and those of exports, with their standard errors, a row per metric: for a card.
pub(crate) fn scores<'a>(results: impl Iterator<Item = &'a ResultRow> + Clone) -> Option<Grid> {
    let is_score =
        |metric: &Metric| *metric != Metric::AskedSparsity && !metric.is_cost() && metric.form().is_none();
    let shown = results.filter(move |row| is_score(row.metric()) && row.value().is_finite());
    let mut table = MetricTable::new("metric", shown.clone().map(|row| model_key(&row.model)));
    for row in shown {
        let Figure { metric, estimate } = &row.figure;
        let inner = if let Metric::Harness(metric) = metric { metric } else { metric };
        let text = |value: f64| match inner {
            Metric::Parameters => number::count(value),
            Metric::Perplexity(_) => number::perplexity(value),
            Metric::Kl => number::divergence(value),
            Metric::Sparsity => number::percent(value, 2),
            other => of_metric(other, value),
        };
        let unit = if inner.is_accuracy() || *inner == Metric::Sparsity { " %" } else { "" };
        let error = estimate.stderr.map(|s| format!(" ± {}", text(s))).unwrap_or_default();
        table.set(metric, format!("{metric}{unit}"), &row.model, format!("{}{error}", text(estimate.value)));
    }
    table.grid()
}

/// The harness's values beside those of native scoring, a row per metric.
pub(crate) fn harness<'a>(results: impl Iterator<Item = &'a ResultRow> + Clone) -> Option<Grid> {
    let native: BTreeMap<(&str, &Metric), f64> =
        results.clone().map(|row| ((row.model.as_str(), row.metric()), row.value())).collect();
    let shown = results.filter_map(|row| Some((row, measured_by_harness(row.metric())?)));
    let mut table = MetricTable::new("metric", shown.clone().map(|(row, _)| model_key(&row.model)));
    for (row, metric) in shown {
        let text = |value: f64| if value.is_finite() { of_metric(metric, value) } else { "-".into() };
        let ours = native.get(&(row.model.as_str(), metric)).map_or("-".into(), |&value| text(value));
        table.set(metric, metric.to_string(), &row.model, format!("{ours} / {}", text(row.value())));
    }
    table.grid()
}

/// The metric that the harness measured; none of a subtask.
fn measured_by_harness(metric: &Metric) -> Option<&Metric> {
    let Metric::Harness(metric) = metric else { return None };
    let of_subtask = match &**metric {
        Metric::Task(_, task) => is_subtask(task),
        Metric::Other(text) => text.split_once('/').is_some_and(|(_, task)| is_subtask(task)),
        _ => false,
    };
    (!of_subtask).then_some(metric)
}

/// Accuracies in per cent, the rest as it is.
fn of_metric(metric: &Metric, value: f64) -> String {
    if metric.is_accuracy() { number::percent(value, 2) } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figure::tests::{figure, mean};

    fn with_error(metric: &str, model: &str, value: f64, stderr: f64) -> ResultRow {
        mean("t", model, metric, value, stderr, 200)
    }

    #[test]
    fn differences_have_a_sign_and_an_error_and_the_mean_comes_last() {
        let figures = [
            with_error("acc_retained", "uniform", 0.9023, 0.0123),
            with_error("acc_diff_mean", "uniform", -0.0488, 0.0061),
            with_error("acc_norm_diff/arc_easy", "uniform", 0.005, 0.012),
            with_error("acc_diff/arc_easy", "uniform", -0.045, 0.0104),
            with_error("acc_diff/mmlu_anatomy", "uniform", -0.2, 0.1),
            figure("t", "iteration-1", "acc_diff/arc_easy", 0.0),
            figure("t", "iteration-1", "acc_diff_mean", f64::NAN),
            figure("t", "dense", "acc/arc_easy", 0.5),
        ];
        let expected = "\
| task          |      uniform | iteration-1 |
| :------------ | -----------: | ----------: |
| arc_easy      | -4.50 ± 1.04 |        0.00 |
| arc_easy norm | +0.50 ± 1.20 |             |
| mean          | -4.88 ± 0.61 |             |
| retained %    |   90.2 ± 1.2 |             |
";
        assert_eq!(paired(figures.iter()).unwrap().markdown(), expected);
        assert_eq!(paired(figures[7..].iter()), None);
    }

    #[test]
    fn exports_have_a_row_each() {
        let figures = [
            figure("t", "refit", "export_bytes/gguf", 16.4e6),
            figure("t", "refit", "export_logit_difference/gguf", 3.2e-6),
            figure("t", "refit", "export_perplexity/gguf", 3.599),
            figure("t", "refit", "export_bytes/mlx", 16.4e6),
            figure("t", "refit", "export_perplexity/mlx", f64::NAN),
            figure("t", "refit", "perplexity/quickstart", 3.6),
        ];
        let expected = "\
| form | model |    size | max \\|Δlogit\\| | perplexity there |
| :--- | ----: | ------: | -------------: | ---------------: |
| gguf | refit | 16.4 MB |         3.2e-6 |             3.60 |
| mlx  | refit | 16.4 MB |                |                  |
";
        assert_eq!(exports(figures.iter()).unwrap().markdown(), expected);
        assert_eq!(exports(figures[5..].iter()), None);
    }

    #[test]
    fn the_harness_stands_beside_native_figures() {
        let figures = [
            figure("t", "dense", "acc/arc_easy", 0.49),
            figure("t", "dense", "lm_eval:acc/arc_easy", 0.49),
            figure("t", "uniform", "lm_eval:acc/arc_easy", 0.4),
            figure("t", "dense", "lm_eval:acc/mmlu_anatomy", 0.3),
            figure("t", "dense", "word_perplexity/wikitext", 20.0),
            figure("t", "dense", "lm_eval:word_perplexity/wikitext", f64::INFINITY),
        ];
        let expected = "\
| metric                   |         dense |   uniform |
| :----------------------- | ------------: | --------: |
| acc/arc_easy             | 49.00 / 49.00 | - / 40.00 |
| word_perplexity/wikitext |   20.0000 / - |           |
";
        assert_eq!(harness(figures.iter()).unwrap().markdown(), expected);
        assert_eq!(harness(figures[..1].iter()), None);
    }
}
