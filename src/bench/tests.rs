//! Statistics of known numbers, counts against a cache that was filled, and models in turn.

use candle_core::Device;

use super::expect::cache_bytes_of_a_token;
use super::*;
use crate::base::Silent;
use crate::model::Source;
use crate::model::pico::Pico;

fn spread(median: f64, low: f64, high: f64) -> Spread {
    Spread { median, low, high }
}

#[test]
fn medians_and_quartiles_of_known_numbers() {
    assert_eq!(Spread::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]), spread(3.0, 2.0, 4.0));
    assert_eq!(Spread::of(vec![1.0, 2.0, 3.0, 10.0]), spread(2.5, 1.75, 4.75));
    assert_eq!(Spread::of(vec![7.0]), spread(7.0, 7.0, 7.0));
    assert_eq!(Spread::of(vec![1.0, 2.0, 3.0, 10.0]).width(), 2.25);
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
    let Spread { median, low, high } = second.read_share;
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

#[test]
fn models_are_timed_in_turn_and_counts_are_those_of_what_ran() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let small = Pico { neurons: 8, ..Pico::of_bytes(256) };
    let models = [model(&dirs[0], Pico::of_bytes(256)), model(&dirs[1], small)];
    let named = |i: usize| (format!("m{i}"), &models[i], resting(&models[i]));
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
        assert!(all.iter().all(|s| s.low > 0.0 && s.low <= s.median && s.median <= s.high), "{speed:?}");
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
        let one = vec![("m".to_string(), &model, resting(&model))];
        run(one, &[workload], 1, 0, &Silent).unwrap_err()
    };
    for (prompt, output, batch) in [(0, 2, 1), (4, 1, 1), (4, 2, 0), (255, 2, 1)] {
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
    assert_eq!(cost(1, 3), cost(1, 1) * 2.0);
    assert_eq!(cost(3, 1).weights, (config.parameters().total() * 4 * 2) as f64);
    assert_eq!(cost(3, 1).weights, cost(1, 1).weights);
    assert_eq!(cost(3, 1).products, cost(1, 1).products * 3.0);
    assert_eq!(cost::largest(&bench(3, 1)), crate::model::cost::Tokens::new(39, 13));
}

#[test]
fn quantities_are_known_by_their_names() {
    use super::quantity::Quantity;
    Quantity::ALL
        .iter()
        .for_each(|quantity| assert_eq!(Quantity::from_name(quantity.name()), Some(*quantity)));
    assert_eq!(Quantity::from_name("speed"), None);
    assert_eq!(Workload { prompt: 512, output: 64, batch: 8 }.to_string(), "512+64x8");
}
