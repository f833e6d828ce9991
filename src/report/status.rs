//! The state of each trial of a run, from its events alone: `tyr status`.

use std::collections::{BTreeMap, BTreeSet};

use super::columns::{Side, columns, wrapped};
use super::event::{Cache, Event, Identity};
use super::figure::{ResultRow, model_key};
use super::grid::{Column, Grid, Role, WIDTH};
use super::log::Stamped;
use super::metric::Metric;
use super::number::{duration, perplexity};
use super::tables::{Status, Tables, Trial};
use crate::trial::{Evaluation, StepName};

/// The state of a run as text for a terminal of 100 columns.
///
/// `holder` is the process that runs it, if one does; `now` is the time in milliseconds since 1970.
pub fn status(events: &[Stamped], holder: Option<&str>, now: Option<u64>) -> String {
    let mut tables = Tables::default();
    let mut paces: BTreeMap<String, Pace> = BTreeMap::new();
    let mut sweep: Vec<String> = Vec::new();
    for Stamped { at, event } in events {
        tables.add(event);
        if let Event::RunStarted { trials, .. } = event {
            sweep.clone_from(trials);
        }
        if let Some(trial) = event.trial() {
            paces.entry(trial.to_string()).or_default().add(event, *at);
        }
    }
    let shown = tables.trials();
    let trials: Vec<Line> =
        shown.iter().filter(|t| sweep.contains(&t.label)).map(|t| Line::new(t, &paces)).collect();
    StatusText { run: tables.run(), trials: with_the_running_one(trials, holder), holder, now }.text()
}

/// A trial's state, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Stopped,
    Done,
    Failed,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Running => "running",
            State::Stopped => "stopped",
            State::Done => "done",
            State::Failed => "failed",
        }
    }
}

/// One trial.
struct Line<'a> {
    trial: &'a Trial,
    pace: Pace,
    state: State,
}

impl<'a> Line<'a> {
    /// An unfinished trial counts as stopped until a process is known to run it.
    fn new(trial: &'a Trial, paces: &BTreeMap<String, Pace>) -> Self {
        let state = match trial.status {
            Status::Waiting => State::Waiting,
            Status::Unfinished => State::Stopped,
            Status::Finished => State::Done,
            Status::Failed(_) => State::Failed,
        };
        // A waiting trial may have worked as part of another experiment.
        let pace = paces.get(&trial.label).filter(|_| state != State::Waiting).cloned();
        Self { trial, pace: pace.unwrap_or_default(), state }
    }
}

/// The same lines, of which the one that the holder began last runs.
fn with_the_running_one<'a>(mut lines: Vec<Line<'a>>, holder: Option<&str>) -> Vec<Line<'a>> {
    let unfinished = lines.iter_mut().filter(|line| line.state == State::Stopped);
    if let Some(line) =
        unfinished.max_by_key(|line| line.pace.session.map(|(began, _)| began)).filter(|_| holder.is_some())
    {
        line.state = State::Running;
    }
    lines
}

/// When a trial worked, and what at.
#[derive(Debug, Clone, Default)]
struct Pace {
    /// The experiment that the sessions are of.
    identity: Option<Identity>,
    /// Milliseconds of sessions that are over.
    before: u64,
    /// First and last sign of life of the newest session, milliseconds since 1970.
    session: Option<(u64, u64)>,
    /// Seconds of computed steps, for logs without times.
    worked: f64,
    /// When the open step began.
    step: Option<u64>,
    /// What is being done, how much of it is done, and of how much.
    progress: Option<(String, u64, u64)>,
}

impl Pace {
    fn add(&mut self, event: &Event, at: Option<u64>) {
        match event {
            Event::TrialStarted { identity, .. } => {
                if self.identity != *identity {
                    *self = Self { identity: identity.clone(), ..Self::default() };
                }
                self.before += self.session.map_or(0, |(first, last)| last.saturating_sub(first));
                self.session = at.map(|t| (t, t));
                self.step = None;
                self.progress = None;
            }
            Event::StepStarted { .. } => (self.step, self.progress) = (at, None),
            Event::StepFinished { cache, seconds, .. } => {
                self.worked += if *cache == Cache::Miss { *seconds } else { 0.0 };
                self.step = None;
                self.progress = None;
            }
            Event::Progress { what, done, units, .. } => self.progress = Some((what.clone(), *done, *units)),
            _ => {}
        }
        if let (Some((_, last)), Some(at)) = (&mut self.session, at) {
            *last = at.max(*last);
        }
    }

    /// Seconds of work, until `now` for a session that goes on.
    fn seconds(&self, now: Option<u64>) -> Option<f64> {
        let open = self.session.map(|(first, last)| now.unwrap_or(last).max(last).saturating_sub(first));
        match open {
            Some(milliseconds) => Some((self.before + milliseconds) as f64 / 1e3),
            None => (self.worked > 0.0).then_some(self.worked),
        }
    }

    /// The step, and how far it is: "in search-1, 3 of 10 generations".
    fn place(&self, step: Option<&str>) -> String {
        let what = self.progress.as_ref().map(|(what, ..)| what.as_str());
        // A step whose work has the step's own name adds nothing.
        let inner =
            what.filter(|what| !step.is_some_and(|step| step.starts_with(&what.replace([' ', '/'], "-"))));
        let far = self.progress.as_ref().filter(|(_, _, units)| *units > 0);
        let far = far.map(|(_, done, units)| format!("{done} of {units}{}", units_of(step)));
        let parts: Vec<&str> = [step, inner, far.as_deref()].into_iter().flatten().collect();
        if parts.is_empty() { "between two steps".into() } else { format!("in {}", parts.join(", ")) }
    }
}

/// What a step counts, where that has a name.
fn units_of(step: Option<&str>) -> &'static str {
    match step.and_then(|step| step.parse().ok()) {
        Some(StepName::Latencies) => " models timed",
        Some(StepName::Sensitivities(_)) => " candidates",
        Some(StepName::Search(_)) => " generations",
        Some(StepName::Supernet(_)) => " modules",
        Some(StepName::Evaluate(Evaluation::Perplexity(_) | Evaluation::Kl, _)) => " sequences",
        _ => "",
    }
}

/// All that is shown.
struct StatusText<'a> {
    run: &'a str,
    trials: Vec<Line<'a>>,
    holder: Option<&'a str>,
    now: Option<u64>,
}

impl StatusText<'_> {
    fn text(&self) -> String {
        let parts = [self.summary(), self.table(), self.details(), self.perplexities()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
    }

    fn count(&self, state: State) -> usize {
        self.trials.iter().filter(|line| line.state == state).count()
    }

    fn summary(&self) -> String {
        let done = self.count(State::Done);
        let failed = self.count(State::Failed);
        let all = self.trials.len();
        let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        let trials = format!("{done} of {all} trial{} done{failures}", if all == 1 { "" } else { "s" });
        let (state, more) = match self.holder {
            Some("") => ("running".to_string(), ""),
            Some(process) => (format!("running, process {process}"), ""),
            None if done == all => ("done".into(), ""),
            None if done + failed == all => ("over".into(), "; fix the cause and run the same command again"),
            None => ("stopped".into(), "; run the same command again to resume"),
        };
        format!("{}: {state}, {trials}{more}\n", self.run)
    }

    fn table(&self) -> String {
        let row = |line: &Line| {
            let now = self.now.filter(|_| line.state == State::Running);
            let took = line.pace.seconds(now).map(duration).unwrap_or_default();
            let models: BTreeSet<&str> = line.trial.figures().map(|f| f.model.as_str()).collect();
            let count = if models.is_empty() { String::new() } else { models.len().to_string() };
            [line.trial.label.clone(), line.state.word().into(), took, count]
        };
        let heads =
            [("trial", Side::Left), ("state", Side::Left), ("took", Side::Right), ("models", Side::Right)];
        columns(heads, &self.trials.iter().map(row).collect::<Vec<_>>())
    }

    /// Where unfinished trials are, and why others failed.
    fn details(&self) -> String {
        self.trials.iter().map(|line| self.detail(line)).collect()
    }

    fn detail(&self, line: &Line) -> String {
        let label = &line.trial.label;
        let place = line.pace.place(line.trial.step.as_deref());
        let since =
            || line.pace.step.zip(self.now).map(|(began, now)| now.saturating_sub(began) as f64 / 1e3);
        let text = match (line.state, &line.trial.status) {
            (State::Running, _) => {
                let lasted = since().map(|s| format!(", for {}", duration(s))).unwrap_or_default();
                format!("{label} is {place}{lasted}")
            }
            (State::Stopped, _) => format!("{label} stopped {place}"),
            (_, Status::Failed(error)) => return format!("{label} failed:\n{}", wrapped(error, WIDTH, "  ")),
            _ => return String::new(),
        };
        wrapped(&text, WIDTH, "")
    }

    /// A table per corpus: trials by models.
    fn perplexities(&self) -> String {
        let corpora: BTreeSet<&str> =
            self.trials.iter().flat_map(|l| l.trial.figures()).filter_map(corpus).collect();
        let tables = corpora
            .into_iter()
            .map(|name| format!("perplexity {name}\n{}", self.perplexity_table(name).terminal()));
        tables.collect::<Vec<_>>().join("\n")
    }

    fn perplexity_table(&self, name: &str) -> Grid {
        let measured = |line: &Line| -> BTreeMap<_, f64> {
            let figures = line.trial.figures().filter(|f| corpus(f) == Some(name));
            figures.map(|f| (model_key(&f.model), f.value())).collect()
        };
        let all: Vec<_> = self
            .trials
            .iter()
            .map(|line| (&line.trial.label, measured(line)))
            .filter(|(_, m)| !m.is_empty())
            .collect();
        let models: BTreeSet<_> = all.iter().flat_map(|(_, m)| m.keys().cloned()).collect();
        let heads = models.iter().map(|(_, _, model)| Column { name: model.clone(), role: Role::Summary });
        let cell =
            |value: Option<&f64>| value.filter(|v| v.is_finite()).map(|&v| perplexity(v)).unwrap_or_default();
        let rows = all.iter().map(|(label, m)| {
            std::iter::once(label.to_string()).chain(models.iter().map(|k| cell(m.get(k)))).collect()
        });
        let name = Column { name: "trial".into(), role: Role::Name };
        Grid { columns: std::iter::once(name).chain(heads).collect(), rows: rows.collect() }
    }
}

/// The corpus whose perplexity a result is.
fn corpus(row: &ResultRow) -> Option<&str> {
    match row.metric() {
        Metric::Perplexity(corpus) => Some(corpus),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
