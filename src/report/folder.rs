//! A run's folder: where its event logs are, and the files of tables that are made from them, live and
//! afterwards alike.

use std::path::{Path, PathBuf};

use super::event::Event;
use super::log::{self, Stamped};
use super::tables::Tables;
use crate::base::{Error, Kind, Result, files};

/// The folder of a run's trials, each in one of its own.
pub const TRIALS: &str = "trials";

/// The log of the run as a whole.
pub fn run_log(run: &Path) -> PathBuf {
    run.join("events.jsonl")
}

/// The folder of one trial.
pub fn trial(run: &Path, label: &str) -> PathBuf {
    run.join(TRIALS).join(label)
}

/// The log of one trial.
pub fn trial_log(run: &Path, label: &str) -> PathBuf {
    trial(run, label).join("events.jsonl")
}

/// Labels of all trials that a run ever had, in the order in which its log first names them.
pub fn labels(run_events: &[Event]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for event in run_events {
        let Event::RunStarted { trials, .. } = event else { continue };
        let new: Vec<String> = trials.iter().filter(|t| !all.contains(t)).cloned().collect();
        all.extend(new);
    }
    all
}

/// The events of the run as a whole.
///
/// # Errors
/// There is no run in the folder, or its log cannot be read.
pub fn run_events(run: &Path) -> Result<Vec<Event>> {
    let own = run_log(run);
    if !own.exists() {
        let what = "there is no run in this folder: it has no events.jsonl";
        return Err(Error::new(Kind::Usage, what)
            .at(run.display())
            .hint("name a folder that `tyr run` made, as in runs/NAME"));
    }
    log::read(&own)
}

/// The logs of a run that are there: its own, then those of its trials.
///
/// # Errors
/// As [`run_events`].
pub fn logs(run: &Path) -> Result<Vec<PathBuf>> {
    let trials =
        labels(&run_events(run)?).into_iter().map(|label| trial_log(run, &label)).filter(|log| log.exists());
    Ok(std::iter::once(run_log(run)).chain(trials).collect())
}

/// All events of a run with their times: those of the run, then those of each trial.
///
/// # Errors
/// As [`logs`] and [`log::read`].
pub fn events(run: &Path) -> Result<Vec<Stamped>> {
    let mut all = Vec::new();
    for path in logs(run)? {
        all.extend(log::read_stamped(&path)?);
    }
    Ok(all)
}

/// The tables of a run from its logs alone.
///
/// # Errors
/// As [`events`].
pub fn tables(run: &Path) -> Result<Tables> {
    let mut tables = Tables::default();
    events(run)?.iter().for_each(|stamped| tables.add(&stamped.event));
    Ok(tables)
}

/// The files that hold a run's tables, with their contents.
pub fn contents(tables: &Tables) -> Result<[(&'static str, String); 5]> {
    Ok([
        ("results.csv", tables.csv()?),
        ("timings.csv", tables.timings_csv()?),
        ("results.json", tables.json()?),
        ("results.md", tables.markdown()),
        ("results.tex", tables.latex()),
    ])
}

/// Writes the files of a run's tables, each whole.
///
/// # Errors
/// The disk is full or cannot be written to.
pub fn publish(run: &Path, tables: &Tables) -> Result<()> {
    contents(tables)?.iter().try_for_each(|(name, text)| files::write(&run.join(name), text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Log;
    use crate::report::figure::tests::figure;

    fn started(trials: &[&str]) -> Event {
        Event::RunStarted {
            run: "r".into(),
            trials: trials.iter().map(|t| t.to_string()).collect(),
            origin: None,
        }
    }

    #[test]
    fn trials_of_earlier_sweeps_are_read_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut own = Log::open(&run_log(dir.path())).unwrap();
        [started(&["a", "b"]), started(&["b", "c"])].iter().for_each(|e| own.append(e).unwrap());
        for label in ["a", "b", "stray"] {
            files::create_dir(trial_log(dir.path(), label).parent().unwrap()).unwrap();
            let mut log = Log::open(&trial_log(dir.path(), label)).unwrap();
            log.append(&Event::FigureMeasured { figure: figure(label, "dense", "kl", 1.0) }).unwrap();
        }
        let read = tables(dir.path()).unwrap();
        assert_eq!(read.trials().iter().map(|t| t.label.as_str()).collect::<Vec<_>>(), ["b", "c", "a"]);
        assert!(read.csv().unwrap().contains("\na,dense,kl,1") && !read.csv().unwrap().contains("stray"));
        assert_eq!(logs(dir.path()).unwrap().len(), 3);
    }

    #[test]
    fn a_folder_without_a_run_is_refused_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let e = events(dir.path()).unwrap_err();
        assert!(e.kind == Kind::Usage && e.to_string().contains("runs/NAME"), "{e}");
    }

    #[test]
    fn every_file_of_tables_is_written() {
        let dir = tempfile::tempdir().unwrap();
        publish(dir.path(), &Tables::default()).unwrap();
        let written: Vec<_> = contents(&Tables::default())
            .unwrap()
            .iter()
            .map(|(name, _)| dir.path().join(name).exists())
            .collect();
        assert_eq!(written, [true; 5]);
    }
}
