//! Rows of a data file, parquet or JSON lines alike, one at a time, and typed access to their fields with
//! errors that name file, row and field.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::characters::{Characters, Lines};
use super::format::{self, Format};
use super::parquet::Records;
use crate::base::{Error, Kind, Result};

/// One row of a data file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The file it comes from.
    file: Arc<Path>,
    /// Line of a JSON lines file or row of a parquet file, from 1.
    number: usize,
    fields: Map<String, Value>,
    /// Names of all fields of the file, where not all are read.
    names: Option<Arc<[String]>>,
}

/// The rows of a file, in order.
pub struct Rows {
    file: Arc<Path>,
    source: Source,
    /// Lines or rows read.
    number: usize,
    /// Whether the end or an error was met.
    ended: bool,
}

enum Source {
    Lines(Lines),
    Parquet(Records),
}

/// The first `limit` rows of a file, as [`open`] reads them.
pub fn read(path: &Path, columns: Option<&[&str]>, limit: usize) -> Result<Vec<Row>> {
    open(path, columns)?.take(limit).collect()
}

/// Opens a file of parquet or JSON lines under any of their names, plain or packed. Of a parquet file only
/// `columns` are read, or all without a list.
///
/// # Errors
/// A file that is not there, is of another format or is damaged.
pub fn open(path: &Path, columns: Option<&[&str]>) -> Result<Rows> {
    let source = match Format::of(path)? {
        Format::Parquet => {
            let file = format::opened(path)?;
            Source::Parquet(Records::open(path, file, columns)?)
        }
        Format::Lines => Source::Lines(Characters::open(path)?.lines()),
        Format::Text => {
            return Err(Error::new(Kind::Data, "plain text has no fields")
                .at(path.display())
                .hint("use JSON lines (.jsonl) or parquet (.parquet)"));
        }
    };
    Ok(Rows { file: path.into(), source, number: 0, ended: false })
}

impl Rows {
    fn row(&mut self) -> Result<Option<Row>> {
        loop {
            self.number += 1;
            let (fields, names) = match &mut self.source {
                Source::Lines(lines) => match lines.next().transpose()? {
                    Some(line) if line.trim().is_empty() => continue,
                    line => (line.map(|line| parse(&line)).transpose()?, None),
                },
                Source::Parquet(records) => (records.next().transpose()?, Some(records.names.clone())),
            };
            let file = self.file.clone();
            return Ok(fields.map(|fields| Row { file, number: self.number, fields, names }));
        }
    }

    fn place(&self) -> String {
        place(&self.file, self.number)
    }
}

impl Iterator for Rows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.row().map_err(|e| Error { place: Some(self.place()), ..e }).transpose();
        self.ended = !matches!(row, Some(Ok(_)));
        row
    }
}

fn parse(line: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(line).map_err(|e| {
        Error::new(Kind::Data, format!("not a JSON object on one line: {e}"))
            .hint("every line holds one object, {\"text\": \"…\"}; a JSON list is not read")
    })
}

fn place(path: &Path, number: usize) -> String {
    let unit = if matches!(Format::of(path), Ok(Format::Parquet)) { "row" } else { "line" };
    format!("{} {unit} {number}", path.display())
}

impl Row {
    /// Where the row stands, for messages.
    pub fn place(&self) -> String {
        place(&self.file, self.number)
    }

    /// Whether there is a field of this name.
    pub fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// A field by its name, or by a dotted path into structs (`choices.text`).
    pub fn field(&self, name: &str) -> Result<&Value> {
        let mut parts = name.split('.');
        let first = parts.next().and_then(|part| self.fields.get(part));
        let nested = parts.fold(first, |value, part| value?.get(part));
        self.fields.get(name).or(nested).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> Error {
        let own = || self.fields.keys().map(String::as_str).collect();
        let names: Vec<&str> =
            self.names.as_ref().map_or_else(own, |names| names.iter().map(String::as_str).collect());
        Error::new(Kind::Data, format!("there is no field `{name}`"))
            .at(self.place())
            .hint(format!("fields here: {}", names.join(", ")))
    }

    /// An error about a field of this row.
    pub fn wrong(&self, name: &str, expected: &str) -> Error {
        let found = self.field(name).map(brief).unwrap_or_else(|_| "nothing".into());
        Error::new(Kind::Data, format!("field `{name}` should be {expected}, found {found}")).at(self.place())
    }

    /// A text field, verbatim.
    pub fn text(&self, name: &str) -> Result<&str> {
        self.field(name)?.as_str().ok_or_else(|| self.wrong(name, "text"))
    }

    /// A field that is a list of texts.
    pub fn texts(&self, name: &str) -> Result<Vec<String>> {
        let list = self.field(name)?.as_array();
        let texts: Option<Vec<String>> =
            list.and_then(|list| list.iter().map(|v| v.as_str().map(String::from)).collect());
        texts.ok_or_else(|| self.wrong(name, "a list of texts"))
    }

    /// A field that is a whole number of at least 0.
    pub fn index(&self, name: &str) -> Result<usize> {
        let number = self.field(name)?.as_u64().and_then(|n| usize::try_from(n).ok());
        number.ok_or_else(|| self.wrong(name, "a whole number from 0"))
    }
}

/// A value for a message, cut short.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
