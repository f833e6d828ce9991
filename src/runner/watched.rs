//! A watch that shows notes and also keeps them, so that they reach the event log.

use std::sync::{Mutex, PoisonError};

use crate::base::Watch;

/// Passes everything on and collects the notes.
pub struct Watched<'a> {
    inner: &'a dyn Watch,
    notes: Mutex<Vec<String>>,
}

impl<'a> Watched<'a> {
    /// Around another watch.
    pub fn new(inner: &'a dyn Watch) -> Self {
        Self { inner, notes: Mutex::default() }
    }

    /// Shows a message that is no warning.
    pub fn say(&self, message: &str) {
        self.inner.note(message);
    }

    /// The notes since the last call.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Watch for Watched<'_> {
    fn begin(&self, what: &str, units: u64) {
        self.inner.begin(what, units);
    }

    fn advance(&self, units: u64) {
        self.inner.advance(units);
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
