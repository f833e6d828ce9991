//! Multiple-choice files of the user's own (`[tasks.NAME]` of the experiment file).

use crate::base::{Error, Kind, Result};
use crate::data::rows::{self, Row};
use crate::eval::document::Document;
use crate::spec;

/// The first `limit` documents of a user's file; its path is taken as it stands.
pub fn documents(task: &spec::Task, limit: usize) -> Result<Vec<Document>> {
    let columns = [task.context.as_str(), &task.choices, &task.gold];
    rows::read(&task.file, Some(&columns), limit)?.iter().map(|row| document(task, row)).collect()
}

fn document(task: &spec::Task, row: &Row) -> Result<Document> {
    let choices = row.texts(&task.choices)?;
    let gold = gold(row, &task.gold, &choices)?;
    Document::new(row.text(&task.context)?, choices, gold).check().map_err(|e| e.at(row.place()))
}

/// The right choice: an index from 0, the text of a choice, or its letter (A is the first). A text of digits
/// is not an index.
fn gold(row: &Row, field: &str, choices: &[String]) -> Result<usize> {
    let Some(text) = row.field(field)?.as_str() else { return number(row, field, choices.len()) };
    let mut places: Vec<usize> = (0..choices.len()).filter(|&i| choices[i] == text).collect();
    places.extend(letter(text).filter(|&i| i < choices.len() && !places.contains(&i)));
    match places.as_slice() {
        [place] => Ok(*place),
        [] => Err(row.wrong(field, "the text of a choice, its letter, or its index as a number")),
        _ => Err(ambiguous(row, field, &places)),
    }
}

fn number(row: &Row, field: &str, choices: usize) -> Result<usize> {
    let expected = format!("an index below {choices}, the number of choices");
    Some(row.index(field)?).filter(|&i| i < choices).ok_or_else(|| row.wrong(field, &expected))
}

/// `A` is 0, `Z` is 25.
fn letter(text: &str) -> Option<usize> {
    match text.as_bytes() {
        [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
        _ => None,
    }
}

fn ambiguous(row: &Row, field: &str, places: &[usize]) -> Error {
    Error::new(Kind::Data, format!("field `{field}` fits several choices: {places:?}, counted from 0"))
        .at(row.place())
        .hint("give the index of the right choice as a number")
}
