//! The command line: one file per verb.

mod bench;
mod cache;
mod check;
mod eval;
mod export;
mod generate;
mod plan;
mod report;
mod run;
mod schema;
mod sensitivity;
mod serve;
mod status;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::base::{Kind, Result, ResultExt, stderr};
use crate::data::corpus;
use crate::model::Source;
use crate::report::{Bars, install_interrupt_handler};
use crate::runner::kept::RunFolder;
use crate::spec::{self, Known, LookAtInputs, model_folder};

/// Structural pruning of large language models as declarative experiments.
#[derive(Parser)]
#[command(name = "tyr", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run an experiment; run it again to resume where it stopped
    Run(run::Arguments),
    /// Check an experiment: all errors and warnings, no weights read
    Check(check::Arguments),
    /// Show what an experiment would do and cost: trials, steps, what is cached, memory, disk, time
    Plan(plan::Arguments),
    /// Measure which module of which layer can lose what: the fitness of every single change
    Sensitivity(sensitivity::Arguments),
    /// Show the state of each trial of a run
    Status(status::Arguments),
    /// Rebuild the tables of runs from their event logs
    Report(report::Arguments),
    /// List what a run has stored, and remove what no trial uses
    Cache(cache::Arguments),
    /// Measure perplexity and tasks of any model, dense or pruned
    Eval(eval::Arguments),
    /// Write a model, or the one that a run found, in a form that other runtimes load
    Export(export::Arguments),
    /// Serve a model over HTTP: OpenAI-compatible completions with prompt log-probabilities
    Serve(serve::ServeArgs),
    /// Write text after a prompt
    Generate(generate::GenerateArgs),
    /// Measure how fast models write, several in turn
    Bench(bench::Arguments),
    /// Print the JSON schema of an experiment
    Schema,
}

/// Environment variables of the tool that are no keys of a spec: of the servers, of the harness, and of tests.
const OWN: [&str; 6] = [
    "TYR_API_KEY",
    "TYR_LM_EVAL_TOKEN",
    "TYR_LM_EVAL_PYTHON",
    "TYR_RUNTIMES_PYTHON",
    "TYR_SHARED",
    "TYR_TAPLO",
];

/// Which experiment, and what overrides its file.
#[derive(Args, Clone)]
struct Experiment {
    /// The experiment's TOML file
    spec: PathBuf,
    /// Override a key, for example `--set prune.damping=0.05`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Apply a `[profile.NAME]` of the file
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
}

impl Experiment {
    fn source(&self) -> spec::Source {
        let env = std::env::vars_os().filter(|(name, _)| !OWN.iter().any(|own| name == own)).collect();
        spec::Source {
            path: self.spec.clone(),
            profile: self.profile.clone(),
            env,
            set: self.set.clone(),
            files: spec::Files::MustExist,
        }
    }
}

/// Where experiments leave their results.
#[derive(Args, Clone)]
struct Runs {
    /// Folder of all runs; an experiment's own is `<DIR>/<name>/`
    #[arg(long = "runs", value_name = "DIR", default_value = "runs")]
    folder: PathBuf,
}

/// What a spec may name beside its own tables; `inputs` looks at the files that it names.
fn with_known<T>(inputs: LookAtInputs, use_: impl FnOnce(&Known) -> T) -> T {
    let tasks = crate::eval::known();
    let names: Vec<&str> = tasks.iter().map(String::as_str).collect();
    use_(&Known { corpora: corpus::KNOWN, tasks: &names, script: crate::fitness::check, inputs })
}

/// Parses the command line and runs the verb; errors go to stderr and decide the exit code.
pub fn main() -> ExitCode {
    report_file_limit();
    let result = match Cli::parse().verb {
        Verb::Run(arguments) => run::run(&arguments),
        Verb::Check(arguments) => check::run(&arguments),
        Verb::Plan(arguments) => plan::run(&arguments),
        Verb::Sensitivity(arguments) => sensitivity::run(&arguments),
        Verb::Status(arguments) => status::run(&arguments),
        Verb::Report(arguments) => report::run(&arguments),
        Verb::Cache(arguments) => cache::run(&arguments),
        Verb::Eval(arguments) => from_the_start(NOTHING_KEPT, eval::run(&arguments)),
        Verb::Export(arguments) => from_the_start(export::KEPT, export::run(&arguments, &watched())),
        Verb::Serve(arguments) => from_the_start(NOTHING_KEPT, serve::run(&arguments, &watched())),
        Verb::Generate(arguments) => from_the_start(NOTHING_KEPT, generate::run(&arguments, &watched())),
        Verb::Bench(arguments) => from_the_start(NOTHING_KEPT, bench::run(&arguments, &watched())),
        Verb::Schema => schema::run(),
    };
    conclude(result)
}

/// The command line as clap knows it: for tests of what the documents say.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The files of a model that the command line names.
///
/// # Errors
/// There are none; a run's folder, whose models the hint names.
fn model_source(named: &str) -> Result<Source> {
    match model_folder(named).and_then(RunFolder::of) {
        Some(run) => Err(run.is_no_model()),
        None => Source::resolve(named),
    }
}

/// Of a verb that cannot be resumed: what is true after Ctrl-C.
fn from_the_start(hint: &'static str, result: Result<()>) -> Result<()> {
    result.map_err(|e| if e.kind == Kind::Interrupted { e.hint(hint) } else { e })
}

/// What a verb that only measures or prints keeps when it is stopped.
const NOTHING_KEPT: &str = "nothing is kept: the same command starts from the beginning";

/// Prints to stdout; a reader that has closed the pipe is not an error.
fn show(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.or_error(Kind::Disk, "cannot print"),
    }
}

/// Lets a write beyond the limit on the size of files (`ulimit -f`) fail with an error, which is reported, where
/// the system would end the process without a word.
fn report_file_limit() {
    // SAFETY: signal(2) takes any signal, and ignoring one runs no code of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Progress on stderr, stopped by Ctrl-C.
fn watched() -> Bars {
    install_interrupt_handler();
    Bars::new()
}

fn conclude(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let heading = if e.kind == Kind::Interrupted { "" } else { "error: " };
            stderr::print(&format!("{heading}{e}\n"));
            ExitCode::from(e.kind.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Error, Watch};

    struct Stopped;

    impl Watch for Stopped {
        fn begin(&self, _what: &str, _units: u64) {}
        fn advance(&self, _units: u64) {}
        fn end(&self) {}
        fn note(&self, _message: &str) {}
        fn stopped(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_verb_that_cannot_be_resumed_does_not_say_that_it_can() {
        let stopped = || Stopped.checkpoint();
        let of_run = stopped().unwrap_err();
        for kept in [NOTHING_KEPT, export::KEPT] {
            let e = from_the_start(kept, stopped()).unwrap_err();
            assert_eq!((e.kind, e.hint.as_deref()), (Kind::Interrupted, Some(kept)));
            assert!(of_run.to_string().contains("resume") && !e.to_string().contains("resume"), "{e}");
        }
        let other = Error::new(Kind::Disk, "full").hint("free some");
        assert_eq!(from_the_start(NOTHING_KEPT, Err(other.clone())), Err(other));
    }
}
