//! A module uses only modules above it in this table.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The modules, one layer per line; modules of one line do not use each other.
const LAYERS: [&[&str]; 23] = [
    &["base"],
    &["builtin"],
    &["space"],
    &["schedule"],
    &["spec"],
    &["search"],
    &["tensor"],
    &["model"],
    &["data"],
    &["prune"],
    &["supernet"],
    &["fitness"],
    &["eval"],
    &["generate"],
    &["export"],
    &["bench"],
    &["serve"],
    &["trial"],
    &["report"],
    &["plan"],
    &["runner"],
    &["cli"],
    &["main"],
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => sources(&path, found),
            path if path.extension().is_some_and(|e| e == "rs") => found.push(path),
            _ => {}
        }
    }
}

/// The text before the unit tests, which may look anywhere.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

#[test]
fn every_module_uses_only_modules_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rank: BTreeMap<&str, usize> =
        LAYERS.iter().enumerate().flat_map(|(i, names)| names.iter().map(move |n| (*n, i))).collect();
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut broken = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        let module = relative.split('/').next().unwrap().trim_end_matches(".rs");
        if module == "lib" || relative.contains("tests") || relative.ends_with("testing.rs") {
            continue;
        }
        let own = *rank.get(module).unwrap_or_else(|| panic!("{module} has no place in the table of layers"));
        let text = std::fs::read_to_string(&file).unwrap();
        for used in without_tests(&text).split("crate::").skip(1) {
            let name: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if rank.get(name.as_str()).is_some_and(|r| *r >= own) && name != module {
                broken.push(format!("{relative} uses {name}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_library_lists_its_modules_in_the_order_of_the_layers() {
    let listed = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let listed = listed.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let in_layers = LAYERS.iter().flat_map(|names| names.iter().copied()).filter(|name| *name != "main");
    assert_eq!(listed.collect::<Vec<_>>(), in_layers.collect::<Vec<_>>());
}

#[test]
fn every_module_says_what_it_owns_and_stays_short() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("//!") || text.is_empty() || file.to_str().unwrap().contains("tests"),
            "{} does not say what it owns",
            file.display()
        );
        let lines = text.lines().count();
        assert!(lines <= 500, "{} has {lines} lines", file.display());
    }
}
