//! Each kind of fitness against numbers computed apart: through compacted models, and by hand.

use super::super::objective::Evidence;
use super::super::*;
use super::sequences;
use crate::base::{Kind, Silent};
use crate::data::{EvaluationSet, FitnessText, SearchSet, Sequences};
use crate::eval::perplexity::{divergence, perplexity};
use crate::model::Model;
use crate::model::pico::Pico;
use crate::search::{Draw, Evaluate as _, Mutations, Search};
use crate::space::Budget;
use crate::spec::{self, AttentionUnit, FitnessKind, LayerWeight, Stage};
use crate::supernet::Supernet;
use crate::supernet::tests::{Fixture, fixture, options, tokens};
use crate::tensor::attention::Segments;
use crate::tensor::loss::squared_distance;

const DRAW: Draw = Draw { generation: 1, stage: 1, tokens: 72, skipped: 0 };

fn table(kind: FitnessKind) -> spec::Fitness {
    spec::Fitness { kind, top_k: 0, layers: vec![], logits_weight: 1.0, corpora: vec![], script: None }
}

fn script(f: &Fixture, text: &str) -> spec::Fitness {
    let path = f.dir.path().join("fitness.rhai");
    std::fs::write(&path, text).unwrap();
    spec::Fitness {
        script: Some(path),
        corpora: vec!["a".into(), "b".into()],
        top_k: 7,
        ..table(FitnessKind::Script)
    }
}

struct Sets {
    search: SearchSet,
    other: SearchSet,
}

fn sets() -> Sets {
    Sets {
        search: SearchSet(sequences(8)),
        other: SearchSet(Sequences { tokens: tokens(8 * 24, "other"), length: 24 }),
    }
}

fn evaluator<'a>(
    f: &'a Fixture,
    supernet: &'a Supernet<'a>,
    sets: &'a Sets,
    fitness: &spec::Fitness,
) -> Evaluator<'a> {
    let sampler = |set| Sampler::new(set, 9, 1);
    let corpus = |name: &str, text| Corpus { name: name.into(), text };
    let corpora =
        vec![corpus("b", FitnessText::Own(sampler(&sets.other))), corpus("a", FitnessText::SearchSet)];
    let population = Population::new(&f.model, supernet, DenseStates::default());
    let objective = Objective::new(fitness, f.model.config(), 24).unwrap();
    Evaluator::new(population, sampler(&sets.search), corpora, objective, &Silent).unwrap()
}

fn net(f: &Fixture) -> Supernet<'_> {
    f.build("net", f.space(AttentionUnit::Head, 0.5), &options(|_, _| {}))
}

/// The fitness of all candidates; a mean over sequences is checked against its sequences.
fn scored(evaluator: &mut Evaluator) -> Vec<f64> {
    let scores = evaluator.score(&candidates(), &DRAW).unwrap();
    for score in &scores {
        let sequences = score.sequences.len();
        assert_eq!(sequences, if evaluator.sequence_length().is_some() { 3 } else { 0 });
        if sequences > 0 {
            close(score.sequences.iter().sum::<f64>() / 3.0, score.fitness);
        }
    }
    scores.into_iter().map(|score| score.fitness).collect()
}

fn candidates() -> Vec<Vec<i32>> {
    vec![vec![0; 6], vec![1, 1, -1, 0, 0, -1], vec![2, 0, -2, 2, 0, -2]]
}

/// The drawn sequences of a set.
fn drawn(set: &SearchSet) -> EvaluationSet {
    EvaluationSet(set.0.pick(&Sampler::new(set, 9, 1).sequences(&DRAW).unwrap().whole))
}

fn first_layers(model: &Model, tokens: &[u32], layers: usize) -> candle_core::Tensor {
    let segments = Segments::sequences(tokens.len() / 24, 24);
    let layer = |x, l| model.forward_layer(&model.layer(l).unwrap(), &x, &segments).unwrap();
    (0..layers).fold(model.embed(tokens).unwrap(), layer)
}

#[track_caller]
fn close(got: f64, want: f64) {
    assert!((got - want).abs() < 1e-4 * (1.0 + want.abs()), "got {got}, want {want}");
}

#[test]
fn each_kind_gives_what_the_compacted_models_give() {
    let f = fixture(Pico::default());
    let supernet = net(&f);
    let sets = sets();
    let fitness = |table: &spec::Fitness| scored(&mut evaluator(&f, &supernet, &sets, table));
    let weights = vec![LayerWeight { layer: -1, weight: 0.25 }, LayerWeight { layer: 0, weight: 2.0 }];
    let similar = spec::Fitness { layers: weights, logits_weight: 3.0, ..table(FitnessKind::Similarity) };
    let only_layers = spec::Fitness { logits_weight: 0.0, ..similar.clone() };
    let two = spec::Fitness { corpora: vec!["a".into(), "b".into()], ..table(FitnessKind::Perplexity) };
    let kl = fitness(&table(FitnessKind::Kl));
    let similarity = fitness(&similar);
    let layers = fitness(&only_layers);
    let text = fitness(&two);
    let a = drawn(&sets.search);
    let b = drawn(&sets.other);
    for (i, candidate) in candidates().iter().enumerate() {
        let small = f.compacted(&supernet, candidate, &format!("small-{i}"));
        let want = divergence(&small, &f.model, &a, &Silent).unwrap().value;
        let distance = |layers| {
            let ids = &a.0.tokens;
            squared_distance(&first_layers(&f.model, ids, layers), &first_layers(&small, ids, layers))
                .unwrap()
                / 72.0
        };
        close(kl[i], want);
        close(layers[i], 0.25 * distance(3) + 2.0 * distance(1));
        close(similarity[i], 0.25 * distance(3) + 2.0 * distance(1) + 3.0 * want);
        let ln = |set| perplexity(&small, set, &Silent).unwrap().value.ln();
        close(text[i], (ln(&a) + ln(&b)) / 2.0);
    }
}

#[test]
fn scripts_see_the_same_numbers_as_the_kinds() {
    let f = fixture(Pico::default());
    let supernet = net(&f);
    let sets = sets();
    let fitness = |table: &spec::Fitness| scored(&mut evaluator(&f, &supernet, &sets, table));
    let scripted = |text: &str| fitness(&script(&f, text));
    let kl = fitness(&table(FitnessKind::Kl));
    assert_eq!(scripted("fn fitness(m) { m.kl }"), kl);
    let cut = fitness(&spec::Fitness { top_k: 7, ..table(FitnessKind::Kl) });
    assert_eq!(scripted("fn fitness(m) { m.kl_top_k }"), cut);
    assert_ne!(cut, kl);
    let difference: Vec<f64> = cut.iter().zip(&kl).map(|(c, k)| c - k).collect();
    assert_eq!(scripted("fn fitness(m) { m.kl_top_k - m.kl }"), difference);
    let layers = vec![LayerWeight { layer: 1, weight: 1.0 }];
    let similar = spec::Fitness { layers, logits_weight: 0.0, ..table(FitnessKind::Similarity) };
    assert_eq!(scripted("fn fitness(m) { m.distance[1] }"), fitness(&similar));
    assert_eq!(scripted("fn fitness(m) { m.distance[-2] }"), fitness(&similar));
    for name in ["a", "b"] {
        let one = fitness(&spec::Fitness { corpora: vec![name.into()], ..table(FitnessKind::Perplexity) });
        let log = scripted(&format!("fn fitness(m) {{ m.perplexity[\"{name}\"].ln() }}"));
        one.iter().zip(&log).for_each(|(one, log)| assert!((one - log).abs() < 1e-12));
    }
}

#[test]
fn a_script_of_kl_alone_searches_like_the_kind() {
    let f = fixture(Pico::default());
    let supernet = net(&f);
    let sets = sets();
    let stages = vec![Stage { tokens: 24, survivors: 4 }, Stage { tokens: 96, survivors: 1 }];
    let defaults: spec::Spec = toml::from_str(spec::defaults_toml()).unwrap();
    let settings =
        spec::Search { generations: 4, patience: 0, offspring: 12, stages, tokens: 192, ..defaults.search };
    let space = supernet.space().clone();
    let start = space.start();
    let budget = Budget::units(&space.centre);
    let mutations = Mutations { space, budget, max_flips: settings.max_flips, increases: None };
    let search = Search::new(mutations, start, settings, 4, 1).unwrap();
    let log = |table: &spec::Fitness| {
        let mut records = String::new();
        let each = |r: &crate::search::GenerationRecord| {
            // A script has no sequences that a gain could be paired by.
            let record = crate::search::GenerationRecord { gain: None, ..r.clone() };
            records.push_str(serde_json::to_string(&record).unwrap().as_str());
            Ok(())
        };
        let (state, _) =
            search.run(search.start(), &mut evaluator(&f, &supernet, &sets, table), each).unwrap();
        (records, state)
    };
    let kind = log(&table(FitnessKind::Kl));
    assert_eq!(kind, log(&script(&f, "fn fitness(m) { m.kl }")));
    assert_eq!(kind.1.generation, 4);
    assert_ne!(kind.0, log(&script(&f, "fn fitness(m) { -m.kl }")).0);
}

#[test]
fn counts_of_the_dense_pico_are_those_on_paper() {
    let config = Pico::default().config().unwrap();
    let counts = Counts::of(&config, 24);
    // Per layer q 1024, k and v 1024, o 1024, gate and up 3072, down 1536; embedding 2048 (tied), seven norms
    // of 32.
    assert_eq!(counts.parameters, 3.0 * 7680.0 + 2048.0 + 224.0);
    // 12.5 keys on average, 12 heads of width 8.
    assert_eq!(counts.flops, 2.0 * (3.0 * 7680.0 + 2048.0) + 4.0 * 8.0 * 12.5 * 12.0);
    assert_eq!(counts.kv_bytes, 3.0 * 2.0 * 8.0 * 2.0 * 2.0);
    assert_eq!((counts.heads, counts.kv_heads, counts.neurons), (vec![4.0; 3], vec![2.0; 3], vec![48.0; 3]));
    let narrow = crate::model::Config { window: Some(2), ..config };
    assert_eq!(flops(&narrow, 4), 2.0 * 25_088.0 + 4.0 * 8.0 * 12.0 * (1.0 + 2.0 + 2.0 + 2.0) / 4.0);
}

#[test]
fn counts_of_candidates_are_those_of_the_compacted_models() {
    let f = fixture(Pico { bias: true, ..Pico::default() });
    let supernet = net(&f);
    let sets = sets();
    let scripted = |text: &str| scored(&mut evaluator(&f, &supernet, &sets, &script(&f, text)));
    let metric = |name: &str| scripted(&format!("fn fitness(m) {{ m.{name} }}"));
    let sum = |name: &str| scripted(&format!("fn fitness(m) {{ m.{name}.reduce(|sum, x| sum + x, 0.0) }}"));
    let parameters = metric("parameters");
    let flops = metric("flops");
    let kv = metric("kv_bytes");
    let heads = sum("heads");
    let kv_heads = sum("kv_heads");
    let neurons = sum("neurons");
    for (i, candidate) in candidates().iter().enumerate() {
        let small = f.compacted(&supernet, candidate, &format!("count-{i}"));
        let counts = Counts::of(small.config(), 24);
        assert_eq!(
            (parameters[i], flops[i], kv[i]),
            (small.checkpoint().parameters() as f64, counts.flops, counts.kv_bytes)
        );
        assert_eq!(heads[i], counts.heads.iter().sum::<f64>());
        assert_eq!(kv_heads[i], counts.kv_heads.iter().sum::<f64>());
        assert_eq!(neurons[i], counts.neurons.iter().sum::<f64>());
        let distribution = supernet.space().distribution(candidate);
        assert_eq!(metric("sparsity_variance")[i], distribution.variance(&supernet.space().shape));
        assert_eq!(metric("sparsity")[i], distribution.sparsity(&supernet.space().shape));
    }
    assert!(kv[2] < kv[0] || kv[1] != kv[0], "no candidate lost a key/value head of its own: {kv:?}");
    let dense = Counts::of(f.model.config(), 24);
    assert_eq!(metric("dense_parameters")[0], dense.parameters);
    assert_eq!(metric("dense_flops")[1], dense.flops);
    assert_eq!(metric("dense_kv_bytes")[2], dense.kv_bytes);
    assert_eq!(
        (sum("dense_heads")[0], sum("dense_kv_heads")[0], sum("dense_neurons")[0]),
        (12.0, 6.0, 144.0)
    );
    assert_eq!(metric("layers")[0], 3.0);
}

#[test]
fn layers_of_a_similarity_are_named_when_they_do_not_exist() {
    let config = Pico::default().config().unwrap();
    let objective = |layer| {
        let layers = vec![LayerWeight { layer: 0, weight: 0.0 }, LayerWeight { layer, weight: 1.0 }];
        Objective::new(&spec::Fitness { layers, ..table(FitnessKind::Similarity) }, &config, 24)
    };
    for (layer, index) in [(0, 0), (2, 2), (-1, 2), (-3, 0)] {
        assert_eq!(
            objective(layer).unwrap().on_search_set(|_| false),
            Wanted { kl: vec![0], nll: false, layers: vec![index] }
        );
    }
    for layer in [3, -4, i64::MAX, i64::MIN] {
        let error = objective(layer).map(drop).unwrap_err().to_string();
        assert!(
            error.contains("fitness.layers[1].layer") && error.contains(&format!("no layer {layer}")),
            "{error}"
        );
    }
}

#[test]
fn missing_keys_and_texts_are_named() {
    let f = fixture(Pico::default());
    let supernet = net(&f);
    let sets = sets();
    let config = f.model.config();
    for (kind, key) in [
        (FitnessKind::Similarity, "fitness.layers"),
        (FitnessKind::Perplexity, "fitness.corpora"),
        (FitnessKind::Script, "fitness.script"),
    ] {
        let error = Objective::new(&table(kind), config, 24).map(drop).unwrap_err();
        assert_eq!(error.place.as_deref(), Some(key));
    }
    let twice =
        spec::Fitness { corpora: vec!["a".into(), "b".into(), "a".into()], ..table(FitnessKind::Perplexity) };
    let error = Objective::new(&twice, config, 24).map(drop).unwrap_err();
    assert_eq!((error.place.as_deref(), error.what.contains("twice")), (Some("fitness.corpora[2]"), true));
    let other = spec::Fitness { corpora: vec!["absent".into()], ..table(FitnessKind::Perplexity) };
    let objective = Objective::new(&other, config, 24).unwrap();
    let population = Population::new(&f.model, &supernet, DenseStates::default());
    let error = Evaluator::new(population, Sampler::new(&sets.search, 9, 1), vec![], objective, &Silent)
        .map(drop)
        .unwrap_err();
    assert!(error.to_string().contains("absent"));
    let two = spec::Fitness { corpora: vec!["a".into()], ..table(FitnessKind::Perplexity) };
    let error =
        evaluator(&f, &supernet, &sets, &two).score(&candidates(), &Draw { tokens: 1, ..DRAW }).unwrap_err();
    assert!(error.to_string().contains("search.stages"));
}

#[test]
fn nan_stays_nan_except_for_scripts() {
    let f = fixture(Pico::default());
    let supernet = net(&f);
    let measured = Measured { kl: vec![f64::NAN], nll: 0.0, distances: vec![1.0] };
    let distribution = supernet.space().distribution(&candidates()[1]);
    let evidence = Evidence { measured: &measured, nll: &[f64::NAN], distribution: &distribution };
    let layers = vec![LayerWeight { layer: 0, weight: 1.0 }];
    let value = |table: &spec::Fitness| {
        Objective::new(table, f.model.config(), 24).unwrap().value(&supernet, &evidence)
    };
    assert!(value(&table(FitnessKind::Kl)).unwrap().is_nan());
    let similar = spec::Fitness { layers, ..table(FitnessKind::Similarity) };
    assert!(value(&similar).unwrap().is_nan());
    assert_eq!(value(&spec::Fitness { logits_weight: 0.0, ..similar }).unwrap(), 1.0);
    assert!(
        value(&spec::Fitness { corpora: vec!["a".into()], ..table(FitnessKind::Perplexity) })
            .unwrap()
            .is_nan()
    );
    let error = value(&script(&f, "fn fitness(m) { m.kl }")).unwrap_err();
    let shown = format!(
        "{:?} attention units",
        [distribution.removed[0], distribution.removed[2], distribution.removed[4]]
    );
    assert!(error.to_string().contains("returned NaN") && error.to_string().contains(&shown), "{error}");
    assert_eq!(error.kind, Kind::Spec);
    assert_eq!(value(&script(&f, "fn fitness(m) { 2 }")).unwrap(), 2.0);
}

#[test]
fn no_candidates_give_no_values() {
    let f = fixture(Pico::default());
    let supernet = net(&f);
    let sets = sets();
    for fitness in [table(FitnessKind::Kl), script(&f, "fn fitness(m) { m.parameters }")] {
        assert_eq!(evaluator(&f, &supernet, &sets, &fitness).score(&[], &DRAW).unwrap(), vec![]);
    }
}
