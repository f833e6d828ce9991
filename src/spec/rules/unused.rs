//! Keys that are written and change nothing, because another key decides that nothing reads them. Each is
//! named with the key that would make it count.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::{Issue, Issues};
use crate::spec::key::KeyPath;
use crate::spec::types::{
    AttentionUnit, Basis, FitnessKind, Form, Method, Ranking, SearchStart, SparsityShape, Spec, Target,
};

/// A key, when it has no effect, why, and what gives it one.
#[derive(Clone, Copy)]
struct Unused {
    key: &'static str,
    when: fn(&Spec) -> bool,
    why: &'static str,
    instead: &'static str,
}

const fn unused(
    key: &'static str,
    when: fn(&Spec) -> bool,
    why: &'static str,
    instead: &'static str,
) -> Unused {
    Unused { key, when, why, instead }
}

const NO_TARGET: &str = "`prune.target` is \"layer\"";
const OTHER_TARGET: &str = "set `prune.target` to \"dense\" or \"residual\"";
const NO_SIMILARITY: &str = "`fitness.kind` is not \"similarity\"";
const SIMILARITY: &str = "set `fitness.kind` to \"similarity\"";
const NO_GENERATION: &str = "`search.generations` is 0";
const NOT_SEARCHED: &str = "`search.generations` is 0, and `search.start` is \"uniform\"";
const SEARCH: &str = "raise `search.generations`, or set `search.start` to \"sensitivity\"";
const NO_SENSITIVITY: &str = "`search.start` is \"uniform\"";
const SENSITIVITY: &str = "set `search.start` to \"sensitivity\"";
const ONE_LEVEL: &str = "`supernet.levels` is 1";
const UNIFORM: &str = "`sparsity.shape` is \"uniform\"";
const FREE: &str = "set `sparsity.shape` to \"free\"";
const LEVELS: &str = "raise `supernet.levels`";
const GENERATIONS: &str = "raise `search.generations`";
const MAGNITUDE: &str = "`prune.method` is \"magnitude\"";
const OBS: &str = "set `prune.method` to \"obs\"";
const NO_CORPUS: &str = "`evaluate.perplexity` is empty";
const CORPUS: &str = "name a corpus in `evaluate.perplexity`";
const NO_TASK: &str = "`evaluate.tasks` is empty, and there is no `evaluate.lm_eval`";
const TASK: &str = "name a task in `evaluate.tasks`";
const NO_GGUF: &str = "`export.to` does not name \"gguf\"";
const GGUF: &str = "name \"gguf\" in `export.to`";

const NO_TEXT: &str = "`prune.method` is \"magnitude\", and nothing is searched";

/// Keys that nothing but a search reads. Text for it is drawn together with the calibration text, so that
/// `search.tokens` and `search.text` count without one, too.
const SEARCHED: [&str; 15] = [
    "sparsity.trade",
    "search.offspring",
    "search.max_flips",
    "search.patience",
    "search.guided",
    "search.racing",
    "search.sensitivity",
    "search.start",
    "search.stages",
    "fitness.kind",
    "fitness.top_k",
    "fitness.layers",
    "fitness.logits_weight",
    "fitness.corpora",
    "fitness.script",
];
const ROUNDS: &str = "search.generations";
/// Keys that only generations read.
const EVOLVED: [&str; 6] = [
    "search.offspring",
    "search.max_flips",
    "search.patience",
    "search.guided",
    "search.racing",
    "search.stages",
];

const PYTHON: &str = "evaluate.lm_eval.python";

const TABLE: [Unused; 34] = [
    unused(
        "sparsity.latency",
        |spec| spec.sparsity.basis != Basis::Latency,
        "`sparsity.basis` is not \"latency\"",
        "set `sparsity.basis` to \"latency\"",
    ),
    unused(
        "sparsity.trade",
        |spec| spec.sparsity.trade && spec.sparsity.basis == Basis::KvBytes,
        "`sparsity.basis` is \"kv_bytes\", of which neurons take nothing",
        "set `sparsity.basis` to another one",
    ),
    unused("search.sensitivity", from_uniform, NO_SENSITIVITY, SENSITIVITY),
    unused("search.guided", |spec| from_uniform(spec) && spec.search.guided, NO_SENSITIVITY, SENSITIVITY),
    unused("prune.target_interpolation", no_target, NO_TARGET, OTHER_TARGET),
    unused("prune.target_shrinkage", no_target, NO_TARGET, OTHER_TARGET),
    unused(
        "prune.target_shrinkage",
        |spec| !no_target(spec) && obs(spec) && spec.prune.target_interpolation == 0.0,
        "`prune.target_interpolation` is 0",
        "raise `prune.target_interpolation`",
    ),
    unused(
        "prune.step",
        |spec| obs(spec) && spec.prune.ranking == Ranking::OneShot,
        "`prune.ranking` is \"one_shot\"",
        "set `prune.ranking` to \"progressive\"",
    ),
    unused(
        "prune.damping_mean",
        |spec| obs(spec) && spec.prune.damping == 0.0,
        "`prune.damping` is 0",
        "raise `prune.damping`",
    ),
    unused("sparsity.rounding", uniform, UNIFORM, FREE),
    unused("prune.align.heads", uniform, UNIFORM, FREE),
    unused(
        "prune.align.heads",
        |spec| !uniform(spec) && spec.prune.unit.attention == AttentionUnit::KvGroup,
        "`prune.unit.attention` is \"kv_group\"",
        "set `prune.unit.attention` to \"head\"",
    ),
    unused("calibration.sink_tokens", magnitude, MAGNITUDE, OBS),
    unused("supernet.accumulation", magnitude, MAGNITUDE, OBS),
    unused("supernet.sequential", magnitude, MAGNITUDE, OBS),
    unused("supernet.refit", magnitude, MAGNITUDE, OBS),
    unused("calibration.corpus", no_text, NO_TEXT, OBS),
    unused("calibration.tokens", no_text, NO_TEXT, OBS),
    unused("calibration.sequence_length", no_text, NO_TEXT, OBS),
    unused("search.tokens", no_text, NO_TEXT, OBS),
    unused("search.text", no_text, NO_TEXT, OBS),
    unused("fitness.logits_weight", |spec| !similarity(spec), NO_SIMILARITY, SIMILARITY),
    unused(
        "fitness.layers",
        |spec| !similarity(spec) && !spec.fitness.layers.is_empty(),
        NO_SIMILARITY,
        SIMILARITY,
    ),
    unused(
        "fitness.top_k",
        |spec| spec.fitness.kind == FitnessKind::Perplexity,
        "`fitness.kind` is \"perplexity\"",
        "set `fitness.kind` to \"kl\" or \"similarity\"",
    ),
    unused(
        "fitness.top_k",
        |spec| similarity(spec) && spec.fitness.logits_weight == 0.0,
        "`fitness.logits_weight` is 0",
        "raise `fitness.logits_weight`",
    ),
    unused(
        "fitness.corpora",
        |spec| {
            let read = matches!(spec.fitness.kind, FitnessKind::Perplexity | FitnessKind::Script);
            !read && !spec.fitness.corpora.is_empty()
        },
        "`fitness.kind` is not \"perplexity\"",
        "set `fitness.kind` to \"perplexity\"",
    ),
    unused(
        "fitness.script",
        |spec| spec.fitness.kind != FitnessKind::Script,
        "`fitness.kind` is not \"script\"",
        "set `fitness.kind` to \"script\"",
    ),
    unused("evaluate.sequence_length", no_corpus, NO_CORPUS, CORPUS),
    unused("evaluate.tokens", no_corpus, NO_CORPUS, CORPUS),
    unused("evaluate.limit", no_task, NO_TASK, TASK),
    unused("evaluate.bos", no_task, NO_TASK, TASK),
    unused("evaluate.data", no_task, NO_TASK, TASK),
    unused("export.gguf", no_gguf, NO_GGUF, GGUF),
    unused("export.gguf_base", no_gguf, NO_GGUF, GGUF),
];

/// The keys that some spec leaves without effect, the tables of this one among them.
pub(crate) fn keys(spec: &Spec) -> impl Iterator<Item = KeyPath> {
    fixed_keys().iter().cloned().chain(tables(spec).map(|(key, _)| key))
}

fn fixed_keys() -> &'static BTreeSet<KeyPath> {
    static KEYS: LazyLock<BTreeSet<KeyPath>> = LazyLock::new(|| {
        let fixed = TABLE.iter().map(|row| KeyPath::of(row.key)).chain([PYTHON, ROUNDS].map(KeyPath::of));
        let fixed = fixed.chain(SEARCHED.map(KeyPath::of));
        let of_methods = Method::ALL.into_iter().flat_map(|method| method.keys().iter());
        fixed.chain(of_methods.map(|key| KeyPath::of("prune").key(key))).collect()
    });
    &KEYS
}

pub(super) fn check(spec: &Spec, issues: &mut Issues) {
    let unsearched = unsearched(spec);
    let rows = TABLE.iter().filter(|row| (row.when)(spec) && unsearched.iter().all(|u| u.key != row.key));
    for Unused { key, why, instead, .. } in unsearched.iter().chain(rows) {
        add(key, why, instead, issues);
    }
    other_method(spec.prune.method, issues);
    if spec.evaluate.lm_eval.as_ref().is_some_and(|harness| harness.url.is_some()) {
        let why = "`evaluate.lm_eval.url` names a service that runs already";
        add(PYTHON, why, "leave the address out", issues);
    }
}

fn add(key: &str, why: &str, instead: &str, issues: &mut Issues) {
    let message = format!("`{key}` has no effect: {why}");
    issues.if_written(KeyPath::of(key), message, format!("{instead}, or leave `{key}` out"));
}

/// Keys that only a search reads, where there is none.
fn unsearched(spec: &Spec) -> Vec<Unused> {
    let all = |why, instead| SEARCHED.map(|key| unused(key, |_| true, why, instead)).to_vec();
    if uniform(spec) {
        let rounds = unused(ROUNDS, |_| true, UNIFORM, FREE);
        return [all(UNIFORM, FREE), vec![rounds]].concat();
    }
    if !spec.searches() {
        return all(NOT_SEARCHED, SEARCH).into_iter().filter(|row| row.key != "search.start").collect();
    }
    if spec.supernet.levels == 1 {
        let rounds = unused(ROUNDS, |_| true, ONE_LEVEL, LEVELS);
        return [all(ONE_LEVEL, LEVELS), vec![rounds]].concat();
    }
    if spec.search.generations == 0 {
        return EVOLVED.map(|key| unused(key, |_| true, NO_GENERATION, GENERATIONS)).to_vec();
    }
    Vec::new()
}

/// Warnings of corpora and tasks that have a table and no use.
pub(crate) fn unused_tables(spec: &Spec) -> Vec<Issue> {
    let mut issues = Issues::default();
    for (key, instead) in tables(spec).filter(|(key, _)| !is_used(spec, key)) {
        let message = format!("`{key}` has no effect: nothing names it");
        issues.if_written(key.clone(), message, format!("name it in {instead}, or leave `{key}` out"));
    }
    issues.0
}

/// The tables of corpora and tasks, with the keys that may name them.
fn tables(spec: &Spec) -> impl Iterator<Item = (KeyPath, &'static str)> {
    let corpora = spec.corpora.keys().map(|name| KeyPath::of("corpora").key(name));
    let tasks = spec.tasks.keys().map(|name| KeyPath::of("tasks").key(name));
    let named = "`calibration.corpus`, `fitness.corpora` or `evaluate.perplexity`";
    corpora.map(move |key| (key, named)).chain(tasks.map(|key| (key, "`evaluate.tasks`")))
}

fn is_used(spec: &Spec, table: &KeyPath) -> bool {
    let name = table.last();
    if table.overlaps(&KeyPath::of("tasks")) {
        return spec.evaluate.tasks.iter().any(|task| task == name);
    }
    let corpora = [&spec.calibration.corpus].into_iter().chain(&spec.fitness.corpora);
    corpora.chain(&spec.evaluate.perplexity).any(|corpus| corpus == name)
}

/// Keys of another pruning method.
fn other_method(method: Method, issues: &mut Issues) {
    for other in Method::ALL {
        for key in other.keys().iter().filter(|key| !method.keys().contains(key)) {
            let why = format!("`prune.method` is \"{}\"", method.name());
            let instead = format!("set `prune.method` to \"{}\"", other.name());
            add(&format!("prune.{key}"), &why, &instead, issues);
        }
    }
}

fn obs(spec: &Spec) -> bool {
    spec.prune.method == Method::Obs
}

fn magnitude(spec: &Spec) -> bool {
    spec.prune.method == Method::Magnitude
}

/// Layers stay alike: nothing is searched, and query heads are equal in number for all key/value heads.
fn uniform(spec: &Spec) -> bool {
    spec.sparsity.shape == SparsityShape::Uniform
}

fn from_uniform(spec: &Spec) -> bool {
    spec.search.start == SearchStart::Uniform
}

fn no_target(spec: &Spec) -> bool {
    obs(spec) && spec.prune.target == Target::Layer
}

fn similarity(spec: &Spec) -> bool {
    spec.fitness.kind == FitnessKind::Similarity
}

/// Weights alone decide what is pruned, and no candidate is scored.
fn no_text(spec: &Spec) -> bool {
    magnitude(spec) && (!spec.searches() || spec.supernet.levels == 1)
}

fn no_corpus(spec: &Spec) -> bool {
    spec.evaluate.perplexity.is_empty()
}

fn no_gguf(spec: &Spec) -> bool {
    !spec.export.to.contains(&Form::Gguf)
}

fn no_task(spec: &Spec) -> bool {
    spec.evaluate.tasks.is_empty() && spec.evaluate.lm_eval.is_none()
}
