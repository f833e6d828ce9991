//! Results of steps, addressed by a hash of what they depend on. A finished one has a manifest with the hash
//! of each of its files.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::base::meter::Cost;
use crate::base::{Error, Kind, Result, files, hash};
use crate::trial::keys::FORMAT;
use crate::trial::{COST, KEY, Key, MANIFEST, Manifest};

/// A folder of step results.
pub(crate) struct Store {
    root: PathBuf,
}

/// The place of one step's result.
pub(crate) struct Entry {
    /// Its folder, which exists.
    pub folder: PathBuf,
    /// Its printable address: `<kind>-<hash>`.
    pub address: String,
}

/// Whether an entry can be used.
pub(crate) enum State {
    /// Complete and undamaged.
    Finished,
    /// Absent or begun.
    Unfinished,
    /// Complete, but a file is not what was written.
    Damaged(Error),
}

impl Store {
    /// The store in a folder.
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// The place of the result that depends on `key`.
    pub(crate) fn entry(&self, key: &Key) -> Result<Entry> {
        let address = key.address()?;
        let folder = self.root.join(&address);
        files::create_dir(&folder)?;
        let path = folder.join(KEY);
        let written = files::read_json::<Value>(&path);
        if !written.is_ok_and(|written| written == key.value()) {
            files::write_json(&path, &key.value())?;
        }
        Ok(Entry { folder, address })
    }

    /// All entries that are there, by address.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>> {
        if !self.root.exists() {
            return Ok(vec![]);
        }
        let found = std::fs::read_dir(&self.root).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let folders = found
            .map_err(|e| files::io_error(&self.root, "list", &e))?
            .into_iter()
            .map(|e| e.path())
            .filter(|p| p.is_dir());
        let entry = |folder: PathBuf| Entry {
            address: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            folder,
        };
        let mut all: Vec<Entry> = folders.map(entry).collect();
        all.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(all)
    }
}

impl Entry {
    fn manifest(&self) -> PathBuf {
        self.folder.join(MANIFEST)
    }

    /// Whether the result is there and whole.
    pub(crate) fn state(&self) -> State {
        if !self.manifest().exists() {
            return State::Unfinished;
        }
        match self.verify() {
            Ok(()) => State::Finished,
            Err(e) => State::Damaged(e),
        }
    }

    /// The names of the files of a finished result.
    ///
    /// # Errors
    /// It is not finished.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        Ok(files::read_json::<Manifest>(&self.manifest())?.files.into_keys().collect())
    }

    fn verify(&self) -> Result<()> {
        let manifest: Manifest = files::read_json(&self.manifest())?;
        for (name, want) in &manifest.files {
            let path = self.folder.join(name);
            if hash::of_file(&path)? != *want {
                return Err(Error::new(
                    Kind::Disk,
                    "the file is damaged: its hash differs from the one in the manifest",
                )
                .at(path.display()));
            }
        }
        Ok(())
    }

    /// Marks the result as unfinished; what the step can reuse of it stays.
    pub(crate) fn reopen(&self) -> Result<()> {
        std::fs::remove_file(self.manifest()).map_err(|e| files::io_error(&self.manifest(), "remove", &e))
    }

    /// Removes the entry; if it is killed halfway, the entry is left unfinished.
    pub(crate) fn remove(&self) -> Result<()> {
        if self.manifest().exists() {
            self.reopen()?;
        }
        std::fs::remove_dir_all(&self.folder).map_err(|e| files::io_error(&self.folder, "remove", &e))
    }

    /// Marks the result of `key` as finished with these files, and notes what it cost in a file of its own.
    pub(crate) fn finish(&self, key: &Key, names: &[String], cost: Cost) -> Result<()> {
        let hashes = names
            .iter()
            .map(|n| Ok((n.clone(), hash::of_file(&self.folder.join(n))?)))
            .collect::<Result<_>>()?;
        files::write_json(&self.folder.join(COST), &cost)?;
        let manifest = Manifest { format: FORMAT, kind: key.kind(), key: key.value(), files: hashes };
        files::write_json(&self.manifest(), &manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Cost = Cost { seconds: 1.0, peak_bytes: None };

    #[test]
    fn an_entry_is_finished_only_with_all_its_files_whole() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::example("a");
        let entry = Store::at(dir.path()).entry(&key).unwrap();
        assert!(matches!(entry.state(), State::Unfinished));
        files::write(&entry.folder.join("x"), b"data").unwrap();
        entry.finish(&key, &["x".into()], TOOK).unwrap();
        assert!(matches!(entry.state(), State::Finished));
        files::write(&entry.folder.join("x"), b"dat").unwrap();
        assert!(matches!(entry.state(), State::Damaged(_)));
        std::fs::remove_file(entry.folder.join("x")).unwrap();
        assert!(matches!(entry.state(), State::Damaged(_)));
        entry.reopen().unwrap();
        assert!(matches!(entry.state(), State::Unfinished));
    }

    #[test]
    fn a_damaged_key_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::example("a");
        let path = Store::at(dir.path()).entry(&key).unwrap().folder.join(KEY);
        for damage in ["", "{", "{\"what\":\"search\"}"] {
            std::fs::write(&path, damage).unwrap();
            Store::at(dir.path()).entry(&key).unwrap();
            assert_eq!(files::read_json::<Value>(&path).unwrap(), key.value(), "{damage:?}");
        }
    }

    #[test]
    fn a_finished_entry_says_what_it_is_and_what_it_depends_on() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::example("a");
        let entry = Store::at(dir.path()).entry(&key).unwrap();
        entry.finish(&key, &[], TOOK).unwrap();
        let manifest: Manifest = files::read_json(&entry.manifest()).unwrap();
        assert_eq!((manifest.format, manifest.kind, manifest.key), (FORMAT, key.kind(), key.value()));
        assert_eq!(files::read_json::<Value>(&entry.folder.join(KEY)).unwrap(), key.value());
    }
}
