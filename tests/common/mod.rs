//! A tiny experiment in a temporary folder: a random model of two layers, generated text, a spec.
// Each test file uses a part.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use tyr::model::pico::Pico;

/// A folder with `model/`, `train.txt`, `test.txt` and `spec.toml`.
pub struct Tiny {
    pub dir: tempfile::TempDir,
}

/// The spec of the tiny experiment.
pub const SPEC: &str = r#"
name = "tiny"

[model]
source = "model"

[corpora.text]
train = ["train.txt"]
test = ["test.txt"]

[calibration]
corpus = "text"
tokens = 1024
sequence_length = 32

[supernet]
levels = 5
intervals = [0.25, 0.125]

[search]
generations = 3
offspring = 6
stages = [{ tokens = 64, survivors = 3 }, { tokens = 256, survivors = 1 }]
tokens = 1024

[evaluate]
perplexity = ["text"]
sequence_length = 32
tokens = 1024
kl_tokens = 256
tasks = ["quickstart/yesno", "quickstart/counting"]
limit = 3
"#;

impl Tiny {
    pub fn new() -> Self {
        Self::of(Pico { layers: 2, vocabulary: 68, ..Pico::default() })
    }

    pub fn of(pico: Pico) -> Self {
        let dir = tempfile::tempdir().unwrap();
        pico.write(&dir.path().join("model"), 4).unwrap();
        let text = |split| tyr::builtin::text(split, 6000);
        std::fs::write(dir.path().join("train.txt"), text(tyr::builtin::Split::Calibration)).unwrap();
        std::fs::write(dir.path().join("test.txt"), text(tyr::builtin::Split::Evaluation)).unwrap();
        std::fs::write(dir.path().join("spec.toml"), SPEC).unwrap();
        lengthen_context(&dir.path().join("model/config.json"));
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// `tyr run spec.toml` with more arguments.
    pub fn run(&self, more: &[&str]) -> assert_cmd::assert::Assert {
        self.tyr().args(["run", "spec.toml"]).args(more).assert()
    }

    pub fn tyr(&self) -> Command {
        let mut command = Command::cargo_bin("tyr").unwrap();
        command.current_dir(self.dir.path());
        command
    }
}

/// Task requests of one token per character are long.
fn lengthen_context(config: &Path) {
    let text = std::fs::read_to_string(config).unwrap();
    std::fs::write(
        config,
        text.replace("\"max_position_embeddings\": 256", "\"max_position_embeddings\": 2048"),
    )
    .unwrap();
}

/// What a failed command said and its exit code.
pub fn failure(assert: assert_cmd::assert::Assert) -> (i32, String) {
    let output = assert.failure().get_output().clone();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}
