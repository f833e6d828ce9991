//! Nothing, everything, one of something, and inputs that are wrong.

use super::*;
use crate::base::{Error, Kind};
use crate::prune::collect::{Collected, Halves};
use crate::prune::gram::Sums;
use crate::prune::{Method as _, Module};

fn failure(problem: &Problem, setup: &Setup, removed: &[usize]) -> Error {
    prune(problem, setup, removed).unwrap_err()
}

fn small() -> Problem {
    problem(&inputs("x", 50, 8), noise("b", 8, 3), None)
}

#[test]
fn removing_nothing_from_the_layer_target_gives_the_dense_weight_back() {
    let small = small();
    let pruned = prune(&small, &setup(8, 1, 2), &[0]).unwrap();
    assert_eq!(pruned.keep_order, (0..8).collect::<Vec<u32>>());
    assert_eq!(loss(&pruned.levels[0]), 0.0);
    assert_eq!(pruned.levels[0].weight, Mat::from_fn(3, 8, |i, j| small.weight[(j, i)] as f32));
    assert_eq!(pruned.levels[0].row_major()[9], small.weight[(1, 1)] as f32);
}

#[test]
fn removing_everything_leaves_an_empty_weight_and_loses_the_whole_output() {
    let x = inputs("x", 50, 8);
    let weight = noise("b", 8, 3);
    let pruned = prune(&problem(&x, weight.clone(), None), &setup(8, 1, 3), &[8]).unwrap();
    assert_eq!((pruned.levels[0].weight.nrows(), pruned.levels[0].weight.ncols()), (3, 0));
    let output = 0.5 * (&x * &weight).squared_norm_l2();
    assert!((loss(&pruned.levels[0]) - output).abs() < 1e-12 * output);
}

#[test]
fn no_request_gives_no_level() {
    let pruned = prune(&small(), &setup(8, 1, 2), &[]).unwrap();
    assert!(pruned.levels.is_empty());
    assert_eq!(pruned.saliency.len(), 8);
}

#[test]
fn one_head_and_one_channel_are_enough() {
    let pruned = prune(&small(), &setup(1, 8, 1), &[0, 1]).unwrap();
    assert_eq!(pruned.keep_order, [0]);
    let single = problem(&inputs("x", 9, 1), noise("b", 1, 1), None);
    assert_eq!(prune(&single, &setup(1, 1, 16), &[0, 1]).unwrap().levels[1].weight.ncols(), 0);
}

#[test]
fn a_correlation_with_no_unit_removed_refits_every_channel() {
    let x = inputs("x", 50, 8);
    let y = noise("y", 50, 3);
    let case = problem(&x, noise("b", 8, 3), Some(&y));
    let plain = Setup { damping: arithmetic(0.0), ..setup(8, 1, 1) };
    let pruned = prune(&case, &plain, &[0]).unwrap();
    let residual = &y - &x * spread(&pruned.levels[0], &pruned.keep_order, &plain);
    assert!((x.transpose() * residual).norm_max() < 1e-5);
    assert!(loss(&pruned.levels[0]) < 0.0);
}

/// A module whose channels `dead` are zero for every token.
fn with_dead(dead: &[usize]) -> Problem {
    let mut x = inputs("x", 50, 8);
    dead.iter().for_each(|&channel| x.col_mut(channel).fill(0.0));
    problem(&x, noise("b", 8, 3), None)
}

#[test]
fn dead_units_go_first_and_cost_nothing() {
    let pruned = prune(&with_dead(&[2, 5]), &setup(8, 1, 1), &[2, 3]).unwrap();
    assert_eq!(pruned.keep_order[6..], [5, 2]);
    assert!(loss(&pruned.levels[0]) < 1e-12);
    assert!(loss(&pruned.levels[1]) > 1e-6);
    assert_eq!(pruned.notes, Vec::<String>::new());
}

#[test]
fn dead_channels_of_kept_units_get_weight_zero_unless_nothing_was_removed() {
    let case = with_dead(&[2, 4, 5]);
    let pairs = Setup { damping: arithmetic(0.0), ..setup(4, 2, 1) };
    let pruned = prune(&case, &pairs, &[0, 1]).unwrap();
    assert_eq!(pruned.keep_order[3], 2);
    assert_ne!(spread(&pruned.levels[0], &pruned.keep_order, &pairs)[(2, 0)], 0.0);
    let kept = spread(&pruned.levels[1], &pruned.keep_order, &pairs);
    assert!((0..3).all(|j| kept[(2, j)] == 0.0));
    assert!(distance(kept.subrows(6, 2), case.weight.subrows(6, 2)) < 1e-6);
}

#[test]
fn one_huge_channel_does_not_damp_the_others_with_the_geometric_mean() {
    let plain = inputs("x", 200, 32);
    let huge = Mat::from_fn(200, 32, |i, j| plain[(i, j)] * if j == 0 { 1e4 } else { 1.0 });
    let weight = Mat::from_fn(32, 3, |i, j| if i == 0 { 0.0 } else { noise("b", 32, 3)[(i, j)] });
    // How far the fit falls short of the best one.
    let undone = |x: &Mat<f64>, damping: Damping| {
        let case = problem(x, weight.clone(), None);
        let of =
            |damping| loss(&prune(&case, &Setup { damping, ..setup(32, 1, 1) }, &[16]).unwrap().levels[0]);
        of(damping) / of(arithmetic(0.0))
    };
    let geometric = Damping { coefficient: 0.01, mean: DampingMean::Geometric };
    assert!(undone(&plain, arithmetic(0.01)) < 1.01);
    assert!(undone(&huge, geometric) < 1.05, "{}", undone(&huge, geometric));
    assert!(undone(&huge, arithmetic(0.01)) > 1.2, "{}", undone(&huge, arithmetic(0.01)));
}

#[test]
fn the_geometric_mean_leaves_dead_channels_out() {
    let x = inputs("x", 50, 8);
    let weight = noise("b", 8, 3);
    let even = Mat::from_fn(50, 8, |i, j| x[(i, j)] / x.col(j).norm_l2() * f64::from(u8::from(j != 3)));
    let of = |damping| {
        let setup = Setup { damping, ..setup(8, 1, 1) };
        prune(&problem(&even, weight.clone(), None), &setup, &[4]).unwrap().levels[0].weight.clone()
    };
    // Seven channels of norm one and one dead: the arithmetic mean is 7/8, the geometric one 1.
    assert!(
        (of(Damping { coefficient: 0.07, mean: DampingMean::Geometric }) - of(arithmetic(0.08))).norm_max()
            < 1e-6
    );
}

#[test]
fn duplicate_channels_without_damping_raise_it_and_say_so() {
    let mut x = inputs("x", 50, 8);
    let twin = x.col(1).to_owned();
    x.col_mut(6).copy_from(&twin);
    let saliency = Saliency { first_order: false, second_order: true };
    let setup = Setup { damping: arithmetic(0.0), saliency, ..setup(8, 1, 1) };
    let pruned = prune(&problem(&x, noise("b", 8, 3), None), &setup, &[1, 4]).unwrap();
    assert_eq!(pruned.notes.len(), 1);
    assert!(pruned.notes[0].contains("a damping of 0e0: it is raised"), "{:?}", pruned.notes);
    assert!(pruned.keep_order[7] == 1 || pruned.keep_order[7] == 6);
    assert!(loss(&pruned.levels[0]) < 1e-3);
}

#[test]
fn ties_go_to_the_lower_unit() {
    let case = bare(Mat::identity(6, 6), None, Mat::full(6, 2, 1.0));
    let pruned = prune(&case, &setup(6, 1, 2), &[4]).unwrap();
    assert_eq!(pruned.keep_order, [4, 5, 3, 2, 1, 0]);
}

#[test]
fn what_is_not_finite_is_named() {
    let broken = |change: fn(&mut Problem)| {
        let mut case = small();
        change(&mut case);
        failure(&case, &setup(8, 1, 1), &[1])
    };
    let errors = [
        broken(|case| case.gram[(3, 2)] = f64::NAN),
        broken(|case| case.weight[(0, 0)] = f64::INFINITY),
        broken(|case| case.correlation = Some(Mat::full(8, 3, f64::NAN))),
        broken(|case| case.weight[(0, 0)] = 1e300),
    ];
    assert!(errors.iter().all(|error| error.kind == Kind::Numeric));
    let subjects = ["Gram matrix", "weight", "correlation", "output"];
    assert!(errors.iter().zip(subjects).all(|(error, subject)| error.what.contains(subject)));
}

#[test]
fn a_matrix_that_is_no_gram_matrix_is_given_up() {
    let mut case = small();
    case.gram[(0, 7)] = 1e6;
    case.gram[(7, 0)] = 1e6;
    let error = failure(&case, &Setup { damping: arithmetic(1e-12), ..setup(8, 1, 1) }, &[1]);
    assert_eq!(error.kind, Kind::Numeric);
    assert!(error.what.contains("singular"));
}

#[test]
fn a_module_whose_inputs_are_always_zero_costs_nothing_to_prune() {
    let weight = noise("b", 4, 2);
    for mean in [DampingMean::Arithmetic, DampingMean::Geometric] {
        for coefficient in [0.0, 0.01] {
            let case = bare(Mat::zeros(4, 4), Some(Mat::zeros(4, 2)), weight.clone());
            let setup = Setup { damping: Damping { coefficient, mean }, ..setup(4, 1, 1) };
            let pruned = prune(&case, &setup, &[1, 4]).unwrap();
            assert_eq!(pruned.keep_order, [3, 2, 1, 0]);
            assert_eq!(pruned.levels[0].weight, Mat::<f32>::zeros(2, 3));
            assert!(pruned.levels.iter().all(|level| loss(level) == 0.0));
            assert_eq!(pruned.notes, Vec::<String>::new());
        }
    }
}

#[test]
fn no_token_is_an_error() {
    let sums = Sums { rows: 0, gram: Mat::zeros(4, 4), correlation: None };
    let collected = Collected { sums: Some(Halves { first: sums, second: None }), moments: None };
    let units = Units { count: 4, width: 1 };
    let weight = Mat::full(4, 2, 1.0);
    let module = Module { kind: ModuleKind::Mlp, units, groups: 1, weight, rows: vec![], collected };
    let obs = Obs::to_layer(Step { heads: 1, neurons: 1 }, arithmetic(0.01));
    let error = obs.prune(module, &[1]).unwrap_err();
    assert_eq!(error.kind, Kind::Numeric);
    assert!(error.what.contains("no token"));
}

#[test]
fn rules_and_requests_that_mean_nothing_are_refused() {
    let off = Saliency { first_order: false, second_order: false };
    assert_eq!(failure(&small(), &Setup { saliency: off, ..setup(8, 1, 1) }, &[1]).kind, Kind::Spec);
    assert_eq!(
        failure(&small(), &Setup { damping: arithmetic(f64::NAN), ..setup(8, 1, 1) }, &[1]).kind,
        Kind::Spec
    );
    assert_eq!(failure(&small(), &setup(8, 1, 0), &[1]).kind, Kind::Spec);
    for (setup, removed) in
        [(setup(4, 1, 1), vec![1]), (setup(8, 1, 1), vec![9]), (setup(8, 1, 1), vec![2, 1])]
    {
        assert_eq!(failure(&small(), &setup, &removed).kind, Kind::Internal);
    }
}

#[test]
fn a_weight_stored_by_rows_is_read_as_its_transpose() {
    let weight = super::super::transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3).unwrap();
    assert_eq!(weight, Mat::from_fn(3, 2, |i, j| (j * 3 + i + 1) as f64));
    assert_eq!(super::super::transposed(&[1.0], 2, 3).unwrap_err().kind, Kind::Internal);
}
