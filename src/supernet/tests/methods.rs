//! Pruning methods in the supernet: one that needs no text, and one that gives its levels biases.

use std::sync::Arc;

use faer::Mat;

use super::*;
use crate::base::{Kind, Result};
use crate::data::{EvaluationSet, SearchSet};
use crate::eval::perplexity::divergence;
use crate::fitness::{DenseStates, Drawn, Population, Wanted};
use crate::prune::cost::{Cost, Size};
use crate::prune::{Method, Module, Needs, PrunedLevel, PrunedModule};

fn magnitude(accumulation: Accumulation, sequential: Sequential) -> Options {
    options(|p, s| {
        p.method = spec::Method::Magnitude;
        s.accumulation = accumulation;
        s.sequential = sequential;
    })
}

#[test]
fn magnitude_runs_no_text_and_every_accumulation_gives_the_same() {
    let f = fixture(Pico::default());
    // Tokens that no model could run.
    let text = CalibrationSet::new(Sequences { tokens: vec![9_999; 64], length: 32 }, 0);
    let folder = f.dir.path().join("obs");
    std::fs::create_dir_all(&folder).unwrap();
    let net = Supernet::at(&f.model, &folder, f.space(AttentionUnit::Head, 0.5));
    assert_eq!(build(&f.model, &net, &text, &options(|_, _| {}), &Silent).unwrap_err().kind, Kind::Data);
    let space = || f.space(AttentionUnit::Head, 0.5);
    let first = f.build_on(&text, "first", space(), &magnitude(Accumulation::None, Sequential::Module));
    for (i, accumulation) in [Accumulation::Expectation, Accumulation::Random].into_iter().enumerate() {
        let other = magnitude(accumulation, Sequential::Layer);
        let other = f.build_on(&text, &format!("other-{i}"), space(), &other);
        let bytes = |n: &str, file: &str| std::fs::read(f.dir.path().join(n).join(file)).unwrap();
        let files = other.files();
        assert!(files.iter().all(|file| bytes("first", file) == bytes(&format!("other-{i}"), file)));
    }
    assert_eq!(first.space().levels(ModuleId::from_index(0)).count(), 5);
}

#[test]
fn levels_by_magnitude_are_the_dense_columns_of_the_units_that_weigh_most() {
    for unit in [AttentionUnit::Head, AttentionUnit::KvGroup] {
        let f = fixture(Pico::default());
        let options = magnitude(Accumulation::Expectation, Sequential::Module);
        let net = f.build("net", f.space(unit, 0.5), &options);
        for module in (0..6).map(ModuleId::from_index) {
            let layer = f.model.layer(module.layer).unwrap();
            let dense = store::module_output(&layer, module.kind).weight.to_vec2::<f32>().unwrap();
            let width = net.space().shape.units(module.kind).width;
            for removed in net.space().levels(module).map(|level| net.space().removed(module, level)) {
                let kept = net.kept(module, removed).unwrap();
                let filled = filled(&f, &net, module, removed).to_vec2::<f32>().unwrap();
                for (filled, dense) in filled.iter().flatten().zip(dense.iter().flatten()).enumerate().map(
                    |(i, (filled, dense))| {
                        let unit = (i % (width * net.space().shape.units(module.kind).units)) / width;
                        (*filled, if kept.contains(&(unit as u32)) { *dense } else { 0.0 })
                    },
                ) {
                    assert_eq!(filled, dense);
                }
            }
            let norms = owned_norms(&layer, module.kind, unit);
            let keep_order = net.keep_order(module).unwrap();
            let most = norms.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            let least = norms.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            assert_eq!(
                (keep_order[norms.len() - 1] as usize, keep_order.contains(&(most as u32))),
                (least, true)
            );
        }
        let candidate = vec![1, 1, -1, 0, 0, -1];
        let small = f.compacted(&net, &candidate, "small");
        let ids = tokens(40, "text");
        let logits = small.logits(&small.hidden(&ids, &Segments::sequences(1, 40)).unwrap()).unwrap();
        assert!(worst(&logits, &zero_filled_logits(&f, &net, &candidate, &ids)) < 2e-5);
    }
}

/// Norm of all weights that leave with each unit.
fn owned_norms(layer: &crate::model::Layer, kind: ModuleKind, unit: AttentionUnit) -> Vec<f32> {
    let rows = |m: &Tensor, units: usize| -> Vec<f32> {
        let all = m.to_vec2::<f32>().unwrap();
        let chunks = all.chunks(all.len() / units);
        chunks.map(|rows| rows.iter().flatten().map(|w| w * w).sum()).collect()
    };
    let columns = |m: &Tensor, units: usize| rows(&m.t().unwrap().contiguous().unwrap(), units);
    let attention = &layer.attention;
    let parts = match (kind, unit) {
        (ModuleKind::Mlp, _) => {
            let (mlp, units) = (&layer.mlp, 48);
            vec![columns(&mlp.down.weight, units), rows(&mlp.gate.weight, units), rows(&mlp.up.weight, units)]
        }
        (_, AttentionUnit::Head) => vec![columns(&attention.o.weight, 4), rows(&attention.q.weight, 4)],
        (_, AttentionUnit::KvGroup) => vec![
            columns(&attention.o.weight, 2),
            rows(&attention.q.weight, 2),
            rows(&attention.k.weight, 2),
            rows(&attention.v.weight, 2),
        ],
    };
    (0..parts[0].len()).map(|u| parts.iter().map(|part| part[u]).sum::<f32>().sqrt()).collect()
}

#[test]
fn a_refit_by_magnitude_changes_nothing() {
    let f = fixture(Pico::default());
    let options = magnitude(Accumulation::Single, Sequential::Module);
    let space = f.space(AttentionUnit::Head, 0.5);
    let one = Space::around(space.shape, space.centre.clone(), [1, 1], 1).unwrap();
    let refit = f.build("refit", one, &options);
    let net = f.build("net", space, &options);
    for module in (0..6).map(ModuleId::from_index) {
        let removed = net.space().centre.removed[module.index()];
        assert_eq!(worst(&filled(&f, &refit, module, removed), &filled(&f, &net, module, removed)), 0.0);
    }
}

#[test]
fn what_building_costs_follows_the_method() {
    let config = Pico::default().config().unwrap();
    let shape = config.shape(AttentionUnit::Head);
    let space = Space::around(shape, uniform(&shape, Request::Total(0.5)).unwrap(), [1, 12], 9).unwrap();
    let spec = |method| {
        let mut spec: spec::Spec = toml::from_str(spec::defaults_toml()).unwrap();
        spec.prune.method = method;
        spec
    };
    let [obs, magnitude] = [spec::Method::Obs, spec::Method::Magnitude].map(spec);
    let building = |spec| cost::Building { config: &config, space: &space, spec, stored: 2.0 };
    let (obs, magnitude) = (building(&obs), building(&magnitude));
    assert_eq!(magnitude.work().flops(), 0.0);
    assert!(obs.work().flops() > 1e9);
    assert!(magnitude.memory() * 100.0 < obs.memory(), "{} {}", magnitude.memory(), obs.memory());
    // Refitted, the dense level is stored too.
    assert!(magnitude.disk() < obs.disk());
}

/// Removes the last units and gives back, as a bias, the mean of what they wrote.
#[derive(Debug)]
struct MeanKept;

impl Method for MeanKept {
    fn needs(&self) -> Needs {
        Needs { moments: true, ..Needs::default() }
    }

    fn prune(&self, module: Module, removed: &[usize]) -> Result<PrunedModule> {
        assert!(module.collected.sums.is_none() && module.rows.is_empty());
        let mean = module.collected.moments.unwrap().mean;
        let b = module.weight;
        let level = |&removed: &usize| {
            let kept = (module.units.count - removed) * module.units.width;
            let lost = |j: usize| (kept..b.nrows()).map(|p| mean[p] * b[(p, j)]).sum::<f64>() as f32;
            let bias = (removed > 0).then(|| (0..b.ncols()).map(lost).collect());
            let weight = Mat::from_fn(b.ncols(), kept, |i, j| b[(j, i)] as f32);
            PrunedLevel { removed, weight, bias, loss: None }
        };
        let units = module.units.count;
        let levels = removed.iter().map(level).collect();
        let keep_order = (0..units as u32).collect();
        Ok(PrunedModule { keep_order, levels, saliency: vec![0.0; units], notes: vec![] })
    }

    fn cost(&self, _: &Size) -> Cost {
        Cost::default()
    }
}

fn mean_kept(accumulation: Accumulation) -> Options {
    Options { method: Arc::new(MeanKept), ..options(|_, s| s.accumulation = accumulation) }
}

#[test]
fn a_model_with_the_biases_of_its_levels_is_the_same_filled_compacted_and_in_a_population() {
    for bias in [false, true] {
        let f = fixture(Pico { bias, ..Pico::default() });
        let net = f.build("net", f.space(AttentionUnit::Head, 0.5), &mean_kept(Accumulation::Expectation));
        // The first layer keeps all heads, so that one level of a kind has no bias of its own.
        let candidates = vec![vec![-2, 0, 2, 1, 0, -1], vec![0; 6], vec![-2, -1, 1, 1, 1, -1]];
        let set = SearchSet(Sequences { tokens: tokens(3 * 24, "search"), length: 24 });
        let wanted = Wanted { kl: vec![0], ..Wanted::default() };
        let measured = Population::new(&f.model, &net, DenseStates::default())
            .measure(&candidates, &set, &Drawn { whole: vec![0, 1, 2], start: None }, &wanted, &Silent)
            .unwrap();
        let ids = tokens(40, "text");
        for (i, candidate) in candidates.iter().enumerate() {
            let small = f.compacted(&net, candidate, &format!("small-{i}"));
            let written = small.layer(1).unwrap().attention.o.bias.clone().unwrap();
            assert!(written.to_vec1::<f32>().unwrap().iter().any(|b| *b != 0.0));
            assert_eq!(small.checkpoint().parameters(), small.config().parameters().total());
            let logits = small.logits(&small.hidden(&ids, &Segments::sequences(1, 40)).unwrap()).unwrap();
            let difference = worst(&logits, &zero_filled_logits(&f, &net, candidate, &ids));
            assert!(difference < 2e-5, "bias {bias}: {difference}");
            let kl = divergence(&small, &f.model, &EvaluationSet(set.0.clone()), &Silent).unwrap().value;
            let found = measured[i].all.kl[0];
            assert!((found - kl).abs() < 1e-5 * (1.0 + kl), "population {found}, alone {kl}");
        }
        let first = |n: &str| {
            let folder = f.dir.path().join(n);
            Model::open(&Source::folder(&folder).unwrap(), &Device::Cpu).unwrap().layer(0).unwrap()
        };
        // All heads kept: the dense model's own bias, or zeros beside those of the other layers.
        let own = f.model.layer(0).unwrap().attention.o.bias.clone();
        let kept = first("small-0").attention.o.bias.clone().unwrap();
        assert_eq!(worst(&kept, &own.unwrap_or(kept.zeros_like().unwrap())), 0.0);
    }
}

#[test]
fn what_is_passed_on_has_the_mean_of_the_levels_biases() {
    let f = fixture(Pico { bias: true, ..Pico::default() });
    let net = f.build("net", f.space(AttentionUnit::Head, 0.5), &mean_kept(Accumulation::Single));
    let module = ModuleId::from_index(1);
    let layer = f.model.layer(0).unwrap();
    let dense = store::module_output(&layer, module.kind);
    let levels: Vec<usize> = net.space().levels(module).map(|l| net.space().removed(module, l)).collect();
    let (a, b) = (levels[0], levels[levels.len() - 1]);
    let mean = net.mean(module, &[(a, 0.75), (b, 0.25)], dense).unwrap().bias.unwrap();
    let own = dense.bias.clone().unwrap().to_vec1::<f32>().unwrap();
    let whole = |removed| net.bias(module, removed).unwrap().unwrap();
    for (i, found) in mean.to_vec1::<f32>().unwrap().into_iter().enumerate() {
        let expected = 0.75 * whole(a)[i] + 0.25 * whole(b)[i];
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
    assert!(own.iter().zip(whole(b)).any(|(own, whole)| *own != whole));
    // Later modules see it: what they remove had another mean.
    let other = f.build("other", f.space(AttentionUnit::Head, 0.5), &mean_kept(Accumulation::None));
    let last = ModuleId::from_index(5);
    let removed = net.space().centre.removed[5];
    assert_ne!(net.bias(last, removed).unwrap(), other.bias(last, removed).unwrap());
}

#[test]
fn a_bias_on_the_dense_level_is_refused() {
    let f = fixture(Pico::default());
    let net = Supernet::at(&f.model, f.dir.path(), f.space(AttentionUnit::Head, 0.5));
    let level = PrunedLevel { removed: 0, weight: Mat::zeros(32, 32), bias: Some(vec![0.0; 32]), loss: None };
    let pruned =
        PrunedModule { keep_order: (0..4).collect(), levels: vec![level], saliency: vec![], notes: vec![] };
    let error = net.write(ModuleId::from_index(0), &pruned, safetensors::Dtype::F32, false).unwrap_err();
    assert_eq!(error.kind, Kind::Internal);
}
