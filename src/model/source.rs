//! Where a model's files come from: a folder, the hub (through its cache folder), or the program itself.

use std::path::{Path, PathBuf};

use super::checkpoint::{Bytes, INDEX, SINGLE, shard_names};
use super::{companions, diagnose, hub};
use crate::base::{Error, Kind, Result, hash};
use crate::builtin::model::{self as builtin, NAME as BUILTIN};

/// A model's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder in the Hugging Face layout.
    Folder(PathBuf),
    /// Files that are part of the program.
    Builtin(&'static [(&'static str, &'static [u8])]),
}

impl Source {
    /// The source that `model.source` names; a hub model is fetched into the hub's cache first.
    pub fn resolve(source: &str) -> Result<Self> {
        if let Some(name) = source.strip_prefix("hf:") {
            return Ok(Source::Folder(hub::fetch(name)?));
        }
        match source {
            BUILTIN => Ok(Source::Builtin(builtin::FILES)),
            _ if source.starts_with("builtin:") => {
                Err(Error::new(Kind::Spec, format!("there is no `{source}`"))
                    .hint(format!("the built-in model is `{BUILTIN}`")))
            }
            folder => Self::folder(Path::new(folder)),
        }
    }

    /// A folder, which must exist.
    pub fn folder(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::new(Kind::Checkpoint, "no such model folder")
                .at(path.display())
                .hint("name a folder with config.json, tokenizer.json and *.safetensors, or hf:OWNER/NAME"));
        }
        Ok(Source::Folder(path.to_path_buf()))
    }

    /// How messages name it.
    pub fn place(&self) -> String {
        match self {
            Source::Folder(path) => path.display().to_string(),
            Source::Builtin(_) => BUILTIN.into(),
        }
    }

    /// A file that must be there.
    pub fn file(&self, name: &str) -> Result<Bytes> {
        self.optional(name)?.ok_or_else(|| diagnose::missing(self, name))
    }

    /// A file that may be absent.
    ///
    /// # Errors
    /// It cannot be read, or only stands for one that was not fetched.
    pub fn optional(&self, name: &str) -> Result<Option<Bytes>> {
        match self {
            Source::Folder(folder) => {
                if !self.has(name) {
                    return Ok(None);
                }
                let bytes = Bytes::map(&folder.join(name))?;
                if diagnose::is_lfs_pointer(&bytes) {
                    return Err(diagnose::lfs_pointer(name).at(self.place()));
                }
                Ok(Some(bytes))
            }
            Source::Builtin(files) => {
                Ok(files.iter().find(|(n, _)| *n == name).map(|(_, bytes)| Bytes::Embedded(bytes)))
            }
        }
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Source::Folder(folder) => folder.join(name).exists(),
            Source::Builtin(files) => files.iter().any(|(n, _)| *n == name),
        }
    }

    /// Names of all files, sorted; none of a folder that cannot be listed.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = match self {
            Source::Folder(folder) => {
                let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
                entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
            }
            Source::Builtin(files) => files.iter().map(|(name, _)| (*name).into()).collect(),
        };
        names.sort();
        names
    }

    /// The files that hold the weights, as transformers takes them: the single one, or without it those that
    /// the index names; `None` without either. They need not be there.
    ///
    /// # Errors
    /// An index that cannot be read.
    pub(super) fn weight_files(&self) -> Result<Option<WeightFiles>> {
        if self.has(SINGLE) {
            return Ok(Some(WeightFiles { names: vec![SINGLE.into()], beside_index: self.has(INDEX) }));
        }
        let Some(index) = self.optional(INDEX)? else { return Ok(None) };
        let names = shard_names(&String::from_utf8_lossy(&index)).map_err(|e| e.at(self.place()))?;
        Ok(Some(WeightFiles { names, beside_index: false }))
    }

    /// Whether the weights are all there: one file, or every shard that the index names.
    ///
    /// # Errors
    /// An index that cannot be read.
    pub fn has_weights(&self) -> Result<bool> {
        let Some(files) = self.weight_files()? else { return Ok(false) };
        files.names.iter().try_fold(true, |all, name| Ok(all && self.optional(name)?.is_some()))
    }

    /// A text file that must be there.
    pub fn text(&self, name: &str) -> Result<String> {
        let bytes = self.file(name)?;
        String::from_utf8(bytes.to_vec())
            .map_err(|_| Error::new(Kind::Checkpoint, format!("{name} is not UTF-8")).at(self.place()))
    }

    /// Hash of everything that decides the model's output: configuration, tokenizer and weights.
    pub fn hash(&self) -> Result<String> {
        let weights = self.weight_files()?.ok_or_else(|| diagnose::missing(self, SINGLE))?;
        let needed = ["config.json".to_string(), companions::TOKENIZER.to_string()];
        let hash = |name: String| Ok((name.clone(), hash::of_bytes(&self.file(&name)?)));
        hash::of_json(&needed.into_iter().chain(weights.names).map(hash).collect::<Result<Vec<_>>>()?)
    }
}

/// The files that hold a model's weights.
pub(super) struct WeightFiles {
    /// Their names.
    pub names: Vec<String>,
    /// Whether an index lies beside a single file, which names others.
    pub beside_index: bool,
}
