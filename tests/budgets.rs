//! Sparsity as a share of the key/value cache and of time: planned, run, and run again from what was stored.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod common;

use std::path::PathBuf;

use common::{Tiny, failure};
use serde_json::Value;

/// Little to measure.
const SHORT: [&str; 6] =
    ["--set", "supernet.intervals=[0.25]", "--set", "evaluate.tasks=[]", "--set", "search.generations=2"];
const GROUPS: [&str; 2] = ["--set", "prune.unit.attention=kv_group"];

fn set<'a>(keys: &[&'a str]) -> Vec<&'a str> {
    SHORT.into_iter().chain(keys.iter().flat_map(|key| ["--set", key])).collect()
}

fn printed(tiny: &Tiny, verb: &[&str], more: &[&str]) -> String {
    let run = tiny.tyr().args(verb).args(more).assert().success();
    let text = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    // Lines are broken anywhere.
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A figure of a model in the run's table.
fn figure(tiny: &Tiny, model: &str, metric: &str) -> f64 {
    let csv = String::from_utf8(tiny.read("runs/tiny/results.csv")).unwrap();
    let start = format!("main,{model},{metric},");
    let row = csv.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{start}\n{csv}"));
    row[start.len()..].split(',').next().unwrap().parse().unwrap()
}

/// The files of a name in the store.
fn stored(tiny: &Tiny, name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(tiny.path("runs/tiny/store")).unwrap();
    entries.map(|entry| entry.unwrap().path().join(name)).filter(|path| path.is_file()).collect()
}

/// What the last model keeps: heads and neurons of all layers.
fn kept(tiny: &Tiny) -> [u64; 2] {
    let config: Value =
        serde_json::from_slice(&tiny.read("runs/tiny/trials/main/model/config.json")).unwrap();
    let layers = match config["per_layer_config"].as_object() {
        Some(layers) => layers.values().cloned().collect(),
        None => vec![config.clone(); config["num_hidden_layers"].as_u64().unwrap() as usize],
    };
    ["num_key_value_heads", "intermediate_size"]
        .map(|key| layers.iter().map(|layer| layer[key].as_u64().unwrap()).sum())
}

#[test]
fn a_share_of_the_cache_takes_groups_and_leaves_every_neuron() {
    let tiny = Tiny::new();
    let keys = set(&["sparsity.basis=kv_bytes", "sparsity.target=0.5"]);
    let (_, said) = failure(tiny.tyr().args(["check", "spec.toml"]).args(&keys).assert());
    assert!(said.contains("prune.unit.attention") && said.contains("kv_group"), "{said}");
    let keys = [&keys[..], &GROUPS].concat();
    tiny.tyr().args(["check", "spec.toml"]).args(&keys).assert().success();
    let plan = printed(&tiny, &["plan", "spec.toml", "--no-calibration"], &keys);
    assert!(
        plan.contains("50.00% of a token's bytes in the key/value cache asked, 50.00% reached"),
        "{plan}"
    );
    assert!(plan.contains("2 of 4 key/value groups and 0 of 96 neurons go"), "{plan}");
    tiny.run(&keys).success();
    assert_eq!(kept(&tiny), [2, 96]);
    assert_eq!(figure(&tiny, "refit", "sparsity"), 0.5);
}

#[test]
fn a_share_of_time_is_measured_once_and_everything_follows_from_what_was_stored() {
    let tiny = Tiny::new();
    let pass = "sparsity.latency={ tokens = 8, context = 16 }";
    let keys = set(&["sparsity.basis=latency", "sparsity.target=0.15", "sparsity.trade=true", pass]);
    let plan = || printed(&tiny, &["plan", "spec.toml", "--no-calibration"], &keys);
    let before = plan();
    assert!(before.contains("not timed yet") && before.contains("after latencies"), "{before}");
    tiny.run(&keys).success();
    for model in ["uniform", "iteration-1", "refit"] {
        let reached = figure(&tiny, model, "sparsity");
        assert!((0.15..1.0).contains(&reached), "{model} {reached}");
    }
    let found = stored(&tiny, "latencies.json");
    assert_eq!(found.len(), 1);
    let table: Value = serde_json::from_slice(&std::fs::read(&found[0]).unwrap()).unwrap();
    assert_eq!(table["isa"], tyr::tensor::isa());
    assert_eq!(table["modules"][1].as_array().unwrap().len(), 17);
    let log = String::from_utf8(tiny.read("runs/tiny/trials/main/events.jsonl")).unwrap();
    assert!(log.contains("take the dense model"), "the record tells what was measured");
    let run_log = String::from_utf8(tiny.read("runs/tiny/events.jsonl")).unwrap();
    assert!(run_log.contains("GFLOP/s of f32 products per thread"), "{run_log}");
    let after = plan();
    assert!(after.contains("take the dense model") && !after.contains("miss"), "{after}");
    // Times of another day would give another distribution; the stored ones give the same.
    let first = (tiny.read("runs/tiny/results.csv"), std::fs::read(&found[0]).unwrap());
    for entry in std::fs::read_dir(tiny.path("runs/tiny/store")).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_str().unwrap().starts_with("latency-") {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    tiny.run(&keys).success();
    assert_eq!((tiny.read("runs/tiny/results.csv"), std::fs::read(&found[0]).unwrap()), first);
}

#[test]
fn time_that_cannot_be_saved_and_a_pass_beyond_the_context_are_errors() {
    let tiny = Tiny::new();
    let keys = set(&["sparsity.basis=latency", "sparsity.latency.context=16", "sparsity.target=0.99"]);
    let (code, said) = failure(tiny.run(&keys));
    assert!(said.contains("sparsity.target") && said.contains("at most 0."), "{code} {said}");
    let keys = set(&["sparsity.basis=latency", "sparsity.latency.context=4096"]);
    let (code, said) = failure(tiny.run(&keys));
    assert!(code == 3 && said.contains("sparsity.latency.context"), "{code} {said}");
}
