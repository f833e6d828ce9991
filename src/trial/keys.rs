//! What each step's result depends on, as printable values, and the addresses made of them.
//!
//! The runner stores under these keys and the plan looks them up, so the two cannot differ. A key is made of
//! hashes of inputs, of parts of the spec, of the addresses of the steps before, and of the version of what
//! computes it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use safetensors::Dtype;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Build, Evaluation, StepKind};
use crate::base::{Kind, Result, ResultExt, hash};
use crate::eval::{self, Selection};
use crate::model::remote;
use crate::serve;
use crate::space::Budget;
use crate::spec::{Accumulation, Fitness, Form, Prune, Spec, Task};

/// Version of the store's own format: how a folder, its manifest and its key are written. Part of every
/// address. Raise it when these change; what a step computes has a version of its own.
pub const FORMAT: u32 = 2;

/// What computes results, and so has a version: results of another version are never taken for ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Versioned {
    /// How modules of several sizes are timed.
    Latency,
    /// Gram matrices, local pruning, accumulation, and the files of a supernet's levels.
    Supernet,
    /// What single changes cost, the optimum of their sum, and how both are stored.
    Sensitivity,
    /// Offspring, selection, fitness, and the log of generations.
    Search,
    /// Compaction, and the files of a smaller model.
    Model,
    /// Token-level perplexity.
    Perplexity,
    /// Divergence from the dense model.
    Kl,
    /// Native tasks: documents, prompts, scores.
    Tasks,
    /// What the harness is asked, and how its answers are read.
    Harness,
    /// A model's files in another form, and how they are compared with it.
    Export,
    /// What is timed how.
    Bench,
}

impl Versioned {
    /// All of them, in the order of a trial.
    pub const ALL: [Self; 11] = [
        Self::Latency,
        Self::Supernet,
        Self::Sensitivity,
        Self::Search,
        Self::Model,
        Self::Perplexity,
        Self::Kl,
        Self::Tasks,
        Self::Harness,
        Self::Export,
        Self::Bench,
    ];

    /// The table of versions; each is part of the keys of what it computes.
    ///
    /// Raise one whenever the same inputs give other bits, be it by arithmetic (another order of a sum,
    /// another kernel), by random numbers, or by what is written in which form. Raise only those whose own
    /// computation changed: a search's key has the address of its supernet, a model's has it too, and a
    /// measurement's has the hash of the model's files, so what follows is rebuilt where its inputs differ.
    /// The forward pass is part of all but `Model`.
    pub const fn version(self) -> u32 {
        match self {
            Self::Latency => 1,
            Self::Supernet => 2,
            Self::Sensitivity => 2,
            Self::Search => 3,
            Self::Model => 2,
            Self::Perplexity => 1,
            Self::Kl => 1,
            Self::Tasks => 1,
            Self::Harness => 1,
            Self::Export => 2,
            Self::Bench => 2,
        }
    }

    /// As it stands in keys.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Supernet => "supernet",
            Self::Sensitivity => "sensitivity",
            Self::Search => "search",
            Self::Model => "model",
            Self::Perplexity => "perplexity",
            Self::Kl => "kl",
            Self::Tasks => "tasks",
            Self::Harness => "lm_eval",
            Self::Export => "export",
            Self::Bench => "bench",
        }
    }

    /// The kind of step that it computes.
    pub const fn kind(self) -> StepKind {
        match self {
            Self::Latency => StepKind::Latency,
            Self::Supernet => StepKind::Supernet,
            Self::Sensitivity => StepKind::Sensitivity,
            Self::Search => StepKind::Search,
            Self::Model => StepKind::Model,
            Self::Perplexity | Self::Kl | Self::Tasks | Self::Harness | Self::Bench => StepKind::Evaluate,
            Self::Export => StepKind::Export,
        }
    }
}

/// What a result depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    computed: Versioned,
    of: Value,
}

impl Key {
    /// Of what is computed from inputs.
    fn new(computed: Versioned, of: Value) -> Self {
        Self { computed, of }
    }

    /// The kind of step whose result it addresses.
    pub fn kind(&self) -> StepKind {
        self.computed.kind()
    }

    /// All of it as JSON: what is computed, in which version, from what.
    pub fn value(&self) -> Value {
        json!({ "what": self.computed.name(), "version": self.computed.version(), "of": self.of })
    }

    /// The printable address of the result: `<kind>-<hash>`.
    ///
    /// # Errors
    /// [`Kind::Internal`] when the key cannot be written as JSON.
    pub fn address(&self) -> Result<String> {
        let digest = hash::of_json(&(FORMAT, self.value()))?;
        Ok(format!("{}-{}", self.kind(), &digest[..hash::SHORT]))
    }

    /// Of a supernet that depends on nothing but a text, for tests of the store.
    #[cfg(test)]
    pub fn example(of: &str) -> Self {
        Self::new(Versioned::Supernet, json!(of))
    }
}

/// A part of a key as JSON.
///
/// # Errors
/// [`Kind::Internal`] when it cannot be written as JSON.
pub fn value(part: &impl Serialize) -> Result<Value> {
    serde_json::to_value(part).or_error(Kind::Internal, "a cache key cannot be written as JSON")
}

/// Hashes of what a trial starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputHashes {
    /// Of the model's configuration, tokenizer and weights.
    pub model: String,
    /// Of the calibration set.
    pub calibration: String,
    /// Of the search set.
    pub search: String,
    /// Of the texts that fitness corpora are scored on.
    pub corpora: BTreeMap<String, String>,
    /// Of the evaluation sets, by corpus.
    pub evaluation: BTreeMap<String, String>,
    /// Of the fitness script.
    pub script: Option<String>,
    /// Of the task files.
    pub tasks: Option<String>,
    /// Of the files that smaller models take over from the dense one.
    pub companions: String,
    /// What the harness is and reads.
    pub harness: Option<HarnessInputs>,
    /// Of the GGUF file that exports take over from.
    pub gguf_base: Option<String>,
}

/// What the harness's results depend on beside the model and the spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HarnessInputs {
    /// Version of the harness.
    pub version: String,
    /// Hash of the files of its tasks.
    pub files: Option<String>,
}

/// Of what modules of several sizes take. What computed is told in the result and is no part of the key, so that a
/// store that was moved goes on with the times that it began with.
pub fn latencies(input_hashes: &InputHashes, dtype: Dtype, spec: &Spec) -> Key {
    let of = json!({
        "model": input_hashes.model,
        "unit": spec.prune.unit.attention,
        "dtype": format!("{dtype:?}"),
        "pass": spec.sparsity.latency,
        "device": spec.model.device,
    });
    Key::new(Versioned::Latency, of)
}

/// A supernet's: everything that decides its levels. `space` is the space, or a stand-in while it is not
/// known.
pub fn supernet(
    input_hashes: &InputHashes,
    space: &impl Serialize,
    dtype: Dtype,
    spec: &Spec,
    build: &Build,
) -> Result<Key> {
    let accumulation = build.accumulation;
    let seed = (accumulation == Accumulation::Random).then(|| (spec.seed, build.name.to_string()));
    let of = json!({
        "model": input_hashes.model,
        "calibration": input_hashes.calibration,
        "space": value(space)?,
        "prune": pruning(&spec.prune, build.head_groups())?,
        "accumulation": accumulation,
        "sequential": spec.supernet.sequential,
        "dtype": format!("{dtype:?}"),
        "seed": seed,
    });
    Ok(Key::new(Versioned::Supernet, of))
}

/// `[prune]` as far as its method reads it: the method, the units, its own keys, and the groups of heads that
/// lose equally many, where there are any. How many units are kept is the space's matter.
fn pruning(prune: &Prune, head_groups: usize) -> Result<Value> {
    let mut read = value(prune)?;
    if let Some(keys) = read.as_object_mut() {
        let own = prune.method.keys();
        keys.retain(|key, _| ["method", "unit"].contains(&key.as_str()) || own.contains(&key.as_str()));
        if head_groups > 1 {
            keys.insert("head_groups".into(), head_groups.into());
        }
    }
    Ok(read)
}

/// Of what single changes cost in the supernet at an address.
pub fn sensitivities(
    input_hashes: &InputHashes,
    supernet: &str,
    budget: &Budget,
    spec: &Spec,
    iteration: usize,
) -> Result<Key> {
    let of = json!({
        "scored": scored(input_hashes, supernet, spec, iteration),
        "budget": value(budget)?,
        "tokens": spec.search.sensitivity_tokens(),
        "checked": spec.search.sensitivity_check(),
        "rounds": spec.search.sensitivity.rounds,
    });
    Ok(Key::new(Versioned::Sensitivity, of))
}

/// A search's, on the supernet at an address, from the sensitivities at another where it starts from these.
pub fn search(
    input_hashes: &InputHashes,
    supernet: &str,
    sensitivities: Option<&str>,
    budget: &Budget,
    spec: &Spec,
    iteration: usize,
) -> Result<Key> {
    let mut settings = value(&spec.search)?;
    if let Some(keys) = settings.as_object_mut() {
        // The address of the sensitivities says it.
        keys.remove("sensitivity");
        keys.remove("start");
    }
    let of = json!({
        "scored": scored(input_hashes, supernet, spec, iteration),
        "sensitivities": sensitivities,
        "budget": value(budget)?,
        "search": settings,
    });
    Ok(Key::new(Versioned::Search, of))
}

/// What decides the fitness of the candidates of a supernet.
fn scored(input_hashes: &InputHashes, supernet: &str, spec: &Spec, iteration: usize) -> Value {
    // The script counts by its text.
    let fitness = Fitness { script: None, ..spec.fitness.clone() };
    json!({
        "supernet": supernet,
        "fitness": fitness,
        "seed": spec.seed,
        "iteration": iteration,
        "text": input_hashes.search,
        "corpora": input_hashes.corpora,
        "script": input_hashes.script,
    })
}

/// A smaller model's: the supernet and the distribution that picks from it, or a stand-in for that, and the
/// files that it takes over.
pub fn compact(input_hashes: &InputHashes, supernet: &str, distribution: &impl Serialize) -> Result<Key> {
    let of = json!({
        "supernet": supernet,
        "distribution": value(distribution)?,
        "code": hash::of_bytes(remote::CODE.as_bytes()),
        "companions": input_hashes.companions,
    });
    Ok(Key::new(Versioned::Model, of))
}

/// A measurement's, of the model with a hash.
pub fn evaluation(input_hashes: &InputHashes, model: &str, evaluation: &Evaluation, spec: &Spec) -> Key {
    let e = &spec.evaluate;
    let text = evaluation.corpus(spec).and_then(|corpus| input_hashes.evaluation.get(corpus));
    match evaluation {
        Evaluation::Perplexity(corpus) => {
            let of = json!({ "model": model, "text": text, "corpus": corpus });
            Key::new(Versioned::Perplexity, of)
        }
        Evaluation::Kl => {
            let of =
                json!({ "model": model, "dense": input_hashes.model, "text": text, "tokens": e.kl_tokens });
            Key::new(Versioned::Kl, of)
        }
        Evaluation::Tasks => {
            let of = json!({
                "model": model,
                "tasks": e.tasks,
                "limit": e.limit,
                "bos": e.bos,
                "own": own_tasks(spec),
                "files": input_hashes.tasks,
                "companions": input_hashes.companions,
            });
            Key::new(Versioned::Tasks, of)
        }
        Evaluation::Harness => {
            let settings = e.lm_eval.as_ref();
            let of = json!({
                "model": model,
                "tasks": settings.map(|settings| &settings.tasks),
                "shots": settings.map(|settings| settings.num_fewshot),
                "limit": e.limit,
                "bos": e.bos,
                "companions": input_hashes.companions,
                "harness": input_hashes.harness,
            });
            Key::new(Versioned::Harness, of)
        }
        Evaluation::Bench => {
            let of = json!({
                "model": model,
                "dense": input_hashes.model,
                "bench": e.bench,
                "seed": spec.seed,
                "device": spec.model.device,
                "threads": rayon::current_num_threads(),
            });
            Key::new(Versioned::Bench, of)
        }
    }
}

/// An export's, of the model with a hash.
pub fn export(input_hashes: &InputHashes, model: &str, form: Form, spec: &Spec) -> Key {
    let gguf = (form == Form::Gguf).then_some((spec.export.gguf, &input_hashes.gguf_base, spec.model_name()));
    let e = &spec.evaluate;
    let text = e.perplexity.first().and_then(|corpus| input_hashes.evaluation.get(corpus));
    // Without a corpus the text is generated, as much of it as these say.
    let generated = e.perplexity.is_empty().then_some((e.sequence_length, e.tokens));
    let of = json!({
        "model": model,
        "form": form,
        "code": hash::of_bytes(remote::CODE.as_bytes()),
        "gguf": gguf,
        "text": text,
        "generated": generated,
        "companions": input_hashes.companions,
    });
    Key::new(Versioned::Export, of)
}

/// Hash of the GGUF file that an export takes over from; none where no export reads it.
pub fn gguf_base(spec: &Spec) -> Result<Option<String>> {
    let read = spec.export.to.contains(&Form::Gguf);
    spec.export.gguf_base.as_deref().filter(|_| read).map(hash::of_file).transpose()
}

/// How the spec's own tasks are read; what their files hold is hashed apart, wherever they lie.
fn own_tasks(spec: &Spec) -> BTreeMap<&str, Task> {
    let read = |task: &Task| Task { file: PathBuf::new(), ..task.clone() };
    spec.tasks.iter().map(|(name, task)| (name.as_str(), read(task))).collect()
}

/// What the harness is and reads; none where the spec does not ask for it.
///
/// # Errors
/// The harness is not there, or a file that it reads cannot be read.
pub fn harness(spec: &Spec) -> Result<Option<HarnessInputs>> {
    let Some(settings) = &spec.evaluate.lm_eval else { return Ok(None) };
    let files = spec.evaluate.data.as_deref();
    let files = files.map(|data| eval::lm_eval::files_hash(&settings.tasks, data)).transpose()?;
    Ok(Some(HarnessInputs { version: serve::lm_eval::version(settings)?, files }))
}

/// Hash of the files of the native tasks; none without tasks.
///
/// # Errors
/// A task file is not there.
pub fn task_files(spec: &Spec) -> Result<Option<String>> {
    let hash = || Selection::of(spec)?.hash(spec.evaluate.data.as_deref());
    (!spec.evaluate.tasks.is_empty()).then(hash).transpose()
}

/// Hash of the fitness script's text, which decides the search as much as the spec does.
pub fn script(spec: &Spec) -> Result<Option<String>> {
    spec.fitness.script.as_deref().map(hash::of_file).transpose()
}

#[cfg(test)]
mod tests;
