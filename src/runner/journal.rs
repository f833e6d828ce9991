//! The event logs of a run and the tables that grow from them; tables are files that anyone can rebuild from the logs.

use std::path::{Path, PathBuf};

use crate::base::{Result, files};
use crate::report::Tables;
use crate::report::event::{Event, Log, read};

/// The logs and tables of one run.
pub struct Journal {
    folder: PathBuf,
    run_log: Log,
    trial_log: Option<Log>,
    tables: Tables,
}

impl Journal {
    /// Opens a run's logs and takes up what they say.
    pub fn open(folder: &Path, run: &str, trials: &[String]) -> Result<Self> {
        let path = folder.join("events.jsonl");
        let mut tables = Tables::default();
        let mut take_up = |path: &Path| -> Result<()> {
            if path.exists() {
                read(path)?.iter().for_each(|e| tables.add(e));
            }
            Ok(())
        };
        take_up(&path)?;
        trials.iter().try_for_each(|t| take_up(&trial_log(folder, t)))?;
        let mut journal = Self { folder: folder.to_path_buf(), run_log: Log::open(&path)?, trial_log: None, tables };
        journal.emit(Event::RunStarted { run: run.into(), trials: trials.to_vec() })?;
        Ok(journal)
    }

    /// Opens a trial's log; events go there until another trial begins.
    pub fn begin_trial(&mut self, label: &str) -> Result<()> {
        self.trial_log = Some(Log::open(&trial_log(&self.folder, label))?);
        self.emit(Event::TrialStarted { trial: label.into() })
    }

    /// Logs an event and adds it to the tables.
    pub fn emit(&mut self, event: Event) -> Result<()> {
        self.tables.add(&event);
        let of_run = matches!(event, Event::RunStarted { .. } | Event::RunFinished { .. });
        match &mut self.trial_log {
            Some(log) if !of_run => log.append(&event),
            _ => self.run_log.append(&event),
        }
    }

    /// Writes the tables.
    pub fn publish(&self) -> Result<()> {
        let write = |name: &str, text: String| files::write(&self.folder.join(name), text.as_bytes());
        write("results.csv", self.tables.csv()?)?;
        write("timings.csv", self.tables.timings_csv()?)?;
        write("results.json", self.tables.json()?)?;
        write("results.md", self.tables.markdown())
    }

    /// The tables so far.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }
}

fn trial_log(folder: &Path, label: &str) -> PathBuf {
    folder.join("trials").join(label).join("events.jsonl")
}
