//! `tyr check`: all findings on an experiment and its script, without reading weights.

use clap::Args;

use super::{Experiment, show, with_known};
use crate::base::{Result, stderr};
use crate::plan;
use crate::spec::{self, Style};

/// Trials whose labels are printed.
const SHOWN: usize = 50;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    experiment: Experiment,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let loaded = with_known(plan::inputs::opened, |known| spec::load(&arguments.experiment.source(), known))?;
    stderr::print(&loaded.render_warnings(Style::Plain));
    let labels: Vec<&str> = loaded.trials.iter().map(|t| t.label.as_str()).collect();
    let file = arguments.experiment.spec.display();
    let plural = if labels.len() == 1 { "" } else { "s" };
    show(&format!("{file} is fine: {} trial{plural} ({})\n", labels.len(), listed(&labels)))
}

/// The first labels, and how many more there are.
fn listed(labels: &[&str]) -> String {
    let (first, rest) = labels.split_at(labels.len().min(SHOWN));
    let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
    format!("{}{more}", first.join(", "))
}
