//! How fast this machine is: each kind of work timed for a moment with the functions that do it in a run, in
//! the model's own shapes as far as they fit into that moment.

use std::fmt::{self, Display, Formatter};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use faer::Mat;
use safetensors::Dtype;
use serde::Serialize;

use crate::base::files::io_error;
use crate::base::{Error, Kind, Result, Work};
use crate::model::Config;
use crate::model::checkpoint::{from_f32, to_f32};
use crate::model::cost;
use crate::prune::cost::Size;
use crate::prune::obs::{Damping, Obs, Problem};
use crate::prune::{Method, Units};
use crate::space::ModuleKind;
use crate::spec::{DampingMean, Step};
use crate::tensor::attention::{Heads, Rotary, Segments, attention};
use crate::tensor::loss::{Teacher, token_logprobs};
use crate::tensor::{isa, linear, swiglu};

/// Work of each kind per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Rates(Work);

/// What computes, and how fast, for plans and records.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Machine {
    /// The widest vectors that operations use, as [`crate::tensor::isa`] names them.
    pub isa: &'static str,
    /// Threads that compute.
    pub threads: usize,
    /// Flops per second of f32 products, of all threads.
    pub products: f64,
}

impl Machine {
    /// This one, at a rate of f32 products.
    pub fn of_products(products: f64) -> Self {
        Self { isa: isa(), threads: rayon::current_num_threads(), products }
    }

    /// This one; takes a moment.
    ///
    /// # Errors
    /// Those of a product.
    pub fn measure() -> Result<Self> {
        let x = tensor(RECORDED, RECORDED)?;
        let once = || linear(&x, &x).map(drop);
        Ok(Self::of_products(rate_within(RECORDING, 2.0 * (RECORDED as f64).powi(3), once)?))
    }
}

impl Display for Machine {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let Self { isa, threads, products } = *self;
        let plural = if threads == 1 { "" } else { "s" };
        let each = products / threads as f64 / 1e9;
        write!(f, "{isa}, {threads} thread{plural}, {each:.1} GFLOP/s of f32 products per thread")
    }
}

/// Side of the square matrices that are multiplied for a record, and what that may take, about.
const RECORDED: usize = 768;
const RECORDING: Duration = Duration::from_millis(40);
/// Longest side of a matrix that is multiplied to measure.
const SIDE: usize = 2048;
/// Rows of that product.
const ROWS: usize = 1024;
/// Channels of the module that is pruned to measure, at most.
const CHANNELS: usize = 768;
/// What each measurement may take, about.
const MOMENT: Duration = Duration::from_millis(100);
/// Bytes written to measure the disk.
const FILE: usize = 32 << 20;
/// Bytes of text that a tokenizer takes in a second: it is not worth loading one to know better.
const TEXT: f64 = 3e6;

impl Rates {
    /// Measures all of them for a model, in a second or two; `folder` is where the disk is tried, with a file
    /// that is removed again.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn measure(config: &Config, length: usize, folder: &Path) -> Result<Self> {
        let (read, written) = disk(folder)?;
        Ok(Self(Work {
            products: products(config)?,
            solves: solves(config)?,
            attention: attention_rate(config, length)?,
            logits: logits(config)?,
            elements: elements()?,
            weights: weights()?,
            read,
            written,
            text: TEXT,
        }))
    }

    /// From the rate of f32 products alone, in flops per second: the others in the proportions of a processor
    /// core's.
    pub fn of_products(products: f64) -> Self {
        Self(Work {
            products,
            solves: products / 3.0,
            attention: products / 3.0,
            logits: products / 150.0,
            elements: products / 150.0,
            weights: products / 300.0,
            read: 1e9,
            written: 5e8,
            text: TEXT,
        })
    }

    /// Work in a second.
    pub fn per_second(&self) -> Work {
        self.0
    }

    /// Seconds for some work.
    pub fn seconds(&self, work: &Work) -> f64 {
        work.over(self.0)
    }
}

/// Amount per second of what `once` does, which is repeated for a moment after a first time that warms up.
fn rate(amount: f64, once: impl FnMut() -> Result<()>) -> Result<f64> {
    rate_within(MOMENT, amount, once)
}

fn rate_within(moment: Duration, amount: f64, mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    once()?;
    let start = Instant::now();
    let mut times = 0.0;
    while times == 0.0 || start.elapsed() < moment {
        once()?;
        times += 1.0;
    }
    Ok(amount * times / start.elapsed().as_secs_f64().max(1e-9))
}

/// Values that are neither zero nor alike.
fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0).collect()
}

fn tensor(rows: usize, columns: usize) -> Result<Tensor> {
    Ok(Tensor::from_vec(values(rows * columns), (rows, columns), &Device::Cpu)?)
}

fn products(config: &Config) -> Result<f64> {
    let k = config.hidden.min(SIDE);
    let m = config.neurons.min(SIDE);
    let x = tensor(ROWS, k)?;
    let w = tensor(m, k)?;
    rate(2.0 * (ROWS * k * m) as f64, || linear(&x, &w).map(drop))
}

/// A module of made-up numbers pruned from nothing to everything but one step.
fn solves(config: &Config) -> Result<f64> {
    let d = config.neurons.clamp(8, CHANNELS);
    let o = config.hidden.clamp(8, CHANNELS / 3);
    let noise = values(d * 16);
    let row = |i: usize, k: usize| f64::from(noise[i * 16 + k]);
    let gram = Mat::from_fn(d, d, |i, j| {
        (0..16).map(|k| row(i, k) * row(j, k)).sum::<f64>() + if i == j { 16.0 } else { 0.0 }
    });
    let weight = Mat::from_fn(d, o, |i, j| f64::from(noise[(i * 7 + j * 13) % noise.len()]));
    let kind = ModuleKind::Mlp;
    let units = Units { count: d, width: 1 };
    let problem = Problem { kind, units, groups: 1, gram, correlation: None, weight };
    let damping = Damping { coefficient: 0.01, mean: DampingMean::Geometric };
    let obs = Obs::to_layer(Step { heads: 1, neurons: 16 }, damping);
    let removed: Vec<usize> = (1..8).map(|i| d * i / 8).collect();
    let cost = obs.cost(&Size { kind, units, outputs: o, removed: removed.clone() });
    rate(cost.work.solves, || obs.solve(&problem, &removed).map(drop))
}

fn attention_rate(config: &Config, length: usize) -> Result<f64> {
    let length = length.clamp(1, 512).min(config.context);
    let c = config.head_width;
    let group = config.group();
    let kv = config.kv_heads.min(4);
    let sequences = (ROWS / length).max(1);
    let rows = sequences * length;
    let q = tensor(rows, kv * group * c)?;
    let k = tensor(rows, kv * c)?;
    let kv_of: Vec<usize> = (0..kv * group).map(|h| h / group).collect();
    let rotary = Rotary::new(&config.inverse_frequencies(), length);
    let segments = Segments::sequences(sequences, length);
    let heads = Heads { kv_of: &kv_of, width: c, window: config.window };
    let flops = 4.0 * (c * kv * group * sequences) as f64 * cost::scores(length, config.window);
    rate(flops, || attention(&q, &k, &k, &segments, heads, &rotary).map(drop))
}

fn logits(config: &Config) -> Result<f64> {
    let v = config.vocabulary.min(32_768);
    let rows = ((1 << 20) / v).max(1);
    let x = tensor(rows, v)?;
    let next = vec![0; rows];
    rate(3.0 * (rows * v) as f64, || {
        Teacher::new(&x, 0)?.divergence(&x, 0)?;
        token_logprobs(&x, &next).map(drop)
    })
}

fn elements() -> Result<f64> {
    let rows = 1024;
    let columns = 1024;
    let x = tensor(rows, columns)?;
    rate(3.0 * (rows * columns) as f64, || {
        std::hint::black_box((swiglu(x.clone(), &x)? + &x)?);
        Ok(())
    })
}

fn weights() -> Result<f64> {
    let bytes = from_f32(Dtype::BF16, &values(1 << 20));
    rate((1 << 20) as f64, || {
        std::hint::black_box(to_f32(Dtype::BF16, &bytes));
        Ok(())
    })
}

/// Bytes per second of reading with a checksum, and of writing and syncing.
fn disk(folder: &Path) -> Result<(f64, f64)> {
    let path = folder.join(format!(".tyr-plan-{}.partial", std::process::id()));
    let measured = measure_disk(&path);
    // Only the space is lost when it cannot be removed.
    let _ = std::fs::remove_file(&path);
    measured.map_err(|e| io_error(&path, "try the disk", &e)).map_err(hinted)
}

fn hinted(e: Error) -> Error {
    Error { kind: Kind::Disk, ..e }
        .hint("use --no-calibration, or set TMPDIR to a folder that can be written to")
}

fn measure_disk(path: &Path) -> std::io::Result<(f64, f64)> {
    let block = vec![7u8; FILE];
    let start = Instant::now();
    let mut file = std::fs::File::create(path)?;
    file.write_all(&block)?;
    file.sync_all()?;
    let written = FILE as f64 / start.elapsed().as_secs_f64().max(1e-9);
    let start = Instant::now();
    let mut read = Vec::with_capacity(FILE);
    std::fs::File::open(path)?.read_to_end(&mut read)?;
    std::hint::black_box(crate::base::hash::of_bytes(&read));
    Ok((FILE as f64 / start.elapsed().as_secs_f64().max(1e-9), written))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pico::Pico;

    #[test]
    fn every_rate_is_a_positive_number_and_the_file_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let rates = Rates::measure(&Pico::default().config().unwrap(), 32, dir.path()).unwrap();
        let json = serde_json::to_value(rates).unwrap();
        assert!(json.as_object().unwrap().values().all(|v| v.as_f64().is_some_and(|v| v > 0.0)), "{json}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_not_there_is_one_error_with_a_way_out() {
        let e = disk(Path::new("/nowhere/at/all")).unwrap_err();
        assert_eq!(e.kind, Kind::Disk);
        assert!(e.to_string().contains("--no-calibration"), "{e}");
    }

    #[test]
    fn a_machine_says_what_each_thread_of_it_does() {
        let machine = Machine { isa: "AVX2", threads: 2, products: 41e9 };
        assert_eq!(machine.to_string(), "AVX2, 2 threads, 20.5 GFLOP/s of f32 products per thread");
        let here = Machine::measure().unwrap();
        assert!(here.products > 0.0 && here.products.is_finite() && here.isa == isa());
    }

    #[test]
    fn twice_the_work_takes_twice_the_time() {
        let rates = Rates::of_products(1e11);
        let work = Work { products: 1e12, logits: 1e9, ..Work::default() };
        assert!((rates.seconds(&(work * 2.0)) - 2.0 * rates.seconds(&work)).abs() < 1e-9);
        assert!(rates.seconds(&work) > 10.0);
    }
}
