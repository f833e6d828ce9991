//! What each step's result depends on, as printable values, and the addresses made of them.
//!
//! The runner stores under these keys and the plan looks them up, so the two cannot differ. A key is made of
//! hashes of inputs, of parts of the spec, of the addresses of the steps before, and of the version of what
//! computes it.

use std::collections::BTreeMap;

use safetensors::Dtype;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Evaluation, StepKind, SupernetName};
use crate::base::{Kind, Result, ResultExt, hash};
use crate::eval::Selection;
use crate::spec::{Accumulation, Prune, Spec};

/// Version of the store's own format: how a folder, its manifest and its key are written. Part of every
/// address. Raise it when these change; what a step computes has a version of its own.
pub const FORMAT: u32 = 2;

/// What computes results, and so has a version: results of another version are never taken for ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Versioned {
    /// Gram matrices, local pruning, accumulation, and the files of a supernet's levels.
    Supernet,
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
}

impl Versioned {
    /// All of them, in the order of a trial.
    pub const ALL: [Self; 7] =
        [Self::Supernet, Self::Search, Self::Model, Self::Perplexity, Self::Kl, Self::Tasks, Self::Harness];

    /// The table of versions; each is part of the keys of what it computes.
    ///
    /// Raise one whenever the same inputs give other bits, be it by arithmetic (another order of a sum,
    /// another kernel), by random numbers, or by what is written in which form. Raise only those whose own
    /// computation changed: a search's key has the address of its supernet, a model's has it too, and a
    /// measurement's has the hash of the model's files, so what follows is rebuilt where its inputs differ.
    /// The forward pass is part of all but `Model`.
    pub const fn version(self) -> u32 {
        match self {
            Self::Supernet => 2,
            Self::Search => 1,
            Self::Model => 1,
            Self::Perplexity => 1,
            Self::Kl => 1,
            Self::Tasks => 1,
            Self::Harness => 1,
        }
    }

    /// As it stands in keys.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Supernet => "supernet",
            Self::Search => "search",
            Self::Model => "model",
            Self::Perplexity => "perplexity",
            Self::Kl => "kl",
            Self::Tasks => "tasks",
            Self::Harness => "lm_eval",
        }
    }

    /// The kind of step that it computes.
    pub const fn kind(self) -> StepKind {
        match self {
            Self::Supernet => StepKind::Supernet,
            Self::Search => StepKind::Search,
            Self::Model => StepKind::Model,
            Self::Perplexity | Self::Kl | Self::Tasks | Self::Harness => StepKind::Evaluate,
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
}

/// A supernet's: everything that decides its levels. `space` is the space, or a stand-in while it is not
/// known.
pub fn supernet(
    input_hashes: &InputHashes,
    space: &impl Serialize,
    dtype: Dtype,
    spec: &Spec,
    accumulation: Accumulation,
    name: SupernetName,
) -> Result<Key> {
    let seed = (accumulation == Accumulation::Random).then(|| (spec.seed, name.to_string()));
    let of = json!({
        "model": input_hashes.model,
        "calibration": input_hashes.calibration,
        "space": value(space)?,
        "prune": pruning(&spec.prune)?,
        "accumulation": accumulation,
        "sequential": spec.supernet.sequential,
        "dtype": format!("{dtype:?}"),
        "seed": seed,
    });
    Ok(Key::new(Versioned::Supernet, of))
}

/// `[prune]` as far as its method reads it: the method, the units, and its own keys.
fn pruning(prune: &Prune) -> Result<Value> {
    let mut read = value(prune)?;
    if let Some(keys) = read.as_object_mut() {
        let own = prune.method.keys();
        keys.retain(|key, _| ["method", "unit"].contains(&key.as_str()) || own.contains(&key.as_str()));
    }
    Ok(read)
}

/// A search's, on the supernet at an address.
pub fn search(input_hashes: &InputHashes, supernet: &str, spec: &Spec, iteration: usize) -> Key {
    let of = json!({
        "supernet": supernet,
        "search": spec.search,
        "fitness": spec.fitness,
        "seed": spec.seed,
        "iteration": iteration,
        "text": input_hashes.search,
        "corpora": input_hashes.corpora,
        "script": input_hashes.script,
    });
    Key::new(Versioned::Search, of)
}

/// A smaller model's: the supernet and the distribution that picks from it, or a stand-in for that.
pub fn compact(supernet: &str, distribution: &impl Serialize) -> Result<Key> {
    let of = json!({ "supernet": supernet, "distribution": value(distribution)? });
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
                "data": e.data,
                "own": spec.tasks,
                "files": input_hashes.tasks,
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
                "data": e.data,
            });
            Key::new(Versioned::Harness, of)
        }
    }
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
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::spec::{self, AttentionUnit, Known, Method};

    #[test]
    fn an_address_depends_on_what_is_computed_and_from_what() {
        let address = |computed, of: i32| Key::new(computed, json!(of)).address().unwrap();
        assert_eq!(address(Versioned::Kl, 1), address(Versioned::Kl, 1));
        assert_ne!(address(Versioned::Kl, 1), address(Versioned::Kl, 2));
        assert_ne!(address(Versioned::Kl, 1), address(Versioned::Tasks, 1));
        assert!(address(Versioned::Kl, 1).starts_with("evaluate-"));
        assert!(address(Versioned::Search, 1).starts_with("search-"));
    }

    #[test]
    fn a_supernet_depends_on_what_its_method_reads_of_prune() {
        let parsed = |text: &str| {
            let known = Known {
                corpora: &["quickstart"],
                tasks: &[],
                script: |_, _| Ok(()),
                inputs: |_| crate::spec::Inputs::default(),
            };
            spec::parse(text, "spec.toml", &known).unwrap().spec
        };
        let mut spec = parsed("[prune]\nmethod = \"obs\"");
        assert_eq!(pruning(&spec.prune).unwrap(), value(&spec.prune).unwrap());
        let read = |prune: &Prune| pruning(prune).unwrap();
        let obs = read(&spec.prune);
        spec.prune.damping *= 2.0;
        assert_ne!(read(&spec.prune), obs);
        spec.prune.method = Method::Magnitude;
        let magnitude = read(&spec.prune);
        assert_eq!(magnitude, json!({ "method": "magnitude", "unit": spec.prune.unit }));
        spec.prune.damping *= 2.0;
        assert_eq!(read(&spec.prune), magnitude);
        spec.prune.unit.attention = match spec.prune.unit.attention {
            AttentionUnit::Head => AttentionUnit::KvGroup,
            AttentionUnit::KvGroup => AttentionUnit::Head,
        };
        assert_ne!(read(&spec.prune), magnitude);
    }

    #[test]
    fn no_two_have_the_same_name() {
        let names: BTreeSet<&str> = Versioned::ALL.iter().map(|computed| computed.name()).collect();
        assert_eq!(names.len(), Versioned::ALL.len());
    }

    #[test]
    fn a_version_is_part_of_the_key() {
        let key = Key::new(Versioned::Kl, json!(1)).value();
        assert_eq!(key["version"], Versioned::Kl.version());
    }
}
