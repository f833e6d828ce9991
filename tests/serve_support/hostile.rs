//! Clients that mean no good, or do not know better: whatever they send, the server stays up and its memory
//! stays bounded.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::serve_support::*;
use tyr::model::pico::Pico;
use tyr::serve::Limits;

/// `tyr serve` as a process of its own, so that its memory can be measured apart from ours.
struct Process {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Process {
    /// On a free port.
    fn start(arguments: &[&str]) -> Self {
        let mut process = Self::spawn(&[&["--port", "0"], arguments].concat(), Stdio::piped());
        let mut line = String::new();
        BufReader::new(process.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        process.address = line.trim().rsplit("http://").next().unwrap().parse().unwrap();
        process
    }

    /// Its address is not known yet.
    fn spawn(arguments: &[&str], stdout: Stdio) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Pico::of_bytes(CONTEXT).write(folder.path(), 3).unwrap();
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("tyr"));
        crate::signals::heed_interrupts(&mut command);
        command.arg("serve").arg(folder.path()).args(arguments).stdout(stdout).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), _folder: folder }
    }

    /// A line of its status, MiB.
    fn status(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
    }

    /// Memory in use.
    fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most memory that was ever in use.
    fn most_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn becomes_idle(&self) {
        until("clients that have gone free their places", || requests(self.address) == Some(0));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn thousands_of_connections_come_and_go_and_leave_no_memory_behind() {
    let server = Process::start(&["--connections", "100"]);
    let wave = || {
        let mut all: Vec<Raw> = (0..300).map(|_| Raw::to(server.address)).collect();
        for raw in all.iter().step_by(7) {
            raw.try_write("GET /health HTTP/1.1\r\nhost:");
        }
        until("one too many is told", || {
            // Places that the wave before left late are taken one by one; a client that waits for nothing would
            // itself be one too few.
            all.push(Raw::to(server.address));
            let raw = Raw::to(server.address);
            raw.try_write("GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            raw.read().starts_with("HTTP/1.1 503")
        });
    };
    wave();
    let before = server.memory();
    (0..10).for_each(|_| wave());
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 64, "{grown} MiB more after 3000 connections");
    server.becomes_idle();
}

#[test]
fn streams_that_are_cancelled_stop_their_texts_and_leave_no_memory_behind() {
    let server = Process::start(&["--queue", "40"]);
    let body = json!({"prompt": "a", "max_tokens": CONTEXT - 2, "stream": true, "temperature": 1});
    let wave = || {
        let streams: Vec<Raw> = (0..60).map(|_| Raw::to(server.address)).collect();
        streams.iter().for_each(|raw| raw.request("/v1/completions", &body));
        // Its answer, be it a refusal, begins when those before it are in the house.
        streams.iter().last().map(Raw::read_some).unwrap();
        drop(streams);
        server.becomes_idle();
    };
    wave();
    let before = server.memory();
    (0..8).for_each(|_| wave());
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 64, "{grown} MiB more after 480 cancelled streams");
}

#[test]
fn bytes_that_are_no_http_are_refused_or_cut_off() {
    let test =
        TestServer::with(|o| o.limits = Limits { idle_time: Duration::from_secs(2), ..Limits::default() });
    let long = format!("GET /health HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(2 << 20));
    let many = format!("GET /health HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(50_000));
    let post = |head: &str, body: &str| {
        format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}\r\n\r\n{body}")
    };
    let cases = [
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\r\n\r\n".to_string(), "a TLS hello"),
        ("\r\n\r\n\r\n\0\0\0\0".to_string(), "nothing"),
        ("GET /health HTTP/9.9\r\n\r\n".to_string(), "a version"),
        ("GET\r\n\r\n".to_string(), "no path"),
        (long, "a header of megabytes"),
        (many, "fifty thousand headers"),
        (post("content-length: -1", "{}"), "a negative length"),
        (post("content-length: 99999999999999999999", "{}"), "a length that is not a number"),
        (post("content-length: 5\r\ncontent-length: 6", "{}"), "two lengths"),
        (post("transfer-encoding: chunked", "zz\r\n{}\r\n0\r\n\r\n"), "a chunk of no size"),
        (post("transfer-encoding: chunked", "ffffffffffffffffff\r\n{}"), "a chunk of every size"),
        (post("transfer-encoding: gzip", "{}"), "an encoding that is not served"),
    ];
    for (text, what) in cases {
        let raw = Raw::open(&test);
        raw.try_write(&text);
        let answer = raw.read();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
    }
    recovers(test.server.address());
}

#[test]
fn bodies_that_are_no_json_or_too_much_of_it_are_told() {
    let test = TestServer::with(|o| o.limits = Limits { prompts: 100, ..Limits::default() });
    let deep = format!("{{\"prompt\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies = [
        deep,
        "{\"prompt\": \"a\", \"temperature\": 1e999}".into(),
        "{\"prompt\": \"a\", \"temperature\": NaN}".into(),
        "{\"prompt\": \"a\", \"max_tokens\": 99999999999999999999999}".into(),
        "{\"prompt\": \"a\"".into(),
        "{\"prompt\": \"\\ud800\"}".into(),
        "{\"prompt\": \"a\"} {\"prompt\": \"b\"}".into(),
        json!({"prompt": vec!["a"; 101]}).to_string(),
        json!({"prompt": vec![vec![5; 100]; 101]}).to_string(),
        json!({"prompt": vec![5; 1 << 20]}).to_string(),
        json!({"prompt": [vec![5; CONTEXT + 2]], "echo": true, "logprobs": 1, "max_tokens": 1, "temperature": 0}).to_string(),
    ];
    for body in bodies {
        let (status, answer) = test.send("POST", "/v1/completions", &body, None);
        assert_eq!(status, 400, "{}: {answer}", &body[..body.len().min(80)]);
        assert!(answer["error"]["message"].as_str().is_some_and(|m| !m.is_empty() && m.len() < 1000));
    }
    for (path, body) in [
        ("/tokenize", "{\"prompt\": [1]}"),
        ("/detokenize", "{\"tokens\": [-1]}"),
        ("/detokenize", "{\"tokens\": \"a\"}"),
    ] {
        assert_eq!(test.send("POST", path, body, None).0, 400, "{path} {body}");
    }
    test.is_well();
}

#[test]
fn bytes_that_are_no_text_are_told() {
    let test = TestServer::new();
    let raw = Raw::open(&test);
    raw.write("POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 17\r\n\r\n");
    raw.write_bytes(b"{\"prompt\":\"\xff\xfe\xc3(\"}");
    let answer = raw.read();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    test.is_well();
}

#[test]
fn a_body_that_ends_early_frees_its_place() {
    let test = TestServer::with(|o| o.limits = Limits { requests: 1, ..Limits::default() });
    for _ in 0..3 {
        let raw = Raw::open(&test);
        raw.write("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{\"prompt\": ");
        drop(raw);
        test.becomes_idle();
        test.is_well();
    }
}

#[test]
fn long_texts_are_tokenised_beside_the_other_work() {
    let test = TestServer::new();
    let body = json!({"prompt": "the hen ".repeat(120_000)}).to_string();
    // Once in a while another program takes the processor for as long as the texts need: then again.
    until("health is answered while long texts are tokenised", || answered_while_tokenising(&test, &body));
}

/// Whether an answer about health, requested while four long texts were admitted, came before theirs.
fn answered_while_tokenising(test: &TestServer, body: &str) -> bool {
    let answered = AtomicBool::new(false);
    let tokenise = || {
        let (status, answer) = test.send("POST", "/tokenize", body, None);
        answered.store(true, Ordering::SeqCst);
        assert_eq!((status, answer["count"].as_u64().is_some_and(|n| n > 100_000)), (200, true));
    };
    std::thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(tokenise)));
        until("a text is in the house", || {
            answered.load(Ordering::SeqCst) || test.requests().is_some_and(|number| number > 0)
        });
        assert_eq!(test.send("GET", "/health", "", None).0, 200);
        !answered.load(Ordering::SeqCst)
    })
}

/// Positions that cost about this many MiB, with five likeliest tokens each and little work: one prompt many
/// times.
fn costly(mebibytes: usize) -> Value {
    let prompts = (mebibytes << 20) / (CONTEXT * 840);
    json!({"prompt": vec![vec![9; CONTEXT]; prompts], "echo": true, "logprobs": 5, "max_tokens": 0})
}

#[test]
fn a_request_holds_no_more_than_it_is_charged_with() {
    let server = Process::start(&["--request-memory", "128"]);
    let ask = |body: &Value| {
        let raw = Raw::to(server.address);
        raw.request("/v1/completions", body);
        raw.read()
    };
    assert!(ask(&costly(1)).starts_with("HTTP/1.1 200"));
    let before = server.most_memory();
    let answer = ask(&costly(140));
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("token_budget_exceeded"), "{answer}");
    assert!(answer.contains("128") && answer.contains("--request-memory"), "{answer}");
    let refused = server.most_memory() - before;
    assert!(refused < 64, "{refused} MiB more for a request that was refused");
    let body = costly(110);
    assert!(ask(&body).starts_with("HTTP/1.1 200"));
    let grown = server.most_memory() - before;
    assert!(grown < 128 + 32, "{grown} MiB more for a request of at most 128");
}

#[test]
fn requests_hold_no_more_together_than_all_may() {
    let test = TestServer::with(|o| o.limits.memory = 150 << 20);
    let deaf = Raw::open(&test);
    deaf.request("/v1/completions", &large());
    until("its answer is there", || {
        let health = test.health();
        health["requests"] == 0 && health["memory"].as_u64().unwrap() > 50 << 20
    });
    let (status, head, body) = test.raw("POST", "/v1/completions", &large().to_string());
    assert_eq!((status, head.contains("retry-after")), (429, true));
    assert!(body.contains("token_budget_full"), "{body}");
    test.is_well();
    assert!(deaf.read().starts_with("HTTP/1.1 200"));
    until("the answer that was taken holds nothing", || test.health()["memory"] == 0);
    test.ok(&large());
}

#[test]
fn what_a_text_to_be_written_may_hold_is_counted_too() {
    let test = TestServer::with(|o| o.limits.request_memory = 1 << 20);
    let body = |max_tokens: usize| json!({"prompt": vec!["a"; 100], "max_tokens": max_tokens, "logprobs": 5});
    assert_eq!(test.post(&body(2)).0, 200);
    let (status, answer) = test.post(&body(200));
    assert_eq!((status, answer["error"]["code"].as_str()), (400, Some("token_budget_exceeded")));
    let long = json!({"prompt": "a".repeat(200_000), "max_tokens": 1}).to_string();
    assert_eq!(test.send("POST", "/v1/completions", &long, None).0, 400);
}

#[test]
fn values_of_megabytes_that_nobody_asked_for_take_no_memory() {
    let server = Process::start(&[]);
    let before = server.most_memory();
    for name in ["logit_bias", "suffix", "n", "stream_options", "user"] {
        let mut body = json!({"prompt": "a", "max_tokens": 1});
        body[name] = json!(vec![0; 3_000_000]);
        let raw = Raw::to(server.address);
        raw.request("/v1/completions", &body);
        let answer = raw.read();
        assert!(answer.len() < 2000, "{name}: an answer of {} bytes", answer.len());
    }
    let grown = server.most_memory() - before;
    // Parsed, the values of one body would take 32 bytes each: 91 MiB beside the body itself.
    assert!(grown < 90, "{grown} MiB more for bodies of 6 MiB");
}

#[test]
fn a_server_whose_standard_output_has_gone_serves() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut server = Process::spawn(&["--port", &port.to_string()], writer.into());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    until("it listens", || {
        assert_eq!(server.child.try_wait().unwrap(), None, "it ended");
        std::net::TcpStream::connect(address).is_ok()
    });
    assert_eq!(requests(address), Some(0));
}

#[test]
fn a_key_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("tyr"));
    command.args(["serve", "builtin:quickstart", "--port", "0"]);
    command.env("TYR_API_KEY", std::ffi::OsStr::from_bytes(b"secret\xff"));
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert!(printed.contains("TYR_API_KEY") && !printed.contains("secret"), "{printed}");
}

#[test]
fn signals_that_ask_to_stop_let_running_requests_end() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut server = Process::start(&[]);
        let raw = Raw::to(server.address);
        raw.request("/v1/completions", &json!({"prompt": "a", "max_tokens": 40, "seed": 1, "stream": true}));
        let mut answer = raw.read_some();
        // SAFETY: the process is our own child and was not waited for.
        assert_eq!(unsafe { libc::kill(server.child.id() as libc::pid_t, signal) }, 0);
        answer += &raw.read();
        assert!(answer.contains("data: [DONE]"), "{answer}");
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
    }
}
