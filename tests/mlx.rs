//! Exported folders in MLX-LM itself, where a Python has it (PyPI: mlx-lm, and mlx[cpu] on Linux).
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod runtimes_support;

use runtimes_support::{BUILTIN_CUT, Subject, TEXTS, answers, apart, python, tiny_cuts};
use serde_json::{Value, json};
use tyr::export::runtimes::MLX;
use tyr::spec::{Form, Quantisation};

/// Largest difference of log-probabilities that 32-bit sums in another order make.
const CLOSE: f64 = 1e-4;

#[test]
fn every_shape_gives_our_log_probabilities() {
    let Some(python) = python("mlx_lm") else { return };
    let dir = tempfile::tempdir().unwrap();
    let tokens: Vec<u32> = (0..24).map(|i| (i * 37 + 5) % 270).collect();
    let mut subjects = Vec::new();
    for tied in [true, false] {
        let base = Subject::tiny(&dir.path().join(format!("base-{tied}")), 1, |pico| pico.tied = tied);
        for (name, keep) in tiny_cuts() {
            let folder = dir.path().join(format!("{name}-{tied}"));
            let cut = base.cut(&keep, &folder.join("model"));
            cut.export(Form::Mlx, Quantisation::Auto, &folder.join("out"));
            subjects.push((name, cut, folder));
        }
    }
    let request = |(_, _, folder): &(&str, Subject, std::path::PathBuf)| json!({"model": folder.join("out"), "sequences": [tokens], "logprobs": folder.join("rows"), "prompt": tokens, "greedy": 6});
    let requests: Vec<Value> = subjects.iter().map(request).collect();
    let found = answers(&python, MLX, &requests, dir.path());
    for ((name, subject, folder), answer) in subjects.iter().zip(&found) {
        let difference = apart(subject, &tokens, &folder.join("rows"));
        println!("{name}: {difference:.1e}");
        assert!(difference < CLOSE, "{name}: {difference}");
        let greedy: Vec<u32> = serde_json::from_value(answer["greedy"].clone()).unwrap();
        let ours = subject.greedy(&tokens, 6);
        assert_eq!(greedy[..ours.len()], ours, "{name}");
    }
}

#[test]
fn the_built_in_model_reads_and_writes_as_here() {
    let Some(python) = python("mlx_lm") else { return };
    let dir = tempfile::tempdir().unwrap();
    let dense = Subject::builtin();
    let cut = dense.cut(&BUILTIN_CUT, &dir.path().join("cut"));
    let text = tyr::builtin::text(tyr::builtin::Split::Evaluation, 600);
    let tokens: Vec<u32> =
        dense.bos.into_iter().chain(dense.tokenizer.encode(&text).unwrap()).take(24).collect();
    let requests: Vec<Value> = [&dense, &cut]
        .iter()
        .enumerate()
        .map(|(i, subject)| {
            let out = dir.path().join(i.to_string());
            subject.export(Form::Mlx, Quantisation::Auto, &out);
            let rows = out.join("rows");
            json!({"model": out, "sequences": [tokens], "logprobs": rows, "prompt": tokens, "greedy": 8, "texts": TEXTS, "float32": true})
        })
        .collect();
    let found = answers(&python, MLX, &requests, dir.path());
    for (i, (subject, answer)) in [&dense, &cut].iter().zip(&found).enumerate() {
        let difference = apart(subject, &tokens, &dir.path().join(i.to_string()).join("rows"));
        let greedy: Vec<u32> = serde_json::from_value(answer["greedy"].clone()).unwrap();
        println!("{difference:.1e}, perplexity {}: {}", answer["perplexity"], answer["text"]);
        assert!(difference < CLOSE, "{difference}");
        assert_eq!(greedy, subject.greedy(&tokens, 8));
        for (text, theirs) in TEXTS.iter().zip(answer["tokens"].as_array().unwrap()) {
            let encoded = subject.tokenizer.encode(text).unwrap();
            let ours: Vec<u32> = subject.bos.into_iter().chain(encoded).collect();
            assert_eq!(*theirs, json!(ours), "{text:?}");
        }
    }
}
