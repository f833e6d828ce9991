//! `tyr sensitivity`: which module of which layer can give what.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Experiment, Runs, show, with_known};
use crate::base::{Kind, Result, ResultExt, files, stderr};
use crate::plan;
use crate::report::plot;
use crate::report::sensitivities::View;
use crate::runner::{self, Sensed};
use crate::spec::{self, Style};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    experiment: Experiment,
    #[command(flatten)]
    runs: Runs,
    /// The trial, where the experiment has several
    #[arg(long, value_name = "LABEL")]
    trial: Option<String>,
    /// Print all numbers as JSON
    #[arg(long)]
    json: bool,
    /// Write a plot of the last round to this file, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let loaded = with_known(plan::inputs::sizes, |known| spec::load(&arguments.experiment.source(), known))?;
    stderr::print(&loaded.render_warnings(Style::Plain));
    let trial = arguments.trial.as_deref();
    let sensed = runner::sensitivities(&loaded, &arguments.runs.folder, trial, &super::watched())?;
    if let (Some(path), Some(round)) = (&arguments.plot, sensed.rounds.last()) {
        let svg = plot::sensitivities(&View { space: &sensed.space, round })?;
        files::write(path, svg.as_bytes())?;
    }
    show(&if arguments.json { as_json(&sensed)? } else { text(&sensed) })
}

/// The last round, around which a search starts.
fn text(sensed: &Sensed) -> String {
    let last = sensed.rounds.last().map(|round| View { space: &sensed.space, round }.text());
    format!("{}\nwritten to {}\n", last.unwrap_or_default(), sensed.file.display())
}

fn as_json(sensed: &Sensed) -> Result<String> {
    let round = |round| {
        let view = View { space: &sensed.space, round };
        let distribution = |candidate| sensed.space.distribution(candidate).removed;
        json!({
            "removed": distribution(&round.around),
            "fitness": round.fitness,
            "tokens": round.tokens,
            "changes": view.changes(),
            "optimum": round.outcome.as_ref().map(|outcome| json!({
                "removed": distribution(&outcome.optimum),
                "predicted": outcome.predicted,
                "fitness": outcome.fitness,
                "gain": outcome.gain,
                "checked": outcome.checked,
            })),
        })
    };
    let rounds: Vec<_> = sensed.rounds.iter().map(round).collect();
    let text = serde_json::to_string_pretty(&rounds);
    Ok(text.or_error(Kind::Internal, "sensitivities cannot be written as JSON")? + "\n")
}
