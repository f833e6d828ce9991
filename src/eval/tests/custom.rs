//! Tasks of the user's own: gold answers in their three forms, and errors that name line and field.

use serde_json::{Value, json};

use super::write_lines;
use crate::base::{Kind, Result};
use crate::eval::document::Document;
use crate::eval::tasks::{Task, custom};
use crate::spec;

fn read(rows: &[Value]) -> Result<Vec<Document>> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.jsonl");
    write_lines(&file, rows);
    custom::documents(
        &spec::Task { file, context: "q".into(), choices: "c.text".into(), gold: "g".into() },
        usize::MAX,
    )
}

fn gold(choices: &[&str], gold: Value) -> Result<usize> {
    Ok(read(&[json!({"q": "Q", "c": {"text": choices}, "g": gold})])?[0].gold)
}

#[test]
fn gold_is_an_index_a_letter_or_the_text_of_a_choice() {
    assert_eq!(gold(&["x", "y"], json!(1)).unwrap(), 1);
    assert_eq!(gold(&["x", "y"], json!("B")).unwrap(), 1);
    assert_eq!(gold(&["x", "y"], json!("y")).unwrap(), 1);
    assert_eq!(gold(&["1", "0"], json!("0")).unwrap(), 1, "a text is never an index");
    assert_eq!(gold(&["A", "B"], json!("B")).unwrap(), 1, "the letter and the text agree");
}

#[test]
fn a_gold_that_fits_nothing_or_several_choices_is_an_error() {
    for bad in
        [json!("0"), json!("C"), json!("z"), json!(2), json!(-1), json!(0.5), json!(null), json!(["x"])]
    {
        let error = gold(&["x", "y"], bad.clone()).unwrap_err();
        assert_eq!(error.kind, Kind::Data);
        assert!(error.to_string().contains("field `g` should be"), "{bad}: {error}");
        assert!(error.to_string().contains("mine.jsonl line 1"), "{bad}: {error}");
    }
    assert!(gold(&["B", "A"], json!("A")).unwrap_err().to_string().contains("several choices: [1, 0]"));
    assert!(gold(&["x", "x"], json!("x")).unwrap_err().to_string().contains("several choices: [0, 1]"));
}

#[test]
fn an_error_names_line_and_field() {
    let good = json!({"q": "Q", "c": {"text": ["x", "y"]}, "g": 0});
    let of = |bad: Value| read(&[good.clone(), bad]).unwrap_err().to_string();
    let missing = of(json!({"c": {"text": ["x", "y"]}, "g": 0}));
    assert!(
        missing.contains("no field `q`")
            && missing.contains("line 2")
            && missing.contains("fields here: c, g"),
        "{missing}"
    );
    assert!(
        of(json!({"q": 1, "c": {"text": ["x", "y"]}, "g": 0})).contains("field `q` should be text, found 1")
    );
    assert!(
        of(json!({"q": "Q", "c": {"text": ["x", 2]}, "g": 0}))
            .contains("field `c.text` should be a list of texts")
    );
    let single = of(json!({"q": "Q", "c": {"text": ["x"]}, "g": 0}));
    assert!(single.contains("1 choices") && single.contains("line 2"), "{single}");
}

#[test]
fn a_missing_file_and_another_format_are_named() {
    let task = |file: &str| spec::Task {
        file: file.into(),
        context: "q".into(),
        choices: "c".into(),
        gold: "g".into(),
    };
    let error = Task::custom("mine", &task("nowhere/mine.jsonl")).check(None).unwrap_err().to_string();
    assert!(error.contains("no such file") && error.contains("mine: nowhere/mine.jsonl"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.csv");
    std::fs::write(&path, "q,c,g\n").unwrap();
    assert!(
        custom::documents(&task(&path.display().to_string()), 1)
            .unwrap_err()
            .to_string()
            .contains("JSON lines: .jsonl .ndjson")
    );
}
