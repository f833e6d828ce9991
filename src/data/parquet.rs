//! Rows of a parquet file as JSON objects: only the columns that are requested, one row at a time. The reader
//! panics on some damaged files and on types that it does not know; here that is an error.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row as Record};
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use super::pages::Checked;
use crate::base::{Error, Kind, Result, caught};

/// The rows of one file.
pub(super) struct Records {
    records: RowIter<'static>,
    /// Names of all columns of the file, those that are not read included.
    pub names: Arc<[String]>,
}

impl Records {
    /// Opens a file to read those of `columns` that it has, or all without a list. A column's name may go on
    /// with a dotted path into it.
    ///
    /// # Errors
    /// A damaged file, or one with none of the columns.
    pub(super) fn open(path: &Path, file: File, columns: Option<&[&str]>) -> Result<Self> {
        let opened = caught(Kind::Data, BROKEN, || {
            let reader = SerializedFileReader::new(file).map_err(broken)?;
            let root = reader.metadata().file_metadata().schema().clone();
            let names: Arc<[String]> = root.get_fields().iter().map(|f| f.name().to_string()).collect();
            let projection = columns.map(|columns| projection(&root, columns, &names)).transpose()?;
            let records =
                RowIter::from_file_into(Box::new(Checked(reader))).project(projection).map_err(broken)?;
            Ok(Self { records, names })
        });
        opened.map_err(|e| e.at(path.display()))
    }
}

impl Iterator for Records {
    type Item = Result<Map<String, Value>>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = caught(Kind::Data, BROKEN, || {
            self.records.next().map(|record| record.map(|record| object(&record))).transpose().map_err(broken)
        });
        row.transpose()
    }
}

const BROKEN: &str = "not a readable parquet file";

fn broken(e: ParquetError) -> Error {
    Error::new(Kind::Data, format!("{BROKEN}: {e}")).hint("the file is damaged or cut short: copy it again")
}

/// The schema with only the wanted columns.
fn projection(root: &Type, columns: &[&str], names: &[String]) -> Result<Type> {
    let wanted = |name: &str| {
        columns
            .iter()
            .any(|c| c.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    };
    let fields: Vec<_> = root.get_fields().iter().filter(|f| wanted(f.name())).cloned().collect();
    if fields.is_empty() {
        let what = format!("there is no field `{}`", columns.join("` or `"));
        return Err(Error::new(Kind::Data, what).hint(format!("fields here: {}", names.join(", "))));
    }
    Type::group_type_builder(root.name()).with_fields(fields).build().map_err(broken)
}

fn object(record: &Record) -> Map<String, Value> {
    record.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect()
}

/// A field as JSON: dates and times as the numbers that they are stored as, bytes as a list, a map as a list
/// of pairs.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(v) => (*v).into(),
        Field::Byte(v) => (*v).into(),
        Field::Short(v) => (*v).into(),
        Field::Int(v) | Field::Date(v) | Field::TimeMillis(v) => (*v).into(),
        Field::Long(v) | Field::TimeMicros(v) | Field::TimestampMillis(v) | Field::TimestampMicros(v) => {
            (*v).into()
        }
        Field::UByte(v) => (*v).into(),
        Field::UShort(v) => (*v).into(),
        Field::UInt(v) => (*v).into(),
        Field::ULong(v) => (*v).into(),
        Field::Float16(v) => v.to_f32().into(),
        Field::Float(v) => (*v).into(),
        Field::Double(v) => (*v).into(),
        Field::Decimal(_) => field.to_string().into(),
        Field::Str(v) => v.as_str().into(),
        Field::Bytes(v) => v.data().into(),
        Field::Group(record) => Value::Object(object(record)),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::MapInternal(map) => {
            map.entries().iter().map(|(k, v)| Value::from(vec![value(k), value(v)])).collect()
        }
    }
}
