//! `tyr check`: all findings on an experiment and its script, without reading weights.

use clap::Args;

use super::{Experiment, show, with_known};
use crate::base::Result;
use crate::spec::{self, Style};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    experiment: Experiment,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let loaded = with_known(|known| spec::load(&arguments.experiment.source(), known))?;
    eprint!("{}", loaded.render_warnings(Style::Plain));
    let trials: Vec<&str> = loaded.trials.iter().map(|t| t.label.as_str()).collect();
    let file = arguments.experiment.spec.display();
    let plural = if trials.len() == 1 { "" } else { "s" };
    show(&format!("{file} is fine: {} trial{plural} ({})\n", trials.len(), trials.join(", ")))
}
