//! Relative paths: those of the file count from the file's folder, those of the environment and of `--set`
//! from the current folder.

use std::path::{Path, PathBuf};

use super::finding::Finding;
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

/// The experiment with every path absolute. A path that has no UTF-8 form, which is that of a folder around the
/// experiment, is a finding: nothing could write it down.
pub(crate) fn absolute(spec: Spec, layers: &Layers, bases: &Bases, found: &mut Vec<Finding>) -> Spec {
    mapped(spec, |path, key| {
        let resolved = base(layers, bases, &key).join(path);
        if resolved.to_str().is_none() {
            let what = format!("the path of this file is not UTF-8: {}", resolved.display());
            let finding = Finding::error(key.clone(), what).hint("rename the folder that it lies in");
            found.push(Finding { at: layers.locate(&key), ..finding });
        }
        resolved
    })
}

impl Spec {
    /// The experiment with paths counted from a folder where they lie in it.
    pub fn relative_to(&self, folder: &Path) -> Self {
        mapped(self.clone(), |path, _| {
            path.strip_prefix(folder).map_or(path.to_path_buf(), Path::to_path_buf)
        })
    }
}

/// The experiment with other paths: `with` gives the new one of a path and its key.
fn mapped(mut spec: Spec, mut with: impl FnMut(&Path, KeyPath) -> PathBuf) -> Spec {
    if let Some(folder) = model_folder(&spec.model.source) {
        spec.model.source = with(folder, KeyPath::of("model.source")).to_string_lossy().into_owned();
    }
    for (name, corpus) in &mut spec.corpora {
        let table = KeyPath::of("corpora").key(name);
        for (split, files) in [("train", &mut corpus.train), ("test", &mut corpus.test)] {
            files.iter_mut().enumerate().for_each(|(i, file)| *file = with(file, table.key(split).index(i)));
        }
    }
    for (name, task) in &mut spec.tasks {
        task.file = with(&task.file, KeyPath::of("tasks").key(name).key("file"));
    }
    spec.evaluate.data = spec.evaluate.data.map(|folder| with(&folder, KeyPath::of("evaluate.data")));
    spec.export.gguf_base = spec.export.gguf_base.map(|file| with(&file, KeyPath::of("export.gguf_base")));
    spec.fitness.script = spec.fitness.script.map(|file| with(&file, KeyPath::of("fitness.script")));
    spec
}

fn base<'a>(layers: &Layers, bases: &'a Bases, key: &KeyPath) -> &'a Path {
    match layers.locate(key).map(|at| at.origin.layer) {
        Some(Layer::Environment | Layer::Set) => &bases.current,
        _ => &bases.file,
    }
}
