//! The wide view: one row per model, one column per measure, as the paper's tables have it.

use std::collections::{BTreeMap, BTreeSet};

use super::figure::{Figure, model_key};
use super::grid::{Column, Grid, Role};
use super::number;
use crate::trial::ModelName;

/// Task families whose subtasks are averaged into one column; the subtasks' own figures are in the CSV.
const GROUPS: [&str; 1] = ["mmlu"];

/// Whether a task is one of a family's subtasks.
pub fn is_subtask(task: &str) -> bool {
    GROUPS.iter().any(|g| task.strip_prefix(g).is_some_and(|rest| rest.starts_with('_')))
}

/// A column of the wide view, in the order of the columns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Parameters of the model.
    Parameters,
    /// Removed share of what the spec's basis counts.
    Sparsity,
    /// Perplexity on a corpus.
    Perplexity(String),
    /// KL(dense ‖ model), nats per token.
    Kl,
    /// Perplexity per word of a task over pages.
    PerWord(String),
    /// Accuracy on a task.
    Task(String, Score),
    /// Mean accuracy.
    Mean,
    /// Mean accuracy as a share of the dense model's.
    Retained,
}

/// Which of a task's two accuracies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Score {
    /// Of the likeliest choice.
    Plain,
    /// Of the choice likeliest per character.
    Normalised,
}

impl Measure {
    /// The column of a metric; those of subtasks and costs have none.
    fn of(metric: &str) -> Option<Self> {
        match metric.split_once('/') {
            None if metric == "parameters" => Some(Self::Parameters),
            None if metric == "sparsity" => Some(Self::Sparsity),
            None if metric == "kl" => Some(Self::Kl),
            None if metric == "acc_mean" => Some(Self::Mean),
            None if metric == "acc_retained" => Some(Self::Retained),
            Some(("perplexity", corpus)) => Some(Self::Perplexity(corpus.into())),
            Some(("word_perplexity", task)) => Some(Self::PerWord(task.into())),
            Some(("acc", task)) if !is_subtask(task) => Some(Self::Task(task.into(), Score::Plain)),
            Some(("acc_norm", task)) if !is_subtask(task) => Some(Self::Task(task.into(), Score::Normalised)),
            _ => None,
        }
    }

    /// The metric that it shows.
    pub fn name(&self) -> String {
        match self {
            Self::Parameters => "parameters".into(),
            Self::Sparsity => "sparsity".into(),
            Self::Perplexity(corpus) => format!("perplexity/{corpus}"),
            Self::Kl => "kl".into(),
            Self::PerWord(task) => format!("word_perplexity/{task}"),
            Self::Task(task, Score::Plain) => format!("acc/{task}"),
            Self::Task(task, Score::Normalised) => format!("acc_norm/{task}"),
            Self::Mean => "acc_mean".into(),
            Self::Retained => "acc_retained".into(),
        }
    }

    fn column(&self) -> Column {
        let (name, role) = match self {
            Self::Parameters => ("parameters".into(), Role::Summary),
            Self::Sparsity => ("sparsity %".into(), Role::Summary),
            Self::Perplexity(corpus) => (format!("perplexity {corpus}"), Role::Summary),
            Self::Kl => ("KL".into(), Role::Summary),
            Self::PerWord(task) => (format!("{task} per word"), Role::Detail),
            Self::Task(task, Score::Plain) => (format!("{task} %"), Role::Detail),
            Self::Task(task, Score::Normalised) => (format!("{task} norm %"), Role::Detail),
            Self::Mean => ("mean %".into(), Role::Summary),
            Self::Retained => ("retained %".into(), Role::Summary),
        };
        Column { name, role }
    }

    fn format(&self, value: f64) -> String {
        match self {
            Self::Parameters => number::count(value),
            Self::Perplexity(_) | Self::PerWord(_) => number::perplexity(value),
            Self::Kl => number::divergence(value),
            Self::Sparsity | Self::Task(..) | Self::Mean => number::percent(value, 2),
            Self::Retained => number::percent(value, 1),
        }
    }

    fn cell(&self, cell: Cell) -> String {
        match cell.spread {
            Some(spread) if !(spread == 0.0 && matches!(self, Self::Parameters | Self::Sparsity)) => {
                format!("{} ± {}", self.format(cell.value), self.format(spread))
            }
            _ => self.format(cell.value),
        }
    }
}

/// A finite value, and its standard deviation over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    pub value: f64,
    pub spread: Option<f64>,
}

/// A model's cells; a measured value that is no finite number is `None`.
pub type Row = BTreeMap<Measure, Option<Cell>>;

/// One row per model, in the order of the models.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Wide {
    pub rows: Vec<(String, Row)>,
}

impl Wide {
    /// The view of one trial's figures.
    pub fn of<'a>(figures: impl Iterator<Item = &'a Figure>) -> Self {
        let mut rows: BTreeMap<_, Row> = BTreeMap::new();
        for f in figures {
            if let Some(measure) = Measure::of(&f.metric) {
                let cell = f.value.is_finite().then_some(Cell { value: f.value, spread: None });
                rows.entry(model_key(&f.model)).or_default().insert(measure, cell);
            }
        }
        let mut wide = Self { rows: rows.into_iter().map(|((_, _, name), row)| (name, row)).collect() };
        wide.add_retained();
        wide
    }

    /// Adds the share of the dense model's mean accuracy, where both are known and it is not yet there: for
    /// the dense model itself, and for models that were not compared document by document.
    fn add_retained(&mut self) {
        let mean = |row: &Row| row.get(&Measure::Mean).copied().flatten().map(|c| c.value);
        let dense = self
            .rows
            .iter()
            .find(|(name, _)| name.parse() == Ok(ModelName::Dense))
            .and_then(|(_, row)| mean(row))
            .filter(|&m| m > 0.0);
        let Some(dense) = dense else { return };
        for (_, row) in &mut self.rows {
            if let Some(own) = mean(row) {
                row.entry(Measure::Retained).or_insert(Some(Cell { value: own / dense, spread: None }));
            }
        }
    }

    /// The view as text; nothing when no figure has a column.
    pub fn grid(&self) -> Option<Grid> {
        let measures: BTreeSet<&Measure> = self.rows.iter().flat_map(|(_, row)| row.keys()).collect();
        let name = Column { name: "model".into(), role: Role::Name };
        let columns = std::iter::once(name).chain(measures.iter().map(|m| m.column())).collect();
        let cells = |row: &Row| -> Vec<String> {
            measures
                .iter()
                .map(|m| row.get(m).copied().flatten().map(|c| m.cell(c)).unwrap_or_default())
                .collect()
        };
        let rows = self.rows.iter().map(|(name, row)| [vec![name.clone()], cells(row)].concat()).collect();
        (!measures.is_empty()).then_some(Grid { columns, rows })
    }
}
