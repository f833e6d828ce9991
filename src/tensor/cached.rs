//! Attention over a cache: one text's keys (already rotated) and values are kept per key/value head, so that
//! a new token costs one row.
//!
//! Work of a new token after t others: 4·t·c operations per query head. Nothing is copied on the host but
//! what is new.

use std::slice::from_ref;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::attention::{
    BLOCK, Heads, Rotary, Scratch, Segment, block, context_on_candle, gather, per_head, rotate_on_candle,
    rotate_rows,
};
use super::{Backend, with_slice};
use crate::base::Result;

/// One layer's keys and values of one text.
#[derive(Debug)]
pub struct Kv {
    length: usize,
    store: Store,
}

#[derive(Debug)]
enum Store {
    /// Per key/value head: keys and values [t, c] each.
    Host(Vec<(Vec<f32>, Vec<f32>)>),
    /// Keys and values [kv_heads, t, c]; none before the first token.
    Device(Option<(Tensor, Tensor)>),
}

impl Kv {
    /// An empty cache of a layer with so many key/value heads, on a device.
    pub fn new(kv_heads: usize, device: &Device) -> Self {
        let backend = if device.is_cpu() { Backend::Cpu } else { Backend::Candle };
        Self::on(backend, kv_heads)
    }

    pub(super) fn on(backend: Backend, kv_heads: usize) -> Self {
        let store = match backend {
            Backend::Cpu => Store::Host(vec![(vec![], vec![]); kv_heads]),
            Backend::Candle => Store::Device(None),
        };
        Self { length: 0, store }
    }

    /// Bytes of what is kept; a layer without heads keeps nothing.
    pub fn bytes(&self) -> usize {
        let elements = match &self.store {
            Store::Host(heads) => heads.iter().map(|(k, v)| k.len() + v.len()).sum(),
            Store::Device(kept) => kept.as_ref().map_or(0, |(k, v)| k.elem_count() + v.elem_count()),
        };
        elements * size_of::<f32>()
    }

    /// Appends the tokens of the rows of `k` and `v` [n, kv_heads·c] and gives the context [n, heads·c] of
    /// their queries `q` [n, heads·c], all unrotated: what [`super::attention::attention`] gives for these
    /// rows of the whole text.
    pub fn attend(
        &mut self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        heads: Heads,
        rotary: &Rotary,
    ) -> Result<Tensor> {
        let (rows, columns) = q.dims2()?;
        let position = self.length;
        self.length += rows;
        if columns == 0 || rows == 0 {
            return Ok(q.clone());
        }
        match &mut self.store {
            Store::Host(kept) => Host { heads, rotary, position, rows, columns }.attend(kept, q, k, v),
            Store::Device(kept) => {
                on_candle(kept, q, k, v, &Segment { rows: 0..rows, position, parent: None }, heads, rotary)
            }
        }
    }
}

fn on_candle(
    kept: &mut Option<(Tensor, Tensor)>,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segment: &Segment,
    heads: Heads,
    rotary: &Rotary,
) -> Result<Tensor> {
    let keys = rotate_on_candle(&per_head(k, heads.width)?, segment.position, rotary)?;
    let values = per_head(v, heads.width)?;
    let (keys, values) = match kept.take() {
        None => (keys, values),
        Some((old_keys, old_values)) => {
            (Tensor::cat(&[old_keys, keys], 1)?, Tensor::cat(&[old_values, values], 1)?)
        }
    };
    let context = context_on_candle(q, &keys, &values, segment, heads, rotary);
    *kept = Some((keys, values));
    context
}

/// One call on the host.
struct Host<'a> {
    heads: Heads<'a>,
    rotary: &'a Rotary,
    position: usize,
    rows: usize,
    columns: usize,
}

impl Host<'_> {
    fn attend(
        &self,
        kept: &mut [(Vec<f32>, Vec<f32>)],
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<Tensor> {
        let mut out = vec![0f32; self.rows * self.columns];
        with_slice(q, |q| {
            with_slice(k, |k| {
                with_slice(v, |v| {
                    let each =
                        kept.par_iter_mut().enumerate().map(|(kv, kept)| self.group(kept, kv, q, k, v));
                    let contexts: Vec<Vec<(usize, Vec<f32>)>> = each.collect();
                    contexts
                        .iter()
                        .flatten()
                        .for_each(|(head, context)| self.place(&mut out, *head, context));
                    Ok(())
                })
            })
        })?;
        Ok(Tensor::from_vec(out, (self.rows, self.columns), &Device::Cpu)?)
    }

    /// Appends to one key/value head and gives the contexts of its query heads.
    fn group(
        &self,
        (keys, values): &mut (Vec<f32>, Vec<f32>),
        kv: usize,
        q: &[f32],
        k: &[f32],
        v: &[f32],
    ) -> Vec<(usize, Vec<f32>)> {
        let c = self.heads.width;
        let columns = k.len() / self.rows;
        let all = 0..self.rows;
        let mut new = gather(k, from_ref(&all), columns, kv, c);
        rotate_rows(self.rotary, &mut new, c, self.position, 1.0);
        keys.extend(new);
        values.extend(gather(v, from_ref(&all), columns, kv, c));
        let queries = (0..self.heads.kv_of.len()).filter(|&h| self.heads.kv_of[h] == kv);
        queries.map(|head| (head, self.head(head, q, keys, values))).collect()
    }

    fn head(&self, head: usize, q: &[f32], keys: &[f32], values: &[f32]) -> Vec<f32> {
        let c = self.heads.width;
        let mut context = Vec::with_capacity(self.rows * c);
        let mut scratch = Scratch::default();
        for start in (0..self.rows).step_by(BLOCK) {
            let rows = start..(start + BLOCK).min(self.rows);
            let first = self.position + start;
            let seen = self.heads.window.map_or(0, |w| (first + 1).saturating_sub(w))..first + rows.len();
            let queries = self.queries(head, q, rows, first);
            let part = seen.start * c..seen.end * c;
            context.extend_from_slice(block(
                &queries,
                &keys[part.clone()],
                &values[part],
                first - seen.start,
                self.heads,
                &mut scratch,
            ));
        }
        context
    }

    /// Queries of a block of rows, rotated and scaled.
    fn queries(&self, head: usize, q: &[f32], rows: std::ops::Range<usize>, first: usize) -> Vec<f32> {
        let c = self.heads.width;
        let scale = 1.0 / (c as f32).sqrt();
        let mut queries = gather(q, &[rows], self.columns, head, c);
        rotate_rows(self.rotary, &mut queries, c, first, scale);
        queries
    }

    fn place(&self, out: &mut [f32], head: usize, context: &[f32]) {
        let c = self.heads.width;
        for (row, context) in out.chunks_exact_mut(self.columns).zip(context.chunks_exact(c)) {
            row[head * c..][..c].copy_from_slice(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt as _;

    use super::*;
    use crate::base::rng;
    use crate::tensor::attention::{Segments, attention};

    fn random(rows: usize, cols: usize, name: &str) -> Tensor {
        let mut rng = rng::stream(11, name);
        let data: Vec<f32> = (0..rows * cols).map(|_| rng.random_range(-1.0f32..1.0)).collect();
        Tensor::from_vec(data, (rows, cols), &Device::Cpu).unwrap()
    }

    fn rotary() -> Rotary {
        Rotary::new(&[1.0, 0.1, 0.01, 0.001], 300)
    }

    /// A text attended in `parts` through a cache, against the whole at once.
    fn check(backend: Backend, kv_of: &[usize], window: Option<usize>, parts: &[usize]) {
        let n = parts.iter().sum();
        let kv = kv_of.iter().max().unwrap() + 1;
        let q = random(n, kv_of.len() * 8, "q");
        let k = random(n, kv * 8, "k");
        let v = random(n, kv * 8, "v");
        let heads = Heads { kv_of, width: 8, window };
        let whole = attention(&q, &k, &v, &Segments::sequences(1, n), heads, &rotary())
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        let mut cache = Kv::on(backend, kv);
        let mut at = 0;
        for &part in parts {
            let rows = |x: &Tensor| x.narrow(0, at, part).unwrap();
            let got = cache
                .attend(&rows(&q), &rows(&k), &rows(&v), heads, &rotary())
                .unwrap()
                .to_vec2::<f32>()
                .unwrap();
            for (got, want) in got.concat().iter().zip(whole[at..at + part].concat()) {
                assert!((got - want).abs() < 2e-6, "{backend:?} {parts:?}: {got} for {want}");
            }
            at += part;
        }
        assert_eq!(cache.bytes(), n * kv * 8 * 2 * 4);
    }

    #[test]
    fn a_text_in_parts_equals_the_whole_on_both_backends() {
        for backend in [Backend::Cpu, Backend::Candle] {
            check(backend, &[0, 0, 1], None, &[70, 1, 1, 30]);
            check(backend, &[0, 1], Some(9), &[1, 1, 1, 90, 1]);
            check(backend, &[0], Some(1), &[2, 1]);
        }
    }

    #[test]
    fn a_layer_without_heads_keeps_nothing() {
        let none = Tensor::zeros((3, 0), candle_core::DType::F32, &Device::Cpu).unwrap();
        let heads = Heads { kv_of: &[], width: 8, window: None };
        for backend in [Backend::Cpu, Backend::Candle] {
            let mut cache = Kv::on(backend, 0);
            assert_eq!(cache.attend(&none, &none, &none, heads, &rotary()).unwrap().dims(), [3, 0]);
            assert_eq!(cache.bytes(), 0);
        }
    }
}
