//! `tyr check`: all findings on an experiment, without reading weights.

use clap::Args;

use super::{Experiment, with_known};
use crate::base::Result;
use crate::spec::{self, Style};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    experiment: Experiment,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let loaded = with_known(|known| spec::load(&arguments.experiment.source(), known))?;
    eprint!("{}", loaded.render_warnings(Style::Plain));
    loaded
        .trials
        .iter()
        .filter_map(|t| t.spec.fitness.script.as_ref().map(|s| (s, &t.spec.fitness.corpora)))
        .try_for_each(|(script, corpora)| crate::fitness::check(script, corpora))?;
    let trials: Vec<&str> = loaded.trials.iter().map(|t| t.label.as_str()).collect();
    println!(
        "{} is fine: {} trial{} ({})",
        arguments.experiment.spec.display(),
        trials.len(),
        if trials.len() == 1 { "" } else { "s" },
        trials.join(", ")
    );
    Ok(())
}
