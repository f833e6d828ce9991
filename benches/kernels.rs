//! The operations that a forward pass is made of, at the widths of models that people have, beside plain faer
//! products of as many operations: the ratio of the two is what norms, gates and memory cost.
//!
//!     cargo bench --bench kernels
#![allow(clippy::unwrap_used, clippy::expect_used)] // what fails here may end the program

use std::hint::black_box;
use std::time::Duration;

use candle_core::{Device, Tensor};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use tyr::tensor::attention::{Heads, Rotary, Segments, attention};
use tyr::tensor::loss::{Teacher, token_logprobs};
use tyr::tensor::{gated, linear, linear_onto, rms_norm};

/// Rows that a thread takes through a layer at once.
const ROWS: usize = 256;
/// Hidden width, neurons, and width of a head.
const MODELS: [(usize, usize, usize); 3] = [(576, 1536, 64), (2048, 5632, 64), (4096, 11_008, 128)];
/// Vocabularies.
const VOCABULARIES: [usize; 2] = [4096, 49_152];

/// Numbers without structure, the same on each run.
fn noise(rows: usize, columns: usize) -> Tensor {
    let mixed = |i: usize| (i as u32).wrapping_mul(0x9E37_79B9) >> 8;
    let values = (0..rows * columns).map(|i| mixed(i) as f32 / (1u32 << 23) as f32 - 1.0).collect::<Vec<_>>();
    Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
}

fn settings<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group
}

/// A plain product of [ROWS, k] with [k, m] on one thread.
fn plain(group: &mut BenchmarkGroup<WallTime>, id: usize, k: usize, m: usize) {
    let a = Mat::from_fn(k, ROWS, |i, j| ((i * 7 + j) % 13) as f32);
    let b = Mat::from_fn(k, m, |i, j| ((i + j * 5) % 11) as f32);
    let mut c = Mat::<f32>::zeros(m, ROWS);
    group.throughput(Throughput::Elements((2 * ROWS * k * m) as u64));
    group.bench_function(BenchmarkId::new("plain product, one thread", id), |bencher| {
        bencher.iter(|| matmul(c.as_mut(), Accum::Replace, black_box(b.transpose()), &a, 1.0, Par::Seq));
    });
}

fn products(criterion: &mut Criterion) {
    let mut group = settings(criterion, "products of 256 rows");
    for (d, m, _) in MODELS {
        let [x, inputs] = [noise(ROWS, d), noise(ROWS, m)];
        let [gate, down] = [noise(m, d), noise(d, m)];
        group.throughput(Throughput::Elements((2 * ROWS * d * m) as u64));
        group.bench_function(BenchmarkId::new("linear", d), |b| b.iter(|| linear(black_box(&x), &gate)));
        group.bench_function(BenchmarkId::new("linear_onto", d), |b| {
            b.iter(|| linear_onto(black_box(&x), &inputs, &down, None));
        });
        group.throughput(Throughput::Elements((4 * ROWS * d * m) as u64));
        group.bench_function(BenchmarkId::new("gated", d), |b| {
            b.iter(|| gated(black_box(&x), (&gate, None), (&gate, None)));
        });
        plain(&mut group, d, d, m);
    }
    group.finish();
}

fn norms_and_attention(criterion: &mut Criterion) {
    let mut group = settings(criterion, "norm and attention of 256 rows");
    for (d, _, c) in MODELS {
        let x = noise(ROWS, d);
        let weight = noise(1, d).squeeze(0).unwrap();
        group.throughput(Throughput::Elements((ROWS * d) as u64));
        group.bench_function(BenchmarkId::new("rms_norm", d), |b| {
            b.iter(|| rms_norm(black_box(&x), &weight, 1e-5));
        });
        let kv_of: Vec<usize> = (0..d / c).collect();
        let heads = Heads { kv_of: &kv_of, width: c, window: None };
        let rotary = Rotary::new(&vec![0.1; c / 2], ROWS);
        let segments = Segments::sequences(1, ROWS);
        group.throughput(Throughput::Elements((4 * ROWS * ROWS * d) as u64));
        group.bench_function(BenchmarkId::new("attention", d), |b| {
            b.iter(|| attention(black_box(&x), &x, &x, &segments, heads, &rotary));
        });
    }
    group.finish();
}

fn losses(criterion: &mut Criterion) {
    let mut group = settings(criterion, "losses of 64 rows");
    for v in VOCABULARIES {
        let logits = noise(64, v);
        let teacher = Teacher::new(&logits, 0).unwrap();
        group.throughput(Throughput::Elements((64 * v) as u64));
        group.bench_function(BenchmarkId::new("divergence", v), |b| {
            b.iter(|| teacher.divergences(black_box(&logits), 0));
        });
        group.bench_function(BenchmarkId::new("token_logprobs", v), |b| {
            b.iter(|| token_logprobs(black_box(&logits), &[7; 64]));
        });
    }
    group.finish();
}

criterion_group!(benches, products, norms_and_attention, losses);
criterion_main!(benches);
