//! What a bench takes of memory, counted before it is taken: a system that has not enough ends the process without a
//! word.
//!
//! Weights as they are stored are mapped files, which the system may drop and read again; they do not count.

use super::Workload;
use super::expect::cache_bytes_of_a_token;
use crate::base::{Error, Kind, Result};
use crate::eval::cost::weights;
use crate::generate::stream::CHUNK;
use crate::model::{Config, LayerShape, Model};

const SINGLE: f64 = 4.0;
/// Memory that texts take as a multiple of what is in use at once: a cache that grows is copied, and the allocator
/// keeps blocks that are free again. With it the growth that was measured of two models, their mapped weights added,
/// lay within a tenth of what is counted here, for 4 texts of 512 tokens and 16 of 200.
pub const COPIES: f64 = 2.0;

/// Bytes that writing the texts of a workload takes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Memory {
    /// Weights in f32, with which prompts are run.
    pub weights: f64,
    /// Keys and values of all texts at their end, with their copies.
    pub cache: f64,
    /// Hidden states of the largest pass, and a row of logits for each text, with what is kept of earlier ones.
    pub activations: f64,
}

impl Memory {
    /// Of a model that does a workload.
    pub fn of(config: &Config, workload: &Workload) -> Self {
        let [prompt, output, texts] =
            [workload.prompt, workload.output, workload.batch].map(|count| count as f64);
        // The last token of a text is not run. All prompts run together, long ones in parts.
        let cached = texts * (prompt + output - 1.0);
        let rows = texts * prompt.min(CHUNK as f64);
        let width = config.layers.iter().map(|layer| row(config, layer)).fold(0.0, f64::max);
        Self {
            weights: weights(config),
            cache: COPIES * cached * cache_bytes_of_a_token(config) as f64,
            activations: COPIES * SINGLE * (rows * width + texts * config.vocabulary as f64),
        }
    }

    /// Of the workload that takes most, with it; nothing of no workload.
    pub fn largest(config: &Config, workloads: &[Workload]) -> Option<(Self, Workload)> {
        let all = workloads.iter().map(|workload| (Self::of(config, workload), *workload));
        all.max_by(|(a, _), (b, _)| a.total().total_cmp(&b.total()))
    }

    /// All of it.
    pub fn total(&self) -> f64 {
        self.weights + self.texts()
    }

    /// What goes again with the texts.
    fn texts(&self) -> f64 {
        self.cache + self.activations
    }
}

/// Numbers of a token that are there at once in a layer: four states beside the inputs and the output of attention, or
/// the three activations of the MLP.
fn row(config: &Config, layer: &LayerShape) -> f64 {
    let attention = (3 * layer.heads() + 2 * layer.kv_heads()) * config.head_width;
    let mlp = 3 * layer.intermediate_size;
    (4 * config.hidden + attention.max(mlp)) as f64
}

/// A model that is to be timed.
#[derive(Debug, Clone, Copy)]
pub struct Entrant<'a> {
    /// How messages call it.
    pub name: &'a str,
    /// Its sizes.
    pub config: &'a Config,
    /// Bytes of its weights in f32 that are there already.
    pub widened: f64,
}

impl<'a> Entrant<'a> {
    /// A model whose weights were not used yet.
    pub fn new(name: &'a str, config: &'a Config) -> Self {
        Self { name, config, widened: 0.0 }
    }

    /// An open model.
    pub fn of(name: &'a str, model: &'a Model) -> Self {
        Self { name, config: model.config(), widened: model.widened_bytes() as f64 }
    }
}

/// Refuses workloads for which the models, all open at a time, would need more memory than there is. Without a figure
/// of what there is nothing is refused.
///
/// # Errors
/// Of kind [`Kind::Usage`].
pub fn check(models: &[Entrant], workloads: &[Workload], available: Option<u64>) -> Result<()> {
    let largest = models.iter().filter_map(|model| {
        let (memory, workload) = Memory::largest(model.config, workloads)?;
        Some((model, memory, workload))
    });
    let largest = largest.max_by(|(_, a, _), (_, b, _)| a.texts().total_cmp(&b.texts()));
    let Some(((model, memory, workload), available)) = largest.zip(available) else { return Ok(()) };
    let missing = |model: &Entrant| (weights(model.config) - model.widened).max(0.0);
    let weights: f64 = models.iter().map(missing).sum();
    if weights + memory.texts() <= available as f64 {
        return Ok(());
    }
    let what = format!(
        "the workload {workload} takes about {} of memory, and {} are available",
        gigabytes(weights + memory.texts()),
        gigabytes(available as f64)
    );
    let hint = format!(
        "weights in f32 take {}, keys and values {}, activations {}: take fewer texts at once, or shorter ones{}",
        gigabytes(weights),
        gigabytes(memory.cache),
        gigabytes(memory.activations),
        if models.len() > 1 { ", or fewer models" } else { "" }
    );
    Err(Error::new(Kind::Usage, what).at(model.name).hint(hint))
}

fn gigabytes(bytes: f64) -> String {
    format!("{:.2} GB", bytes / 1e9)
}
