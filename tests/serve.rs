//! The completions server over HTTP: what the harness counts on, the shapes of requests and answers, and
//! clients that misbehave.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

#[path = "serve_support/clients.rs"]
mod clients;
#[path = "serve_support/hostile.rs"]
mod hostile;
mod serve_support;
#[path = "common/signals.rs"]
mod signals;
#[path = "serve_support/tokens.rs"]
mod tokens;

use serde_json::{Value, json};
use serve_support::*;
use tyr::base::Silent;
use tyr::eval::{LanguageModel, Request, Scorer};
use tyr::generate::{Finish, Sampling, Settings, write};

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
    let test = TestServer::new();
    let prompts: Vec<Vec<u32>> = vec![
        vec![5, 9, 80, 33, 60],
        vec![5, 9, 80, 7],
        vec![200],
        vec![5, 9, 80, 33, 61],
        (2..140).collect(),
    ];
    let answer = test.ok(&loglikelihood(json!(prompts)));
    let mut scorer = Scorer::new(&test.model);
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
    let test = TestServer::new();
    let written = test.ok(&json!({"prompt": [5, 9, 80], "max_tokens": 6, "temperature": 0, "logprobs": 1}));
    let tokens = written["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len();
    assert!(tokens > 0);
    let settings = Settings { sampling: Sampling::GREEDY, max_tokens: 6, stop: [].into(), logprobs: None };
    let mut sequence = tyr::generate::Sequence::new(&test.model, &test.tokenizer, &[5, 9, 80], &settings);
    let mut ids = vec![5, 9, 80];
    for _ in 0..tokens {
        ids.push(
            tyr::generate::advance(&test.model, &mut [&mut sequence])
                .unwrap()
                .pop()
                .unwrap()
                .unwrap()
                .unwrap()
                .token,
        );
    }
    let logprobs = test.ok(&loglikelihood(json!([ids])))["choices"][0]["logprobs"].clone();
    for (value, tops) in
        floats(&logprobs["token_logprobs"]).iter().zip(logprobs["top_logprobs"].as_array().unwrap()).skip(3)
    {
        assert_eq!(value.unwrap(), top(tops));
    }
}

#[test]
fn all_four_shapes_of_prompts_say_the_same() {
    let test = TestServer::new();
    let text = "the hen in the tent";
    let ids = test.tokenizer.encode(text).unwrap();
    let choice = |prompt: Value| test.ok(&loglikelihood(prompt))["choices"].clone();
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
        test.tokenizer.decode(&ids[..1]).unwrap().chars().count()
    );
}

#[test]
fn an_answer_has_exactly_the_known_fields() {
    let test = TestServer::new();
    let mut answer =
        test.ok(&json!({"model": "pico", "prompt": "ab", "max_tokens": 2, "temperature": 0, "user": "ignored", "do_sample": false}));
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

fn native(test: &TestServer, prompt: &str, settings: &Settings) -> (String, Finish) {
    let mut text = String::new();
    let ids = test.tokenizer.encode(prompt).unwrap();
    let finish = write(&test.model, &test.tokenizer, &ids, settings, &Silent, |t| {
        text.push_str(t);
        Ok(())
    });
    (text, finish.unwrap())
}

#[test]
fn written_text_is_the_native_one_whole_and_streamed_and_excludes_the_stop() {
    let test = TestServer::new();
    for sampling in [Sampling::GREEDY, Sampling { temperature: 1.0, top_p: 0.8, seed: 11 }] {
        let mut settings = Settings { sampling, max_tokens: 60, stop: [].into(), logprobs: None };
        let (free, _) = native(&test, "once", &settings);
        let stop: String =
            free.chars().filter(|c| *c != char::REPLACEMENT_CHARACTER).skip(3).take(1).collect();
        for stops in [vec![], vec![stop.clone(), "never seen".into()]] {
            settings.stop = stops.iter().filter(|s: &&String| !s.is_empty()).cloned().collect();
            let (want, finish) = native(&test, "once", &settings);
            let mut body = json!({"prompt": "once", "max_tokens": 60, "temperature": sampling.temperature, "top_p": sampling.top_p,
                                  "seed": sampling.seed, "stop": settings.stop.to_vec()});
            let answer = test.ok(&body);
            assert_eq!(answer["choices"][0]["text"], want.as_str());
            assert_eq!(
                answer["choices"][0]["finish_reason"],
                if finish == Finish::Stop { "stop" } else { "length" }
            );
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
            let lines = test.stream(&body);
            let text: String = lines.iter().filter_map(|l| l["choices"][0]["text"].as_str()).collect();
            assert_eq!(text, want);
            assert_eq!(lines.last().unwrap()["usage"], answer["usage"]);
        }
    }
}

#[test]
fn a_seed_repeats_and_requests_without_one_differ() {
    let test = TestServer::new();
    let text = |seed: Value| {
        test.ok(&json!({"prompt": "once", "max_tokens": 40, "seed": seed}))["choices"][0]["text"].clone()
    };
    assert_eq!(text(json!(5)), text(json!(5)));
    assert_ne!(text(json!(5)), text(json!(6)));
    assert_ne!(text(Value::Null), text(Value::Null));
}

#[test]
fn the_smallest_temperatures_and_shares_take_the_likeliest_token() {
    let test = TestServer::new();
    let text = |more: Value| {
        let mut body = json!({"prompt": "once", "max_tokens": 10, "seed": 3});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        test.ok(&body)["choices"][0]["text"].clone()
    };
    let want = text(json!({"temperature": 0}));
    for least in [1e-46, 1e-310, 1e-40] {
        assert_eq!(text(json!({"top_p": least})), want);
        assert_eq!(text(json!({"temperature": least})), want);
    }
}

#[test]
fn echo_without_a_token_more_and_with_several() {
    let test = TestServer::new();
    let none = test.ok(&json!({"prompt": "once", "max_tokens": 0, "echo": true, "logprobs": 2}));
    assert_eq!(
        (
            none["choices"][0]["text"].as_str(),
            none["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len()
        ),
        (Some("once"), 3)
    );
    let tops = none["choices"][0]["logprobs"]["top_logprobs"][2].as_object().unwrap();
    let own = &none["choices"][0]["logprobs"]["token_logprobs"][2];
    let better = tops.values().filter(|v| v.as_f64() > own.as_f64()).count();
    assert_eq!(tops.len(), 2 + usize::from(better == 2), "two, and the token of the place");
    let more =
        test.ok(&json!({"prompt": "once", "max_tokens": 5, "echo": true, "temperature": 0, "logprobs": 1}));
    let plain = test.ok(&json!({"prompt": "once", "max_tokens": 5, "temperature": 0}));
    assert_eq!(
        more["choices"][0]["text"].as_str().unwrap(),
        format!("once{}", plain["choices"][0]["text"].as_str().unwrap())
    );
    let written = more["usage"]["completion_tokens"].as_u64().unwrap() as usize;
    assert_eq!(more["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 3 + written);
}

#[test]
fn a_prompt_one_longer_than_the_context_is_scored_and_a_longer_one_refused() {
    let test = TestServer::new();
    for n in [CONTEXT, CONTEXT + 1] {
        let answer = test.ok(&loglikelihood(json!([vec![9; n]])));
        assert_eq!(answer["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().len(), n + 1);
        assert!(
            floats(&answer["choices"][0]["logprobs"]["token_logprobs"])[1..]
                .iter()
                .all(|v| v.is_some_and(f64::is_finite))
        );
    }
    let (status, error) = test.post(&loglikelihood(json!([vec![9; CONTEXT + 2]])));
    assert_eq!((status, error["error"]["code"].as_str()), (400, Some("context_length_exceeded")));
    assert_eq!(test.post(&json!({"prompt": vec![9; CONTEXT + 1], "max_tokens": 1})).0, 400);
}

#[test]
fn wrong_requests_are_told_what_is_wrong() {
    let test = TestServer::new();
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
        let (status, answer) = test.post(&body);
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
        let (status, answer) = test.send("POST", "/v1/completions", body, None);
        assert_eq!(status, 400, "{body}");
        assert!(answer["error"]["message"].as_str().is_some_and(|m| !m.is_empty()));
    }
    assert_eq!(test.send("GET", "/none", "", None).0, 404);
    assert_eq!(test.send("GET", "/v1/completions", "", None).0, 405);
    test.is_well();
}

#[test]
fn the_tokenizer_routes_are_those_of_the_harness() {
    let test = TestServer::new();
    let info = test.send("GET", "/tokenizer_info", "", None).1;
    assert_eq!(
        info,
        json!({"eos_token": "</s>", "bos_token": "<s>", "pad_token": null, "chat_template": null})
    );
    let tokens = |text: &str| {
        test.send(
            "POST",
            "/tokenize",
            &json!({"prompt": text, "add_special_tokens": false}).to_string(),
            None,
        )
        .1["tokens"]
            .clone()
    };
    assert_eq!(tokens("</s>"), json!([1]));
    assert_eq!(tokens("the ü"), json!(test.tokenizer.encode("the ü").unwrap()));
    let text = test.send("POST", "/detokenize", &json!({"tokens": tokens("the ü")}).to_string(), None).1;
    assert_eq!(text, json!({"prompt": "the ü"}));
    assert_eq!(test.send("POST", "/tokenize", "{}", None).0, 400);
    let models = test.send("GET", "/v1/models", "", None).1;
    assert_eq!(
        (models["data"][0]["id"].as_str(), models["data"][0]["max_model_len"].as_u64()),
        (Some("pico"), Some(CONTEXT as u64))
    );
    for (path, want) in [("pico", 200), ("x/y", 404), ("%ff", 400), ("%", 404)] {
        let (status, answer) = test.send("GET", &format!("/v1/models/{path}"), "", None);
        assert_eq!((status, answer["error"]["message"].is_string()), (want, want != 200), "{path}: {answer}");
    }
}

#[test]
fn a_key_is_asked_for_everywhere_but_at_health() {
    let test = TestServer::with(|o| o.api_key = Some("secret".into()));
    for path in ["/v1/models", "/tokenizer_info", "/none"] {
        assert_eq!(test.send("GET", path, "", None).0, 401, "{path}");
        assert_eq!(test.send("GET", path, "", Some("Secret")).0, 401);
    }
    assert_eq!(test.send("GET", "/v1/models", "", Some("secret")).0, 200);
    for (value, want) in [
        ("bearer secret", 200),
        ("BEARER   secret ", 200),
        ("Basic secret", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("secret", 401),
        ("Bearer secre\u{e9}", 401),
    ] {
        let head = format!("authorization: {value}\r\n");
        assert_eq!(test.send_with("GET", "/v1/models", "", &head).0, want, "{value}");
    }
    assert_eq!(test.send("GET", "/health", "", None).0, 200);
    assert_eq!(test.send("POST", "/v1/completions", "{\"prompt\": \"a\"}", None).0, 401);
}

#[test]
fn clients_at_once_get_what_each_gets_alone() {
    let test = TestServer::new();
    let bodies: Vec<Value> = (0..12u32)
        .map(|i| match i % 2 {
            0 => loglikelihood(json!([vec![5 + i; 10], vec![9; 20]])),
            _ => json!({"prompt": [5 + i, 8], "max_tokens": 20, "temperature": 1, "seed": i}),
        })
        .collect();
    let alone: Vec<Value> = bodies.iter().map(|b| test.ok(b)["choices"].clone()).collect();
    let together: Vec<Value> = std::thread::scope(|scope| {
        let each: Vec<_> = bodies.iter().map(|b| scope.spawn(|| test.ok(b)["choices"].clone())).collect();
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
    assert_eq!(test.server.served(), 2 * (6 * 2 + 6));
}

#[test]
fn an_address_in_use_is_an_error() {
    let test = TestServer::new();
    let port = test.server.address().port();
    let error = test.again(|o| o.port = port).err().unwrap();
    assert!(error.what.contains("cannot listen"), "{error}");
}
