//! What each step's result depends on, as printable values, and the addresses made of them.
//!
//! The runner stores under these keys and the plan looks them up, so the two cannot differ. A key is made of
//! hashes of inputs, of parts of the spec, and of the addresses of the steps before.

use std::collections::BTreeMap;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::{Kind, Result, ResultExt, hash};
use crate::eval::Selection;
use crate::spec::{Accumulation, Spec};

/// Version of the stored formats; part of every address, so that another version's results are never taken
/// for ours.
pub const VERSION: u32 = 1;

/// Name of the file that makes a step's folder a finished result.
pub const MANIFEST: &str = "manifest.json";

/// What a finished result consists of.
#[derive(Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`] when it was written.
    pub version: u32,
    /// Name of the step.
    pub step: String,
    /// What the result depends on.
    pub key: Value,
    /// Hash of every file.
    pub files: BTreeMap<String, String>,
}

/// The printable address of the result of a `kind` of step that depends on `key`: `<kind>-<hash>`.
///
/// # Errors
/// [`Kind::Internal`] when the key cannot be written as JSON.
pub fn address(kind: &str, key: &impl Serialize) -> Result<String> {
    let digest = hash::of_json(&(VERSION, kind, &value(key)?))?;
    Ok(format!("{kind}-{}", &digest[..hash::SHORT]))
}

/// A key as JSON.
///
/// # Errors
/// As [`address`].
pub fn value(key: &impl Serialize) -> Result<Value> {
    serde_json::to_value(key).or_error(Kind::Internal, "a cache key cannot be written as JSON")
}

/// Hashes of what a trial starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// Of the model's configuration, tokenizer and weights.
    pub model: String,
    /// Of the calibration set.
    pub calibration: String,
    /// Of the search set.
    pub search: String,
    /// Of the fitness corpora's search sets.
    pub corpora: BTreeMap<String, String>,
    /// Of the fitness script.
    pub script: Option<String>,
    /// Of the task files.
    pub tasks: Option<String>,
}

/// A supernet's: everything that decides its levels. `space` is the space, or a stand-in while it is not
/// known. `name` is the iteration, or `refit`.
pub fn supernet(
    roots: &Roots,
    space: &impl Serialize,
    dtype: Dtype,
    spec: &Spec,
    accumulation: Accumulation,
    name: &str,
) -> Result<Value> {
    let seed = (accumulation == Accumulation::Random).then_some((spec.seed, name));
    Ok(json!({
        "model": roots.model, "calibration": roots.calibration, "space": value(space)?, "prune": spec.prune,
        "accumulation": accumulation, "sequential": spec.supernet.sequential, "dtype": format!("{dtype:?}"), "seed": seed,
    }))
}

/// A search's, on the supernet at an address.
pub fn search(roots: &Roots, supernet: &str, spec: &Spec, iteration: usize) -> Value {
    json!({
        "supernet": supernet, "search": spec.search, "fitness": spec.fitness, "seed": spec.seed,
        "iteration": iteration, "text": roots.search, "corpora": roots.corpora, "script": roots.script,
    })
}

/// A smaller model's: the supernet and the distribution that picks from it.
pub fn compact(supernet: &str, distribution: &impl Serialize) -> Result<Value> {
    Ok(json!({ "supernet": supernet, "distribution": value(distribution)? }))
}

/// A perplexity's, of the model with a hash on the evaluation set with a hash.
pub fn perplexity(model: &str, corpus: &str, text: &str) -> Value {
    evaluation(&format!("perplexity/{corpus}"), json!({ "model": model, "text": text, "corpus": corpus }))
}

/// A divergence's from the dense model.
pub fn kl(model: &str, dense: &str, text: &str, spec: &Spec) -> Value {
    evaluation(
        "kl",
        json!({ "model": model, "dense": dense, "text": text, "tokens": spec.evaluate.kl_tokens }),
    )
}

/// The tasks'.
pub fn tasks(roots: &Roots, model: &str, spec: &Spec) -> Value {
    let e = &spec.evaluate;
    let named = &e.tasks;
    let own = &spec.tasks;
    evaluation(
        "tasks",
        json!({ "model": model, "tasks": named, "limit": e.limit, "bos": e.bos, "data": e.data, "own": own, "files": roots.tasks }),
    )
}

/// The harness's; none where the spec does not ask for it.
pub fn harness(model: &str, spec: &Spec) -> Option<Value> {
    let e = &spec.evaluate;
    let settings = spec.evaluate.lm_eval.as_ref()?;
    let of = json!({ "model": model, "tasks": settings.tasks, "shots": settings.num_fewshot, "limit": e.limit, "bos": e.bos, "data": e.data });
    Some(evaluation("lm_eval", of))
}

fn evaluation(what: &str, of: Value) -> Value {
    json!({ "what": what, "of": of })
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
    use super::*;

    #[test]
    fn an_address_depends_on_kind_and_key() {
        assert_eq!(address("a", &1).unwrap(), address("a", &1).unwrap());
        assert_ne!(address("a", &1).unwrap(), address("a", &2).unwrap());
        assert_ne!(address("a", &1).unwrap(), address("b", &1).unwrap());
        assert!(address("search", &1).unwrap().starts_with("search-"));
    }
}
