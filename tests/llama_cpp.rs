//! Exported GGUF files in llama.cpp itself, where a Python has it (PyPI: xllamacpp, gguf).
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod runtimes_support;

use std::collections::BTreeMap;
use std::path::Path;

use runtimes_support::{BUILTIN_CUT, Subject, TEXTS, answers, apart, python, tiny_cuts};
use serde_json::{Value, json};
use tyr::export::runtimes::LLAMA_CPP;
use tyr::model::Source;
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
        dense.bos.into_iter().chain(dense.tokenizer.encode(&text).unwrap()).take(16).collect();
    let quantised = [
        Quantisation::F16,
        Quantisation::Bf16,
        Quantisation::Q8_0,
        Quantisation::Q4_0,
        Quantisation::Q4K,
        Quantisation::Q6K,
    ];
    let cases: Vec<_> = [(&dense, Quantisation::F32), (&cut, Quantisation::F32)]
        .into_iter()
        .chain(quantised.map(|q| (&cut, q)))
        .collect();
    let requests: Vec<Value> = cases
        .iter()
        .enumerate()
        .map(|(i, (subject, quantisation))| {
            let out = dir.path().join(i.to_string());
            let model = file(subject, *quantisation, &out);
            let mut request = json!({"model": model, "sequences": [tokens]});
            if *quantisation == Quantisation::F32 {
                let more =
                    json!({"logprobs": out.join("rows"), "prompt": tokens, "greedy": 8, "texts": TEXTS});
                request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            }
            request
        })
        .collect();
    let found = answers(&python, LLAMA_CPP, &requests, dir.path());
    for (i, ((subject, quantisation), answer)) in cases.iter().zip(&found).enumerate() {
        let own = subject.perplexity(&tokens);
        let theirs = answer["perplexity"].as_f64().unwrap();
        println!("{quantisation:?}: perplexity {own:.4} and {theirs:.4}: {}", answer["text"]);
        let out = dir.path().join(i.to_string());
        match quantisation {
            Quantisation::F32 => assert_same(subject, &tokens, answer, &out),
            _ => assert_read_the_same(subject, &tokens, theirs, &out),
        }
    }
}

/// Log-probabilities, tokens of texts and greedy text are ours.
fn assert_same(subject: &Subject, tokens: &[u32], answer: &Value, out: &Path) {
    let difference = apart(subject, tokens, &out.join("rows"));
    println!("{difference:.1e}");
    assert!(difference < CLOSE, "{difference}");
    let greedy = subject.greedy(tokens, 8);
    assert_eq!(tokens_of(&answer["greedy"]), greedy);
    assert_eq!(answer["text"].as_str().unwrap(), subject.tokenizer.decode(&greedy).unwrap());
    assert_eq!(answer["tokens"].as_array().unwrap().len(), TEXTS.len());
    for (text, theirs) in TEXTS.iter().zip(answer["tokens"].as_array().unwrap()) {
        let encoded = subject.tokenizer.encode(text).unwrap();
        let ours: Vec<u32> = subject.bos.into_iter().chain(encoded).collect();
        assert_eq!(tokens_of(theirs), ours, "{text:?}");
    }
}

/// The perplexity is that of the file as we read it; llama.cpp rounds activations, too, where weights are small.
fn assert_read_the_same(subject: &Subject, tokens: &[u32], theirs: f64, out: &Path) {
    let read = tyr::export::read_back(Form::Gguf, out, &out.join("read")).unwrap();
    let found = tyr::export::parity(&subject.model, &read, &[tokens]).unwrap();
    println!("as read back here: {found:?}");
    assert!((found.perplexity[1] / theirs).ln().abs() < 0.02, "{found:?} {theirs}");
}

/// A tiny model with this tokenizer.
fn with_tokenizer(tokenizer: &Value, vocabulary: usize, folder: &Path) -> Subject {
    Subject::tiny(folder, 3, |pico| pico.vocabulary = vocabulary);
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    Subject::open(Source::folder(folder).unwrap())
}

/// What llama.cpp's tokenizer makes of texts.
fn assert_same_tokens(python: &Path, named: &[(&str, Subject)], dir: &Path) {
    let request = |(name, subject): &(&str, Subject)| {
        let model = file(subject, Quantisation::F32, &dir.join(format!("{name}-out")));
        json!({"model": model, "texts": TEXTS})
    };
    let requests: Vec<Value> = named.iter().map(request).collect();
    let found = answers(python, LLAMA_CPP, &requests, dir);
    for ((name, subject), answer) in named.iter().zip(&found) {
        for (text, theirs) in TEXTS.iter().zip(answer["tokens"].as_array().unwrap()) {
            assert_eq!(tokens_of(theirs), subject.tokenizer.encode(text).unwrap(), "{name} {text:?}");
        }
    }
}

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The built-in vocabulary under every way to cut that has a name in llama.cpp.
#[test]
fn byte_level_tokenizers_cut_as_here() {
    let Some(python) = python("xllamacpp") else { return };
    let dir = tempfile::tempdir().unwrap();
    let builtin = Source::resolve("builtin:quickstart").unwrap().text("tokenizer.json").unwrap();
    let level = |cuts: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": cuts});
    let sequence =
        |first: Value, cuts: bool| json!({"type": "Sequence", "pretokenizers": [first, level(cuts)]});
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let cases = [
        ("gpt-2", level(true), false),
        ("smollm", sequence(json!({"type": "Digits", "individual_digits": true}), true), false),
        ("llama-bpe", sequence(split(LLAMA_3), false), true),
        ("qwen2", sequence(split(&LLAMA_3.replace("{1,3}", "")), false), false),
        ("tekken", sequence(split(TEKKEN), false), true),
    ];
    let subjects = cases.map(|(name, cutter, ignore_merges)| {
        let mut tokenizer: Value = serde_json::from_str(&builtin).unwrap();
        tokenizer["pre_tokenizer"] = cutter;
        tokenizer["post_processor"] = Value::Null;
        tokenizer["model"]["ignore_merges"] = json!(ignore_merges);
        (name, with_tokenizer(&tokenizer, 4096, &dir.path().join(name)))
    });
    assert_same_tokens(&python, &subjects, dir.path());
}

/// A vocabulary as sentencepiece makes one: every way to join a piece is listed, in the order of the pieces.
fn pieces(text: &str, joins: usize) -> Value {
    let mut words: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    let spaced = format!("\u{2581}{}", text.replace(' ', "\u{2581}"));
    for word in spaced.split_inclusive('\n').flat_map(|line| line.split('\u{2581}')) {
        *words.entry(format!("\u{2581}{word}").chars().map(String::from).collect()).or_default() += 1;
    }
    let mut all: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    all.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let characters: std::collections::BTreeSet<&String> = words.keys().flatten().collect();
    let mut known: Vec<String> = characters.into_iter().cloned().collect();
    for _ in 0..joins {
        let mut pairs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (word, count) in &words {
            word.windows(2).for_each(|pair| *pairs.entry((&pair[0], &pair[1])).or_default() += count);
        }
        let Some(((left, right), _)) =
            pairs.into_iter().max_by_key(|(pair, count)| (*count, std::cmp::Reverse(*pair)))
        else {
            break;
        };
        let piece = format!("{left}{right}");
        let joined = |word: Vec<String>| {
            word.into_iter().fold(Vec::new(), |mut done: Vec<String>, next| {
                match done.last_mut() {
                    Some(last) if format!("{last}{next}") == piece => last.push_str(&next),
                    _ => done.push(next),
                }
                done
            })
        };
        let next: Vec<_> = words.iter().map(|(word, count)| (joined(word.clone()), *count)).collect();
        words = BTreeMap::new();
        next.into_iter().for_each(|(word, count)| *words.entry(word).or_default() += count);
        if !known.contains(&piece) {
            known.push(piece);
        }
    }
    let listed = |piece: &String| {
        let cuts = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
        let known = |part: &str| known.iter().any(|k| k == part);
        cuts.filter(|(left, right)| known(left) && known(right))
            .map(|(l, r)| json!([l, r]))
            .collect::<Vec<_>>()
    };
    let merges: Vec<Value> = known.iter().flat_map(listed).collect();
    all.extend(known.iter().cloned());
    let vocabulary: serde_json::Map<String, Value> =
        all.iter().enumerate().map(|(id, p)| (p.clone(), json!(id))).collect();
    let special = |id: usize| json!({"id": id, "content": all[id], "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(0), special(1), special(2)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        ]},
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "vocab": vocabulary, "merges": merges},
    })
}

#[test]
fn sentencepieces_joins_are_made_as_here() {
    let Some(python) = python("xllamacpp") else { return };
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = pieces(&tyr::builtin::text(tyr::builtin::Split::Train, 20_000), 300);
    let count = tokenizer["model"]["vocab"].as_object().unwrap().len();
    let subject = with_tokenizer(&tokenizer, count, &dir.path().join("model"));
    assert_same_tokens(&python, &[("sentencepiece", subject)], dir.path());
}

/// Rotary embeddings that Llama 3 scales by divisors, and one that is stretched.
#[test]
fn scaled_rotary_embeddings_turn_as_here() {
    let Some(python) = python("xllamacpp") else { return };
    let dir = tempfile::tempdir().unwrap();
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32});
    let linear = json!({"rope_type": "linear", "factor": 4.0});
    let tokens: Vec<u32> = (0..40).map(|i| (i * 37 + 5) % 270).collect();
    let subjects = [("llama3", llama3), ("linear", linear)].map(|(name, scaling)| {
        let folder = dir.path().join(name);
        let plain = Subject::tiny(&folder, 5, |_| {}).logprobs(&tokens);
        let mut config: Value =
            serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        config["rope_scaling"] = scaling;
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
        let scaled = Subject::open(Source::folder(&folder).unwrap());
        let moved = plain
            .concat()
            .iter()
            .zip(scaled.logprobs(&tokens).concat())
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        assert!(moved > 0.01, "{name}: the scaling makes no difference");
        let cut = scaled.cut(
            &[(&[], 0..9), (&[0, 1, 2, 6], 0..20), (&[7, 4], 0..3)],
            &dir.path().join(format!("{name}-cut")),
        );
        (name, cut)
    });
    let request = |(name, subject): &(&str, Subject)| {
        let out = dir.path().join(format!("{name}-out"));
        json!({"model": file(subject, Quantisation::F32, &out), "sequences": [tokens], "logprobs": out.join("rows")})
    };
    let requests: Vec<Value> = subjects.iter().map(request).collect();
    answers(&python, LLAMA_CPP, &requests, dir.path());
    for (name, subject) in &subjects {
        let difference = apart(subject, &tokens, &dir.path().join(format!("{name}-out")).join("rows"));
        println!("{name}: {difference:.1e}");
        assert!(difference < CLOSE, "{name}: {difference}");
    }
}
