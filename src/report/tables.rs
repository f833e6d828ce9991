//! The state that events add up to, and its tables.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use super::beside;
use super::event::{Cache, Event, GenerationSummary, Identity, Origin};
use super::figure::{self, Figure, ResultRow, model_key};
use super::grid::Grid;
use super::layers;
use super::metric::Metric;
use super::number::capitalised;
use super::seeds::{self, Seeds};
use super::speed;
use super::wide::{Wide, mean_and_deviation};
use crate::base::{Kind, Result, ResultExt};
use crate::space::{Shape, SparsityDistribution};

/// Version of the JSON that [`Tables::json`] writes.
const VERSION: u32 = 1;

/// A trial's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It has not begun.
    Waiting,
    /// It has begun and is not complete: running, or interrupted.
    Unfinished,
    /// It is complete.
    Finished,
    /// It stopped with this error.
    Failed(String),
}

/// What is known of one trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Its label.
    pub label: String,
    /// Its state.
    pub status: Status,
    /// The step that was begun last and is not over.
    pub step: Option<String>,
    /// The last generation, with its iteration.
    pub generation: Option<(usize, GenerationSummary)>,
    /// Warnings, each once, in the order in which they came.
    pub warnings: Vec<String>,
    /// The experiment that its newest session is of.
    identity: Option<Identity>,
    figures: BTreeMap<Key, ResultRow>,
    timings: BTreeMap<Key, ResultRow>,
    distributions: BTreeMap<ModelKey, (Shape, SparsityDistribution)>,
    /// What making the results in the store told, by their addresses: a later session that takes one from
    /// there tells it again.
    steps: BTreeMap<String, MadeStep>,
    /// Address of the result that is being made.
    open: Option<String>,
}

/// What making a result told.
#[derive(Debug, Clone, PartialEq, Default)]
struct MadeStep {
    /// Wall time in seconds, and peak resident memory in bytes where it is known.
    cost: Option<(f64, Option<u64>)>,
    warnings: Vec<String>,
}

type ModelKey = (u8, u64, String);
type Key = (ModelKey, Metric);

/// Everything that the tables of a run show.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tables {
    run: String,
    trials: Vec<Trial>,
    warnings: Vec<String>,
    /// What the newest session is of: the hash of the experiment without its sweep, and the trials.
    base: Option<String>,
    wanted: BTreeMap<String, Option<Identity>>,
}

/// A titled table with further ones and remarks below it.
struct Block {
    title: String,
    grid: Option<Grid>,
    further: Vec<(String, Grid)>,
    notes: Vec<String>,
}

impl Tables {
    /// Adds the events up, later ones over earlier ones.
    pub fn from_events(events: &[Event]) -> Self {
        let mut tables = Self::default();
        events.iter().for_each(|e| tables.add(e));
        tables
    }

    /// Adds one event.
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::RunStarted { run, trials, origin } => self.start(run, trials, origin.as_ref()),
            Event::RunFinished { .. } | Event::Note { .. } | Event::Progress { .. } => {}
            Event::TrialStarted { trial, identity } => self.trial(trial).begin(identity.clone()),
            Event::TrialFinished { trial } => self.trial(trial).close(Status::Finished),
            Event::TrialFailed { trial, error } => self.trial(trial).close(Status::Failed(error.clone())),
            Event::StepStarted { trial, step, key } => self.trial(trial).begin_step(step, key),
            Event::StepFinished { trial, .. } => self.trial(trial).finish_step(event),
            Event::Generation { trial, iteration, summary } => {
                self.trial(trial).generation = Some((*iteration, summary.clone()))
            }
            Event::FigureMeasured { figure } => self.trial(&figure.trial).measure(figure.clone()),
            Event::DistributionFound { trial, model, shape, distribution } => {
                self.trial(trial).distribute(model, shape, distribution)
            }
            Event::Warning { trial: Some(trial), message } => self.trial(trial).warn(message),
            Event::Warning { trial: None, message } => warn(&mut self.warnings, message),
            Event::LineDamaged { place } => {
                let message = format!("{place} is damaged and left out; `tyr run` writes its event again");
                warn(&mut self.warnings, &message);
            }
        }
    }

    /// The trials in the order of the sweep, then those of earlier sweeps of the same experiment. What a trial
    /// measured as part of another experiment, or on other data, is not shown: it has still to be run as part of
    /// this one.
    pub fn trials(&self) -> Vec<Cow<'_, Trial>> {
        self.trials.iter().filter_map(|trial| self.shown(trial)).collect()
    }

    fn shown<'a>(&self, trial: &'a Trial) -> Option<Cow<'a, Trial>> {
        match self.wanted.get(&trial.label) {
            Some(wanted) if *wanted == trial.identity => Some(Cow::Borrowed(trial)),
            Some(_) => Some(Cow::Owned(Trial::new(&trial.label))),
            None => (self.is_of_base(trial) && self.agrees(trial)).then_some(Cow::Borrowed(trial)),
        }
    }

    /// Whether a trial is of the newest session's experiment, the sweep aside.
    fn is_of_base(&self, trial: &Trial) -> bool {
        trial.identity.as_ref().map(|identity| &identity.base) == self.base.as_ref()
    }

    /// Whether a trial of an earlier sweep read what all others read that may be shown.
    fn agrees(&self, trial: &Trial) -> bool {
        let Some(identity) = &trial.identity else { return true };
        let earlier = |t: &&Trial| !self.wanted.contains_key(&t.label) && self.is_of_base(t);
        let earlier = self.trials.iter().filter(earlier).filter_map(|t| t.identity.as_ref());
        self.wanted.values().flatten().chain(earlier).all(|other| identity.agrees(other))
    }

    /// The run's name; empty before it began.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Several runs as one: labels get the name given to their run in front.
    pub fn joined(runs: Vec<(String, Self)>) -> Self {
        let mut all = Self {
            run: runs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "),
            ..Self::default()
        };
        for (name, run) in runs {
            all.trials.extend(run.trials().into_iter().map(|t| t.into_owned().renamed(&name)));
            all.warnings.extend(run.warnings);
        }
        all
    }

    /// `results.csv`: one row per figure, costs left out, so that the same spec and seed give the same bytes.
    pub fn csv(&self) -> Result<String> {
        figure::csv(self.trials().iter().flat_map(|t| t.figures.values()))
    }

    /// `timings.csv`: the same columns for what steps cost.
    pub fn timings_csv(&self) -> Result<String> {
        figure::csv(self.trials().iter().flat_map(|t| t.timings.values()))
    }

    /// `results.md`: the wide view of every trial, then what the last model found keeps.
    pub fn markdown(&self) -> String {
        let mut out = if self.run.is_empty() { String::new() } else { format!("# {}\n\n", self.run) };
        out.push_str(&self.warnings.iter().map(|w| format!("> {w}\n\n")).collect::<String>());
        out.push_str(&self.blocks().iter().map(Block::markdown).collect::<Vec<_>>().join("\n"));
        for trial in self.trials() {
            out.push_str(
                &trial
                    .last_distribution()
                    .map(|(title, s, d)| format!("\n### {title}\n\n{}", layers::markdown(s, d)))
                    .unwrap_or_default(),
            );
        }
        out
    }

    /// The wide views as booktabs tables.
    pub fn latex(&self) -> String {
        let tables = self.blocks().into_iter().flat_map(Block::latex);
        std::iter::once("% Needs \\usepackage{booktabs}.\n".to_string())
            .chain(tables)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The wide views for a terminal of 100 columns.
    pub fn terminal(&self) -> String {
        let warnings = self.warnings.iter().map(|w| format!("warning: {w}\n"));
        warnings.chain([self.blocks().iter().map(Block::terminal).collect::<Vec<_>>().join("\n")]).collect()
    }

    /// What the last model found of every trial keeps in each layer, for a terminal.
    pub fn terminal_distributions(&self) -> String {
        let trials = self.trials();
        let found = trials.iter().filter_map(|trial| trial.last_distribution());
        found.map(|(title, s, d)| format!("{title}\n{}", layers::text(s, d))).collect::<Vec<_>>().join("\n")
    }

    /// `results.json`: all figures but costs, all distributions, and the aggregates over seeds; ends with a
    /// newline.
    pub fn json(&self) -> Result<String> {
        let trials: Vec<_> = self.trials().iter().map(|trial| trial.json()).collect();
        let seeds: Vec<_> = self.seeds().iter().map(seeds_json).collect();
        let value = serde_json::json!({
            "version": VERSION,
            "run": self.run,
            "trials": trials,
            "seeds": seeds,
            "warnings": self.warnings,
        });
        Ok(serde_json::to_string_pretty(&value)
            .or_error(Kind::Internal, "cannot write the results as JSON")?
            + "\n")
    }

    fn start(&mut self, run: &str, trials: &[String], origin: Option<&Origin>) {
        self.run = run.to_string();
        self.base = origin.map(|origin| origin.base.clone());
        let identity = |i| origin.and_then(|origin| origin.trials.get(i).cloned());
        self.wanted = trials.iter().enumerate().map(|(i, label)| (label.clone(), identity(i))).collect();
        trials.iter().for_each(|label| {
            self.trial(label);
        });
        // The newest sweep's order, then trials that it no longer has; whatever comes later is put at the
        // end.
        let place = |t: &Trial| trials.iter().position(|label| *label == t.label).unwrap_or(usize::MAX);
        self.trials.sort_by_key(place);
    }

    fn trial(&mut self, label: &str) -> &mut Trial {
        let at = self.trials.iter().position(|t| t.label == label).unwrap_or_else(|| {
            self.trials.push(Trial::new(label));
            self.trials.len() - 1
        });
        &mut self.trials[at]
    }

    fn blocks(&self) -> Vec<Block> {
        let trials = self.trials();
        let trials = trials.iter().map(|trial| trial.block());
        trials.chain(self.seeds().iter().map(seeds_block)).collect()
    }

    fn seeds(&self) -> Vec<Seeds> {
        seeds::groups(&self.trials().iter().map(|t| (t.label.as_str(), t.wide())).collect::<Vec<_>>())
    }
}

impl Trial {
    fn new(label: &str) -> Self {
        Self {
            label: label.to_string(),
            status: Status::Waiting,
            step: None,
            generation: None,
            warnings: Vec::new(),
            identity: None,
            figures: BTreeMap::new(),
            timings: BTreeMap::new(),
            distributions: BTreeMap::new(),
            steps: BTreeMap::new(),
            open: None,
        }
    }

    /// What was measured, costs left out, in the order of models and metrics.
    pub fn figures(&self) -> impl Iterator<Item = &ResultRow> {
        self.figures.values()
    }

    /// What a bench timed and weighed.
    pub fn speeds(&self) -> impl Iterator<Item = &ResultRow> + Clone {
        self.timings.values().filter(|row| matches!(row.metric(), Metric::Bench(..)))
    }

    /// A session begins, which tells everything again: what is known of earlier ones goes, but for what making
    /// stored results told.
    fn begin(&mut self, identity: Option<Identity>) {
        let steps = std::mem::take(&mut self.steps);
        *self = Self { status: Status::Unfinished, identity, steps, ..Self::new(&self.label) };
    }

    fn close(&mut self, status: Status) {
        self.status = status;
        self.step = None;
        self.open = None;
    }

    /// A step begins, or resumes: then what it warned of before counts.
    fn begin_step(&mut self, step: &str, address: &str) {
        self.step = Some(step.to_string());
        self.open = Some(address.to_string());
        self.recall_warnings(address);
    }

    /// Keeps what a computed step cost. Reading a stored result is no cost of the step: it costs what making it
    /// did, whatever step and model it was made for.
    fn finish_step(&mut self, event: &Event) {
        let Event::StepFinished { trial, model, step, key, cache, seconds, peak_bytes } = event else {
            return;
        };
        self.step = None;
        self.open = None;
        if *cache == Cache::Miss {
            self.steps.entry(key.clone()).or_default().cost = Some((*seconds, *peak_bytes));
        }
        if let Some((seconds, peak_bytes)) = self.steps.get(key).and_then(|made| made.cost) {
            let seconds = Figure::exact(Metric::Seconds(step.clone()), seconds);
            let peak = peak_bytes.map(|bytes| Figure::exact(Metric::PeakBytes(step.clone()), bytes as f64));
            let model = model.as_deref().unwrap_or_default();
            std::iter::once(seconds).chain(peak).for_each(|cost| self.measure(cost.of(trial, model)));
        }
        self.recall_warnings(key);
    }

    /// Tells what making a result warned of.
    fn recall_warnings(&mut self, address: &str) {
        let made = self.steps.get(address).map(|made| made.warnings.as_slice()).unwrap_or_default();
        made.iter().for_each(|warning| warn(&mut self.warnings, warning));
    }

    fn warn(&mut self, message: &str) {
        warn(&mut self.warnings, message);
        if let Some(open) = &self.open {
            warn(&mut self.steps.entry(open.clone()).or_default().warnings, message);
        }
    }

    fn measure(&mut self, row: ResultRow) {
        let into = if row.metric().is_cost() { &mut self.timings } else { &mut self.figures };
        into.insert((model_key(&row.model), row.metric().clone()), row);
    }

    fn distribute(&mut self, model: &str, shape: &Shape, distribution: &SparsityDistribution) {
        if layers::fits(shape, distribution) {
            self.distributions.insert(model_key(model), (*shape, distribution.clone()));
        } else {
            warn(
                &mut self.warnings,
                &format!("the distribution of {model} does not fit the model's shape and is not shown"),
            );
        }
    }

    fn renamed(mut self, run: &str) -> Self {
        self.label = format!("{run}/{}", self.label);
        self.identity = None;
        self.figures.values_mut().chain(self.timings.values_mut()).for_each(|f| f.trial = self.label.clone());
        self
    }

    fn wide(&self) -> Wide {
        Wide::of(self.figures.values())
    }

    fn block(&self) -> Block {
        let status = match &self.status {
            Status::Finished => None,
            Status::Waiting => Some("not begun".to_string()),
            Status::Unfinished => Some("not finished".to_string()),
            Status::Failed(error) => Some(format!("failed: {}", error.replace('\n', " "))),
        };
        let flags = self.figures.values().filter_map(ResultRow::flag);
        let notes = status.into_iter().chain(flags).chain(self.warnings.iter().cloned()).collect();
        let figures = || self.figures.values();
        let further = [
            (beside::PAIRED, beside::paired(figures())),
            (beside::HARNESS, beside::harness(figures())),
            (beside::EXPORTS, beside::exports(figures())),
        ];
        let speeds = speed::of_figures(figures().chain(self.speeds())).into_iter();
        let further = further.into_iter().filter_map(|(title, grid)| Some((title.to_string(), grid?)));
        let further = further.chain(speeds.map(|table| (table.title, table.grid))).collect();
        Block { title: self.label.clone(), grid: self.wide().grid(), further, notes }
    }

    /// The distribution of the last model in the models' order, titled.
    fn last_distribution(&self) -> Option<(String, &Shape, &SparsityDistribution)> {
        let ((_, _, model), (shape, distribution)) = self.distributions.last_key_value()?;
        Some((format!("{}: kept by {model}", self.label), shape, distribution))
    }

    fn json(&self) -> serde_json::Value {
        let entry = |((_, _, model), (shape, d)): (&ModelKey, &(Shape, SparsityDistribution))| {
            let removed = &d.removed;
            serde_json::json!({ "model": model, "shape": shape, "removed": removed })
        };
        let distributions: Vec<_> = self.distributions.iter().map(entry).collect();
        let figures: Vec<&ResultRow> = self.figures.values().collect();
        let flags: Vec<String> = self.figures.values().filter_map(ResultRow::flag).collect();
        serde_json::json!({
            "trial": self.label,
            "status": self.status,
            "figures": figures,
            "distributions": distributions,
            "flags": flags,
            "warnings": self.warnings,
        })
    }
}

impl Block {
    fn markdown(&self) -> String {
        let grid = self.grid.as_ref().map(Grid::markdown);
        let further = self
            .further
            .iter()
            .map(|(title, grid)| Some(format!("{}:\n\n{}", capitalised(title), grid.markdown())));
        let notes = (!self.notes.is_empty()).then(|| self.notes.iter().map(|n| format!("- {n}\n")).collect());
        let parts = [Some(format!("## {}\n", self.title)), grid].into_iter().chain(further).chain([notes]);
        parts.flatten().collect::<Vec<String>>().join("\n")
    }

    fn latex(self) -> Vec<String> {
        let title = &self.title;
        let further = self.further.iter().map(|(what, grid)| grid.latex(&format!("{title}: {what}")));
        self.grid.iter().map(|grid| grid.latex(title)).chain(further).collect()
    }

    fn terminal(&self) -> String {
        let grid = self.grid.as_ref().map(Grid::terminal).unwrap_or_default();
        let further = self.further.iter().map(|(title, grid)| format!("  {title}\n{}", grid.terminal()));
        let notes = self.notes.iter().map(|n| format!("  {n}\n"));
        std::iter::once(format!("{}\n", self.title)).chain([grid]).chain(further).chain(notes).collect()
    }
}

fn seeds_block(seeds: &Seeds) -> Block {
    let over = format!("mean ± standard deviation over {} seeds", seeds.count);
    let title = if seeds.label.is_empty() { over } else { format!("{}: {over}", seeds.label) };
    Block { title, grid: seeds.wide.grid(), further: Vec::new(), notes: Vec::new() }
}

fn seeds_json(seeds: &Seeds) -> serde_json::Value {
    let mut cells = Vec::new();
    for (model, row) in &seeds.wide.rows {
        for (shown, values) in row {
            let (mean, deviation) = mean_and_deviation(values).unzip();
            let deviation = deviation.flatten();
            cells.push(serde_json::json!({
                "model": model,
                "measure": shown.metric,
                "mean": mean,
                "deviation": deviation,
            }));
        }
    }
    serde_json::json!({ "label": seeds.label, "count": seeds.count, "measures": cells })
}

fn warn(warnings: &mut Vec<String>, message: &str) {
    if !warnings.iter().any(|w| w == message) {
        warnings.push(message.to_string());
    }
}

#[cfg(test)]
mod tests;
