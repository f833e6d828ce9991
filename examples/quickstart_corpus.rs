//! Writes the texts and tasks of `builtin:quickstart` to a folder, for `scripts/quickstart`.
//!
//! `cargo run --release --example quickstart_corpus -- OUT_DIR [TRAIN_MEGABYTES]`
#![allow(clippy::unwrap_used, clippy::expect_used)] // what fails here may end the program

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};
use tyr::builtin::{Sample, Split, TASKS, samples, text};

/// Bytes of training text when none are requested.
const TRAIN_MEGABYTES: usize = 14;
/// Bytes of held-out text.
const VALIDATION_BYTES: usize = 400_000;
/// Samples of each task.
const SAMPLES: usize = 400;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let out = PathBuf::from(args.next().ok_or("name a folder to write to")?);
    let megabytes = args.next().map_or(Ok(TRAIN_MEGABYTES), |arg| arg.parse())?;
    fs::create_dir_all(&out)?;
    fs::write(out.join("train.txt"), text(Split::Train, megabytes * 1_000_000))?;
    fs::write(out.join("validation.txt"), text(Split::Evaluation, VALIDATION_BYTES))?;
    for task in TASKS {
        write_task(&out, task.name)?;
    }
    Ok(())
}

fn write_task(out: &Path, name: &str) -> Result<(), Box<dyn Error>> {
    let samples = samples(name, SAMPLES).ok_or("a task of TASKS is unknown")?;
    let lines: Vec<String> = samples.iter().map(line).collect();
    fs::write(out.join(format!("{name}.jsonl")), lines.concat())?;
    Ok(())
}

fn line(sample: &Sample) -> String {
    let json = serde_json::json!({
        "context": sample.context, "choices": sample.choices, "gold": sample.gold,
    });
    format!("{json}\n")
}
