//! `tyr status RUN`: the state of each trial of a run.

use std::path::PathBuf;

use clap::Args;

use super::show;
use crate::base::Result;
use crate::report::{folder, log, status::status};
use crate::runner::lock::{Holder, holder};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The run's folder, as in runs/NAME
    run: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let events = folder::events(&arguments.run)?;
    let holder = match holder(&arguments.run)? {
        Holder::Process(id) => Some(id),
        Holder::None => None,
    };
    show(&status(&events, holder.as_deref(), log::now()))
}
