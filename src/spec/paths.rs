//! Relative paths: those of the file count from the file's folder, those of the environment and of `--set`
//! from the current folder.

use std::path::{Path, PathBuf};

use super::key::KeyPath;
use super::layers::Layers;
use super::node::Layer;
use super::types::Spec;

/// The folder that a model's source names; `None` for the hub and for built-in models.
pub fn model_folder(source: &str) -> Option<&Path> {
    let named = source.starts_with("hf:") || source.starts_with("builtin:") || source.is_empty();
    (!named).then(|| Path::new(source))
}

/// The folders that relative paths count from.
#[derive(Debug, Clone)]
pub(crate) struct Bases {
    /// The experiment file's folder, absolute.
    pub file: PathBuf,
    /// The current folder, absolute.
    pub current: PathBuf,
}

/// The experiment with every path absolute.
pub(crate) fn absolute(mut spec: Spec, layers: &Layers, bases: &Bases) -> Spec {
    let resolve = |path: &Path, key: KeyPath| base(layers, bases, &key).join(path);
    if let Some(folder) = model_folder(&spec.model.source) {
        spec.model.source = resolve(folder, KeyPath::of("model.source")).to_string_lossy().into_owned();
    }
    for (name, corpus) in &mut spec.corpora {
        let table = KeyPath::of("corpora").key(name);
        for (split, files) in [("train", &mut corpus.train), ("test", &mut corpus.test)] {
            files
                .iter_mut()
                .enumerate()
                .for_each(|(i, file)| *file = resolve(file, table.key(split).index(i)));
        }
    }
    for (name, task) in &mut spec.tasks {
        task.file = resolve(&task.file, KeyPath::of("tasks").key(name).key("file"));
    }
    spec.evaluate.data = spec.evaluate.data.map(|folder| resolve(&folder, KeyPath::of("evaluate.data")));
    spec.fitness.script = spec.fitness.script.map(|file| resolve(&file, KeyPath::of("fitness.script")));
    spec
}

fn base<'a>(layers: &Layers, bases: &'a Bases, key: &KeyPath) -> &'a Path {
    match layers.locate(key).map(|at| at.origin.layer) {
        Some(Layer::Environment | Layer::Set) => &bases.current,
        _ => &bases.file,
    }
}
