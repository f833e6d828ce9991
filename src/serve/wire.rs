//! Requests as they arrive: `/v1/completions` with its four shapes of prompt, checked value by value. Unknown
//! fields are ignored.

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::error::ApiError;
use crate::generate::Sampling;
use crate::generate::sample::HOTTEST;

/// Most likeliest tokens that may be asked for.
const MOST_LOGPROBS: u64 = 5;

/// Tokens written when nothing is said.
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

#[derive(Deserialize)]
struct Body {
    model: Option<Value>,
    prompt: Option<Prompts>,
    max_tokens: Option<Value>,
    temperature: Option<Value>,
    top_p: Option<Value>,
    seed: Option<Value>,
    stop: Option<Value>,
    echo: Option<Value>,
    logprobs: Option<Value>,
    stream: Option<Value>,
    stream_options: Option<Value>,
    n: Option<Value>,
    best_of: Option<Value>,
    suffix: Option<Value>,
    presence_penalty: Option<Value>,
    frequency_penalty: Option<Value>,
    logit_bias: Option<Value>,
}

impl Completion {
    /// Reads and checks a body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let body: Body = serde_json::from_slice(body).map_err(|e| malformed(&e))?;
        body.refuse_unsupported()?;
        let max_tokens = whole("max_tokens", &body.max_tokens)?.unwrap_or(MAX_TOKENS);
        let completion = Self {
            model: text("model", &body.model)?,
            prompts: body
                .prompt
                .map(|p| p.0)
                .ok_or_else(|| ApiError::bad("prompt", "`prompt` is missing"))?,
            max_tokens: usize::try_from(max_tokens).unwrap_or(usize::MAX),
            temperature: number("temperature", &body.temperature, 1.0, HOTTEST)?,
            top_p: number("top_p", &body.top_p, 1.0, 1.0)?,
            seed: seed(&body.seed)?,
            stop: stops(&body.stop)?,
            echo: flag("echo", &body.echo)?,
            logprobs: logprobs(&body.logprobs)?,
            stream: flag("stream", &body.stream)?,
            stream_usage: body.stream_options.is_some_and(|o| o["include_usage"] == Value::Bool(true)),
        };
        if completion.prompts.is_empty() {
            return Err(ApiError::bad("prompt", "`prompt` is an empty list"));
        }
        Ok(completion)
    }

    /// The sampling that is asked for; `other` is the seed of a request without one.
    pub(crate) fn sampling(&self, other: u64) -> Sampling {
        Sampling { temperature: self.temperature, top_p: self.top_p, seed: self.seed.unwrap_or(other) }
    }
}

impl Body {
    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        for (name, value) in [("n", &self.n), ("best_of", &self.best_of)] {
            if whole(name, value)?.is_some_and(|n| n != 1) {
                return Err(ApiError::bad(name, format!("`{name}` must be 1")));
            }
        }
        let idle = |v: &Value| {
            v.is_null()
                || v.as_f64() == Some(0.0)
                || v.as_str() == Some("")
                || v.as_object().is_some_and(|o| o.is_empty())
        };
        let others = [
            ("suffix", &self.suffix),
            ("presence_penalty", &self.presence_penalty),
            ("frequency_penalty", &self.frequency_penalty),
            ("logit_bias", &self.logit_bias),
        ];
        match others.into_iter().find(|(_, value)| value.as_ref().is_some_and(|v| !idle(v))) {
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

fn given(value: &Option<Value>) -> Option<&Value> {
    value.as_ref().filter(|v| !v.is_null())
}

fn whole(name: &'static str, value: &Option<Value>) -> Result<Option<u64>, ApiError> {
    let wrong = |v: &Value| ApiError::bad(name, format!("`{name}` must be a whole number from 0, not {v}"));
    given(value).map(|v| v.as_u64().ok_or_else(|| wrong(v))).transpose()
}

fn seed(value: &Option<Value>) -> Result<Option<u64>, ApiError> {
    let wrong = |v: &Value| ApiError::bad("seed", format!("`seed` must be a whole number, not {v}"));
    given(value)
        .map(|v| v.as_u64().or_else(|| v.as_i64().map(|s| s as u64)).ok_or_else(|| wrong(v)))
        .transpose()
}

fn number(name: &'static str, value: &Option<Value>, default: f64, most: f64) -> Result<f64, ApiError> {
    let Some(value) = given(value) else { return Ok(default) };
    let wrong = || ApiError::bad(name, format!("`{name}` must be a number from 0 to {most}, not {value}"));
    value.as_f64().filter(|x| (0.0..=most).contains(x)).ok_or_else(wrong)
}

fn flag(name: &'static str, value: &Option<Value>) -> Result<bool, ApiError> {
    let wrong = |v: &Value| ApiError::bad(name, format!("`{name}` must be true or false, not {v}"));
    given(value).map_or(Ok(false), |v| v.as_bool().ok_or_else(|| wrong(v)))
}

fn text(name: &'static str, value: &Option<Value>) -> Result<Option<String>, ApiError> {
    let wrong = |v: &Value| ApiError::bad(name, format!("`{name}` must be a text, not {v}"));
    given(value).map(|v| v.as_str().map(String::from).ok_or_else(|| wrong(v))).transpose()
}

fn logprobs(value: &Option<Value>) -> Result<Option<usize>, ApiError> {
    let count = whole("logprobs", value)?;
    match count.filter(|&n| n > MOST_LOGPROBS) {
        Some(_) => Err(ApiError::bad("logprobs", format!("`logprobs` must lie in 0 to {MOST_LOGPROBS}"))),
        None => Ok(count.map(|n| n as usize)),
    }
}

fn stops(value: &Option<Value>) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::bad("stop", "`stop` must be a text or a list of texts, none of them empty");
    let one = |v: &Value| v.as_str().filter(|s| !s.is_empty()).map(String::from).ok_or_else(wrong);
    match given(value) {
        None => Ok(vec![]),
        Some(Value::Array(stops)) => stops.iter().map(one).collect(),
        Some(stop) => Ok(vec![one(stop)?]),
    }
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
        u32::try_from(id).map(Element::Id).map_err(|_| E::custom(format!("{id} is no token id")))
    }

    fn visit_i64<E: de::Error>(self, id: i64) -> Result<Element, E> {
        Err(E::custom(format!("{id} is no token id")))
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
