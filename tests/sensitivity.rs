//! `tyr sensitivity`: what single changes cost, printed, as JSON, and taken over by the run.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod common;

use common::{Tiny, failure};
use serde_json::Value;

fn stdout(tiny: &Tiny, line: &[&str]) -> String {
    String::from_utf8(tiny.tyr().args(line).assert().success().get_output().stdout.clone()).unwrap()
}

#[test]
fn every_change_is_printed_and_the_run_takes_it_over() {
    let tiny = Tiny::new();
    let text = stdout(&tiny, &["sensitivity", "spec.toml"]);
    for words in
        ["attention modules add", "MLPs add", "as the sum of single changes predicts", "written to runs/tiny"]
    {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let json: Value = serde_json::from_str(&stdout(&tiny, &["sensitivity", "spec.toml", "--json"])).unwrap();
    let round = &json[0];
    let changes = round["changes"].as_array().unwrap();
    // Two layers; the levels of four heads and 48 neurons in steps of a quarter.
    assert_eq!(changes.len(), 2 * (5 + 5), "{round}");
    let none = |c: &&Value| c["increase"] == 0.0;
    assert_eq!(changes.iter().filter(none).count(), 4, "what each module has adds nothing");
    assert!(changes.iter().all(|c| c["increase"].is_number()));
    let least = round["optimum"]["predicted"].as_f64().unwrap();
    assert!(least <= round["fitness"].as_f64().unwrap());
    tiny.run(&[]).success();
    let log = String::from_utf8(tiny.read("runs/tiny/trials/main/events.jsonl")).unwrap();
    let made = |step: &str| {
        let line = |line: &&str| line.contains("step_started") && line.contains(&format!("\"{step}\""));
        log.lines().filter(line).count()
    };
    assert_eq!((made("sensitivities-1"), made("sensitivities-2"), made("supernet-1")), (1, 1, 1));
}

#[test]
fn one_of_several_trials_is_chosen_by_its_label() {
    let tiny = Tiny::new();
    let spec = std::fs::read_to_string(tiny.path("spec.toml")).unwrap();
    let sweep = "\n[[sweep]]\nkey = \"sparsity.target\"\nvalues = [0.25, 0.5]\n";
    std::fs::write(tiny.path("spec.toml"), spec + sweep).unwrap();
    for line in [&["sensitivity", "spec.toml"][..], &["sensitivity", "spec.toml", "--trial", "other"][..]] {
        let (code, said) = failure(tiny.tyr().args(line).assert());
        assert!(code == 2 && said.contains("--trial") && said.contains("0.25"), "{code}: {said}");
    }
    let label = ["sensitivity", "spec.toml", "--json", "--trial", "target=0.25"];
    assert!(stdout(&tiny, &label).contains("\"optimum\""));
}
