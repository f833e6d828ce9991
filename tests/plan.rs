//! `tyr plan` from the outside: it agrees with what a run stores, needs no weights, and writes nothing.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::{Tiny, failure};

/// `tyr plan` without measurement, as text.
fn plan(tiny: &Tiny, more: &[&str]) -> String {
    let run = tiny.tyr().args(["plan", "spec.toml", "--no-calibration"]).args(more).assert().success();
    String::from_utf8(run.get_output().stdout.clone()).unwrap()
}

/// The steps of the first trial as JSON.
fn steps(tiny: &Tiny, more: &[&str]) -> Vec<serde_json::Value> {
    let plan: serde_json::Value = serde_json::from_str(&plan(tiny, &[&["--json"], more].concat())).unwrap();
    plan["trials"][0]["steps"].as_array().unwrap().clone()
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn after_a_run_every_step_is_a_hit_at_the_address_of_the_store() {
    let tiny = Tiny::new();
    tiny.run(&[]).success();
    let steps = steps(&tiny, &[]);
    assert!(steps[1..].iter().all(|s| s["standing"] == "hit"), "{steps:#?}");
    let planned: BTreeSet<String> =
        steps[1..].iter().map(|s| s["key"]["known"].as_str().unwrap().to_string()).collect();
    assert_eq!(planned, names_in(&tiny.path("runs/tiny/store")));
}

#[test]
fn a_planned_step_has_the_name_and_the_key_that_the_run_reports() {
    let tiny = Tiny::new();
    tiny.run(&[]).success();
    let log = String::from_utf8(tiny.read("runs/tiny/trials/main/events.jsonl")).unwrap();
    for step in &steps(&tiny, &[])[1..] {
        let name = step["name"].as_str().unwrap();
        let key = step["key"]["known"].as_str().unwrap();
        let line = log
            .lines()
            .find(|l| l.contains("step_finished") && l.contains(&format!("\"{name}\"")))
            .unwrap_or_else(|| panic!("no {name}"));
        assert!(line.contains(key), "{name}: {key} is not in {line}");
    }
}

#[test]
fn before_a_run_keys_are_known_as_far_as_no_result_is_needed() {
    let tiny = Tiny::new();
    let key = |name: &str| steps(&tiny, &[]).iter().find(|s| s["name"] == name).unwrap()["key"].clone();
    for known in ["perplexity-text-dense", "supernet-1", "compact-uniform", "search-1"] {
        assert!(key(known)["known"].is_string(), "{known}: {}", key(known));
    }
    assert_eq!(key("supernet-2")["waits"], "after search-1");
    assert_eq!(key("compact-iteration-2")["waits"], "after search-2");
    assert_eq!(key("kl-uniform")["waits"], "after compact-uniform");
}

#[test]
fn part_of_a_run_shows_as_hits_and_the_rest_as_misses() {
    let tiny = Tiny::new();
    tiny.run(&[]).success();
    let other = ["--set", "fitness.top_k=8"];
    let standing =
        |name: &str| steps(&tiny, &other).iter().find(|s| s["name"] == name).unwrap()["standing"].clone();
    assert_eq!((standing("supernet-1"), standing("compact-uniform")), ("hit".into(), "hit".into()));
    assert_eq!((standing("search-1"), standing("supernet-2")), ("miss".into(), "miss".into()));
    std::fs::remove_file(
        std::fs::read_dir(tiny.path("runs/tiny/store"))
            .unwrap()
            .flatten()
            .find(|e| e.file_name().to_str().unwrap().starts_with("supernet"))
            .unwrap()
            .path()
            .join("manifest.json"),
    )
    .unwrap();
    assert!(
        steps(&tiny, &[])
            .iter()
            .any(|s| s["standing"] == "miss" && s["name"].as_str().unwrap().starts_with("supernet"))
    );
}

#[test]
fn a_plan_writes_nothing_and_says_the_same_again() {
    let tiny = Tiny::new();
    let before = names_in(tiny.dir.path());
    let first = plan(&tiny, &[]);
    assert_eq!(first, plan(&tiny, &[]));
    assert_eq!(names_in(tiny.dir.path()), before);
    assert!(first.lines().all(|l| l.chars().count() <= 100), "{first}");
    assert!(
        first.contains("after compaction") && first.matches("compact-iteration-2").count() == 1,
        "{first}"
    );
}

#[test]
fn a_configuration_alone_is_enough_and_texts_may_come_later() {
    let tiny = Tiny::new();
    std::fs::remove_file(tiny.path("model/model.safetensors")).unwrap();
    std::fs::remove_file(tiny.path("train.txt")).unwrap();
    let text = plan(&tiny, &[]);
    assert!(
        text.contains("configuration only")
            && text.contains("needs the model")
            && text.contains("not there yet"),
        "{text}"
    );
}

#[test]
fn rates_are_measured_or_given_and_a_wrong_one_is_a_usage_error() {
    let tiny = Tiny::new();
    let with = |more: &[&str]| {
        let run = tiny.tyr().args(["plan", "spec.toml"]).args(more).assert().success();
        String::from_utf8(run.get_output().stdout.clone()).unwrap()
    };
    let measured = with(&[]);
    let machine = format!("machine: {}, ", tyr::tensor::isa());
    assert!(measured.contains("times at ") && measured.contains(&machine), "{measured}");
    let given = with(&["--gflops", "250"]);
    assert!(given.contains("times at 250 GFLOP/s") && !given.contains("machine:"), "{given}");
    assert!(plan(&tiny, &[]).contains("no times"));
    let (code, printed) = failure(tiny.tyr().args(["plan", "spec.toml", "--gflops", "-1"]).assert());
    assert_eq!(code, 2, "{printed}");
}

#[test]
fn what_cannot_be_planned_is_one_clear_error() {
    let tiny = Tiny::new();
    let prints = |more: &[&str], code: i32, words: &str| {
        let (got, printed) =
            failure(tiny.tyr().args(["plan", "spec.toml", "--no-calibration"]).args(more).assert());
        assert_eq!(got, code, "{printed}");
        assert!(printed.contains(words) && !printed.contains("panicked"), "{printed}");
    };
    prints(&["--set", "model.source=hf:nobody/nothing"], 4, "not known here");
    prints(&["--set", "sparsity.target=0.001"], 6, "less than one unit");
    prints(&["--set", "prune.dampnig=0.1"], 3, "damping");
    std::fs::write(tiny.path("model/config.json"), "{").unwrap();
    prints(&[], 4, "config.json");
}

#[test]
fn the_largest_experiment_is_planned_without_its_weights() {
    let tiny = Tiny::new();
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/llama70b_50.toml");
    let run = tiny
        .tyr()
        .args(["plan", spec.to_str().unwrap(), "--gflops", "400"])
        .env("HF_HOME", tiny.path("hub"))
        .assert()
        .success();
    let text = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    for part in ["68.98B", "supernet-4", "needs the model", "facts that ship", "10^"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(text.lines().all(|l| l.chars().count() <= 100) && text.matches("┌─").count() == 3, "{text}");
}
