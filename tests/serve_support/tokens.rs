//! What a client reads of tokens: they join to the text, offsets point into it, and each place's own token is
//! found among its likeliest ones, whatever the tokenizer.

use serde_json::{Map, Value, json};

use super::serve_support::*;
use tyr::model::pico::bytes;

/// As of Llama 2: words begin with `▁`, unknown characters fall back to bytes, and decoding strips the first
/// space.
fn sentencepiece() -> Value {
    let pieces = ["▁", "t", "h", "e", "c", "a", "s", "th", "the", "▁the", "at", "cat", "▁cat", "sat", "▁sat"];
    let merges = ["t h", "th e", "▁ the", "a t", "c at", "▁ cat", "s at", "▁ sat"];
    let bytes = (0..256).map(|b| format!("<0x{b:02X}>"));
    let all = ["<unk>", "<s>", "</s>"].map(String::from).into_iter().chain(bytes);
    let all = all.chain(pieces.map(String::from));
    let vocabulary: Map<String, Value> = all.enumerate().map(|(id, token)| (token, json!(id))).collect();
    assert!(vocabulary.len() <= VOCABULARY);
    let special = |id: usize, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let replace =
        |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "pre_tokenizer": null, "post_processor": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")]},
        "decoder": {"type": "Sequence", "decoders": [replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"},
                                                     {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": vocabulary, "merges": merges},
    })
}

/// All tokens decode to the same letter.
fn all_alike() -> Value {
    let vocabulary: Map<String, Value> = (0..VOCABULARY).map(|id| (format!("a{id}"), json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "post_processor": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"Regex": "[0-9]+"}, "content": ""}, {"type": "Fuse"}]},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a0"},
    })
}

/// Loses what is written in capitals, and what it does not know.
fn lossy() -> Value {
    let mut tokenizer = bytes::tokenizer();
    tokenizer["normalizer"] =
        json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]});
    tokenizer
}

/// The choice of a whole answer, and the same put together from a stream.
fn both(test: &TestServer, body: &Value) -> [Value; 2] {
    let mut body = body.clone();
    let whole = test.ok(&body)["choices"][0].clone();
    body["stream"] = json!(true);
    let mut joined = json!({"text": "", "logprobs": {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}});
    for event in test.stream(&body) {
        let part = &event["choices"][0];
        let text = format!("{}{}", joined["text"].as_str().unwrap(), part["text"].as_str().unwrap());
        joined["text"] = json!(text);
        for (key, values) in part["logprobs"].as_object().unwrap() {
            let all = joined["logprobs"][key].as_array_mut().unwrap();
            all.extend(values.as_array().unwrap().iter().cloned());
        }
        let shown: usize = texts(&joined).iter().map(|t| t.len()).sum();
        assert!(shown <= text.len(), "a token was shown before its text");
    }
    [whole, joined]
}

fn texts(choice: &Value) -> Vec<&str> {
    choice["logprobs"]["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect()
}

/// Checks that tokens join to the text, that offsets point to them, and that each is among its likeliest
/// ones.
fn joins(choice: &Value) {
    let text = choice["text"].as_str().unwrap();
    let tokens = texts(choice);
    assert_eq!(tokens.concat(), text, "{choice}");
    let logprobs = &choice["logprobs"];
    let mut characters = 0;
    for (i, token) in tokens.iter().enumerate() {
        assert_eq!(logprobs["text_offset"][i], characters, "{choice}");
        characters += token.chars().count();
        if let Some(top) = logprobs["top_logprobs"][i].as_object() {
            assert_eq!(top[*token], logprobs["token_logprobs"][i], "{choice}");
        }
    }
    for key in ["text_offset", "token_logprobs", "top_logprobs"] {
        assert_eq!(logprobs[key].as_array().unwrap().len(), tokens.len(), "{key}");
    }
}

const TEXTS: [&str; 8] = [
    "the cat sat",
    " the cat",
    "  two  spaces ",
    "é€\u{1f600} cat",
    "a</s>b",
    "The CA\u{301}T",
    "t",
    "\n\tthe\u{fffd}",
];

#[test]
fn tokens_join_to_the_text_and_offsets_point_into_it() {
    for tokenizer in [None, Some(sentencepiece()), Some(lossy())] {
        let test = TestServer::of(tokenizer.as_ref(), |_| {});
        for (seed, text) in TEXTS.iter().enumerate() {
            let ids = test.tokenizer.encode(text).unwrap();
            for prompt in [json!(text), json!(ids)] {
                for (echo, max_tokens) in [(true, 0), (true, 1), (true, 30), (false, 30)] {
                    let body = json!({"prompt": prompt, "max_tokens": max_tokens, "echo": echo, "logprobs": 5, "seed": seed});
                    let [whole, streamed] = both(&test, &body);
                    joins(&whole);
                    for key in ["tokens", "text_offset"] {
                        assert_eq!(streamed["logprobs"][key], whole["logprobs"][key]);
                    }
                    joins(&streamed);
                    let echoed = if echo { prompt.as_str().unwrap_or_default() } else { "" };
                    assert!(whole["text"].as_str().unwrap().starts_with(echoed), "{whole}");
                    let greedy = json!({"prompt": prompt, "max_tokens": max_tokens, "echo": echo, "logprobs": 1, "temperature": 0});
                    both(&test, &greedy).iter().for_each(joins);
                }
            }
        }
    }
}

#[test]
fn texts_and_their_ids_have_the_same_tokens() {
    for tokenizer in [None, Some(sentencepiece())] {
        let test = TestServer::of(tokenizer.as_ref(), |_| {});
        for text in ["the cat sat", " the cat", "é€\u{1f600} cat"] {
            let ids = test.tokenizer.encode(text).unwrap();
            let tokens = |prompt: Value| {
                let body = json!({"prompt": prompt, "max_tokens": 0, "echo": true, "logprobs": 1});
                test.ok(&body)["choices"][0]["logprobs"]["tokens"].clone()
            };
            assert_eq!(tokens(json!(text)), tokens(json!(ids)), "{text}");
        }
    }
}

#[test]
fn words_and_bytes_of_sentencepiece_are_told_as_they_stand_in_the_text() {
    let test = TestServer::of(Some(&sentencepiece()), |_| {});
    let body = json!({"prompt": "the cat€", "max_tokens": 0, "echo": true, "logprobs": 1});
    let choice = &test.ok(&body)["choices"][0];
    assert_eq!(texts(choice), ["the", " cat", "", "", "€"]);
    assert_eq!(choice["logprobs"]["text_offset"], json!([0, 3, 7, 7, 7]));
}

#[test]
fn a_continuation_found_by_offsets_has_the_sum_of_its_tokens() {
    for tokenizer in [None, Some(sentencepiece())] {
        let test = TestServer::of(tokenizer.as_ref(), |_| {});
        let context = "the cat";
        let n = test.tokenizer.encode(context).unwrap().len();
        let body =
            json!({"prompt": "the cat sat", "max_tokens": 1, "echo": true, "logprobs": 1, "temperature": 0});
        let logprobs = &test.ok(&body)["choices"][0]["logprobs"];
        let offsets: Vec<u64> =
            logprobs["text_offset"].as_array().unwrap().iter().map(|o| o.as_u64().unwrap()).collect();
        assert_eq!(offsets.iter().position(|&o| o >= 7), Some(n), "{offsets:?}");
        assert!(logprobs["token_logprobs"][n].as_f64().unwrap() < 0.0);
    }
}

#[test]
fn what_a_stop_string_takes_from_the_text_it_takes_from_the_tokens() {
    for tokenizer in [None, Some(sentencepiece())] {
        let test = TestServer::of(tokenizer.as_ref(), |_| {});
        let mut stopped = 0;
        for seed in 0..20 {
            let mut body = json!({"prompt": "the cat", "max_tokens": 40, "logprobs": 2, "seed": seed});
            let free = test.ok(&body)["choices"][0]["text"].as_str().unwrap().to_string();
            let stop: String = free.chars().skip(5).take(3).collect();
            if stop.chars().count() < 3 {
                continue;
            }
            body["stop"] = json!([stop, "never seen"]);
            body["echo"] = json!(seed % 2 == 0);
            let [whole, streamed] = both(&test, &body);
            joins(&whole);
            joins(&streamed);
            assert_eq!(streamed["logprobs"]["tokens"], whole["logprobs"]["tokens"]);
            assert!(!whole["text"].as_str().unwrap().ends_with(&stop));
            stopped += usize::from(whole["finish_reason"] == "stop");
        }
        assert!(stopped > 10, "{stopped} of 20 were stopped");
    }
}

#[test]
fn tokens_that_share_a_text_are_told_apart_by_their_ids() {
    let test = TestServer::of(Some(&all_alike()), |_| {});
    let body = json!({"prompt": [5, 9, 80, 33], "max_tokens": 6, "echo": true, "logprobs": 5, "seed": 3});
    let choice = &test.ok(&body)["choices"][0];
    joins(choice);
    assert!(choice["text"].as_str().unwrap().chars().all(|c| c == 'a'));
    for top in &choice["logprobs"]["top_logprobs"].as_array().unwrap()[1..] {
        let top = top.as_object().unwrap();
        let others = top.keys().filter(|key| key.starts_with("token_id:")).count();
        assert!(top.len() == others + 1 && (4..=5).contains(&others), "{top:?}");
        let best: f64 = top.values().map(|v| v.as_f64().unwrap().exp()).sum();
        assert!(best < 1.0 + 1e-6, "{top:?}");
    }
}
