//! Every experiment that ships is right: its keys, its rules, its schema line.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod common;

use std::path::{Path, PathBuf};

use common::Tiny;
use tyr::plan::{KeysWanted, Options, Speed};
use tyr::spec::{Files, Known, Severity, Source, inspect};

fn specs(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => specs(&path, found),
            path if path.extension().is_some_and(|e| e == "toml") => found.push(path),
            _ => {}
        }
    }
}

#[test]
fn every_experiment_passes_the_check_once_its_files_are_named() {
    let tiny = Tiny::new();
    let mut files = Vec::new();
    specs(&Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments"), &mut files);
    assert!(files.len() >= 4);
    let tasks = tyr::eval::known();
    let names: Vec<&str> = tasks.iter().map(String::as_str).collect();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("#:schema ") && text.contains("experiment.schema.json\n"),
            "{} does not name its schema",
            path.display()
        );
        let quoted = |name: &str| format!("[{:?}]", tiny.path(name).to_str().unwrap());
        let mut set = vec![];
        for corpus in text.lines().filter_map(|l| l.strip_prefix("[corpora.")?.strip_suffix(']')) {
            set.push(format!("corpora.{corpus}.train={}", quoted("train.txt")));
            set.push(format!("corpora.{corpus}.test={}", quoted("test.txt")));
        }
        if text.contains("../models/") {
            set.push(format!("model.source={:?}", tiny.path("model").to_str().unwrap()));
        }
        let source = Source { path: path.clone(), set, ..Source::default() };
        let known = Known {
            corpora: tyr::data::corpus::KNOWN,
            tasks: &names,
            script: tyr::fitness::check,
            inputs: tyr::plan::inputs::sizes,
        };
        let checked = inspect(&source, &known).unwrap();
        // An experiment may choose not to search, of which the check warns.
        let unexpected = checked
            .findings
            .iter()
            .any(|f| f.severity == Severity::Error || f.key.to_string() != "search.generations");
        assert!(!unexpected, "{}", checked.render(tyr::spec::Style::Plain));
        plans(&path, &text, &known);
    }
}

/// Every experiment can be planned as it ships, without its texts, and in each of its profiles.
fn plans(path: &Path, text: &str, known: &Known) {
    let profiles = text
        .lines()
        .filter_map(|l| l.strip_prefix("[profile.")?.strip_suffix(']'))
        .filter(|name| !name.contains('.'));
    let set = if text.contains("../models/") {
        vec!["model.source=hf:HuggingFaceTB/SmolLM2-135M".to_string()]
    } else {
        vec![]
    };
    let options = Options { runs: "no/runs".into(), speed: Speed::Given(4e11), keys: KeysWanted::Never };
    for profile in std::iter::once(None).chain(profiles.map(|name| Some(name.to_string()))) {
        let source = Source {
            path: path.into(),
            profile,
            set: set.clone(),
            files: Files::MayCome,
            ..Source::default()
        };
        let checked = inspect(&source, known).unwrap();
        assert!(checked.loaded.is_some(), "{}", checked.render(tyr::spec::Style::Plain));
        let plan = tyr::plan::plan(&checked.loaded.unwrap(), &options)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(
            plan.trials.iter().all(|t| !t.steps.is_empty()) && plan.total().seconds.is_some_and(|s| s > 0.0)
        );
    }
}
