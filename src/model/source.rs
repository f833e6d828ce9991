//! Where a model's files come from: a folder, the hub (through its cache folder), or the program itself.

use std::path::{Path, PathBuf};

use super::checkpoint::{Bytes, INDEX, SINGLE, shard_names};
use super::hub;
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
        self.optional(name)?.ok_or_else(|| {
            Error::new(Kind::Checkpoint, format!("{name} is missing"))
                .at(self.place())
                .hint("copy the whole model folder, every shard included")
        })
    }

    /// A file that may be absent.
    pub fn optional(&self, name: &str) -> Result<Option<Bytes>> {
        match self {
            Source::Folder(folder) => {
                let path = folder.join(name);
                if path.exists() { Bytes::map(&path).map(Some) } else { Ok(None) }
            }
            Source::Builtin(files) => {
                Ok(files.iter().find(|(n, _)| *n == name).map(|(_, bytes)| Bytes::Embedded(bytes)))
            }
        }
    }

    /// Whether the weights are all there: one file, or every shard that the index names.
    ///
    /// # Errors
    /// An index that cannot be read.
    pub fn has_weights(&self) -> Result<bool> {
        let names = match self.optional(INDEX)? {
            Some(index) => shard_names(&String::from_utf8_lossy(&index))?,
            None => vec![SINGLE.to_string()],
        };
        names.iter().try_fold(true, |all, name| Ok(all && self.optional(name)?.is_some()))
    }

    /// A text file that must be there.
    pub fn text(&self, name: &str) -> Result<String> {
        let bytes = self.file(name)?;
        String::from_utf8(bytes.to_vec())
            .map_err(|_| Error::new(Kind::Checkpoint, format!("{name} is not UTF-8")).at(self.place()))
    }

    /// Hash of everything that decides the model's output: configuration, tokenizer and weights.
    pub fn hash(&self) -> Result<String> {
        let mut names = vec!["config.json".to_string(), "tokenizer.json".to_string()];
        match self.optional(INDEX)? {
            Some(index) => names.extend(shard_names(&String::from_utf8_lossy(&index))?),
            None => names.push(SINGLE.to_string()),
        }
        let hashes = names
            .iter()
            .map(|n| Ok((n.clone(), hash::of_bytes(&self.file(n)?))))
            .collect::<Result<Vec<_>>>()?;
        hash::of_json(&hashes)
    }
}
