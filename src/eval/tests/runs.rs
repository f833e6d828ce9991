//! Whole runs: metrics, samples, groups, differences between models.

use serde_json::json;

use super::{Bytes, Rule, bigrams, decode, write_lines};
use crate::base::{Kind, Silent};
use crate::builtin::TASKS;
use crate::eval::document::{Document, Sample};
use crate::eval::paired::difference;
use crate::eval::request::{Bos, Encoder, LanguageModel, Score};
use crate::eval::run::Samples;
use crate::eval::{Catalogue, Metric, Options, Report, Task, evaluate, known};

const ALL: Options = Options { data: None, limit: 0 };

fn document(choices: &[&str], gold: usize) -> Document {
    Document::new("Q:", choices.iter().map(|c| c.to_string()).collect(), gold)
}

fn run_on(
    documents: Vec<Document>,
    options: &Options,
    model: &mut dyn LanguageModel,
) -> crate::base::Result<Report> {
    let catalogue = Catalogue::builtin().with(Task::generated("made", documents))?;
    let encoder = Encoder::new(&Bytes(&[]), Bos::Absent, Some(0));
    evaluate(&catalogue.select(&["made".into()])?, options, model, &encoder, &Silent)
}

fn run(documents: Vec<Document>, score: impl Fn(&str) -> f64) -> Report {
    run_on(documents, &ALL, &mut Rule::new(|r| score(&decode(&r.continuation)))).unwrap()
}

fn samples(report: &Report) -> &[Sample] {
    match &report.tasks[0].samples {
        Samples::Choices(samples) => samples,
        Samples::Pages(_) => panic!("choices are expected"),
    }
}

#[test]
fn ties_go_to_the_first_choice() {
    let report = run(vec![document(&["aa", "bb"], 0), document(&["aa", "bb"], 1)], |_| -1.0);
    assert_eq!(samples(&report).iter().map(|s| s.acc).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(report.tasks[0].metrics[&Metric::Acc].value, 0.5);
}

#[test]
fn acc_norm_divides_by_code_points_and_not_by_bytes_tokens_or_the_delimiter() {
    // −6/3 < −3.9/2 by code points; by bytes −6/9 > −3.9/2 and the other choice would win.
    let report = run(vec![document(&["日本語", "ab"], 1)], |c| if c == " ab" { -3.9 } else { -6.0 });
    assert_eq!((samples(&report)[0].acc, samples(&report)[0].acc_norm), (1, 1));
    // −5/5 > −4.5/4: the longer one wins although its sum is lower.
    let report = run(vec![document(&["abcde", "abcd"], 0)], |c| if c == " abcde" { -5.0 } else { -4.5 });
    assert_eq!((samples(&report)[0].acc, samples(&report)[0].acc_norm), (0, 1));
    // −5/5 > −1.1/1; with the delimiter counted, −1.1/2 would win.
    let report = run(vec![document(&["abcde", "a"], 1)], |c| if c == " a" { -1.1 } else { -5.0 });
    assert_eq!((samples(&report)[0].acc, samples(&report)[0].acc_norm), (1, 0));
}

#[test]
fn nan_is_never_right_and_survives_storage() {
    let report = run(vec![document(&["a", "b"], 0), document(&["a", "b"], 1)], |c| {
        if c == " a" { f64::NAN } else { f64::NEG_INFINITY }
    });
    assert_eq!(samples(&report).iter().map(|s| (s.acc, s.acc_norm)).collect::<Vec<_>>(), [(0, 0), (1, 1)]);
    let text = serde_json::to_string(&report).unwrap();
    assert!(text.contains("\"loglikelihoods\":[null,null]"), "{text}");
    let back: Report = serde_json::from_str(&text).unwrap();
    assert!(samples(&back)[0].loglikelihoods[0].is_nan());
    assert_eq!(back.tasks[0].metrics, report.tasks[0].metrics);
}

#[test]
fn one_document_has_no_standard_error_and_none_is_an_error() {
    let report = run(vec![document(&["a", "b"], 0)], |_| -1.0);
    assert_eq!(report.tasks[0].metrics[&Metric::Acc].stderr, None);
    let error = run_on(Vec::new(), &ALL, &mut Rule::new(|_| 0.0)).unwrap_err();
    assert!(
        error.kind == Kind::Data
            && error.to_string().contains("no document")
            && error.to_string().contains("made"),
        "{error}"
    );
}

#[test]
fn an_impossible_document_is_an_error() {
    for bad in [document(&["a", "b"], 2), document(&["a"], 0), document(&[], 0)] {
        assert_eq!(run_on(vec![bad], &ALL, &mut Rule::new(|_| 0.0)).unwrap_err().kind, Kind::Data);
    }
}

#[test]
fn the_limit_takes_the_first_documents() {
    let documents: Vec<Document> = (0..5).map(|i| document(&[&format!("x{i}"), "y"], 0)).collect();
    let mut model = Rule::new(bigrams);
    let report = run_on(documents, &Options { data: None, limit: 2 }, &mut model).unwrap();
    assert_eq!(report.tasks[0].metrics[&Metric::Acc].n, Some(2));
    assert_eq!(
        model.asked.iter().map(|r| decode(&r.continuation)).collect::<Vec<_>>(),
        [" x0", " y", " x1", " y"]
    );
}

#[test]
fn requests_are_cut_to_the_context_length_of_the_model() {
    let mut model = Rule { length: 4, ..Rule::new(bigrams) };
    run_on(vec![Document::new("abcdef", vec!["x".into(), "yz".into()], 0)], &ALL, &mut model).unwrap();
    let asked: Vec<(String, String)> =
        model.asked.iter().map(|r| (decode(&r.context), decode(&r.continuation))).collect();
    assert_eq!(asked, [("def".into(), " x".into()), ("ef".into(), " yz".into())]);
    let long =
        run_on(vec![document(&["abcde", "x"], 0)], &ALL, &mut Rule { length: 4, ..Rule::new(bigrams) })
            .unwrap_err();
    assert!(long.to_string().contains("made: document 0"), "{long}");
}

/// A model that forgets an answer.
struct Forgetful;

impl LanguageModel for Forgetful {
    fn score(
        &mut self,
        requests: &[crate::eval::Request],
        _: &dyn crate::base::Watch,
    ) -> crate::base::Result<Vec<Score>> {
        Ok(vec![Score { loglikelihood: 0.0, greedy: true }; requests.len() - 1])
    }
    fn context_length(&self) -> usize {
        99
    }
}

#[test]
fn a_model_must_answer_every_request() {
    let error = run_on(vec![document(&["a", "b"], 0)], &ALL, &mut Forgetful).unwrap_err();
    assert!(error.kind == Kind::Internal && error.to_string().contains("2 requests got 1 scores"), "{error}");
}

#[test]
fn a_group_pools_its_tasks_and_names_are_taken_once() {
    let task = |name: &str, right: usize, n: usize| {
        Task::generated(name, (0..n).map(|i| document(&["a", "b"], usize::from(i >= right))).collect())
    };
    let catalogue =
        Catalogue::builtin().with_group("toy", vec![task("toy/one", 1, 2), task("toy/two", 3, 4)]).unwrap();
    assert_eq!(catalogue.clone().with(task("toy", 1, 2)).unwrap_err().kind, Kind::Spec);
    assert_eq!(catalogue.clone().with(task("boolq", 1, 2)).unwrap_err().kind, Kind::Spec);
    let selection = catalogue.select(&["toy/two".into(), "toy".into(), "toy/one".into()]).unwrap();
    assert_eq!(selection.tasks.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["toy/two", "toy/one"]);
    let encoder = Encoder::new(&Bytes(&[]), Bos::Absent, None);
    let report = evaluate(&selection, &ALL, &mut Rule::new(|_| 0.0), &encoder, &Silent).unwrap();
    let acc = report.groups[0].metrics[&Metric::Acc];
    assert_eq!((report.groups.len(), acc.n, acc.value), (1, Some(6), 4.0 / 6.0));
    // Variances: s₁² = 0.5/2, s₂² = 0.25/4; (1·0.25·2 + 3·0.0625·4) / (6 − 2) / 6.
    assert!((acc.stderr.unwrap() - (1.25f64 / 24.0).sqrt()).abs() < 1e-15);
}

#[test]
fn mmlu_brings_its_subgroups_and_a_typo_its_nearest_name() {
    let selection = Catalogue::builtin().select(&["mmlu".into()]).unwrap();
    assert_eq!((selection.tasks.len(), selection.groups.len()), (57, 5));
    assert_eq!(Catalogue::builtin().select(&["mmlu_stem".into()]).unwrap().tasks.len(), 19);
    let error = Catalogue::builtin().select(&["arc_eazy".into()]).unwrap_err();
    assert_eq!((error.kind, error.hint.as_deref()), (Kind::Spec, Some("did you mean `arc_easy`?")));
    let known = known();
    assert_eq!(known.len(), 8 + 57 + 1 + 5 + TASKS.len() + 1);
    assert!(
        known.is_sorted()
            && known.contains(&"wikitext".to_string())
            && known.contains(&"mmlu_other".to_string())
    );
}

#[test]
fn mmlu_reads_examples_from_dev() {
    let dir = tempfile::tempdir().unwrap();
    let question =
        |q: &str, answer: usize| json!({"question": q, "choices": ["w", "x", "y", "z"], "answer": answer});
    let folder = dir.path().join("cais/mmlu/anatomy");
    write_lines(&folder.join("test.jsonl"), &[question("T1", 0), question("T2", 1)]);
    write_lines(
        &folder.join("dev.jsonl"),
        &(0..4).map(|i| question(&format!("D{i}"), i)).collect::<Vec<_>>(),
    );
    let selection = Catalogue::builtin().select(&["mmlu_anatomy".into()]).unwrap();
    let options = Options { data: Some(dir.path().into()), limit: 1 };
    let encoder = Encoder::new(&Bytes(&[]), Bos::Absent, None);
    let error = evaluate(&selection, &options, &mut Rule::new(bigrams), &encoder, &Silent).unwrap_err();
    assert!(error.to_string().contains("5 example rows"), "{error}");
    write_lines(
        &folder.join("dev.jsonl"),
        &(0..7).map(|i| question(&format!("D{i}"), i % 4)).collect::<Vec<_>>(),
    );
    let mut model = Rule::new(bigrams);
    evaluate(&selection, &options, &mut model, &encoder, &Silent).unwrap();
    let context = decode(&model.asked[0].context);
    assert!(context.starts_with(
        "The following are multiple choice questions (with answers) about anatomy.\n\nD0\nA. w\n"
    ));
    assert!(
        context.contains("D4\nA. w\nB. x\nC. y\nD. z\nAnswer: A\n\nT1\n") && !context.contains("D5"),
        "{context}"
    );
    assert_eq!(
        model.asked.iter().map(|r| decode(&r.continuation)).collect::<Vec<_>>(),
        [" A", " B", " C", " D"]
    );
}

#[test]
fn the_difference_of_two_models_is_paired() {
    let documents = || {
        (0..4)
            .map(|i| Document::new(format!("Q{i}:"), vec!["a".into(), "b".into()], i % 2))
            .collect::<Vec<_>>()
    };
    let first = run(documents(), |_| 0.0);
    let second = run(documents(), |c| if c == " b" { 1.0 } else { 0.0 });
    let e = difference(samples(&first), samples(&second), Metric::Acc).unwrap();
    // Per document −1, 1, −1, 1: variance 4/3, so the error is √(4/3)/2.
    assert_eq!((e.value, e.n), (0.0, Some(4)));
    assert!((e.stderr.unwrap() - (4.0f64 / 3.0).sqrt() / 2.0).abs() < 1e-15);
    let same = difference(samples(&first), samples(&first), Metric::AccNorm).unwrap();
    assert_eq!((same.value, same.stderr), (0.0, Some(0.0)), "what both find equally hard cancels out");
}

#[test]
fn only_the_same_documents_are_paired() {
    let ask = |q: &str| run(vec![Document::new(q, vec!["a".into(), "b".into()], 0)], |_| 0.0);
    let a = ask("one");
    let b = ask("two");
    assert!(
        difference(samples(&a), samples(&b), Metric::Acc)
            .unwrap_err()
            .to_string()
            .contains("not the same for both")
    );
    assert!(difference(samples(&a), &[], Metric::Acc).unwrap_err().to_string().contains("cannot be paired"));
    assert_eq!(difference(&[], &[], Metric::Acc).unwrap_err().kind, Kind::Data);
}

#[test]
fn the_generated_tasks_are_a_group_of_400_documents_each() {
    let selection = Catalogue::builtin().select(&["quickstart".into()]).unwrap();
    let encoder = Encoder::new(&Bytes(&[]), Bos::Absent, None);
    let report = evaluate(&selection, &ALL, &mut Rule::new(bigrams), &encoder, &Silent).unwrap();
    assert!(
        report
            .tasks
            .iter()
            .all(|t| t.task.starts_with("quickstart/") && t.metrics[&Metric::AccNorm].n == Some(400))
    );
    let acc = report.groups[0].metrics[&Metric::Acc];
    assert_eq!((report.tasks.len(), acc.n), (TASKS.len(), Some(400 * TASKS.len() as u64)));
    assert!(acc.value > 0.0 && acc.value < 1.0 && acc.stderr.unwrap() < 0.01);
}
