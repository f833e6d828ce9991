//! Pruning by the norm of weights: its order, its levels, its edges, and that it needs no text.

use super::*;
use crate::base::Kind;
use crate::prune::collect::{Collected, Collector};
use crate::prune::cost::Size;
use crate::prune::magnitude::Magnitude;
use crate::prune::{Method, Module, Needs};

pub(super) fn module(units: usize, width: usize, weight: Mat<f64>, rows: Vec<f64>) -> Module {
    let units = Units { count: units, width };
    Module { kind: ModuleKind::Mlp, units, groups: 1, weight, rows, collected: Collected::default() }
}

fn pruned(units: usize, width: usize, weight: &Mat<f64>, rows: &[f64], removed: &[usize]) -> PrunedModule {
    Magnitude.prune(module(units, width, weight.clone(), rows.to_vec()), removed).unwrap()
}

/// Norms of units from their definition.
fn by_hand(weight: &Mat<f64>, rows: &[f64], width: usize) -> Vec<f64> {
    let square = |unit: usize| -> f64 {
        let channels = unit * width..(unit + 1) * width;
        channels.flat_map(|p| (0..weight.ncols()).map(move |j| (p, j))).map(|at| weight[at].powi(2)).sum()
    };
    rows.iter().enumerate().map(|(unit, rows)| (square(unit) + rows).sqrt()).collect()
}

#[test]
fn units_go_by_the_norm_of_all_weights_that_they_own() {
    let weight = noise("b", 12, 5);
    let rows: Vec<f64> = (0..4).map(|unit| f64::from((unit * 7) % 4)).collect();
    let found = pruned(4, 3, &weight, &rows, &[0, 1, 2, 3, 4]);
    let norms = by_hand(&weight, &rows, 3);
    assert!(found.saliency.iter().zip(&norms).all(|(a, b)| (a - b).abs() < 1e-12));
    let removed_units: Vec<usize> = found.keep_order.iter().rev().map(|&unit| unit as usize).collect();
    assert!(
        removed_units.windows(2).all(|pair| norms[pair[0]] <= norms[pair[1]]),
        "{removed_units:?} {norms:?}"
    );
    // Without what stands before the module the order is another one.
    let columns = pruned(4, 3, &weight, &[0.0; 4], &[4]);
    assert_ne!(columns.keep_order, found.keep_order);
}

#[test]
fn every_level_is_the_dense_columns_kept() {
    let weight = noise("b", 12, 5);
    let found = pruned(6, 2, &weight, &[0.0; 6], &[0, 2, 5]);
    for (level, removed) in found.levels.iter().zip([0, 2, 5]) {
        let kept = &found.keep_order[..6 - removed];
        assert_eq!((level.removed, level.weight.ncols(), &level.bias), (removed, kept.len() * 2, &None));
        for (i, &unit) in kept.iter().enumerate() {
            for (c, j) in (0..2).flat_map(|c| (0..5).map(move |j| (c, j))) {
                assert_eq!(level.weight[(j, 2 * i + c)], weight[(unit as usize * 2 + c, j)] as f32);
            }
        }
    }
}

#[test]
fn levels_are_nested_and_each_is_what_it_is_alone() {
    let weight = noise("b", 24, 5);
    let together = pruned(24, 1, &weight, &[0.0; 24], &[4, 12, 24]);
    for removed in [4, 12, 24] {
        let alone = pruned(24, 1, &weight, &[0.0; 24], &[removed]);
        let sorted =
            |keep_order: &[u32]| keep_order.iter().copied().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(sorted(&alone.keep_order[..24 - removed]), sorted(&together.keep_order[..24 - removed]));
    }
}

#[test]
fn nothing_and_everything_can_go() {
    let weight = noise("b", 8, 3);
    let found = pruned(8, 1, &weight, &[0.0; 8], &[0, 8]);
    assert_eq!(found.levels[0].weight.ncols(), 8);
    assert_eq!((found.levels[1].weight.nrows(), found.levels[1].weight.ncols()), (3, 0));
    let untouched = pruned(8, 1, &weight, &[0.0; 8], &[0]);
    assert_eq!(untouched.keep_order, (0..8).collect::<Vec<u32>>());
    assert_eq!(untouched.levels[0].weight, Mat::from_fn(3, 8, |i, j| weight[(j, i)] as f32));
    assert!(pruned(8, 1, &weight, &[0.0; 8], &[]).levels.is_empty());
}

#[test]
fn dead_units_go_first_and_ties_go_to_the_lower_unit() {
    let even = Mat::from_fn(6, 2, |i, _| if i == 3 { 0.0 } else { 1.0 });
    assert_eq!(pruned(6, 1, &even, &[0.0; 6], &[4]).keep_order, [4, 5, 2, 1, 0, 3]);
}

#[test]
fn it_needs_no_statistics_and_next_to_no_work() {
    assert!(!Magnitude.needs().text() && !Magnitude.needs().refits_dense());
    let units = Units { count: 512, width: 1 };
    let size = Size { kind: ModuleKind::Mlp, units, outputs: 256, removed: vec![0, 128, 256] };
    let cost = Magnitude.cost(&size);
    assert_eq!((cost.work.flops(), cost.work.elements), (0.0, 0.0));
    assert!(cost.work.weights > 512.0 * 256.0 && cost.work.weights < 6.0 * 512.0 * 256.0);
    assert!(cost.memory < 20.0 * 512.0 * 256.0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let weight = noise("b", 8, 3);
    let failure = |module: Module, removed: &[usize]| Magnitude.prune(module, removed).unwrap_err().kind;
    let of = |units, width, weight: &Mat<f64>, rows| module(units, width, weight.clone(), vec![0.0; rows]);
    assert_eq!(failure(of(8, 1, &weight, 7), &[1]), Kind::Internal);
    assert_eq!(failure(of(4, 1, &weight, 4), &[1]), Kind::Internal);
    assert_eq!(failure(of(8, 1, &weight, 8), &[9]), Kind::Internal);
    assert_eq!(failure(of(8, 1, &weight, 8), &[2, 1]), Kind::Internal);
    assert_eq!(failure(of(8, 1, &Mat::full(8, 3, f64::NAN), 8), &[1]), Kind::Numeric);
}

#[test]
fn moments_alone_are_collected_without_a_gram_matrix() {
    let needs = Needs { moments: true, ..Needs::default() };
    assert!(needs.text());
    let mut collector = Collector::new(&needs, 2, 3);
    // A mean that is large beside the spread, over blocks of unequal size.
    let values =
        [[1e6, 1.0], [1e6 + 1.0, -1.0], [1e6 + 2.0, 3.0], [1e6 + 5.0, 5.0]].map(|r| r.map(|x| x as f32));
    let rows: Vec<f32> = values.concat();
    collector.add(&rows[..2], None, 0).unwrap();
    collector.add(&rows[2..], None, 0).unwrap();
    let collected = collector.finish().unwrap();
    assert!(collected.sums.is_none());
    let moments = collected.moments.unwrap();
    assert_eq!((moments.rows, &moments.mean), (4, &vec![1e6 + 2.0, 2.0]));
    assert!(moments.variance().iter().zip([3.5, 5.0]).all(|(a, b)| (a - b).abs() < 1e-9));
    let mut broken = Collector::new(&needs, 2, 3);
    assert_eq!(broken.add(&[1.0; 3], None, 0).unwrap_err().kind, Kind::Internal);
    broken.add(&[1.0, f32::NAN], None, 0).unwrap();
    assert_eq!(broken.finish().unwrap_err().kind, Kind::Numeric);
    assert_eq!(Collected::default().into_sums().unwrap_err().kind, Kind::Internal);
}
