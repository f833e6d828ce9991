//! `tyr run`: executes an experiment.

use clap::Args;

use super::{Experiment, Runs, show, with_known};
use crate::base::{Result, stderr};
use crate::plan;
use crate::runner::{self, OnFailure};
use crate::spec::{self, Style};

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
        "{}\n{}\nwritten to {}\n",
        finished.distributions,
        finished.tables,
        finished.folder.display()
    ))
}
