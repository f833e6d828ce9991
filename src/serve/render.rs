//! Answers of `/v1/completions`, whole or in parts.
//!
//! The `tokens` of an answer join to its `text`, and `text_offset` counts the characters before each: a
//! token's text is what it adds in its place, so a character that several tokens make belongs to the last of
//! them and the others are empty, and what is cut from the text as a stop string is cut from its tokens too.
//! In `top_logprobs` the token of the place stands under that same text; another one whose text is taken or
//! is no text stands under `token_id:N`.

use std::collections::VecDeque;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::vocabulary::Vocabulary;
use super::worker::Event;
use crate::generate::{Entry, Finish, Step};

/// What all choices of an answer share.
pub(crate) struct Head {
    pub id: String,
    pub created: u64,
    pub model: String,
    pub prompt_tokens: usize,
}

/// Counts of tokens.
#[derive(Serialize)]
pub(super) struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
}

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    object: &'a str,
    created: u64,
    model: &'a str,
    choices: Vec<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Shown<'a> {
    index: usize,
    text: &'a str,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Option<&'a str>,
}

impl Head {
    /// An answer with these choices, as JSON.
    pub(super) fn answer(
        &self,
        parts: &[Part],
        usage: Option<Usage>,
        vocabulary: &Vocabulary,
    ) -> serde_json::Result<Vec<u8>> {
        let choices = parts.iter().map(|part| part.shown(vocabulary)).collect();
        serde_json::to_vec(&Answer {
            id: &self.id,
            object: "text_completion",
            created: self.created,
            model: &self.model,
            choices,
            usage,
        })
    }

    /// Counts of tokens.
    pub(super) fn usage(&self, completion_tokens: usize) -> Usage {
        let prompt_tokens = self.prompt_tokens;
        Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

/// A prompt that is sent back.
pub(super) struct Echo {
    pub text: String,
    /// Its first token.
    pub first: u32,
    /// What each token is of the text, where log-probabilities are requested.
    pub pieces: Vec<String>,
}

/// One prompt's answer, as far as it has come.
pub(super) struct Choice {
    part: Part,
    /// Of an echoed prompt, until its entries come.
    first: u32,
    pieces: Vec<String>,
    /// Tokens whose text is held back.
    waiting: VecDeque<Token>,
    /// Bytes of all text so far, and of the text of the tokens in it.
    text_bytes: usize,
    token_bytes: usize,
    /// Characters of the text of the tokens.
    characters: usize,
    /// Written tokens.
    pub written: usize,
}

/// What has come of a choice and was not sent.
#[derive(Default)]
pub(super) struct Part {
    index: usize,
    text: String,
    finish: Option<&'static str>,
    /// Where log-probabilities are requested.
    tokens: Option<Vec<Token>>,
}

/// A token of an answer.
struct Token {
    id: Option<u32>,
    /// Its text in its place.
    piece: String,
    logprob: Option<f64>,
    /// The likeliest tokens, where they are requested.
    top: Option<Vec<(u32, f64)>>,
    /// Characters before it.
    offset: usize,
}

impl Token {
    fn new(piece: String, entry: Entry) -> Self {
        let top = (!entry.top.is_empty()).then_some(entry.top);
        Self { id: Some(entry.token), piece, logprob: Some(entry.logprob), top, offset: 0 }
    }
}

impl Choice {
    /// `echo` is the prompt, where it is wanted back.
    pub(super) fn new(index: usize, logprobs: bool, echo: Option<Echo>) -> Self {
        let Echo { text, first, pieces } =
            echo.unwrap_or(Echo { text: String::new(), first: 0, pieces: vec![] });
        Self {
            text_bytes: text.len(),
            part: Part { index, text, finish: None, tokens: logprobs.then(Vec::new) },
            first,
            pieces,
            waiting: VecDeque::new(),
            token_bytes: 0,
            characters: 0,
            written: 0,
        }
    }

    /// Takes an event in; a failure is the caller's.
    pub(super) fn absorb(&mut self, event: Event) {
        match event {
            Event::Prompt(entries) => self.absorb_prompt(entries),
            Event::Step(step) => self.absorb_step(step),
            Event::NoRoom => {
                self.part.finish = Some("length");
                // Readers that drop the last entry count on there being one.
                let top = Some(vec![]);
                self.push(Token { id: None, piece: String::new(), logprob: Some(0.0), top, offset: 0 });
            }
            Event::Nothing => self.part.finish = Some("length"),
            Event::Failed(_) => {}
        }
    }

    fn absorb_prompt(&mut self, entries: Vec<Entry>) {
        let mut pieces = std::mem::take(&mut self.pieces).into_iter();
        let first = pieces.next().unwrap_or_default();
        self.push(Token { id: Some(self.first), piece: first, logprob: None, top: None, offset: 0 });
        for (entry, piece) in entries.into_iter().zip(pieces) {
            self.push(Token::new(piece, entry));
        }
    }

    fn absorb_step(&mut self, step: Step) {
        self.part.text.push_str(&step.text);
        self.text_bytes += step.text.len();
        self.written += 1;
        self.part.finish = step.finish.map(|f| if f == Finish::Stop { "stop" } else { "length" });
        if let Some(entry) = step.entry {
            self.waiting.push_back(Token::new(step.piece, entry));
        }
        let ended = self.part.finish.is_some();
        while let Some(mut token) = self.waiting.pop_front() {
            let left = self.text_bytes - self.token_bytes;
            if token.piece.len() > left && !ended {
                return self.waiting.push_front(token);
            }
            token.piece.truncate(left);
            self.push(token);
        }
    }

    fn push(&mut self, token: Token) {
        let Some(tokens) = &mut self.part.tokens else { return };
        let offset = self.characters;
        self.token_bytes += token.piece.len();
        self.characters += token.piece.chars().count();
        tokens.push(Token { offset, ..token });
    }

    /// Whether there is anything to send.
    pub(super) fn has_news(&self) -> bool {
        let part = &self.part;
        !part.text.is_empty() || part.finish.is_some() || part.tokens.as_ref().is_some_and(|t| !t.is_empty())
    }

    /// What has come since the last call.
    pub(super) fn take(&mut self) -> Part {
        let tokens = self.part.tokens.as_ref().map(|_| vec![]);
        let next = Part { index: self.part.index, finish: self.part.finish, tokens, ..Part::default() };
        std::mem::replace(&mut self.part, next)
    }
}

impl Part {
    fn shown<'a>(&'a self, vocabulary: &'a Vocabulary) -> Shown<'a> {
        let logprobs = self.tokens.as_ref().map(|tokens| Logprobs {
            tokens: TokenColumn(tokens, |t| t.piece.as_str()),
            token_logprobs: TokenColumn(tokens, |t| t.logprob),
            top_logprobs: LikeliestTokens(tokens, vocabulary),
            text_offset: TokenColumn(tokens, |t| t.offset),
        });
        Shown { index: self.index, text: &self.text, logprobs, finish_reason: self.finish }
    }
}

#[derive(Serialize)]
struct Logprobs<'a> {
    tokens: TokenColumn<'a, &'a str>,
    token_logprobs: TokenColumn<'a, Option<f64>>,
    top_logprobs: LikeliestTokens<'a>,
    text_offset: TokenColumn<'a, usize>,
}

/// One property of every token, as a list.
struct TokenColumn<'a, T>(&'a [Token], fn(&'a Token) -> T);

impl<T: Serialize> Serialize for TokenColumn<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(self.1))
    }
}

/// The likeliest tokens of every place, as a list.
struct LikeliestTokens<'a>(&'a [Token], &'a Vocabulary);

impl Serialize for LikeliestTokens<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|t| t.top.as_ref().map(|top| Top(t, top, self.1))))
    }
}

/// Likeliest tokens by text, the token of the place among them.
struct Top<'a>(&'a Token, &'a [(u32, f64)], &'a Vocabulary);

impl Serialize for Top<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Top(own, likeliest, vocabulary) = self;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry(&own.piece, &own.logprob)?;
        let mut taken = vec![own.piece.as_str()];
        for (id, logprob) in likeliest.iter().filter(|(id, _)| Some(*id) != own.id) {
            match vocabulary.label(*id).filter(|label| !taken.contains(label)) {
                Some(label) => {
                    map.serialize_entry(label, logprob)?;
                    taken.push(label);
                }
                None => map.serialize_entry(&format!("token_id:{id}"), logprob)?,
            }
        }
        map.end()
    }
}
