//! The wide view: one row per model, one column per metric, as the paper's tables have it.

use std::collections::{BTreeMap, BTreeSet};

use super::figure::{ResultRow, model_key};
use super::grid::{Column, Grid, Role};
use super::metric::Metric;
use super::number;
use crate::eval;
use crate::trial::ModelName;

/// Task families whose subtasks are averaged into one column; the subtasks' own figures are in the CSV.
const GROUPS: [&str; 1] = ["mmlu"];

/// Whether a task is one of a family's subtasks.
pub(crate) fn is_subtask(task: &str) -> bool {
    GROUPS.iter().any(|g| task.strip_prefix(g).is_some_and(|rest| rest.starts_with('_')))
}

/// A metric that has a column, in the order of the columns: the two accuracies of a task side by side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shown {
    place: (u8, String, u8),
    /// The metric.
    pub metric: Metric,
}

impl Shown {
    /// Most metrics have a column; those of subtasks, costs and differences have none.
    fn of(metric: &Metric) -> Option<Self> {
        use eval::Metric::{Acc, AccNorm, WordPerplexity};
        let (kind, name, which) = match metric {
            Metric::Parameters => (0, "", 0),
            Metric::Sparsity => (1, "", 0),
            Metric::Perplexity(corpus) => (2, corpus.as_str(), 0),
            Metric::Kl => (3, "", 0),
            Metric::Task(WordPerplexity, task) => (4, task.as_str(), 0),
            Metric::Task(Acc, task) if !is_subtask(task) => (5, task.as_str(), 0),
            Metric::Task(AccNorm, task) if !is_subtask(task) => (5, task.as_str(), 1),
            Metric::MeanAccuracy => (6, "", 0),
            Metric::Retained => (7, "", 0),
            _ => return None,
        };
        Some(Self { place: (kind, name.into(), which), metric: metric.clone() })
    }

    fn column(&self) -> Column {
        let (name, role) = match &self.metric {
            Metric::Sparsity => ("sparsity %".into(), Role::Summary),
            Metric::Perplexity(corpus) => (format!("perplexity {corpus}"), Role::Summary),
            Metric::Kl => ("KL".into(), Role::Summary),
            Metric::Task(eval::Metric::Acc, task) => (format!("{task} %"), Role::Detail),
            Metric::Task(eval::Metric::AccNorm, task) => (format!("{task} norm %"), Role::Detail),
            Metric::Task(_, task) => (format!("{task} per word"), Role::Detail),
            Metric::MeanAccuracy => ("mean %".into(), Role::Summary),
            Metric::Retained => ("retained %".into(), Role::Summary),
            other => (other.to_string(), Role::Summary),
        };
        Column { name, role }
    }

    fn format(&self, value: f64) -> String {
        match &self.metric {
            Metric::Parameters => number::count(value),
            Metric::Kl => number::divergence(value),
            Metric::Retained => number::percent(value, 1),
            Metric::Sparsity => number::percent(value, 2),
            metric if metric.is_accuracy() => number::percent(value, 2),
            _ => number::perplexity(value),
        }
    }

    fn cell(&self, values: &[f64]) -> String {
        let Some((mean, deviation)) = mean_and_deviation(values) else { return String::new() };
        let is_given = matches!(self.metric, Metric::Parameters | Metric::Sparsity);
        match deviation {
            Some(deviation) if !(deviation == 0.0 && is_given) => {
                format!("{} ± {}", self.format(mean), self.format(deviation))
            }
            _ => self.format(mean),
        }
    }
}

/// Mean and sample standard deviation (n − 1) over seeds; a single value has no deviation, no value no mean.
pub(crate) fn mean_and_deviation(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (!values.is_empty()).then(|| (mean, (values.len() > 1).then(|| variance.sqrt())))
}

/// A model's cells. A cell has the finite values that it shows: one of a trial, one for each of several
/// seeds, none where what was measured is not a finite number.
pub(crate) type Cells = BTreeMap<Shown, Vec<f64>>;

/// One row per model, in the order of the models.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Wide {
    pub rows: Vec<(String, Cells)>,
}

impl Wide {
    /// The view of one trial's results.
    pub(crate) fn of<'a>(results: impl Iterator<Item = &'a ResultRow>) -> Self {
        let mut rows: BTreeMap<_, Cells> = BTreeMap::new();
        for result in results {
            if let Some(shown) = Shown::of(result.metric()) {
                let values = Some(result.value()).filter(|v| v.is_finite()).into_iter().collect();
                rows.entry(model_key(&result.model)).or_default().insert(shown, values);
            }
        }
        let mut wide = Self { rows: rows.into_iter().map(|((_, _, name), cells)| (name, cells)).collect() };
        wide.add_retained();
        wide
    }

    /// Adds the retained accuracy where both means are known and it is missing: for the dense model itself,
    /// and for models that were not compared document by document.
    fn add_retained(&mut self) {
        let Some((mean, retained)) = Shown::of(&Metric::MeanAccuracy).zip(Shown::of(&Metric::Retained))
        else {
            return;
        };
        let mean = |cells: &Cells| cells.get(&mean).and_then(|values| values.first().copied());
        let dense = self
            .rows
            .iter()
            .find(|(name, _)| name.parse() == Ok(ModelName::Dense))
            .and_then(|(_, cells)| mean(cells));
        let Some(dense) = dense.filter(|&m| m > 0.0) else { return };
        for (_, cells) in &mut self.rows {
            if let Some(own) = mean(cells) {
                cells.entry(retained.clone()).or_insert(vec![own / dense]);
            }
        }
    }

    /// The view as text; nothing when no result has a column.
    pub(crate) fn grid(&self) -> Option<Grid> {
        let shown: BTreeSet<&Shown> = self.rows.iter().flat_map(|(_, cells)| cells.keys()).collect();
        let name = Column { name: "model".into(), role: Role::Name };
        let columns = std::iter::once(name).chain(shown.iter().map(|s| s.column())).collect();
        let text = |cells: &Cells| -> Vec<String> {
            shown.iter().map(|s| cells.get(*s).map(|values| s.cell(values)).unwrap_or_default()).collect()
        };
        let rows = self.rows.iter().map(|(name, cells)| [vec![name.clone()], text(cells)].concat()).collect();
        (!shown.is_empty()).then_some(Grid { columns, rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_the_samples() {
        assert_eq!(mean_and_deviation(&[1.0, 3.0]), Some((2.0, Some(2f64.sqrt()))));
        assert_eq!(mean_and_deviation(&[5.0]), Some((5.0, None)));
        assert_eq!(mean_and_deviation(&[]), None);
    }
}
