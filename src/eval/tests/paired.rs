//! Two models on the same documents: differences by task, of the mean, and the retained accuracy.

use crate::base::{Estimate, Kind, Silent};
use crate::eval::document::Document;
use crate::eval::request::{Bos, Encoder};
use crate::eval::{Catalogue, Comparison, Metric, Options, Report, Task, compare, evaluate};

use super::{Bytes, Rule, decode};

/// Documents whose right answers are these letters.
fn documents(gold: &str) -> Vec<Document> {
    let of = |(i, letter): (usize, char)| {
        Document::new(format!("Q{i}:"), vec!["a".into(), "b".into()], usize::from(letter == 'b'))
    };
    gold.chars().enumerate().map(of).collect()
}

/// A task, and a group of two, answered with `a`, or with `b` where the context holds one of the numbers.
fn report(b: &'static [&'static str]) -> Report {
    let catalogue = Catalogue::builtin().with(Task::generated("alone", documents("aabb"))).unwrap();
    let members =
        vec![Task::generated("toy/one", documents("ab")), Task::generated("toy/two", documents("aaab"))];
    let selection =
        catalogue.with_group("toy", members).unwrap().select(&["alone".into(), "toy".into()]).unwrap();
    let encoder = Encoder::new(&Bytes(&[]), Bos::Absent, None);
    let says_b = move |context: &str| b.iter().any(|number| context.contains(number));
    let mut model =
        Rule::new(|r| f64::from((decode(&r.continuation) == " b") == says_b(&decode(&r.context))));
    evaluate(&selection, &Options { data: None, limit: 0 }, &mut model, &encoder, &Silent).unwrap()
}

fn compared(before: &Report, after: &Report) -> Comparison {
    compare(before, after).unwrap()
}

#[test]
fn differences_are_paired_by_document_and_pooled_over_groups() {
    // Before: `a` everywhere: alone 2/4, toy/one 1/2, toy/two 3/4. After: `b` at the second document of each:
    // alone 1/4, 2/2, 2/4.
    let before = report(&[]);
    let after = report(&["Q1"]);
    let Comparison { differences, mean, retained } = compared(&before, &after);
    let acc = |name: &str| differences[name][&Metric::Acc];
    assert_eq!((acc("alone").value, acc("toy/one").value, acc("toy/two").value), (-0.25, 0.5, -0.25));
    // Per document 0, −1, 0, 0: variance 1/4, so the error is √(1/4)/2.
    assert!((acc("alone").stderr.unwrap() - 0.25).abs() < 1e-15);
    // Two documents 0, 1 with variance 1/2 and four with 1/4: √((1·(1/4)·2 + 3·(1/16)·4)/(6 − 2)/6).
    assert_eq!((acc("toy").value, acc("toy").n), (0.0, Some(6)));
    let pooled = (1.25f64 / 24.0).sqrt();
    assert!((acc("toy").stderr.unwrap() - pooled).abs() < 1e-15);
    // The mean is over the task and the group.
    let mean = mean.unwrap();
    assert_eq!((mean.value, mean.n), (-0.125, Some(10)));
    assert!((mean.stderr.unwrap() - (0.0625 + pooled * pooled).sqrt() / 2.0).abs() < 1e-15);
    // Before (1/2 + 4/6)/2, after (1/4 + 4/6)/2.
    assert!((retained.unwrap().value - (0.25 + 4.0 / 6.0) / (0.5 + 4.0 / 6.0)).abs() < 1e-15);
}

#[test]
fn the_same_model_retains_all_without_any_error() {
    let found = compared(&report(&["Q0"]), &report(&["Q0"]));
    assert_eq!(found.retained.map(|r| (r.value, r.stderr)), Some((1.0, Some(0.0))));
    assert!(
        found.differences.values().flat_map(|d| d.values()).all(|e| e.value == 0.0 && e.stderr == Some(0.0))
    );
}

#[test]
fn the_error_of_the_retained_share_is_that_of_the_paired_ratio() {
    let found = compared(&report(&[]), &report(&["Q1"])).retained.unwrap();
    // after − r·before per document: alone −r, 0−r, 0, 0 and so on, by hand.
    let r = found.value;
    let spread = |values: &[f64]| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0) / n
    };
    let alone = spread(&[1.0 - r, -r, 0.0, 0.0]);
    let one = spread(&[1.0 - r, 1.0]);
    let two = spread(&[1.0 - r, -r, 1.0 - r, 0.0]);
    let toy = (1.0 * one * 2.0 + 3.0 * two * 4.0) / 4.0 / 6.0;
    let before = (0.5 + 4.0 / 6.0) / 2.0;
    assert!((found.stderr.unwrap() - (alone + toy).sqrt() / 2.0 / before).abs() < 1e-15, "{found:?}");
}

#[test]
fn nothing_is_retained_of_nothing() {
    let none = report(&["Q0", "Q1", "Q2", "Q3"]);
    let mut dense = none.clone();
    for task in &mut dense.tasks {
        task.metrics.insert(Metric::Acc, Estimate::mean(0.0, None, 1));
    }
    dense.groups.clear();
    assert_eq!(compared(&dense, &none).retained, None);
    let empty = Report { tasks: vec![], groups: vec![] };
    assert_eq!(
        compared(&empty, &empty),
        Comparison { differences: Default::default(), mean: None, retained: None }
    );
}

#[test]
fn other_tasks_or_documents_cannot_be_compared() {
    let whole = report(&[]);
    let mut without = whole.clone();
    without.tasks.remove(0);
    let error = compare(&without, &whole).unwrap_err();
    assert!(error.kind == Kind::Data && error.to_string().contains("alone"), "{error}");
    let mut shorter = whole.clone();
    if let crate::eval::Samples::Choices(samples) = &mut shorter.tasks[1].samples {
        samples.pop();
    }
    let error = compare(&shorter, &whole).unwrap_err();
    assert!(
        error.to_string().contains("1 documents cannot be paired with 2")
            && error.to_string().contains("toy/one"),
        "{error}"
    );
}

#[test]
fn figures_that_are_no_numbers_survive_the_log_of_samples() {
    let mut report = report(&[]);
    report.tasks[0].metrics.insert(Metric::WordPerplexity, Estimate::mean(f64::INFINITY, None, 1));
    let back: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(back, report);
}
