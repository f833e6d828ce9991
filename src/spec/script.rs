//! Fitness scripts among the findings: a module that knows the language checks them, and what it says gets
//! its place in their text.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::finding::Finding;
use super::key::KeyPath;
use super::node::{At, Layer, Origin};
use super::types::{FitnessKind, Spec};
use crate::base::{Error, Result};

/// Checks the script at a path against the corpora that it may read. The place of its error is `PATH`,
/// `PATH:LINE` or `PATH:LINE:COLUMN`, both counted from 1.
pub type CheckScript = fn(&Path, &[String]) -> Result<()>;

/// Scripts that were checked: the trials of a sweep share theirs.
#[derive(Default)]
pub(crate) struct Scripts(BTreeMap<(PathBuf, Vec<String>), Option<Finding>>);

impl Scripts {
    /// What is wrong with the script of an experiment, if it has one that is there.
    pub(crate) fn finding(&mut self, spec: &Spec, check: CheckScript) -> Option<Finding> {
        let script = spec
            .fitness
            .script
            .as_ref()
            .filter(|path| spec.fitness.kind == FitnessKind::Script && path.is_file())?;
        let key = (script.clone(), spec.fitness.corpora.clone());
        self.0
            .entry(key)
            .or_insert_with_key(|(path, corpora)| check(path, corpora).err().map(|e| finding(path, e)))
            .clone()
    }
}

/// The error as a finding, in the script where it names a line, else at the key that names the script.
fn finding(path: &Path, error: Error) -> Finding {
    let finding = Finding { hint: error.hint, ..Finding::error(KeyPath::of("fitness.script"), error.what) };
    Finding { at: error.place.and_then(|place| at(path, &place)), ..finding }
}

fn at(path: &Path, place: &str) -> Option<At> {
    let numbers = place.strip_prefix(path.to_str()?)?.strip_prefix(':')?;
    let (line, column) = numbers.split_once(':').unwrap_or((numbers, "1"));
    let text = std::fs::read_to_string(path).ok()?;
    let start = offset(&text, line.parse().ok()?, column.parse().ok()?)?;
    let origin =
        Origin { layer: Layer::Script, name: shown(path).display().to_string(), text, profile: None };
    let span = start..start + word(&origin.text[start..]);
    Some(At { origin: Arc::new(origin), span })
}

/// Byte of a line's column, at most the line's end.
fn offset(text: &str, line: usize, column: usize) -> Option<usize> {
    let line = text.split_inclusive('\n').nth(line.checked_sub(1)?)?;
    let start = line.as_ptr() as usize - text.as_ptr() as usize;
    let inside = line.trim_end_matches(['\n', '\r']);
    Some(start + inside.char_indices().nth(column.saturating_sub(1)).map_or(inside.len(), |(i, _)| i))
}

/// Bytes of the word at the start of a text; one character where none is.
fn word(text: &str) -> usize {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    if end > 0 { end } else { text.chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8) }
}

/// The path from the current folder, where it lies below that.
fn shown(path: &Path) -> &Path {
    let current = std::env::current_dir().ok();
    current.as_ref().and_then(|folder| path.strip_prefix(folder).ok()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Kind;

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.rhai");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn a_place_in_a_script_is_found_by_line_and_column() {
        let (_dir, path) = written("// ä\nfn fitness(m) {\n  m.klx\n}\n");
        let place = |rest: &str| {
            at(&path, &format!("{}{rest}", path.display())).map(|at| (at.line_column(), at.span.len()))
        };
        assert_eq!(place(":3:5"), Some(((3, 5), 3)));
        assert_eq!(place(":2"), Some(((2, 1), 2)));
        assert_eq!(place(":1:4"), Some(((1, 4), 2)));
        assert_eq!(place(":4:99"), Some(((4, 2), 0)));
        assert_eq!([place(""), place(":9:1"), place(":0:1"), place(":x")], [None; 4]);
    }

    #[test]
    fn a_script_without_text_has_no_place() {
        let (_dir, path) = written("");
        assert!(at(&path, &format!("{}:1:1", path.display())).is_none());
        assert!(at(Path::new("nowhere"), "nowhere:1:1").is_none());
    }

    #[test]
    fn trials_that_share_a_script_check_it_once() {
        static CALLS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        fn refuse(_: &Path, _: &[String]) -> Result<()> {
            CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Err(Error::new(Kind::Spec, "no"))
        }
        let (_dir, path) = written("x");
        let mut spec: Spec = toml::from_str(crate::spec::defaults_toml()).unwrap();
        spec.fitness.script = Some(path);
        let mut scripts = Scripts::default();
        assert_eq!(scripts.finding(&spec, refuse), None);
        spec.fitness.kind = FitnessKind::Script;
        (0..3).for_each(|_| assert_eq!(scripts.finding(&spec, refuse).unwrap().message, "no"));
        spec.fitness.corpora = vec!["a".into()];
        assert!(scripts.finding(&spec, refuse).is_some());
        assert_eq!(CALLS.load(std::sync::atomic::Ordering::Relaxed), 2);
    }
}
