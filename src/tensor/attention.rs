//! Causal attention over ragged batches: segments of tokens that may continue other segments, so that shared
//! prefixes are computed once.
//!
//! Rotary embedding (rotate-half convention), grouped-query heads by an explicit table, and sliding windows
//! are part of the operation. Work per segment of T tokens with keys K: 4·T·K·c operations per query head
//! (half of it masked away by blocks), and the only large temporary is one block of scores, [`BLOCK`] × K per
//! thread.

use std::borrow::Cow;
use std::ops::Range;

use candle_core::{D, Device, Tensor};
use faer::linalg::matmul::matmul;
use faer::{Accum, Par};
use rayon::prelude::*;

use super::cpu::{matrix, matrix_mut};
use super::math::vectorised;
pub use super::segments::{Part, Segment, Segments};
use super::softmax::{SPARE, softmax_rows};
use super::{Backend, backend, with_slice};
use crate::base::Result;

/// Query rows of one block of scores.
pub const BLOCK: usize = 64;

/// Fewest queries and keys of a block: faer sums products of up to 4096 terms in another order, and a row's
/// bits would depend on what shares its block.
const LEAST: (usize, usize) = (4, 16);

/// The fixed part of a layer's attention.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a> {
    /// Key/value head of every query head.
    pub kv_of: &'a [usize],
    /// Width of a head.
    pub width: usize,
    /// Keys that a query sees, itself included; none sees all.
    pub window: Option<usize>,
}

/// Cosines and sines of the rotary embedding, [positions, width/2] each, row-major on the host.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// Cosines.
    pub cos: Vec<f32>,
    /// Sines.
    pub sin: Vec<f32>,
    /// Half of the head width.
    pub half: usize,
}

impl Rotary {
    /// Tables for `positions` positions at the given inverse frequencies (one per pair of channels).
    pub fn new(inverse_frequencies: &[f64], positions: usize) -> Self {
        let angles = |f: fn(f64) -> f64| {
            (0..positions)
                .flat_map(|p| inverse_frequencies.iter().map(move |w| f(p as f64 * w) as f32))
                .collect()
        };
        Self { cos: angles(f64::cos), sin: angles(f64::sin), half: inverse_frequencies.len() }
    }

    /// Positions that the tables have.
    pub fn positions(&self) -> usize {
        self.cos.len().checked_div(self.half).unwrap_or(0)
    }

    /// Rotates one head's channels at `position` in place, times `scale`.
    #[inline(always)]
    fn rotate(&self, x: &mut [f32], position: usize, scale: f32) {
        let table = position * self.half..(position + 1) * self.half;
        let (low, high) = x.split_at_mut(self.half);
        for (((a, b), c), s) in low.iter_mut().zip(high).zip(&self.cos[table.clone()]).zip(&self.sin[table]) {
            (*a, *b) = ((*a * c - *b * s) * scale, (*b * c + *a * s) * scale);
        }
    }
}

/// softmax(QKᵀ/√c)·V per head. `q` is [n, heads·c], `k` and `v` are [n, kv_heads·c], unrotated; gives the
/// context [n, heads·c].
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segments: &Segments,
    heads: Heads,
    rotary: &Rotary,
) -> Result<Tensor> {
    attention_on(backend(q), q, k, v, segments, heads, rotary)
}

pub(super) fn attention_on(
    backend: Backend,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segments: &Segments,
    heads: Heads,
    rotary: &Rotary,
) -> Result<Tensor> {
    match backend {
        Backend::Cpu => on_cpu(q, k, v, segments, heads, rotary),
        Backend::Candle => on_candle(q, k, v, segments, heads, rotary),
    }
}

fn on_cpu(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segments: &Segments,
    heads: Heads,
    rotary: &Rotary,
) -> Result<Tensor> {
    let (rows, columns) = q.dims2()?;
    let mut out = vec![0f32; rows * columns];
    with_slice(q, |q| {
        with_slice(k, |k| {
            with_slice(v, |v| {
                let job = Job {
                    q,
                    k,
                    v,
                    segments,
                    heads,
                    rotary,
                    columns,
                    kv_columns: k.len().checked_div(rows).unwrap_or(0),
                };
                job.run(&mut out);
                Ok(())
            })
        })
    })?;
    Ok(Tensor::from_vec(out, (rows, columns), &Device::Cpu)?)
}

struct Job<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    segments: &'a Segments,
    heads: Heads<'a>,
    rotary: &'a Rotary,
    columns: usize,
    kv_columns: usize,
}

/// Where one task writes: rows of one query head, which no other task touches.
#[derive(Clone, Copy)]
struct Output(*mut f32);
// SAFETY: every (segment, head) pair belongs to exactly one task, so no two tasks write the same element.
unsafe impl Send for Output {}
unsafe impl Sync for Output {}

impl Job<'_> {
    fn run(&self, out: &mut [f32]) {
        let kv_heads = self.heads.kv_of.iter().max().map_or(0, |m| m + 1);
        let tasks: Vec<(usize, usize)> =
            (0..self.segments.0.len()).flat_map(|s| (0..kv_heads).map(move |j| (s, j))).collect();
        let output = Output(out.as_mut_ptr());
        tasks.par_iter().for_each(|&(segment, kv)| self.group(segment, kv, output));
    }

    /// All query heads of one key/value head, over one segment.
    fn group(&self, segment: usize, kv: usize, output: Output) {
        let queries: Vec<usize> =
            (0..self.heads.kv_of.len()).filter(|&h| self.heads.kv_of[h] == kv).collect();
        if queries.is_empty() {
            return;
        }
        let ranges = self.segments.keys(segment);
        let mut keys = gather(self.k, &ranges, self.kv_columns, kv, self.heads.width);
        let values = gather(self.v, &ranges, self.kv_columns, kv, self.heads.width);
        rotate_rows(self.rotary, &mut keys, self.heads.width, 0, 1.0);
        let mut scratch = Scratch::default();
        for head in queries {
            self.head(segment, head, &keys, &values, &mut scratch, output);
        }
    }

    fn head(
        &self,
        segment: usize,
        head: usize,
        keys: &[f32],
        values: &[f32],
        scratch: &mut Scratch,
        output: Output,
    ) {
        let c = self.heads.width;
        let segment = &self.segments.0[segment];
        let scale = 1.0 / (c as f32).sqrt();
        let mut queries = Vec::with_capacity(BLOCK * c);
        for start in segment.rows.clone().step_by(BLOCK) {
            let rows = start..(start + BLOCK).min(segment.rows.end);
            let first = segment.position + (start - segment.rows.start);
            queries.clear();
            gather_into(&mut queries, self.q, std::slice::from_ref(&rows), self.columns, head, c);
            rotate_rows(self.rotary, &mut queries, c, first, scale);
            let seen = self.heads.window.map_or(0, |w| (first + 1).saturating_sub(w))..first + rows.len();
            let context = block(
                &queries,
                &keys[seen.start * c..seen.end * c],
                &values[seen.start * c..seen.end * c],
                first - seen.start,
                self.heads,
                scratch,
            );
            for (row, context) in rows.zip(context.chunks_exact(c)) {
                // SAFETY: `row` and `head` lie inside the output, and this task alone owns them.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        context.as_ptr(),
                        output.0.add(row * self.columns + head * c),
                        c,
                    )
                };
            }
        }
    }
}

/// What a task computes block by block in the same memory.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    scores: Vec<f32>,
    context: Vec<f32>,
}

/// The first `length` elements of a buffer, which grows to have them.
fn first(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}

/// Context of a block of queries over the keys they see; the query `i` sees keys up to `start + i`.
pub(super) fn block<'a>(
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
    start: usize,
    heads: Heads,
    scratch: &'a mut Scratch,
) -> &'a [f32] {
    let c = heads.width;
    let q = at_least(queries, LEAST.0 * c);
    let k = at_least(keys, LEAST.1 * c);
    let v = at_least(values, LEAST.1 * c);
    let t = q.len() / c;
    let n = k.len() / c;
    let scores = first(&mut scratch.scores, t * n + SPARE);
    let context = first(&mut scratch.context, t * c);
    let q = matrix(&q, t, c, c);
    let k = matrix(&k, n, c, c);
    let v = matrix(&v, n, c, c);
    matmul(matrix_mut(scores, t, n, n), Accum::Replace, q, k.transpose(), 1.0, Par::Seq);
    softmax_rows(scores, n, start, heads.window);
    matmul(matrix_mut(context, t, c, c), Accum::Replace, matrix(scores, t, n, n), v, 1.0, Par::Seq);
    &context[..queries.len()]
}

/// `data` itself, or followed by zeros where it is shorter than `length`.
fn at_least(data: &[f32], length: usize) -> Cow<'_, [f32]> {
    if data.len() >= length {
        return data.into();
    }
    let mut padded = data.to_vec();
    padded.resize(length, 0.0);
    padded.into()
}

vectorised! {
    /// Rotates rows of `width` channels, the first of which is at `position`, times `scale`.
    pub(super) fn rotate_rows(rotary: &Rotary, rows: &mut [f32], width: usize, position: usize, scale: f32) {
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            rotary.rotate(row, position + i, scale);
        }
    }
}

/// The columns of one head over row ranges, packed.
pub(super) fn gather(
    data: &[f32],
    ranges: &[Range<usize>],
    columns: usize,
    head: usize,
    width: usize,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(ranges.iter().map(|r| r.len()).sum::<usize>() * width);
    gather_into(&mut out, data, ranges, columns, head, width);
    out
}

/// The same, added to a vector.
fn gather_into(
    out: &mut Vec<f32>,
    data: &[f32],
    ranges: &[Range<usize>],
    columns: usize,
    head: usize,
    width: usize,
) {
    for row in ranges.iter().cloned().flatten() {
        out.extend_from_slice(&data[row * columns + head * width..][..width]);
    }
}

fn on_candle(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segments: &Segments,
    heads: Heads,
    rotary: &Rotary,
) -> Result<Tensor> {
    let columns = q.dim(1)?;
    if columns == 0 || segments.0.is_empty() {
        return Ok(q.clone());
    }
    let parts = (0..segments.0.len())
        .map(|s| segment_on_candle(q, k, v, segments, s, heads, rotary))
        .collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&parts, 0)?)
}

fn segment_on_candle(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segments: &Segments,
    s: usize,
    heads: Heads,
    rotary: &Rotary,
) -> Result<Tensor> {
    let segment = &segments.0[s];
    let ranges = segments.keys(s);
    let chain = |x: &Tensor| -> Result<Tensor> {
        let parts =
            ranges.iter().map(|r| x.narrow(0, r.start, r.len())).collect::<candle_core::Result<Vec<_>>>()?;
        per_head(&Tensor::cat(&parts, 0)?, heads.width)
    };
    let keys = rotate_on_candle(&chain(k)?, 0, rotary)?;
    let queries = q.narrow(0, segment.rows.start, segment.rows.len())?;
    context_on_candle(&queries, &keys, &chain(v)?, segment, heads, rotary)
}

/// [n, heads·c] as [heads, n, c].
pub(super) fn per_head(x: &Tensor, width: usize) -> Result<Tensor> {
    Ok(x.reshape((x.dim(0)?, x.dim(1)? / width, width))?.transpose(0, 1)?.contiguous()?)
}

/// Context [n, heads·c] of a segment's queries [n, heads·c], unrotated, over rotated keys and values
/// [kv_heads, t, c].
pub(super) fn context_on_candle(
    q: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    segment: &Segment,
    heads: Heads,
    rotary: &Rotary,
) -> Result<Tensor> {
    let table = Tensor::from_iter(heads.kv_of.iter().map(|&j| j as u32), q.device())?;
    let keys = keys.index_select(&table, 0)?;
    let values = values.index_select(&table, 0)?;
    let queries = rotate_on_candle(&per_head(q, heads.width)?, segment.position, rotary)?;
    let scores = (queries.matmul(&keys.t()?)? / (heads.width as f64).sqrt())?.broadcast_add(&mask(
        segment,
        heads.window,
        q.device(),
    )?)?;
    let context = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&values)?;
    Ok(context.transpose(0, 1)?.contiguous()?.flatten(1, 2)?)
}

pub(super) fn rotate_on_candle(x: &Tensor, position: usize, rotary: &Rotary) -> Result<Tensor> {
    let length = x.dim(1)?;
    let half = rotary.half;
    let table = |t: &[f32]| {
        Tensor::from_slice(&t[position * half..(position + length) * half], (length, half), x.device())
    };
    Ok(candle_nn::rotary_emb::rope_slow(&x.unsqueeze(0)?, &table(&rotary.cos)?, &table(&rotary.sin)?)?
        .squeeze(0)?)
}

/// 0 where a query sees a key, −∞ elsewhere: [rows, keys].
fn mask(segment: &Segment, window: Option<usize>, device: &Device) -> Result<Tensor> {
    let keys = segment.position + segment.rows.len();
    let visible = |p: usize, j: usize| j <= p && window.is_none_or(|w| p - j < w);
    let rows = segment.position..keys;
    let data: Vec<f32> = rows
        .flat_map(|p| (0..keys).map(move |j| if visible(p, j) { 0.0 } else { f32::NEG_INFINITY }))
        .collect();
    Ok(Tensor::from_vec(data, (segment.rows.len(), keys), device)?)
}
