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

/// `tyr serve` as a process of its own, so that its memory can be told from ours.
struct Process {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Pico::of_bytes(CONTEXT).write(folder.path(), 3).unwrap();
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("tyr"));
        command
            .arg("serve")
            .arg(folder.path())
            .args(["--port", "0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().parse().unwrap();
        Self { child, address, _folder: folder }
    }

    /// Memory in use, MiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
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
        let all: Vec<Raw> = (0..300).map(|_| Raw::to(server.address)).collect();
        for raw in all.iter().step_by(7) {
            raw.try_write("GET /health HTTP/1.1\r\nhost:");
        }
        std::thread::sleep(Duration::from_millis(50));
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
        std::thread::sleep(Duration::from_millis(100));
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
    let house = House::with(|o| o.limits = Limits { idle_time: Duration::from_secs(2), ..Limits::default() });
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
        (post("content-length: 99999999999999999999", "{}"), "a length that is no number"),
        (post("content-length: 5\r\ncontent-length: 6", "{}"), "two lengths"),
        (post("transfer-encoding: chunked", "zz\r\n{}\r\n0\r\n\r\n"), "a chunk of no size"),
        (post("transfer-encoding: chunked", "ffffffffffffffffff\r\n{}"), "a chunk of every size"),
        (post("transfer-encoding: gzip", "{}"), "an encoding that is not served"),
    ];
    for (text, what) in cases {
        let raw = Raw::open(&house);
        raw.try_write(&text);
        let answer = raw.read();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
    }
    house.is_well();
}

#[test]
fn bodies_that_are_no_json_or_too_much_of_it_are_told() {
    let house = House::with(|o| o.limits = Limits { prompts: 100, ..Limits::default() });
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
        let (status, answer) = house.send("POST", "/v1/completions", &body, None);
        assert_eq!(status, 400, "{}: {answer}", &body[..body.len().min(80)]);
        assert!(answer["error"]["message"].as_str().is_some_and(|m| !m.is_empty() && m.len() < 1000));
    }
    for (path, body) in [
        ("/tokenize", "{\"prompt\": [1]}"),
        ("/detokenize", "{\"tokens\": [-1]}"),
        ("/detokenize", "{\"tokens\": \"a\"}"),
    ] {
        assert_eq!(house.send("POST", path, body, None).0, 400, "{path} {body}");
    }
    house.is_well();
}

#[test]
fn bytes_that_are_no_text_are_told() {
    let house = House::new();
    let raw = Raw::open(&house);
    raw.write("POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 17\r\n\r\n");
    raw.write_bytes(b"{\"prompt\":\"\xff\xfe\xc3(\"}");
    let answer = raw.read();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    house.is_well();
}

#[test]
fn a_body_that_ends_early_frees_its_place() {
    let house = House::with(|o| o.limits = Limits { requests: 1, ..Limits::default() });
    for _ in 0..3 {
        let raw = Raw::open(&house);
        raw.write("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{\"prompt\": ");
        drop(raw);
        house.becomes_idle();
        house.is_well();
    }
}

#[test]
fn long_texts_are_tokenised_beside_the_other_work() {
    let house = House::new();
    let body = json!({"prompt": "the hen ".repeat(120_000)}).to_string();
    // Once in a while another program takes the processor for as long as the texts need: then again.
    until("health is told while long texts are tokenised", || told_while_tokenising(&house, &body));
}

/// Whether an answer about health, asked for while four long texts were in the house, came before theirs.
fn told_while_tokenising(house: &House, body: &str) -> bool {
    let answered = AtomicBool::new(false);
    let tokenise = || {
        let (status, answer) = house.send("POST", "/tokenize", body, None);
        answered.store(true, Ordering::SeqCst);
        assert_eq!((status, answer["count"].as_u64().is_some_and(|n| n > 100_000)), (200, true));
    };
    std::thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(tokenise)));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(house.send("GET", "/health", "", None).0, 200);
        !answered.load(Ordering::SeqCst)
    })
}

/// Every answer is the same long one: many prompts that are computed once.
fn large() -> Value {
    json!({"prompt": vec![vec![9; CONTEXT]; 500], "echo": true, "logprobs": 5, "max_tokens": 0})
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let patient = House::new();
    let reading = Raw::open(&patient);
    reading.request("/v1/completions", &large());
    let whole = reading.read();
    let (_, body) = whole.split_once("\r\n\r\n").unwrap();
    assert!(body.len() > 16 << 20 && body.ends_with('}'), "{} bytes, more than sockets hold", body.len());
    // The deaf client has the only connection there is: others are let in once it is cut off.
    let moment = Duration::from_millis(700);
    let house = House::with(|o| o.limits = Limits { connections: 1, idle_time: moment, ..Limits::default() });
    let deaf = Raw::open(&house);
    deaf.request("/v1/completions", &large());
    house.becomes_idle();
    assert!(deaf.read().len() < whole.len(), "the rest was still sent after seconds of silence");
}
