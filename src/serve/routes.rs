//! The routes, what guards them, and the loop that serves them.

use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use futures_core::Stream;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::budget::{Budget, Reservation, reading};
use super::complete::{self, Admission, Received};
use super::connection::{Activity, Connection, LimitedListener};
use super::error::ApiError;
use super::vocabulary::Vocabulary;
use super::worker::CompletionJob;
use super::{Limits, Options, wire};
use crate::model::Model;

/// What the routes share.
pub(crate) struct State {
    pub options: Options,
    pub context: usize,
    pub vocabulary: Vocabulary,
    pub jobs: mpsc::Sender<CompletionJob>,
    pub served: Arc<AtomicU64>,
    pub requests: AtomicU64,
    slots: Arc<Semaphore>,
    budget: Arc<Budget>,
    /// One for each KiB of the bodies that may be worked on at once.
    tokenising: Arc<Semaphore>,
    /// Of the model's thread.
    living: Weak<()>,
    started: u64,
}

impl State {
    pub(crate) fn new(
        options: Options,
        model: &Model,
        vocabulary: Vocabulary,
        jobs: mpsc::Sender<CompletionJob>,
        served: Arc<AtomicU64>,
        living: Weak<()>,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(options.limits.requests));
        let budget = Budget::new(options.limits.request_memory, options.limits.memory);
        let tokenising = Arc::new(Semaphore::new(TOGETHER * kibibytes(options.limits.body_bytes) as usize));
        let context = model.config().context;
        let requests = AtomicU64::new(0);
        let started = now();
        Self {
            options,
            context,
            vocabulary,
            jobs,
            served,
            requests,
            slots,
            budget,
            tokenising,
            living,
            started,
        }
    }

    fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// Works on a body of this many bytes, beside the threads that serve connections: long texts take a
    /// while. A tokenizer takes about a hundred bytes for each byte of a text, so large bodies wait for each
    /// other.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        body: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let ended = || ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the tokenizer ended midway");
        let turn = self.tokenising.clone().acquire_many_owned(kibibytes(body)).await.map_err(|_| ended())?;
        let work = move || {
            let _turn = turn; // also when nobody waits any more
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| ended())
    }

    /// A place among the admitted requests, and the mark that this one's connection is busy.
    fn admit(&self, activity: Option<Activity>) -> Result<Admission, ApiError> {
        let full = |_| {
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too many requests are waiting").code("queue_full")
        };
        let slot = self.slots.clone().try_acquire_owned().map_err(full)?;
        Ok(Admission { _slot: slot, _answering: activity.as_ref().map(Activity::begin), activity })
    }
}

/// Bodies of the largest size that are worked on at once.
const TOGETHER: usize = 2;

fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX)
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Serves until a stop is requested, then for the grace time at most.
pub(crate) async fn serve(
    listener: tokio::net::TcpListener,
    state: State,
    stopped: watch::Receiver<bool>,
    grace: Duration,
) {
    let limits = state.limits();
    let mut limited = LimitedListener::new(listener, limits.connections, limits.idle_time, stopped.clone());
    let router = router(Arc::new(state));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            connection = limited.accept() => {
                let router = router.clone().layer(Extension(connection.activity()));
                connections.spawn(converse(connection, router, stop_requested(stopped.clone())));
            }
            Some(_) = connections.join_next() => {}
            () = stop_requested(stopped.clone()) => break,
        }
    }
    drop(limited);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(grace, all).await; // those that take longer are cut off
}

/// Serves a connection; once asked to stop, until its current request is answered.
async fn converse(connection: Connection, router: Router, stop: impl Future<Output = ()>) {
    let served = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(connection), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    // What goes wrong here is the client's doing, and it has had an answer where it can have one.
    tokio::select! {
        _ = served.as_mut() => {}
        () = stop => {
            served.as_mut().graceful_shutdown();
            let _ = served.await;
        }
    }
}

/// Waits until a stop is requested, or until nobody can request it any more.
async fn stop_requested(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/completions", post(completions))
        .route("/tokenizer_info", get(tokenizer_info))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "there is no such route"))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this route does not accept this method")
        })
        .layer(from_fn_with_state(state.clone(), guard))
        .with_state(state)
}

/// Asks for the key, and marks the connection as busy while a request is answered.
async fn guard(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let _answering = activity(&request).map(|a| a.begin());
    match &state.options.api_key {
        Some(key) if request.uri().path() != "/health" && !has_key(request.headers(), key) => {
            ApiError::new(StatusCode::UNAUTHORIZED, "a valid bearer token is required")
                .code("invalid_api_key")
                .into_response()
        }
        _ => next.run(request).await,
    }
}

fn activity(request: &Request) -> Option<Activity> {
    request.extensions().get::<Activity>().cloned()
}

fn has_key(headers: &HeaderMap, key: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|v| bearer(v.as_bytes()));
    given.is_some_and(|given| same(given, key.as_bytes()))
}

/// The token of an `Authorization` header, whose scheme may be written in any case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"Bearer ";
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}

/// Equality that takes the same time wherever the difference lies.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

/// A body within its limits; what it holds counts from the first byte on.
async fn read(state: &State, request: Request) -> Result<Received, ApiError> {
    let limits = state.limits();
    let (head, body) = request.into_parts();
    let announced = head.headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|n| n > limits.body_bytes as u64) {
        return Err(too_large(limits));
    }
    match tokio::time::timeout(limits.body_time, collect(state, body)).await {
        Ok(received) => received,
        Err(_) => Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive")),
    }
}

async fn collect(state: &State, body: Body) -> Result<Received, ApiError> {
    let mut received = Received { bytes: vec![], reservation: state.budget.reservation() };
    let mut parts = body.into_data_stream();
    while let Some(part) = std::future::poll_fn(|context| Pin::new(&mut parts).poll_next(context)).await {
        let part = part
            .map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, format!("the body did not arrive: {e}")))?;
        if received.bytes.len() + part.len() > state.limits().body_bytes {
            return Err(too_large(state.limits()));
        }
        received.reservation.grow(reading(part.len()))?;
        received.bytes.extend_from_slice(&part);
    }
    Ok(received)
}

fn too_large(limits: &Limits) -> ApiError {
    let what = format!("the body is larger than {} bytes", limits.body_bytes);
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, what)
}

async fn completions(Shared(state): Shared<Arc<State>>, request: Request) -> Result<Response, ApiError> {
    let activity = activity(&request);
    let body = read(&state, request).await?;
    // Only now, so that bodies that do not arrive take no place of those that do.
    let admission = state.admit(activity)?;
    complete::answer(state, body, admission).await
}

async fn health(Shared(state): Shared<Arc<State>>) -> Result<axum::Json<Value>, ApiError> {
    if state.living.strong_count() == 0 {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the model's thread has ended"));
    }
    let all = state.limits().requests;
    let free = state.slots.available_permits();
    Ok(axum::Json(
        json!({"status": "ok", "model": state.options.name, "requests": all - free, "memory": state.budget.held()}),
    ))
}

fn card(state: &State) -> Value {
    json!({"id": state.options.name, "object": "model", "created": state.started, "owned_by": "tyr", "max_model_len": state.context})
}

async fn models(Shared(state): Shared<Arc<State>>) -> axum::Json<Value> {
    axum::Json(json!({"object": "list", "data": [card(&state)]}))
}

async fn model(
    Shared(state): Shared<Arc<State>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<axum::Json<Value>, ApiError> {
    let unreadable = |e: PathRejection| ApiError::new(StatusCode::BAD_REQUEST, e.body_text());
    let Path(name) = name.map_err(unreadable)?;
    match name == state.options.name {
        true => Ok(axum::Json(card(&state))),
        false => Err(ApiError::new(StatusCode::NOT_FOUND, format!("there is no model `{name}`"))
            .code("model_not_found")),
    }
}

async fn tokenizer_info(Shared(state): Shared<Arc<State>>) -> axum::Json<Value> {
    axum::Json(state.vocabulary.info.clone())
}

#[derive(Deserialize)]
struct Tokenize {
    prompt: String,
    #[serde(default)]
    add_special_tokens: bool,
}

#[derive(Deserialize)]
struct Detokenize {
    tokens: Vec<u32>,
}

/// A request to the tokenizer, its place among the requests, and the bytes of its body.
async fn json_body<T: DeserializeOwned>(
    state: &State,
    request: Request,
) -> Result<(T, (Reservation, Admission), usize), ApiError> {
    let activity = activity(&request);
    let Received { bytes, reservation } = read(state, request).await?;
    let admission = state.admit(activity)?;
    let parsed = serde_json::from_slice(&bytes).map_err(|e| wire::malformed(&e))?;
    Ok((parsed, (reservation, admission), bytes.len()))
}

async fn tokenize(
    Shared(state): Shared<Arc<State>>,
    request: Request,
) -> Result<axum::Json<Value>, ApiError> {
    let (body, _held, length): (Tokenize, _, _) = json_body(&state, request).await?;
    let context = state.context;
    let encode = {
        let state = state.clone();
        move || state.vocabulary.tokenizer().inner().encode_fast(body.prompt, body.add_special_tokens)
    };
    let encoding = state.blocking(length, encode).await?.map_err(untokenised)?;
    let tokens = encoding.get_ids();
    Ok(axum::Json(json!({"tokens": tokens, "count": tokens.len(), "max_model_len": context})))
}

/// A text that the tokenizer refuses.
pub(super) fn untokenised(e: tokenizers::Error) -> ApiError {
    ApiError::bad("prompt", format!("the text cannot be tokenised: {e}"))
}

async fn detokenize(
    Shared(state): Shared<Arc<State>>,
    request: Request,
) -> Result<axum::Json<Value>, ApiError> {
    let (body, _held, length): (Detokenize, _, _) = json_body(&state, request).await?;
    let decode = {
        let state = state.clone();
        move || state.vocabulary.tokenizer().decode(&body.tokens)
    };
    let text = state.blocking(length, decode).await??;
    Ok(axum::Json(json!({"prompt": text})))
}
