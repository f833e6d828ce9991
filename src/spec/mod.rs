//! The experiment file: types, embedded defaults, schema, layering, sweep expansion, diagnostics.
//!
//! ```text
//! defaults < paper's < file < profile < environment < --set   each checked against the schema in place
//!                      │ figment merges
//!                 sweep axes multiply               one merged experiment per trial
//!                      │ paths made absolute, rules between keys
//!                 Loaded { spec, trials, warnings }
//! ```

mod bench;
mod check;
mod export;
mod finding;
mod key;
mod layers;
mod load;
mod node;
mod paths;
mod pruning;
mod reference;
mod renamed;
mod repeated;
mod rules;
mod schema;
mod script;
mod searching;
mod shape;
mod sweep;
pub mod types;

#[cfg(test)]
pub(crate) mod tests;

pub use bench::Bench;
pub use check::nearest;
pub use finding::{Finding, Provenance, Severity, Style, count, render};
pub use key::KeyPath;
pub use load::{Checked, Files, Loaded, Source, Trial, inspect, load, parse};
pub use paths::model_folder;
pub use reference::reference;
pub use rules::{Inputs, Known, LookAtInputs, ModelSizes};
pub use schema::{defaults_toml, schema, schema_json};
pub use script::CheckScript;
pub use sweep::{Axis, Case};
pub use types::*;

/// The defaults of every key, comments included.
const DEFAULTS: &str = include_str!("defaults.toml");
/// What the paper's own choice changes of them.
const PAPER: &str = include_str!("paper.toml");
