//! Cached writing equals uncached writing, on dense and pruned models; stop strings and characters are never
//! broken.

use candle_core::Device;
use proptest::prelude::*;
use safetensors::Dtype;

use super::cache::{Part, extend};
use super::sample::Sampler;
use super::text::{Passed, Stops, Writer};
use super::*;
use crate::base::{Silent, rng};
use crate::model::pico::{self, Pico};
use crate::model::save::{save, with_layers};
use crate::model::{LayerShape, Source};
use crate::tensor::attention::Segments;

struct Fixture {
    _dir: tempfile::TempDir,
    model: Model,
    tokenizer: Tokenizer,
}

fn dense() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let source = Pico::of_bytes(256).write(dir.path(), 3).unwrap();
    open(dir, &source)
}

fn open(dir: tempfile::TempDir, source: &Source) -> Fixture {
    Fixture {
        model: Model::open(source, &Device::Cpu).unwrap(),
        tokenizer: Tokenizer::open(source).unwrap(),
        _dir: dir,
    }
}

/// Layers of different sizes: one without heads, one without neurons, one with uneven groups.
fn pruned() -> Fixture {
    use rand::RngExt as _;
    let base = dense();
    let layer = |query_heads_per_kv: &[usize], intermediate_size| LayerShape {
        query_heads_per_kv: query_heads_per_kv.to_vec(),
        intermediate_size,
    };
    let layers = vec![layer(&[], 20), layer(&[2, 1], 0), layer(&[1], 7)];
    let config = with_layers(base.model.config(), layers).unwrap();
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), &config, &Source::folder(base._dir.path()).unwrap(), Dtype::F32, |tensor| {
        let mut rng = rng::stream(8, &tensor.name);
        Ok((0..tensor.shape.iter().product()).map(|_| rng.random_range(-0.5f32..0.5)).collect())
    })
    .unwrap();
    let source = Source::folder(dir.path()).unwrap();
    open(dir, &source)
}

impl Fixture {
    fn settings(sampling: Sampling, max_tokens: usize) -> Settings {
        Settings { sampling, max_tokens, stop: [].into(), logprobs: Some(3) }
    }

    /// Text by running all tokens again for every new one.
    fn uncached(&self, prompt: &[u32], settings: &Settings) -> Vec<u32> {
        let mut ids = prompt.to_vec();
        let mut sampler = Sampler::new(settings.sampling);
        for _ in 0..settings.max_tokens {
            let hidden = self.model.hidden(&ids, &Segments::sequences(1, ids.len())).unwrap();
            let logits = self.model.logits(&hidden.narrow(0, ids.len() - 1, 1).unwrap()).unwrap();
            ids.push(sampler.next(&logits.get(0).unwrap()).unwrap());
            if self.model.config().eos.contains(&ids[ids.len() - 1]) {
                break;
            }
        }
        ids.split_off(prompt.len())
    }

    /// Tokens of several prompts written together.
    fn cached(&self, prompts: &[&[u32]], settings: &Settings) -> Vec<Vec<Step>> {
        let mut sequences: Vec<Sequence> =
            prompts.iter().map(|p| Sequence::new(&self.model, &self.tokenizer, p, settings)).collect();
        let mut steps = vec![vec![]; prompts.len()];
        loop {
            let live: Vec<usize> = (0..prompts.len())
                .filter(|&i| steps[i].last().is_none_or(|s: &Step| s.finish.is_none()))
                .collect();
            if live.is_empty() {
                return steps;
            }
            let mut now: Vec<&mut Sequence> =
                sequences.iter_mut().enumerate().filter(|(i, _)| live.contains(i)).map(|(_, s)| s).collect();
            for (&i, step) in live.iter().zip(advance(&self.model, &mut now).unwrap()) {
                steps[i].extend(step.map(|s| s.unwrap()));
            }
        }
    }
}

#[test]
fn cached_writing_equals_uncached_for_dense_and_pruned_models_alone_and_together() {
    for f in [dense(), pruned()] {
        let prompts: [&[u32]; 3] = [&[5, 9, 80, 33], &[100], &[7; 70]];
        for sampling in [Sampling::GREEDY, Sampling { temperature: 1.0, top_p: 0.9, seed: 4 }] {
            let settings = Fixture::settings(sampling, 20);
            let together = f.cached(&prompts, &settings);
            for (prompt, steps) in prompts.iter().zip(&together) {
                let tokens: Vec<u32> = steps.iter().map(|s| s.token).collect();
                assert_eq!(tokens, f.uncached(prompt, &settings));
            }
        }
    }
}

/// The first token's logits come from a product of as many rows as there are texts; those after it do not.
#[cfg(target_arch = "x86_64")]
#[test]
fn what_is_written_beside_a_text_does_not_change_its_bits() {
    for f in [dense(), pruned()] {
        let prompts: [&[u32]; 3] = [&[5, 9, 80, 33], &[100, 7], &[7; 70]];
        let settings = Fixture::settings(Sampling::GREEDY, 12);
        let together = f.cached(&prompts, &settings);
        for (prompt, together) in prompts.iter().zip(&together) {
            let alone = f.cached(&[prompt], &settings).concat();
            assert_eq!(alone[0].token, together[0].token);
            assert_eq!(alone[1..], together[1..]);
        }
    }
}

#[test]
fn hidden_states_through_the_cache_are_those_of_the_whole_text() {
    for f in [dense(), pruned()] {
        let ids: Vec<u32> = (0..90).map(|i| (i * 37) % 250).collect();
        let want = f.model.hidden(&ids, &Segments::sequences(1, 90)).unwrap().to_vec2::<f32>().unwrap();
        let mut cache = Cache::new(&f.model);
        for part in [0..60, 60..61, 61..90] {
            let got = extend(&f.model, &mut [Part { tokens: &ids[part.clone()], cache: &mut cache }])
                .unwrap()
                .to_vec2::<f32>()
                .unwrap();
            for (got, want) in got.concat().iter().zip(want[part].concat()) {
                assert!((got - want).abs() < 1e-4 * want.abs().max(1.0), "{got} for {want}");
            }
        }
        let kv_heads: usize = f.model.config().layers.iter().map(LayerShape::kv_heads).sum();
        assert_eq!(cache.bytes(), 90 * kv_heads * f.model.config().head_width * 2 * 4);
    }
}

#[test]
fn greedy_tokens_are_the_top_entry_bit_for_bit_and_a_seed_repeats() {
    let f = dense();
    for step in f.cached(&[&[5, 9]], &Fixture::settings(Sampling::GREEDY, 10)).concat() {
        let entry = step.entry.unwrap();
        assert_eq!((entry.token, entry.logprob.to_bits()), (entry.top[0].0, entry.top[0].1.to_bits()));
        assert_eq!(entry.top.len(), 3);
    }
    let drawn =
        |seed| f.cached(&[&[5, 9]], &Fixture::settings(Sampling { temperature: 1.0, top_p: 1.0, seed }, 12));
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}

#[test]
fn the_context_ends_a_text_and_a_longer_prompt_is_refused() {
    let f = dense();
    let settings = Fixture::settings(Sampling::GREEDY, 1000);
    let last = |n: usize| write(&f.model, &f.tokenizer, &vec![9; n], &settings, &Silent, |_| Ok(()));
    let steps = f.cached(&[&[9; 250]], &settings).concat();
    if steps.len() < 7 {
        assert_eq!(steps.last().unwrap().finish, Some(Finish::Stop));
    }
    assert!(steps.len() <= 7);
    assert!(last(256).is_ok());
    assert_eq!(last(257).unwrap_err().kind, Kind::Data);
    assert_eq!(last(0).unwrap_err().kind, Kind::Usage);
}

#[test]
fn sampling_refuses_values_out_of_range_and_nan_logits() {
    for (temperature, top_p) in [(-0.1, 1.0), (f64::NAN, 1.0), (2.1, 1.0), (1.0, 1.1), (1.0, f64::NAN)] {
        assert_eq!(Sampling { temperature, top_p, seed: 0 }.check().unwrap_err().kind, Kind::Usage);
    }
    let logits = candle_core::Tensor::new(&[0.0f32, f32::NAN, 1.0], &Device::Cpu).unwrap();
    assert_eq!(Sampler::new(Sampling::GREEDY).next(&logits).unwrap_err().kind, Kind::Numeric);
    let logits = candle_core::Tensor::new(&[0.0f32, 3.0, 1.0], &Device::Cpu).unwrap();
    assert_eq!(Sampler::new(Sampling { temperature: 2.0, top_p: 0.0, seed: 7 }).next(&logits).unwrap(), 1);
}

#[test]
fn every_sampling_in_range_draws_and_the_smallest_values_take_the_likeliest() {
    let logits = candle_core::Tensor::new(&[0.0f32, 3.0, 1.0, -4000.0, 2.999], &Device::Cpu).unwrap();
    let small = [0.0, 5e-324, 1e-300, 1e-46, 1e-45, 1e-40, 2e-38, 1e-9, 1e-7];
    for temperature in small.into_iter().chain([1e-3, 0.5, 2.0]) {
        for top_p in small.into_iter().chain([0.1, 0.5, 1.0 - 1e-17, 1.0]) {
            let sampling = Sampling { temperature, top_p, seed: 7 }.check().unwrap();
            let token = Sampler::new(sampling).next(&logits).unwrap();
            let least = temperature.min(top_p);
            assert!(token == 1 || least > 1e-7, "temperature {temperature}, top_p {top_p}: {token}");
        }
    }
}

#[test]
fn a_stop_string_over_several_pieces_is_cut_and_what_only_looks_like_one_is_shown() {
    let mut stops = Stops::new(["END".into(), "\n\n".into()].into());
    assert_eq!(stops.push("abcE"), Passed::Text("abc".into()));
    assert_eq!(stops.push("x\n"), Passed::Text("Ex".into()));
    assert_eq!(stops.push("yEN"), Passed::Text("\ny".into()));
    assert_eq!(stops.push("D more"), Passed::Stopped(String::new()));
    let mut stops = Stops::new(["END".into()].into());
    assert_eq!(stops.push("EN"), Passed::Text(String::new()));
    assert_eq!(stops.finish(), "EN");
}

proptest! {
    #[test]
    fn pieces_join_to_the_text_before_the_first_stop(
        text in "[ab]{0,12}",
        stop in "[ab]{1,3}",
        cuts in prop::collection::vec(1usize..4, 0..12),
    ) {
        let mut stops = Stops::new([stop.clone()].into());
        let mut shown = String::new();
        let mut at = 0;
        let mut stopped = false;
        for cut in cuts.into_iter().chain([12]) {
            let end = (at + cut).min(text.len());
            match stops.push(&text[at..end]) {
                Passed::Text(t) => shown.push_str(&t),
                Passed::Stopped(t) => { shown.push_str(&t); stopped = true; break; }
            }
            at = end;
        }
        if !stopped { shown.push_str(&stops.finish()); }
        prop_assert_eq!(shown, text.find(stop.as_str()).map_or(text.as_str(), |i| &text[..i]));
    }

    #[test]
    fn pieces_of_a_prompt_join_to_its_text(text in "(\\PC|\u{fffd}){0,20}") {
        let f = tokenizer();
        let ids = f.encode(&text).unwrap();
        let pieces = text::pieces(&f, &ids).unwrap();
        prop_assert_eq!((pieces.len(), pieces.concat()), (ids.len(), text));
    }

    #[test]
    fn characters_come_whole_and_join_to_the_text(text in "(\\PC|\u{fffd}){0,20}") {
        let f = tokenizer();
        let ids = f.encode(&text).unwrap();
        let mut writer = Writer::new(&f, &[0, 40]);
        let mut shown = String::new();
        for id in ids {
            let piece = writer.push(id).unwrap();
            prop_assert!(!piece.contains(char::REPLACEMENT_CHARACTER) || text.contains(char::REPLACEMENT_CHARACTER));
            shown.push_str(&piece);
        }
        shown.push_str(&writer.finish().unwrap());
        prop_assert_eq!(shown, text);
    }
}

fn tokenizer() -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), pico::bytes::tokenizer().to_string()).unwrap();
    Tokenizer::open(&Source::folder(dir.path()).unwrap()).unwrap()
}

#[test]
fn broken_bytes_are_given_up_after_a_while_and_at_the_end() {
    let t = tokenizer();
    let broken = 2 + 0xff; // a byte that begins no character
    let mut writer = Writer::new(&t, &[5]);
    let pieces: Vec<String> = (0..9).map(|_| writer.push(broken).unwrap()).collect();
    let shown = format!("{}{}", pieces.concat(), writer.finish().unwrap());
    assert_eq!(shown.chars().count(), 9);
    assert!(pieces.iter().any(|p| !p.is_empty()));
}
