//! Data files: JSON lines and parquet read alike, in the hub's layout.

use std::path::Path;
use std::sync::Arc;

use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;

use super::write_lines;
use crate::base::Kind;
use crate::data::rows;
use crate::eval::hub::Split;
use crate::eval::{Catalogue, tasks::prompt};

const ARC: Split =
    Split { dataset: "allenai/ai2_arc", config: Some("ARC-Easy"), split: "test", columns: &["id"] };

/// Two questions with three and two choices, nested as the hub nests them.
fn write_arc(path: &Path) {
    let schema = "message m { optional binary question (UTF8); optional group choices {
        optional group text (LIST) { repeated group list { optional binary element (UTF8); } }
        optional group label (LIST) { repeated group list { optional binary element (UTF8); } } }
        optional binary answerKey (UTF8); optional int64 id; optional double weight; optional boolean flag; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(WriterProperties::default())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let texts = |values: &[&str]| values.iter().map(|v| ByteArray::from(*v)).collect::<Vec<_>>();
    let flat = [
        texts(&["Q1?", "Q2é?"]),
        texts(&["x", "y", "z", "u", "v"]),
        texts(&["A", "B", "C", "1", "2"]),
        texts(&["C", "1"]),
    ];
    let mut flat = flat.into_iter();
    while let Some(mut column) = group.next_column().unwrap() {
        match column.untyped() {
            ColumnWriter::ByteArrayColumnWriter(w) => {
                let values = flat.next().unwrap();
                let (definitions, repetitions): (&[i16], Option<&[i16]>) =
                    if values.len() == 5 { (&[4; 5], Some(&[0, 1, 1, 0, 1])) } else { (&[1; 2], None) };
                w.write_batch(&values, Some(definitions), repetitions).unwrap();
            }
            ColumnWriter::Int64ColumnWriter(w) => drop(w.write_batch(&[-7], Some(&[1, 0]), None).unwrap()),
            ColumnWriter::DoubleColumnWriter(w) => {
                drop(w.write_batch(&[0.5, 2.0], Some(&[1, 1]), None).unwrap())
            }
            ColumnWriter::BoolColumnWriter(w) => {
                drop(w.write_batch(&[true, false], Some(&[1, 1]), None).unwrap())
            }
            _ => panic!("no such column in the schema"),
        }
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_and_lines_give_the_same_documents() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    write_arc(&path);
    let rows = rows::read(&path, None, 9).unwrap();
    let lines = dir.path().join("a.jsonl");
    let first = json!({"question": "Q1?", "choices": {"text": ["x", "y", "z"], "label": ["A", "B", "C"]}, "answerKey": "C"});
    let second =
        json!({"question": "Q2é?", "choices": {"text": ["u", "v"], "label": ["1", "2"]}, "answerKey": "1"});
    write_lines(&lines, &[first, second]);
    let documents = |rows: &[rows::Row]| rows.iter().map(|r| prompt::arc(r).unwrap()).collect::<Vec<_>>();
    assert_eq!(documents(&rows), documents(&rows::read(&lines, None, 9).unwrap()));
    assert_eq!(rows[0].field("id").unwrap(), &json!(-7));
    assert_eq!((rows[1].field("id").unwrap(), rows[1].field("weight").unwrap()), (&json!(null), &json!(2.0)));
    assert_eq!(rows[0].field("flag").unwrap(), &json!(true));
    assert!(rows[1].place().ends_with("a.parquet row 2"));
    assert_eq!(rows::read(&path, None, 1).unwrap().len(), 1);
}

#[test]
fn a_split_is_all_its_files_in_the_order_of_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("allenai/ai2_arc/ARC-Easy");
    for (name, id) in [
        ("test-00001-of-00002.jsonl", 2),
        ("test-00000-of-00002.jsonl", 1),
        ("testing.jsonl", 8),
        ("train.jsonl", 9),
    ] {
        write_lines(&folder.join(name), &[json!({"id": id}), json!({"id": id * 10})]);
    }
    let read = |limit| -> Vec<usize> {
        ARC.rows(Some(dir.path()), limit).unwrap().iter().map(|r| r.index("id").unwrap()).collect()
    };
    assert_eq!(read(usize::MAX), [1, 10, 2, 20]);
    assert_eq!(read(3), [1, 10, 2]);
}

#[test]
fn without_a_configuration_files_may_lie_below_data() {
    let dir = tempfile::tempdir().unwrap();
    let split = Split { dataset: "Rowan/hellaswag", config: None, split: "validation", columns: &["a"] };
    write_lines(&dir.path().join("Rowan/hellaswag/data/validation-00000-of-00001.jsonl"), &[json!({"a": 1})]);
    assert_eq!(split.rows(Some(dir.path()), 9).unwrap().len(), 1);
}

#[test]
fn a_missing_data_set_is_named_with_the_folder_and_what_is_expected() {
    let dir = tempfile::tempdir().unwrap();
    let task = Catalogue::builtin().select(&["arc_easy".into()]).unwrap().tasks.remove(0);
    let error = task.check(Some(dir.path())).unwrap_err();
    assert_eq!(error.kind, Kind::Data);
    let folder = dir.path().join("allenai/ai2_arc/ARC-Easy");
    assert_eq!(error.place.as_deref(), Some(format!("arc_easy: {}", folder.display()).as_str()));
    assert!(error.hint.unwrap().contains("allenai/ai2_arc/ARC-Easy/test-*.parquet"));
    let error = task.check(None).unwrap_err();
    assert!(error.hint.unwrap().contains("evaluate.data"));
}

#[test]
fn broken_files_are_errors_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let lines = dir.path().join("a.jsonl");
    std::fs::write(&lines, "{\"a\": 1}\n\n[1]\n").unwrap();
    assert_eq!(rows::read(&lines, None, 1).unwrap().len(), 1, "what is not asked for is not read");
    let error = rows::read(&lines, None, 9).unwrap_err();
    assert!(error.kind == Kind::Data && error.to_string().contains("a.jsonl line 3"), "{error}");
    let parquet = dir.path().join("a.parquet");
    std::fs::write(&parquet, "PAR1").unwrap();
    assert!(rows::read(&parquet, None, 9).unwrap_err().to_string().contains("not a readable parquet file"));
    assert_eq!(rows::read(&dir.path().join("none.parquet"), None, 9).unwrap_err().kind, Kind::Disk);
}
