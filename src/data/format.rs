//! What a data file is, by its name: text, JSON lines or parquet, under any of their usual endings.

use std::fs::File;
use std::path::Path;

use crate::base::{Error, Kind, Result, files};

/// The kinds of data files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Plain text.
    Text,
    /// One JSON object a line.
    Lines,
    /// Parquet.
    Parquet,
}

/// Endings of plain text; a name without an ending is text too.
const TEXT: &[&str] = &["txt", "text", "raw", "tokens", "md"];
/// Endings of JSON lines.
const LINES: &[&str] = &["jsonl", "ndjson", "jsonlines", "ldjson", "json"];
/// Endings of parquet.
const PARQUET: &[&str] = &["parquet", "pq"];
/// Endings that a compressed file has behind its own; whether it is compressed, its first bytes say.
const COMPRESSED: &[&str] = &["gz", "gzip", "zst", "zstd"];

impl Format {
    /// What a file is by the ending of its name, in upper or lower case, one of compression taken off.
    ///
    /// # Errors
    /// An ending that is not known.
    pub fn of(path: &Path) -> Result<Self> {
        let name = bare(path);
        match ending(&name) {
            None => Ok(Format::Text),
            Some(ending) if TEXT.contains(&ending) => Ok(Format::Text),
            Some(ending) if LINES.contains(&ending) => Ok(Format::Lines),
            Some(ending) if PARQUET.contains(&ending) => Ok(Format::Parquet),
            Some(ending) => Err(unknown(path, ending)),
        }
    }
}

/// Opens a file of data.
///
/// # Errors
/// One that is not there or is no file.
pub(super) fn opened(path: &Path) -> Result<File> {
    files::regular(path).map_err(|e| Error { kind: Kind::Data, ..e })?;
    File::open(path).map_err(|e| files::io_error(path, "read", &e))
}

/// Whether a file's text is larger than the file, by its name.
pub fn is_packed(path: &Path) -> bool {
    let name = lowercase(path);
    ending(&name).is_some_and(|e| COMPRESSED.contains(&e) || PARQUET.contains(&e))
}

/// The name in lower case without an ending of compression.
fn bare(path: &Path) -> String {
    let name = lowercase(path);
    match name.rsplit_once('.') {
        Some((rest, ending)) if COMPRESSED.contains(&ending) => rest.to_string(),
        _ => name,
    }
}

fn lowercase(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// What follows the last point; a point at the very front begins a name.
fn ending(name: &str) -> Option<&str> {
    name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map(|(_, ending)| ending)
}

fn unknown(path: &Path, ending: &str) -> Error {
    let list = |endings: &[&str]| endings.iter().map(|e| format!(".{e}")).collect::<Vec<_>>().join(" ");
    let hint = format!(
        "text: {}; JSON lines: {}; parquet: {}; each also packed as {}",
        list(TEXT),
        list(LINES),
        list(PARQUET),
        list(COMPRESSED)
    );
    Error::new(Kind::Data, format!("files that end in .{ending} are not read")).at(path.display()).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_go_by_any_of_their_usual_names() {
        let of = |name: &str| Format::of(Path::new(name)).unwrap();
        for name in
            ["a.txt", "A.TXT", "wiki.test.raw", "wiki.test.tokens", "text8", "a.txt.gz", ".hidden", "dir.d/a"]
        {
            assert_eq!(of(name), Format::Text, "{name}");
        }
        for name in
            ["a.jsonl", "a.ndjson", "a.jsonlines", "a.JSONL", "c4.00000-of-01024.json.gz", "a.jsonl.ZST"]
        {
            assert_eq!(of(name), Format::Lines, "{name}");
        }
        assert_eq!((of("a.Parquet"), of("a.pq")), (Format::Parquet, Format::Parquet));
        assert!(is_packed(Path::new("a.json.gz")) && is_packed(Path::new("a.parquet")));
        assert!(!is_packed(Path::new("a.txt")));
    }

    #[test]
    fn other_endings_are_refused_with_the_list_of_those_known() {
        for name in ["a.csv", "a.TSV", "a.csv.gz", "a.arrow", "a.txt.bz2", "a.xlsx"] {
            let e = Format::of(Path::new(name)).unwrap_err();
            assert_eq!(e.kind, Kind::Data, "{name}");
            let text = e.to_string();
            assert!(text.contains(".ndjson") && text.contains(".parquet") && text.contains(".zst"), "{text}");
        }
    }
}
