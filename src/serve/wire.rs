//! Requests as they arrive: `/v1/completions` with its four shapes of prompt, checked value by value. Unknown
//! fields are ignored.

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::error::ApiError;
use crate::generate::Sampling;
use crate::generate::sample::HOTTEST;

/// Largest number of likeliest tokens that may be requested.
const MOST_LOGPROBS: u64 = 5;

/// Tokens written when the request does not say.
const MAX_TOKENS: u64 = 16;

/// A prompt before tokenisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

/// A checked request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Completion {
    pub model: Option<String>,
    pub prompts: Vec<Prompt>,
    pub max_tokens: usize,
    pub temperature: f64,
    pub top_p: f64,
    pub seed: Option<u64>,
    pub stop: Vec<String>,
    pub echo: bool,
    pub logprobs: Option<usize>,
    pub stream: bool,
    pub stream_usage: bool,
}

/// A value as it came, so that what is not requested takes no memory.
type Raw<'a> = Option<&'a RawValue>;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Raw<'a>,
    prompt: Option<Prompts>,
    max_tokens: Raw<'a>,
    temperature: Raw<'a>,
    top_p: Raw<'a>,
    seed: Raw<'a>,
    stop: Raw<'a>,
    echo: Raw<'a>,
    logprobs: Raw<'a>,
    stream: Raw<'a>,
    stream_options: Raw<'a>,
    n: Raw<'a>,
    best_of: Raw<'a>,
    suffix: Raw<'a>,
    presence_penalty: Raw<'a>,
    frequency_penalty: Raw<'a>,
    logit_bias: Raw<'a>,
}

impl Completion {
    /// Reads and checks a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let body: Body = serde_json::from_slice(body).map_err(|e| malformed(&e))?;
        body.refuse_unsupported()?;
        let max_tokens = whole("max_tokens", body.max_tokens)?.unwrap_or(MAX_TOKENS);
        let completion = Self {
            model: text("model", body.model)?,
            prompts: body
                .prompt
                .map(|p| p.0)
                .ok_or_else(|| ApiError::bad("prompt", "`prompt` is missing"))?,
            max_tokens: usize::try_from(max_tokens).unwrap_or(usize::MAX),
            temperature: number("temperature", body.temperature, 1.0, HOTTEST)?,
            top_p: number("top_p", body.top_p, 1.0, 1.0)?,
            seed: seed(body.seed)?,
            stop: stops(body.stop)?,
            echo: flag("echo", body.echo)?,
            logprobs: logprobs(body.logprobs)?,
            stream: flag("stream", body.stream)?,
            stream_usage: usage(body.stream_options),
        };
        if completion.prompts.is_empty() {
            return Err(ApiError::bad("prompt", "`prompt` is an empty list"));
        }
        Ok(completion)
    }

    /// The sampling that is requested; `other` is the seed of a request without one.
    pub(crate) fn sampling(&self, other: u64) -> Sampling {
        Sampling { temperature: self.temperature, top_p: self.top_p, seed: self.seed.unwrap_or(other) }
    }
}

impl Body<'_> {
    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        for (name, value) in [("n", self.n), ("best_of", self.best_of)] {
            if whole(name, value)?.is_some_and(|n| n != 1) {
                return Err(ApiError::bad(name, format!("`{name}` must be 1")));
            }
        }
        let idle = |v: &RawValue| {
            let text: String = v.get().chars().filter(|c| !c.is_ascii_whitespace()).take(3).collect();
            ["\"\"", "{}"].contains(&text.as_str()) || parsed::<f64>(v) == Some(0.0)
        };
        let others = [
            ("suffix", self.suffix),
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
            ("logit_bias", self.logit_bias),
        ];
        match others.into_iter().find(|(_, value)| value.is_some_and(|v| !idle(v))) {
            Some((name, _)) => Err(ApiError::bad(name, format!("`{name}` is not supported"))),
            None => Ok(()),
        }
    }
}

/// A body that is not the JSON expected.
pub(crate) fn malformed(e: &serde_json::Error) -> ApiError {
    ApiError::new(
        axum::http::StatusCode::BAD_REQUEST,
        format!("the body is not the JSON that is expected here: {e}"),
    )
}

fn parsed<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Option<T> {
    serde_json::from_str(value.get()).ok()
}

/// Characters of a wrong value that a message repeats.
const REPEATED: usize = 60;

fn wrong(name: &'static str, must: &str, value: &RawValue) -> ApiError {
    let text = value.get();
    let end = text.floor_char_boundary(REPEATED);
    let more = if end < text.len() { "…" } else { "" };
    ApiError::bad(name, format!("`{name}` must be {must}, not {}{more}", &text[..end]))
}

/// A value of a type, where one is given.
fn typed<'a, T: Deserialize<'a>>(
    name: &'static str,
    value: Raw<'a>,
    must: &str,
) -> Result<Option<T>, ApiError> {
    value.map(|v| parsed(v).ok_or_else(|| wrong(name, must, v))).transpose()
}

fn whole(name: &'static str, value: Raw) -> Result<Option<u64>, ApiError> {
    typed(name, value, "a whole number from 0")
}

fn seed(value: Raw) -> Result<Option<u64>, ApiError> {
    let read = |v| parsed::<u64>(v).or_else(|| parsed::<i64>(v).map(|s| s as u64));
    value.map(|v| read(v).ok_or_else(|| wrong("seed", "a whole number", v))).transpose()
}

fn number(name: &'static str, value: Raw, default: f64, most: f64) -> Result<f64, ApiError> {
    let Some(value) = value else { return Ok(default) };
    let number = parsed::<f64>(value).filter(|x| (0.0..=most).contains(x));
    number.ok_or_else(|| wrong(name, &format!("a number from 0 to {most}"), value))
}

fn flag(name: &'static str, value: Raw) -> Result<bool, ApiError> {
    Ok(typed(name, value, "true or false")?.unwrap_or(false))
}

fn text(name: &'static str, value: Raw) -> Result<Option<String>, ApiError> {
    typed(name, value, "a text")
}

fn logprobs(value: Raw) -> Result<Option<usize>, ApiError> {
    let count = whole("logprobs", value)?;
    match count.filter(|&n| n > MOST_LOGPROBS) {
        Some(_) => Err(ApiError::bad("logprobs", format!("`logprobs` must lie in 0 to {MOST_LOGPROBS}"))),
        None => Ok(count.map(|n| n as usize)),
    }
}

fn stops(value: Raw) -> Result<Vec<String>, ApiError> {
    let Some(value) = value else { return Ok(vec![]) };
    let stops = parsed::<String>(value).map(|one| vec![one]).or_else(|| parsed::<Vec<String>>(value));
    stops
        .filter(|stops| stops.iter().all(|s| !s.is_empty()))
        .ok_or_else(|| wrong("stop", "a text or a list of texts, none of them empty", value))
}

/// Whether a stream is to end with the counts of tokens.
fn usage(options: Raw) -> bool {
    #[derive(Deserialize)]
    struct Options<'a> {
        #[serde(borrow)]
        include_usage: Raw<'a>,
    }
    let options = options.and_then(parsed::<Options>);
    options.and_then(|o| o.include_usage).and_then(parsed::<bool>).unwrap_or(false)
}

/// A text, a list of texts, a list of token ids, or a list of such lists.
struct Prompts(Vec<Prompt>);

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(PromptsVisitor)
    }
}

struct PromptsVisitor;

const SHAPES: &str =
    "`prompt`: a text, a list of texts, a list of token ids, or a list of lists of token ids";

impl<'de> Visitor<'de> for PromptsVisitor {
    type Value = Prompts;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(SHAPES)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Prompts, E> {
        Ok(Prompts(vec![Prompt::Text(text.into())]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Prompts, A::Error> {
        let mut prompts = Vec::new();
        let mut ids = Vec::new();
        while let Some(element) = from.next_element::<Element>()? {
            match element {
                Element::Id(id) => ids.push(id),
                Element::Whole(prompt) => prompts.push(prompt),
            }
            if !ids.is_empty() && !prompts.is_empty() {
                return Err(de::Error::custom(format!("a list of mixed kinds; expected {SHAPES}")));
            }
        }
        Ok(Prompts(if ids.is_empty() { prompts } else { vec![Prompt::Ids(ids)] }))
    }
}

enum Element {
    Id(u32),
    Whole(Prompt),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a text, a token id or a list of token ids")
    }

    fn visit_u64<E: de::Error>(self, id: u64) -> Result<Element, E> {
        u32::try_from(id).map(Element::Id).map_err(|_| E::custom(format!("{id} is not a token id")))
    }

    fn visit_i64<E: de::Error>(self, id: i64) -> Result<Element, E> {
        Err(E::custom(format!("{id} is not a token id")))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Element, E> {
        Ok(Element::Whole(Prompt::Text(text.into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Element, A::Error> {
        let mut ids = Vec::new();
        while let Some(id) = from.next_element::<u32>()? {
            ids.push(id);
        }
        Ok(Element::Whole(Prompt::Ids(ids)))
    }
}
