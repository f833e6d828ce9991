//! Exported GGUF files in llama.cpp itself, where a Python has it (PyPI: xllamacpp, gguf).
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod runtimes_support;

use std::path::Path;

use runtimes_support::{BUILTIN_CUT, Subject, TEXTS, answers, apart, python, tiny_cuts};
use serde_json::{Value, json};
use tyr::export::runtimes::LLAMA_CPP;
use tyr::model::families::QWEN2;
use tyr::spec::{Form, Quantisation};

/// Largest difference of log-probabilities that 32-bit sums in another order make.
const CLOSE: f64 = 1e-4;

/// The file that an export wrote.
fn file(subject: &Subject, quantisation: Quantisation, out: &Path) -> std::path::PathBuf {
    let exported = subject.export(Form::Gguf, quantisation, out);
    out.join(&exported.files[0])
}

fn tokens_of(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect()
}

#[test]
fn every_shape_gives_our_log_probabilities() {
    let Some(python) = python("xllamacpp") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut subjects = Vec::new();
    let mut seed = 1;
    let mut add = |name: &str, base: &Subject, keep: &_| {
        let folder = dir.path().join(format!("{}-{name}", subjects.len()));
        let cut = base.cut(keep, &folder.join("model"));
        subjects.push((name.to_string(), cut, folder));
    };
    for (bias, tied) in [(false, true), (true, false)] {
        let base =
            Subject::tiny(&dir.path().join(format!("base{seed}")), seed, |p| (p.bias, p.tied) = (bias, tied));
        tiny_cuts().iter().for_each(|(name, keep)| add(name, &base, keep));
        seed += 1;
    }
    let qwen = Subject::tiny(&dir.path().join("qwen"), seed, |pico| pico.family = &QWEN2);
    tiny_cuts()[..3].iter().for_each(|(name, keep)| add(name, &qwen, keep));
    let tokens: Vec<u32> = (0..12).map(|i| (i * 37 + 5) % 270).collect();
    let requests: Vec<Value> = subjects
        .iter()
        .map(|(_, subject, folder)| {
            let model = file(subject, Quantisation::F32, &folder.join("out"));
            json!({"model": model, "sequences": [tokens], "logprobs": folder.join("rows")})
        })
        .collect();
    let found = answers(&python, LLAMA_CPP, &requests, dir.path());
    for ((name, subject, folder), answer) in subjects.iter().zip(&found) {
        let own = subject.perplexity(&tokens);
        assert!((answer["perplexity"].as_f64().unwrap() / own - 1.0).abs() < 1e-4, "{name}");
        let difference = apart(subject, &tokens, &folder.join("rows"));
        println!("{name} {:?}: {difference:.1e}", subject.model.config().biases);
        assert!(difference < CLOSE, "{name}: {difference}");
    }
}

#[test]
fn the_built_in_model_reads_and_writes_as_here() {
    let Some(python) = python("xllamacpp") else { return };
    let dir = tempfile::tempdir().unwrap();
    let dense = Subject::builtin();
    let cut = dense.cut(&BUILTIN_CUT, &dir.path().join("cut"));
    let text = tyr::builtin::text(tyr::builtin::Split::Evaluation, 600);
    let tokens: Vec<u32> =
        dense.bos.into_iter().chain(dense.tokenizer.encode(&text).unwrap()).take(40).collect();
    let cases = [(&dense, Quantisation::F32), (&cut, Quantisation::F32), (&cut, Quantisation::Q8_0)];
    let requests: Vec<Value> = cases
        .iter()
        .enumerate()
        .map(|(i, (subject, quantisation))| {
            let out = dir.path().join(i.to_string());
            let model = file(subject, *quantisation, &out);
            json!({"model": model, "sequences": [tokens], "logprobs": out.join("rows"), "prompt": tokens, "greedy": 12, "texts": TEXTS})
        })
        .collect();
    let found = answers(&python, LLAMA_CPP, &requests, dir.path());
    for (i, ((subject, quantisation), answer)) in cases.iter().zip(&found).enumerate() {
        let own = subject.perplexity(&tokens);
        let theirs = answer["perplexity"].as_f64().unwrap();
        let difference = apart(subject, &tokens, &dir.path().join(i.to_string()).join("rows"));
        println!(
            "{quantisation:?}: {difference:.1e}, perplexity {own:.4} and {theirs:.4}: {}",
            answer["text"]
        );
        for (text, theirs) in TEXTS.iter().zip(answer["tokens"].as_array().unwrap()) {
            let encoded = subject.tokenizer.encode(text).unwrap();
            let ours: Vec<u32> = subject.bos.into_iter().chain(encoded).collect();
            assert_eq!(tokens_of(theirs), ours, "{text:?}");
        }
        if *quantisation == Quantisation::F32 {
            assert!(difference < CLOSE, "{difference}");
            let greedy = subject.greedy(&tokens, 12);
            assert_eq!(tokens_of(&answer["greedy"]), greedy);
            assert_eq!(answer["text"].as_str().unwrap(), subject.tokenizer.decode(&greedy).unwrap());
        } else {
            assert!((own / theirs).ln().abs() < 0.05, "{own} {theirs}");
        }
    }
}
