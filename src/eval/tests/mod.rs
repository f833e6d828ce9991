//! Tests of whole tasks: files written here, through a tokenizer and a model made here.

mod custom;
mod files;
mod paired;
mod prompts;
mod real;
mod requests;
mod runs;
mod wikitext;

use std::path::Path;

use serde_json::Value;

use crate::base::{Result, Watch};
use crate::data::rows::{self, Row};
use crate::eval::request::{LanguageModel, Request, Score, Tokenize};

/// One id per byte, but for the pieces, whose ids begin at 256; the first piece that fits is taken.
pub struct Bytes(pub &'static [&'static str]);

impl Tokenize for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut rest = text.as_bytes();
        while let Some(&byte) = rest.first() {
            let piece = self.0.iter().position(|piece| rest.starts_with(piece.as_bytes()));
            let (id, length) = piece.map_or((u32::from(byte), 1), |i| (256 + i as u32, self.0[i].len()));
            ids.push(id);
            rest = &rest[length..];
        }
        Ok(ids)
    }
}

/// The text of byte ids.
pub fn decode(ids: &[u32]) -> String {
    let bytes = ids.iter().map(|&id| u8::try_from(id).unwrap_or(b'?'));
    String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
}

/// A model that answers by a rule and keeps what it was asked.
pub struct Rule<F> {
    pub rule: F,
    pub length: usize,
    pub asked: Vec<Request>,
}

impl<F: Fn(&Request) -> f64> Rule<F> {
    pub fn new(rule: F) -> Self {
        Self { rule, length: 4096, asked: Vec::new() }
    }
}

impl<F: Fn(&Request) -> f64> LanguageModel for Rule<F> {
    fn score(&mut self, requests: &[Request], watch: &dyn Watch) -> Result<Vec<Score>> {
        self.asked.extend_from_slice(requests);
        watch.advance(requests.len() as u64);
        Ok(requests.iter().map(|r| Score { loglikelihood: (self.rule)(r), greedy: false }).collect())
    }

    fn context_length(&self) -> usize {
        self.length
    }
}

/// Log-likelihood of the continuation under a fixed bigram table made of a hash.
pub fn bigrams(request: &Request) -> f64 {
    let ids: Vec<u32> = request.context.last().into_iter().chain(&request.continuation).copied().collect();
    let step = |pair: &[u32]| f64::from((pair[0] * 31 + pair[1] * 17) % 97) / 16.0;
    -ids.windows(2).map(step).sum::<f64>()
}

/// Writes rows as JSON lines, making folders on the way.
pub fn write_lines(path: &Path, rows: &[Value]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(path, text).unwrap();
}

/// A row as it is read from a file.
pub fn row(value: Value) -> Row {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    write_lines(&path, &[value]);
    rows::read(&path, None, 1).unwrap().remove(0)
}
