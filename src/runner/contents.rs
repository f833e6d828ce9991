//! What the files that an experiment names hold: figures of other contents must not stand beside new ones.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::{Result, hash};
use crate::model::Source;
use crate::model::save::companions_hash;
use crate::spec::Spec;
use crate::trial::keys;

/// Stands for the hash of what cannot be read. A trial that needs it fails, and says why.
const UNREADABLE: &str = "not read";

/// Hashes of contents, by what the spec calls them; each is read once.
pub(super) struct Contents<'a> {
    /// The experiment's folder: names count from there, because it may move.
    folder: &'a Path,
    known: BTreeMap<String, String>,
}

impl<'a> Contents<'a> {
    /// Of experiments in a folder; nothing is read yet.
    pub(super) fn new(folder: &'a Path) -> Self {
        Self { folder, known: BTreeMap::new() }
    }

    /// Hashes of all that a spec reads: model, corpora, fitness script, tasks, and the harness itself.
    ///
    /// # Errors
    /// [`crate::base::Kind::Internal`] when the spec cannot be written as JSON.
    pub(super) fn of(&mut self, spec: &Spec) -> Result<BTreeMap<String, String>> {
        let named = spec.relative_to(self.folder);
        let mut all = BTreeMap::new();
        let mut add = |name: String, read: &dyn Fn() -> Result<Option<String>>| {
            let known = self.known.entry(name.clone());
            all.insert(name, known.or_insert_with(|| hash_of(read)).clone());
        };
        add(format!("model {}", named.model.source), &|| model(&spec.model.source).map(Some));
        for (corpus, names) in spec.corpora.values().zip(named.corpora.values()) {
            let files = corpus.train.iter().chain(&corpus.test);
            for (file, name) in files.zip(names.train.iter().chain(&names.test)) {
                add(format!("file {}", name.display()), &|| hash::of_file(file).map(Some));
            }
        }
        if let Some(name) = &named.fitness.script {
            add(format!("file {}", name.display()), &|| keys::script(spec));
        }
        let tasks = serde_json::json!([named.evaluate.tasks, named.tasks, named.evaluate.data]);
        add(format!("tasks {}", short(&tasks)?), &|| keys::task_files(spec));
        let harness = serde_json::json!([named.evaluate.lm_eval, named.evaluate.data]);
        let versions = || keys::harness(spec)?.map(|inputs| hash::of_json(&inputs)).transpose();
        add(format!("harness {}", short(&harness)?), &versions);
        Ok(all)
    }
}

/// The hash that reading gives; contents that a spec does not ask for have one of their own.
fn hash_of(read: &dyn Fn() -> Result<Option<String>>) -> String {
    match read() {
        Ok(Some(mut digest)) => {
            digest.truncate(hash::SHORT);
            digest
        }
        Ok(None) => "none".into(),
        Err(_) => UNREADABLE.into(),
    }
}

fn short(value: &serde_json::Value) -> Result<String> {
    let mut digest = hash::of_json(value)?;
    digest.truncate(hash::SHORT);
    Ok(digest)
}

/// Hash of a model's own files and of those that smaller ones take over.
fn model(source: &str) -> Result<String> {
    let source = Source::resolve(source)?;
    hash::of_json(&(source.hash()?, companions_hash(&source)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::files;
    use crate::spec::{self, Known};

    #[test]
    fn contents_count_and_places_do_not() {
        let known = Known {
            corpora: &["quickstart"],
            tasks: &[],
            script: |_, _| Ok(()),
            inputs: |_| crate::spec::Inputs::default(),
        };
        let dir = tempfile::tempdir().unwrap();
        let of = |folder: &str| {
            let folder = dir.path().join(folder);
            let mut spec = spec::parse("", "spec.toml", &known).unwrap().spec;
            spec.fitness.script = Some(folder.join("f.rhai"));
            Contents::new(&folder).of(&spec).unwrap()
        };
        for (folder, text) in [("a", "1"), ("b", "1"), ("c", "2")] {
            files::create_dir(&dir.path().join(folder)).unwrap();
            files::write(&dir.path().join(folder).join("f.rhai"), text.as_bytes()).unwrap();
        }
        assert_eq!(of("a"), of("b"));
        assert!(of("a") != of("c") && of("a").keys().eq(of("c").keys()));
        assert_eq!(of("none")["file f.rhai"], UNREADABLE);
        assert_ne!(of("a")["model builtin:quickstart"], UNREADABLE);
    }
}
