//! Corpora by name: the built-in one, and the files that a spec's `[corpora.NAME]` names.

use std::path::{Path, PathBuf};

use super::characters::Characters;
use super::format::Format;
use super::rows;
use crate::base::{Error, Kind, Result};
use crate::builtin;
use crate::spec;

/// The built-in corpus's name.
pub const QUICKSTART: &str = "quickstart";

/// Names of the corpora that need no table in the spec.
pub const KNOWN: &[&str] = &[QUICKSTART];

/// A text in pieces, in order, so that it need not be held at once.
pub type Pieces<'a> = Box<dyn Iterator<Item = Result<String>> + 'a>;

/// Training text of a corpus.
pub enum Text<'a> {
    /// One text that calibration and search draw from.
    One(Pieces<'a>),
    /// A text for each.
    Separate {
        /// For calibration.
        calibration: Pieces<'a>,
        /// For search.
        search: Pieces<'a>,
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
    ///
    /// # Errors
    /// A corpus without training files; what is wrong with a file comes with its piece.
    pub fn training(&self, bytes: usize) -> Result<Text<'a>> {
        match self {
            Corpus::Quickstart => Ok(Text::Separate {
                calibration: whole(builtin::text(builtin::Split::Calibration, bytes)),
                search: whole(builtin::text(builtin::Split::Search, bytes)),
            }),
            Corpus::Files(c) => Ok(Text::One(pieces(&c.train, c, "train")?)),
        }
    }

    /// Held-out text, at least `bytes` where it is generated.
    ///
    /// # Errors
    /// As [`Corpus::training`].
    pub fn held_out(&self, bytes: usize) -> Result<Pieces<'a>> {
        match self {
            Corpus::Quickstart => Ok(whole(builtin::text(builtin::Split::Evaluation, bytes))),
            Corpus::Files(c) => pieces(&c.test, c, "test"),
        }
    }
}

fn whole<'a>(text: String) -> Pieces<'a> {
    Box::new(std::iter::once(Ok(text)))
}

/// The files of a corpus one after the other, the separator between them and between their documents.
fn pieces<'a>(paths: &'a [PathBuf], corpus: &'a spec::Corpus, key: &str) -> Result<Pieces<'a>> {
    if paths.is_empty() {
        return Err(Error::new(Kind::Data, format!("the corpus has no `{key}` files"))
            .hint(format!("add {key} = [\"file.txt\"] to its table")));
    }
    let formats = paths.iter().map(|path| Format::of(path)).collect::<Result<Vec<_>>>()?;
    let files = paths.iter().zip(formats).enumerate().flat_map(|(i, (path, format))| {
        let before = (i > 0).then(|| Ok(corpus.separator.clone()));
        before.into_iter().chain(file(path, format, corpus))
    });
    Ok(Box::new(files.map(|piece| piece.map_err(of_data))))
}

/// The text of one file.
fn file<'a>(path: &'a Path, format: Format, corpus: &'a spec::Corpus) -> Pieces<'a> {
    match format {
        Format::Text => opened(Characters::open(path)),
        Format::Lines | Format::Parquet => opened(documents(path, corpus)),
    }
}

fn opened<'a>(pieces: Result<impl Iterator<Item = Result<String>> + 'a>) -> Pieces<'a> {
    match pieces {
        Ok(pieces) => Box::new(pieces),
        Err(e) => Box::new(std::iter::once(Err(e))),
    }
}

/// The documents of a file with fields, separators between them.
fn documents<'a>(
    path: &'a Path,
    corpus: &'a spec::Corpus,
) -> Result<impl Iterator<Item = Result<String>> + 'a> {
    let rows = rows::open(path, Some(&[&corpus.column]))?;
    Ok(rows.enumerate().flat_map(|(i, row)| {
        let before = (i > 0).then(|| Ok(corpus.separator.clone()));
        let text = row.and_then(|row| row.text(&corpus.column).map(String::from));
        before.into_iter().chain(std::iter::once(text))
    }))
}

/// A file of a corpus that cannot be read is a fault of the corpus.
fn of_data(e: Error) -> Error {
    Error { kind: Kind::Data, ..e }
}
