//! `/v1/completions`: from a checked request to work for the model's thread, and its events to an answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::budget::{Reservation, cost, reading};
use super::connection::{Activity, Answering};
use super::error::ApiError;
use super::render::{Choice, Echo, Head, Part, Usage};
use super::routes::{self, State};
use super::vocabulary::cut;
use super::wire::{Completion, Prompt};
use super::worker::{CompletionJob, Event, Work};
use crate::generate::{Settings, text::pieces};

/// What a request holds until its answer is made.
pub(super) struct Admission {
    pub _slot: OwnedSemaphorePermit,
    pub _answering: Option<Answering>,
    /// Of its connection.
    pub activity: Option<Activity>,
}

/// A body as it was read, and what it holds of the budget.
pub(super) struct Received {
    pub bytes: Vec<u8>,
    pub reservation: Reservation,
}

/// Answers a body.
pub(super) async fn answer(
    state: Arc<State>,
    body: Received,
    admission: Admission,
) -> Result<Response, ApiError> {
    let length = body.bytes.len();
    let prepare = {
        let state = state.clone();
        move || prepare(&state, body)
    };
    let Prepared { works, mut parts, stream } = state.blocking(length, prepare).await??;
    let (events, received) = unbounded_channel();
    state.jobs.send(CompletionJob { works, events }).map_err(|_| stopped())?;
    parts.events = Some(received);
    if let Some(usage) = stream {
        return Ok(Streamed { parts, usage, state, end: End::Running, _admission: admission }.into_response());
    }
    tokio::select! {
        answer = whole(parts, &state) => answer,
        () = gone(admission.activity.as_ref()) => Err(left()),
    }
}

/// Ends when the client has gone, if that can be seen.
async fn gone(activity: Option<&Activity>) {
    match activity {
        Some(activity) => activity.gone().await,
        None => std::future::pending().await,
    }
}

/// Nobody reads it: the connection is closed already.
fn left() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "the client has closed its side, and waited too long since")
}

fn stopped() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the model's thread has ended")
}

struct Prepared {
    works: Vec<Work>,
    parts: Parts,
    /// For a stream: whether it ends with the counts of tokens.
    stream: Option<bool>,
}

/// An answer that is being assembled.
struct Parts {
    head: Head,
    choices: Vec<Choice>,
    running: usize,
    /// Of the budget, until the answer has been taken.
    reservation: Reservation,
    events: Option<UnboundedReceiver<(usize, Event)>>,
}

fn prepare(state: &State, body: Received) -> Result<Prepared, ApiError> {
    let Received { bytes, mut reservation } = body;
    let request = Completion::parse(&bytes)?;
    let read = reading(bytes.len());
    drop(bytes);
    refuse(state, &request)?;
    let number = state.requests.fetch_add(1, Ordering::Relaxed);
    let settings = Settings {
        sampling: request.sampling(number),
        max_tokens: request.max_tokens,
        stop: request.stop.as_slice().into(),
        logprobs: request.logprobs,
    };
    let mut works = Vec::new();
    let mut choices = Vec::new();
    for (index, prompt) in request.prompts.into_iter().enumerate() {
        let (work, echo) = prepare_one(state, &settings, request.echo, index, prompt, &mut reservation)?;
        choices.push(Choice::new(index, request.logprobs.is_some(), echo));
        works.push(work);
    }
    reservation.shrink(read);
    let prompt_tokens = works.iter().map(|w| w.prompt.len()).sum();
    let head = Head {
        id: format!("cmpl-{number}"),
        created: routes::now(),
        model: state.options.name.clone(),
        prompt_tokens,
    };
    let parts = Parts { head, running: choices.len(), choices, reservation, events: None };
    Ok(Prepared { works, parts, stream: request.stream.then_some(request.stream_usage) })
}

/// Refuses what this server does not have or allow.
fn refuse(state: &State, request: &Completion) -> Result<(), ApiError> {
    if request.model.as_ref().is_some_and(|m| *m != state.options.name) {
        let what = format!(
            "there is no model `{}`; this server has `{}`",
            request.model.as_deref().unwrap_or_default(),
            state.options.name
        );
        return Err(ApiError {
            status: StatusCode::NOT_FOUND,
            ..ApiError::bad("model", what).code("model_not_found")
        });
    }
    if request.prompts.len() > state.options.limits.prompts {
        return Err(ApiError::bad(
            "prompt",
            format!("more than {} prompts in one request", state.options.limits.prompts),
        ));
    }
    Ok(())
}

/// Copies of its text that a scored token takes: in its entry, as JSON, and as a key of the likeliest ones.
const TEXTS: usize = 6;

/// Work for a prompt, and what is sent back of it; takes of the budget what both hold.
fn prepare_one(
    state: &State,
    settings: &Settings,
    echo: bool,
    index: usize,
    prompt: Prompt,
    reservation: &mut Reservation,
) -> Result<(Work, Option<Echo>), ApiError> {
    let scored = echo && settings.logprobs.is_some();
    let (prompt, text) = match prompt {
        Prompt::Ids(ids) => (ids, None),
        Prompt::Text(text) => read(state, text, scored)?,
    };
    let work = Work { index, prompt, settings: settings.clone(), scored };
    state.check(&work)?;
    let written = settings.max_tokens.min((state.context + 1).saturating_sub(work.prompt.len()));
    reservation.grow(cost(work.prompt.len(), settings.logprobs.filter(|_| scored)))?;
    reservation.grow(cost(written, settings.logprobs))?;
    let echo = echo.then(|| echoed(state, &work.prompt, text)).transpose()?;
    if let Some(echo) = &echo {
        reservation.grow(echo.text.len() * if scored { TEXTS } else { 1 })?;
    }
    Ok((work, echo))
}

/// Tokens of a text; where it is scored, also the text of each.
fn read(state: &State, text: String, scored: bool) -> Result<(Vec<u32>, Option<Texts>), ApiError> {
    let tokenizer = state.vocabulary.tokenizer();
    if !scored {
        return Ok((tokenizer.encode(&text)?, Some(Texts { text, pieces: vec![] })));
    }
    let encoding = tokenizer.inner().encode(text.as_str(), false).map_err(routes::untokenised)?;
    let pieces = cut(&text, &encoding);
    Ok((encoding.get_ids().to_vec(), Some(Texts { text, pieces })))
}

/// A prompt that came as a text.
struct Texts {
    text: String,
    pieces: Vec<String>,
}

/// What is sent back of a prompt: the text that came, or the text that its tokens make.
fn echoed(state: &State, ids: &[u32], text: Option<Texts>) -> Result<Echo, ApiError> {
    let first = ids[0];
    if let Some(Texts { text, pieces }) = text {
        return Ok(Echo { text, first, pieces });
    }
    let pieces = pieces(state.vocabulary.tokenizer(), ids)?;
    Ok(Echo { text: pieces.concat(), first, pieces })
}

impl State {
    /// Refuses a prompt that the model cannot read.
    fn check(&self, work: &Work) -> Result<(), ApiError> {
        let n = work.prompt.len();
        let context = self.context;
        if n == 0 {
            return Err(ApiError::bad("prompt", "a prompt has no token"));
        }
        if let Some(token) = work.prompt.iter().find(|&&t| t as usize >= self.vocabulary.len()) {
            return Err(ApiError::bad(
                "prompt",
                format!("token {token} is outside the vocabulary of {}", self.vocabulary.len()),
            ));
        }
        // The last token of a prompt that is only scored is not read, so it may lie one beyond the context.
        let settings = &work.settings;
        let only_scored = work.scored
            && (settings.max_tokens == 0 || settings.max_tokens == 1 && settings.sampling.is_greedy());
        if n > context + usize::from(only_scored) {
            let what = format!("a prompt of {n} tokens is longer than the model's context of {context}");
            return Err(ApiError::bad("prompt", what).code("context_length_exceeded"));
        }
        Ok(())
    }
}

impl Parts {
    /// Takes an event in; gives the place of its choice.
    fn absorb(&mut self, state: &State, index: usize, event: Event) -> Result<usize, ApiError> {
        if let Event::Failed(e) = event {
            return Err(e.into());
        }
        if event.is_last() {
            self.running -= 1;
            state.served.fetch_add(1, Ordering::Relaxed);
        }
        self.choices[index].absorb(event);
        Ok(index)
    }

    fn usage(&self) -> Usage {
        self.head.usage(self.choices.iter().map(|c| c.written).sum())
    }

    /// An answer with these choices, as JSON.
    fn answer(&self, state: &State, parts: &[Part], usage: Option<Usage>) -> Result<Vec<u8>, ApiError> {
        let unwritten = |e| {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer cannot be written: {e}"))
        };
        self.head.answer(parts, usage, &state.vocabulary).map_err(unwritten)
    }
}

/// An answer that holds its part of the budget until the connection has taken it.
struct ReservedAnswer {
    json: Vec<u8>,
    _reservation: Reservation,
}

impl AsRef<[u8]> for ReservedAnswer {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

async fn whole(mut parts: Parts, state: &State) -> Result<Response, ApiError> {
    let mut events = parts.events.take().ok_or_else(stopped)?;
    while parts.running > 0 {
        let (index, event) = events.recv().await.ok_or_else(stopped)?;
        parts.absorb(state, index, event)?;
    }
    let choices: Vec<Part> = parts.choices.iter_mut().map(Choice::take).collect();
    let json = parts.answer(state, &choices, Some(parts.usage()))?;
    let body = Bytes::from_owner(ReservedAnswer { json, _reservation: parts.reservation });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(body)).into_response())
}

/// How far a stream has ended.
#[derive(PartialEq, Eq)]
enum End {
    Running,
    Counted,
    Done,
}

/// An answer as server-sent events. Dropping it (the client has disconnected) drops its work.
struct Streamed {
    parts: Parts,
    usage: bool,
    state: Arc<State>,
    end: End,
    _admission: Admission,
}

impl IntoResponse for Streamed {
    fn into_response(self) -> Response {
        let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
        (headers, Body::from_stream(self)).into_response()
    }
}

fn line(json: &[u8]) -> Bytes {
    [b"data: ", json, b"\n\n"].concat().into()
}

impl Streamed {
    /// What the client is sent for an event.
    fn render(&mut self, index: usize, event: Event) -> Option<Bytes> {
        match self.parts.absorb(&self.state, index, event) {
            Ok(index) if self.parts.choices[index].has_news() => {
                let part = self.parts.choices[index].take();
                Some(self.show(&[part], None))
            }
            Ok(_) => None,
            Err(e) => Some(self.fail(&e)),
        }
    }

    fn show(&mut self, parts: &[Part], usage: Option<Usage>) -> Bytes {
        match self.parts.answer(&self.state, parts, usage) {
            Ok(json) => line(&json),
            Err(e) => self.fail(&e),
        }
    }

    fn fail(&mut self, e: &ApiError) -> Bytes {
        self.end = End::Done;
        line(e.body().to_string().as_bytes())
    }

    /// The last lines.
    fn close(&mut self) -> Option<Bytes> {
        match self.end {
            End::Running if self.usage => {
                self.end = End::Counted;
                let usage = self.parts.usage();
                Some(self.show(&[], Some(usage)))
            }
            End::Running | End::Counted => {
                self.end = End::Done;
                Some("data: [DONE]\n\n".into())
            }
            End::Done => None,
        }
    }
}

impl Stream for Streamed {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<Option<Self::Item>> {
        loop {
            if self.parts.running == 0 || self.end != End::Running {
                return Poll::Ready(self.close().map(Ok));
            }
            let Some(events) = self.parts.events.as_mut() else { return Poll::Ready(None) };
            let rendered = match events.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some((index, event))) => self.render(index, event),
                Poll::Ready(None) => Some(self.fail(&stopped())),
            };
            if let Some(bytes) = rendered {
                return Poll::Ready(Some(Ok(bytes)));
            }
        }
    }
}
