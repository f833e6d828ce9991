//! The experiment file as types, one to one with its tables and keys. Values only: rules between keys live in
//! `rules`. Doc comments become the descriptions in the JSON schema and in the reference page.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::last_part;

use super::bench::Bench;

pub use super::export::*;
pub use super::pruning::*;
pub use super::searching::*;

/// Candidates of a generation at most, and generations of a search.
pub const MOST_OFFSPRING: usize = 100_000;
/// Tokens (and documents) of a set at most: 2^40.
pub(super) const MOST_TOKENS: u64 = 1 << 40;
/// Tokens of one sequence at most, and others that no model has more of: 2^24.
pub(super) const MOST_OF_A_MODEL: u32 = 1 << 24;
/// Levels of a module at most: odd, as all numbers of levels.
const MOST_LEVELS: usize = 9_999;
/// Layers of a model, and shots of a task, at most.
const MOST_LAYERS: i64 = 10_000;

/// One experiment after all layers are merged: every key has a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Name of the experiment; results go to `runs/<name>/`.
    pub name: String,
    /// Seed of every random stream.
    pub seed: u64,
    /// Which defaults apply to keys that nothing sets: those that measure best, or the paper's own.
    pub defaults: Defaults,
    /// The dense model to prune.
    pub model: Model,
    /// Text that the Gram matrices (Hessians) of local pruning come from.
    pub calibration: Calibration,
    /// Corpora by name, beside the built-in ones.
    pub corpora: BTreeMap<String, Corpus>,
    /// How much to remove.
    pub sparsity: Sparsity,
    /// Local pruning of one module (paper §2.2).
    pub prune: Prune,
    /// Levels per module and error accumulation (paper §2.3).
    pub supernet: Supernet,
    /// Evolutionary search (paper §2.4, Algorithm 3).
    pub search: Search,
    /// What the search minimises (paper Eq. 6).
    pub fitness: Fitness,
    /// What is measured on the dense and the pruned models.
    pub evaluate: Evaluate,
    /// Forms for other runtimes in which the last model is also written.
    pub export: Export,
    /// Multiple-choice tasks of your own, by name.
    pub tasks: BTreeMap<String, Task>,
}

impl Spec {
    /// The last part of what names the dense model.
    pub fn model_name(&self) -> &str {
        last_part(&self.model.source)
    }

    /// Whether there is a search: from the uniform distribution and without generations, or with layers that stay
    /// alike, there is none.
    pub fn searches(&self) -> bool {
        let moves = self.search.generations > 0 || self.search.start == SearchStart::Sensitivity;
        moves && self.sparsity.shape == SparsityShape::Free
    }

    /// Whether every key/value head of a layer has to keep as many query heads as the others, which whole groups
    /// do anyway.
    pub fn keeps_equal_heads(&self) -> bool {
        let asked = self.prune.align.heads == HeadsPerGroup::Equal;
        let alike = self.sparsity.shape == SparsityShape::Uniform;
        self.prune.unit.attention == AttentionUnit::Head && (asked || alike)
    }
}

/// Which defaults the keys have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Defaults {
    /// What measures best on the models that it was tried on (`docs/choices.md`).
    Measured,
    /// The paper's choice: both saliency terms, the layer target, damping by the arithmetic mean,
    /// `calibration.sink_tokens = 0`, no refit.
    Paper,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// A folder in the Hugging Face layout, `hf:OWNER/NAME[@REVISION]`, or `builtin:quickstart`. A relative
    /// folder is taken from the spec file's folder.
    pub source: String,
    /// Storage dtype of what is written (supernet, pruned model); `auto` keeps the checkpoint's.
    pub dtype: Dtype,
    /// Where to compute. `auto` takes a GPU that the build supports, else the CPU.
    pub device: DeviceChoice,
}

/// Storage dtype.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// The checkpoint's own.
    Auto,
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// bfloat16.
    Bf16,
}

/// Compute device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// A GPU that the build supports and the machine has, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The first CUDA device.
    Cuda,
    /// The first Metal device.
    Metal,
}

/// `[calibration]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// A known corpus or a `[corpora.NAME]` table; its training text is used.
    pub corpus: String,
    /// Tokens in all; a multiple of `sequence_length`.
    #[schemars(range(min = 1, max = MOST_TOKENS), extend("x-unit" = "tokens", "x-paper" = "calibration tokens, 4M"))]
    pub tokens: usize,
    /// Tokens of one sequence, drawn at a random place of the text.
    #[schemars(range(min = 2, max = MOST_OF_A_MODEL), extend("x-unit" = "tokens", "x-paper" = "sequence length, 4096"))]
    pub sequence_length: usize,
    /// Sequences of one token added to the calibration text: its most frequent tokens, each once. In many
    /// models the first token of a text is an attention sink with massive activations; these sequences keep a
    /// pruned model's sinks right for tokens that no sequence starts with.
    #[schemars(range(max = MOST_OF_A_MODEL), extend("x-unit" = "tokens"))]
    pub sink_tokens: usize,
}

/// `[corpora.NAME]`: text files (`.txt`), JSON lines (`.jsonl`) or parquet with a text column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Corpus {
    /// Training text: calibration and search draw from it.
    #[serde(default)]
    pub train: Vec<PathBuf>,
    /// Held-out text: perplexity and KL are measured on it.
    #[serde(default)]
    pub test: Vec<PathBuf>,
    /// Column or field that holds the text, for parquet and JSON lines.
    #[serde(default = "text_column")]
    pub column: String,
    /// Put between documents of a parquet or JSON lines file before tokenisation.
    #[serde(default = "separator")]
    pub separator: String,
}

fn text_column() -> String {
    "text".into()
}

fn separator() -> String {
    "\n\n".into()
}

/// `[sparsity]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sparsity {
    /// Fraction to remove.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0, "x-unit" = "fraction", "x-paper" = "S, overall sparsity"))]
    pub target: f64,
    /// Of what: the parameters that units own (`prunable`), all parameters of the model (`total`), the operations
    /// for one token (`flops`), the bytes that a token takes in the key/value cache (`kv_bytes`), or the time that
    /// this machine takes (`latency`).
    pub basis: Basis,
    /// What is timed with `basis = "latency"`.
    pub latency: Latency,
    /// Whether layers may keep different sizes. `uniform` leaves nothing to search.
    pub shape: SparsityShape,
    /// Whether the search may trade heads for neurons, as long as what is kept costs no more than at the uniform
    /// distribution: parameters, operations with `basis = "flops"`, or time with `basis = "latency"`. Else as many
    /// units of each kind are removed as there (the paper's).
    pub trade: bool,
    /// How the uniform distribution that a search starts from rounds a fraction that is not a whole number of
    /// units per layer. Layers that are to stay alike (`shape`) all lose the same number.
    pub rounding: Rounding,
}

/// `sparsity.latency`: one text whose next tokens are run. One token after many is writing, many after none is
/// reading a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Tokens that are run at once.
    #[schemars(range(min = 1, max = MOST_OF_A_MODEL), extend("x-unit" = "tokens"))]
    pub tokens: usize,
    /// Tokens before them, whose keys and values are in the cache.
    #[schemars(range(max = MOST_OF_A_MODEL), extend("x-unit" = "tokens"))]
    pub context: usize,
}

/// What a sparsity is a fraction of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Parameters that are removed with a head or a neuron.
    Prunable,
    /// All parameters, embeddings included (these are never pruned).
    Total,
    /// Floating-point operations for one token of a text of `calibration.sequence_length`, the output projection
    /// included.
    Flops,
    /// Bytes that a token takes in the key/value cache. Only key/value heads take any, so no neuron is removed;
    /// where query heads share them, whole groups are (`prune.unit.attention = "kv_group"`).
    KvBytes,
    /// Time of a pass (`sparsity.latency`), by a table of what modules of several sizes take on this machine, which
    /// is measured once and stored; the output projection is included. The uniform distribution removes no more
    /// than it must for the time that is left.
    Latency,
}

/// Which sizes the layers of a smaller model may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SparsityShape {
    /// Each layer those that the search finds.
    Free,
    /// All layers the same, as near to the target as whole units come: every runtime of the dense model's
    /// family runs it. Query heads stay equal in number for all key/value heads (`prune.align.heads`).
    Uniform,
}

/// Rounding of the uniform distribution to whole units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rounding {
    /// The total over the layers is right to one unit; layers differ by at most one unit.
    Total,
    /// Every layer loses the same number of units, rounded to nearest (half to even).
    Layer,
}

/// `[supernet]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Supernet {
    /// Levels per module, E of the paper: an odd number, the current one in the middle.
    #[schemars(range(min = 1, max = MOST_LEVELS), extend("x-unit" = "levels", "x-paper" = "E"))]
    pub levels: usize,
    /// What later layers see of a module with several levels.
    #[schemars(extend("x-paper" = "error accumulation, Table 4"))]
    pub accumulation: Accumulation,
    /// Order inside a layer.
    pub sequential: Sequential,
    /// Sparsity between two neighbouring levels, one iteration of the coarse-to-fine schedule each.
    #[schemars(length(min = 1), inner(range(min = 0.0, max = 1.0)), extend("x-unit" = "fraction", "x-paper" = "sparsity interval Δ of each iteration"))]
    pub intervals: Vec<f64>,
    /// Whether the distribution found is pruned once more at the end, each module fitted to the outputs of
    /// the pruned modules before it.
    pub refit: bool,
}

/// Error accumulation (paper §2.3, Table 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Accumulation {
    /// The dense output.
    None,
    /// The output of the level that the current distribution picks.
    Single,
    /// The output of a level drawn at random, per module.
    Random,
    /// The mean output over levels.
    Uniform,
    /// The mean weighted by what a level keeps: (1 − S_e) / Σ(1 − S_e).
    Expectation,
}

/// Order inside a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sequential {
    /// Prune attention, pass its accumulated output on, then collect the MLP's statistics.
    Module,
    /// Collect both modules' statistics with both dense, then prune (the released code).
    Layer,
}

/// `[fitness]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fitness {
    /// What is minimised.
    pub kind: FitnessKind,
    /// Keep the dense model's `top_k` logits and renormalise both sides over them; 0 takes the whole
    /// vocabulary.
    #[schemars(range(max = MOST_OF_A_MODEL), extend("x-unit" = "logits"))]
    pub top_k: usize,
    /// `similarity`: layers whose outputs are compared (negative counts from the end), with their weights α.
    #[schemars(extend("x-paper" = "α of Eq. 6"))]
    pub layers: Vec<LayerWeight>,
    /// `similarity`: weight β of the KL divergence of the logits.
    #[schemars(range(min = 0.0), extend("x-paper" = "β of Eq. 6"))]
    pub logits_weight: f64,
    /// `perplexity`: corpora whose training text is scored; their mean log-perplexity is minimised.
    pub corpora: Vec<String>,
    /// `script`: a Rhai file with `fn fitness(m)`. A relative path is taken from the spec file's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<PathBuf>,
}

/// What the search minimises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FitnessKind {
    /// KL(dense ‖ sparse) of the next-token distributions (the paper's).
    Kl,
    /// Σ α_l ‖h_l dense − h_l sparse‖² + β KL.
    Similarity,
    /// Mean log-perplexity on named corpora.
    Perplexity,
    /// A Rhai function over the same metrics.
    Script,
}

/// A layer of the similarity fitness.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayerWeight {
    /// Index of the layer; −1 is the last.
    #[schemars(range(min = -MOST_LAYERS, max = MOST_LAYERS))]
    pub layer: i64,
    /// α of the layer.
    #[schemars(range(min = 0.0), extend("x-paper" = "α"))]
    pub weight: f64,
}

/// `[evaluate]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// Corpora whose held-out text gives token-level perplexity.
    pub perplexity: Vec<String>,
    /// Tokens of one sequence; sequences lie side by side and every token but a sequence's first is
    /// predicted.
    #[schemars(range(min = 2, max = MOST_OF_A_MODEL), extend("x-unit" = "tokens"))]
    pub sequence_length: usize,
    /// Largest number of tokens of each corpus, from its start; 0 takes all.
    #[schemars(range(max = MOST_TOKENS), extend("x-unit" = "tokens"))]
    pub tokens: usize,
    /// Number of held-out tokens of the first corpus, from its start, that KL(dense ‖ pruned) is measured
    /// on; 0 measures none.
    #[schemars(range(max = MOST_TOKENS), extend("x-unit" = "tokens"))]
    pub kl_tokens: usize,
    /// Tasks, scored as the lm-evaluation-harness scores them.
    pub tasks: Vec<String>,
    /// Largest number of documents of each task; 0 takes all.
    #[schemars(range(max = MOST_TOKENS), extend("x-unit" = "documents"))]
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
    /// Also time the trial's last model beside the dense one: tokens per second, and the time to the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bench: Option<Bench>,
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
    #[schemars(range(max = MOST_LAYERS), extend("x-unit" = "shots"))]
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
