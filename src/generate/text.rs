//! From tokens to text as they come: whole characters only, and nothing of a stop string.

use std::sync::Arc;

use crate::base::Result;
use crate::data::tokenizer::Tokenizer;

/// Tokens of the prompt that new text is decoded after, so that a first space is kept.
const TAIL: usize = 6;

/// Tokens after which a broken character is given up: the longest has four bytes.
const PATIENCE: usize = 8;

const BROKEN: char = char::REPLACEMENT_CHARACTER;

/// Turns tokens into whole characters.
pub struct Writer<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// `ids[from..written]` is text that was handed out and is decoded again as the context of what follows.
    from: usize,
    written: usize,
}

impl<'a> Writer<'a> {
    /// Writes what follows a prompt.
    pub fn new(tokenizer: &'a Tokenizer, prompt: &[u32]) -> Self {
        let ids = prompt[prompt.len().saturating_sub(TAIL)..].to_vec();
        Self { tokenizer, written: ids.len(), from: 0, ids }
    }

    /// The characters that a token completes; empty while one is incomplete.
    pub fn push(&mut self, token: u32) -> Result<String> {
        self.ids.push(token);
        let text = self.waiting()?;
        if !text.ends_with(BROKEN) {
            return Ok(self.hand_out(text, self.ids.len()));
        }
        if self.ids.len() - self.written < PATIENCE {
            return Ok(String::new());
        }
        let end = self.begun()?;
        let whole =
            if end < self.ids.len() { text.strip_suffix(BROKEN).unwrap_or(&text).to_string() } else { text };
        Ok(self.hand_out(whole, end))
    }

    fn hand_out(&mut self, text: String, end: usize) -> String {
        self.from = self.written;
        self.written = end;
        text
    }

    /// Where the character begins that the last tokens may have begun: at most three of them, which alone
    /// read as one broken character and whose absence takes just that one away. The number of tokens where
    /// there is none.
    fn begun(&self) -> Result<usize> {
        let all = self.tokenizer.decode(&self.ids[self.from..])?;
        for start in self.ids.len().saturating_sub(3).max(self.written + 1)..self.ids.len() {
            let tail = self.tokenizer.decode(&self.ids[start..])?;
            let before = self.tokenizer.decode(&self.ids[self.from..start])?;
            if tail.chars().eq([BROKEN]) && all.strip_suffix(BROKEN) == Some(before.as_str()) {
                return Ok(start);
            }
        }
        Ok(self.ids.len())
    }

    /// What is left, broken characters as U+FFFD.
    pub fn finish(&mut self) -> Result<String> {
        let text = self.waiting()?;
        self.written = self.ids.len();
        Ok(text)
    }

    fn waiting(&self) -> Result<String> {
        if self.written == self.ids.len() {
            return Ok(String::new());
        }
        let before = self.tokenizer.decode(&self.ids[self.from..self.written])?;
        let whole = self.tokenizer.decode(&self.ids[self.from..])?;
        // A prompt may end within a character, which the new token then completes.
        match whole
            .strip_prefix(before.as_str())
            .or_else(|| whole.strip_prefix(before.trim_end_matches(BROKEN)))
        {
            Some(new) => Ok(new.to_string()),
            // The decoder rewrote what was handed out.
            None => self.tokenizer.decode(&self.ids[self.written..]),
        }
    }
}

/// The text of a whole prompt, token by token: the pieces join to it, and a character that several tokens
/// make belongs to the last of them.
pub fn pieces(tokenizer: &Tokenizer, ids: &[u32]) -> Result<Vec<String>> {
    let mut writer = Writer::new(tokenizer, &[]);
    let mut pieces = ids.iter().map(|&id| writer.push(id)).collect::<Result<Vec<String>>>()?;
    if let Some(last) = pieces.last_mut() {
        last.push_str(&writer.finish()?);
    }
    Ok(pieces)
}

/// Holds back what may become a stop string.
pub struct Stops {
    stops: Arc<[String]>,
    held: String,
}

/// What a piece of text led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Passed {
    /// This much may be shown.
    Text(String),
    /// A stop string came; this is what precedes it.
    Stopped(String),
}

impl Stops {
    /// For these stop strings; empty ones stop nothing.
    pub fn new(stops: Arc<[String]>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Where the first stop string begins in what is held.
    fn place(&self) -> Option<usize> {
        let stops = self.stops.iter().filter(|stop| !stop.is_empty());
        stops.filter_map(|stop| self.held.find(stop.as_str())).min()
    }

    /// Takes text in, gives out what cannot be the beginning of a stop string.
    pub fn push(&mut self, text: &str) -> Passed {
        self.held.push_str(text);
        if let Some(place) = self.place() {
            self.held.truncate(place);
            return Passed::Stopped(std::mem::take(&mut self.held));
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Passed::Text(std::mem::replace(&mut self.held, rest))
    }

    /// What was held back, when no more text comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes of the longest end of `text` that begins `stop` without being all of it.
fn overlap(text: &str, stop: &str) -> usize {
    let ends = stop.char_indices().map(|(i, _)| i).filter(|&i| i <= text.len());
    ends.filter(|&i| text.ends_with(&stop[..i])).max().unwrap_or(0)
}
