//! The bits of a small experiment against recorded ones: arithmetic may not change unless the version of the
//! step that it belongs to does, or a store would mix the results of two arithmetics.
//!
//! Sums depend on the widest vectors that a processor has, so the record has an entry for each kind of them.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod common;

use std::collections::BTreeMap;

use common::Tiny;
use serde::Deserialize;
use tyr::base::hash;
use tyr::trial::keys::Versioned;

/// The record: `tests/fixtures/arithmetic.json`.
#[derive(Deserialize)]
struct Recorded {
    /// Version of each kind of step when its hashes were taken.
    versions: BTreeMap<String, u32>,
    /// Hash of each kind of step's results, for each kind of processor.
    hashes: BTreeMap<String, BTreeMap<String, String>>,
}

const RECORD: &str = "tests/fixtures/arithmetic.json";

/// What computes results, in the order of a trial; a change in one changes those after it. The harness is
/// another program, which is not always there, times are no results, and an export has the model's numbers in
/// another order.
fn steps() -> impl Iterator<Item = Versioned> {
    let others = [Versioned::Harness, Versioned::Bench, Versioned::Latency, Versioned::Export];
    Versioned::ALL.into_iter().filter(move |step| !others.contains(step))
}

/// What of this machine decides about the order of sums.
#[cfg(target_arch = "x86_64")]
fn processor() -> &'static str {
    match () {
        () if is_x86_feature_detected!("avx512f") => "x86-64 with AVX-512",
        () if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") => "x86-64 with AVX2",
        () => "x86-64",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> &'static str {
    std::env::consts::ARCH
}

/// Whether a result's file holds what was computed: weights, what single changes cost, or what a search found.
fn has_numbers(file: &str) -> bool {
    file.ends_with(".safetensors") || ["distribution.json", "sensitivities.json"].contains(&file)
}

/// Hashes of what a run left, by kind of step. Names of results are made of their keys, so they do not count.
fn hashes(tiny: &Tiny) -> BTreeMap<String, String> {
    let mut lines: BTreeMap<Versioned, Vec<String>> = BTreeMap::new();
    for entry in std::fs::read_dir(tiny.path("runs/tiny/store")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let Some(step) = steps().find(|step| name.starts_with(&format!("{}-", step.name()))) else {
            continue;
        };
        let manifest = std::fs::read(entry.path().join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let files = manifest["files"].as_object().unwrap().iter().filter(|(file, _)| has_numbers(file));
        lines.entry(step).or_default().push(files.map(|(file, hash)| format!("{file} {hash}")).collect());
    }
    for row in String::from_utf8(tiny.read("runs/tiny/results.csv")).unwrap().lines() {
        let step = match row.split(',').nth(2).unwrap() {
            metric if metric.starts_with("perplexity/") => Versioned::Perplexity,
            "kl" => Versioned::Kl,
            metric if metric.starts_with("acc") => Versioned::Tasks,
            _ => continue,
        };
        lines.entry(step).or_default().push(row.to_owned());
    }
    let hashed = lines.into_iter().map(|(step, mut lines)| {
        lines.sort();
        (step.name().to_owned(), hash::of_bytes(lines.join("\n").as_bytes()))
    });
    hashed.collect()
}

#[test]
fn the_arithmetic_of_each_step_is_that_of_its_version() {
    let tiny = Tiny::new();
    // The paper's search; single changes are measured all the same.
    for verb in ["sensitivity", "run"] {
        let line = [verb, "spec.toml", "--set", "search.start=uniform", "--set", "search.patience=0"];
        tiny.tyr().env("RAYON_NUM_THREADS", "2").args(line).assert().success();
    }
    let found = hashes(&tiny);
    assert_eq!(found.len(), steps().count(), "a kind of step left nothing: {found:?}");
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORD);
    let recorded: Recorded = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for step in steps() {
        let (name, version, recorded) = (step.name(), step.version(), recorded.versions[step.name()]);
        assert!(
            recorded == version,
            "{name} has version {version}, but {RECORD} was recorded with {recorded}: record its new hashes"
        );
    }
    let now = serde_json::to_string_pretty(&BTreeMap::from([(processor(), &found)])).unwrap();
    let Some(known) = recorded.hashes.get(processor()) else {
        return eprintln!("skipped: {RECORD} has no hashes of {}; add them: {now}", processor());
    };
    let unknown: Vec<&str> = steps().map(Versioned::name).filter(|step| !known.contains_key(*step)).collect();
    if !unknown.is_empty() {
        eprintln!("skipped: {RECORD} has no hashes of {unknown:?} on {}; add them: {now}", processor());
    }
    let changed =
        steps().map(Versioned::name).find(|step| known.get(*step).is_some_and(|k| *k != found[*step]));
    if let Some(step) = changed {
        panic!(
            "arithmetic of {step} changed: raise its version in the table of versions and record the new hash in {RECORD}: {now}"
        );
    }
}
