//! What is measured: `[evaluate]`, `[evaluate.lm_eval]` and `[tasks.NAME]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[evaluate]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// Corpora whose held-out text gives token-level perplexity.
    pub perplexity: Vec<String>,
    /// Tokens of one sequence; sequences lie side by side and every token but a sequence's first is predicted.
    #[schemars(range(min = 2), extend("x-unit" = "tokens"))]
    pub sequence_length: usize,
    /// Largest number of tokens of each corpus, from its start; 0 takes all.
    #[schemars(extend("x-unit" = "tokens"))]
    pub tokens: usize,
    /// Number of held-out tokens of the first corpus, from its start, that KL(dense ‖ pruned) is measured on; 0
    /// measures none.
    #[schemars(extend("x-unit" = "tokens"))]
    pub kl_tokens: usize,
    /// Tasks, scored as the lm-evaluation-harness scores them.
    pub tasks: Vec<String>,
    /// Largest number of documents of each task; 0 takes all.
    #[schemars(extend("x-unit" = "documents"))]
    pub limit: usize,
    /// Put the tokenizer's BOS before every task request.
    pub bos: bool,
    /// Folder with the task files, laid out as on the hub. A relative path is taken from the spec file's
    /// folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Also run tasks through the lm-evaluation-harness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lm_eval: Option<LmEval>,
}

/// `[evaluate.lm_eval]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LmEval {
    /// Address of a running adapter service; absent, `tyr` starts one on loopback and stops it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Python interpreter that has the harness, for the service that `tyr` starts.
    #[serde(default = "python")]
    pub python: String,
    /// Task names of the harness.
    pub tasks: Vec<String>,
    /// Shots; absent, each task's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-unit" = "shots"))]
    pub num_fewshot: Option<usize>,
}

fn python() -> String {
    "python3".into()
}

/// `[tasks.NAME]`: a multiple-choice file of your own (JSON lines or parquet).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The file. A relative path is taken from the spec file's folder.
    pub file: PathBuf,
    /// Field with the context.
    pub context: String,
    /// Field with the list of choices.
    pub choices: String,
    /// Field with the index of the right choice.
    pub gold: String,
}
