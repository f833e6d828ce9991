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
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::connection::Answering;
use super::error::ApiError;
use super::render::{Choice, Head};
use super::routes::State;
use super::wire::{Completion, Prompt};
use super::worker::{Ask, Event, Work};
use crate::generate::Settings;

/// What a request holds until its answer is sent.
pub(crate) struct Hold {
    pub _slot: OwnedSemaphorePermit,
    pub _answering: Option<Answering>,
}

/// Answers a body.
pub(crate) async fn answer(state: Arc<State>, body: Bytes, hold: Hold) -> Result<Response, ApiError> {
    let prepare = {
        let state = state.clone();
        move || prepare(&state, &body)
    };
    // Long texts take a while to tokenise.
    let prepared = tokio::task::spawn_blocking(prepare).await;
    let Prepared { works, mut parts, stream } = prepared.map_err(|_| stopped())??;
    let (events, received) = unbounded_channel();
    state.asks.send(Ask { works, events }).map_err(|_| stopped())?;
    parts.events = Some(received);
    match stream {
        Some(usage) => Ok(Streamed { parts, usage, state, end: End::Running, _hold: hold }.into_response()),
        None => whole(parts, &state).await,
    }
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

/// An answer in the making.
struct Parts {
    head: Head,
    choices: Vec<Choice>,
    running: usize,
    events: Option<UnboundedReceiver<(usize, Event)>>,
}

fn prepare(state: &State, body: &[u8]) -> Result<Prepared, ApiError> {
    let request = Completion::parse(body)?;
    if request.model.as_ref().is_some_and(|m| *m != state.options.name) {
        let what = format!(
            "there is no model `{}`; this server has `{}`",
            request.model.unwrap_or_default(),
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
    let number = state.requests.fetch_add(1, Ordering::Relaxed);
    let settings = Settings {
        sampling: request.sampling(number),
        max_tokens: request.max_tokens,
        stop: request.stop.clone(),
        logprobs: request.logprobs,
    };
    let mut works = Vec::new();
    let mut choices = Vec::new();
    for (index, prompt) in request.prompts.iter().enumerate() {
        let scored = request.echo && request.logprobs.is_some();
        let work = Work { index, prompt: ids(state, prompt)?, settings: settings.clone(), scored };
        state.check(&work)?;
        let echo =
            request.echo.then(|| Ok::<_, ApiError>((text(state, prompt)?, work.prompt[0]))).transpose()?;
        choices.push(Choice::new(index, request.logprobs.is_some(), echo));
        works.push(work);
    }
    let prompt_tokens = works.iter().map(|w| w.prompt.len()).sum();
    let head = Head {
        id: format!("cmpl-{number}"),
        created: super::routes::now(),
        model: state.options.name.clone(),
        prompt_tokens,
    };
    let parts = Parts { head, running: choices.len(), choices, events: None };
    Ok(Prepared { works, parts, stream: request.stream.then_some(request.stream_usage) })
}

fn ids(state: &State, prompt: &Prompt) -> Result<Vec<u32>, ApiError> {
    match prompt {
        Prompt::Text(text) => Ok(state.vocabulary.tokenizer().encode(text)?),
        Prompt::Ids(ids) => Ok(ids.clone()),
    }
}

fn text(state: &State, prompt: &Prompt) -> Result<String, ApiError> {
    match prompt {
        Prompt::Text(text) => Ok(text.clone()),
        Prompt::Ids(ids) => Ok(state.vocabulary.tokenizer().decode(ids)?),
    }
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
        self.choices[index].absorb(event, &state.vocabulary);
        Ok(index)
    }

    fn usage(&self) -> Value {
        self.head.usage(self.choices.iter().map(|c| c.written).sum())
    }
}

async fn whole(mut parts: Parts, state: &State) -> Result<Response, ApiError> {
    let mut events = parts.events.take().ok_or_else(stopped)?;
    while parts.running > 0 {
        let (index, event) = events.recv().await.ok_or_else(stopped)?;
        parts.absorb(state, index, event)?;
    }
    let choices = parts.choices.iter_mut().map(Choice::take).collect();
    Ok(axum::Json(parts.head.answer(choices, Some(parts.usage()))).into_response())
}

/// How far a stream has ended.
#[derive(PartialEq, Eq)]
enum End {
    Running,
    Counted,
    Done,
}

/// An answer as server-sent events. Dropping it (the client has gone) drops its work.
struct Streamed {
    parts: Parts,
    usage: bool,
    state: Arc<State>,
    end: End,
    _hold: Hold,
}

impl IntoResponse for Streamed {
    fn into_response(self) -> Response {
        let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
        (headers, Body::from_stream(self)).into_response()
    }
}

fn line(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

impl Streamed {
    /// What an event has the client be told.
    fn tell(&mut self, index: usize, event: Event) -> Option<Bytes> {
        match self.parts.absorb(&self.state, index, event) {
            Ok(index) if self.parts.choices[index].has_news() => {
                let choice = self.parts.choices[index].take();
                Some(line(&self.parts.head.answer(vec![choice], None)))
            }
            Ok(_) => None,
            Err(e) => Some(self.fail(&e)),
        }
    }

    fn fail(&mut self, e: &ApiError) -> Bytes {
        self.end = End::Done;
        line(&e.body())
    }

    /// The last lines.
    fn close(&mut self) -> Option<Bytes> {
        match self.end {
            End::Running if self.usage => {
                self.end = End::Counted;
                Some(line(&self.parts.head.answer(vec![], Some(self.parts.usage()))))
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
            let told = match events.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some((index, event))) => self.tell(index, event),
                Poll::Ready(None) => Some(self.fail(&stopped())),
            };
            if let Some(bytes) = told {
                return Poll::Ready(Some(Ok(bytes)));
            }
        }
    }
}
