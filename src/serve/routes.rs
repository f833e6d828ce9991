//! The routes, what guards them, and the loop that serves them.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Path, Request, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use super::complete::{self, Hold};
use super::connection::{Activity, Door};
use super::error::ApiError;
use super::vocabulary::Vocabulary;
use super::worker::Ask;
use super::{Limits, Options, wire};
use crate::model::Model;

/// What the routes share.
pub(crate) struct State {
    pub options: Options,
    pub context: usize,
    pub vocabulary: Vocabulary,
    pub asks: mpsc::Sender<Ask>,
    pub served: Arc<AtomicU64>,
    pub requests: AtomicU64,
    slots: Arc<Semaphore>,
    /// Of the model's thread.
    living: Weak<()>,
    started: u64,
}

impl State {
    pub(crate) fn new(
        options: Options,
        model: &Model,
        vocabulary: Vocabulary,
        asks: mpsc::Sender<Ask>,
        served: Arc<AtomicU64>,
        living: Weak<()>,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(options.limits.requests));
        let context = model.config().context;
        let requests = AtomicU64::new(0);
        let started = now();
        Self { options, context, vocabulary, asks, served, requests, slots, living, started }
    }

    fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// A place among the requests in the house, and the word that this one's connection is busy.
    fn hold(&self, request: &Request) -> Result<Hold, ApiError> {
        let full = |_| {
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too many requests are waiting").code("queue_full")
        };
        let slot = self.slots.clone().try_acquire_owned().map_err(full)?;
        Ok(Hold { _slot: slot, _answering: activity(request).map(|a| a.begin()) })
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Serves until told to stop, then for the grace time at most.
pub(crate) async fn serve(
    listener: tokio::net::TcpListener,
    state: State,
    stopped: watch::Receiver<bool>,
    grace: Duration,
) {
    let door = Door::new(listener, state.limits().connections, state.limits().idle_time);
    let service = router(Arc::new(state)).into_make_service_with_connect_info::<Activity>();
    let server = axum::serve(door, service).with_graceful_shutdown(told(stopped.clone()));
    tokio::select! {
        _ = server => {}
        () = async { told(stopped).await; tokio::time::sleep(grace).await } => {}
    }
}

/// Waits for the word to stop, or for the one who could give it to be gone.
async fn told(mut stopped: watch::Receiver<bool>) {
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
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this route has other methods")
        })
        .layer(from_fn_with_state(state.clone(), guard))
        .with_state(state)
}

/// Asks for the key, and marks the connection as busy while a request is answered.
async fn guard(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let _answering = activity(&request).map(|a| a.begin());
    match &state.options.api_key {
        Some(key) if request.uri().path() != "/health" && !has_key(request.headers(), key) => {
            ApiError::new(StatusCode::UNAUTHORIZED, "a bearer token is needed, and it must be the right one")
                .code("invalid_api_key")
                .into_response()
        }
        _ => next.run(request).await,
    }
}

fn activity(request: &Request) -> Option<Activity> {
    request.extensions().get::<ConnectInfo<Activity>>().map(|info| info.0.clone())
}

fn has_key(headers: &HeaderMap, key: &str) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Bearer "));
    given.is_some_and(|given| same(given.as_bytes(), key.as_bytes()))
}

/// Equality that takes the same time wherever the difference lies.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

/// A body within its limits.
async fn read(body: Body, headers: &HeaderMap, limits: &Limits) -> Result<Bytes, ApiError> {
    let too_large = || {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {} bytes", limits.body_bytes),
        )
    };
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|n| n > limits.body_bytes as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(limits.body_time, to_bytes(body, limits.body_bytes)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(e))
            if std::error::Error::source(&e).is_some_and(|s| s.to_string().contains("length limit")) =>
        {
            Err(too_large())
        }
        Ok(Err(e)) => Err(ApiError::new(StatusCode::BAD_REQUEST, format!("the body did not arrive: {e}"))),
        Err(_) => Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive")),
    }
}

async fn completions(Shared(state): Shared<Arc<State>>, request: Request) -> Result<Response, ApiError> {
    let hold = state.hold(&request)?;
    let (head, body) = request.into_parts();
    let body = read(body, &head.headers, state.limits()).await?;
    complete::answer(state, body, hold).await
}

async fn health(Shared(state): Shared<Arc<State>>) -> Result<axum::Json<Value>, ApiError> {
    if state.living.strong_count() == 0 {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the model's thread has ended"));
    }
    let all = state.limits().requests;
    let free = state.slots.available_permits();
    Ok(axum::Json(json!({"status": "ok", "model": state.options.name, "requests": all - free})))
}

fn card(state: &State) -> Value {
    json!({"id": state.options.name, "object": "model", "created": state.started, "owned_by": "tyr", "max_model_len": state.context})
}

async fn models(Shared(state): Shared<Arc<State>>) -> axum::Json<Value> {
    axum::Json(json!({"object": "list", "data": [card(&state)]}))
}

async fn model(
    Shared(state): Shared<Arc<State>>,
    Path(name): Path<String>,
) -> Result<axum::Json<Value>, ApiError> {
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

async fn json_body<T: DeserializeOwned>(state: &State, request: Request) -> Result<T, ApiError> {
    let (head, body) = request.into_parts();
    serde_json::from_slice(&read(body, &head.headers, state.limits()).await?).map_err(|e| wire::malformed(&e))
}

async fn tokenize(
    Shared(state): Shared<Arc<State>>,
    request: Request,
) -> Result<axum::Json<Value>, ApiError> {
    let _hold = state.hold(&request)?;
    let context = state.context;
    let body: Tokenize = json_body(&state, request).await?;
    let encode =
        move || state.vocabulary.tokenizer().inner().encode_fast(body.prompt, body.add_special_tokens);
    let encoding = aside(encode)
        .await?
        .map_err(|e| ApiError::bad("prompt", format!("the text cannot be tokenised: {e}")))?;
    let tokens = encoding.get_ids();
    Ok(axum::Json(json!({"tokens": tokens, "count": tokens.len(), "max_model_len": context})))
}

async fn detokenize(
    Shared(state): Shared<Arc<State>>,
    request: Request,
) -> Result<axum::Json<Value>, ApiError> {
    let _hold = state.hold(&request)?;
    let body: Detokenize = json_body(&state, request).await?;
    let text = aside(move || state.vocabulary.tokenizer().decode(&body.tokens)).await??;
    Ok(axum::Json(json!({"prompt": text})))
}

/// Long texts take a while: the threads that serve connections do not wait for them.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let ended = |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the tokenizer ended midway");
    tokio::task::spawn_blocking(work).await.map_err(ended)
}
