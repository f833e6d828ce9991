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
use crate::eval::Catalogue;
use crate::eval::hub::Split;
use crate::eval::tasks::{Form, Source, prompt};

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
            ColumnWriter::Int64ColumnWriter(w) => {
                w.write_batch(&[-7], Some(&[1, 0]), None).unwrap();
            }
            ColumnWriter::DoubleColumnWriter(w) => {
                w.write_batch(&[0.5, 2.0], Some(&[1, 1]), None).unwrap();
            }
            ColumnWriter::BoolColumnWriter(w) => {
                w.write_batch(&[true, false], Some(&[1, 1]), None).unwrap();
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
    assert_eq!(rows::read(&lines, None, 1).unwrap().len(), 1, "what is not requested is not read");
    let error = rows::read(&lines, None, 9).unwrap_err();
    assert!(error.kind == Kind::Data && error.to_string().contains("a.jsonl line 3"), "{error}");
    let parquet = dir.path().join("a.parquet");
    std::fs::write(&parquet, "PAR1").unwrap();
    assert!(rows::read(&parquet, None, 9).unwrap_err().to_string().contains("not a readable parquet file"));
    assert_eq!(rows::read(&dir.path().join("none.parquet"), None, 9).unwrap_err().kind, Kind::Disk);
}

#[test]
fn a_split_may_be_packed_lines_under_any_of_their_names() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    for (dataset, name) in
        [("a/gz", "test.json.gz"), ("a/nd", "test.NDJSON"), ("a/zst", "test-00000-of-00001.jsonl.zst")]
    {
        let split = Split { dataset, config: None, split: "test", columns: &["id"] };
        let folder = dir.path().join(dataset);
        std::fs::create_dir_all(&folder).unwrap();
        let line = b"{\"id\": 7}\n";
        let bytes = match name.rsplit_once('.').unwrap().1 {
            "gz" => {
                let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                out.write_all(line).unwrap();
                out.finish().unwrap()
            }
            "zst" => zstd::encode_all(line.as_slice(), 3).unwrap(),
            _ => line.to_vec(),
        };
        std::fs::write(folder.join(name), bytes).unwrap();
        let rows = split.rows(Some(dir.path()), 9).unwrap();
        assert_eq!(rows[0].index("id").unwrap(), 7, "{name}");
    }
}

#[test]
fn every_task_reads_the_fields_that_its_prompt_needs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all.parquet");
    let schema = "message m { optional binary question (UTF8); optional binary question_stem (UTF8);
        optional binary passage (UTF8); optional binary activity_label (UTF8); optional binary ctx_a (UTF8);
        optional binary ctx_b (UTF8); optional binary goal (UTF8); optional binary sol1 (UTF8);
        optional binary sol2 (UTF8); optional binary sentence1 (UTF8); optional binary sentence2 (UTF8);
        optional binary sentence (UTF8); optional binary option1 (UTF8); optional binary option2 (UTF8);
        optional binary answer (UTF8); optional binary answerKey (UTF8); optional int64 label;
        optional group choices { optional group text (LIST) { repeated group list { optional binary element (UTF8); } }
        optional group label (LIST) { repeated group list { optional binary element (UTF8); } } }
        optional group endings (LIST) { repeated group list { optional binary element (UTF8); } } }";
    write_parquet(&path, schema, WriterProperties::default(), |name| match name {
        "answer" => "1",
        "sentence" => "a _ b",
        _ => "A",
    });
    let tasks = Catalogue::builtin()
        .select(
            &["arc_easy", "arc_challenge", "boolq", "hellaswag", "openbookqa", "piqa", "rte", "winogrande"]
                .map(String::from),
        )
        .unwrap()
        .tasks;
    for task in tasks {
        let Form::Choice { source: Source::Hub(split, prompt), .. } = task.form else {
            panic!("{}", task.name)
        };
        let rows = rows::read(&path, Some(split.columns), 1).unwrap();
        // Lists of one choice are refused as documents, after every field was read.
        prompt(&rows[0]).unwrap_or_else(|e| panic!("{}: {e}", task.name));
    }
}

/// One row: `text` of a column's name in columns of texts, 0 in columns of numbers.
fn write_parquet(path: &Path, schema: &str, properties: WriterProperties, text: fn(&str) -> &str) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema.clone(), Arc::new(properties)).unwrap();
    let columns = parquet::schema::types::SchemaDescriptor::new(schema);
    let mut group = writer.next_row_group().unwrap();
    let mut next = 0;
    while let Some(mut column) = group.next_column().unwrap() {
        let descriptor = columns.column(next);
        let definition = [descriptor.max_def_level()];
        let repetition: Option<&[i16]> = (descriptor.max_rep_level() > 0).then_some(&[0]);
        match column.untyped() {
            ColumnWriter::ByteArrayColumnWriter(w) => {
                let value = [ByteArray::from(text(columns.get_column_root(next).name()))];
                w.write_batch(&value, Some(&definition), repetition).unwrap();
            }
            ColumnWriter::Int64ColumnWriter(w) => {
                w.write_batch(&[0], Some(&definition), repetition).unwrap();
            }
            ColumnWriter::Int32ColumnWriter(w) => {
                w.write_batch(&[i32::MAX], Some(&definition), repetition).unwrap();
            }
            _ => panic!("no such column in the schema"),
        }
        column.close().unwrap();
        next += 1;
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn a_date_that_no_calendar_has_is_a_number_where_it_is_asked_for_and_nothing_where_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    let schema = "message m { optional binary text (UTF8); optional int32 day (DATE); optional binary raw; }";
    write_parquet(&path, schema, WriterProperties::default(), |_| "words");
    let row = |columns| rows::read(&path, columns, 9).unwrap().remove(0);
    assert_eq!(row(None).field("day").unwrap(), &json!(i32::MAX));
    assert!(row(None).text("raw").is_err(), "bytes are no text");
    let text = row(Some(&["text"]));
    assert_eq!((text.text("text").unwrap(), text.has("day")), ("words", false));
    let e = text.field("other").unwrap_err().to_string();
    assert!(e.contains("fields here: text, day, raw"), "{e}");
    let e = rows::read(&path, Some(&["page"]), 9).unwrap_err();
    assert!(e.kind == Kind::Data && e.to_string().contains("fields here: text, day, raw"), "{e}");
}

#[test]
fn parquet_is_read_under_every_codec() {
    use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    for codec in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        let properties = WriterProperties::builder().set_compression(codec).build();
        write_parquet(&path, "message m { optional binary text (UTF8); }", properties, |_| "words and words");
        let rows = rows::read(&path, Some(&["text"]), 9).unwrap();
        assert_eq!(rows[0].text("text").unwrap(), "words and words", "{codec}");
    }
}

#[test]
fn a_parquet_file_with_any_damaged_byte_is_read_or_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    write_arc(&path);
    let whole = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        std::fs::write(&path, damaged).unwrap();
        if let Err(e) = rows::read(&path, None, 9) {
            assert!(e.kind == Kind::Data && e.to_string().contains("a.parquet"), "byte {at}: {e}");
            refused += 1;
        }
    }
    assert!(refused > whole.len() / 4, "{refused} of {}", whole.len());
}
