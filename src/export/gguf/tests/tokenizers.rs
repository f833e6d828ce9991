//! Which of llama.cpp's tokenizers a tokenizer.json is, and what is refused.

use std::collections::BTreeMap;

use rand::RngExt;
use serde_json::{Value as Json, json};

use super::super::tokenizer::metadata;
use crate::base::{Kind, Result, rng};
use crate::model::Source;
use crate::model::pico::Pico;

use super::super::file::Metadata;

/// The keys of a tiny model whose tokenizer.json is changed.
fn keys(change: impl FnOnce(&mut Json)) -> Result<Metadata> {
    with_files(change, &[])
}

fn with_files(change: impl FnOnce(&mut Json), files: &[(&str, &[u8])]) -> Result<Metadata> {
    let dir = tempfile::tempdir().unwrap();
    let pico = Pico { vocabulary: 272, ..Pico::of_bytes(64) };
    pico.write(dir.path(), 1).unwrap();
    let path = dir.path().join("tokenizer.json");
    let mut json: Json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(&path, json.to_string()).unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    metadata(&Source::folder(dir.path()).unwrap(), &pico.config().unwrap())
}

fn value(keys: &Metadata, name: &str) -> String {
    let found = keys.iter().find(|(key, _)| key == &format!("tokenizer.{name}"));
    format!("{:?}", found.map(|(_, value)| value))
}

fn split(pattern: &str) -> Json {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
    ]})
}

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

#[test]
fn known_ways_to_cut_have_their_names() {
    let pre = |change: &dyn Fn(&mut Json)| value(&keys(|json| change(json)).unwrap(), "ggml.pre");
    assert!(pre(&|_| {}).contains("gpt-2"));
    let digits = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": true},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    ]});
    assert!(pre(&|json| json["pre_tokenizer"] = digits.clone()).contains("smollm"));
    let llama = |json: &mut Json| {
        json["pre_tokenizer"] = split(LLAMA_3);
        json["model"]["ignore_merges"] = json!(true);
    };
    assert!(pre(&llama).contains("llama-bpe"));
    let qwen = |json: &mut Json| {
        json["pre_tokenizer"] = split(&LLAMA_3.replace("{1,3}", ""));
        json["normalizer"] = json!({"type": "NFC"});
    };
    assert!(pre(&qwen).contains("qwen2"));
}

/// A change of tokenizer.json.
type Change<'a> = &'a dyn Fn(&mut Json);

#[test]
fn what_no_name_stands_for_is_refused() {
    let changes: [(&str, Change); 8] = [
        ("its pre_tokenizer is null", &|json| json["pre_tokenizer"] = Json::Null),
        ("cuts texts by", &|json| json["pre_tokenizer"] = split(r"\p{N}{1,2}")),
        ("ignore_merges", &|json| json["pre_tokenizer"] = split(LLAMA_3)),
        ("ignore_merges", &|json| json["model"]["ignore_merges"] = json!(true)),
        ("normalizer", &|json| json["normalizer"] = json!({"type": "NFKC"})),
        ("normalizer", &|json| json["normalizer"] = json!({"type": "NFC"})),
        ("pre_tokenizer", &|json| json["pre_tokenizer"]["add_prefix_space"] = json!(true)),
        ("its model is", &|json| json["model"]["type"] = json!("WordLevel")),
    ];
    for (part, change) in changes {
        let e = keys(|json| change(json)).unwrap_err();
        assert!(e.kind == Kind::Data && e.what.contains(part), "{part}: {e}");
        assert!(e.hint.unwrap().contains("--gguf-base"));
    }
}

#[test]
fn tokens_have_their_kinds_and_holes_are_filled() {
    let keys = keys(|json| {
        let added = json!({"id": 270, "content": " as is ", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false});
        json["added_tokens"].as_array_mut().unwrap().push(added);
    })
    .unwrap();
    let tokens = value(&keys, "ggml.tokens");
    assert!(tokens.starts_with("Some(Array([String(\"<s>\"), String(\"</s>\"), String(\"Ā\")"), "{tokens}");
    assert!(tokens.ends_with("String(\" as is \"), String(\"[PAD271]\")]))"), "{tokens}");
    let kinds = value(&keys, "ggml.token_type");
    assert!(kinds.starts_with("Some(Array([I32(3), I32(3), I32(1)") && kinds.ends_with("I32(4), I32(5)]))"));
    assert!(value(&keys, "ggml.merges").starts_with("Some(Array([String(\"Ġ t\")"));
    assert_eq!(value(&keys, "ggml.bos_token_id"), "Some(U32(0))");
    assert_eq!(value(&keys, "ggml.eos_token_id"), "Some(U32(1))");
    assert_eq!(value(&keys, "ggml.add_bos_token"), "Some(Bool(false))");
    assert_eq!(value(&keys, "chat_template"), "None");
}

#[test]
fn the_processor_says_whether_a_text_gets_a_first_token_and_settings_how_chats_are_written() {
    let template = json!({"type": "TemplateProcessing", "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]});
    let level =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
    let both = json!({"type": "Sequence", "processors": [level, template]});
    let settings =
        json!({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "chat_template": "{{ x }}"});
    let settings = settings.to_string();
    let files: [(&str, &[u8]); 1] = [("tokenizer_config.json", settings.as_bytes())];
    for processor in [template, both] {
        let keys = with_files(|json| json["post_processor"] = processor, &files).unwrap();
        assert_eq!(value(&keys, "ggml.add_bos_token"), "Some(Bool(true))");
        assert_eq!(value(&keys, "ggml.padding_token_id"), "Some(U32(1))");
        assert_eq!(value(&keys, "chat_template"), "Some(String(\"{{ x }}\"))");
    }
}

/// A tokenizer of sentencepiece's kind: three special tokens, 256 bytes, characters, joins.
fn pieces(merges: &[(&str, &str)]) -> impl Fn(&mut Json) {
    let mut pieces: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    pieces.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    pieces.extend(["\u{2581}", "a", "b"].map(String::from));
    let mut joined: Vec<String> = merges.iter().map(|(left, right)| format!("{left}{right}")).collect();
    joined.dedup();
    pieces.extend(joined);
    let merges: Vec<String> = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
    move |json| {
        let vocabulary: serde_json::Map<String, Json> =
            pieces.iter().enumerate().map(|(id, piece)| (piece.clone(), json!(id))).collect();
        let special = |id: usize| json!({"id": id, "content": pieces[id], "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
        json["added_tokens"] = json!([special(0), special(1), special(2)]);
        json["normalizer"] = json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        ]});
        json["pre_tokenizer"] = Json::Null;
        json["decoder"] = Json::Null;
        json["model"] = json!({"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocabulary, "merges": merges});
    }
}

const S: &str = "\u{2581}";

#[test]
fn joins_in_the_order_of_pieces_become_scores() {
    let keys = keys(pieces(&[("a", "b"), (S, "ab"), (S, "a"), ("\u{2581}a", "b")])).map(drop);
    assert!(keys.unwrap_err().what.contains("merges are not in the order"), "▁ab comes twice");
    let keys =
        super::tokenizers::keys(pieces(&[("a", "b"), (S, "a"), (S, "ab"), ("\u{2581}a", "b")])).unwrap();
    assert_eq!(value(&keys, "ggml.model"), "Some(String(\"llama\"))");
    assert_eq!(value(&keys, "ggml.add_space_prefix"), "Some(Bool(true))");
    let scores = value(&keys, "ggml.scores");
    assert!(scores.contains("F32(-1000.0), F32(-0.0), F32(-1.0), F32(-2.0), F32(-1000.0)"), "{scores}");
    let kinds = value(&keys, "ggml.token_type");
    assert!(kinds.starts_with("Some(Array([I32(2), I32(3), I32(3), I32(6)"), "{kinds}");
    assert_eq!(value(&keys, "ggml.unknown_token_id"), "Some(U32(0))");
}

/// The pieces of a text whose neighbours are joined one pair at a time, that of the lowest rank first and of equals
/// the left one.
fn joined(text: &str, rank: impl Fn(&str, &str) -> Option<usize>) -> Vec<String> {
    let mut parts: Vec<String> = text.chars().map(String::from).collect();
    loop {
        let ranked = (1..parts.len()).filter_map(|i| Some((rank(&parts[i - 1], &parts[i])?, i)));
        let Some((_, right)) = ranked.min() else { return parts };
        let part = parts.remove(right);
        parts[right - 1].push_str(&part);
    }
}

/// Joins of a few random pieces of two letters, each in every way that there is, in random order.
fn random_joins(rng: &mut impl RngExt) -> Vec<(String, String)> {
    let mut all = vec!["a".to_string(), "b".to_string()];
    for _ in 0..rng.random_range(3..9) {
        let [left, right] = [0; 2].map(|_| all[rng.random_range(0..all.len())].as_str());
        let piece = [left, right].concat();
        if piece.len() < 7 && !all.contains(&piece) {
            all.push(piece);
        }
    }
    let mut joins = Vec::new();
    for piece in &all[2..] {
        let ways = (1..piece.len()).map(|at| piece.split_at(at));
        let known = |part: &str| all.iter().any(|piece| piece == part);
        let mut ways: Vec<_> = ways.filter(|(left, right)| known(left) && known(right)).collect();
        while !ways.is_empty() {
            let (left, right) = ways.swap_remove(rng.random_range(0..ways.len()));
            joins.push((left.to_string(), right.to_string()));
        }
    }
    joins
}

#[test]
fn one_score_for_all_joins_of_a_piece_cuts_texts_as_their_order_does() {
    let mut rng = rng::stream(11, "joins");
    let (mut several, mut joins_made) = (0, 0);
    for _ in 0..400 {
        let joins = random_joins(&mut rng);
        let listed: Vec<(&str, &str)> = joins.iter().map(|(l, r)| (l.as_str(), r.as_str())).collect();
        let given = keys(pieces(&listed)).unwrap();
        let found = |name: &str| {
            let (_, value) = given.iter().find(|(key, _)| key == &format!("tokenizer.ggml.{name}")).unwrap();
            value.to_vec().unwrap().clone()
        };
        let scores: BTreeMap<String, f32> = found("tokens")
            .iter()
            .zip(found("scores"))
            .map(|(token, score)| (token.to_string().unwrap().clone(), score.to_f32().unwrap()))
            .collect();
        let place = |left: &str, right: &str| listed.iter().position(|join| *join == (left, right));
        // llama.cpp joins whatever gives a piece.
        let score = |left: &str, right: &str| Some(-scores.get(&format!("{left}{right}"))? as usize);
        several +=
            listed.windows(2).filter(|w| [w[0].0, w[0].1].concat() == [w[1].0, w[1].1].concat()).count();
        for _ in 0..40 {
            let length = rng.random_range(2..16);
            let text: String = (0..length).map(|_| if rng.random() { 'a' } else { 'b' }).collect();
            let cut = joined(&text, place);
            assert_eq!(joined(&text, score), cut, "{text} by {listed:?}");
            joins_made += text.len() - cut.len();
        }
    }
    assert!(several > 400 && joins_made > 40_000, "{several} {joins_made}");
}

#[test]
fn a_join_that_is_not_listed_is_refused() {
    let e = keys(pieces(&[("a", "b"), (S, "a"), (S, "ab")])).unwrap_err();
    assert!(e.what.contains("tokenizer.model is not there"), "{e}");
}

/// A message of sentencepiece with these pieces.
fn model(pieces: &[(&str, f32)]) -> Vec<u8> {
    let one = |(piece, score): &(&str, f32)| {
        let mut inner = vec![0x0a, piece.len() as u8];
        inner.extend(piece.as_bytes());
        inner.push(0x15);
        inner.extend(score.to_le_bytes());
        inner.extend([0x18, 1]);
        let mut outer = vec![0x0a, inner.len() as u8];
        outer.extend(inner);
        outer
    };
    // A trainer's settings follow the pieces.
    pieces.iter().flat_map(one).chain([0x12, 2, 0x18, 2]).collect()
}

#[test]
fn scores_come_from_sentencepieces_own_file() {
    let merges = [("a", "b"), (S, "a"), (S, "ab")];
    let file = model(&[("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("<0x00>", -7.5)]);
    let keys = with_files(pieces(&merges), &[("tokenizer.model", &file)]).unwrap();
    let scores = value(&keys, "ggml.scores");
    assert!(
        scores.starts_with("Some(Array([F32(0.0), F32(0.0), F32(0.0), F32(-7.5), F32(-1000.0)"),
        "{scores}"
    );
    let other = model(&[("<pad>", 0.0)]);
    let e = with_files(pieces(&merges), &[("tokenizer.model", &other)]).unwrap_err();
    assert!(e.what.contains("<pad>") && e.what.contains("<unk>"), "{e}");
    let e = with_files(pieces(&merges), &[("tokenizer.model", b"\x0a\xff")]).unwrap_err();
    assert!(e.what.contains("not a sentencepiece model"), "{e}");
}
