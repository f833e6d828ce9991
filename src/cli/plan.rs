//! `tyr plan`: what an experiment would do and cost.

use clap::{Args, ValueEnum};

use super::{Experiment, Runs, show, with_known};
use crate::base::{Error, Kind, Result, ResultExt, stderr};
use crate::plan::{self, KeysWanted, Options, Speed};
use crate::spec::{self, Files, Style};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    experiment: Experiment,
    #[command(flatten)]
    runs: Runs,
    /// Measure nothing and estimate no times
    #[arg(long, conflicts_with = "gflops")]
    no_calibration: bool,
    /// Take this rate of f32 products instead of measuring this machine's
    #[arg(long, value_name = "GFLOP/S")]
    gflops: Option<f64>,
    /// When to read model and texts for the steps' keys
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    keys: When,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum When {
    /// When both are there and small
    Auto,
    /// Whenever both are there
    Always,
    /// Never
    Never,
}

impl From<When> for KeysWanted {
    fn from(when: When) -> Self {
        match when {
            When::Auto => Self::Auto,
            When::Always => Self::Always,
            When::Never => Self::Never,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let source = spec::Source { files: Files::MayCome, ..arguments.experiment.source() };
    let loaded = with_known(plan::inputs::sizes, |known| spec::load(&source, known))?;
    stderr::print(&loaded.render_warnings(Style::Plain));
    let options = Options {
        runs: arguments.runs.folder.clone(),
        speed: speed(arguments)?,
        keys: arguments.keys.into(),
    };
    let plan = plan::plan(&loaded, &options)?;
    let text = match arguments.json {
        true => {
            serde_json::to_string_pretty(&plan)
                .or_error(Kind::Internal, "a plan cannot be written as JSON")?
                + "\n"
        }
        false => plan::text(&plan),
    };
    show(&text)
}

fn speed(arguments: &Arguments) -> Result<Speed> {
    match (arguments.no_calibration, arguments.gflops) {
        (true, _) => Ok(Speed::Unknown),
        (false, None) => Ok(Speed::Measured),
        (false, Some(g)) if g > 0.0 && g.is_finite() => Ok(Speed::Given(g * 1e9)),
        (false, Some(g)) => Err(Error::new(Kind::Usage, format!("{g} is not a rate"))
            .at("--gflops")
            .hint("give GFLOP/s, for example 400")),
    }
}
