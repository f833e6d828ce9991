//! Faults on purpose: a small run is killed at any call that changes a file, its writes fail or fall short, and
//! every file that it leaves is damaged; then it is run again and must end with the same artefacts.
//!
//! The calls are caught by a small library (`faults_support/shim.c`) that is preloaded into the binary, so nothing
//! of the product knows of it. `FAULT_SECONDS=1800 cargo test --test faults -- --ignored --nocapture` goes on
//! for half an hour.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::Tiny;

/// Files of a finished run that must be the same whatever happened on the way. Tables tell of warnings, so the
/// figures alone are compared.
const ARTEFACTS: [&str; 7] = [
    "results.csv",
    "trials/main/distribution.json",
    "trials/main/model/config.json",
    "trials/main/model/tokenizer.json",
    "trials/main/model/model.safetensors",
    "trials/main/model/modeling_pruned_llama.py",
    "trials/main/model/README.md",
];

/// What goes wrong at a call, and for how many calls.
#[derive(Debug, Clone, Copy)]
struct Fault {
    kind: &'static str,
    at: u64,
    lasts: u64,
}

/// The library, built once.
fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults.so");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults_support/shim.c");
        let arguments = ["-shared", "-fPIC", "-O1", "-o"];
        let done = Command::new(compiler).args(arguments).arg(&out).args([source, "-ldl"]).status().unwrap();
        assert!(done.success(), "the C compiler fails on {source}");
        out
    })
}

/// `tyr run` on the experiment, with a fault.
fn run(tiny: &Tiny, fault: Option<Fault>) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("tyr"));
    command.args(["run", "spec.toml"]).current_dir(tiny.dir.path());
    command.env("LD_PRELOAD", shim()).env("FAULT_ROOT", tiny.path("runs"));
    command.env("FAULT_COUNT", tiny.path("calls"));
    if let Some(fault) = fault {
        command.env("FAULT_KIND", fault.kind);
        command.env("FAULT_AT", fault.at.to_string());
        command.env("FAULT_FOR", fault.lasts.to_string());
    }
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn artefacts(tiny: &Tiny) -> BTreeMap<&'static str, Vec<u8>> {
    let read = |name: &'static str| {
        (name, std::fs::read(tiny.path(&format!("runs/tiny/{name}"))).unwrap_or_default())
    };
    ARTEFACTS.into_iter().map(read).collect()
}

/// What differs from a run that was left alone.
fn differences(tiny: &Tiny, want: &BTreeMap<&'static str, Vec<u8>>) -> Vec<&'static str> {
    let got = artefacts(tiny);
    let other = want.keys().filter(|name| want[*name] != got[*name]).copied();
    other.chain(half_written(tiny, want)).collect()
}

/// The folder of the model, if it is there and not the whole model, nothing missing and nothing beside it.
fn half_written(tiny: &Tiny, want: &BTreeMap<&'static str, Vec<u8>>) -> Option<&'static str> {
    let model = tiny.path(&format!("runs/tiny/{MODEL}"));
    let mut found = Vec::new();
    if model.is_dir() {
        files(&model, &mut found);
    }
    let whole = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        want.get(format!("{MODEL}/{name}").as_str())
            .is_some_and(|bytes| *bytes == std::fs::read(path).unwrap())
    };
    let files = want.keys().filter(|name| name.starts_with(MODEL)).count();
    let is_whole = found.len() == files && found.iter().all(whole);
    (model.is_dir() && !is_whole).then_some(MODEL)
}

/// Where the last model of a run lies.
const MODEL: &str = "trials/main/model";

/// The entries of the store.
fn entries(tiny: &Tiny) -> Vec<PathBuf> {
    let mut all: Vec<_> =
        std::fs::read_dir(tiny.path("runs/tiny/store")).unwrap().flatten().map(|e| e.path()).collect();
    all.sort();
    all
}

/// Exit codes that pruning may have after a fault: done, or no run in the folder.
const PRUNED: [i32; 2] = [0, 2];

/// Removes what no trial uses.
fn prune(tiny: &Tiny) {
    let run = tiny.path("runs/tiny");
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("tyr"));
    let output = command.arg("cache").arg(run).arg("--prune").output().unwrap();
    let ended_well = output.status.code().is_some_and(|code| PRUNED.contains(&code));
    assert!(ended_well && !said(&output).contains("panicked"), "{:?}\n{}", output.status, said(&output));
}

/// A run left alone: its artefacts, and the calls that it makes.
fn whole() -> (BTreeMap<&'static str, Vec<u8>>, u64) {
    let tiny = Tiny::new();
    let output = run(&tiny, None);
    assert!(output.status.success(), "{}", said(&output));
    let calls = std::fs::read_to_string(tiny.path("calls")).unwrap().trim().parse().unwrap();
    (artefacts(&tiny), calls)
}

/// The i-th fault: kinds in turn, places spread over the whole run by the golden ratio.
fn fault(i: u64, calls: u64) -> Fault {
    let at = 1 + ((i as f64 * 0.618_033_988_75) % 1.0 * calls as f64) as u64;
    match i % 5 {
        0 => Fault { kind: "kill", at, lasts: 1 },
        1 => Fault { kind: "full", at, lasts: 1 },
        2 => Fault { kind: "short", at, lasts: 1_000_000 },
        3 => Fault { kind: "short", at, lasts: 2 },
        _ => Fault { kind: "io", at, lasts: 3 },
    }
}

/// What is wrong with how a run with a fault ended.
fn complaint(fault: Fault, output: &Output) -> Option<String> {
    use std::os::unix::process::ExitStatusExt as _;
    let (code, signal) = (output.status.code(), output.status.signal());
    let ended = match fault.kind {
        "kill" => signal == Some(9) || code == Some(0),
        _ => code == Some(7) || code == Some(0),
    };
    let text = said(output);
    let clear = ended && !text.contains("panicked");
    (!clear).then(|| format!("{fault:?} ends with {code:?} {signal:?}:\n{text}"))
}

/// Makes a fault in a run, runs on, and says what is wrong with the end; the folder goes on with the next fault, so
/// that leftovers of several meet.
fn fault_and_resume(tiny: &Tiny, fault: Fault, want: &BTreeMap<&'static str, Vec<u8>>) -> Option<String> {
    let broken = run(tiny, Some(fault));
    if let Some(model) = half_written(tiny, want) {
        return Some(format!("{fault:?} leaves a part of {model}"));
    }
    prune(tiny);
    let resumed = run(tiny, None);
    let wrong = differences(tiny, want);
    complaint(fault, &broken).or_else(|| {
        let bad = !resumed.status.success() || !wrong.is_empty();
        bad.then(|| format!("{fault:?}: then {:?}, other {wrong:?}:\n{}", resumed.status, said(&resumed)))
    })
}

/// Faults while `more` says so; every third one meets an empty folder.
fn break_and_mend(more: impl Fn(u64) -> bool) {
    let (want, calls) = whole();
    assert!(calls > 100, "only {calls} calls were seen: the library does not catch them");
    let tiny = Tiny::new();
    let mut wrong = Vec::new();
    let mut i = 0;
    while more(i) {
        if i % 3 == 0 {
            std::fs::remove_dir_all(tiny.path("runs")).ok();
        }
        wrong.extend(fault_and_resume(&tiny, fault(i, calls), &want));
        i += 1;
    }
    println!("{i} faults over {calls} calls, {} not mended", wrong.len());
    assert!(wrong.is_empty(), "{} of {i}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Every file below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => files(&path, found),
            path => found.push(path),
        }
    }
    found.sort();
}

/// How a file is damaged.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// One bit is flipped in the middle.
    Flip,
    /// The second half is missing.
    Cut,
    /// The file is gone.
    Gone,
}

fn damage(path: &Path, how: Damage) {
    let mut bytes = std::fs::read(path).unwrap();
    // Another name of the same file must not be damaged with it.
    std::fs::remove_file(path).unwrap();
    let middle = bytes.len() / 2;
    match how {
        Damage::Flip if bytes.is_empty() => return std::fs::write(path, bytes).unwrap(),
        Damage::Flip => bytes[middle] ^= 1,
        Damage::Cut => bytes.truncate(middle),
        Damage::Gone => return,
    }
    std::fs::write(path, bytes).unwrap();
}

/// Damages every `step`-th file of a finished run in each way and runs again.
fn damage_and_mend(step: usize) {
    let tiny = Tiny::new();
    assert!(run(&tiny, None).status.success());
    let want = artefacts(&tiny);
    let mut all = Vec::new();
    files(&tiny.path("runs"), &mut all);
    let mut wrong = Vec::new();
    let mut count = 0;
    for (i, path) in all.iter().enumerate().filter(|(i, _)| i % step == 0) {
        for how in [Damage::Flip, Damage::Cut, Damage::Gone]
            .into_iter()
            .cycle()
            .skip(i / step)
            .take(if step == 1 { 3 } else { 1 })
        {
            if !path.exists() {
                continue;
            }
            let before = entries(&tiny);
            damage(path, how);
            count += 1;
            // A log that lacks lines makes nothing unused.
            if path.ends_with("events.jsonl") {
                prune(&tiny);
                if entries(&tiny) != before {
                    wrong.push(format!("{how:?} {}: used entries are pruned", path.display()));
                }
            }
            let output = run(&tiny, None);
            let other = differences(&tiny, &want);
            if !output.status.success() || !other.is_empty() || said(&output).contains("panicked") {
                let name = path.strip_prefix(tiny.dir.path()).unwrap().display();
                wrong.push(format!(
                    "{how:?} {name}: {:?}, other {other:?}:\n{}",
                    output.status,
                    said(&output)
                ));
                std::fs::remove_dir_all(tiny.path("runs")).unwrap();
                assert!(run(&tiny, None).status.success());
            }
        }
    }
    println!("{count} damaged files, {} not mended", wrong.len());
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_run_with_a_few_faults_ends_as_one_without() {
    break_and_mend(|i| i < 10);
}

#[test]
fn a_few_damaged_files_are_found_and_rebuilt() {
    damage_and_mend(7);
}

#[test]
#[ignore = "slow: part of the slow checks"]
fn a_run_with_many_faults_ends_as_one_without() {
    let seconds = std::env::var("FAULT_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    let began = Instant::now();
    break_and_mend(|_| began.elapsed() < Duration::from_secs(seconds));
}

#[test]
#[ignore = "slow: part of the slow checks"]
fn every_damaged_file_is_found_and_rebuilt() {
    damage_and_mend(1);
}
