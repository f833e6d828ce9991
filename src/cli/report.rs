//! `tyr report RUN…`: the tables of runs, rebuilt from their event logs.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::show;
use crate::base::{Error, Kind, Result, stderr};
use crate::report::{Tables, folder};
use crate::runner::lock::Lock;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Folders of runs, as in runs/NAME; several make one table
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Print the table in this format instead of writing the files of each run
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One figure per row, costs left out
    Csv,
    /// Wide tables
    Markdown,
    /// Booktabs tables
    Latex,
    /// All figures and distributions
    Json,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let read = |run: &PathBuf| Ok((run.clone(), folder::tables(run)?));
    let runs = arguments.runs.iter().map(read).collect::<Result<Vec<_>>>()?;
    match arguments.format {
        Some(format) => show(&printed(&joined(runs), format)?),
        None => {
            runs.iter().try_for_each(|(run, _)| write(run))?;
            show(&joined(runs).terminal())
        }
    }
}

fn printed(tables: &Tables, format: Format) -> Result<String> {
    match format {
        Format::Csv => tables.csv(),
        Format::Markdown => Ok(tables.markdown()),
        Format::Latex => Ok(tables.latex()),
        Format::Json => tables.json(),
    }
}

/// Writes a run's files, unless a process that runs it does so itself.
fn write(run: &Path) -> Result<()> {
    match Lock::take(run) {
        // Read again under the lock: a run may have made progress since.
        Ok(_lock) => folder::publish(run, &folder::tables(run)?)?,
        Err(Error { kind: Kind::Busy, what, .. }) => {
            stderr::print(&format!("note: {what}, and writes the tables of {} itself\n", run.display()));
            return Ok(());
        }
        Err(e) => return Err(e),
    }
    stderr::print(&format!("written to {}\n", run.display()));
    Ok(())
}

/// One run as it is; several under their names, or under their folders where two have the same name.
fn joined(mut runs: Vec<(PathBuf, Tables)>) -> Tables {
    if runs.len() == 1 {
        return runs.swap_remove(0).1;
    }
    let name = |i: usize| runs[i].1.run();
    let unique = (0..runs.len()).all(|i| (0..i).all(|j| name(i) != name(j)));
    let named = |(folder, tables): (PathBuf, Tables)| {
        let name = if unique { tables.run().to_string() } else { folder.display().to_string() };
        (name, tables)
    };
    Tables::joined(runs.into_iter().map(named).collect())
}
