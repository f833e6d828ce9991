//! One step of writing: a product of a few rows with a stored matrix beside a plain read of its bytes, and a
//! token of each of several texts of a model of the built-in one's sizes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // what fails here may end the program

use std::hint::black_box;

use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rayon::prelude::*;
use safetensors::Dtype;
use tyr::generate::{Stream, pass};
use tyr::model::Model;
use tyr::model::pico::Pico;
use tyr::tensor::stored::{Stored, linear_stored};

/// Rows and columns of a matrix that no cache near the processor holds.
const ROWS: usize = 16_384;
const COLUMNS: usize = 2_048;

fn products(criterion: &mut Criterion) {
    let bytes: Vec<u8> = (0..ROWS * COLUMNS * 2).map(|i| (i % 251) as u8 & 0x3f).collect();
    let w = Stored::new(Dtype::BF16, &bytes, ROWS, COLUMNS).expect("a matrix");
    let mut group = criterion.benchmark_group("a stored matrix of 64 MiB");
    group.sample_size(20);
    group.bench_function("read", |b| {
        let sum = |chunk: &[u8]| {
            let words = chunk.as_chunks::<8>().0.iter();
            words.fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
        };
        b.iter(|| black_box(&bytes).par_chunks(1 << 20).map(sum).reduce(|| 0, u64::wrapping_add));
    });
    for rows in [1, 4, 16] {
        let x = Tensor::ones((rows, COLUMNS), candle_core::DType::F32, &Device::Cpu).expect("an input");
        group.bench_with_input(BenchmarkId::new("multiply", rows), &x, |b, x| {
            b.iter(|| linear_stored(black_box(x), &w).expect("a product"));
        });
    }
    group.finish();
}

fn steps(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let pico = Pico {
        layers: 8,
        hidden: 256,
        heads: 8,
        kv_heads: 4,
        neurons: 704,
        vocabulary: 4096,
        ..Pico::default()
    };
    let model = Model::open(&pico.write(dir.path(), 1).expect("a model"), &Device::Cpu).expect("a model");
    let mut group = criterion.benchmark_group("a token of each text");
    for texts in [1, 8] {
        group.bench_function(BenchmarkId::from_parameter(texts), |b| {
            let begin = || {
                let mut streams: Vec<Stream> = (0..texts).map(|_| Stream::new(&model, &[7; 64])).collect();
                pass(&model, &mut streams.iter_mut().collect::<Vec<_>>()).expect("logits");
                streams.iter_mut().for_each(|stream| stream.push(9));
                streams
            };
            b.iter_batched_ref(
                begin,
                |streams| pass(&model, &mut streams.iter_mut().collect::<Vec<_>>()).expect("logits"),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, products, steps);
criterion_main!(benches);
