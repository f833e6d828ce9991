//! `tyr bench MODEL…`: how fast models write, in turn.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Device;
use clap::Args;

use super::serve::parse_device;
use crate::base::{Error, Kind, Result, Watch, files, last_part};
use crate::bench::{self, Report, Workload};
use crate::model::{Config, Model, Source};
use crate::report::speed::{csv, markdown, terminal};
use crate::spec::{self, DeviceChoice};
use crate::tensor::device;

#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Models: folders, `hf:OWNER/NAME` or `builtin:quickstart`; ratios are to the first
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
    /// Tokens of a prompt, comma-separated; prompts are random tokens
    #[arg(long, value_delimiter = ',', default_value = "512", value_name = "TOKENS", value_parser = at_least::<1>)]
    prompt: Vec<usize>,
    /// Tokens written after it, at least 2, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "64", value_name = "TOKENS", value_parser = at_least::<2>)]
    output: Vec<usize>,
    /// Texts written at once, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "TEXTS", value_parser = at_least::<1>)]
    batch: Vec<usize>,
    /// Rounds that count; one more before them does not
    #[arg(long, default_value_t = 5, value_parser = at_least::<1>)]
    repeats: usize,
    /// Seed of the prompts
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Device: auto, cpu, cuda or metal
    #[arg(long, default_value = "auto", value_parser = parse_device)]
    device: DeviceChoice,
    /// Also write bench.csv and bench.md into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn at_least<const LEAST: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number < LEAST => Err(format!("it takes {LEAST} at least")),
        Ok(number) => Ok(number),
        Err(e) => Err(format!("{e}")),
    }
}

const CSV: &str = "bench.csv";
const MARKDOWN: &str = "bench.md";

/// Everything that can be refused is, before a weight is read.
pub(super) fn run(arguments: &Arguments, watch: &dyn Watch) -> Result<()> {
    let Arguments { prompt, output, batch, repeats, .. } = arguments.clone();
    let bench = spec::Bench { prompt, output, batch, repeats };
    once(&bench)?;
    let workloads = Workload::all(&bench);
    let device = device(arguments.device)?;
    let models = entrants(arguments)?;
    let sized: Vec<(&str, &Config)> = models.iter().map(|m| (m.name.as_str(), &m.config)).collect();
    bench::check(&sized, &workloads, &device)?;
    arguments.out.as_deref().map_or(Ok(()), ready)?;
    let report = measure(arguments, &models, &workloads, &device, watch)?;
    // Shown even if it cannot be written.
    let written = arguments.out.as_deref().map_or(Ok(()), |folder| write(folder, &report));
    super::show(&terminal(&report))?;
    written
}

/// Each workload once.
fn once(bench: &spec::Bench) -> Result<()> {
    match bench.repeated().first() {
        None => Ok(()),
        Some((list, _, number)) => Err(Error::new(Kind::Usage, format!("{number} is given twice"))
            .at(format!("--{list}"))
            .hint("leave one of them out: every combination is timed once")),
    }
}

/// A model as it was given.
struct Entrant {
    name: String,
    source: Source,
    config: Config,
}

/// The models, each once, with their configurations.
fn entrants(arguments: &Arguments) -> Result<Vec<Entrant>> {
    let mut all: Vec<Entrant> = Vec::new();
    for (given, name) in arguments.models.iter().zip(names(&arguments.models)) {
        let source = super::model_source(given)?;
        if all.iter().any(|other| is_same(&other.source, &source)) {
            return Err(Error::new(Kind::Usage, "a model that is named twice")
                .at(given)
                .hint("name each model once; another copy of its folder is another model"));
        }
        let parsed = Config::parse(&source.text("config.json")?).map_err(|e| e.at("config.json"));
        let config = parsed.map_err(|e| e.at(source.place()))?;
        all.push(Entrant { name, source, config });
    }
    Ok(all)
}

fn is_same(one: &Source, other: &Source) -> bool {
    match (one, other) {
        (Source::Folder(one), Source::Folder(other)) => {
            let whole = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
            whole(one) == whole(other)
        }
        _ => one == other,
    }
}

/// Tries the folder of `--out`: what was measured for minutes is not to be lost for its sake.
fn ready(folder: &Path) -> Result<()> {
    files::ready_folder(folder).map_err(|e| e.at("--out"))?;
    let taken = [CSV, MARKDOWN].into_iter().map(|name| folder.join(name)).find(|path| path.is_dir());
    match taken {
        None => Ok(()),
        Some(path) => Err(Error::new(Kind::Disk, "a folder has the name of a file that is to be written")
            .at(format!("--out: {}", path.display()))
            .hint("name another folder")),
    }
}

fn write(folder: &Path, report: &Report) -> Result<()> {
    files::write(&folder.join(CSV), csv(report)?.as_bytes())?;
    files::write(&folder.join(MARKDOWN), markdown(report).as_bytes())
}

/// Each model alone, for its memory; then all of them in turn.
fn measure(
    arguments: &Arguments,
    entrants: &[Entrant],
    workloads: &[Workload],
    device: &Device,
    watch: &dyn Watch,
) -> Result<Report> {
    let seed = arguments.seed;
    let sources: Vec<(&str, &Source)> = entrants.iter().map(|e| (e.name.as_str(), &e.source)).collect();
    let sizes = bench::sizes(&sources, device, workloads, seed, watch)?;
    let open = |e: &Entrant| {
        let model = Model::open(&e.source, device)?;
        model.tell(watch);
        Ok(model)
    };
    let models: Vec<Model> = entrants.iter().map(open).collect::<Result<_>>()?;
    let each = entrants.iter().zip(&models).zip(sizes);
    let each = each.map(|((e, model), size)| (e.name.clone(), model, size));
    bench::run(each.collect(), workloads, arguments.repeats, seed, watch)
}

/// The last part of each model's name; as much as was given where that part is not its alone.
fn names(models: &[String]) -> Vec<String> {
    let last = |model: &str| last_part(model).to_string();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    models.iter().for_each(|model| *counts.entry(last(model)).or_default() += 1);
    models.iter().map(|model| if counts[&last(model)] == 1 { last(model) } else { model.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_called_by_the_ends_of_their_names_where_those_differ() {
        let of = |models: &[&str]| names(&models.iter().map(|m| m.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&["hf:a/smol", "runs/x/half/"]), ["smol", "half"]);
        assert_eq!(of(&["a/model", "b/model", "c"]), ["a/model", "b/model", "c"]);
    }
}
