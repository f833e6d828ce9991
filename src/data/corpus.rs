//! Corpora by name: the built-in one, and the files that a spec's `[corpora.NAME]` names.

use std::path::{Path, PathBuf};

use crate::base::{Error, Kind, Result, files};
use crate::builtin;
use crate::spec;

/// The built-in corpus's name.
pub const QUICKSTART: &str = "quickstart";

/// Names of the corpora that need no table in the spec.
pub const KNOWN: &[&str] = &[QUICKSTART];

/// Training text of a corpus.
pub enum Text {
    /// One text that calibration and search draw from.
    One(String),
    /// A text for each.
    Separate {
        /// For calibration.
        calibration: String,
        /// For search.
        search: String,
    },
}

/// One corpus.
pub enum Corpus<'a> {
    /// Generated text.
    Quickstart,
    /// Files.
    Files(&'a spec::Corpus),
}

impl<'a> Corpus<'a> {
    /// The corpus of a name.
    pub fn find(spec: &'a spec::Spec, name: &str) -> Result<Self> {
        match spec.corpora.get(name) {
            Some(files) => Ok(Corpus::Files(files)),
            None if name == QUICKSTART => Ok(Corpus::Quickstart),
            None => Err(Error::new(Kind::Spec, format!("there is no corpus `{name}`"))
                .hint(format!("add a [corpora.{name}] table, or use one of: {}", KNOWN.join(", ")))),
        }
    }

    /// Training text, at least `bytes` of each part where the text is generated.
    pub fn training(&self, bytes: usize) -> Result<Text> {
        match self {
            Corpus::Quickstart => Ok(Text::Separate {
                calibration: builtin::text(builtin::Split::Calibration, bytes),
                search: builtin::text(builtin::Split::Search, bytes),
            }),
            Corpus::Files(c) => Ok(Text::One(read_all(&c.train, c, "train")?)),
        }
    }

    /// Held-out text, at least `bytes` where it is generated.
    pub fn held_out(&self, bytes: usize) -> Result<String> {
        match self {
            Corpus::Quickstart => Ok(builtin::text(builtin::Split::Evaluation, bytes)),
            Corpus::Files(c) => read_all(&c.test, c, "test"),
        }
    }
}

fn read_all(paths: &[PathBuf], corpus: &spec::Corpus, key: &str) -> Result<String> {
    if paths.is_empty() {
        return Err(Error::new(Kind::Data, format!("the corpus has no `{key}` files"))
            .hint(format!("add {key} = [\"file.txt\"] to its table")));
    }
    let parts = paths.iter().map(|p| read(p, corpus)).collect::<Result<Vec<_>>>()?;
    Ok(parts.join(&corpus.separator))
}

fn read(path: &Path, corpus: &spec::Corpus) -> Result<String> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("jsonl" | "json" | "parquet") => documents(path, corpus),
        _ => files::read_text(path).map_err(|e| Error { kind: Kind::Data, ..e }),
    }
}

fn documents(path: &Path, corpus: &spec::Corpus) -> Result<String> {
    let rows = super::rows::read(path, usize::MAX)?;
    let texts = rows.iter().map(|r| r.text(&corpus.column)).collect::<Result<Vec<_>>>()?;
    Ok(texts.join(&corpus.separator))
}
