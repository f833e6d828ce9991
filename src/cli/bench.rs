//! `tyr bench MODEL…`: how fast models write, in turn.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Device;
use clap::Args;

use super::serve::parse_device;
use crate::base::{Kind, Result, ResultExt, Watch, files, last_part};
use crate::bench::{Report, Size, Workload, run as time_in_turn, size};
use crate::model::{Model, Source};
use crate::report::speed::{csv, markdown, terminal};
use crate::spec::{self, DeviceChoice};
use crate::tensor::device;

#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Models: folders, `hf:OWNER/NAME` or `builtin:quickstart`; ratios are to the first
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
    /// Tokens of a prompt, comma-separated; prompts are random tokens
    #[arg(long, value_delimiter = ',', default_value = "512", value_name = "TOKENS")]
    prompt: Vec<usize>,
    /// Tokens written after it, at least 2, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "64", value_name = "TOKENS")]
    output: Vec<usize>,
    /// Texts written at once, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "TEXTS")]
    batch: Vec<usize>,
    /// Rounds that count; one more before them does not
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
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

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it takes one round at least".into()),
        Ok(rounds) => Ok(rounds),
        Err(e) => Err(format!("{e}")),
    }
}

pub(super) fn run(arguments: &Arguments, watch: &dyn Watch) -> Result<()> {
    let report = measure(arguments, watch)?;
    if let Some(folder) = &arguments.out {
        write(folder, &report)?;
    }
    super::show(&terminal(&report))
}

fn write(folder: &Path, report: &Report) -> Result<()> {
    std::fs::create_dir_all(folder).or_error(Kind::Disk, "cannot make the folder of --out")?;
    files::write(&folder.join("bench.csv"), csv(report)?.as_bytes())?;
    files::write(&folder.join("bench.md"), markdown(report).as_bytes())
}

/// Each model alone, for its memory; then all of them in turn.
fn measure(arguments: &Arguments, watch: &dyn Watch) -> Result<Report> {
    let Arguments { prompt, output, batch, repeats, seed, .. } = arguments.clone();
    let workloads = Workload::all(&spec::Bench { prompt, output, batch, repeats });
    let device = device(arguments.device)?;
    let names = names(&arguments.models);
    let sources: Vec<Source> =
        arguments.models.iter().map(|model| super::model_source(model)).collect::<Result<_>>()?;
    let sizes = watch.step("memory of each model", sources.len() as u64, || {
        let alone = |(source, name): (&Source, &String)| {
            watch.checkpoint()?;
            let size = size(name, || open(source, &device, watch), &workloads, seed)?;
            watch.advance(1);
            Ok(size)
        };
        sources.iter().zip(&names).map(alone).collect::<Result<Vec<Size>>>()
    })?;
    let models: Vec<Model> = sources.iter().map(|s| Model::open(s, &device)).collect::<Result<_>>()?;
    let each = names.into_iter().zip(&models).zip(sizes).map(|((name, model), size)| (name, model, size));
    time_in_turn(each.collect(), &workloads, repeats, seed, watch)
}

fn open(source: &Source, device: &Device, watch: &dyn Watch) -> Result<Model> {
    let model = Model::open(source, device)?;
    model.tell(watch);
    Ok(model)
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
