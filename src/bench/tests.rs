//! Statistics of known numbers, counts against a cache that was filled, and models in turn.

mod modules;

use candle_core::Device;

use super::expect::cache_bytes_of_a_token;
use super::memory::COPIES;
use super::*;
use crate::base::{self, Silent};
use crate::model::LayerShape;
use crate::model::pico::Pico;

fn spread(median: f64, low: f64, high: f64) -> Spread {
    Spread { median, quartiles: Some([low, high]) }
}

#[test]
fn medians_and_quartiles_of_known_numbers() {
    assert_eq!(Spread::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]), spread(3.0, 2.0, 4.0));
    assert_eq!(Spread::of(vec![1.0, 2.0, 3.0, 10.0]), spread(2.5, 1.75, 4.75));
    assert_eq!(Spread::of(vec![7.0]), Spread { median: 7.0, quartiles: None });
    assert_eq!(Spread::of(vec![7.0]).width(), None, "one measurement tells nothing of others");
    assert_eq!(Spread::of(vec![1.0, 2.0, 3.0, 10.0]).width(), Some(2.25));
    assert!(Spread::of(vec![]).median.is_nan());
}

#[test]
fn ratios_are_of_the_same_round_and_shares_of_the_read_beside_it() {
    let timing = |first_token, decode, read| Timing { first_token, decode, read, cache_bytes: 9 };
    let rounds = [
        vec![timing(2.0, 4.0, 100.0), timing(4.0, 8.0, 100.0), timing(2.0, 4.0, 50.0)],
        vec![timing(1.0, 2.0, 100.0), timing(2.0, 4.0, 100.0), timing(1.0, 1.0, 100.0)],
    ];
    let expected =
        [(60.0, 40.0), (20.0, 10.0)].map(|(prompt_flops, step_bytes)| Expected { prompt_flops, step_bytes });
    let workload = Workload { prompt: 3, output: 5, batch: 2 };
    let second = speed(1, &workload, &rounds, &expected);
    assert_eq!(second.prefill_ratio, spread(2.0, 2.0, 2.0));
    assert_eq!(second.decode_ratio, spread(2.0, 2.0, 3.0));
    assert_eq!(second.first_token.median, 1.0);
    // 2 texts of 4 tokens after the first, in 2, 4 and 1 seconds.
    assert_eq!(second.tokens_per_second, spread(4.0, 3.0, 6.0));
    // 4 steps of 10 bytes, in 2, 4 and 1 seconds, beside 100 bytes a second.
    let Spread { median, quartiles: Some([low, high]) } = second.read_share else { panic!("no spread") };
    assert!((median - 0.2).abs() + (low - 0.15).abs() + (high - 0.3).abs() < 1e-12, "{low} {median} {high}");
    assert_eq!((second.expected_prefill_ratio, second.expected_decode_ratio), (3.0, 4.0));
    let first = speed(0, &workload, &rounds, &expected);
    assert_eq!(first.prefill_ratio, spread(1.0, 1.0, 1.0));
}

#[test]
fn workloads_are_all_combinations() {
    let bench = spec::Bench { prompt: vec![4, 8], output: vec![2], batch: vec![1, 3], repeats: 1 };
    let all: Vec<(usize, usize, usize)> =
        Workload::all(&bench).iter().map(|w| (w.prompt, w.output, w.batch)).collect();
    assert_eq!(all, [(4, 2, 1), (4, 2, 3), (8, 2, 1), (8, 2, 3)]);
}

fn model(dir: &tempfile::TempDir, pico: Pico) -> Model {
    let source: Source = pico.write(dir.path(), 1).unwrap();
    Model::open(&source, &Device::Cpu).unwrap()
}

fn size(model: &Model) -> Size {
    let checkpoint = model.checkpoint();
    Size {
        parameters: checkpoint.parameters(),
        weight_bytes: checkpoint.bytes(),
        largest: None,
        peak_bytes: None,
    }
}

#[test]
fn models_are_timed_in_turn_and_counts_are_those_of_what_ran() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let small = Pico { neurons: 8, ..Pico::of_bytes(256) };
    let models = [model(&dirs[0], Pico::of_bytes(256)), model(&dirs[1], small)];
    let named = |i: usize| (format!("m{i}"), &models[i], size(&models[i]));
    let workloads =
        [Workload { prompt: 30, output: 4, batch: 3 }, Workload { prompt: 5, output: 2, batch: 20 }];
    let report = run(vec![named(0), named(1)], &workloads, 2, 7, &Silent).unwrap();
    let order: Vec<(usize, usize)> = report.speeds.iter().map(|s| (s.workload.prompt, s.model)).collect();
    assert_eq!(order, [(30, 0), (30, 1), (5, 0), (5, 1)]);
    for speed in &report.speeds {
        let Workload { prompt, output, batch } = speed.workload;
        let config = models[speed.model].config();
        // The last token of a text is not run.
        let cached = batch * (prompt + output - 1) * cache_bytes_of_a_token(config);
        assert_eq!(speed.cache_bytes, cached);
        let all = [speed.first_token, speed.tokens_per_second, speed.prefill_ratio, speed.decode_ratio];
        let ordered = |s: &Spread| {
            s.quartiles.is_some_and(|[low, high]| low > 0.0 && low <= s.median && s.median <= high)
        };
        assert!(all.iter().all(ordered), "{speed:?}");
        let parameters = config.parameters().total();
        assert_eq!(report.models[speed.model].1.parameters, parameters);
        let weights = speed.expected.step_bytes
            - (batch * cache_bytes_of_a_token(config)) as f64 * (prompt as f64 + output as f64 / 2.0);
        assert!(weights <= (parameters * 4) as f64 && weights > 0.0, "{weights}");
    }
    assert!(report.speeds[1].expected_prefill_ratio > 1.0 && report.speeds[1].expected_decode_ratio > 1.0);
}

#[test]
fn what_a_model_cannot_do_is_refused_before_any_model_runs() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(&dir, Pico::of_bytes(256));
    let refused = |prompt, output, batch| {
        let workload = Workload { prompt, output, batch };
        let one = vec![("m".to_string(), &model, size(&model))];
        run(one, &[workload], 1, 0, &Silent).unwrap_err()
    };
    for (prompt, output, batch) in [(0, 2, 1), (4, 1, 1), (4, 2, 0), (255, 2, 1), (4, usize::MAX, 1)] {
        assert_eq!(refused(prompt, output, batch).kind, Kind::Usage);
    }
    assert!(refused(250, 60, 1).to_string().contains("256 tokens"));
}

#[test]
fn a_round_more_costs_as_much_as_any_and_more_texts_read_the_weights_no_more_often() {
    let config = Pico::of_bytes(256).config().unwrap();
    let bench =
        |batch, repeats| spec::Bench { prompt: vec![8], output: vec![5], batch: vec![batch], repeats };
    let cost = |batch, repeats| cost::work(&config, &bench(batch, repeats));
    // Each round, one that does not count, and one for the memory.
    assert_eq!(cost(1, 3) * 3.0, cost(1, 1) * 5.0);
    assert_eq!(cost(3, 1).weights, (config.parameters().total() * 4 * 3) as f64);
    assert_eq!(cost(3, 1).weights, cost(1, 1).weights);
    assert_eq!(cost(3, 1).products, cost(1, 1).products * 3.0);
}

#[test]
fn memory_is_counted_by_what_is_there_at_once() {
    let config = Pico::of_bytes(256).config().unwrap();
    let of = |prompt, output, batch| Memory::of(&config, &Workload { prompt, output, batch });
    let (one, three) = (of(8, 5, 1), of(8, 5, 3));
    assert_eq!(one.cache, COPIES * (12 * cache_bytes_of_a_token(&config)) as f64);
    assert_eq!((three.cache, three.activations), (one.cache * 3.0, one.activations * 3.0));
    assert_eq!(one.weights, three.weights);
    let row = 4 * config.hidden + 3 * config.neurons;
    assert_eq!(one.activations, COPIES * (4 * (8 * row + config.vocabulary)) as f64);
    // Long prompts run in parts.
    assert_eq!(of(5000, 5, 1).activations, of(1024, 5, 1).activations);
    let all = [Workload { prompt: 8, output: 2, batch: 30 }, Workload { prompt: 200, output: 2, batch: 1 }];
    let (memory, largest) = Memory::largest(&config, &all).unwrap();
    assert_eq!((memory, largest), (Memory::of(&config, &all[0]), all[0]));
    assert_eq!(
        cost::memory(
            [&config; 2],
            &spec::Bench { prompt: vec![8], output: vec![2], batch: vec![30], repeats: 1 }
        ),
        memory.total()
    );
    // Attention is what is left where the MLP went.
    let narrow = Config {
        layers: vec![LayerShape { intermediate_size: 0, ..config.dense_layer() }],
        ..config.clone()
    };
    let heads = 3 * config.dense_layer().heads() + 2 * config.dense_layer().kv_heads();
    let row = 4 * config.hidden + heads * config.head_width;
    let memory = Memory::of(&narrow, &Workload { prompt: 8, output: 5, batch: 1 });
    assert_eq!(memory.activations, COPIES * (4 * (8 * row + config.vocabulary)) as f64);
}

#[test]
fn workloads_that_memory_cannot_hold_are_refused_and_what_is_there_already_is_not_counted_again() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(&dir, Pico::of_bytes(256));
    let config = model.config();
    let workload = Workload { prompt: 20, output: 4, batch: 3 };
    let needed = Memory::of(config, &workload);
    let refused = |models: &[Entrant], available: f64| {
        memory::check(models, &[workload], Some(available as u64)).err().map(|e| e.to_string())
    };
    let new = Entrant::new("m", config);
    assert_eq!(refused(&[new], needed.total() + 1.0), None);
    let e = refused(&[new], needed.total() - 1.0).unwrap();
    assert!(e.contains("20+4x3 takes about") && e.contains("at: m") && e.contains("fewer texts"), "{e}");
    assert!(!e.contains("fewer models"));
    // Two models keep their weights, and write one after the other.
    assert_eq!(refused(&[new, new], needed.total() + needed.weights + 1.0), None);
    assert!(refused(&[new, new], needed.total() + needed.weights - 1.0).unwrap().contains("fewer models"));
    assert_eq!(memory::check(&[new], &[workload], None), Ok(()), "nothing is known");
    assert_eq!(model.widened_bytes(), 0);
    time(&model, &workload, 0).unwrap();
    assert_eq!(model.widened_bytes() as f64, needed.weights);
    assert_eq!(refused(&[Entrant::of("m", &model)], needed.total() - needed.weights + 1.0), None);
    let vast = Workload { batch: usize::MAX / 2, ..workload };
    for check in [
        check(&[("m", config)], &[vast], &Device::Cpu),
        run(vec![("m".to_string(), &model, size(&model))], &[vast], 1, 0, &Silent).map(drop),
    ] {
        assert!(base::memory::available().is_none() || check.unwrap_err().kind == Kind::Usage);
    }
}

#[test]
fn each_model_is_weighed_at_the_workload_that_takes_most() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let sources = [8, 48].map(|neurons| Pico { neurons, ..Pico::of_bytes(256) });
    let sources = [0, 1].map(|i| sources[i].write(dirs[i].path(), 1).unwrap());
    let workloads =
        [Workload { prompt: 5, output: 2, batch: 1 }, Workload { prompt: 30, output: 4, batch: 3 }];
    let named = [("a", &sources[0]), ("b", &sources[1])];
    let found = sizes(&named, &Device::Cpu, &workloads, 7, &Silent).unwrap();
    for (size, source) in found.iter().zip(&sources) {
        let model = Model::open(source, &Device::Cpu).unwrap();
        assert_eq!(
            (size.parameters, size.weight_bytes),
            (model.checkpoint().parameters(), model.checkpoint().bytes())
        );
        assert_eq!(size.largest, Some(workloads[1]));
    }
    let long = Workload { prompt: 300, output: 2, batch: 1 };
    let refused = sizes(&named, &Device::Cpu, &[long], 7, &Silent).unwrap_err();
    assert!(refused.kind == Kind::Usage && refused.to_string().contains("at: a"), "{refused}");
}

#[test]
fn quantities_are_known_by_their_names() {
    use super::quantity::{Measure, Point, Quantity, Subject};
    for subject in [Subject::Own, Subject::Dense] {
        for (measure, point) in Measure::ALL.iter().flat_map(|m| Point::ALL.map(|point| (*m, point))) {
            let quantity = Quantity { subject, measure, point };
            assert_eq!(Quantity::from_name(&quantity.to_string()), Some(quantity));
        }
    }
    for other in ["speed", "dense_", "tokens_per_s_mean", "_low"] {
        assert_eq!(Quantity::from_name(other), None, "{other}");
    }
}

#[test]
fn workloads_are_read_as_they_are_written_and_in_no_other_way() {
    let workload = Workload { prompt: 512, output: 64, batch: 8 };
    assert_eq!((workload.to_string().as_str(), "512+64x8".parse()), ("512+64x8", Ok(workload)));
    for other in ["", "512+64", "512x8", "0512+64x8", "512+64x8 ", "a+64x8", "+512+64x8"] {
        assert_eq!(other.parse::<Workload>(), Err(()), "{other}");
    }
}
