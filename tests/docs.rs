//! What the documents tell users to type: every command is one that the program takes, every snippet of a
//! spec one that loads.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod common;

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use common::Tiny;
use tyr::spec::{Known, Severity, Source, Style, inspect};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// The front page and the folder `docs`, name and text.
fn documents() -> Vec<(String, String)> {
    let folder = std::fs::read_dir(root().join("docs")).unwrap().map(|e| e.unwrap().path());
    let mut paths: Vec<PathBuf> = folder
        .chain([root().join("README.md")])
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(p).unwrap()))
        .collect()
}

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(name)) => open = Some((name == language, String::new())),
            (Some((wanted, block)), Some(_)) => {
                if *wanted {
                    found.push(std::mem::take(block));
                }
                open = None;
            }
            (Some((_, block)), None) => block.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// A line of a shell as words: spaces separate, quotes keep together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "a quote is not closed: {line}");
    words.extend(word);
    words
}

/// The arguments of every `tyr` in a shell block, the program's name first; what has another name is left
/// out.
fn commands(block: &str) -> Vec<Vec<String>> {
    let joined = block.replace("\\\n", " ");
    let lines = joined
        .lines()
        .map(|line| line.split(" # ").next().unwrap_or(line).trim())
        .filter(|line| !line.starts_with('#'));
    let program = |line: &str| {
        let all = words(line);
        let assignments = all.iter().take_while(|w| {
            w.split_once('=').is_some_and(|(k, _)| k.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        });
        let all = all[assignments.count()..].to_vec();
        let starts =
            |with: &[&str]| all.len() >= with.len() && all.iter().zip(with).all(|(word, with)| word == with);
        let behind = if starts(&["tyr"]) {
            1
        } else if starts(&["cargo", "run", "--release", "--"]) {
            4
        } else {
            return None;
        };
        Some([vec!["tyr".to_string()], all[behind..].to_vec()].concat())
    };
    lines.filter_map(program).collect()
}

/// What is wrong with a command line, if anything.
fn refused(command: &[String]) -> Option<clap::Error> {
    tyr::cli::command().try_get_matches_from(command).err()
}

#[test]
fn every_command_in_a_shell_block_is_one_that_the_program_takes() {
    let mut seen = 0;
    for (name, text) in documents() {
        for command in blocks(&text, "sh").iter().flat_map(|block| commands(block)) {
            seen += 1;
            assert!(refused(&command).is_none(), "{name}: {command:?}: {}", refused(&command).unwrap());
        }
    }
    assert!(seen >= 15, "{seen}");
}

#[test]
fn every_command_in_a_sentence_names_a_verb_and_options_that_exist() {
    let mut verbs = std::collections::BTreeSet::new();
    for (name, text) in documents() {
        // Blocks are left out: what is between single backticks stands on the odd places.
        let prose: String = text.split("```").step_by(2).collect();
        for command in prose.split('`').skip(1).step_by(2).filter(|code| code.starts_with("tyr ")) {
            let error = refused(&words(command)).map(|e| (e.kind(), e.to_string()));
            let fine = matches!(&error, None | Some((ErrorKind::MissingRequiredArgument, _)));
            assert!(fine, "{name}: `{command}`: {}", error.unwrap().1);
            verbs.extend(command.split_whitespace().nth(1).map(str::to_string));
        }
    }
    let all: Vec<String> =
        tyr::cli::command().get_subcommands().map(|verb| verb.get_name().to_string()).collect();
    assert!(all.iter().all(|verb| verbs.contains(verb)), "the documents lack one of {all:?}");
}

#[test]
fn scripts_and_experiments_that_shell_blocks_name_are_there() {
    for (name, text) in documents() {
        for word in blocks(&text, "sh").iter().flat_map(|block| words(&block.replace("\\\n", " "))) {
            let ours = ["experiments/", "scripts/", "docs/"].iter().any(|folder| word.starts_with(folder));
            assert!(!ours || root().join(&word).exists(), "{name}: there is no {word}");
        }
    }
}

#[test]
fn every_snippet_of_a_spec_loads() {
    let tiny = Tiny::new();
    let scripts = tiny.path("fitness");
    std::fs::create_dir(&scripts).unwrap();
    for script in std::fs::read_dir(root().join("experiments/fitness")).unwrap().map(|e| e.unwrap().path()) {
        std::fs::copy(&script, scripts.join(script.file_name().unwrap())).unwrap();
    }
    let tasks = tyr::eval::known();
    let tasks: Vec<&str> = tasks.iter().map(String::as_str).collect();
    let known = Known {
        corpora: tyr::data::corpus::KNOWN,
        tasks: &tasks,
        script: tyr::fitness::check,
        inputs: tyr::plan::inputs::sizes,
    };
    let mut seen = 0;
    for (name, text) in documents() {
        for snippet in blocks(&text, "toml") {
            seen += 1;
            std::fs::write(tiny.path("snippet.toml"), &snippet).unwrap();
            let checked =
                inspect(&Source { path: tiny.path("snippet.toml"), ..Source::default() }, &known).unwrap();
            // A snippet may name files that only its reader has.
            let wrong = checked
                .findings
                .iter()
                .any(|f| f.severity == Severity::Error && !f.message.starts_with("there is no "));
            assert!(!wrong, "{name}:\n{snippet}\n{}", checked.render(Style::Plain));
        }
    }
    assert!(seen >= 8, "{seen}");
}

#[test]
fn a_command_line_is_read_as_a_shell_reads_it() {
    let block = "# a remark\ncd x\nTYR_SEED=3 tyr run a.toml \\\n  --set 'model.source=\"x y\"' # go\ncargo run --release -- check b.toml\n";
    let found = commands(block);
    assert_eq!(found[0], ["tyr", "run", "a.toml", "--set", "model.source=\"x y\""]);
    assert_eq!(found[1], ["tyr", "check", "b.toml"]);
    assert_eq!(found.len(), 2);
    assert!(refused(&["tyr".into(), "rnu".into()]).is_some());
}
