//! On tiny random models: what is written, what is passed on, what resumes, and that compaction equals
//! zero-filling.

mod methods;
mod reference;

use candle_core::{Device, Tensor};
use rand::RngExt as _;

use super::*;
use crate::base::{Silent, rng};
use crate::data::{CalibrationSet, Sequences};
use crate::model::pico::Pico;
use crate::model::{Model, Source};
use crate::prune;
use crate::space::{Candidate, ModuleId, ModuleKind, Request, Space, uniform};
use crate::spec::{self, Accumulation, AttentionUnit, Sequential, Target};
use crate::tensor::attention::Segments;

pub(crate) struct Fixture {
    pub dir: tempfile::TempDir,
    pub source: Source,
    pub model: Model,
}

pub(crate) fn tokens(count: usize, name: &str) -> Vec<u32> {
    let mut rng = rng::stream(3, name);
    (0..count).map(|_| rng.random_range(0..64)).collect()
}

pub(crate) fn fixture(pico: Pico) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let source = pico.write(&dir.path().join("dense"), 5).unwrap();
    let model = Model::open_with(&[pico.family], &source, &Device::Cpu).unwrap();
    Fixture { dir, source, model }
}

pub(crate) fn options(change: impl FnOnce(&mut spec::Prune, &mut spec::Supernet)) -> Options {
    let prune = spec::Prune {
        method: spec::Method::Obs,
        unit: spec::Units { attention: AttentionUnit::Head, mlp: spec::MlpUnit::Neuron },
        align: spec::Align { neurons: 1, heads: spec::HeadsPerGroup::Free },
        keep_at_least: spec::KeepAtLeast { heads: 0, neurons: 0 },
        saliency: spec::Saliency { first_order: true, second_order: true },
        step: spec::Step { heads: 1, neurons: 4 },
        ranking: spec::Ranking::Progressive,
        damping: 0.01,
        damping_mean: spec::DampingMean::Arithmetic,
        target: Target::Layer,
        target_interpolation: 1.0,
        target_shrinkage: spec::TargetShrinkage::None,
    };
    let supernet = spec::Supernet {
        levels: 9,
        accumulation: Accumulation::Expectation,
        sequential: Sequential::Module,
        intervals: vec![],
        refit: false,
    };
    let (mut prune, mut supernet) = (prune, supernet);
    change(&mut prune, &mut supernet);
    let method = prune::method(&prune);
    Options { method, supernet, dtype: safetensors::Dtype::F32, seed: 1, name: "1".into(), head_groups: 1 }
}

impl Fixture {
    pub fn space(&self, unit: AttentionUnit, fraction: f64) -> Space {
        let shape = self.model.config().shape(unit);
        Space::around(shape, uniform(&shape, Request::Total(fraction)).unwrap(), [1, 12], 9).unwrap()
    }

    pub fn build(&self, name: &str, space: Space, options: &Options) -> Supernet<'_> {
        let calibration =
            CalibrationSet::new(Sequences { tokens: tokens(16 * 32, "calibration"), length: 32 }, 0);
        self.build_on(&calibration, name, space, options)
    }

    pub fn build_on(
        &self,
        calibration: &CalibrationSet,
        name: &str,
        space: Space,
        options: &Options,
    ) -> Supernet<'_> {
        let folder = self.dir.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let supernet = Supernet::at(&self.model, &folder, space);
        build(&self.model, &supernet, calibration, options, &Silent).unwrap();
        supernet
    }

    pub fn compacted(&self, supernet: &Supernet, candidate: &Candidate, name: &str) -> Model {
        let folder = self.dir.path().join(name);
        let distribution = supernet.space().distribution(candidate);
        compact::compact(
            &self.model,
            &self.source,
            supernet,
            &distribution,
            safetensors::Dtype::F32,
            &folder,
        )
        .unwrap();
        Model::open(&Source::folder(&folder).unwrap(), &Device::Cpu).unwrap()
    }
}

/// The dense model with a candidate's weights filled into the dense shapes, zeros elsewhere.
pub(super) fn zero_filled_logits(
    f: &Fixture,
    supernet: &Supernet,
    candidate: &Candidate,
    ids: &[u32],
) -> Tensor {
    let segments = Segments::sequences(1, ids.len());
    let mut x = f.model.embed(ids).unwrap();
    for l in 0..f.model.config().layers.len() {
        let mut layer = (*f.model.layer(l).unwrap()).clone();
        for kind in ModuleKind::ALL {
            let module = ModuleId { layer: l, kind };
            let removed = supernet.space().removed(module, candidate[module.index()]);
            let dense = store::module_output(&layer, kind);
            let filled = supernet.mean(module, &[(removed, 1.0)], dense).unwrap();
            match kind {
                ModuleKind::Attention => layer.attention.o = filled,
                ModuleKind::Mlp => layer.mlp.down = filled,
            }
        }
        x = f.model.forward_layer(&layer, &x, &segments).unwrap();
    }
    f.model.logits(&x).unwrap()
}

/// A level's weight in the dense layout.
fn filled(f: &Fixture, supernet: &Supernet, module: ModuleId, removed: usize) -> Tensor {
    let layer = f.model.layer(module.layer).unwrap();
    let dense = store::module_output(&layer, module.kind);
    supernet.mean(module, &[(removed, 1.0)], dense).unwrap().weight
}

pub(super) fn worst(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn the_compacted_model_equals_the_zero_filled_one() {
    for (unit, bias) in
        [(AttentionUnit::Head, false), (AttentionUnit::KvGroup, false), (AttentionUnit::Head, true)]
    {
        let f = fixture(Pico { bias, ..Pico::default() });
        let supernet = f.build("net", f.space(unit, 0.5), &options(|_, _| {}));
        let shape = supernet.space().shape;
        // Uneven, with a layer without heads and one without neurons.
        let all = shape.attention.units as i32 / 2;
        let candidate = vec![all, 0, -all, 2, 0, -2];
        let small = f.compacted(&supernet, &candidate, "small");
        assert_eq!(small.config().layers[0].heads(), 0);
        assert_eq!(small.config().layers[1].intermediate_size, 0);
        assert_eq!(small.checkpoint().parameters(), small.config().parameters().total());
        let ids = tokens(40, "text");
        let logits = small.logits(&small.hidden(&ids, &Segments::sequences(1, 40)).unwrap()).unwrap();
        let difference = worst(&logits, &zero_filled_logits(&f, &supernet, &candidate, &ids));
        assert!(difference < 2e-5, "{unit:?} bias {bias}: {difference}");
    }
}

#[test]
fn counted_parameters_fall_by_what_the_units_own() {
    let f = fixture(Pico::default());
    let supernet = f.build("net", f.space(AttentionUnit::KvGroup, 0.5), &options(|_, _| {}));
    let small = f.compacted(&supernet, &supernet.space().start(), "small");
    let lost = f.model.checkpoint().parameters() - small.checkpoint().parameters();
    assert_eq!(lost, supernet.space().centre.parameters(&supernet.space().shape));
}

#[test]
fn the_dense_level_with_the_layer_target_is_the_model_itself() {
    let f = fixture(Pico::default());
    let supernet = f.build("net", f.space(AttentionUnit::Head, 0.5), &options(|_, _| {}));
    let dense = vec![-2; 6];
    let ids = tokens(20, "text");
    let want = f.model.logits(&f.model.hidden(&ids, &Segments::sequences(1, 20)).unwrap()).unwrap();
    let small = f.compacted(&supernet, &dense, "same");
    assert!(small.config().is_dense());
    let got = small.logits(&small.hidden(&ids, &Segments::sequences(1, 20)).unwrap()).unwrap();
    assert_eq!(worst(&want, &got), 0.0);
}

#[test]
fn a_build_that_was_stopped_goes_on_to_the_same_bytes() {
    let f = fixture(Pico::default());
    let residual = options(|p, _| p.target = Target::Residual);
    f.build("whole", f.space(AttentionUnit::Head, 0.5), &residual);
    f.build("again", f.space(AttentionUnit::Head, 0.5), &residual);
    let read = |folder: &str, file: &str| std::fs::read(f.dir.path().join(folder).join(file)).unwrap();
    let files = ["layer-001-attention", "layer-001-mlp", "layer-002-attention", "layer-002-mlp"];
    for file in files {
        std::fs::remove_file(f.dir.path().join("again").join(format!("{file}.safetensors"))).unwrap();
        std::fs::remove_file(f.dir.path().join("again").join(format!("{file}.json"))).unwrap();
    }
    std::fs::write(f.dir.path().join("again/layer-000-mlp.safetensors"), b"damaged").unwrap();
    f.build("again", f.space(AttentionUnit::Head, 0.5), &residual);
    for file in files.iter().chain(&["layer-000-mlp"]) {
        assert_eq!(
            read("whole", &format!("{file}.safetensors")),
            read("again", &format!("{file}.safetensors")),
            "{file}"
        );
    }
}

#[test]
fn every_mode_order_and_target_builds_finite_levels() {
    let f = fixture(Pico { layers: 2, ..Pico::default() });
    use Accumulation::*;
    for (i, accumulation) in [None, Single, Random, Uniform, Expectation].into_iter().enumerate() {
        for (j, sequential) in [Sequential::Module, Sequential::Layer].into_iter().enumerate() {
            for (k, target) in [Target::Layer, Target::Dense, Target::Residual].into_iter().enumerate() {
                let options = options(|p, s| {
                    p.target = target;
                    p.target_interpolation = if k == 2 { 0.5 } else { 1.0 };
                    p.target_shrinkage =
                        if j == 1 { spec::TargetShrinkage::SplitHalf } else { spec::TargetShrinkage::None };
                    s.accumulation = accumulation;
                    s.sequential = sequential;
                });
                let supernet =
                    f.build(&format!("net-{i}-{j}-{k}"), f.space(AttentionUnit::Head, 0.5), &options);
                for module in (0..4).map(ModuleId::from_index) {
                    for level in supernet.space().levels(module) {
                        let weight =
                            supernet.weight(module, supernet.space().removed(module, level)).unwrap();
                        assert!(weight.iter().all(|w| w.is_finite()));
                    }
                }
            }
        }
    }
}

#[test]
fn accumulation_changes_what_later_modules_become_and_the_first_not() {
    let f = fixture(Pico::default());
    let net = |name: &str, mode| {
        f.build(name, f.space(AttentionUnit::Head, 0.5), &options(|_, s| s.accumulation = mode))
    };
    let a = net("a", Accumulation::None);
    let b = net("b", Accumulation::Single);
    let weight = |n: &Supernet, i| n.weight(ModuleId::from_index(i), n.space().centre.removed[i]).unwrap();
    assert_eq!(weight(&a, 0), weight(&b, 0));
    assert_ne!(weight(&a, 1), weight(&b, 1));
    assert_ne!(weight(&a, 5), weight(&b, 5));
}

#[test]
fn starts_count_as_sequences_of_one_token() {
    let f = fixture(Pico::default());
    let text = tokens(64, "calibration");
    let with_sinks = CalibrationSet::new(Sequences { tokens: text.clone(), length: 1 }, 1000);
    let repeated = [&text[..], &with_sinks.sinks.tokens].concat();
    let without = CalibrationSet::new(Sequences { tokens: repeated, length: 1 }, 0);
    let sequences_only = CalibrationSet::new(Sequences { tokens: text, length: 1 }, 0);
    let residual = options(|p, _| p.target = Target::Residual);
    let net = |set: &CalibrationSet, name: &str| {
        f.build_on(set, name, f.space(AttentionUnit::Head, 0.5), &residual)
    };
    let a = net(&with_sinks, "a");
    let b = net(&without, "b");
    let c = net(&sequences_only, "c");
    let filled = |n: &Supernet, i| filled(&f, n, ModuleId::from_index(i), n.space().centre.removed[i]);
    assert!((0..6).all(|i| worst(&filled(&a, i), &filled(&b, i)) < 1e-5));
    assert!((0..6).any(|i| worst(&filled(&a, i), &filled(&c, i)) > 1e-3));
}

#[test]
fn a_refit_of_one_level_is_the_middle_level_of_single_accumulation() {
    let f = fixture(Pico::default());
    let space = f.space(AttentionUnit::Head, 0.5);
    let single = options(|_, s| s.accumulation = Accumulation::Single);
    let one = Space::around(space.shape, space.centre.clone(), [1, 1], 1).unwrap();
    assert!((0..6).all(|i| one.levels(ModuleId::from_index(i)).count() == 1));
    let refit = f.build("refit", one, &single);
    let net = f.build("net", space, &single);
    for module in (0..6).map(ModuleId::from_index) {
        let removed = net.space().centre.removed[module.index()];
        let filled = |n: &Supernet| filled(&f, n, module, removed);
        assert_eq!(worst(&filled(&refit), &filled(&net)), 0.0, "{module}");
    }
}

#[test]
fn the_residual_target_brings_the_output_closer_to_the_dense_one() {
    let f = fixture(Pico::default());
    let error = |name: &str, target| {
        let supernet = f.build(
            name,
            f.space(AttentionUnit::Head, 0.5),
            &options(|p, s| {
                p.target = target;
                s.accumulation = Accumulation::Single;
            }),
        );
        let small = f.compacted(&supernet, &supernet.space().start(), &format!("{name}-small"));
        let ids = tokens(16 * 32, "calibration");
        let segments = Segments::sequences(16, 32);
        let x = f.model.hidden(&ids, &segments).unwrap();
        let y = small.hidden(&ids, &segments).unwrap();
        crate::tensor::loss::squared_distance(&x, &y).unwrap()
    };
    let layer = error("layer", Target::Layer);
    let residual = error("residual", Target::Residual);
    assert!(residual < layer, "residual {residual}, layer {layer}");
}

#[test]
fn one_head_and_one_layer_prune_to_nothing_without_a_panic() {
    let f = fixture(Pico { layers: 1, heads: 1, kv_heads: 1, ..Pico::default() });
    let supernet = f.build("net", f.space(AttentionUnit::Head, 1.0), &options(|_, _| {}));
    let small = f.compacted(&supernet, &supernet.space().start(), "none");
    assert_eq!(small.config().layers[0].heads() + small.config().layers[0].intermediate_size, 0);
    assert_eq!(
        small.hidden(&[1, 2], &Segments::sequences(1, 2)).unwrap().to_vec2::<f32>().unwrap(),
        f.model.embed(&[1, 2]).unwrap().to_vec2::<f32>().unwrap()
    );
}
