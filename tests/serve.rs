//! The completions server over HTTP: what the harness counts on, the shapes of requests and answers, and
//! clients that misbehave.

#[path = "serve_support/hostile.rs"]
mod hostile;
mod serve_support;

use std::time::Duration;

use serde_json::{Value, json};
use serve_support::*;
use tyr::base::Silent;
use tyr::eval::{LanguageModel, Request, Scorer};
use tyr::generate::{Finish, Sampling, Settings, write};
use tyr::serve::Limits;

/// The harness's own body for log-likelihoods.
fn loglikelihood(prompt: Value) -> Value {
    json!({"model": "pico", "prompt": prompt, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": true})
}

fn floats(value: &Value) -> Vec<Option<f64>> {
    value.as_array().unwrap().iter().map(Value::as_f64).collect()
}

fn top(value: &Value) -> f64 {
    value.as_object().unwrap().values().map(|v| v.as_f64().unwrap()).fold(f64::MIN, f64::max)
}

#[test]
fn prompts_of_n_tokens_have_n_and_one_entries_that_sum_to_native_scores() {
    let house = House::new();
    let prompts: Vec<Vec<u32>> = vec![
        vec![5, 9, 80, 33, 60],
        vec![5, 9, 80, 7],
        vec![200],
        vec![5, 9, 80, 33, 61],
        (2..140).collect(),
    ];
    let answer = house.ok(&loglikelihood(json!(prompts)));
    let mut scorer = Scorer::new(&house.model);
    for (i, prompt) in prompts.iter().enumerate() {
        let choice = &answer["choices"][i];
        assert_eq!(choice["index"], i);
        let values = floats(&choice["logprobs"]["token_logprobs"]);
        let tops = choice["logprobs"]["top_logprobs"].as_array().unwrap();
        assert_eq!((values.len(), tops.len()), (prompt.len() + 1, prompt.len() + 1));
        assert!(values[0].is_none() && tops[0].is_null());
        assert!(
            values[1..].iter().zip(&tops[1..]).all(|(v, t)| v.unwrap().is_finite() && top(t) >= v.unwrap())
        );
        assert_eq!(
            values[prompt.len()].unwrap(),
            top(&tops[prompt.len()]),
            "the generated token is the likeliest"
        );
        for context in 1..prompt.len() {
            let request =
                Request { context: prompt[..context].to_vec(), continuation: prompt[context..].to_vec() };
            let native = scorer.score(&[request], &Silent).unwrap()[0];
            let sum: f64 = values[context..prompt.len()].iter().map(|v| v.unwrap()).sum();
            let greedy = (context..prompt.len()).all(|j| values[j].unwrap() == top(&tops[j]));
            assert!((sum - native.loglikelihood).abs() < 1e-4, "{sum} for {}", native.loglikelihood);
            assert_eq!(greedy, native.greedy);
        }
    }
}

#[test]
fn continuations_that_are_greedy_are_seen_as_such() {
    let house = House::new();
    let written = house.ok(&json!({"prompt": [5, 9, 80], "max_tokens": 6, "temperature": 0, "logprobs": 1}));
    let tokens = written["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len();
    assert!(tokens > 0);
    let settings = Settings { sampling: Sampling::GREEDY, max_tokens: 6, stop: vec![], logprobs: None };
    let mut sequence = tyr::generate::Sequence::new(&house.model, &house.tokenizer, &[5, 9, 80], &settings);
    let mut ids = vec![5, 9, 80];
    for _ in 0..tokens {
        ids.push(
            tyr::generate::advance(&house.model, &mut [&mut sequence])
                .unwrap()
                .pop()
                .unwrap()
                .unwrap()
                .unwrap()
                .token,
        );
    }
    let logprobs = house.ok(&loglikelihood(json!([ids])))["choices"][0]["logprobs"].clone();
    for (value, tops) in
        floats(&logprobs["token_logprobs"]).iter().zip(logprobs["top_logprobs"].as_array().unwrap()).skip(3)
    {
        assert_eq!(value.unwrap(), top(tops));
    }
}

#[test]
fn all_four_shapes_of_prompts_say_the_same() {
    let house = House::new();
    let text = "the hen in the tent";
    let ids = house.tokenizer.encode(text).unwrap();
    let choice = |prompt: Value| house.ok(&loglikelihood(prompt))["choices"].clone();
    let want = choice(json!(text));
    for prompt in [json!([text]), json!(ids), json!([ids])] {
        assert_eq!(choice(prompt), want);
    }
    let two = choice(json!([text, "two"]));
    assert_eq!(
        (two[0]["text"].as_str().unwrap().starts_with(text), two[1]["index"].as_u64()),
        (true, Some(1))
    );
    assert_eq!(want[0]["logprobs"]["tokens"].as_array().unwrap().len(), ids.len() + 1);
    assert_eq!(
        two[0]["logprobs"]["text_offset"][1],
        house.tokenizer.decode(&ids[..1]).unwrap().chars().count()
    );
}

#[test]
fn an_answer_has_exactly_the_known_fields() {
    let house = House::new();
    let mut answer =
        house.ok(&json!({"model": "pico", "prompt": "ab", "max_tokens": 2, "temperature": 0, "user": "ignored", "do_sample": false}));
    assert!(answer["created"].take().as_u64().is_some_and(|t| t > 1_700_000_000));
    assert!(answer["id"].take().as_str().is_some_and(|id| id.starts_with("cmpl-")));
    let written = answer["usage"]["completion_tokens"].take().as_u64().unwrap();
    assert!((1..=2).contains(&written));
    assert_eq!(answer["usage"]["total_tokens"].take().as_u64().unwrap(), written + 2);
    assert!(answer["choices"][0]["text"].take().is_string());
    let reason = answer["choices"][0]["finish_reason"].take();
    assert!(reason == "length" || reason == "stop");
    let want = json!({
        "id": null, "object": "text_completion", "created": null, "model": "pico",
        "choices": [{"index": 0, "text": null, "logprobs": null, "finish_reason": null}],
        "usage": {"prompt_tokens": 2, "completion_tokens": null, "total_tokens": null},
    });
    assert_eq!(answer, want);
}

fn native(house: &House, prompt: &str, settings: &Settings) -> (String, Finish) {
    let mut text = String::new();
    let ids = house.tokenizer.encode(prompt).unwrap();
    let finish = write(&house.model, &house.tokenizer, &ids, settings, &Silent, |t| {
        text.push_str(t);
        Ok(())
    });
    (text, finish.unwrap())
}

#[test]
fn written_text_is_the_native_one_whole_and_streamed_and_excludes_the_stop() {
    let house = House::new();
    for sampling in [Sampling::GREEDY, Sampling { temperature: 1.0, top_p: 0.8, seed: 11 }] {
        let mut settings = Settings { sampling, max_tokens: 60, stop: vec![], logprobs: None };
        let (free, _) = native(&house, "once", &settings);
        let stop: String =
            free.chars().filter(|c| *c != char::REPLACEMENT_CHARACTER).skip(3).take(1).collect();
        for stops in [vec![], vec![stop.clone(), "never seen".into()]] {
            settings.stop = stops.iter().filter(|s| !s.is_empty()).cloned().collect();
            let (want, finish) = native(&house, "once", &settings);
            let mut body = json!({"prompt": "once", "max_tokens": 60, "temperature": sampling.temperature, "top_p": sampling.top_p,
                                  "seed": sampling.seed, "stop": settings.stop});
            let answer = house.ok(&body);
            assert_eq!(answer["choices"][0]["text"], want.as_str());
            assert_eq!(
                answer["choices"][0]["finish_reason"],
                if finish == Finish::Stop { "stop" } else { "length" }
            );
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
            let lines = house.stream(&body);
            let text: String = lines.iter().filter_map(|l| l["choices"][0]["text"].as_str()).collect();
            assert_eq!(text, want);
            assert_eq!(lines.last().unwrap()["usage"], answer["usage"]);
        }
    }
}

#[test]
fn a_seed_repeats_and_requests_without_one_differ() {
    let house = House::new();
    let text = |seed: Value| {
        house.ok(&json!({"prompt": "once", "max_tokens": 40, "seed": seed}))["choices"][0]["text"].clone()
    };
    assert_eq!(text(json!(5)), text(json!(5)));
    assert_ne!(text(json!(5)), text(json!(6)));
    assert_ne!(text(Value::Null), text(Value::Null));
}

#[test]
fn echo_without_a_token_more_and_with_several() {
    let house = House::new();
    let none = house.ok(&json!({"prompt": "once", "max_tokens": 0, "echo": true, "logprobs": 2}));
    assert_eq!(
        (
            none["choices"][0]["text"].as_str(),
            none["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len()
        ),
        (Some("once"), 3)
    );
    assert_eq!(none["choices"][0]["logprobs"]["top_logprobs"][2].as_object().unwrap().len(), 2);
    let more =
        house.ok(&json!({"prompt": "once", "max_tokens": 5, "echo": true, "temperature": 0, "logprobs": 1}));
    let plain = house.ok(&json!({"prompt": "once", "max_tokens": 5, "temperature": 0}));
    assert_eq!(
        more["choices"][0]["text"].as_str().unwrap(),
        format!("once{}", plain["choices"][0]["text"].as_str().unwrap())
    );
    let written = more["usage"]["completion_tokens"].as_u64().unwrap() as usize;
    assert_eq!(more["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 3 + written);
}

#[test]
fn a_prompt_one_longer_than_the_context_is_scored_and_a_longer_one_refused() {
    let house = House::new();
    for n in [CONTEXT, CONTEXT + 1] {
        let answer = house.ok(&loglikelihood(json!([vec![9; n]])));
        assert_eq!(answer["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().len(), n + 1);
        assert!(
            floats(&answer["choices"][0]["logprobs"]["token_logprobs"])[1..]
                .iter()
                .all(|v| v.is_some_and(f64::is_finite))
        );
    }
    let (status, error) = house.post(&loglikelihood(json!([vec![9; CONTEXT + 2]])));
    assert_eq!((status, error["error"]["code"].as_str()), (400, Some("context_length_exceeded")));
    assert_eq!(house.post(&json!({"prompt": vec![9; CONTEXT + 1], "max_tokens": 1})).0, 400);
}

#[test]
fn wrong_requests_are_told_what_is_wrong() {
    let house = House::new();
    let cases = [
        (json!({}), 400, "prompt"),
        (json!({"prompt": []}), 400, "prompt"),
        (json!({"prompt": ""}), 400, "prompt"),
        (json!({"prompt": [[]]}), 400, "prompt"),
        (json!({"prompt": [100_000]}), 400, "prompt"),
        (json!({"prompt": "a", "model": "other"}), 404, "model"),
        (json!({"prompt": "a", "max_tokens": -1}), 400, "max_tokens"),
        (json!({"prompt": "a", "max_tokens": "3"}), 400, "max_tokens"),
        (json!({"prompt": "a", "temperature": 3}), 400, "temperature"),
        (json!({"prompt": "a", "top_p": -0.1}), 400, "top_p"),
        (json!({"prompt": "a", "logprobs": 6}), 400, "logprobs"),
        (json!({"prompt": "a", "n": 2}), 400, "n"),
        (json!({"prompt": "a", "stop": [""]}), 400, "stop"),
        (json!({"prompt": "a", "stop": [1]}), 400, "stop"),
        (json!({"prompt": "a", "echo": "yes"}), 400, "echo"),
        (json!({"prompt": "a", "suffix": "b"}), 400, "suffix"),
        (json!({"prompt": "a", "seed": 1.5}), 400, "seed"),
    ];
    for (body, want, param) in cases {
        let (status, answer) = house.post(&body);
        assert_eq!((status, answer["error"]["param"].as_str()), (want, Some(param)), "{body}: {answer}");
        assert!(answer["error"]["message"].is_string() && answer["error"]["type"] == "invalid_request_error");
    }
    for body in [
        "",
        "{",
        "[]",
        "nul",
        "{\"prompt\": [1, \"a\"]}",
        "{\"prompt\": [-1]}",
        "{\"prompt\": 5}",
        "\u{0}\u{1}",
    ] {
        let (status, answer) = house.send("POST", "/v1/completions", body, None);
        assert_eq!(status, 400, "{body}");
        assert!(answer["error"]["message"].as_str().is_some_and(|m| !m.is_empty()));
    }
    assert_eq!(house.send("GET", "/none", "", None).0, 404);
    assert_eq!(house.send("GET", "/v1/completions", "", None).0, 405);
    house.is_well();
}

#[test]
fn the_tokenizer_routes_are_those_of_the_harness() {
    let house = House::new();
    let info = house.send("GET", "/tokenizer_info", "", None).1;
    assert_eq!(
        info,
        json!({"eos_token": "</s>", "bos_token": "<s>", "pad_token": null, "chat_template": null})
    );
    let tokens = |text: &str| {
        house
            .send(
                "POST",
                "/tokenize",
                &json!({"prompt": text, "add_special_tokens": false}).to_string(),
                None,
            )
            .1["tokens"]
            .clone()
    };
    assert_eq!(tokens("</s>"), json!([1]));
    assert_eq!(tokens("the ü"), json!(house.tokenizer.encode("the ü").unwrap()));
    let text = house.send("POST", "/detokenize", &json!({"tokens": tokens("the ü")}).to_string(), None).1;
    assert_eq!(text, json!({"prompt": "the ü"}));
    assert_eq!(house.send("POST", "/tokenize", "{}", None).0, 400);
    let models = house.send("GET", "/v1/models", "", None).1;
    assert_eq!(
        (models["data"][0]["id"].as_str(), models["data"][0]["max_model_len"].as_u64()),
        (Some("pico"), Some(CONTEXT as u64))
    );
    assert_eq!(
        (house.send("GET", "/v1/models/pico", "", None).0, house.send("GET", "/v1/models/x/y", "", None).0),
        (200, 404)
    );
}

#[test]
fn a_key_is_asked_for_everywhere_but_at_health() {
    let house = House::with(|o| o.api_key = Some("secret".into()));
    for path in ["/v1/models", "/tokenizer_info", "/none"] {
        assert_eq!(house.send("GET", path, "", None).0, 401, "{path}");
        assert_eq!(house.send("GET", path, "", Some("Secret")).0, 401);
    }
    assert_eq!(house.send("GET", "/v1/models", "", Some("secret")).0, 200);
    assert_eq!(house.send("GET", "/health", "", None).0, 200);
    assert_eq!(house.send("POST", "/v1/completions", "{\"prompt\": \"a\"}", None).0, 401);
}

#[test]
fn clients_at_once_get_what_each_gets_alone() {
    let house = House::new();
    let bodies: Vec<Value> = (0..12u32)
        .map(|i| match i % 2 {
            0 => loglikelihood(json!([vec![5 + i; 10], vec![9; 20]])),
            _ => json!({"prompt": [5 + i, 8], "max_tokens": 20, "temperature": 1, "seed": i}),
        })
        .collect();
    let alone: Vec<Value> = bodies.iter().map(|b| house.ok(b)["choices"].clone()).collect();
    let together: Vec<Value> = std::thread::scope(|scope| {
        let each: Vec<_> = bodies.iter().map(|b| scope.spawn(|| house.ok(b)["choices"].clone())).collect();
        each.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for (a, b) in alone.iter().zip(&together) {
        assert_eq!(a[0]["text"], b[0]["text"]);
        let values = |c: &Value| {
            c[0]["logprobs"]["token_logprobs"]
                .as_array()
                .map(|v| v.iter().filter_map(Value::as_f64).collect::<Vec<_>>())
        };
        for (x, y) in values(a).unwrap_or_default().iter().zip(values(b).unwrap_or_default()) {
            assert!((x - y).abs() < 1e-5);
        }
    }
    assert_eq!(house.server.served(), 2 * (6 * 2 + 6));
}

#[test]
fn a_full_queue_says_come_again_and_a_slow_body_is_cut_off() {
    let begun = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    let hour = Duration::from_secs(3600);
    let house = House::with(|o| o.limits = Limits { requests: 1, body_time: hour, ..Limits::default() });
    let first = Raw::open(&house);
    first.write(begun);
    until("the first request is let in", || house.requests() == Some(1));
    let (status, head, _) = house.raw("POST", "/v1/completions", "{\"prompt\": \"a\"}");
    assert_eq!((status, head.contains("retry-after: 1")), (429, true));
    let moment = Duration::from_millis(300);
    let impatient = House::with(|o| o.limits = Limits { body_time: moment, ..Limits::default() });
    let slow = Raw::open(&impatient);
    slow.write(begun);
    assert!(slow.read().starts_with("HTTP/1.1 408"));
    impatient.becomes_idle();
}

#[test]
fn bodies_that_are_too_large_are_refused_announced_or_not() {
    let house = House::with(|o| o.limits = Limits { body_bytes: 1000, ..Limits::default() });
    assert_eq!(
        house.send("POST", "/v1/completions", &format!("{{\"prompt\": \"{}\"}}", "a".repeat(2000)), None).0,
        413
    );
    let raw = Raw::open(&house);
    raw.write("POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    raw.write(&format!("7d0\r\n{}\r\n", "a".repeat(2000)));
    assert!(raw.read().starts_with("HTTP/1.1 413"));
    house.is_well();
}

#[test]
fn heads_that_dribble_and_silence_are_cut_off() {
    let house =
        House::with(|o| o.limits = Limits { idle_time: Duration::from_millis(500), ..Limits::default() });
    let silent = Raw::open(&house);
    let dribbling = Raw::open(&house);
    let mut bytes = "GET /health HTTP/1.1\r\nx: aaaaaaaaaa".bytes().cycle();
    until("a dribbling client loses its connection", || {
        let byte = char::from(bytes.next().unwrap());
        !dribbling.try_write(&byte.to_string())
    });
    assert_eq!(silent.read(), "");
    house.is_well();
}

#[test]
fn hundreds_of_connections_leave_the_server_up_and_those_too_many_are_told() {
    let house = House::with(|o| o.limits = Limits { connections: 50, ..Limits::default() });
    let all: Vec<Raw> = (0..300).map(|_| Raw::open(&house)).collect();
    // Only so many are told at a time; those beyond are just closed.
    until("one too many is told", || Raw::open(&house).read().starts_with("HTTP/1.1 503"));
    drop(all);
    house.becomes_idle();
    house.is_well();
}

#[test]
fn clients_that_leave_in_the_middle_free_their_work() {
    let house = House::with(|o| o.limits = Limits { requests: 4, ..Limits::default() });
    for round in 0..3 {
        for stream in [true, false] {
            let bodies: Vec<Raw> = (0..4).map(|_| Raw::open(&house)).collect();
            for raw in &bodies {
                raw.request(
                    "/v1/completions",
                    &json!({"prompt": "a", "max_tokens": 200, "seed": round, "stream": stream}),
                );
            }
            // Some are scored by then, some are written and some still wait.
            std::thread::sleep(Duration::from_millis(20));
        }
        house.becomes_idle();
    }
    house.is_well();
}

#[test]
fn stopping_ends_streams_within_the_grace_time_and_closes_the_door() {
    let hour = Duration::from_secs(3600);
    let grace = Duration::from_millis(300);
    let house = House::with(|o| o.limits = Limits { grace, idle_time: hour, ..Limits::default() });
    let address = house.server.address();
    let _idle = Raw::open(&house);
    let busy = Raw::open(&house);
    busy.request("/v1/completions", &json!({"prompt": "a", "max_tokens": 1000, "stream": true}));
    // Without the grace time the idle connection would hold it for an hour.
    let (stopped, said) = std::sync::mpsc::channel();
    let server = house.server;
    std::thread::spawn(move || stopped.send(server.stop()));
    said.recv_timeout(Duration::from_secs(300)).unwrap().unwrap();
    assert!(std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_err());
}

#[test]
fn an_address_in_use_is_an_error() {
    let house = House::new();
    let port = house.server.address().port();
    let error = house.again(|o| o.port = port).err().unwrap();
    assert!(error.what.contains("cannot listen"), "{error}");
}
