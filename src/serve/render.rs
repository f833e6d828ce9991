//! Answers of `/v1/completions`, whole or in parts.

use serde_json::{Map, Value, json};

use super::vocabulary::Vocabulary;
use super::worker::Event;
use crate::generate::{Entry, Finish};

/// What all choices of an answer share.
pub(crate) struct Head {
    pub id: String,
    pub created: u64,
    pub model: String,
    pub prompt_tokens: usize,
}

impl Head {
    /// An answer with these choices.
    pub(crate) fn answer(&self, choices: Vec<Value>, usage: Option<Value>) -> Value {
        let mut answer = json!({"id": self.id, "object": "text_completion", "created": self.created, "model": self.model, "choices": choices});
        if let Some(usage) = usage {
            answer["usage"] = usage;
        }
        answer
    }

    /// Counts of tokens.
    pub(crate) fn usage(&self, completion: usize) -> Value {
        let prompt = self.prompt_tokens;
        json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
    }
}

/// One prompt's answer, as far as it has come.
pub(crate) struct Choice {
    index: usize,
    text: String,
    finish: Option<&'static str>,
    logprobs: Option<Logprobs>,
    /// First token of an echoed prompt, until its entries come.
    first: Option<u32>,
    /// Characters of all tokens so far.
    offset: usize,
    /// Written tokens.
    pub written: usize,
}

#[derive(Default)]
struct Logprobs {
    tokens: Vec<String>,
    values: Vec<Option<f64>>,
    top: Vec<Value>,
    offsets: Vec<usize>,
}

impl Choice {
    /// `echo` is the prompt's text and first token, where they are wanted back.
    pub(crate) fn new(index: usize, logprobs: bool, echo: Option<(String, u32)>) -> Self {
        let (text, first) = echo.map_or((String::new(), None), |(text, first)| (text, Some(first)));
        Self {
            index,
            text,
            finish: None,
            logprobs: logprobs.then(Logprobs::default),
            first,
            offset: 0,
            written: 0,
        }
    }

    /// Takes an event in; a failure is the caller's.
    pub(crate) fn absorb(&mut self, event: Event, vocabulary: &Vocabulary) {
        match event {
            Event::Prompt(entries) => {
                if let Some(first) = self.first.take() {
                    self.push(first, None, vocabulary);
                }
                entries.iter().for_each(|e| self.push(e.token, Some(e), vocabulary));
            }
            Event::Step(step) => {
                self.text.push_str(&step.text);
                self.written += 1;
                self.finish = step.finish.map(|f| if f == Finish::Stop { "stop" } else { "length" });
                if let Some(entry) = &step.entry {
                    self.push(entry.token, Some(entry), vocabulary);
                }
            }
            Event::NoRoom => {
                self.finish = Some("length");
                self.push_nothing();
            }
            Event::Nothing => self.finish = Some("length"),
            Event::Failed(_) => {}
        }
    }

    fn push(&mut self, token: u32, entry: Option<&Entry>, vocabulary: &Vocabulary) {
        let Some(logprobs) = &mut self.logprobs else { return };
        let text = vocabulary.token(token);
        logprobs.tokens.push(text.label.clone());
        logprobs.offsets.push(self.offset);
        logprobs.values.push(entry.map(|e| e.logprob));
        logprobs.top.push(entry.map_or(Value::Null, |e| top(&e.top, vocabulary)));
        self.offset += text.length;
    }

    /// Stands for a token that has no room: readers that drop the last entry count on there being one.
    fn push_nothing(&mut self) {
        let Some(logprobs) = &mut self.logprobs else { return };
        logprobs.tokens.push(String::new());
        logprobs.offsets.push(self.offset);
        logprobs.values.push(Some(0.0));
        logprobs.top.push(json!({"": 0.0}));
    }

    /// Whether there is anything to send.
    pub(crate) fn has_news(&self) -> bool {
        !self.text.is_empty()
            || self.finish.is_some()
            || self.logprobs.as_ref().is_some_and(|l| !l.tokens.is_empty())
    }

    /// What has come since the last call.
    pub(crate) fn take(&mut self) -> Value {
        let logprobs = self.logprobs.as_mut().map(std::mem::take);
        let logprobs =
            logprobs.map(|l| json!({"tokens": l.tokens, "token_logprobs": l.values, "top_logprobs": l.top, "text_offset": l.offsets}));
        json!({"index": self.index, "text": std::mem::take(&mut self.text), "logprobs": logprobs, "finish_reason": self.finish})
    }
}

/// Likeliest tokens by text; a second token of the same text goes by its id.
fn top(entries: &[(u32, f64)], vocabulary: &Vocabulary) -> Value {
    if entries.is_empty() {
        return Value::Null;
    }
    let mut map = Map::new();
    for &(token, logprob) in entries {
        let label = &vocabulary.token(token).label;
        let key = if map.contains_key(label) { format!("id:{token}") } else { label.clone() };
        map.insert(key, json!(logprob));
    }
    Value::Object(map)
}
