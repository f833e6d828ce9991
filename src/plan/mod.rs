//! What an experiment will do and cost, before it does: trials, steps with their cache keys, parameters
//! before and after, and estimates of memory, disk, operations and time. Nothing is run, fetched or stored.
//!
//! It works from a configuration alone. With the model and the texts on disk, steps also get the very keys
//! that a run stores under, and are looked up in the store of an earlier run.

mod chain;
mod evaluating;
pub mod facts;
pub mod keys;
mod planner;
mod rates;
mod render;
mod searching;
mod size;
mod subject;
mod texts;
mod trial;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use rates::Rates;
pub use render::text;
pub use trial::{Count, IterationPlan, TokenCounts, TrialPlan, uniform};

use crate::base::Result;
use crate::space::Distribution;
use crate::spec::Loaded;

/// What a search step leaves in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The best distribution.
    pub distribution: Distribution,
    /// Generations that led to it.
    pub generations: usize,
}

/// The name of its file.
pub const FOUND: &str = "distribution.json";

/// When cache keys are computed, which takes reading the model and the texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeysWanted {
    /// When both are there and small.
    #[default]
    Auto,
    /// Whenever both are there.
    Always,
    /// Not at all.
    Never,
}

/// Where the rates of the time estimates come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// A second of measurement on this machine.
    Measured,
    /// A given rate of f32 products in flops per second; the others follow from it.
    Given(f64),
    /// None: no times.
    Unknown,
}

/// How to plan.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where runs lie: `<runs>/<name>/store` is looked up.
    pub runs: PathBuf,
    /// Rates.
    pub speed: Speed,
    /// Keys.
    pub keys: KeysWanted,
}

/// The key of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The address that a run stores it under.
    Known(String),
    /// It depends on something that is not there yet: what.
    Waits(String),
    /// The step stores nothing.
    None,
}

/// Whether a step has to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Its result is in the store.
    Hit,
    /// It has to be done.
    Miss,
    /// Another trial's step before gives it.
    Shared,
}

/// What a step takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// Peak resident memory, bytes.
    pub memory: f64,
    /// Of it, mapped files: the system takes these back when it needs room.
    pub mapped: f64,
    /// Bytes that stay on disk.
    pub disk: f64,
    /// Floating-point operations.
    pub flops: f64,
    /// Wall time, where rates are known.
    pub seconds: Option<f64>,
}

/// One step of a trial, by the name that a run gives it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// As in a run's event log.
    pub name: String,
    /// The model that it belongs to.
    pub model: Option<String>,
    /// Its key.
    pub key: Key,
    /// Whether it is cached.
    pub standing: Standing,
    /// What it takes if it is done.
    pub estimate: Estimate,
}

/// An experiment's plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Name of the experiment.
    pub name: String,
    /// Its trials.
    pub trials: Vec<TrialPlan>,
    /// The rates that the times rest on.
    pub rates: Option<Rates>,
}

impl Plan {
    /// Over all steps that have to be done: largest memory, sums of the rest.
    pub fn total(&self) -> Estimate {
        total(self.trials.iter().flat_map(|t| &t.steps))
    }
}

/// Over the steps that have to be done.
pub fn total<'a>(steps: impl Iterator<Item = &'a Step>) -> Estimate {
    let to_do = steps.filter(|s| s.standing == Standing::Miss).map(|s| s.estimate);
    to_do.reduce(Estimate::and).unwrap_or_default()
}

impl Estimate {
    /// One after the other.
    fn and(self, next: Self) -> Self {
        let larger = if next.memory > self.memory { next } else { self };
        Self {
            memory: larger.memory,
            mapped: larger.mapped,
            disk: self.disk + next.disk,
            flops: self.flops + next.flops,
            seconds: self.seconds.zip(next.seconds).map(|(a, b)| a + b),
        }
    }
}

/// Plans every trial of an experiment.
///
/// # Errors
/// A model whose sizes are not known here, a sparsity out of reach, a schedule without a space, or texts that
/// are there but do not do.
pub fn plan(loaded: &Loaded, options: &Options) -> Result<Plan> {
    let mut planner = planner::Planner::new(loaded, options);
    let trials = loaded.trials.iter().map(|trial| planner.trial(trial)).collect::<Result<_>>()?;
    Ok(Plan { name: loaded.spec.name.clone(), trials, rates: planner.rates() })
}
