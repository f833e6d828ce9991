//! What the adapter service and its client say to each other, version 1: JSON over HTTP.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::API;
use crate::base::{Error, Estimate, Kind};

/// A job: tasks to be run against a completions server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    /// Version of the wire.
    pub api: u64,
    /// The same key gives the same job, so that a request may be sent again.
    pub key: String,
    /// Task names of the harness.
    pub tasks: Vec<String>,
    /// Shots; absent, each task's own.
    pub num_fewshot: Option<usize>,
    /// At most so many documents of each task.
    pub limit: Option<usize>,
    /// Whether each document's record is wanted.
    pub samples: bool,
    /// The completions server.
    pub model: Endpoint,
    /// Who tokenises.
    pub tokenizer: TokenizerChoice,
    /// How requests are sent.
    pub run: Run,
    /// Where data sets are.
    pub data: Data,
}

/// A completions server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Endpoint {
    /// The model's name there.
    pub name: String,
    /// The full address of its completions.
    pub completions_url: String,
    /// Its bearer token.
    pub api_key: Option<String>,
    /// The model's context, tokens.
    pub context_len: usize,
}

/// Who tokenises for the harness.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "backend", rename_all = "lowercase")]
pub enum TokenizerChoice {
    /// The completions server's own routes. No BOS is added.
    Remote {
        /// What stands for an empty context.
        prefix_token_id: Option<u32>,
    },
    /// The `transformers` package, from a model folder.
    HuggingFace {
        /// The folder.
        path: PathBuf,
        /// Whether a BOS is put before every text.
        add_bos: bool,
        /// What stands for an empty context.
        prefix_token_id: Option<u32>,
    },
}

/// How requests are sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Prompts per request.
    pub batch_size: usize,
    /// Requests at once.
    pub num_concurrent: usize,
    /// Seconds for one request.
    pub timeout_s: u64,
    /// Attempts of one request.
    pub max_retries: usize,
}

impl Default for Run {
    fn default() -> Self {
        Self { batch_size: 32, num_concurrent: 1, timeout_s: 3600, max_retries: 3 }
    }
}

/// Where data sets are.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Data {
    /// Absolute path of a folder laid out as on the hub.
    pub root: Option<PathBuf>,
    /// Absolute path of a folder with task files of the user's own.
    pub include_path: Option<PathBuf>,
}

impl Job {
    /// A job with the usual settings.
    pub fn new(
        key: impl Into<String>,
        tasks: &[String],
        model: Endpoint,
        tokenizer: TokenizerChoice,
    ) -> Self {
        Self {
            api: API,
            key: key.into(),
            tasks: tasks.to_vec(),
            num_fewshot: None,
            limit: None,
            samples: false,
            model,
            tokenizer,
            run: Run::default(),
            data: Data::default(),
        }
    }
}

/// Answer of `/v1/health`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Health {
    /// Version of the wire.
    pub api: u64,
    /// The harness.
    pub lm_eval: String,
}

/// Answer to a job.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Submitted {
    /// Its id.
    pub job_id: String,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Status {
    /// queued, running, succeeded, failed or cancelled.
    pub state: String,
    /// Of a job that failed.
    pub error: Option<Problem>,
}

impl Status {
    pub(super) fn failure(self) -> Error {
        self.error.map_or_else(
            || Error::new(Kind::Network, "the lm-eval job failed and says nothing about why"),
            Problem::into_error,
        )
    }
}

/// An error of the service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Problem {
    /// What kind.
    pub code: String,
    /// In words.
    pub message: String,
    /// More, for example the harness's last lines.
    pub detail: Option<serde_json::Value>,
}

/// An answer that is an error.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    /// The error.
    pub error: Problem,
}

impl Problem {
    /// As ours.
    pub fn into_error(self) -> Error {
        let (kind, hint) = match self.code.as_str() {
            "busy" => {
                (Kind::Busy, "another job is running on this service: wait for it, or start another service")
            }
            "unauthorized" => (Kind::Network, "the service wants the token of its TYR_LM_EVAL_TOKEN"),
            "api_version" => (Kind::Network, "update scripts/lm_eval_service on the service's side"),
            "unknown_task" => (Kind::Spec, "evaluate.lm_eval.tasks takes the harness's own task names"),
            "unsupported" | "bad_request" => (Kind::Spec, "change evaluate.lm_eval or evaluate.bos"),
            "dataset_missing" => (
                Kind::Data,
                "the harness works offline: put the data set under evaluate.data, laid out as on the hub",
            ),
            "model_unreachable" => {
                (Kind::Network, "the service must be able to reach the completions server of this machine")
            }
            _ => (Kind::Network, "run the harness by hand to see more"),
        };
        let last = self
            .detail
            .as_ref()
            .and_then(|d| d.as_str())
            .and_then(|d| d.lines().rfind(|l| !l.trim().is_empty()))
            .map(String::from);
        let error = Error::new(kind, format!("the lm-eval service says: {}", self.message)).hint(hint);
        match last.filter(|last| !self.message.contains(last.trim())) {
            Some(last) => error.at(last),
            None => error,
        }
    }
}

/// Counts of a task's documents.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Documents {
    /// Those that were scored.
    pub effective: usize,
}

/// Answer of `/result`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ResultBody {
    /// Task, metric, value.
    pub results: BTreeMap<String, BTreeMap<String, Estimate>>,
    /// The same of groups.
    #[serde(default)]
    pub groups: BTreeMap<String, BTreeMap<String, Estimate>>,
    /// Members of groups: tasks and further groups.
    #[serde(default)]
    pub group_tasks: BTreeMap<String, Vec<String>>,
    /// Documents of tasks.
    #[serde(default)]
    pub n_samples: BTreeMap<String, Documents>,
    /// Versions of tasks.
    #[serde(default)]
    pub task_versions: BTreeMap<String, serde_json::Value>,
}

impl ResultBody {
    /// Documents of a task, or of all tasks of a group.
    pub fn documents(&self, name: &str) -> usize {
        match (self.n_samples.get(name), self.group_tasks.get(name)) {
            (Some(n), _) => n.effective,
            (None, Some(members)) => members.iter().filter(|m| *m != name).map(|m| self.documents(m)).sum(),
            (None, None) => 0,
        }
    }
}

/// One document's record.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SampleLine {
    /// Place in the task.
    pub doc_id: usize,
    /// One per choice.
    pub requests: Vec<SampleRequest>,
    /// SHA-256 of the first request's context.
    pub prompt_hash: String,
    /// Values of the document's metrics.
    pub metrics: BTreeMap<String, serde_json::Value>,
}

/// One scored choice.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SampleRequest {
    /// What precedes it.
    pub context: String,
    /// What is scored.
    pub continuation: Option<String>,
    /// Its log-likelihood, nats.
    pub loglikelihood: Option<f64>,
    /// Whether every token was the likeliest.
    pub greedy: Option<bool>,
}
