//! Tables beside the wide view: pruned models against the dense one on the same documents, and the harness
//! against native scoring.

use std::collections::BTreeMap;

use super::figure::{Figure, metric_key, model_key};
use super::grid::{Column, Grid, Role};
use super::number;
use super::wide::is_subtask;

/// Title of the paired differences.
pub const PAIRED: &str = "against dense on the same documents: difference in points ± standard error";
/// Title of the harness's figures.
pub const HARNESS: &str = "native scoring / lm-evaluation-harness";

/// Rows in the order of their metrics, a cell for each model.
struct Sheet {
    corner: &'static str,
    models: Vec<(u8, u64, String)>,
    rows: BTreeMap<(usize, String), Vec<Option<String>>>,
    names: BTreeMap<(usize, String), String>,
}

impl Sheet {
    fn new(corner: &'static str, models: impl Iterator<Item = (u8, u64, String)>) -> Self {
        let mut models: Vec<_> = models.collect();
        models.sort();
        models.dedup();
        Self { corner, models, rows: BTreeMap::new(), names: BTreeMap::new() }
    }

    fn set(&mut self, key: (usize, String), name: String, model: &str, cell: String) {
        let Some(at) = self.models.iter().position(|(_, _, m)| m == model) else { return };
        let row = self.rows.entry(key.clone()).or_insert_with(|| vec![None; self.models.len()]);
        row[at] = Some(cell);
        self.names.insert(key, name);
    }

    /// Nothing without rows.
    fn grid(self) -> Option<Grid> {
        let head = |name: &str, role| Column { name: name.into(), role };
        let models = self.models.iter().map(|(_, _, model)| head(model, Role::Summary));
        let columns = std::iter::once(head(self.corner, Role::Name)).chain(models).collect();
        let cells = |row: &Vec<Option<String>>| {
            row.iter().map(|cell| cell.clone().unwrap_or_default()).collect::<Vec<_>>()
        };
        let row = |(key, row): (&(usize, String), &Vec<Option<String>>)| {
            [vec![self.names[key].clone()], cells(row)].concat()
        };
        let rows: Vec<Vec<String>> = self.rows.iter().map(row).collect();
        (!rows.is_empty()).then_some(Grid { columns, rows })
    }
}

/// The paired differences to the dense model, a row per task, the mean's and the retained share last.
pub fn paired<'a>(figures: impl Iterator<Item = &'a Figure> + Clone) -> Option<Grid> {
    let shown = figures.filter_map(|f| Some((f, difference_name(&f.metric)?)));
    let mut sheet = Sheet::new("task", shown.clone().map(|(f, _)| model_key(&f.model)));
    for (f, name) in shown.filter(|(f, _)| f.value.is_finite()) {
        let retained = f.metric == "acc_retained";
        let share = |value: f64| number::percent(value, if retained { 1 } else { 2 });
        let sign = if f.value > 0.0 && !retained { "+" } else { "" };
        let error = f.stderr.map(|s| format!(" ± {}", share(s))).unwrap_or_default();
        sheet.set(metric_key(&f.metric), name, &f.model, format!("{sign}{}{error}", share(f.value)));
    }
    sheet.grid()
}

fn difference_name(metric: &str) -> Option<String> {
    match metric.split_once('/') {
        Some(("acc_diff", task)) if !is_subtask(task) => Some(task.to_string()),
        Some(("acc_norm_diff", task)) if !is_subtask(task) => Some(format!("{task} norm")),
        None if metric == "acc_diff_mean" => Some("mean".into()),
        None if metric == "acc_retained" => Some("retained %".into()),
        _ => None,
    }
}

/// What the harness says beside what native scoring says, a row per metric.
pub fn harness<'a>(figures: impl Iterator<Item = &'a Figure> + Clone) -> Option<Grid> {
    let native: BTreeMap<(&str, &str), f64> =
        figures.clone().map(|f| ((f.model.as_str(), f.metric.as_str()), f.value)).collect();
    let shown = figures.filter_map(|f| Some((f, f.metric.strip_prefix("lm_eval:")?)));
    let shown = shown.filter(|(_, metric)| !metric.split_once('/').is_some_and(|(_, task)| is_subtask(task)));
    let mut sheet = Sheet::new("metric", shown.clone().map(|(f, _)| model_key(&f.model)));
    for (f, metric) in shown {
        let text = |value: f64| if value.is_finite() { of_metric(metric, value) } else { "-".into() };
        let ours = native.get(&(f.model.as_str(), metric)).map_or("-".into(), |&value| text(value));
        sheet.set(metric_key(metric), metric.into(), &f.model, format!("{ours} / {}", text(f.value)));
    }
    sheet.grid()
}

/// Accuracies in per cent, the rest as it is.
fn of_metric(metric: &str, value: f64) -> String {
    if metric.starts_with("acc") { number::percent(value, 2) } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figure::tests::figure;

    fn with_error(metric: &str, model: &str, value: f64, stderr: f64) -> Figure {
        Figure { stderr: Some(stderr), n: Some(200), ..figure("t", model, metric, value) }
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
