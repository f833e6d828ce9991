//! An OpenAI-compatible completions server: `/v1/completions` with echo and prompt log-probabilities, and the
//! tokenizer's routes.
//!
//! Connections are served by a small asynchronous runtime; the model belongs to one thread, which scores and
//! writes for all clients together. Limits are explicit ([`Limits`]): connections, admitted requests and
//! what they hold, bytes and seconds of a body, seconds of silence.

mod budget;
mod complete;
mod connection;
mod error;
pub mod lm_eval;
mod render;
mod routes;
mod score;
mod vocabulary;
mod wire;
mod worker;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use crate::base::{Error, Kind, Result, ResultExt, Watch};
use crate::data::tokenizer::Tokenizer;
use crate::model::{Model, Source};
use routes::State;
use vocabulary::Vocabulary;

/// What a server allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest number of open connections; further ones are answered with 503 and closed.
    pub connections: usize,
    /// Largest number of requests that wait or are worked on; further ones are answered with 429.
    pub requests: usize,
    /// Prompts of one request.
    pub prompts: usize,
    /// Bytes that the tokens of one request and their log-probabilities may take; more is answered with 400.
    pub request_memory: usize,
    /// The same of all admitted requests; more is answered with 429.
    pub memory: usize,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Time for a request's body to arrive.
    pub body_time: Duration,
    /// Time for the head of a request to arrive, and for the client to take what is sent; also for the answer
    /// to a client that has closed its own side, which may have gone.
    pub idle_time: Duration,
    /// Time that requests get to end when the server is stopped.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connections: 256,
            requests: 64,
            prompts: 1024,
            request_memory: 256 << 20,
            memory: 1 << 30,
            body_bytes: 8 << 20,
            body_time: seconds(20),
            idle_time: seconds(60),
            grace: seconds(5),
        }
    }
}

/// How a server is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port; 0 takes a free one.
    pub port: u16,
    /// The bearer token that requests must carry; none lets everyone in.
    pub api_key: Option<String>,
    /// The model's name in requests and answers.
    pub name: String,
    /// What is allowed.
    pub limits: Limits,
}

impl Options {
    /// On a free port of the loopback interface, open to everyone on this machine.
    pub fn loopback(name: &str) -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            port: 0,
            api_key: None,
            name: name.into(),
            limits: Limits::default(),
        }
    }
}

/// A running server. It ends when this value is dropped.
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<Result<()>>>,
    served: Arc<AtomicU64>,
}

impl Server {
    /// Opens the model's tokenizer, listens, and serves from threads of its own.
    ///
    /// # Errors
    /// No usable tokenizer, or an address that cannot be listened on.
    pub fn start(source: &Source, model: Arc<Model>, options: Options) -> Result<Self> {
        let tokenizer = Arc::new(Tokenizer::open(source)?);
        let vocabulary = Vocabulary::open(source, model.config(), tokenizer.clone())?;
        let served = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = watch::channel(false);
        let (ready, bound) = mpsc::channel();
        let server = ServerThread { model, tokenizer, vocabulary, options, served: served.clone(), stopped };
        let thread = std::thread::Builder::new().name("tyr-serve".into()).spawn(move || server.run(&ready));
        let thread = thread.or_error(Kind::Internal, "cannot start a thread")?;
        match bound.recv() {
            Ok(address) => Ok(Self { address, stop, thread: Some(thread), served }),
            Err(_) => Err(joined(thread)
                .err()
                .unwrap_or_else(|| Error::new(Kind::Internal, "the server ended before it began"))),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of its completions.
    pub fn completions_url(&self) -> String {
        format!("http://{}/v1/completions", self.address)
    }

    /// Prompts answered so far.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Whether it ended by itself.
    pub fn ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Lets running requests end for a while, then stops.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.stop.send_replace(true);
        self.thread.take().map_or(Ok(()), joined)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A caller that needs the error calls `stop`.
        let _ = self.end();
    }
}

fn joined(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|_| Err(Error::new(Kind::Internal, "the server's thread ended in a panic")))
}

/// The server's thread and what it owns.
struct ServerThread {
    model: Arc<Model>,
    tokenizer: Arc<Tokenizer>,
    vocabulary: Vocabulary,
    options: Options,
    served: Arc<AtomicU64>,
    stopped: watch::Receiver<bool>,
}

impl ServerThread {
    fn run(self, ready: &mpsc::Sender<SocketAddr>) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.or_error(Kind::Internal, "cannot start the asynchronous runtime")?;
        let host = self.options.host;
        let port = self.options.port;
        let listener = runtime.block_on(tokio::net::TcpListener::bind((host, port)));
        let listener = listener.or_error(Kind::Network, format!("cannot listen on {host}:{port}"))?;
        let address = listener.local_addr().or_error(Kind::Network, "the listening socket has no address")?;
        let (jobs, waiting) = mpsc::channel();
        let cut = Arc::new(AtomicBool::new(false));
        let worker = worker::Worker {
            model: self.model.clone(),
            tokenizer: self.tokenizer,
            jobs: waiting,
            cut: cut.clone(),
        };
        let alive = Arc::new(());
        let living = Arc::downgrade(&alive);
        let worker = std::thread::Builder::new().name("tyr-model".into()).spawn(move || {
            let _alive = alive; // dropped with the thread, whatever ends it
            worker.run();
        });
        let worker = worker.or_error(Kind::Internal, "cannot start a thread")?;
        let state = State::new(self.options.clone(), &self.model, self.vocabulary, jobs, self.served, living);
        let _ = ready.send(address); // nobody waits any more only if the starter was interrupted
        runtime.block_on(routes::serve(listener, state, self.stopped, self.options.limits.grace));
        cut.store(true, Ordering::Relaxed);
        runtime.shutdown_timeout(Duration::from_secs(1));
        worker.join().map_err(|_| Error::new(Kind::Internal, "the model's thread ended in a panic"))
    }
}

/// A secret of the environment, if it is set.
///
/// # Errors
/// It is no text: what the user meant to be requested must not be passed over.
pub fn secret(name: &str) -> Result<Option<String>> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Error::new(Kind::Usage, format!("the environment variable {name} is not UTF-8")))
        }
    }
}

/// Serves a model until the user asks to stop; `announce` gets the server once it listens.
pub fn run(
    source: &Source,
    model: Model,
    options: Options,
    watch: &dyn Watch,
    announce: impl FnOnce(&Server),
) -> Result<()> {
    if options.api_key.is_none() && !options.host.is_loopback() {
        watch.note("the server is open to the network and asks for no key: set --api-key");
    }
    let server = Server::start(source, Arc::new(model), options)?;
    announce(&server);
    while !watch.stopped() && !server.ended() {
        std::thread::sleep(Duration::from_millis(100));
    }
    server.stop()
}
