//! Clients that are slow, silent, too many, or gone; and the server's own end.

use std::time::Duration;

use serde_json::json;

use super::serve_support::*;
use tyr::serve::Limits;

#[test]
fn a_full_queue_says_come_again() {
    let test = TestServer::with(|o| o.limits = Limits { requests: 1, ..Limits::default() });
    let deaf = Raw::open(&test);
    let mut body = large();
    body["stream"] = json!(true);
    deaf.request("/v1/completions", &body);
    until("the stream is admitted", || test.health()["requests"] == 1);
    let (status, head, _) = test.raw("POST", "/v1/completions", "{\"prompt\": \"a\"}");
    assert_eq!((status, head.contains("retry-after: 1")), (429, true));
    drop(deaf);
    until("the stream has gone", || test.health()["requests"] == 0);
    test.is_well();
}

#[test]
fn unfinished_bodies_take_no_place_of_others() {
    let test = TestServer::with(|o| o.limits = Limits { requests: 2, ..Limits::default() });
    let unfinished: Vec<Raw> = (0..20).map(|_| Raw::open(&test)).collect();
    for (raw, path) in unfinished.iter().zip(["/v1/completions", "/tokenize", "/detokenize"].iter().cycle()) {
        raw.write(&format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{\"p"));
    }
    until("the bodies are there", || test.health()["memory"].as_u64().unwrap() > 0);
    test.is_well();
    drop(unfinished);
    until("what they held is free", || test.health()["memory"] == 0);
}

#[test]
fn a_slow_body_is_cut_off() {
    let test = TestServer::with(|o| {
        o.limits = Limits { body_time: Duration::from_millis(100), ..Limits::default() }
    });
    let slow = Raw::open(&test);
    slow.write("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{");
    assert!(slow.read().starts_with("HTTP/1.1 408"));
}

/// Bytes that no socket holds, so that a client that writes them all has someone read them.
const MUCH: usize = 32 << 20;

#[test]
fn a_client_that_sends_all_before_it_reads_is_told_what_was_wrong() {
    let test = TestServer::with(|o| {
        o.api_key = Some("secret".into());
        o.limits = Limits { body_bytes: 1000, ..Limits::default() };
    });
    let body = "a".repeat(MUCH);
    let key = "authorization: Bearer secret\r\n";
    for (path, head, want) in [
        ("/v1/completions", key, 413),
        ("/tokenize", key, 413),
        ("/none", key, 404),
        ("/v1/completions", "", 401),
    ] {
        assert_eq!(test.send_with("POST", path, &body, head).0, want, "{path}");
    }
    let raw = Raw::open(&test);
    raw.write(&format!("POST /detokenize HTTP/1.1\r\nhost: x\r\n{key}transfer-encoding: chunked\r\n\r\n"));
    raw.write(&format!("{MUCH:x}\r\n{body}\r\n"));
    assert!(raw.read().starts_with("HTTP/1.1 413"));
}

#[test]
fn a_client_that_closes_its_own_side_gets_its_answer() {
    let test = TestServer::new();
    for stream in [false, true] {
        let raw = Raw::open(&test);
        let body = json!({"prompt": "once", "max_tokens": 100, "temperature": 0, "stream": stream});
        raw.request("/v1/completions", &body);
        raw.close_writing();
        let answer = raw.read();
        let end = if stream { "data: [DONE]\n\n\r\n0\r\n\r\n" } else { "}" };
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(end), "{answer}");
    }
    let raw = Raw::open(&test);
    raw.write("GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    raw.close_writing();
    assert!(raw.read().starts_with("HTTP/1.1 200"));
}

#[test]
fn the_work_of_clients_that_have_gone_is_dropped() {
    let test = TestServer::with(|o| {
        o.limits = Limits { idle_time: Duration::from_millis(200), ..Limits::default() }
    });
    let address = test.server.address();
    for stream in [true, false] {
        let served = test.server.served();
        let body = json!({"prompt": vec!["a"; 1000], "max_tokens": 250, "seed": 1, "stream": stream});
        let raw = enter(address, &body, || test.requests() == Some(1) || test.server.served() > served);
        drop(raw);
        test.becomes_idle();
        until("it holds nothing", || told(address, "memory") == Some(0));
        let served = test.server.served() - served;
        assert!(served < 1000, "all was written to the end: {served}");
    }
    recovers(address);
}

#[test]
fn heads_that_dribble_and_silence_are_cut_off() {
    let test = TestServer::with(|o| {
        o.limits = Limits { idle_time: Duration::from_millis(100), ..Limits::default() }
    });
    let silent = Raw::open(&test);
    let dribbling = Raw::open(&test);
    let mut head = "GET /health HTTP/1.1\r\nx: aaaaaaaaaa".chars().cycle();
    until("a dribbling client loses its connection", || {
        !dribbling.try_write(&head.next().unwrap().to_string())
    });
    assert_eq!(silent.read(), "");
    recovers(test.server.address());
}

#[test]
fn hundreds_of_connections_leave_the_server_up_and_those_too_many_are_told() {
    let test = TestServer::with(|o| o.limits = Limits { connections: 50, ..Limits::default() });
    let all: Vec<Raw> = (0..300).map(|_| Raw::open(&test)).collect();
    until("one too many is refused", || Raw::open(&test).read().starts_with("HTTP/1.1 503"));
    drop(all);
    until("there is room again", || {
        let raw = Raw::open(&test);
        raw.try_write("GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        raw.read().starts_with("HTTP/1.1 200")
    });
    test.is_well();
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let test = TestServer::new();
    let reading = Raw::open(&test);
    reading.request("/v1/completions", &large());
    let whole = reading.read();
    let (_, body) = whole.split_once("\r\n\r\n").unwrap();
    assert!(body.len() > 16 << 20 && body.ends_with('}'), "{} bytes, more than sockets hold", body.len());
    let limits = Limits { idle_time: Duration::from_millis(700), ..Limits::default() };
    let strict = test.again(|o| o.limits = limits).unwrap();
    let deaf = enter(strict.address(), &large(), || strict.served() > 0);
    until("the answer is given up", || {
        ["requests", "memory"].iter().all(|number| told(strict.address(), number) == Some(0))
    });
    recovers(strict.address());
    assert!(deaf.read().len() < whole.len(), "the rest was still sent");
}

#[test]
fn stopping_ends_streams_that_nobody_reads_after_the_grace_time_and_closes_the_port() {
    let test =
        TestServer::with(|o| o.limits = Limits { grace: Duration::from_millis(300), ..Limits::default() });
    let address = test.server.address();
    let _idle = Raw::open(&test);
    let deaf = Raw::open(&test);
    let mut body = large();
    body["stream"] = json!(true);
    deaf.request("/v1/completions", &body);
    until("the stream is admitted", || test.health()["requests"] == 1);
    test.server.stop().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
    assert!(!deaf.read().contains("[DONE]"), "it was not cut off");
}

#[test]
fn stopping_waits_for_the_answer_of_a_running_request() {
    let test =
        TestServer::with(|o| o.limits = Limits { grace: Duration::from_secs(300), ..Limits::default() });
    let busy = Raw::open(&test);
    busy.request("/v1/completions", &json!({"prompt": vec!["a"; 64], "max_tokens": 100, "seed": 1}));
    until("the request is admitted", || test.health()["requests"] == 1 || test.server.served() > 0);
    test.server.stop().unwrap();
    let answer = busy.read();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with('}'), "{answer}");
}
