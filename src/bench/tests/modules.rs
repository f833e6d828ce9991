//! Tables of what modules take: made of models that are written, run and removed, and estimated.

use std::sync::atomic::{AtomicUsize, Ordering};

use safetensors::Dtype;

use super::super::latencies::{Latencies, layer_of, sizes};
use super::super::modules::{Timed, check, rising};
use super::*;
use crate::model::families::{LLAMA, MISTRAL, QWEN2};
use crate::model::family::Family;
use crate::space::{ModuleKind, Request, Shape, SparsityDistribution, uniform};
use crate::spec::{AttentionUnit, Latency};

fn opened(dir: &std::path::Path, family: &'static Family) -> Model {
    Pico { family, bias: true, tied: false, ..Pico::default() }.write(dir, 3).unwrap();
    Model::open(&Source::folder(dir).unwrap(), &Device::Cpu).unwrap()
}

/// Whether a table has every size of both kinds and never less time for more units.
fn is_whole(latencies: &Latencies, shape: &Shape) {
    for (kind, table) in ModuleKind::ALL.into_iter().zip(&latencies.modules) {
        let kept: Vec<usize> = table.iter().map(|(kept, _)| *kept).collect();
        assert_eq!(kept, [vec![0], sizes(shape.units(kind).units)].concat());
        assert!(table[0].1 == 0.0 && table.is_sorted_by(|a, b| a.1 <= b.1), "{table:?}");
        assert!(table.iter().all(|(_, seconds)| seconds.is_finite()));
    }
    assert!(latencies.rest > 0.0);
}

#[test]
fn modules_of_all_sizes_are_timed_in_every_family_and_nothing_is_left_behind() {
    let passes = [Latency { tokens: 1, context: 20 }, Latency { tokens: 32, context: 0 }];
    let units = [AttentionUnit::Head, AttentionUnit::KvGroup];
    for (family, dtype) in [(&LLAMA, Dtype::F32), (&MISTRAL, Dtype::BF16), (&QWEN2, Dtype::F16)] {
        let dir = tempfile::tempdir().unwrap();
        let model = opened(&dir.path().join("model"), family);
        let scratch = dir.path().join("timed");
        // What a killed run left.
        std::fs::create_dir_all(scratch.join("0")).unwrap();
        for (pass, unit) in passes.into_iter().zip(units) {
            let shape = model.config().shape(unit);
            let measured = Timed { model: &model, unit, dtype, pass }.measure(&scratch, &Silent).unwrap();
            is_whole(&measured, &shape);
            assert_eq!((measured.pass, measured.isa.as_str()), (pass, crate::tensor::isa()));
            let text = serde_json::to_string(&measured).unwrap();
            assert_eq!(serde_json::from_str::<Latencies>(&text).unwrap(), measured);
            assert!(!scratch.exists(), "timed models are removed");
            let half = uniform(&shape, Request::Total(0.5)).unwrap();
            let dense = SparsityDistribution::dense(&shape);
            assert!(measured.of(&shape, &half) <= measured.of(&shape, &dense));
            assert!(measured.summary(&shape).contains("% attention"));
            assert_eq!(measured.foreign(), None);
            let moved = Latencies { isa: "another".into(), ..measured };
            assert!(moved.foreign().unwrap().contains("another on "));
        }
    }
}

/// Stops at the tenth look, while models are being written.
struct StopsAtTenthLook(AtomicUsize);

impl Watch for StopsAtTenthLook {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
    fn note(&self, _: &str) {}
    fn stopped(&self) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst) >= 9
    }
}

#[test]
fn a_stop_is_heeded_and_what_was_written_goes() {
    let dir = tempfile::tempdir().unwrap();
    let model = opened(&dir.path().join("model"), &LLAMA);
    let scratch = dir.path().join("timed");
    let pass = Latency { tokens: 1, context: 4 };
    let timed = Timed { model: &model, unit: AttentionUnit::Head, dtype: Dtype::F32, pass };
    let stopped = timed.measure(&scratch, &StopsAtTenthLook(AtomicUsize::new(0))).unwrap_err();
    assert_eq!(stopped.kind, Kind::Interrupted);
    assert!(!scratch.exists());
}

#[test]
fn an_estimate_has_the_operations_of_the_whole_pass() {
    let config = Pico { layers: 5, ..Pico::default() }.config().unwrap();
    for (unit, tokens) in [(AttentionUnit::Head, 1), (AttentionUnit::KvGroup, 64)] {
        let shape = config.shape(unit);
        let estimated = Latencies::estimated(&config, unit, Latency { tokens, context: 0 });
        is_whole(&estimated, &shape);
        let counted = crate::model::cost::hidden(&config, crate::model::cost::Tokens::new(tokens, tokens))
            + crate::model::cost::logits(&config, 1.0);
        let dense = estimated.of(&shape, &SparsityDistribution::dense(&shape)) as f64;
        // Times are whole nanoseconds, at an operation each.
        assert!((dense - counted.flops()).abs() < 0.001 * counted.flops(), "{dense} {}", counted.flops());
    }
    let later = |context| Latencies::estimated(&config, AttentionUnit::Head, Latency { tokens: 1, context });
    assert_eq!(later(9).modules[1], later(0).modules[1]);
    assert!(later(9).modules[0].last() > later(0).modules[0].last(), "earlier tokens are looked at");
}

#[test]
fn a_pass_fits_the_context() {
    let refused = |tokens, context| check(Latency { tokens, context }, 100).unwrap_err().hint.unwrap();
    assert!(check(Latency { tokens: 1, context: 99 }, 100).is_ok());
    assert!(refused(2, 99).contains("sparsity.latency.context to at most 98"));
    assert!(refused(101, 0).contains("sparsity.latency.tokens to at most 100"));
}

#[test]
fn single_heads_lie_over_all_key_value_heads_and_groups_stay_whole() {
    let config = Pico { heads: 8, kv_heads: 4, ..Pico::default() }.config().unwrap();
    let of = |unit, kept| layer_of(&config, unit, ModuleKind::Attention, kept).query_heads_per_kv;
    assert_eq!(of(AttentionUnit::Head, 6), [1, 2, 1, 2]);
    assert_eq!(of(AttentionUnit::Head, 3), [1, 1, 1]);
    assert_eq!(of(AttentionUnit::KvGroup, 3), [2, 2, 2]);
    let mlp = layer_of(&config, AttentionUnit::Head, ModuleKind::Mlp, 7);
    assert_eq!((mlp.heads(), mlp.intermediate_size), (0, 7));
}

#[test]
fn sizes_are_all_or_evenly_spaced() {
    assert_eq!(sizes(4), [1, 2, 3, 4]);
    assert_eq!(sizes(704), (1..=16).map(|i| 44 * i).collect::<Vec<_>>());
    assert_eq!(sizes(0), [0; 0]);
}

#[test]
fn the_nearest_rising_values_pool_what_falls() {
    assert_eq!(rising(&[1.0, 2.0, 3.0]), [1.0, 2.0, 3.0]);
    assert_eq!(rising(&[2.0, 1.0, 4.0, 3.0, 2.0]), [1.5, 1.5, 3.0, 3.0, 3.0]);
    assert_eq!(rising(&[3.0, 2.0, 1.0]), [2.0; 3]);
    assert_eq!(rising(&[]), [0.0; 0]);
}
