//! Taking a step: its result comes from the store, or is made, timed, noted and put there; the event log and
//! the tables are informed.

use super::journal::Journal;
use super::store::{Entry, State, Store};
use super::watched::Watched;
use crate::base::meter::Meter;
use crate::base::{Result, Watch};
use crate::report::event::{Cache, Event};
use crate::report::{Figure, ResultRow};
use crate::trial::{Key, ModelName, StepName};

/// Takes the steps of one trial.
pub(crate) struct Engine<'a> {
    label: &'a str,
    store: &'a Store,
    journal: &'a mut Journal,
    watch: Watched<'a>,
}

impl<'a> Engine<'a> {
    /// For the trial with a label.
    pub(crate) fn new(
        label: &'a str,
        store: &'a Store,
        journal: &'a mut Journal,
        watch: &'a dyn Watch,
    ) -> Self {
        let watch = Watched::new(watch, label, journal.trial_log());
        Self { label, store, journal, watch }
    }

    /// Listens to what is done outside of steps.
    pub(crate) fn watch(&self) -> &dyn Watch {
        &self.watch
    }

    /// Returns a step's result from the store, or computes it: `work` fills the entry and names its files.
    pub(crate) fn step(
        &mut self,
        name: &StepName,
        key: &Key,
        work: impl FnOnce(&Entry, &dyn Watch) -> Result<Vec<String>>,
    ) -> Result<Entry> {
        self.watch.checkpoint()?;
        // What was noted outside of steps, as of texts.
        self.warn_noted()?;
        let entry = self.store.entry(key)?;
        let cache = if self.is_finished(&entry)? { Cache::Hit } else { Cache::Miss };
        let meter = Meter::start();
        if cache == Cache::Miss {
            let step = name.to_string();
            let address = entry.address.clone();
            self.emit(|trial| Event::StepStarted { trial, step, key: address })?;
            let made = work(&entry, &self.watch);
            self.warn_noted()?;
            entry.finish(key, &made?, meter.so_far())?;
        }
        let cost = meter.stop();
        self.emit(|trial| Event::StepFinished {
            trial,
            model: name.model().map(|model| model.to_string()),
            step: name.to_string(),
            key: entry.address.clone(),
            cache,
            seconds: cost.seconds,
            peak_bytes: cost.peak_bytes,
        })?;
        Ok(entry)
    }

    /// Logs what was noted since the last time.
    fn warn_noted(&mut self) -> Result<()> {
        self.watch.take_notes().into_iter().try_for_each(|note| self.warn(note))
    }

    /// Whether an entry can be used; a damaged one is reopened, with a warning.
    fn is_finished(&mut self, entry: &Entry) -> Result<bool> {
        let state = entry.state();
        if let State::Damaged(e) = &state {
            self.warn(format!("{e}; it is rebuilt"))?;
            entry.reopen()?;
        }
        Ok(matches!(state, State::Finished))
    }

    /// Logs what happened in the trial.
    pub(crate) fn emit(&mut self, event: impl FnOnce(String) -> Event) -> Result<()> {
        self.journal.emit(event(self.label.into()))
    }

    /// Logs a figure of a model.
    pub(crate) fn figure(&mut self, model: ModelName, figure: Figure) -> Result<()> {
        let model = model.to_string();
        self.emit(|trial| Event::FigureMeasured { figure: figure.of(&trial, &model) })
    }

    /// Writes the tables as far as they are known.
    pub(crate) fn publish(&self) -> Result<()> {
        self.journal.publish()
    }

    /// Figures of models of this trial so far, those of a bench included.
    pub(crate) fn rows(&self, models: &[ModelName]) -> Vec<ResultRow> {
        let names: Vec<String> = models.iter().map(ToString::to_string).collect();
        let trials = self.journal.tables().trials();
        let own = trials.iter().filter(|trial| trial.label == self.label);
        own.flat_map(|trial| trial.figures().chain(trial.speeds()))
            .filter(|row| names.contains(&row.model))
            .cloned()
            .collect()
    }

    /// The run and the trial, for headings.
    pub(crate) fn title(&self) -> String {
        format!("{}, {}", self.journal.tables().run(), self.label)
    }

    /// Shows a message on the screen only.
    pub(crate) fn show(&self, message: &str) {
        self.watch.show(message);
    }

    /// Logs something that changes nothing: it stays out of the tables.
    pub(crate) fn note(&mut self, message: String) -> Result<()> {
        self.emit(|trial| Event::Note { trial: Some(trial), message })
    }

    /// Logs something to look at.
    pub(crate) fn warn(&mut self, message: String) -> Result<()> {
        self.emit(|trial| Event::Warning { trial: Some(trial), message })
    }
}
