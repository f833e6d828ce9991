//! What an editor says of the experiments that ship: the TOML language server's own check against the
//! committed schema.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// `$TYR_TAPLO`, or `taplo` where the shell finds it; says that the test is skipped where neither is there.
fn taplo() -> Option<PathBuf> {
    let named = std::env::var_os("TYR_TAPLO").map(PathBuf::from);
    let found = || {
        std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|folder| folder.join("taplo"))
            .find(|p| p.is_file())
    };
    let taplo = named.or_else(found);
    if taplo.is_none() {
        eprintln!(
            "skipped: there is no taplo (npm install @taplo/cli, then set TYR_TAPLO to the executable)"
        );
    }
    taplo
}

fn specs(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
        match path.extension() {
            _ if path.is_dir() => specs(&path, found),
            Some(e) if e == "toml" => found.push(path),
            _ => {}
        }
    }
}

fn check(taplo: &Path, arguments: &[&str], files: &[PathBuf]) -> Output {
    Command::new(taplo).arg("check").args(arguments).args(files).current_dir(root()).output().unwrap()
}

#[test]
fn every_experiment_satisfies_the_committed_schema() {
    let Some(taplo) = taplo() else { return };
    let schema = format!("file://{}", root().join("schemas/experiment.schema.json").display());
    let mut files = Vec::new();
    specs(&root().join("experiments"), &mut files);
    assert!(files.len() >= 4);
    let checked = check(&taplo, &["--schema", &schema], &files);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn the_schema_that_an_experiment_names_is_found_and_refuses_a_typo() {
    let Some(taplo) = taplo() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("typo.toml");
    std::fs::copy(root().join("schemas/experiment.schema.json"), dir.path().join("experiment.schema.json"))
        .unwrap();
    let spec = "#:schema ./experiment.schema.json\n[prune]\ndamping = 0.1\n";
    std::fs::write(&file, spec).unwrap();
    assert!(check(&taplo, &[], std::slice::from_ref(&file)).status.success());
    std::fs::write(&file, spec.replace("damping", "dampng")).unwrap();
    let refused = check(&taplo, &[], &[file]);
    let printed = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && printed.contains("dampng"), "{printed}");
}
