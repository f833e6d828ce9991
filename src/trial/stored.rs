//! What the folder of a step's result holds beside the step's own files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::StepKind;
use crate::space::SparsityDistribution;

/// The file that makes a step's folder a finished result.
pub const MANIFEST: &str = "manifest.json";

/// The file that says what the result depends on.
pub const KEY: &str = "key.json";

/// The file with the seconds and the memory that it took.
pub const COST: &str = "cost.json";

/// The file with what a search found.
pub const FOUND: &str = "distribution.json";

/// The file with what single changes cost.
pub const SENSITIVITIES: &str = "sensitivities.json";

/// The file with what modules take by their sizes.
pub const LATENCIES: &str = "latencies.json";

/// What a finished result consists of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The store's format when it was written.
    pub format: u32,
    /// What kind of step it is the result of.
    pub kind: StepKind,
    /// What the result depends on.
    pub key: Value,
    /// Hash of every file.
    pub files: BTreeMap<String, String>,
}

/// What a search step leaves in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The best distribution.
    pub distribution: SparsityDistribution,
    /// Generations that led to it.
    pub generations: usize,
}
