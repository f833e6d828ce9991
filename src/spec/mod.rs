//! The experiment file: types, embedded defaults, schema, layering, sweep expansion, diagnostics.

pub mod types;

pub use types::*;
