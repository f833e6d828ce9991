//! From text to ids: boundaries, BOS, empty contexts, truncation.

use super::{Bytes, decode};
use crate::base::Kind;
use crate::eval::document::{Context, Document};
use crate::eval::request::{Bos, Encoder, Request};

fn one(encoder: &Encoder, context: &str, continuation: &str) -> (Vec<u32>, Vec<u32>) {
    let request = encoder.requests(context, &[continuation.to_string()]).unwrap().remove(0);
    (request.context, request.continuation)
}

fn ids(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn trailing_space_of_the_context_goes_to_the_continuation() {
    let encoder = Encoder::new(&Bytes(&[]), Bos::Absent, None);
    assert_eq!(one(&encoder, "a \u{1c}\n", " b"), (ids("a"), ids(" \u{1c}\n b")));
    assert_eq!(one(&encoder, " a", " b"), (ids(" a"), ids(" b")));
}

#[test]
fn a_merge_over_the_boundary_keeps_the_context_as_encoded_alone() {
    // "c d" is one token: the whole has one id for "c d", the context two for "b" and "c".
    let encoder = Encoder::new(&Bytes(&["c d"]), Bos::Absent, None);
    assert_eq!(one(&encoder, "abc", " def"), (ids("abc"), ids("ef")[..].to_vec()));
    let error = encoder.requests("abc", &[" d".to_string()]).unwrap_err();
    assert_eq!(error.kind, Kind::Data);
    assert!(error.to_string().contains("adds no token"), "{error}");
}

#[test]
fn bos_goes_before_both_encodings_but_not_twice() {
    let encoder = Encoder::new(&Bytes(&["<s>"]), Bos::Before(256), Some(256));
    assert_eq!(one(&encoder, "a", " b"), ([vec![256], ids("a")].concat(), ids(" b")));
    assert_eq!(one(&encoder, "<s>a", " b"), ([vec![256], ids("a")].concat(), ids(" b")));
}

#[test]
fn an_empty_context_is_the_prefix_token() {
    let encoder = Encoder::new(&Bytes(&["<s>"]), Bos::Absent, Some(256));
    assert_eq!(one(&encoder, "", " b"), (vec![256], ids(" b")));
    assert_eq!(one(&encoder, " ", " b"), (vec![256], ids("  b")));
    assert_eq!(
        one(&encoder, "", "<s>b"),
        (vec![256], ids("b")),
        "a continuation that begins with the prefix is split"
    );
    let with_bos = Encoder::new(&Bytes(&["<s>"]), Bos::Before(256), Some(256));
    assert_eq!(one(&with_bos, "", " b"), (vec![256], ids(" b")));
    let error = Encoder::new(&Bytes(&[]), Bos::Absent, None).requests("", &["b".into()]).unwrap_err();
    assert!(error.to_string().contains("neither BOS nor EOS"), "{error}");
}

#[test]
fn truncation_keeps_the_last_length_plus_one_ids() {
    let request = Request { context: vec![9, 1, 2, 3], continuation: vec![4, 5] };
    let fitted = |length: usize| request.clone().fit(length).map(|r| (r.context, r.continuation));
    assert_eq!(fitted(5).unwrap(), (vec![9, 1, 2, 3], vec![4, 5]));
    assert_eq!(fitted(4).unwrap(), (vec![1, 2, 3], vec![4, 5]), "a BOS at the front is dropped too");
    assert_eq!(fitted(2).unwrap(), (vec![3], vec![4, 5]));
    assert_eq!(fitted(1).unwrap_err().kind, Kind::Data);
}

#[test]
fn each_choice_follows_one_space_and_its_own_context() {
    let encoder = Encoder::new(&Bytes(&[]), Bos::Absent, None);
    let pair = |r: &Request| (decode(&r.context), decode(&r.continuation));
    let shared = Document::new("Q:", vec!["x".into(), " y".into()], 0).requests(&encoder, 99).unwrap();
    assert_eq!(
        shared.iter().map(pair).collect::<Vec<_>>(),
        [("Q:".into(), " x".into()), ("Q:".into(), "  y".into())]
    );
    let own = Context::PerChoice(vec!["a".into(), "b ".into()]);
    let own = Document { context: own, choices: vec!["t".into(), "t".into()], gold: 0 }
        .requests(&encoder, 99)
        .unwrap();
    assert_eq!(
        own.iter().map(pair).collect::<Vec<_>>(),
        [("a".into(), " t".into()), ("b".into(), "  t".into())]
    );
}

#[test]
fn a_real_tokenizer_encodes_without_special_tokens() {
    use crate::eval::request::Tokenize;
    let text = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":{"type":"Whitespace"},"decoder":null,"model":{"type":"WordLevel","vocab":{"[U]":0,"a":1,"b":2,"<s>":3},"unk_token":"[U]"},
        "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
        "pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":0}}],
        "special_tokens":{"<s>":{"id":"<s>","ids":[3],"tokens":["<s>"]}}}}"#;
    let mut tokenizer: tokenizers::Tokenizer = text.parse().unwrap();
    assert_eq!(Tokenize::encode(&tokenizer, "a b c").unwrap(), [1, 2, 0]);
    tokenizer.with_truncation(Some(Default::default())).unwrap();
    assert!(Tokenize::encode(&tokenizer, "a").unwrap_err().to_string().contains("cuts or pads"));
}
