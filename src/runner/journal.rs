//! The event logs of a run and the tables that grow from them; tables are files that anyone can rebuild from
//! the logs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::{Result, files};
use crate::report::event::{Event, Identity, Origin};
use crate::report::{Log, Tables, folder};

/// A log that several write to.
pub(crate) type SharedLog = Arc<Mutex<Log>>;

/// The logs and tables of one run.
pub(crate) struct Journal {
    folder: PathBuf,
    run_log: Log,
    /// The experiment of each trial of this session, by label.
    identities: BTreeMap<String, Identity>,
    trial_log: Option<SharedLog>,
    tables: Tables,
}

impl Journal {
    /// Opens a run's logs and reads their events, also those of trials that the sweep no longer has.
    pub(crate) fn open(run_folder: &Path, run: &str, trials: &[String], origin: Origin) -> Result<Self> {
        let mut run_log = Log::open(&folder::run_log(run_folder))?;
        let identities = trials.iter().cloned().zip(origin.trials.iter().cloned()).collect();
        run_log.append(&Event::RunStarted {
            run: run.into(),
            trials: trials.to_vec(),
            origin: Some(origin),
        })?;
        let tables = folder::tables(run_folder)?;
        Ok(Self { folder: run_folder.to_path_buf(), run_log, identities, trial_log: None, tables })
    }

    /// Opens a trial's log, making its folder; events go there until another trial begins.
    pub(crate) fn begin_trial(&mut self, label: &str) -> Result<()> {
        let path = folder::trial_log(&self.folder, label);
        path.parent().map_or(Ok(()), files::create_dir)?;
        self.trial_log = Some(Arc::new(Mutex::new(Log::open(&path)?)));
        let identity = self.identities.get(label).cloned();
        self.emit(Event::TrialStarted { trial: label.into(), identity })
    }

    /// Logs an event and adds it to the tables.
    pub(crate) fn emit(&mut self, event: Event) -> Result<()> {
        self.tables.add(&event);
        let of_run = matches!(event, Event::RunStarted { .. } | Event::RunFinished { .. });
        match &self.trial_log {
            Some(log) if !of_run => log.lock().unwrap_or_else(PoisonError::into_inner).append(&event),
            _ => self.run_log.append(&event),
        }
    }

    /// The open trial's log, for those who report progress.
    pub(crate) fn trial_log(&self) -> Option<SharedLog> {
        self.trial_log.clone()
    }

    /// Writes the tables.
    pub(crate) fn publish(&self) -> Result<()> {
        folder::publish(&self.folder, &self.tables)
    }

    /// The tables so far.
    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Figure;

    fn measured(trial: &str, metric: &str, value: f64) -> Event {
        Event::FigureMeasured { figure: Figure::exact(metric.into(), value).of(trial, "dense") }
    }

    fn origin(labels: &[String]) -> Origin {
        let identity = |own: &String| Identity { base: "b".into(), own: own.clone(), ..Identity::default() };
        let trials = labels.iter().map(identity).collect();
        Origin { file: "spec.toml".into(), profile: None, base: "b".into(), trials }
    }

    fn files(run: &Path) -> Vec<Vec<u8>> {
        let names = folder::contents(&Tables::default()).unwrap().map(|(name, _)| name);
        names.iter().map(|name| std::fs::read(run.join(name)).unwrap()).collect()
    }

    #[test]
    fn tables_made_from_the_logs_have_the_bytes_of_the_live_ones_over_changing_sweeps() {
        let dir = tempfile::tempdir().unwrap();
        let sweeps: [&[&str]; 3] = [&["a"], &["b", "a"], &["c"]];
        for (i, sweep) in sweeps.iter().enumerate() {
            let labels: Vec<String> = sweep.iter().map(|l| l.to_string()).collect();
            let mut journal = Journal::open(dir.path(), "r", &labels, origin(&labels)).unwrap();
            for label in &labels {
                journal.begin_trial(label).unwrap();
                journal.emit(measured(label, "kl", i as f64)).unwrap();
                journal
                    .emit(Event::Warning { trial: Some(label.clone()), message: format!("sweep {i}") })
                    .unwrap();
                journal.emit(Event::TrialFailed { trial: label.clone(), error: "no luck".into() }).unwrap();
            }
            journal.emit(Event::RunFinished { run: "r".into(), failed: labels.len() }).unwrap();
            journal.publish().unwrap();
            let live = files(dir.path());
            folder::publish(dir.path(), &folder::tables(dir.path()).unwrap()).unwrap();
            assert_eq!(files(dir.path()), live);
        }
        let csv = String::from_utf8(files(dir.path()).swap_remove(0)).unwrap();
        assert_eq!(
            csv,
            "trial,model,metric,value,stderr,n\nc,dense,kl,2,,\nb,dense,kl,1,,\na,dense,kl,1,,\n"
        );
    }
}
