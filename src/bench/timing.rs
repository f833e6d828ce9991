//! One model, once, with a clock.

use std::hint::black_box;
use std::time::Instant;

use rand::RngExt as _;
use rayon::prelude::*;

use super::Workload;
use crate::base::{Result, rng};
use crate::generate::sample::Sampler;
use crate::generate::{Sampling, Stream, pass};
use crate::model::Model;

/// What one run took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Seconds from the prompts to the first token of each text.
    pub first_token: f64,
    /// Seconds of all tokens after it.
    pub decode: f64,
    /// Bytes of all texts' keys and values at the end.
    pub cache_bytes: usize,
    /// Bytes per second of a plain read of the model's weights beside it.
    pub read: f64,
}

/// Prompts, the same for every model with the same vocabulary.
fn prompts(model: &Model, workload: &Workload, seed: u64) -> Vec<Vec<u32>> {
    let mut rng = rng::stream(seed, "bench/prompts");
    let vocabulary = model.config().vocabulary as u32;
    let mut prompt = || (0..workload.prompt).map(|_| rng.random_range(0..vocabulary)).collect();
    (0..workload.batch).map(|_| prompt()).collect()
}

/// Writes a workload's texts, as `tyr generate` and `tyr serve` do; nothing was read beside it.
///
/// # Errors
/// Those of running the model.
pub fn time(model: &Model, workload: &Workload, seed: u64) -> Result<Timing> {
    let prompts = prompts(model, workload, seed);
    let mut streams: Vec<Stream> = prompts.iter().map(|prompt| Stream::new(model, prompt)).collect();
    let mut sampler = Sampler::new(Sampling::GREEDY);
    let started = Instant::now();
    write_one(model, &mut streams, &mut sampler)?;
    let first_token = started.elapsed().as_secs_f64();
    let started = Instant::now();
    for _ in 1..workload.output {
        write_one(model, &mut streams, &mut sampler)?;
    }
    let decode = started.elapsed().as_secs_f64();
    let cache_bytes = streams.iter().map(|s| s.cache().bytes()).sum();
    Ok(Timing { first_token, decode, cache_bytes, read: f64::NAN })
}

/// One more token of every text; all have the same length.
fn write_one(model: &Model, streams: &mut [Stream], sampler: &mut Sampler) -> Result<()> {
    loop {
        let logits = pass(model, &mut streams.iter_mut().collect::<Vec<_>>())?;
        let Some(logits) = logits.into_iter().collect::<Option<Vec<_>>>() else { continue };
        for (stream, logits) in streams.iter_mut().zip(logits) {
            stream.push(sampler.next(&logits)?);
        }
        return Ok(());
    }
}

/// Bytes that one task reads.
const BLOCK: usize = 1 << 20;

/// Bytes per second of a plain read of all weights with all threads.
pub fn read_weights(model: &Model) -> f64 {
    let started = Instant::now();
    let bytes = pass_over(model, usize::MAX);
    bytes as f64 / started.elapsed().as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Reads the weights as they are stored with all threads, about so many bytes of them at most; gives how many.
pub(super) fn pass_over(model: &Model, most: usize) -> usize {
    let sum = |bytes: &[u8]| -> u64 {
        let words = bytes.as_chunks::<8>().0.iter();
        words.fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
    };
    let blocks = model.checkpoint().stored().flat_map(|bytes| bytes.chunks(BLOCK));
    let blocks: Vec<&[u8]> = blocks
        .scan(0usize, |read, block| {
            let goes_on = *read < most;
            *read += block.len();
            goes_on.then_some(block)
        })
        .collect();
    let bytes = blocks.iter().map(|block| block.len()).sum();
    black_box(blocks.into_par_iter().map(sum).reduce(|| 0, u64::wrapping_add));
    bytes
}
