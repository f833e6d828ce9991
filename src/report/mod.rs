//! Events to tables: what happened in a run, as JSON lines, and the CSV, Markdown, LaTeX, JSON and terminal
//! views of it.
//!
//! Events are the only wire from the runner to bars and tables, so tables written while a run goes on and
//! tables rebuilt from its event logs come out of the same code and have the same bytes.

pub mod card;
pub mod columns;
pub mod event;
pub mod figure;
pub mod folder;
pub mod interrupt;
pub mod layers;
pub mod log;
pub mod metric;
pub mod number;
pub mod plot;
pub mod progress;
pub mod published;
pub mod sensitivities;
pub mod speed;
pub mod status;
pub mod tables;

mod beside;
pub mod grid;
mod seeds;
mod wide;

pub use card::Card;
pub use event::{Cache, Event, GenerationSummary};
pub use figure::{Figure, ResultRow};
pub use interrupt::install_interrupt_handler;
pub use log::Log;
pub use metric::Metric;
pub use progress::Bars;
pub use tables::{Status, Tables, Trial};
