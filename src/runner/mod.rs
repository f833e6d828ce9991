//! Running an experiment: trials one after the other, their steps addressed by content in a store, results
//! written as they appear.
//!
//! `pipeline` executes the steps of [`crate::trial::walk`]: build a supernet, search it, compact, evaluate,
//! from coarse to fine. `engine` takes each from the store or has it made, `measure` evaluates a model,
//! `recount` holds its file against its distribution, and `winner` puts the last one where users look for
//! it.

pub mod cache;
mod contents;
mod engine;
pub mod evaluate;
pub mod exported;
pub mod exporting;
mod journal;
pub mod kept;
pub mod lock;
pub mod measure;
mod origin;
mod pipeline;
mod prepare;
mod recount;
mod searching;
mod store;
mod watched;
mod winner;

use std::path::{Path, PathBuf};

use crate::base::{Error, Kind, Result, Watch, files};
use crate::plan::Machine;
use crate::report::event::Event;
use crate::report::folder;
use crate::spec::{Loaded, Trial};

use engine::Engine;
use journal::Journal;
use lock::Lock;
use pipeline::Pipeline;
pub use pipeline::Sensed;
use prepare::Prepared;
use store::Store;
pub use winner::EXPORTS;

/// What happens when a trial fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The other trials are run all the same.
    KeepGoing,
    /// The run stops.
    Stop,
}

/// A finished run.
#[derive(Debug)]
pub struct Finished {
    /// Its folder.
    pub folder: PathBuf,
    /// The tables, as the terminal shows them.
    pub tables: String,
    /// The distributions that were found, as the terminal shows them.
    pub distributions: String,
}

/// Runs every trial of an experiment into `runs/<name>/`; finished results of an earlier run are reused.
///
/// # Errors
/// Another process holds the run, its folder is of another experiment, the user stopped it, or trials failed
/// (kind of the only trial's error, or [`Kind::Partial`] when other trials succeeded).
pub fn run(loaded: &Loaded, runs: &Path, on_failure: OnFailure, watch: &dyn Watch) -> Result<Finished> {
    with_run(loaded, runs, |folder, store, journal| {
        let failures = run_trials(loaded, folder, store, journal, on_failure, watch)?;
        journal.emit(Event::RunFinished { run: loaded.spec.name.clone(), failed: failures.len() })?;
        journal.publish()?;
        summary(failures, loaded.trials.len())?;
        Ok(Finished {
            folder: folder.to_path_buf(),
            tables: journal.tables().terminal(),
            distributions: journal.tables().terminal_distributions(),
        })
    })
}

/// Measures what single changes cost in the first supernet of a trial, into the folder of its run, where the run
/// itself takes it from. An experiment of several trials takes the label of one.
///
/// # Errors
/// As [`run`]; no or an unknown label where one is needed.
pub fn sensitivities(loaded: &Loaded, runs: &Path, label: Option<&str>, watch: &dyn Watch) -> Result<Sensed> {
    let labels: Vec<String> = loaded.trials.iter().map(|trial| trial.label.clone()).collect();
    let chosen = kept::choose(("experiment", "--trial"), &labels, label)?;
    let unknown = || Error::new(Kind::Internal, format!("no trial is called \"{chosen}\""));
    let trial = loaded.trials.iter().find(|trial| trial.label == chosen).ok_or_else(unknown)?;
    with_run(loaded, runs, |folder, store, journal| {
        journal.begin_trial(chosen)?;
        in_trial(trial, (&loaded.folder, folder), store, journal, watch, |pipeline| pipeline.sense())
    })
}

/// Opens the folder of an experiment's run, which nobody else holds meanwhile.
fn with_run<T>(
    loaded: &Loaded,
    runs: &Path,
    work: impl FnOnce(&Path, &Store, &mut Journal) -> Result<T>,
) -> Result<T> {
    let folder = runs.join(&loaded.spec.name);
    files::create_dir(&folder)?;
    let _lock = Lock::take(&folder)?;
    let origin = origin::of(loaded)?;
    origin::check(&folder, loaded, &origin)?;
    files::write(&folder.join("spec.toml"), loaded.text.as_bytes())?;
    let store = Store::at(&folder.join("store"));
    let labels: Vec<String> = loaded.trials.iter().map(|t| t.label.clone()).collect();
    let mut journal = Journal::open(&folder, &loaded.spec.name, &labels, origin)?;
    let message = format!("machine: {}", Machine::measure()?);
    journal.emit(Event::Note { trial: None, message })?;
    work(&folder, &store, &mut journal)
}

fn run_trials(
    loaded: &Loaded,
    folder: &Path,
    store: &Store,
    journal: &mut Journal,
    on_failure: OnFailure,
    watch: &dyn Watch,
) -> Result<Vec<(String, Error)>> {
    let mut failures = Vec::new();
    for trial in &loaded.trials {
        journal.begin_trial(&trial.label)?;
        match run_trial(trial, &loaded.folder, folder, store, journal, watch) {
            Ok(()) => {}
            Err(e) if e.kind == Kind::Interrupted => return Err(e),
            Err(e) => {
                journal.emit(Event::TrialFailed { trial: trial.label.clone(), error: e.to_string() })?;
                failures.push((trial.label.clone(), e));
                if on_failure == OnFailure::Stop {
                    break;
                }
            }
        }
    }
    Ok(failures)
}

fn run_trial(
    trial: &Trial,
    place: &Path,
    folder: &Path,
    store: &Store,
    journal: &mut Journal,
    watch: &dyn Watch,
) -> Result<()> {
    in_trial(trial, (place, folder), store, journal, watch, |pipeline| pipeline.run())?;
    journal.emit(Event::TrialFinished { trial: trial.label.clone() })?;
    journal.publish()
}

/// Opens a trial of an experiment that lies in one folder, in the other, that of its run.
fn in_trial<T>(
    trial: &Trial,
    (place, folder): (&Path, &Path),
    store: &Store,
    journal: &mut Journal,
    watch: &dyn Watch,
    work: impl FnOnce(&mut Pipeline) -> Result<T>,
) -> Result<T> {
    let home = folder::trial(folder, &trial.label);
    winner::begin(&home, &trial.spec.to_toml()?)?;
    let engine = Engine::new(&trial.label, store, journal, watch);
    let prepared = Prepared::new(&trial.spec, engine.watch())?;
    work(&mut Pipeline::new(engine, &trial.spec, place, &home, &prepared)?)
}

/// One failed trial of one is that trial's error; of several, a summary.
fn summary(mut failures: Vec<(String, Error)>, trials: usize) -> Result<()> {
    match (failures.len(), trials) {
        (0, _) => Ok(()),
        (1, 1) => Err(failures.remove(0).1),
        (failed, _) => {
            let each: Vec<String> = failures.iter().map(|(label, e)| format!("{label}: {e}")).collect();
            Err(Error::new(Kind::Partial, format!("{failed} of {trials} trials failed\n{}", each.join("\n")))
                .hint("fix the cause and run again: finished work is kept"))
        }
    }
}
