//! Events: what happens in a run, the only wire from the runner to bars, tables and plots. [`super::log`] keeps
//! them in files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::figure::ResultRow;
use crate::search::GenerationRecord;
use crate::space::{Shape, SparsityDistribution};

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A run begins; its trials in the order of the sweep.
    RunStarted {
        /// Name of the experiment.
        run: String,
        /// Labels of the trials.
        trials: Vec<String>,
        /// What it is started from; absent in logs of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<Origin>,
    },
    /// A run is over; this many of its trials failed.
    RunFinished {
        /// Name of the experiment.
        run: String,
        /// Trials that failed.
        failed: usize,
    },
    /// A trial begins, or goes on after an interruption. What is told of it from here on replaces what was
    /// told before.
    TrialStarted {
        /// The trial's label.
        trial: String,
        /// The experiment that it is of; absent in logs of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        identity: Option<Identity>,
    },
    /// A trial is complete.
    TrialFinished {
        /// The trial's label.
        trial: String,
    },
    /// A trial stopped with an error.
    TrialFailed {
        /// The trial's label.
        trial: String,
        /// What went wrong, where, and what to do.
        error: String,
    },
    /// A step begins, named as [`crate::trial::StepName`] prints itself.
    StepStarted {
        /// The trial's label.
        trial: String,
        /// The step by name.
        step: String,
        /// Address of the step's result in the store.
        key: String,
    },
    /// A step is over.
    StepFinished {
        /// The trial's label.
        trial: String,
        /// The model that it belongs to, where there is one.
        model: Option<String>,
        /// The step by name.
        step: String,
        /// Address of the step's result in the store.
        key: String,
        /// Whether the result was there already.
        cache: Cache,
        /// Wall time.
        seconds: f64,
        /// Peak resident memory; absent where the system does not tell.
        peak_bytes: Option<u64>,
    },
    /// The progress of the work inside a step, reported every few seconds.
    Progress {
        /// The trial's label.
        trial: String,
        /// The work by name.
        what: String,
        /// Units that are done.
        done: u64,
        /// All units; 0 where nobody knows.
        units: u64,
    },
    /// A generation of the search is done.
    Generation {
        /// The trial's label.
        trial: String,
        /// Iteration of the coarse-to-fine schedule, from 1.
        iteration: usize,
        /// The generation in a few numbers.
        summary: GenerationSummary,
    },
    /// A figure was measured; a later one of the same name replaces it.
    FigureMeasured {
        /// The figure.
        figure: ResultRow,
    },
    /// The distribution of a model is known.
    DistributionFound {
        /// The trial's label.
        trial: String,
        /// The model by name.
        model: String,
        /// The dense model's shape.
        shape: Shape,
        /// What is removed from each module.
        distribution: SparsityDistribution,
    },
    /// Something worth knowing.
    Note {
        /// The trial that it is about, where it is about one.
        trial: Option<String>,
        /// A sentence.
        message: String,
    },
    /// A line of the log was damaged and is left out; running on tells again what it told.
    LineDamaged {
        /// The file and the number of the line.
        place: String,
    },
    /// Something to look at, though nothing failed.
    Warning {
        /// The trial that it is about, where it is about one.
        trial: Option<String>,
        /// A sentence.
        message: String,
    },
}

impl Event {
    /// The trial that it is about.
    pub fn trial(&self) -> Option<&str> {
        match self {
            Event::RunStarted { .. } | Event::RunFinished { .. } | Event::LineDamaged { .. } => None,
            Event::Note { trial, .. } | Event::Warning { trial, .. } => trial.as_deref(),
            Event::FigureMeasured { figure } => Some(&figure.trial),
            Event::TrialStarted { trial, .. }
            | Event::TrialFinished { trial }
            | Event::TrialFailed { trial, .. }
            | Event::StepStarted { trial, .. }
            | Event::StepFinished { trial, .. }
            | Event::Progress { trial, .. }
            | Event::Generation { trial, .. }
            | Event::DistributionFound { trial, .. } => Some(trial),
        }
    }
}

/// What a run is started from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The experiment's file, absolute.
    pub file: String,
    /// The profile that was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Hash of the experiment without its sweep.
    pub base: String,
    /// The experiment of each trial, in the order of the trials.
    pub trials: Vec<Identity>,
}

/// The experiment that a trial is of, as hashes of its keys and values, and of what it reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Of the experiment without its sweep.
    pub base: String,
    /// Of the trial's own.
    pub own: String,
    /// Of the contents of what the experiment names, by name; none in logs of earlier versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contents: BTreeMap<String, String>,
}

impl Identity {
    /// Whether everything that both read has the same contents, so that figures of both may stand in one table.
    pub fn agrees(&self, other: &Self) -> bool {
        self.contents.iter().all(|(name, hash)| other.contents.get(name).is_none_or(|there| there == hash))
    }
}

/// Whether a step's result was there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cache {
    /// It was read from the store.
    Hit,
    /// It was computed.
    Miss,
}

/// A generation in a few numbers; the search's own log keeps the candidates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationSummary {
    /// Generation, from 1.
    pub generation: usize,
    /// Fitness of the winner in the last stage; absent when it is not a finite number.
    pub fitness: Option<f64>,
    /// Fitness of the parent on the same tokens; absent when it is not a finite number.
    pub parent_fitness: Option<f64>,
    /// Distinct offspring.
    pub offspring: usize,
    /// Candidates scored, one entry per stage.
    pub evaluated: Vec<usize>,
}

impl From<&GenerationRecord> for GenerationSummary {
    fn from(record: &GenerationRecord) -> Self {
        Self {
            generation: record.generation,
            fitness: record.fitness,
            parent_fitness: record.parent_fitness,
            offspring: record.offspring,
            evaluated: record.stages.iter().map(|s| s.candidates).collect(),
        }
    }
}
