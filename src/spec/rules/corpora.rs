//! Rules on corpora: known names, the splits that each use needs, and that nothing is tuned on the text that
//! it is evaluated on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Issues, Known};
use crate::spec::check::nearest;
use crate::spec::key::KeyPath;
use crate::spec::shape::quoted_list;
use crate::spec::types::{Corpus, FitnessKind, Spec};

/// What a use reads of a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Split {
    /// Text to calibrate and to search on.
    Train,
    /// Held-out text.
    Test,
}

impl Split {
    pub(super) fn word(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Test => "test",
        }
    }

    pub(super) fn files(self, corpus: &Corpus) -> &[PathBuf] {
        match self {
            Split::Train => &corpus.train,
            Split::Test => &corpus.test,
        }
    }
}

/// Every use of a corpus: the key that names it, the name, and the split that is read.
pub(super) fn uses(spec: &Spec) -> Vec<(KeyPath, &str, Split)> {
    let each = |key: &str, names: &'_ [String]| {
        (0..names.len()).map(|i| KeyPath::of(key).index(i)).collect::<Vec<_>>()
    };
    let calibration = [(KeyPath::of("calibration.corpus"), spec.calibration.corpus.as_str(), Split::Train)];
    let tuned: &[String] = if reads_corpora(spec) { &spec.fitness.corpora } else { &[] };
    let fitness = each("fitness.corpora", tuned)
        .into_iter()
        .zip(tuned)
        .map(|(key, name)| (key, name.as_str(), Split::Train));
    let evaluated = &spec.evaluate.perplexity;
    let evaluate = each("evaluate.perplexity", evaluated)
        .into_iter()
        .zip(evaluated)
        .map(|(key, name)| (key, name.as_str(), Split::Test));
    calibration.into_iter().chain(fitness).chain(evaluate).collect()
}

fn reads_corpora(spec: &Spec) -> bool {
    matches!(spec.fitness.kind, FitnessKind::Perplexity | FitnessKind::Script)
}

pub(super) fn check(spec: &Spec, known: &Known, issues: &mut Issues) {
    let names: Vec<&str> =
        known.corpora.iter().copied().chain(spec.corpora.keys().map(String::as_str)).collect();
    for (key, name, split) in uses(spec) {
        check_name(name, &names, "corpus", &key, issues);
        if let Some(corpus) = spec.corpora.get(name) {
            check_split(&key, name, corpus, split, issues);
        }
    }
    for name in spec.corpora.keys().filter(|name| known.corpora.contains(&name.as_str())) {
        let message = format!("this table hides the built-in corpus \"{name}\"");
        issues.warning(
            &[KeyPath::of("corpora").key(name)],
            message,
            "give it another name, unless that is what you want",
        );
    }
    honesty(spec, issues);
}

/// A name must be one of those known.
pub(super) fn check_name(name: &str, known: &[&str], kind: &str, key: &KeyPath, issues: &mut Issues) {
    if known.contains(&name) {
        return;
    }
    let table = if kind == "corpus" { "[corpora.NAME]" } else { "[tasks.NAME]" };
    let hint = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"? a table {table} adds other names"),
        None => format!("known are {}; a table {table} adds one", quoted_list(heads(known))),
    };
    issues.error(std::slice::from_ref(key), format!("unknown {kind} \"{name}\""), hint);
}

/// The names without those that belong to another one: `mmlu` stands for `mmlu_anatomy` too.
fn heads<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let inside = |name: &str| {
        names.iter().any(|head| name.strip_prefix(*head).is_some_and(|rest| rest.starts_with(['_', '/'])))
    };
    names.iter().copied().filter(|name| !inside(name)).collect()
}

fn check_split(key: &KeyPath, name: &str, corpus: &Corpus, split: Split, issues: &mut Issues) {
    if split.files(corpus).is_empty() {
        let word = split.word();
        let table = KeyPath::of("corpora").key(name);
        let message = format!("corpus \"{name}\" has no {word} text, which `{key}` reads");
        issues.error(
            &[key.clone(), table.clone()],
            message,
            format!("list its files in `{}`", table.key(word)),
        );
    }
}

/// Held-out text must not be among the text that anything is fitted to: such a figure would be meaningless.
fn honesty(spec: &Spec, issues: &mut Issues) {
    let all = uses(spec);
    // A corpus that is named often is looked at once.
    let first: BTreeMap<(Split, &str), &KeyPath> =
        all.iter().rev().map(|(key, name, split)| ((*split, *name), key)).collect();
    let of = |wanted| first.iter().filter(move |((split, _), _)| *split == wanted);
    for ((_, test_name), test_key) in of(Split::Test) {
        for ((_, train_name), train_key) in of(Split::Train) {
            let Some(file) = shared_file(spec, test_name, train_name) else { continue };
            let message =
                format!("`{test_key}` evaluates on {}, which `{train_key}` is fitted to", file.display());
            let hint = format!(
                "take the file out of the `train` list of \"{train_name}\" or evaluate on another corpus"
            );
            issues.error(&[(*test_key).clone(), KeyPath::of("corpora").key(test_name)], message, hint);
        }
    }
}

/// A file that is test text of one corpus and training text of another (or the same).
fn shared_file<'a>(spec: &'a Spec, test: &str, train: &str) -> Option<&'a PathBuf> {
    let train: Vec<PathBuf> = spec.corpora.get(train)?.train.iter().map(|file| real(file)).collect();
    spec.corpora.get(test)?.test.iter().find(|file| train.contains(&real(file)))
}

/// The file itself where it exists: links and `..` lead to the same file under other names.
fn real(file: &Path) -> PathBuf {
    file.canonicalize().unwrap_or_else(|_| file.to_path_buf())
}
