//! What an experiment will do and cost, before it runs: trials, steps with their cache keys, parameters
//! before and after, and estimates of memory, disk, operations and time. Nothing is run, fetched or stored.
//!
//! The steps are those of [`crate::trial::walk`], which a run executes; what each costs is said beside the
//! code that does it. Here are the rates that make times of costs, their sums, and how a plan reads.
//!
//! It works from a configuration alone. With the model and the texts on disk, steps also get the very keys
//! that a run stores under, and are looked up in the store of an earlier run.

mod estimator;
mod evaluating;
pub mod facts;
pub mod inputs;
mod known_model;
mod planner;
mod rates;
mod render;
mod shapes;
mod size;
mod texts;
mod timing;
mod trial;

#[cfg(test)]
mod tests;

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use serde::{Serialize, Serializer};

pub use rates::{Machine, Rates};
pub use render::text;
pub use trial::{Count, IterationPlan, TokenCounts, TrialPlan};

use crate::base::Result;
use crate::spec::Loaded;
use crate::trial::{ModelName, StepName};

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
pub enum StepKey {
    /// The address that a run stores it under.
    Known(String),
    /// It depends on something that is not there yet.
    Waits(Missing),
    /// The step stores nothing.
    None,
}

/// What is not there, so that a key cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// The model's files.
    Model,
    /// The texts.
    Texts,
    /// The files of the tasks.
    TaskFiles,
    /// The harness, or files of its tasks.
    Harness,
    /// Nothing: they were not read, because that takes a while or is not wanted.
    NotLookedUp,
    /// The result of a step before.
    After(StepName),
}

impl Display for Missing {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match self {
            Self::Model => f.write_str("needs the model"),
            Self::Texts => f.write_str("needs the texts"),
            Self::TaskFiles => f.write_str("needs the task files"),
            Self::Harness => f.write_str("needs the harness"),
            Self::NotLookedUp => f.write_str("not looked up"),
            Self::After(step) => write!(f, "after {step}"),
        }
    }
}

impl Serialize for Missing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
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
pub struct StepCost {
    /// Peak resident memory, bytes.
    pub memory: f64,
    /// Of it, mapped files: the system takes these back when it needs room.
    pub mapped: f64,
    /// Bytes that stay on disk.
    pub disk: f64,
    /// Bytes that lie on disk while it is done, and are removed.
    pub meanwhile: f64,
    /// Floating-point operations.
    pub flops: f64,
    /// Wall time, where rates are known.
    pub seconds: Option<f64>,
}

/// One step of a trial, by the name that a run gives it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// As in a run's event log.
    pub name: StepName,
    /// The model that it belongs to.
    pub model: Option<ModelName>,
    /// Its key.
    pub key: StepKey,
    /// Whether it is cached.
    pub standing: Standing,
    /// What it takes if it is done.
    pub estimate: StepCost,
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
    /// The machine, where the rates were measured on it.
    pub machine: Option<Machine>,
}

impl Plan {
    /// Over all steps that have to be done: largest memory and largest passing files, sums of the rest.
    pub fn total(&self) -> StepCost {
        total(self.trials.iter().flat_map(|t| &t.steps))
    }
}

/// Over the steps that have to be done.
pub fn total<'a>(steps: impl Iterator<Item = &'a Step>) -> StepCost {
    let to_do = steps.filter(|s| s.standing == Standing::Miss).map(|s| s.estimate);
    to_do.reduce(StepCost::and).unwrap_or_default()
}

impl StepCost {
    /// One after the other.
    fn and(self, next: Self) -> Self {
        let larger = if next.memory > self.memory { next } else { self };
        Self {
            memory: larger.memory,
            mapped: larger.mapped,
            disk: self.disk + next.disk,
            meanwhile: self.meanwhile.max(next.meanwhile),
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
    let rates = planner.rates();
    let measured = rates.filter(|_| options.speed == Speed::Measured);
    let machine = measured.map(|rates| Machine::of_products(rates.per_second().products));
    Ok(Plan { name: loaded.spec.name.clone(), trials, rates, machine })
}
