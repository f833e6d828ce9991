//! WikiText-2 by pages: the log-likelihood of each detokenised page, per word and byte of the original one.

use std::path::Path;

use crate::base::Result;
use crate::data::rows::Row;
use crate::eval::hub::Split;
use crate::eval::python;

/// The pages that are scored.
pub const SPLIT: Split = Split {
    dataset: "EleutherAI/wikitext_document_level",
    config: Some("wikitext-2-raw-v1"),
    split: "test",
    columns: &["page", "text"],
};

/// The first `limit` pages, verbatim: of a column `page`, or put together from the lines of a column `text`.
pub fn pages(root: Option<&Path>, limit: usize) -> Result<Vec<String>> {
    let rows = SPLIT.rows(root, usize::MAX)?;
    let mut pages = match rows.first() {
        Some(row) if !row.has("page") => join_pages(&texts(&rows, "text")?),
        _ => texts(&rows, "page")?,
    };
    pages.truncate(limit);
    Ok(pages)
}

fn texts(rows: &[Row], column: &str) -> Result<Vec<String>> {
    rows.iter().map(|row| row.text(column).map(String::from)).collect()
}

/// Joins lines to pages, which begin at headings of the first level. The line-level data set ends its lines
/// with a line break and stores a blank line (one space in the raw file) as the empty text.
fn join_pages(lines: &[String]) -> Vec<String> {
    let lines =
        lines.iter().map(|line| if line.is_empty() { " " } else { line.strip_suffix('\n').unwrap_or(line) });
    let mut pages: Vec<Vec<&str>> = vec![Vec::new()];
    for line in lines {
        match pages.last_mut() {
            Some(page) if !is_title(line) => page.push(line),
            _ => pages.push(vec![line]),
        }
    }
    let joined = pages.iter().map(|page| page.join("\n"));
    joined.filter(|page| !python::strip(page).is_empty()).collect()
}

/// A heading of the first level: ` = Title = `, whereas deeper ones have several signs, ` = = Section = = `.
fn is_title(line: &str) -> bool {
    let joined = line.replace("= = =", "===").replace("= =", "==");
    let line = python::strip(&joined);
    line.starts_with("= ") && line.ends_with(" =")
}

/// Words of a page: pieces between runs of white space, empty ones at the edges included.
pub fn words(page: &str) -> usize {
    python::count_split_on_space(page)
}

/// Plain replacements before and after the paired signs are treated, in this order.
const BEFORE: [(&str, &str); 9] = [
    (" @-@ ", "-"),
    (" @,@ ", ","),
    (" @.@ ", "."),
    (" : ", ": "),
    (" ; ", "; "),
    (" . ", ". "),
    (" ! ", "! "),
    (" ? ", "? "),
    (" , ", ", "),
];
const PAIRS: [(char, char); 5] = [('(', ')'), ('[', ']'), ('{', '}'), ('"', '"'), ('\'', '\'')];
const AFTER: [(&str, &str); 8] = [
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" ° ", "°"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
];

/// The text that is scored: the data set's spaces around signs taken out.
pub fn detokenise(page: &str) -> String {
    let text = quoted_digits(&page.replace("s '", "s'"));
    let text = replace_all(text, &BEFORE);
    let text = PAIRS.iter().fold(text, |text, &(open, close)| tighten(&text, open, close));
    replace_all(text, &AFTER)
}

fn replace_all(text: String, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(text, |text, (from, to)| text.replace(from, to))
}

/// The harness replaces `/' 7/` by the literal `/'[0-9]/`, which real pages do not hold.
fn quoted_digits(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("/' ") {
        let (head, tail) = rest.split_at(at);
        let hit = matches!(tail.as_bytes(), [_, _, _, b'0'..=b'9', b'/', ..]);
        let (replacement, skip) = if hit { ("/'[0-9]/", 5) } else { ("/", 1) };
        out = out + head + replacement;
        rest = &tail[skip..];
    }
    out + rest
}

/// Strips the text inside each pair of signs, from an opening one to the next closing one.
fn tighten(text: &str, open: char, close: char) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(open) {
        let Some((inner, tail)) = after.split_once(close) else { break };
        out += before;
        out.push(open);
        out.push_str(python::strip(inner));
        out.push(close);
        rest = tail;
    }
    out + rest
}
