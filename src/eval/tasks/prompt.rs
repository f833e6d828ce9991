//! How a row of each data set becomes a document, in the harness's words (lm-evaluation-harness 0.4.13, its
//! task folders).

use crate::base::Result;
use crate::data::rows::Row;
use crate::eval::document::{Context, Document};
use crate::eval::python;

fn owned(choices: [&str; 2]) -> Vec<String> {
    choices.map(String::from).to_vec()
}

/// Place of a label among the labels of the choices.
fn label_place(row: &Row, label: &str, labels: &[String]) -> Result<usize> {
    labels
        .iter()
        .position(|l| l == label)
        .ok_or_else(|| row.wrong("answerKey", &format!("one of the labels {}", labels.join(", "))))
}

/// ARC: 3 to 5 choices labelled A to E or 1 to 5.
pub fn arc(row: &Row) -> Result<Document> {
    let gold = label_place(row, row.text("answerKey")?, &row.texts("choices.label")?)?;
    Ok(Document::new(
        format!("Question: {}\nAnswer:", row.text("question")?),
        row.texts("choices.text")?,
        gold,
    ))
}

/// OpenBookQA: the stem alone.
pub fn openbookqa(row: &Row) -> Result<Document> {
    let gold = label_place(row, python::lstrip(row.text("answerKey")?), &row.texts("choices.label")?)?;
    Ok(Document::new(row.text("question_stem")?, row.texts("choices.text")?, gold))
}

/// BoolQ: the question mark is added.
pub fn boolq(row: &Row) -> Result<Document> {
    let context = format!("{}\nQuestion: {}?\nAnswer:", row.text("passage")?, row.text("question")?);
    Ok(Document::new(context, owned(["no", "yes"]), row.index("label")?))
}

/// RTE of GLUE: label 0 is entailment.
pub fn rte(row: &Row) -> Result<Document> {
    let context =
        format!("{}\nQuestion: {} True or False?\nAnswer:", row.text("sentence1")?, row.text("sentence2")?);
    Ok(Document::new(context, owned(["True", "False"]), row.index("label")?))
}

/// PIQA: two solutions of a goal.
pub fn piqa(row: &Row) -> Result<Document> {
    let context = format!("Question: {}\nAnswer:", row.text("goal")?);
    Ok(Document::new(context, owned([row.text("sol1")?, row.text("sol2")?]), row.index("label")?))
}

/// HellaSwag: cleaned context and endings.
pub fn hellaswag(row: &Row) -> Result<Document> {
    let tail = python::capitalize(row.text("ctx_b")?);
    let context = clean(&format!("{}: {} {tail}", row.text("activity_label")?, row.text("ctx_a")?));
    let endings = row.texts("endings")?.iter().map(|ending| clean(ending)).collect();
    Ok(Document::new(context, endings, whole_number(row, "label")?))
}

/// A label stored as text or as a number.
fn whole_number(row: &Row, name: &str) -> Result<usize> {
    match row.field(name)?.as_str() {
        Some(text) => python::strip(text).parse().map_err(|_| row.wrong(name, "a whole number from 0")),
        None => row.index(name),
    }
}

/// Takes WikiHow's marks out. There is no second strip: an ending may begin with a space.
pub fn clean(text: &str) -> String {
    without_brackets(&python::strip(text).replace(" [title]", ". ")).replace("  ", " ")
}

/// Deletes every shortest `[…]` that lies in one line.
fn without_brackets(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('[') {
        kept.push_str(&rest[..open]);
        rest = &rest[open..];
        let close = rest.find([']', '\n']).filter(|&end| rest.as_bytes()[end] == b']');
        // Without a closing bracket in the line, the opening one is text.
        let skip = close.map_or(1, |end| end + 1);
        kept.push_str(if close.is_some() { "" } else { "[" });
        rest = &rest[skip..];
    }
    kept + rest
}

/// Winogrande, partial evaluation: each option fills the gap of its own context and the same tail is scored.
pub fn winogrande(row: &Row) -> Result<Document> {
    let (head, tail) =
        row.text("sentence")?.split_once('_').ok_or_else(|| row.wrong("sentence", "a text with a `_`"))?;
    let contexts = [row.text("option1")?, row.text("option2")?].map(|option| format!("{head}{option}"));
    let tail = python::strip(tail);
    let gold = match row.text("answer")? {
        "1" => 0,
        "2" => 1,
        _ => return Err(row.wrong("answer", "\"1\" or \"2\"")),
    };
    Ok(Document { context: Context::PerChoice(contexts.to_vec()), choices: owned([tail, tail]), gold })
}
