//! `tyr run`: executes an experiment.

use std::path::Path;

use clap::Args;

use super::{Experiment, Runs, show, with_known};
use crate::base::{Result, stderr};
use crate::plan;
use crate::report::folder::trial;
use crate::runner::{self, EXPORTS, OnFailure, kept};
use crate::spec::{self, Loaded, Style};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    experiment: Experiment,
    #[command(flatten)]
    runs: Runs,
    /// Stop at the first trial that fails
    #[arg(long)]
    fail_fast: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let loaded = with_known(plan::inputs::sizes, |known| spec::load(&arguments.experiment.source(), known))?;
    stderr::print(&loaded.render_warnings(Style::Plain));
    let on_failure = if arguments.fail_fast { OnFailure::Stop } else { OnFailure::KeepGoing };
    let finished = runner::run(&loaded, &arguments.runs.folder, on_failure, &super::watched())?;
    show(&format!(
        "{}\n{}\nwritten to {}\n{}",
        finished.distributions,
        finished.tables,
        finished.folder.display(),
        next(&finished.folder, &loaded)
    ))
}

/// What to do with the models: where they are, and how other runtimes get them.
fn next(folder: &Path, loaded: &Loaded) -> String {
    let labels: Vec<&str> = loaded.trials.iter().map(|trial| trial.label.as_str()).collect();
    let left: Vec<&str> = labels.iter().copied().filter(|label| kept::last(folder, label).is_ok()).collect();
    let Some(first) = left.first() else { return String::new() };
    let (model, choice) = match (&left[..], labels.len()) {
        ([only], 1) => (*only, String::new()),
        _ => ("*", format!(" --trial {}", quoted(first))),
    };
    let exports = trial(folder, first).join(EXPORTS);
    let folder = folder.display();
    if exports.is_dir() {
        return format!(
            "the model:  {folder}/trials/{model}/model\nits exports: {folder}/trials/{model}/{EXPORTS}\n"
        );
    }
    format!(
        "the model:  {folder}/trials/{model}/model (tyr eval, tyr generate, tyr serve; transformers)\n\
         elsewhere:  tyr export {folder}{choice} --to gguf (llama.cpp, Ollama), mlx or stock\n"
    )
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "._-=+/,".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}
