//! The surroundings of the program: variables of the environment, and streams that nobody reads or that are
//! full.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]
#![cfg(unix)]

mod common;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::Tiny;

const SECRET: &str = "a-secret-of-mine";

fn check(variables: &[(&str, &[u8])]) -> (Option<i32>, String) {
    let tiny = Tiny::new();
    let variables = variables.iter().map(|(name, value)| (name, OsStr::from_bytes(value)));
    let output = tiny.tyr().args(["check", "spec.toml"]).envs(variables).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// Names of variables that start with `TYR_` in the program's own files, without those of keys.
fn own_variables() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("tests"), root.join("scripts")];
    let mut names = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let text = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
            for found in text.split("var(\"TYR_").skip(1).chain(text.split("var_os(\"TYR_").skip(1)) {
                names.insert(format!("TYR_{}", found.split('"').next().unwrap()));
            }
            for found in text.split("secret(\"TYR_").skip(1) {
                names.insert(format!("TYR_{}", found.split('"').next().unwrap()));
            }
        }
    }
    names
}

#[test]
fn variables_of_the_program_itself_break_no_verb_and_are_not_shown() {
    let own = own_variables();
    assert!(own.contains("TYR_API_KEY") && own.contains("TYR_SHARED"), "{own:?}");
    let secrets: Vec<(&str, &[u8])> = own.iter().map(|name| (name.as_str(), SECRET.as_bytes())).collect();
    let (code, said) = check(&secrets);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains(SECRET), "{said}");
}

#[test]
fn a_variable_that_is_no_key_is_named_and_its_value_is_not_shown() {
    for name in ["TYR_TOKEN", "TYR_API_KEY_2", "TYR_PRUNE__DAMPNG", "TYR_"] {
        let (code, said) = check(&[(name, SECRET.as_bytes())]);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains(name) && !said.contains(SECRET), "{said}");
    }
    let (code, said) = check(&[("TYR_PRUNE__DAMPING", b"much")]);
    assert_eq!(code, Some(3));
    assert!(said.contains("TYR_PRUNE__DAMPING=much"), "the value of a key is what is wrong: {said}");
}

#[test]
fn variables_that_are_no_utf8_are_passed_over_or_named() {
    let (code, said) = check(&[("OTHER", b"\xff")]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = check(&[("TYR_PRUNE__DAMPING", b"\xff")]);
    assert_eq!(code, Some(3));
    assert!(said.contains("TYR_PRUNE__DAMPING is not UTF-8"), "{said}");
}

fn tyr(tiny: &Tiny, redirected: &str) -> Output {
    let program = assert_cmd::cargo::cargo_bin("tyr");
    let line = format!("\"$0\" {redirected}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).arg(program).current_dir(tiny.dir.path()).stdin(Stdio::null());
    shell.output().unwrap()
}

#[test]
fn a_full_or_closed_stderr_changes_nothing() {
    let tiny = Tiny::new();
    // A warning is printed first.
    let lines = "check spec.toml --set evaluate.bos=true --set prune.damping=0";
    for stream in ["/dev/full", "&-"] {
        let warned = tyr(&tiny, &format!("{lines} 2>{stream}"));
        assert_eq!(warned.status.code(), Some(0), "{stream}");
        assert!(String::from_utf8(warned.stdout).unwrap().contains("is fine"));
        let failed = tyr(&tiny, &format!("check nowhere.toml 2>{stream}"));
        assert_eq!(failed.status.code(), Some(3), "{stream}");
    }
    let run = tyr(&tiny, "run spec.toml 2>/dev/full");
    assert_eq!(run.status.code(), Some(0));
    let report = tyr(&tiny, "report runs/tiny 2>/dev/full");
    assert_eq!(report.status.code(), Some(0));
    let usage = tyr(&tiny, "run 2>/dev/full");
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn a_full_stdout_is_an_error_of_the_disk_and_a_closed_one_is_none() {
    let tiny = Tiny::new();
    for verb in ["check spec.toml", "plan spec.toml --no-calibration", "schema", "eval model --text test.txt"]
    {
        let full = tyr(&tiny, &format!("{verb} >/dev/full"));
        assert_eq!(full.status.code(), Some(7), "{verb}");
        assert!(String::from_utf8(full.stderr).unwrap().contains("cannot print"), "{verb}");
        assert_eq!(tyr(&tiny, &format!("{verb} >&-")).status.code(), Some(0), "{verb}");
    }
}
