//! Rows of a data file, parquet or JSON lines alike, and typed access to their fields with errors that name
//! file, row and field.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row as Record};
use serde_json::{Map, Value};

use crate::base::files::io_error;
use crate::base::{Error, Kind, Result, ResultExt};

/// One row of a data file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The file it comes from.
    file: Arc<Path>,
    /// Line of a JSON lines file or row of a parquet file, from 1.
    number: usize,
    fields: Map<String, Value>,
}

/// The first `limit` rows of a `.parquet`, `.jsonl` or `.json` (lines) file.
pub fn read(path: &Path, limit: usize) -> Result<Vec<Row>> {
    let file = File::open(path).map_err(|e| io_error(path, "read", &e))?;
    match path.extension().and_then(|e| e.to_str()) {
        Some("parquet") => read_parquet(path, file, limit),
        Some("jsonl" | "json") => read_lines(path, file, limit),
        _ => Err(Error::new(Kind::Data, "not a data file that can be read")
            .at(path.display())
            .hint("use .parquet or .jsonl")),
    }
}

fn read_lines(path: &Path, file: File, limit: usize) -> Result<Vec<Row>> {
    let shared: Arc<Path> = path.into();
    let mut rows = Vec::new();
    for (i, line) in BufReader::new(file).lines().enumerate() {
        if rows.len() == limit {
            break;
        }
        let line = line.or_error(Kind::Data, "cannot read").map_err(|e| e.at(place(path, i + 1)))?;
        if !line.trim().is_empty() {
            let fields = serde_json::from_str(&line).map_err(|e| bad_line(path, i + 1, &e))?;
            rows.push(Row { file: shared.clone(), number: i + 1, fields });
        }
    }
    Ok(rows)
}

fn bad_line(path: &Path, number: usize, e: &serde_json::Error) -> Error {
    Error::new(Kind::Data, format!("not a JSON object on one line: {e}")).at(place(path, number))
}

fn read_parquet(path: &Path, file: File, limit: usize) -> Result<Vec<Row>> {
    let shared: Arc<Path> = path.into();
    let broken = |e: parquet::errors::ParquetError| {
        Error::new(Kind::Data, format!("not a readable parquet file: {e}")).at(path.display())
    };
    let reader = SerializedFileReader::new(file).map_err(broken)?;
    let records = reader.get_row_iter(None).map_err(broken)?.take(limit).enumerate();
    records
        .map(|(i, record)| {
            Ok(Row { file: shared.clone(), number: i + 1, fields: object(&record.map_err(broken)?) })
        })
        .collect()
}

fn object(record: &Record) -> Map<String, Value> {
    record.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect()
}

/// A parquet field as JSON. Types that no task uses (bytes, dates, decimals, maps) become their printed form.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(v) => (*v).into(),
        Field::Byte(v) => (*v).into(),
        Field::Short(v) => (*v).into(),
        Field::Int(v) => (*v).into(),
        Field::Long(v) => (*v).into(),
        Field::UByte(v) => (*v).into(),
        Field::UShort(v) => (*v).into(),
        Field::UInt(v) => (*v).into(),
        Field::ULong(v) => (*v).into(),
        Field::Float(v) => (*v).into(),
        Field::Double(v) => (*v).into(),
        Field::Str(v) => v.as_str().into(),
        Field::Group(record) => Value::Object(object(record)),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        other => other.to_string().into(),
    }
}

fn place(path: &Path, number: usize) -> String {
    let unit = if path.extension().is_some_and(|e| e == "parquet") { "row" } else { "line" };
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
        let names: Vec<&str> = self.fields.keys().map(String::as_str).collect();
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
