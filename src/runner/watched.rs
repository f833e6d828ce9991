//! A watch that shows notes and also keeps them, so that they reach the event log, and writes there how far a
//! long step is.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::journal::SharedLog;
use crate::base::Watch;
use crate::report::event::Event;

/// Time between two lines of progress in the log.
const EVERY: Duration = Duration::from_secs(2);

/// Passes everything on and collects the notes.
pub(crate) struct Watched<'a> {
    inner: &'a dyn Watch,
    notes: Mutex<Vec<String>>,
    progress_log: Option<Mutex<ProgressLog>>,
}

impl<'a> Watched<'a> {
    /// Around another watch; progress goes to the log of a trial.
    pub(crate) fn new(inner: &'a dyn Watch, trial: &str, log: Option<SharedLog>) -> Self {
        let progress_log = |log| {
            Mutex::new(ProgressLog {
                log,
                trial: trial.into(),
                what: String::new(),
                done: 0,
                units: 0,
                written: Instant::now(),
            })
        };
        Self { inner, notes: Mutex::default(), progress_log: log.map(progress_log) }
    }

    /// Shows a message that is not a warning.
    pub(crate) fn show(&self, message: &str) {
        self.inner.note(message);
    }

    /// The notes since the last call.
    pub(crate) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with_progress_log(&self, act: impl FnOnce(&mut ProgressLog)) {
        if let Some(progress_log) = &self.progress_log {
            act(&mut progress_log.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Watch for Watched<'_> {
    fn begin(&self, what: &str, units: u64) {
        self.inner.begin(what, units);
        self.with_progress_log(|progress_log| progress_log.begin(what, units));
    }

    fn advance(&self, units: u64) {
        self.inner.advance(units);
        self.with_progress_log(|progress_log| progress_log.advance(units));
    }

    fn end(&self) {
        self.inner.end();
    }

    fn note(&self, message: &str) {
        self.inner.note(message);
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(message.into());
    }

    fn stopped(&self) -> bool {
        self.inner.stopped()
    }
}

/// Writes progress to a log: when a step begins, when it advances first (one that goes on jumps to where it
/// was), then at most every [`EVERY`].
struct ProgressLog {
    log: SharedLog,
    trial: String,
    what: String,
    done: u64,
    units: u64,
    written: Instant,
}

impl ProgressLog {
    fn begin(&mut self, what: &str, units: u64) {
        self.what = what.into();
        self.done = 0;
        self.units = units;
        self.write();
    }

    fn advance(&mut self, units: u64) {
        let first = self.done == 0;
        self.done += units;
        if first || self.written.elapsed() >= EVERY {
            self.write();
        }
    }

    fn write(&mut self) {
        self.written = Instant::now();
        let event = Event::Progress {
            trial: self.trial.clone(),
            what: self.what.clone(),
            done: self.done,
            units: self.units,
        };
        // Progress that cannot be written stops nothing: the next event that matters meets the same disk and
        // fails.
        let _ = self.log.lock().unwrap_or_else(PoisonError::into_inner).append(&event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Silent;
    use crate::report::log::{Log, read};
    use std::sync::Arc;

    #[test]
    fn a_step_that_begins_is_told_at_once_and_the_rest_now_and_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let watched = Watched::new(&Silent, "t", Some(Arc::new(Mutex::new(Log::open(&path).unwrap()))));
        watched.begin("search 1", 1000);
        watched.advance(7);
        (0..1000).for_each(|_| watched.advance(1));
        let progress =
            |done| Event::Progress { trial: "t".into(), what: "search 1".into(), done, units: 1000 };
        assert_eq!(read(&path).unwrap(), [progress(0), progress(7)]);
        watched.with_progress_log(|progress_log| progress_log.written -= EVERY);
        watched.advance(1);
        assert!(matches!(&read(&path).unwrap()[2], Event::Progress { done: 1008, .. }));
    }

    #[test]
    fn notes_are_kept_until_they_are_taken() {
        let watched = Watched::new(&Silent, "t", None);
        watched.note("damping raised");
        watched.begin("x", 1);
        assert_eq!(
            (watched.take_notes(), watched.take_notes()),
            (vec!["damping raised".to_string()], vec![])
        );
    }
}
