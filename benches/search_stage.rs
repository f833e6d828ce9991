//! One selection stage of the search on a model of the built-in one's sizes, beside plain products of the
//! same number of operations.
#![allow(clippy::unwrap_used, clippy::expect_used)] // what fails here may end the program

use std::hint::black_box;

use candle_core::Device;
use criterion::{Criterion, criterion_group, criterion_main};
use faer::{Accum, Mat, Par};
use tyr::base::Silent;
use tyr::data::{CalibrationSet, SearchSet, Sequences};
use tyr::fitness::{DenseStates, Drawn, Population, Wanted};
use tyr::model::pico::Pico;
use tyr::model::{Matrix, Model};
use tyr::space::{Candidate, ModuleId, Request, Space, legal_flips, uniform};
use tyr::spec;
use tyr::supernet::{self, Supernet};

const CANDIDATES: usize = 16;
const TOKENS: usize = 1024;

fn options() -> supernet::Options {
    let prune = spec::Prune {
        method: spec::Method::Obs,
        unit: spec::Units { attention: spec::AttentionUnit::Head, mlp: spec::MlpUnit::Neuron },
        align: spec::Align { neurons: 1, heads: spec::HeadsPerGroup::Free },
        keep_at_least: spec::KeepAtLeast { heads: 0, neurons: 0 },
        saliency: spec::Saliency { first_order: false, second_order: true },
        step: spec::Step { heads: 1, neurons: 16 },
        ranking: spec::Ranking::Progressive,
        damping: 0.01,
        damping_mean: spec::DampingMean::Geometric,
        target: spec::Target::Layer,
        target_interpolation: 1.0,
        target_shrinkage: spec::TargetShrinkage::None,
    };
    let supernet = spec::Supernet {
        levels: 5,
        accumulation: spec::Accumulation::Single,
        sequential: spec::Sequential::Module,
        intervals: vec![],
        refit: false,
    };
    let method = tyr::prune::method(&prune);
    let name = "bench".into();
    supernet::Options { method, supernet, dtype: safetensors::Dtype::F32, seed: 0, name, head_groups: 1 }
}

fn sequences(tokens: usize) -> Sequences {
    Sequences { tokens: (0..tokens as u32).map(|i| i * 2_654_435 % 4096).collect(), length: 256 }
}

/// Candidates that differ from the centre by one flip each.
fn candidates(space: &Space) -> Vec<Candidate> {
    let flips = legal_flips(space, &space.start());
    let stride = flips.len() / CANDIDATES;
    flips
        .iter()
        .step_by(stride)
        .take(CANDIDATES)
        .map(|m| {
            let mut c = space.start();
            m.apply(&mut c);
            c
        })
        .collect()
}

/// Operations of scoring every candidate alone: twice the parameters that each token meets.
fn operations(space: &Space, candidates: &[Candidate], model: &Model) -> usize {
    let shape = space.shape;
    let config = model.config();
    let parameters = config.parameters();
    let fixed = [Matrix::Key, Matrix::Value].map(|matrix| parameters.of(matrix)).iter().sum::<usize>()
        + config.vocabulary * config.hidden;
    let kept = |c: &Candidate| -> usize {
        let removed = space.distribution(c).removed;
        removed
            .iter()
            .enumerate()
            .map(|(i, r)| {
                let u = shape.units(ModuleId::from_index(i).kind);
                (u.units - r) * u.parameters
            })
            .sum()
    };
    candidates.iter().map(|c| 2 * TOKENS * (kept(c) + fixed)).sum()
}

fn search_stage(criterion: &mut Criterion) {
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
    let source = pico.write(dir.path(), 1).expect("a model");
    let model = Model::open(&source, &Device::Cpu).expect("a model");
    let shape = model.config().shape(spec::AttentionUnit::Head);
    let space = Space::around(shape, uniform(&shape, Request::Total(0.5)).expect("a start"), [1, 88], 5)
        .expect("a space");
    let net = Supernet::at(&model, dir.path(), space.clone());
    supernet::build(&model, &net, &CalibrationSet::new(sequences(8192), 0), &options(), &Silent)
        .expect("a supernet");
    let set = SearchSet(sequences(8192));
    let candidates = candidates(&space);
    let mut population = Population::new(&model, &net, DenseStates::default());
    let wanted = Wanted { kl: vec![0], ..Wanted::default() };
    let drawn = Drawn { whole: vec![0, 1, 2, 3], start: None };
    let mut group = criterion.benchmark_group("search stage");
    group.sample_size(10);
    group.bench_function("16 candidates on 1024 tokens", |b| {
        b.iter(|| {
            population.measure(black_box(&candidates), &set, &drawn, &wanted, &Silent).expect("measures")
        });
    });
    let product = operations(&space, &candidates, &model) / (2 * 256 * 704);
    let a = Mat::<f32>::ones(product, 256);
    let b = Mat::<f32>::ones(256, 704);
    let mut c = Mat::<f32>::zeros(product, 704);
    group.bench_function("products of as many operations as the candidates alone", |bench| {
        bench.iter(|| {
            faer::linalg::matmul::matmul(
                c.as_mut(),
                Accum::Replace,
                black_box(a.as_ref()),
                b.as_ref(),
                1.0,
                Par::rayon(0),
            )
        });
    });
    group.finish();
}

criterion_group!(benches, search_stage);
criterion_main!(benches);
