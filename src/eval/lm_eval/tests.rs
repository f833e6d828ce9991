//! The client against services that misbehave, and the service's process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::wire::{Endpoint, ResultBody, TokenizerChoice};
use super::*;
use crate::base::Silent;

/// What a fake service does with a request.
enum Act {
    Answer(u16, &'static str),
    Hang,
    Close,
}

type Script = fn(request: &str, number: usize) -> Act;

/// A service that follows a script, which sees the request line and its number from 0.
struct Fake {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn new(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(vec![]));
        let log = seen.clone();
        let number = AtomicUsize::new(0);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let line = request_line(stream.as_ref().unwrap());
                log.lock().unwrap().push(line.clone());
                let act = script(&line, number.fetch_add(1, Ordering::SeqCst));
                std::thread::spawn(move || play(stream.unwrap(), act));
            }
        });
        Self { url, seen }
    }

    fn client(&self) -> Client {
        Client::new(&self.url, None, quick()).unwrap()
    }

    fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// Reads a whole request, so that closing the connection does not reset it.
fn request_line(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    let mut length = 0;
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse().unwrap();
        }
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    first.trim_end_matches(" HTTP/1.1\r\n").to_string()
}

fn play(mut stream: TcpStream, act: Act) {
    match act {
        Act::Answer(status, body) => {
            let head =
                format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
        // Until the program of the tests ends.
        Act::Hang => loop {
            std::thread::park();
        },
        Act::Close => {}
    }
}

fn quick() -> Patience {
    let ms = Duration::from_millis;
    Patience { timeout: Duration::from_secs(60), attempts: 3, backoff: ms(10), poll: ms(10) }
}

struct Still;

impl JobMonitor for Still {
    fn served(&self) -> u64 {
        0
    }

    fn alive(&self) -> Result<()> {
        Ok(())
    }
}

fn job() -> Job {
    let model = Endpoint {
        name: "m".into(),
        completions_url: "http://127.0.0.1:9/v1/completions".into(),
        api_key: None,
        context_len: 16,
    };
    Job::new("key", &["boolq".to_string()], model, TokenizerChoice::Remote { prefix_token_id: Some(1) })
}

const HEALTHY: &str = r#"{"api":1,"adapter":"0.1.0","lm_eval":"0.4.13","busy":false}"#;

/// A healthy service whose jobs go as `states` says.
fn healthy(request: &str, job: Act) -> Act {
    match request {
        "GET /v1/health" => Act::Answer(200, HEALTHY),
        "POST /v1/jobs" => Act::Answer(202, r#"{"job_id":"7","state":"queued"}"#),
        "DELETE /v1/jobs/7" => Act::Answer(202, "{}"),
        "GET /v1/jobs/7/result" => Act::Answer(
            200,
            r#"{"results":{"boolq":{"acc":{"value":0.5,"stderr":null}}},"n_samples":{"boolq":{"original":9,"effective":4}},"task_versions":{"boolq":2.0}}"#,
        ),
        _ => job,
    }
}

fn failing(script: Script) -> (Error, Vec<String>) {
    let fake = Fake::new(script);
    let error = run(&fake.client(), &job(), &Still, &Silent).unwrap_err();
    (error, fake.requests())
}

#[test]
fn the_job_is_written_as_the_contract_says() {
    let mut job = job();
    job.num_fewshot = Some(5);
    let want = serde_json::json!({
        "api": 1, "key": "key", "tasks": ["boolq"], "num_fewshot": 5, "limit": null, "samples": false,
        "model": {"name": "m", "completions_url": "http://127.0.0.1:9/v1/completions", "api_key": null, "context_len": 16},
        "tokenizer": {"backend": "remote", "prefix_token_id": 1},
        "run": {"batch_size": 32, "num_concurrent": 1, "timeout_s": 3600, "max_retries": 3},
        "data": {"root": null, "include_path": null},
    });
    assert_eq!(serde_json::to_value(&job).unwrap(), want);
}

#[test]
fn a_result_has_the_shape_of_native_ones() {
    let fake =
        Fake::new(|request, _| healthy(request, Act::Answer(200, r#"{"state":"succeeded","error":null}"#)));
    let outcome = run(&fake.client(), &job(), &Still, &Silent).unwrap();
    assert_eq!(outcome.tasks["boolq"]["acc"], Estimate::mean(0.5, None, 4));
    assert_eq!(outcome.versions["boolq"], "2.0");
}

#[test]
fn a_group_counts_the_documents_of_its_tasks_and_groups() {
    let body = r#"{"results":{},"n_samples":{"a":{"effective":2},"b":{"effective":3}},"group_tasks":{"g":["h","a"],"h":["b"]}}"#;
    let body: ResultBody = serde_json::from_str(body).unwrap();
    assert_eq!(
        (body.documents("g"), body.documents("h"), body.documents("b"), body.documents("c")),
        (5, 3, 3, 0)
    );
}

#[test]
fn passing_faults_are_tried_again() {
    let fake = Fake::new(|request, number| match number {
        0 | 2 => Act::Answer(500, "oops"),
        3 => Act::Close,
        _ => healthy(request, Act::Answer(200, r#"{"state":"succeeded","error":null}"#)),
    });
    assert!(run(&fake.client(), &job(), &Still, &Silent).is_ok());
}

#[test]
fn a_service_that_is_not_there_hangs_or_is_another_says_so() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::new(&format!("http://{gone}"), None, quick()).unwrap();
    assert!(client.health().unwrap_err().what.contains("cannot be reached"));
    let hanging = Fake::new(|_, _| Act::Hang);
    let impatient = Patience { timeout: Duration::from_millis(300), ..quick() };
    let client = Client::new(&hanging.url, None, impatient).unwrap();
    assert!(client.health().unwrap_err().what.contains("no answer within 0.3 s"));
    assert!(failing(|_, _| Act::Answer(404, "<html>")).0.what.contains("status 404"));
    assert!(failing(|_, _| Act::Answer(200, "<html>")).0.what.contains("cannot be read"));
    assert_eq!(Client::new("https://x", None, quick()).unwrap_err().kind, Kind::Spec);
}

#[test]
fn an_old_service_and_one_without_the_harness_are_refused() {
    let (error, seen) = failing(|_, _| Act::Answer(200, r#"{"api":0,"lm_eval":"0.4.13"}"#));
    assert!(error.what.contains("version 0") && error.kind == Kind::Network, "{error}");
    assert_eq!(seen.len(), 1);
    assert!(failing(|_, _| Act::Answer(200, r#"{"status":"ok"}"#)).0.what.contains("no version"));
    assert!(failing(|_, _| Act::Answer(200, r#"{"api":1,"lm_eval":null}"#)).0.what.contains("no harness"));
}

#[test]
fn a_busy_service_and_a_wrong_task_have_kinds_of_their_own() {
    let busy = |request: &str, _| match request {
        "POST /v1/jobs" => {
            Act::Answer(409, r#"{"error":{"code":"busy","message":"job 3 is running","detail":"3"}}"#)
        }
        _ => healthy(request, Act::Close),
    };
    assert_eq!(failing(busy).0.kind, Kind::Busy);
    let failed = |request: &str, _| {
        healthy(
            request,
            Act::Answer(
                200,
                r#"{"state":"failed","error":{"code":"unknown_task","message":"m","detail":"a\nlast line\n"}}"#,
            ),
        )
    };
    let (error, seen) = failing(failed);
    assert_eq!((error.kind, error.place.as_deref()), (Kind::Spec, Some("last line")));
    assert_eq!(seen.last().unwrap(), "DELETE /v1/jobs/7");
}

#[test]
fn a_service_that_dies_midway_is_an_error_and_no_hang() {
    let dies = |request: &str, number| match number {
        0..4 => healthy(request, Act::Answer(200, r#"{"state":"running","error":null}"#)),
        _ => Act::Close,
    };
    assert!(failing(dies).0.what.contains("broke the connection"));
}

/// Stops at the third look.
struct StopsAtThirdLook(AtomicUsize);

impl Watch for StopsAtThirdLook {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
    fn note(&self, _: &str) {}
    fn stopped(&self) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst) >= 3
    }
}

#[test]
fn an_interrupt_cancels_the_job() {
    let fake =
        Fake::new(|request, _| healthy(request, Act::Answer(200, r#"{"state":"running","error":null}"#)));
    let error = run(&fake.client(), &job(), &Still, &StopsAtThirdLook(AtomicUsize::new(0))).unwrap_err();
    assert_eq!(error.kind, Kind::Interrupted);
    assert_eq!(fake.requests().last().unwrap(), "DELETE /v1/jobs/7");
}

#[test]
fn a_python_that_is_not_there_or_ends_at_once_is_said() {
    assert!(Service::start("no-such-python").err().unwrap().what.contains("cannot be started"));
    assert!(Service::start("false").err().unwrap().what.contains("did not begin"));
}

fn exists(id: u32) -> bool {
    // SAFETY: signal 0 only asks.
    unsafe { libc::kill(-(id as libc::pid_t), 0) == 0 }
}

#[test]
fn the_service_starts_wants_its_token_and_leaves_nothing_behind() {
    let Ok(mut service) = Service::start("python3") else {
        return eprintln!("skipped: there is no python3 of version 3.10 or later");
    };
    service.alive().unwrap();
    let stranger = Client::new(service.url(), None, quick()).unwrap();
    assert!(stranger.health().unwrap_err().what.contains("token"));
    let client = Client::new(service.url(), Some(service.token().into()), Patience::default()).unwrap();
    if let Err(e) = client.health() {
        assert!(e.what.contains("no harness"), "{e}");
    }
    // Nothing listens where the job says the model is.
    let error = client.submit(&job()).unwrap_err();
    assert!(error.what.contains("nothing answers"), "{error}");
    let old = Job { api: 0, ..job() };
    assert!(client.submit(&old).unwrap_err().hint.unwrap().contains("update"));
    assert!(client.status("none").unwrap_err().what.contains("no job"));
    let id = service.id();
    assert!(exists(id));
    drop(service);
    // Who adopts what the service started may take a while to notice its end.
    let began = Instant::now();
    while exists(id) {
        assert!(began.elapsed() < Duration::from_secs(120), "something of the service is left");
        std::thread::sleep(Duration::from_millis(10));
    }
}
