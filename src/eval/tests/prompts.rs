//! Every prompt against its wording in the harness's task files.

use serde_json::json;

use super::row;
use crate::base::Kind;
use crate::eval::document::{Context, Document};
use crate::eval::tasks::{mmlu, prompt};

fn texts(choices: &[&str]) -> Vec<String> {
    choices.iter().map(|c| c.to_string()).collect()
}

#[test]
fn arc_finds_its_answer_among_letters_and_digits() {
    let choices = json!({"text": ["ice ", "sand", "fog"], "label": ["1", "2", "3"]});
    let document =
        prompt::arc(&row(json!({"question": "What melts?", "choices": choices, "answerKey": "3"}))).unwrap();
    assert_eq!(document, Document::new("Question: What melts?\nAnswer:", texts(&["ice ", "sand", "fog"]), 2));
    let bad = json!({"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "1"});
    let error = prompt::arc(&row(bad)).unwrap_err();
    assert_eq!(error.kind, Kind::Data);
    assert!(error.to_string().contains("`answerKey` should be one of the labels A, found \"1\""), "{error}");
}

#[test]
fn openbookqa_is_the_stem_alone() {
    let choices = json!({"text": ["x", "y"], "label": ["A", "B"]});
    let document =
        prompt::openbookqa(&row(json!({"question_stem": "The sun", "choices": choices, "answerKey": " B"})))
            .unwrap();
    assert_eq!(document, Document::new("The sun", texts(&["x", "y"]), 1));
}

#[test]
fn boolq_adds_the_question_mark_and_says_no_first() {
    let document = prompt::boolq(&row(json!({"passage": "P.", "question": "is it so", "label": 1}))).unwrap();
    assert_eq!(document, Document::new("P.\nQuestion: is it so?\nAnswer:", texts(&["no", "yes"]), 1));
}

#[test]
fn rte_asks_true_or_false() {
    let document =
        prompt::rte(&row(json!({"sentence1": "It rains.", "sentence2": "It is wet.", "label": 0}))).unwrap();
    assert_eq!(
        document,
        Document::new(
            "It rains.\nQuestion: It is wet. True or False?\nAnswer:",
            texts(&["True", "False"]),
            0
        )
    );
}

#[test]
fn piqa_offers_two_solutions() {
    let document =
        prompt::piqa(&row(json!({"goal": "open a jar", "sol1": "twist", "sol2": "hit", "label": 0})))
            .unwrap();
    assert_eq!(document, Document::new("Question: open a jar\nAnswer:", texts(&["twist", "hit"]), 0));
}

#[test]
fn hellaswag_cleans_context_and_endings() {
    let ctx = json!({"activity_label": "Home [x]", "ctx_a": "[header] How to melt ice [title] Use  salt.", "ctx_b": "the MAN",
        "endings": ["[step] go", "stop. [title] now"], "label": "1"});
    let document = prompt::hellaswag(&row(ctx)).unwrap();
    assert_eq!(
        document,
        Document::new("Home : How to melt ice. Use salt. The man", texts(&[" go", "stop.. now"]), 1)
    );
}

#[test]
fn cleaning_deletes_shortest_brackets_within_a_line_and_halves_spaces_once() {
    assert_eq!(prompt::clean("  a [title] b [x] c [y\nz] d   e "), "a. b c [y\nz] d  e");
    assert_eq!(prompt::clean("[a [b] c] d"), " c] d");
    assert_eq!(prompt::clean("[ open"), "[ open");
    assert_eq!(prompt::clean("[é\n[é]"), "[é\n");
    assert_eq!(prompt::clean(""), "");
}

#[test]
fn winogrande_puts_the_option_into_the_context() {
    let fields = json!({"sentence": "The cup beat the jar as _ was _ big. ", "option1": "the cup", "option2": "it ", "answer": "2"});
    let document = prompt::winogrande(&row(fields)).unwrap();
    let contexts = texts(&["The cup beat the jar as the cup", "The cup beat the jar as it "]);
    assert_eq!(
        document,
        Document { context: Context::PerChoice(contexts), choices: texts(&["was _ big."; 2]), gold: 1 }
    );
}

#[test]
fn winogrande_without_a_gap_or_an_answer_is_an_error() {
    let fields = |sentence: &str, answer: &str| {
        row(json!({"sentence": sentence, "option1": "a", "option2": "b", "answer": answer}))
    };
    assert!(
        prompt::winogrande(&fields("no gap", "1"))
            .unwrap_err()
            .to_string()
            .contains("`sentence` should be a text with a `_`")
    );
    assert!(prompt::winogrande(&fields("a _", "")).unwrap_err().to_string().contains("`answer` should be"));
}

#[test]
fn mmlu_solves_the_examples_before_the_question() {
    let question = |q: &str, answer: usize| {
        row(json!({"question": q, "choices": ["w", "x ", "y", "z"], "answer": answer}))
    };
    let preamble =
        mmlu::preamble("high_school_biology", &[question(" Why?\n", 0), question("How?", 3)]).unwrap();
    let document = mmlu::document(&preamble, &question("When?", 2)).unwrap();
    let expected = "The following are multiple choice questions (with answers) about high school biology.\n\n\
        Why?\nA. w\nB. x \nC. y\nD. z\nAnswer: A\n\n\
        How?\nA. w\nB. x \nC. y\nD. z\nAnswer: D\n\n\
        When?\nA. w\nB. x \nC. y\nD. z\nAnswer:";
    assert_eq!(document, Document::new(expected, texts(&["A", "B", "C", "D"]), 2));
    let three = json!({"question": "q", "choices": ["a", "b", "c"], "answer": 0});
    assert!(mmlu::document("", &row(three)).unwrap_err().to_string().contains("four texts"));
    assert!(mmlu::document("", &question("q", 4)).unwrap_err().to_string().contains("0 to 3"));
}

#[test]
fn mmlu_has_57_subjects() {
    let subjects: std::collections::BTreeSet<&str> =
        mmlu::SUBGROUPS.iter().flat_map(|(_, s)| s.iter().copied()).collect();
    assert_eq!(subjects.len(), 57);
    assert_eq!(
        mmlu::SUBGROUPS.map(|(name, s)| (name, s.len())),
        [("humanities", 13), ("other", 13), ("social_sciences", 12), ("stem", 19)]
    );
}
