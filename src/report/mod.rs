//! Events to tables: what happened in a run, as JSON lines, and the CSV, Markdown, LaTeX, JSON and terminal views of it.
//!
//! Events are the only wire from the runner to bars and tables, so tables written while a run goes on and tables rebuilt from its
//! event logs come out of the same code and have the same bytes.

pub mod event;
pub mod figure;
pub mod interrupt;
pub mod layers;
pub mod progress;
pub mod tables;

pub mod grid;
pub mod number;
mod seeds;
mod wide;

pub use event::{Cache, Event, GenerationSummary, Log};
pub use figure::Figure;
pub use interrupt::install_interrupt_handler;
pub use progress::Bars;
pub use tables::{Status, Tables, Trial};

use crate::base::Result;

/// The tables of a run from its events: [`Tables::from_events`] by the name under which `tyr report` knows it.
pub fn rebuild(events: &[Event]) -> Tables {
    Tables::from_events(events)
}

/// The tables of a run from its event logs, read in the order given: the run's own log first, then those of its trials.
///
/// # Errors
/// As [`event::read`].
pub fn rebuild_from(logs: &[std::path::PathBuf]) -> Result<Tables> {
    let mut events = Vec::new();
    for log in logs {
        events.extend(event::read(log)?);
    }
    Ok(rebuild(&events))
}
