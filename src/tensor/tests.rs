//! One body per operation, run on both backends; losses against f64.

use candle_core::{Device, Tensor};
use rand::RngExt as _;

use super::attention::{Heads, Rotary, Segments, attention_on};
use super::*;
use crate::base::rng;

const BOTH: [Backend; 2] = [Backend::Cpu, Backend::Candle];

fn random(rows: usize, cols: usize, name: &str) -> Tensor {
    let mut rng = rng::stream(7, name);
    let data: Vec<f32> = (0..rows * cols).map(|_| rng.random_range(-1.0f32..1.0)).collect();
    Tensor::from_vec(data, (rows, cols), &Device::Cpu).unwrap()
}

fn rows(x: &Tensor) -> Vec<Vec<f32>> {
    x.to_vec2().unwrap()
}

#[track_caller]
fn close(a: &Tensor, b: &Tensor, tolerance: f32) {
    assert_eq!(a.dims(), b.dims());
    let worst = rows(a).concat().iter().zip(rows(b).concat()).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "differs by {worst}");
}

#[test]
fn linear_multiplies_also_parts_of_rows() {
    let x = random(5, 8, "x");
    let w = random(3, 4, "w");
    let part = x.narrow(1, 2, 4).unwrap();
    for backend in BOTH {
        let y = rows(&linear_on(backend, &part, &w).unwrap());
        for (i, row) in y.iter().enumerate() {
            for (j, got) in row.iter().enumerate() {
                let want: f32 = (0..4).map(|k| rows(&x)[i][2 + k] * rows(&w)[j][k]).sum();
                assert!((got - want).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn linear_of_nothing_is_zero_or_empty() {
    let none = Tensor::zeros((4, 0), candle_core::DType::F32, &Device::Cpu).unwrap();
    let w = Tensor::zeros((3, 0), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert_eq!(rows(&linear(&none, &w).unwrap()), vec![vec![0.0; 3]; 4]);
    assert_eq!(
        linear(&random(2, 4, "x"), &Tensor::zeros((0, 4), candle_core::DType::F32, &Device::Cpu).unwrap())
            .unwrap()
            .dims(),
        [2, 0]
    );
}

#[test]
fn linear_refuses_shapes_that_do_not_fit() {
    assert!(linear(&random(2, 4, "x"), &random(2, 5, "w")).is_err());
}

#[test]
fn norms_and_gates_agree_between_backends() {
    let x = random(33, 37, "x");
    let w = random(1, 37, "w").squeeze(0).unwrap();
    close(
        &rms_norm_on(Backend::Cpu, &x, &w, 1e-5).unwrap(),
        &rms_norm_on(Backend::Candle, &x, &w, 1e-5).unwrap(),
        1e-5,
    );
    let u = random(33, 37, "u");
    close(
        &swiglu_on(Backend::Cpu, x.clone(), &u).unwrap(),
        &swiglu_on(Backend::Candle, x, &u).unwrap(),
        1e-6,
    );
}

#[test]
fn fused_operations_agree_between_backends_and_with_their_steps_to_the_bit() {
    let x = random(40, 24, "x");
    let [gate, up] = ["gate", "up"].map(|name| random(50, 24, name));
    let down = random(24, 50, "down");
    let [b, c, d] = [("b", 50), ("c", 50), ("d", 24)].map(|(name, n)| random(1, n, name).squeeze(0).unwrap());
    for (b, c, d) in [(None, None, None), (Some(&b), Some(&c), Some(&d))] {
        let [host, candle] = BOTH.map(|on| gated_on(on, &x, (&gate, b), (&up, c)).unwrap());
        close(&host, &candle, 2e-6);
        let product = |w: &Tensor, bias| add_bias(linear_on(Backend::Cpu, &x, w).unwrap(), bias).unwrap();
        let steps = swiglu_on(Backend::Cpu, product(&gate, b), &product(&up, c)).unwrap();
        assert_eq!(bits(&host), bits(&steps));
        let [out, other] = BOTH.map(|on| linear_onto_on(on, &x, &host, &down, d).unwrap());
        close(&out, &other, 2e-6);
        let steps = (&x + add_bias(linear_on(Backend::Cpu, &host, &down).unwrap(), d).unwrap()).unwrap();
        assert_eq!(bits(&out), bits(&steps));
    }
}

#[test]
fn sums_are_candle_s_to_the_bit() {
    let [x, y, z] = ["x", "y", "z"].map(|name| random(9, 37, name));
    assert_eq!(bits(&add(&x, &y).unwrap()), bits(&(&x + &y).unwrap()));
    assert_eq!(bits(&add_difference(&x, &y, &z).unwrap()), bits(&(&x + (&y - &z).unwrap()).unwrap()));
    assert!(add(&x, &random(9, 36, "w")).is_err());
}

#[test]
fn a_batch_is_cut_where_no_text_continues_and_no_part_has_one_row() {
    let mut tree = Segments::default();
    let root = tree.push(5, None);
    tree.push(3, Some(root));
    tree.push(1, None);
    let other = tree.push(4, None);
    tree.push(2, Some(other));
    tree.push(1, Some(other));
    let rows = |parts: &[attention::Part]| parts.iter().map(|p| p.rows.clone()).collect::<Vec<_>>();
    assert_eq!(rows(&tree.parts(1)), [0..9, 9..16]);
    assert_eq!(rows(&tree.parts(8)), [0..8, 8..16]);
    let parts = tree.parts(2);
    assert_eq!(parts[1].segments.0[2].parent, Some(0));
    assert_eq!(parts[1].segments.0[2].rows, 6..7);
    assert_eq!(parts[1].segments.longest(), 6);
    assert_eq!(rows(&Segments::sequences(5, 100).parts(200)), [0..100, 100..300, 300..500]);
    for (rows, at_least) in [(3, 1), (1, 9)] {
        let parts = Segments::sequences(rows, 1).parts(at_least);
        assert!(parts.len() == 1 && parts[0].rows == (0..rows), "{parts:?}");
    }
    assert!(Segments::default().parts(4).is_empty());
    assert_eq!(tree.whole(), attention::Part { rows: 0..16, segments: tree });
}

fn rotary() -> Rotary {
    Rotary::new(&[1.0, 0.1, 0.01, 0.001], 300)
}

#[test]
fn attention_agrees_between_backends_with_uneven_groups_and_sequences() {
    let segments = Segments::sequences(2, 150);
    for (kv_of, window) in [(vec![0, 0, 0, 1], None), (vec![1, 0], Some(20)), (vec![0], Some(1))] {
        let kv = kv_of.iter().max().unwrap() + 1;
        let q = random(300, kv_of.len() * 8, "q");
        let k = random(300, kv * 8, "k");
        let v = random(300, kv * 8, "v");
        let heads = Heads { kv_of: &kv_of, width: 8, window };
        let [a, b] =
            BOTH.map(|backend| attention_on(backend, &q, &k, &v, &segments, heads, &rotary()).unwrap());
        close(&a, &b, 2e-6);
    }
}

#[test]
fn a_segment_that_continues_another_equals_the_whole_text() {
    let q = random(90, 16, "q");
    let k = random(90, 8, "k");
    let v = random(90, 8, "v");
    let heads = Heads { kv_of: &[0, 0], width: 8, window: Some(50) };
    let mut split = Segments::default();
    let first = split.push(30, None);
    let second = split.push(45, Some(first));
    split.push(15, Some(second));
    for backend in BOTH {
        let whole = attention_on(backend, &q, &k, &v, &Segments::sequences(1, 90), heads, &rotary()).unwrap();
        let parts = attention_on(backend, &q, &k, &v, &split, heads, &rotary()).unwrap();
        close(&whole, &parts, 2e-6);
    }
}

fn bits(x: &Tensor) -> Vec<u32> {
    rows(x).concat().into_iter().map(f32::to_bits).collect()
}

#[cfg(target_arch = "x86_64")] // faer has other products elsewhere
#[test]
fn rows_of_attention_do_not_depend_on_how_a_text_is_split() {
    for (width, window) in [(4, None), (16, Some(40)), (64, None), (80, None), (128, None), (128, Some(7))] {
        let q = random(140, 2 * width, "q");
        let k = random(140, width, "k");
        let v = random(140, width, "v");
        let heads = Heads { kv_of: &[0, 0], width, window };
        let rotary = Rotary::new(&vec![0.1; width / 2], 140);
        let whole =
            attention_on(Backend::Cpu, &q, &k, &v, &Segments::sequences(1, 140), heads, &rotary).unwrap();
        for lengths in [&[1, 139][..], &[2, 1, 60, 77], &[17, 3, 1, 1, 118], &[139, 1]] {
            let mut split = Segments::default();
            lengths.iter().fold(None, |parent, &length| Some(split.push(length, parent)));
            let parts = attention_on(Backend::Cpu, &q, &k, &v, &split, heads, &rotary).unwrap();
            assert_eq!(bits(&whole), bits(&parts), "width {width}, window {window:?}, parts {lengths:?}");
        }
    }
}

#[cfg(target_arch = "x86_64")] // faer has other products elsewhere
#[test]
fn rows_of_a_product_do_not_depend_on_how_many_there_are_from_two_on() {
    for (inner, outer) in [(64, 48), (256, 704), (2, 800), (576, 1536), (1536, 576)] {
        let x = random(130, inner, "x");
        let w = random(outer, inner, "w");
        let whole = bits(&linear(&x, &w).unwrap());
        for count in [2, 3, 7, 16, 33, 64, 129] {
            let part = bits(&linear(&x.narrow(0, 1, count).unwrap(), &w).unwrap());
            assert_eq!(part, whole[outer..(1 + count) * outer], "{count} rows, {inner} by {outer}");
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_product_is_the_same_however_it_is_shared_among_threads() {
    for (n, inner, outer) in [(1100, 130, 300), (300, 600, 1000), (513, 96, 777)] {
        let [x, w] = [(n, "x"), (outer, "w")].map(|(rows, name)| random(rows, inner, name));
        let shared = bits(&linear(&x, &w).unwrap());
        let whole = with_slice(&x, |x| {
            with_slice(&w, |w| {
                let [x, w] = [(x, n), (w, outer)].map(|(data, rows)| cpu::matrix(data, rows, inner, inner));
                let mut out = vec![0f32; n * outer];
                let to = cpu::matrix_mut(&mut out, n, outer, outer);
                faer::linalg::matmul::matmul(to, faer::Accum::Replace, x, w.transpose(), 1.0, faer::Par::Seq);
                Ok(out)
            })
        });
        assert!(whole.unwrap().into_iter().map(f32::to_bits).eq(shared), "{n} by {inner} by {outer}");
    }
}

#[test]
fn attention_without_heads_is_empty() {
    let none = Tensor::zeros((10, 0), candle_core::DType::F32, &Device::Cpu).unwrap();
    let heads = Heads { kv_of: &[], width: 8, window: None };
    for backend in BOTH {
        assert_eq!(
            attention_on(backend, &none, &none, &none, &Segments::sequences(1, 10), heads, &rotary())
                .unwrap()
                .dims(),
            [10, 0]
        );
    }
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let total: f64 = row.iter().map(|&z| (z as f64).exp()).sum::<f64>().ln();
    row.iter().map(|&z| z as f64 - total).collect()
}

#[test]
fn token_logprobs_are_log_softmax() {
    let logits = random(6, 101, "z");
    let tokens = [0u32, 5, 100, 7, 50, 3];
    for (i, (lp, first)) in loss::token_logprobs(&logits, &tokens).unwrap().into_iter().enumerate() {
        let want = log_softmax(&rows(&logits)[i]);
        assert!((lp - want[tokens[i] as usize]).abs() < 1e-6);
        let best = want.iter().copied().fold(f64::MIN, f64::max);
        assert_eq!(first, want[tokens[i] as usize] == best);
    }
}

#[test]
fn divergence_is_the_textbook_sum_for_all_and_for_top_k() {
    let t = random(4, 53, "t");
    let s = random(4, 53, "s");
    for k in [0usize, 53, 60, 7, 1] {
        let want: f64 =
            (0..4).map(|i| textbook(&rows(&t)[i], &rows(&s)[i], if k == 0 { 53 } else { k.min(53) })).sum();
        let got = loss::Teacher::new(&t, k).unwrap().divergence(&s, 0).unwrap();
        assert!((got - want).abs() < 1e-6, "k {k}: {got} for {want}");
    }
    assert!(loss::Teacher::new(&t, 0).unwrap().divergence(&t, 0).unwrap().abs() < 1e-6);
}

fn textbook(t: &[f32], s: &[f32], k: usize) -> f64 {
    let mut order: Vec<usize> = (0..t.len()).collect();
    order.sort_by(|&a, &b| t[b].total_cmp(&t[a]));
    let pick = |x: &[f32]| log_softmax(&order[..k].iter().map(|&i| x[i]).collect::<Vec<_>>());
    pick(t).iter().zip(pick(s)).map(|(p, q)| p.exp() * (p - q)).sum()
}

#[test]
fn divergence_of_a_slice_of_rows_uses_those_rows() {
    let t = random(6, 20, "t");
    let s = random(6, 20, "s");
    let teacher = loss::Teacher::new(&t, 0).unwrap();
    let whole = teacher.divergence(&s, 0).unwrap();
    let parts = teacher.divergence(&s.narrow(0, 0, 2).unwrap(), 0).unwrap()
        + teacher.divergence(&s.narrow(0, 2, 4).unwrap(), 2).unwrap();
    assert!((whole - parts).abs() < 1e-9);
}

#[test]
fn a_nan_logit_gives_nan_not_a_number_that_looks_good() {
    let nan = Tensor::full(f32::NAN, (1, 20), &Device::Cpu).unwrap();
    assert!(loss::Teacher::new(&random(1, 20, "t"), 0).unwrap().divergence(&nan, 0).unwrap().is_nan());
    assert!(loss::token_logprobs(&nan, &[0]).unwrap()[0].0.is_nan());
}

#[test]
fn the_likeliest_tokens_come_in_order_with_the_same_values_as_pairs() {
    let logits = random(3, 40, "z");
    for (i, best) in loss::top_logprobs(&logits, 5).unwrap().into_iter().enumerate() {
        let mut want: Vec<u32> = (0..40).collect();
        want.sort_by(|&a, &b| rows(&logits)[i][b as usize].total_cmp(&rows(&logits)[i][a as usize]));
        assert_eq!(best.iter().map(|b| b.0).collect::<Vec<_>>(), want[..5]);
        for (token, logprob) in best {
            assert_eq!(
                logprob.to_bits(),
                loss::pair_logprobs(&logits, &[(i, token)]).unwrap()[0].0.to_bits()
            );
        }
    }
    let ties = Tensor::new(&[[1f32, 2.0, 2.0, 0.0]], &Device::Cpu).unwrap();
    assert_eq!(loss::top_logprobs(&ties, 1).unwrap()[0][0].0, 1);
    assert!(loss::top_logprobs(&ties, 0).unwrap()[0].is_empty());
}
