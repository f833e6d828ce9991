//! Local pruning beside plain faer products of as many operations: the ratio of the two is what delaying and
//! fusing leave over.
//!
//!     cargo bench --bench prune
#![allow(clippy::unwrap_used, clippy::expect_used)] // what fails here may end the program

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use tyr::prune::Units;
use tyr::prune::gram::{BLOCK, Statistics};
use tyr::prune::obs::{Damping, Obs, Problem};
use tyr::space::ModuleKind;
use tyr::spec::{DampingMean, Step};

/// Numbers without structure, the same on each run.
fn noise(rows: usize, columns: usize, salt: u64) -> Mat<f64> {
    Mat::from_fn(rows, columns, |i, j| {
        let mixed = ((i * columns + j) as u64 + salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f64 / (1u64 << 23) as f64 - 1.0
    })
}

fn problem(units: Units, d_out: usize) -> Problem {
    let d_in = units.channels();
    let x = noise(2 * d_in, d_in, 1);
    let weight = noise(d_in, d_out, 2);
    let kind = ModuleKind::Mlp;
    Problem { kind, units, groups: 1, gram: x.transpose() * &x, correlation: None, weight }
}

fn obs(step: usize) -> Obs {
    let damping = Damping { coefficient: 0.01, mean: DampingMean::Geometric };
    Obs::to_layer(Step { heads: step, neurons: step }, damping)
}

/// The flops of Optimal Brain Surgeon at one level, as listed in its module, with the product X̃ᵀX̃·B.
fn flops(d: f64, o: f64, removed: f64) -> f64 {
    let kept = d - removed;
    let live = (d * d * d - kept * kept * kept) / 3.0;
    2.0 * d * d * o
        + d * d * d
        + live
        + 2.0 * d * o * removed
        + kept * kept * kept / 3.0
        + 2.0 * kept * kept * o
}

/// A product of square f64 matrices with about this many flops.
fn dense_f64(group: &mut BenchmarkGroup<WallTime>, name: &str, flops: f64) {
    let n = (flops / 2.0).cbrt() as usize;
    let a = noise(n, n, 3);
    let b = noise(n, n, 4);
    let mut c = Mat::zeros(n, n);
    group.bench_function(format!("{name}, plain product of as many flops"), |bencher| {
        bencher.iter(|| matmul(c.as_mut(), Accum::Replace, black_box(&a), &b, 1.0, Par::rayon(0)));
    });
}

fn pruning(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prune");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    for (name, units, d_out, step, removed) in [
        ("1536 neurons x 576 by 16 to half", Units { count: 1536, width: 1 }, 576, 16, 768),
        ("9 heads of 64 x 576 by 1 to 5", Units { count: 9, width: 64 }, 576, 1, 4),
    ] {
        let problem = problem(units, d_out);
        let obs = obs(step);
        group.bench_function(name, |bencher| bencher.iter(|| obs.solve(black_box(&problem), &[removed])));
        dense_f64(
            &mut group,
            name,
            flops(units.channels() as f64, d_out as f64, (removed * units.width) as f64),
        );
    }
    group.finish();
}

fn gram(criterion: &mut Criterion) {
    let rows = 2 * BLOCK;
    let d_in = 1536;
    let mut group = criterion.benchmark_group("gram");
    let x: Vec<f32> = noise(rows, d_in, 5)
        .row_iter()
        .flat_map(|row| row.iter().map(|value| *value as f32).collect::<Vec<_>>())
        .collect();
    let mut sums = Statistics::new(d_in, None);
    group.bench_function("4096 rows of 1536", |bencher| bencher.iter(|| sums.add(black_box(&x), None)));
    let half = rows / 2;
    let a = Mat::full(d_in, half, 0.5f32);
    let b = Mat::full(half, d_in, 0.5f32);
    let mut c = Mat::<f32>::zeros(d_in, d_in);
    group.bench_function("4096 rows of 1536, plain f32 product of as many flops", |bencher| {
        bencher.iter(|| matmul(c.as_mut(), Accum::Replace, black_box(&a), &b, 1.0, Par::rayon(0)));
    });
    group.finish();
}

criterion_group!(benches, pruning, gram);
criterion_main!(benches);
