//! The record of an export in its folder: what it was made of, so that the same export is known when it is asked for
//! again, and what was written.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::base::{Result, files, hash};
use crate::export::{Exported, Options};
use crate::model::save::companions_hash;
use crate::model::{Source, remote};
use crate::spec::Form;
use crate::trial::keys::Versioned;

/// The file of an export's record.
const RECORD: &str = "export.json";

/// What an export was made of, and what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Hash of the model, of the form and of what it depends on.
    pub of: String,
    /// Names and bytes of the files that were written, the card and this one aside.
    files: Vec<(String, u64)>,
    /// What is not as in the model.
    notes: Vec<String>,
}

/// Hashes of a model's files.
#[derive(Debug, Serialize)]
pub struct ModelHashes {
    /// Of what decides its output.
    model: String,
    /// Of the small files beside that.
    companions: String,
}

impl ModelHashes {
    /// Those of a model.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of(source: &Source) -> Result<Self> {
        Ok(Self { model: source.hash()?, companions: companions_hash(source)? })
    }
}

/// Hash of what an export is made of.
///
/// # Errors
/// A base GGUF file that cannot be read.
pub fn identity(hashes: &ModelHashes, form: Form, options: &Options) -> Result<String> {
    let gguf_base = options.gguf_base.map(hash::of_file).transpose()?;
    let gguf = (form == Form::Gguf).then_some((options.quantisation, gguf_base, options.name));
    hash::of_json(&json!({
        "version": Versioned::Export.version(),
        "files": hashes,
        "form": form,
        "code": hash::of_bytes(remote::CODE.as_bytes()),
        "gguf": gguf,
    }))
}

impl Record {
    /// That of a folder; `None` where there is none, or the export is not whole.
    pub fn of(folder: &Path) -> Option<Self> {
        let record: Self = files::read_json(&folder.join(RECORD)).ok()?;
        let is_there = |(name, bytes): &(String, u64)| {
            std::fs::metadata(folder.join(name)).is_ok_and(|file| file.len() == *bytes)
        };
        record.files.iter().all(is_there).then_some(record)
    }

    /// Writes that of an export into its folder.
    ///
    /// # Errors
    /// A disk failure.
    pub fn write(of: String, exported: &Exported, folder: &Path) -> Result<()> {
        let size = |name: &String| {
            let path = folder.join(name);
            let bytes = std::fs::metadata(&path).map_err(|e| files::io_error(&path, "read", &e))?.len();
            Ok((name.clone(), bytes))
        };
        let files = exported.files.iter().map(size).collect::<Result<_>>()?;
        files::write_json(&folder.join(RECORD), &Self { of, files, notes: exported.notes.clone() })
    }

    /// What was written.
    pub fn exported(&self) -> Exported {
        Exported {
            files: self.files.iter().map(|(name, _)| name.clone()).collect(),
            bytes: self.files.iter().map(|(_, bytes)| bytes).sum(),
            notes: self.notes.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pico::Pico;
    use crate::spec::Quantisation;

    #[test]
    fn a_record_is_that_of_a_whole_export() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::of(dir.path()), None);
        std::fs::write(dir.path().join("a"), "12").unwrap();
        std::fs::write(dir.path().join("b"), "345").unwrap();
        let exported =
            Exported { files: vec!["a".into(), "b".into()], bytes: 5, notes: vec!["padded".into()] };
        Record::write("x".into(), &exported, dir.path()).unwrap();
        let record = Record::of(dir.path()).unwrap();
        assert_eq!((record.of.as_str(), record.exported()), ("x", exported));
        std::fs::write(dir.path().join("b"), "34").unwrap();
        assert_eq!(Record::of(dir.path()), None);
    }

    #[test]
    fn exports_differ_in_model_form_and_what_the_form_depends_on() {
        let dir = tempfile::tempdir().unwrap();
        let sources =
            [1, 2].map(|seed| Pico::default().write(&dir.path().join(seed.to_string()), seed).unwrap());
        let options = |quantisation, name| Options { quantisation, gguf_base: None, stored: None, name };
        let plain = options(Quantisation::Auto, Some("a"));
        let hashes = sources.map(|source| ModelHashes::of(&source).unwrap());
        let of = |source: usize, form, options: &Options| identity(&hashes[source], form, options).unwrap();
        let own = of(0, Form::Gguf, &plain);
        assert_eq!(of(0, Form::Gguf, &plain), own);
        for other in [
            of(1, Form::Gguf, &plain),
            of(0, Form::Mlx, &plain),
            of(0, Form::Gguf, &options(Quantisation::F32, Some("a"))),
            of(0, Form::Gguf, &options(Quantisation::Auto, Some("b"))),
        ] {
            assert_ne!(other, own);
        }
        assert_eq!(of(0, Form::Hf, &plain), of(0, Form::Hf, &options(Quantisation::F32, Some("b"))));
    }
}
