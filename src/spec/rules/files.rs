//! Files that an experiment names must be there before hours of work begin. They are looked at, not read.

use std::collections::BTreeSet;
use std::path::Path;

use super::corpora::uses;
use super::{Issues, Known};
use crate::spec::key::KeyPath;
use crate::spec::load::Files;
use crate::spec::paths::model_folder;
use crate::spec::types::{FitnessKind, Form, Spec};

pub(super) fn check(spec: &Spec, known: &Known, files: Files, issues: &mut Issues) {
    model(spec, issues);
    if files == Files::MustExist {
        texts(spec, known, issues);
    }
    if let Some(script) = spec.fitness.script.as_ref().filter(|_| spec.fitness.kind == FitnessKind::Script) {
        file(script, "script", KeyPath::of("fitness.script"), issues);
    }
    if let Some(base) = spec.export.gguf_base.as_ref().filter(|_| spec.export.to.contains(&Form::Gguf)) {
        file(base, "GGUF file", KeyPath::of("export.gguf_base"), issues);
    }
}

/// Texts to calibrate, search and evaluate on.
fn texts(spec: &Spec, known: &Known, issues: &mut Issues) {
    corpora(spec, issues);
    tasks(spec, known, issues);
    if let Some(data) = spec.evaluate.data.as_ref().filter(|data| !data.is_dir()) {
        let message = format!("there is no folder {}", data.display());
        issues.error(&[KeyPath::of("evaluate.data")], message, "name the folder that holds the task files");
    }
}

fn model(spec: &Spec, issues: &mut Issues) {
    let Some(folder) = model_folder(&spec.model.source).filter(|folder| !folder.is_dir()) else { return };
    let message = format!("there is no folder {}", folder.display());
    let hint = "name a folder with a checkpoint, hf:OWNER/NAME for one of the hub, or builtin:quickstart";
    issues.error(&[KeyPath::of("model.source")], message, hint);
}

/// Only corpora that are used: a profile may leave others untouched.
fn corpora(spec: &Spec, issues: &mut Issues) {
    let mut seen = BTreeSet::new();
    for (_, name, split) in uses(spec) {
        if !seen.insert((name, split)) {
            continue;
        }
        let files = spec.corpora.get(name).map(|corpus| split.files(corpus)).unwrap_or_default();
        for (i, path) in files.iter().enumerate() {
            file(path, "text file", KeyPath::of("corpora").key(name).key(split.word()).index(i), issues);
        }
    }
}

fn tasks(spec: &Spec, known: &Known, issues: &mut Issues) {
    for (name, task) in spec.tasks.iter().filter(|(name, _)| spec.evaluate.tasks.contains(name)) {
        file(&task.file, "task file", KeyPath::of("tasks").key(name).key("file"), issues);
    }
    for name in spec.tasks.keys().filter(|name| known.tasks.contains(&name.as_str())) {
        let message = format!("\"{name}\" is the name of a built-in task");
        issues.error(&[KeyPath::of("tasks").key(name)], message, "give your own task another name");
    }
}

fn file(path: &Path, kind: &str, key: KeyPath, issues: &mut Issues) {
    if !path.is_file() {
        let message = format!("there is no {kind} {}", path.display());
        issues.error(
            &[key],
            message,
            "check the path; a relative one counts from the folder of the experiment file",
        );
    }
}
