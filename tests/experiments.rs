//! Every experiment that ships is right: its keys, its rules, its schema line.

mod common;

use std::path::{Path, PathBuf};

use common::Tiny;
use tyr::spec::{Known, Severity, Source, inspect};

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
        assert!(text.starts_with("#:schema ") && text.contains("experiment.schema.json\n"), "{} does not name its schema", path.display());
        let quoted = |name: &str| format!("[{:?}]", tiny.path(name).to_str().unwrap());
        let mut set = vec![];
        if text.contains("[corpora.wikitext2]") {
            set.push(format!("corpora.wikitext2.train={}", quoted("train.txt")));
            set.push(format!("corpora.wikitext2.test={}", quoted("test.txt")));
        }
        if text.contains("../models/") {
            set.push(format!("model.source={:?}", tiny.path("model").to_str().unwrap()));
        }
        let source = Source { path: path.clone(), set, ..Source::default() };
        let checked = inspect(&source, &Known { corpora: tyr::data::corpus::KNOWN, tasks: &names, script: tyr::fitness::check }).unwrap();
        // An experiment may choose not to search, of which the check warns.
        let unexpected = checked.findings.iter().any(|f| f.severity == Severity::Error || f.key.to_string() != "search.generations");
        assert!(!unexpected, "{}", checked.render(tyr::spec::Style::Plain));
    }
}
