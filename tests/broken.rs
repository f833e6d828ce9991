//! Broken experiments and scripts, and the whole message that each gets: `tests/broken/*.toml` with a `.txt`
//! beside each.
//!
//! `WRITE_GENERATED=1 cargo test --test broken` rewrites the messages.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::path::{Path, PathBuf};

use assert_cmd::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken")
}

fn files(extension: &str) -> Vec<String> {
    let paths = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().path());
    let mut names: Vec<String> = paths
        .filter(|p| p.extension().is_some_and(|e| e == extension))
        .map(|p| p.file_stem().unwrap().to_str().unwrap().to_string())
        .collect();
    names.sort();
    names
}

/// The words behind `# WHAT: ` at the head of a file.
fn words<'a>(text: &'a str, what: &str) -> Vec<&'a str> {
    let line = text.lines().find_map(|l| l.strip_prefix(&format!("# {what}: ")));
    line.unwrap_or_default().split_whitespace().collect()
}

/// The command and all that it says.
fn printed(name: &str) -> String {
    let file = format!("{name}.toml");
    let text = std::fs::read_to_string(folder().join(&file)).unwrap();
    let arguments = words(&text, "arguments");
    let environment = words(&text, "environment");
    let variables = environment.iter().map(|assignment| assignment.split_once('=').unwrap());
    let mut tyr = Command::cargo_bin("tyr").unwrap();
    let output =
        tyr.current_dir(folder()).envs(variables).args(["check", &file]).args(&arguments).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0), "{name}");
    let line = environment
        .iter()
        .chain(&["tyr", "check", file.as_str()])
        .chain(&arguments)
        .copied()
        .collect::<Vec<_>>()
        .join(" ");
    format!("$ {line}\n{}", String::from_utf8(output.stderr).unwrap())
}

#[test]
fn every_broken_experiment_gets_the_message_beside_it() {
    let mut stale = Vec::new();
    for name in files("toml") {
        let path = folder().join(format!("{name}.txt"));
        let printed = printed(&name);
        if std::env::var_os("WRITE_GENERATED").is_some() {
            std::fs::write(&path, &printed).unwrap();
        }
        if std::fs::read_to_string(&path).unwrap_or_default() != printed {
            stale.push(format!("{name}.txt is stale; now:\n{printed}"));
        }
    }
    assert!(stale.is_empty(), "{}", stale.join("\n"));
}

#[test]
fn there_are_ten_broken_specs_and_three_broken_scripts_at_least() {
    let (specs, scripts): (Vec<String>, Vec<String>) =
        files("toml").into_iter().partition(|name| !name.starts_with("script"));
    assert!(specs.len() >= 10 && scripts.len() >= 3);
    assert_eq!(files("rhai"), scripts);
    assert_eq!(files("txt").len(), specs.len() + scripts.len());
}

#[test]
fn messages_have_a_place_and_name_no_folder_of_this_machine() {
    for name in files("txt") {
        let text = std::fs::read_to_string(folder().join(format!("{name}.txt"))).unwrap();
        assert!(!text.contains(env!("CARGO_MANIFEST_DIR")), "{text}");
        assert!(text.contains("─["), "{name} has no place:\n{text}");
    }
}
