//! How fast models write: the time to the first token, and tokens per second after it, of several models in turn.
//!
//! Machines are shared and their clocks vary, so models are timed in turn (A B A B …), each round gives one ratio
//! to the first model, and medians are reported with their quartiles. Beside each ratio stands the one to expect:
//! a prompt takes as long as its operations, a token as long as reading the bytes that it needs.
//!
//! And what modules of several sizes take ([`modules`]), of which a table ([`Latencies`]) says what any distribution
//! will.

pub mod cost;
pub mod expect;
pub mod latencies;
pub mod memory;
pub mod modules;
pub mod quantity;
pub mod spread;
pub mod timing;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use candle_core::Device;
use serde::Serialize;

pub use self::latencies::Latencies;

use self::expect::Expected;
use self::memory::{Entrant, Memory};
use self::spread::Spread;
use self::timing::{Timing, read_weights, time};
use crate::base::memory::available;
use crate::base::meter::Growth;
use crate::base::{Error, Kind, Result, Watch};
use crate::model::{Config, Model, Source};
use crate::spec;

/// Lengths and number of the texts that are written together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Workload {
    /// Tokens of each prompt.
    pub prompt: usize,
    /// Tokens written after each, 2 at least: the first comes with the prompt.
    pub output: usize,
    /// Texts.
    pub batch: usize,
}

impl Workload {
    /// Those of a bench: all combinations, batch sizes innermost.
    pub fn all(bench: &spec::Bench) -> Vec<Self> {
        let mut all = Vec::new();
        for &prompt in &bench.prompt {
            for &output in &bench.output {
                all.extend(bench.batch.iter().map(|&batch| Self { prompt, output, batch }));
            }
        }
        all
    }

    /// Refuses what a model with a context of so many tokens cannot do.
    ///
    /// # Errors
    /// Of kind [`Kind::Usage`]: nothing to write, or a text longer than the model's context.
    pub fn check(&self, context: usize) -> Result<()> {
        if self.prompt == 0 || self.batch == 0 || self.output < 2 {
            let what = "a bench needs prompts of 1 token, outputs of 2 and batches of 1 at least";
            return Err(Error::new(Kind::Usage, what));
        }
        if self.prompt.saturating_add(self.output) > context {
            let Self { prompt, output, .. } = self;
            let what = format!("{prompt} + {output} tokens are more than the context of {context} tokens");
            return Err(Error::new(Kind::Usage, what).hint("give a shorter prompt or output"));
        }
        Ok(())
    }
}

/// `512+64x8`: 8 prompts of 512 tokens, with 64 written after each.
impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}+{}x{}", self.prompt, self.output, self.batch)
    }
}

impl FromStr for Workload {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (prompt, rest) = text.split_once('+').ok_or(())?;
        let (output, batch) = rest.split_once('x').ok_or(())?;
        let number = |text: &str| text.parse().map_err(|_| ());
        let read = Self { prompt: number(prompt)?, output: number(output)?, batch: number(batch)? };
        // No other way to write it.
        if read.to_string() == text { Ok(read) } else { Err(()) }
    }
}

/// What is known of a model without a clock.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Size {
    /// Parameters in the checkpoint.
    pub parameters: usize,
    /// Bytes of its weights as they are stored.
    pub weight_bytes: usize,
    /// The workload that takes most memory; absent without workloads.
    pub largest: Option<Workload>,
    /// What the process's resident memory grew by, at most, while the model was opened and did it; absent where the
    /// system does not tell.
    pub peak_bytes: Option<u64>,
}

/// A model's measurements at one workload.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speed {
    /// What was written.
    pub workload: Workload,
    /// Index of the model.
    pub model: usize,
    /// Seconds from the prompts to the first token of each text.
    pub first_token: Spread,
    /// Tokens per second after it, of all texts.
    pub tokens_per_second: Spread,
    /// How many times faster than the first model to the first token, round by round.
    pub prefill_ratio: Spread,
    /// The same of the tokens after it.
    pub decode_ratio: Spread,
    /// Part of the speed of a plain read of the weights at which decoding reads its bytes.
    pub read_share: Spread,
    /// Bytes of all texts' keys and values at the end.
    pub cache_bytes: usize,
    /// What was to be expected.
    pub expected: Expected,
    /// How many times fewer operations than the first model's the prompts take.
    pub expected_prefill_ratio: f64,
    /// How many times fewer bytes than the first model's a step reads.
    pub expected_decode_ratio: f64,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The models' names and sizes, in the order given.
    pub models: Vec<(String, Size)>,
    /// Workload by workload, models in order.
    pub speeds: Vec<Speed>,
    /// Rounds.
    pub repeats: usize,
    /// Threads that computed.
    pub threads: usize,
}

/// Refuses, before a weight is read, workloads that a model cannot do or that memory cannot hold.
///
/// # Errors
/// Of kind [`Kind::Usage`], with the model's name.
pub fn check(models: &[(&str, &Config)], workloads: &[Workload], device: &Device) -> Result<()> {
    models.iter().try_for_each(|(name, config)| check_lengths(name, config, workloads))?;
    let entrants: Vec<Entrant> = models.iter().map(|(name, config)| Entrant::new(name, config)).collect();
    memory::check(&entrants, workloads, available_to(device))
}

fn check_lengths(name: &str, config: &Config, workloads: &[Workload]) -> Result<()> {
    workloads.iter().try_for_each(|w| w.check(config.context)).map_err(|e| e.at(name))
}

/// Memory for what a device computes; of other devices than the processor nothing is known.
fn available_to(device: &Device) -> Option<u64> {
    device.is_cpu().then(available).flatten()
}

/// Opens each model anew, as if it were alone, and does the workload that takes most once: their sizes.
///
/// # Errors
/// Those of opening and running them, a workload that one cannot do, and a stop requested through `watch`.
pub fn sizes(
    models: &[(&str, &Source)],
    device: &Device,
    workloads: &[Workload],
    seed: u64,
    watch: &dyn Watch,
) -> Result<Vec<Size>> {
    watch.step("memory of each model", models.len() as u64, || {
        let alone = |(name, source): &(&str, &Source)| {
            watch.checkpoint()?;
            let size = size(name, || Model::open(source, device), workloads, seed)?;
            watch.advance(1);
            Ok(size)
        };
        models.iter().map(alone).collect()
    })
}

fn size(name: &str, open: impl FnOnce() -> Result<Model>, workloads: &[Workload], seed: u64) -> Result<Size> {
    let growth = Growth::start();
    let model = open()?;
    check(&[(name, model.config())], workloads, model.device())?;
    let largest = Memory::largest(model.config(), workloads).map(|(_, workload)| workload);
    if let Some(largest) = &largest {
        time(&model, largest, seed)?;
    }
    let checkpoint = model.checkpoint();
    let peak_bytes = growth.stop();
    Ok(Size { parameters: checkpoint.parameters(), weight_bytes: checkpoint.bytes(), largest, peak_bytes })
}

/// Times models in turn at every workload: one round that does not count, then `repeats` that do. Prompts are
/// random tokens of each model's vocabulary, drawn by `seed`; texts go on greedily and never end early.
///
/// # Errors
/// A workload that a model cannot do, those of running a model, and a stop requested through `watch`.
pub fn run(
    models: Vec<(String, &Model, Size)>,
    workloads: &[Workload],
    repeats: usize,
    seed: u64,
    watch: &dyn Watch,
) -> Result<Report> {
    for (name, model, _) in &models {
        check_lengths(name, model.config(), workloads)?;
    }
    let entrants: Vec<Entrant> = models.iter().map(|(name, model, _)| Entrant::of(name, model)).collect();
    let available = models.first().and_then(|(_, model, _)| available_to(model.device()));
    memory::check(&entrants, workloads, available)?;
    let rounds = repeats.saturating_add(1).saturating_mul(workloads.len() * models.len()) as u64;
    let opened: Vec<&Model> = models.iter().map(|(_, model, _)| *model).collect();
    let speeds = watch.step("bench", rounds, || {
        let each = workloads.iter().map(|w| speeds(&opened, w, repeats, seed, watch));
        each.collect::<Result<Vec<_>>>()
    })?;
    Ok(Report {
        models: models.into_iter().map(|(name, _, size)| (name, size)).collect(),
        speeds: speeds.concat(),
        repeats,
        threads: rayon::current_num_threads(),
    })
}

/// One workload: a speed for each model.
fn speeds(
    models: &[&Model],
    workload: &Workload,
    repeats: usize,
    seed: u64,
    watch: &dyn Watch,
) -> Result<Vec<Speed>> {
    let mut rounds: Vec<Vec<Timing>> = vec![Vec::new(); models.len()];
    for round in 0..=repeats {
        for (model, timings) in models.iter().zip(&mut rounds) {
            watch.checkpoint()?;
            let read = read_weights(model);
            let timing = Timing { read, ..time(model, workload, seed)? };
            if round > 0 {
                timings.push(timing);
            }
            watch.advance(1);
        }
    }
    let expected: Vec<Expected> = models.iter().map(|m| Expected::of(m, workload)).collect::<Result<_>>()?;
    Ok((0..models.len()).map(|i| speed(i, workload, &rounds, &expected)).collect())
}

/// A model's speed from all rounds of all models.
fn speed(model: usize, workload: &Workload, rounds: &[Vec<Timing>], expected: &[Expected]) -> Speed {
    let own = &rounds[model];
    let written = (workload.batch * (workload.output - 1)) as f64;
    let steps = (workload.output - 1) as f64;
    let ratio = |of: fn(&Timing) -> f64| {
        Spread::of(rounds[0].iter().zip(own).map(|(first, own)| of(first) / of(own)).collect())
    };
    let read_share = |t: &Timing| expected[model].step_bytes * steps / t.decode / t.read;
    Speed {
        workload: *workload,
        model,
        first_token: Spread::of(own.iter().map(|t| t.first_token).collect()),
        tokens_per_second: Spread::of(own.iter().map(|t| written / t.decode).collect()),
        prefill_ratio: ratio(|t| t.first_token),
        decode_ratio: ratio(|t| t.decode),
        read_share: Spread::of(own.iter().map(read_share).collect()),
        cache_bytes: own.first().map_or(0, |t| t.cache_bytes),
        expected: expected[model],
        expected_prefill_ratio: expected[0].prompt_flops / expected[model].prompt_flops,
        expected_decode_ratio: expected[0].step_bytes / expected[model].step_bytes,
    }
}
