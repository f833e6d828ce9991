//! Pages, detokenisation and perplexities of WikiText-2.

use serde_json::json;

use super::{Bytes, Rule, write_lines};
use crate::base::Silent;
use crate::eval::request::{Bos, Encoder};
use crate::eval::run::Samples;
use crate::eval::tasks::wikitext;
use crate::eval::{Catalogue, Metric, Options, evaluate};

#[test]
fn detokenising_takes_the_spaces_around_signs_out() {
    let page = " = A = \n \n the dogs ' tails , 1 @,@ 000 @-@ odd 2 @.@ 5 ( a b ) [ c ] { d } \" e \" : f ; g . h ! i ? j \n = = B = = \n \
        = = = C = = = \n 5 ° N W 's N x";
    let expected = " = A =\n\nthe dogs'tails, 1,000-odd 2.5 (a b) [c] {d} \"e\": f; g. h! i? j\n== B ==\n=== C ===\n5°N W's 1 x";
    assert_eq!(wikitext::detokenise(page), expected);
    assert_eq!((wikitext::words(page), page.len()), (59, 147));
}

#[test]
fn detokenising_pairs_signs_from_left_to_right() {
    assert_eq!(wikitext::detokenise("( ( x ) )"), "(( x) )");
    assert_eq!(wikitext::detokenise("( open"), "( open");
    assert_eq!(wikitext::detokenise("\" a \" b \" c"), "\"a\" b \" c");
    assert_eq!(wikitext::detokenise("(  \n ) = = = ="), "() ====");
    assert_eq!(wikitext::detokenise("/' 7/ and /' 1/' 2/ and /' x/"), "/'[0-9]/ and /'[0-9]/'2/ and /' x/");
}

#[test]
fn pages_are_read_whole_or_put_together_from_lines() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("EleutherAI/wikitext_document_level/wikitext-2-raw-v1/test.jsonl");
    let lines = ["", " = One = \n", "", " text \n", " = = Part = = \n", " = Two = \n", " end \n"];
    write_lines(&file, &lines.map(|text| json!({"text": text})));
    let pages = [" = One = \n \n text \n = = Part = = ", " = Two = \n end "];
    assert_eq!(wikitext::pages(Some(dir.path()), 9).unwrap(), pages);
    write_lines(&file, &pages.map(|page| json!({"page": page})));
    assert_eq!(wikitext::pages(Some(dir.path()), 9).unwrap(), pages);
    assert_eq!(wikitext::pages(Some(dir.path()), 1).unwrap(), &pages[..1]);
}

#[test]
fn perplexities_count_words_and_bytes_of_the_original_and_tokens_of_the_detokenised_page() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("EleutherAI/wikitext_document_level/wikitext-2-raw-v1/test.jsonl");
    write_lines(&file, &[json!({"page": " a , é "}), json!({"page": "b"})]);
    let tokenizer = Bytes(&["<s>"]);
    let encoder = Encoder::new(&tokenizer, Bos::Absent, Some(256));
    let mut model = Rule { length: 3, ..Rule::new(|r| -(r.continuation.len() as f64)) };
    let selection = Catalogue::builtin().select(&["wikitext".into()]).unwrap();
    let options = Options { data: Some(dir.path().into()), limit: 0 };
    let report = evaluate(&selection, &options, &mut model, &encoder, &Silent).unwrap();
    // " a, é " is 7 tokens in sequences of 3, 3 and 1; "b" is one. The original pages have 5 + 1 words and 8
    // + 1 bytes.
    let metrics = &report.tasks[0].metrics;
    assert_eq!(model.asked.iter().map(|r| r.continuation.len()).collect::<Vec<_>>(), [3, 3, 1, 1]);
    assert!((metrics[&Metric::WordPerplexity].value - (8.0f64 / 6.0).exp()).abs() < 1e-12);
    assert!((metrics[&Metric::BytePerplexity].value - (8.0f64 / 9.0).exp()).abs() < 1e-12);
    assert!((metrics[&Metric::BitsPerByte].value - 8.0 / 9.0 / std::f64::consts::LN_2).abs() < 1e-12);
    assert_eq!((metrics[&Metric::BitsPerByte].stderr, metrics[&Metric::BitsPerByte].n), (None, Some(2)));
    let Samples::Pages(pages) = &report.tasks[0].samples else { panic!("pages are expected") };
    assert_eq!((pages[0].words, pages[0].bytes, pages[0].loglikelihood), (5, 8, -7.0));
}
