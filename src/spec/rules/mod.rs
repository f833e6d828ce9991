//! Rules between keys, each with its reason. They see one resolved trial and nothing else: no file is read
//! here.

mod bench;
mod corpora;
mod export;
mod files;
mod inputs;
mod search;
pub(crate) mod unused;

use super::finding::{Finding, Severity};
use super::key::KeyPath;
use super::load::Files;
use super::repeated::repeated;
use super::script::CheckScript;
use super::types::{Evaluate, Fitness, FitnessKind, Method, Prune, Spec};

pub use inputs::{Inputs, LookAtInputs, ModelSizes};

/// What other modules provide; the spec itself does not depend on them.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Corpora built into the binary; each has a training and a test text.
    pub corpora: &'a [&'a str],
    /// Tasks that `evaluate.tasks` may name.
    pub tasks: &'a [&'a str],
    /// What checks a fitness script.
    pub script: CheckScript,
    /// What looks at the model and the files of tasks.
    pub inputs: LookAtInputs,
}

/// A broken rule, with the keys that it is about; the first one that the user wrote is shown.
#[derive(Debug, Clone)]
pub(crate) struct Issue {
    /// What is wrong.
    pub finding: Finding,
    /// Keys to point at, the likeliest culprit first.
    pub keys: Vec<KeyPath>,
    /// Whether it counts only where somebody wrote one of the keys: a default is no culprit.
    pub if_written: bool,
}

/// The issues found so far.
#[derive(Debug, Default)]
struct Issues(Vec<Issue>);

impl Issues {
    fn error(&mut self, keys: &[KeyPath], message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Error, keys, message.into(), hint.into());
    }

    fn warning(&mut self, keys: &[KeyPath], message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Warning, keys, message.into(), hint.into());
    }

    fn add(&mut self, severity: Severity, keys: &[KeyPath], message: String, hint: String) {
        let key = keys.first().cloned().unwrap_or_default();
        let hint = Some(hint).filter(|hint| !hint.is_empty());
        let finding = Finding { severity, key, message, hint, at: None };
        self.0.push(Issue { finding, keys: keys.to_vec(), if_written: false });
    }

    /// Warns of a key where somebody wrote it.
    fn if_written(&mut self, key: KeyPath, message: impl Into<String>, hint: impl Into<String>) {
        self.warning(&[key], message, hint);
        self.0.iter_mut().last().into_iter().for_each(|issue| issue.if_written = true);
    }
}

/// Paths from dotted names.
fn keys<const N: usize>(dotted: [&str; N]) -> [KeyPath; N] {
    dotted.map(KeyPath::of)
}

/// All rules on one experiment whose paths are absolute.
pub(crate) fn check(spec: &Spec, known: &Known, files: Files, inputs: &Inputs) -> Vec<Issue> {
    let mut issues = Issues::default();
    name(spec, &mut issues);
    model(spec, &mut issues);
    prune(spec, &mut issues);
    search::check(spec, &mut issues);
    fitness(spec, &mut issues);
    corpora::check(spec, known, &mut issues);
    evaluate(spec, known, &mut issues);
    bench::check(spec, &mut issues);
    export::check(spec, &mut issues);
    files::check(spec, known, files, &mut issues);
    inputs::check(spec, inputs, &mut issues);
    unused::check(spec, &mut issues);
    issues.0
}

/// Bytes of the longest name of a folder on usual file systems.
const LONGEST_NAME: usize = 255;

/// The name is a folder under `runs/`.
fn name(spec: &Spec, issues: &mut Issues) {
    let safe = |c: char| c.is_alphanumeric() || "._-+ ".contains(c);
    let bad = spec.name.trim().is_empty() || spec.name.starts_with('.') || !spec.name.chars().all(safe);
    if bad {
        let message = format!("\"{}\" cannot name the folder of the results", spec.name);
        issues.error(
            &keys(["name"]),
            message,
            "use letters, digits, spaces and ._-+, not starting with a dot",
        );
    }
    if spec.name.len() > LONGEST_NAME {
        let message = format!("a name of {} bytes cannot name the folder of the results", spec.name.len());
        issues.error(&keys(["name"]), message, format!("file systems take {LONGEST_NAME} bytes"));
    }
}

fn model(spec: &Spec, issues: &mut Issues) {
    let source = &spec.model.source;
    if let Some(repository) = source.strip_prefix("hf:") {
        let name = repository.split('@').next().unwrap_or_default();
        if name.split('/').filter(|part| !part.trim().is_empty()).count() != 2
            || name.matches('/').count() != 1
        {
            issues.error(
                &keys(["model.source"]),
                format!("\"{source}\" names no repository"),
                "write hf:OWNER/NAME or hf:OWNER/NAME@REVISION",
            );
        }
    }
    if source.strip_prefix("builtin:").is_some_and(|name| name != "quickstart") {
        issues.error(
            &keys(["model.source"]),
            format!("no model \"{source}\" is built in"),
            "the built-in model is builtin:quickstart",
        );
    }
    if source.is_empty() {
        issues.error(
            &keys(["model.source"]),
            "no model is named",
            "name a folder, hf:OWNER/NAME or builtin:quickstart",
        );
    }
}

fn prune(spec: &Spec, issues: &mut Issues) {
    match spec.prune.method {
        Method::Obs => obs(&spec.prune, issues),
        Method::Magnitude => {}
    }
    if spec.sparsity.target == 0.0 {
        issues.warning(
            &keys(["sparsity.target"]),
            "nothing is removed at sparsity 0",
            "give a fraction above 0",
        );
    }
}

/// Optimal Brain Surgeon with a refit.
fn obs(prune: &Prune, issues: &mut Issues) {
    if !prune.saliency.first_order && !prune.saliency.second_order {
        let at = keys(["prune.saliency.second_order", "prune.saliency.first_order"]);
        issues.error(
            &at,
            "both terms of the saliency are off, so units have no order",
            "turn one of them on",
        );
    }
    if prune.damping == 0.0 {
        let hint = "a dead or duplicate channel makes XᵀX singular; 0.01 is usual";
        issues.warning(&keys(["prune.damping"]), "without damping the Hessian may have no inverse", hint);
    }
}

fn fitness(spec: &Spec, issues: &mut Issues) {
    let fitness = &spec.fitness;
    incomplete_fitness(fitness, issues);
    let similarity = fitness.kind == FitnessKind::Similarity;
    if similarity && fitness.logits_weight == 0.0 && fitness.layers.iter().all(|l| l.weight == 0.0) {
        let at = keys(["fitness.logits_weight", "fitness.layers"]);
        issues.error(
            &at,
            "all weights of the fitness are 0, so all candidates have the same fitness",
            "give one of them a weight",
        );
    }
    if fitness.top_k == 1 {
        let hint =
            "renormalised over one token, both sides are 1; take 0 for the whole vocabulary, or hundreds";
        issues.error(&keys(["fitness.top_k"]), "the KL divergence over one token is always 0", hint);
    }
    repeated_layers(spec, issues);
    repeated_corpora(spec, issues);
}

/// A kind of fitness without what it needs.
fn incomplete_fitness(fitness: &Fitness, issues: &mut Issues) {
    let (what, hint) = match fitness.kind {
        FitnessKind::Script if fitness.script.is_none() => {
            ("a script fitness has no script", "set `fitness.script` to a Rhai file with `fn fitness(m)`")
        }
        FitnessKind::Similarity if fitness.layers.is_empty() => {
            let hint = "set `fitness.layers`, as in [{ layer = 0, weight = 1.0 }, { layer = -1, weight = 1.0 }], or take kind \"kl\"";
            ("a similarity fitness compares no layer", hint)
        }
        FitnessKind::Perplexity if fitness.corpora.is_empty() => {
            ("a perplexity fitness has no corpus", "name one or more in `fitness.corpora`")
        }
        _ => return,
    };
    issues.error(&keys(["fitness.kind"]), what, hint);
}

fn repeated_layers(spec: &Spec, issues: &mut Issues) {
    let layers = &spec.fitness.layers;
    for i in repeated(layers.iter().map(|layer| layer.layer)) {
        let at = [KeyPath::of("fitness.layers").index(i).key("layer")];
        issues.error(&at, format!("layer {} has two weights", layers[i].layer), "keep one of them");
    }
}

fn repeated_corpora(spec: &Spec, issues: &mut Issues) {
    let corpora = &spec.fitness.corpora;
    for i in repeated(corpora) {
        let at = [KeyPath::of("fitness.corpora").index(i)];
        issues.error(&at, format!("corpus \"{}\" is listed twice", corpora[i]), "keep one of them");
    }
}

fn evaluate(spec: &Spec, known: &Known, issues: &mut Issues) {
    let evaluate = &spec.evaluate;
    let own = spec.tasks.keys().map(String::as_str);
    let names: Vec<&str> = known.tasks.iter().copied().chain(own).collect();
    for (i, task) in evaluate.tasks.iter().enumerate() {
        corpora::check_name(task, &names, "task", &KeyPath::of("evaluate.tasks").index(i), issues);
    }
    if evaluate.kl_tokens > 0 && evaluate.perplexity.is_empty() {
        let hint = "name a corpus in `evaluate.perplexity`, or set `evaluate.kl_tokens` to 0";
        issues.warning(
            &keys(["evaluate.perplexity", "evaluate.kl_tokens"]),
            "the KL divergence is not measured: there is no corpus",
            hint,
        );
    }
    if evaluate.tokens > 0 && evaluate.tokens < evaluate.sequence_length {
        let message =
            format!("{} tokens do not fill one sequence of {}", evaluate.tokens, evaluate.sequence_length);
        let at = keys(["evaluate.tokens", "evaluate.sequence_length"]);
        issues.warning(&at, message, "raise `evaluate.tokens`, or 0 for the whole text");
    }
    scored(spec, issues);
    lm_eval(spec, issues);
}

/// Text is scored in whole sequences, so that fewer or more tokens may be than what is asked.
fn scored(spec: &Spec, issues: &mut Issues) {
    let Evaluate { sequence_length: length, tokens, kl_tokens, .. } = spec.evaluate;
    if length == 0 || spec.evaluate.perplexity.is_empty() {
        return;
    }
    let whole = tokens / length * length;
    if whole > 0 && whole < tokens {
        let message = format!("of {tokens} tokens, {whole} are scored: whole sequences of {length}");
        let hint = format!("take {whole} or {}", whole.saturating_add(length));
        issues.warning(&keys(["evaluate.tokens", "evaluate.sequence_length"]), message, hint);
    }
    let all = if whole == 0 { usize::MAX } else { whole };
    let measured = (kl_tokens / length).max(1).saturating_mul(length).min(all);
    if kl_tokens > 0 && measured != kl_tokens {
        let message = format!(
            "`evaluate.kl_tokens` is {kl_tokens}, but {measured} tokens are measured on: whole sequences of {length}"
        );
        let of = if measured == all { " of the `evaluate.tokens` that are read" } else { "" };
        issues.if_written(KeyPath::of("evaluate.kl_tokens"), message + of, format!("set it to {measured}"));
    }
}

fn lm_eval(spec: &Spec, issues: &mut Issues) {
    let Some(lm_eval) = &spec.evaluate.lm_eval else { return };
    if lm_eval.tasks.is_empty() {
        issues.error(
            &keys(["evaluate.lm_eval.tasks"]),
            "the harness has no task to run",
            "name tasks of the harness, as in [\"arc_easy\"]",
        );
    }
    if lm_eval.url.as_ref().is_some_and(|url| !url.starts_with("http://")) {
        let hint = "write http://HOST:PORT: the service runs on this machine or behind a tunnel";
        issues.error(&keys(["evaluate.lm_eval.url"]), "this is no address that starts with http://", hint);
    }
}
