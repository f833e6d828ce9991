//! What the pages of `docs`, the README and `CONTRIBUTING.md` name: rooms, files, modules and items that exist.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Folders of the repository that documents name.
const FOLDERS: [&str; 10] = [
    ".ci/",
    "assets/",
    "benches/",
    "docs/",
    "examples/",
    "experiments/",
    "schemas/",
    "scripts/",
    "src/",
    "tests/",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// The pages of `docs`, the README and the page for contributors.
fn documents() -> Vec<String> {
    let pages = std::fs::read_dir(root().join("docs")).unwrap();
    let names = pages.map(|e| e.unwrap().file_name().into_string().unwrap());
    let pages = names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}"));
    pages.chain(["README.md".to_string(), "CONTRIBUTING.md".to_string()]).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What stands between single backticks outside of fenced blocks, comments of tables included.
fn code(text: &str) -> Vec<&str> {
    text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2)).collect()
}

/// The rooms that the architecture's table lists, in its order.
fn listed() -> Vec<String> {
    let text = read("docs/architecture.md");
    let table = text.split("\n## ").find(|section| section.starts_with("Rooms")).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(room, _)| room.to_string()).collect()
}

/// The rooms of the table of layers, from the lowest on.
fn layers() -> Vec<String> {
    let text = read("tests/layers.rs");
    let table = text.split("const LAYERS").nth(1).unwrap().split("\n];").next().unwrap();
    let names = table.split('"').skip(1).step_by(2).map(str::to_string);
    names.filter(|name| name != "main").collect()
}

/// The rooms that are there: folders and files directly below `src`.
fn present() -> BTreeSet<String> {
    let entries = std::fs::read_dir(root().join("src")).unwrap();
    let names = entries.map(|e| e.unwrap().path().file_stem().unwrap().to_str().unwrap().to_string());
    names.filter(|name| name != "lib" && name != "main").collect()
}

/// All Rust text below a room, or the room's own file.
fn source_of(room: &str) -> String {
    fn add(path: &Path, text: &mut String) {
        if path.is_dir() {
            std::fs::read_dir(path).unwrap().for_each(|e| add(&e.unwrap().path(), text));
        } else if path.extension().is_some_and(|e| e == "rs") {
            *text += &std::fs::read_to_string(path).unwrap();
        }
    }
    let mut text = String::new();
    add(&root().join("src").join(room), &mut text);
    let file = root().join(format!("src/{room}.rs"));
    if file.exists() {
        add(&file, &mut text);
    }
    text
}

/// Whether the text defines an item or a module of this name.
fn defines(text: &str, name: &str) -> bool {
    ["fn", "struct", "enum", "trait", "type", "const", "static", "mod"].iter().any(|keyword| {
        text.match_indices(&format!("{keyword} {name}")).any(|(at, found)| {
            let next = text[at + found.len()..].chars().next();
            next.is_none_or(|c| !c.is_alphanumeric() && c != '_')
        })
    })
}

/// Whether a path has a part in capitals, which stands for a name of the reader's choice.
fn is_pattern(path: &str) -> bool {
    let part = |part: &str| {
        let stem = part.split('.').next().unwrap_or_default();
        stem.len() > 1 && stem.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    };
    path.contains('*') || path.split('/').any(part)
}

#[test]
fn the_rooms_of_the_page_are_those_of_the_layers_and_of_the_sources() {
    assert_eq!(listed(), layers(), "docs/architecture.md lists rooms unlike tests/layers.rs");
    assert_eq!(layers().into_iter().collect::<BTreeSet<_>>(), present(), "tests/layers.rs and src differ");
}

#[test]
fn every_file_and_folder_that_the_documents_name_exists() {
    let mut seen = 0;
    let mut missing = Vec::new();
    for document in documents() {
        let text = read(&document);
        let names = code(&text).into_iter().flat_map(str::split_whitespace);
        for name in names.filter(|n| FOLDERS.iter().any(|folder| n.starts_with(folder)) && !is_pattern(n)) {
            seen += 1;
            if !root().join(name).exists() {
                missing.push(format!("{document}: there is no {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(seen >= 60, "{seen}");
}

#[test]
fn every_module_and_item_that_the_page_names_exists() {
    let text = read("docs/architecture.md");
    let rooms = present();
    let mut seen = 0;
    let mut missing = Vec::new();
    for path in code(&text) {
        let parts: Vec<&str> = path.split("::").collect();
        if parts.len() < 2 || !rooms.contains(parts[0]) {
            assert!(!path.contains("::"), "{path} begins with no room");
            continue;
        }
        seen += 1;
        let source = source_of(parts[0]);
        for name in parts[1..].iter().filter(|name| !defines(&source, name)) {
            missing.push(format!("{path}: {} does not define {name}", parts[0]));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(seen >= 15, "{seen}");
}

#[test]
fn every_test_and_bench_that_the_commands_name_exists() {
    let mut seen = 0;
    for document in documents() {
        let text = read(&document);
        let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c == '`').collect();
        for pair in words.windows(2) {
            let folder = match pair[0] {
                "--test" => "tests",
                "--bench" => "benches",
                _ => continue,
            };
            seen += 1;
            assert!(root().join(format!("{folder}/{}.rs", pair[1])).exists(), "{document}: {pair:?}");
        }
    }
    assert!(seen >= 4, "{seen}");
}

#[test]
fn definitions_are_found_by_their_whole_name() {
    assert!(defines("pub trait Steps {", "Steps") && defines("pub mod keys;", "keys"));
    assert!(!defines("pub struct StepsTaken;", "Steps") && !defines("let steps = 1;", "steps"));
    assert!(is_pattern("src/prune/METHOD.rs") && is_pattern("tests/broken/*.txt"));
    assert!(!is_pattern("docs/architecture.md") && !is_pattern("src/cli/mod.rs"));
}
