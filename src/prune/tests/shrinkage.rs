//! The shrinkage coefficients that two halves of a text give.

use super::*;
use crate::prune::gram::Sums;
use crate::prune::obs::shrinkage::{agreed, interpolated};

/// Sums of rows X with the target XB + E.
fn sums(x: &Mat<f64>, weight: &Mat<f64>, extra: &Mat<f64>) -> Sums {
    let y = x * weight + extra;
    Sums { rows: x.nrows(), gram: x.transpose() * x, correlation: Some(x.transpose() * y) }
}

/// The coefficient for an extra of `signal` times what the inputs predict and `noise` times what they do not,
/// on two halves of `rows` rows.
fn coefficient(signal: f64, noise_size: f64, rows: usize) -> f64 {
    let weight = noise("weight", 12, 8);
    let added = noise("added", 12, 8);
    let half = |name: &str| {
        let x = inputs(name, rows, 12);
        let extra =
            &x * &added * Scale(signal) + noise(&format!("noise {name}"), rows, 8) * Scale(noise_size);
        sums(&x, &weight, &extra)
    };
    let coefficients = agreed([&half("first"), &half("second")], &weight, arithmetic(1e-6)).unwrap().unwrap();
    coefficients.iter().sum::<f64>() / coefficients.len() as f64
}

#[test]
fn what_the_inputs_tell_is_taken_whole_and_noise_is_left() {
    assert!(coefficient(1.0, 0.0, 60) > 0.9999);
    assert!(coefficient(0.0, 1.0, 60) < 0.35);
    let coefficients: Vec<f64> = [0.0, 0.5, 2.0, 8.0].map(|noise| coefficient(0.3, noise, 200)).into();
    assert!(coefficients.windows(2).all(|pair| pair[0] > pair[1]), "{coefficients:?}");
}

#[test]
fn the_share_is_the_one_that_predicts_best() {
    // By brute force: the error on much fresh text of the weights fitted on both halves, over coefficients.
    let weight = noise("weight", 12, 8);
    let added = noise("added", 12, 8);
    let draw = |name: &str, rows: usize| {
        let x = inputs(name, rows, 12);
        let extra = &x * &added * Scale(0.2) + noise(&format!("noise {name}"), rows, 8) * Scale(2.0);
        sums(&x, &weight, &extra)
    };
    let a = draw("first", 150);
    let b = draw("second", 150);
    let fresh = draw("fresh", 20_000);
    let both = Sums {
        rows: 300,
        gram: &a.gram + &b.gram,
        correlation: Some(a.correlation.as_ref().unwrap() + b.correlation.as_ref().unwrap()),
    };
    let error = |coefficient: f64| {
        let fitted =
            both.gram.partial_piv_lu().solve(interpolated(&both, &weight, &[coefficient; 8]).unwrap());
        let inner =
            |p: &Mat<f64>, q: &Mat<f64>| (p.transpose() * q).diagonal().column_vector().iter().sum::<f64>();
        inner(&fitted, &(&fresh.gram * &fitted)) - 2.0 * inner(&fitted, fresh.correlation.as_ref().unwrap())
    };
    let grid: Vec<f64> = (0..=100).map(|i| f64::from(i) / 100.0).collect();
    let best = grid.iter().copied().min_by(|p, q| error(*p).total_cmp(&error(*q))).unwrap();
    let found = agreed([&a, &b], &weight, arithmetic(1e-9)).unwrap().unwrap().iter().sum::<f64>() / 8.0;
    assert!(best > 0.3 && best < 0.95, "the case is no test: {best}");
    assert!((found - best).abs() < 0.15, "found {found}, best {best}");
}

#[test]
fn every_channel_has_its_own_share() {
    let weight = noise("weight", 12, 2);
    let added = noise("added", 12, 2);
    let half = |name: &str| {
        let x = inputs(name, 100, 12);
        let noise = noise(&format!("noise {name}"), 100, 2);
        let extra = &x * &added;
        sums(
            &x,
            &weight,
            &Mat::from_fn(100, 2, |i, j| if j == 0 { extra[(i, 0)] } else { 1000.0 * noise[(i, 1)] }),
        )
    };
    let coefficients = agreed([&half("first"), &half("second")], &weight, arithmetic(1e-6)).unwrap().unwrap();
    assert!(coefficients[0] > 0.999 && coefficients[1] < 0.5, "{coefficients:?}");
}

#[test]
fn an_interpolated_target_lies_between_the_layers_and_the_whole_one() {
    let x = inputs("first", 30, 6);
    let weight = noise("weight", 6, 4);
    let extra = noise("extra", 30, 4);
    let sums = sums(&x, &weight, &extra);
    let layer = x.transpose() * &x * &weight;
    assert!(distance(interpolated(&sums, &weight, &[0.0; 4]).unwrap().as_ref(), layer.as_ref()) < 1e-12);
    assert_eq!(&interpolated(&sums, &weight, &[1.0; 4]).unwrap(), sums.correlation.as_ref().unwrap());
    let half = (&layer + sums.correlation.as_ref().unwrap()) * Scale(0.5);
    assert!(distance(interpolated(&sums, &weight, &[0.5; 4]).unwrap().as_ref(), half.as_ref()) < 1e-12);
}

#[test]
fn nothing_to_compare_is_told_and_nothing_to_add_is_taken_whole() {
    let x = inputs("first", 30, 6);
    let weight = noise("weight", 6, 4);
    let whole = sums(&x, &weight, &Mat::zeros(30, 4));
    let empty = Sums { rows: 0, gram: Mat::zeros(6, 6), correlation: Some(Mat::zeros(6, 4)) };
    assert_eq!(agreed([&whole, &empty], &weight, arithmetic(0.01)).unwrap(), None);
    let exact = Sums { correlation: Some(&whole.gram * &weight), ..whole.clone() };
    assert_eq!(agreed([&exact, &exact], &weight, arithmetic(0.01)).unwrap(), Some(vec![1.0; 4]));
}

#[test]
fn dead_channels_do_not_stop_it() {
    let mut x = inputs("first", 30, 6);
    (0..30).for_each(|i| x[(i, 2)] = 0.0);
    let weight = noise("weight", 6, 4);
    let sums = sums(&x, &weight, &noise("extra", 30, 4));
    for coefficient in [0.01, 0.0] {
        let damping = Damping { coefficient, mean: DampingMean::Geometric };
        let coefficients = agreed([&sums, &sums], &weight, damping).unwrap().unwrap();
        assert!(coefficients.iter().all(|coefficient| (0.0..=1.0).contains(coefficient)));
    }
}
