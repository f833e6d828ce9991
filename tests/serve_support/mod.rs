//! A served tiny model, and clients that speak HTTP properly or not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::Device;
use serde_json::{Value, json};
use tyr::data::Tokenizer;
use tyr::model::pico::Pico;
use tyr::model::{Model, Source};
use tyr::serve::{Options, Server};

/// Context of the tiny model.
pub const CONTEXT: usize = 256;

/// Vocabulary of the tiny model.
pub const VOCABULARY: usize = tyr::model::pico::bytes::VOCABULARY + 20;

/// Waits until something holds, for as long as a busy machine may take.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(300), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A request whose answer is larger than what sockets hold, and takes little work: one prompt many times.
pub fn large() -> Value {
    json!({"prompt": vec![vec![9; CONTEXT]; 500], "echo": true, "logprobs": 5, "max_tokens": 0})
}

/// A server on loopback with its model.
pub struct TestServer {
    pub model: Arc<Model>,
    pub tokenizer: Tokenizer,
    pub server: Server,
    source: Source,
    _folder: tempfile::TempDir,
}

impl TestServer {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Options)) -> Self {
        Self::of(None, change)
    }

    /// With another tokenizer than that of bytes, whose ids must be below [`VOCABULARY`].
    pub fn of(tokenizer: Option<&Value>, change: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source =
            Pico { vocabulary: VOCABULARY, ..Pico::of_bytes(CONTEXT) }.write(folder.path(), 3).unwrap();
        if let Some(tokenizer) = tokenizer {
            std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        }
        let model = Arc::new(Model::open(&source, &Device::Cpu).unwrap());
        let server = start(&source, &model, change).unwrap();
        Self { tokenizer: Tokenizer::open(&source).unwrap(), model, server, source, _folder: folder }
    }

    /// Another server of the same model.
    pub fn again(&self, change: impl FnOnce(&mut Options)) -> tyr::base::Result<Server> {
        start(&self.source, &self.model, change)
    }

    /// Status, head and body of an answer.
    pub fn raw(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        self.raw_with(method, path, body, "")
    }

    fn raw_with(&self, method: &str, path: &str, body: &str, headers: &str) -> (u16, String, String) {
        let raw = Raw::open(self);
        let length = body.len();
        raw.try_write(&format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        ));
        let answer = raw.read();
        let (head, body) =
            answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer but {answer:?}"));
        (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_string())
    }

    pub fn health(&self) -> Value {
        let (status, answer) = self.send("GET", "/health", "", None);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub fn send(&self, method: &str, path: &str, body: &str, key: Option<&str>) -> (u16, Value) {
        let header = key.map_or(String::new(), |key| format!("authorization: Bearer {key}\r\n"));
        self.send_with(method, path, body, &header)
    }

    /// With further lines of the head.
    pub fn send_with(&self, method: &str, path: &str, body: &str, head: &str) -> (u16, Value) {
        let (status, _, body) = self.raw_with(method, path, body, head);
        (status, serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body:?}")))
    }

    pub fn post(&self, body: &Value) -> (u16, Value) {
        self.send("POST", "/v1/completions", &body.to_string(), None)
    }

    pub fn ok(&self, body: &Value) -> Value {
        let (status, answer) = self.post(body);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The events of a stream, which must end as they should.
    pub fn stream(&self, body: &Value) -> Vec<Value> {
        let raw = Raw::open(self);
        raw.request("/v1/completions", body);
        let answer = raw.read();
        assert!(answer.to_lowercase().contains("content-type: text/event-stream"), "{answer}");
        let events: Vec<&str> = answer.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
        assert_eq!(events.last(), Some(&"[DONE]"), "{answer}");
        events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect()
    }

    /// The number of admitted requests, by its own account; `None` while it lets nobody in.
    pub fn requests(&self) -> Option<u64> {
        requests(self.server.address())
    }

    /// Waits until all requests have left.
    pub fn becomes_idle(&self) {
        until("clients that have gone free their places", || self.requests() == Some(0));
    }

    /// Still answers.
    pub fn is_well(&self) {
        self.health();
        self.ok(&json!({"prompt": "a", "max_tokens": 1}));
    }
}

/// The number of admitted requests at an address; `None` while it lets nobody in.
pub fn requests(address: SocketAddr) -> Option<u64> {
    told(address, "requests")
}

/// A number that an address tells of its health; `None` while it lets nobody in, or cuts off a client that
/// had to wait for the processor.
pub fn told(address: SocketAddr, number: &str) -> Option<u64> {
    let raw = Raw::to(address);
    raw.try_write("GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    raw.success()?[number].as_u64()
}

/// Waits until an address whose time limits are short answers: a client that had to wait for the processor
/// longer than them comes again.
pub fn recovers(address: SocketAddr) {
    until("health is told", || requests(address).is_some());
    until("a request is answered", || {
        let raw = Raw::to(address);
        raw.try_request("/v1/completions", &json!({"prompt": "a", "max_tokens": 1}));
        raw.success().is_some()
    });
}

/// A connection whose request is in the house of an address with short time limits, as `entered` tells; it
/// is made again when it was cut off before.
pub fn enter(address: SocketAddr, body: &Value, entered: impl Fn() -> bool) -> Raw {
    let mut raw = Raw::to(address);
    raw.try_request("/v1/completions", body);
    until("the request is in the house", || {
        let there = entered();
        if !there && !raw.is_open() {
            raw = Raw::to(address);
            raw.try_request("/v1/completions", body);
        }
        there
    });
    raw
}

fn start(
    source: &Source,
    model: &Arc<Model>,
    change: impl FnOnce(&mut Options),
) -> tyr::base::Result<Server> {
    let mut options = Options::loopback("pico");
    change(&mut options);
    Server::start(source, model.clone(), options)
}

/// A bare connection.
pub struct Raw(TcpStream);

impl Raw {
    pub fn open(test: &TestServer) -> Self {
        Self::to(test.server.address())
    }

    pub fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        Self(stream)
    }

    pub fn write(&self, text: &str) {
        assert!(self.try_write(text));
    }

    pub fn try_write(&self, text: &str) -> bool {
        (&self.0).write_all(text.as_bytes()).is_ok()
    }

    pub fn write_bytes(&self, bytes: &[u8]) {
        (&self.0).write_all(bytes).unwrap();
    }

    pub fn request(&self, path: &str, body: &Value) {
        assert!(self.try_request(path, body));
    }

    pub fn try_request(&self, path: &str, body: &Value) -> bool {
        let body = body.to_string();
        self.try_write(&format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// Whether the other side has not closed yet, or has sent something that was not read.
    pub fn is_open(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let seen = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false).unwrap();
        match seen {
            Ok(n) => n > 0,
            Err(e) => e.kind() == std::io::ErrorKind::WouldBlock,
        }
    }

    /// The answer if it came whole and says that all went well.
    pub fn success(&self) -> Option<Value> {
        let answer = self.read();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok().filter(|_| head.starts_with("HTTP/1.1 200"))
    }

    /// Tells the other side that nothing more will be sent.
    pub fn close_writing(&self) {
        self.0.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// The next bytes that come; none at the end.
    pub fn read_some(&self) -> String {
        let mut part = [0; 4096];
        let n = (&self.0).read(&mut part).unwrap();
        String::from_utf8_lossy(&part[..n]).into_owned()
    }

    /// All that comes until the other side closes; chunks of a stream are left as they are.
    pub fn read(&self) -> String {
        let mut all = Vec::new();
        let mut part = [0; 4096];
        loop {
            match (&self.0).read(&mut part) {
                Ok(0) => break,
                Ok(n) => all.extend(&part[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(e) => panic!("{e}"),
            }
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}
