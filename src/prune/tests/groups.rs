//! Groups of units that lose equally many: the best unit of those groups that have lost least goes next.

use proptest::prelude::*;

use super::laws::exact;
use super::magnitude::module;
use super::*;
use crate::base::Kind;
use crate::prune::magnitude::Magnitude;
use crate::prune::{Method, Module};

/// The first `removed` units to go one at a time, by what `saliency` says of those left.
fn greedy(
    units: usize,
    groups: usize,
    removed: usize,
    saliency: impl Fn(&[usize]) -> Vec<f64>,
) -> Vec<usize> {
    let size = units / groups;
    let mut kept: Vec<usize> = (0..units).collect();
    let mut gone = Vec::new();
    while gone.len() < removed {
        let left = |group: usize| kept.iter().filter(|&&unit| unit / size == group).count();
        let most = (0..groups).map(left).max().unwrap();
        let ranks = saliency(&kept);
        let open = (0..kept.len()).filter(|&i| left(kept[i] / size) == most);
        let least = open.min_by(|&a, &b| ranks[a].total_cmp(&ranks[b])).unwrap();
        gone.push(kept.remove(least));
    }
    gone
}

/// Units that each group keeps of the first `kept` in keep order.
fn left(keep_order: &[u32], kept: usize, groups: usize) -> Vec<usize> {
    let size = keep_order.len() / groups;
    let of = |group: usize| keep_order[..kept].iter().filter(|&&unit| unit as usize / size == group).count();
    (0..groups).map(of).collect()
}

/// Whole rounds of a module, from none to all.
fn rounds(units: usize, groups: usize) -> Vec<usize> {
    (0..=units).step_by(groups).collect()
}

fn removed_units(pruned: &PrunedModule) -> Vec<usize> {
    pruned.keep_order.iter().rev().map(|&unit| unit as usize).collect()
}

/// A wide module, so that panels are flushed and packed while rounds go on.
#[test]
fn the_order_is_that_of_the_plain_greedy_choice_among_open_groups() {
    for (groups, setup) in
        [(3, setup(30, 16, 1)), (4, setup(48, 4, 1)), (1, setup(12, 4, 1)), (12, setup(12, 4, 1))]
    {
        let d = setup.units * setup.width;
        let case = problem(&inputs("wide", d + 90, d), noise("wide weight", d, 20), None);
        let removed = setup.units - groups;
        let pruned = prune(&Problem { groups, ..case.clone() }, &setup, &[removed]).unwrap();
        let expected = greedy(setup.units, groups, removed, |kept| exact(&case, &setup, kept));
        assert_eq!(removed_units(&pruned)[..removed], expected, "{groups}");
    }
}

#[test]
fn magnitude_goes_by_the_norm_within_rounds() {
    let weight = noise("b", 24, 5);
    let dense = |groups| Module { groups, ..module(12, 2, weight.clone(), vec![0.0; 12]) };
    let free = Magnitude.prune(dense(1), &rounds(12, 1)).unwrap();
    for groups in [2, 3, 4] {
        let pruned = Magnitude.prune(dense(groups), &rounds(12, groups)).unwrap();
        let expected = greedy(12, groups, 12, |kept| kept.iter().map(|&unit| free.saliency[unit]).collect());
        assert_eq!(removed_units(&pruned), expected);
        assert_ne!(pruned.keep_order, free.keep_order);
    }
}

#[test]
fn unequal_numbers_and_unequal_groups_are_refused() {
    let case = problem(&inputs("x", 20, 8), noise("b", 8, 3), None);
    let failure = |groups, removed: &[usize]| {
        let dense = Module { groups, ..module(8, 1, case.weight.clone(), vec![0.0; 8]) };
        let by_norm = Magnitude.prune(dense, removed).unwrap_err();
        let by_loss = prune(&Problem { groups, ..case.clone() }, &setup(8, 1, 1), removed).unwrap_err();
        assert_eq!(by_norm, by_loss);
        by_norm
    };
    assert!(failure(4, &[4, 6]).what.contains("4 groups cannot lose 6 units"));
    assert!(failure(3, &[3]).what.contains("do not fall into 3 groups"));
    assert_eq!(failure(0, &[]).kind, Kind::Internal);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_level_keeps_equally_many_of_each_group(
        groups in 1usize..5, size in 1usize..5, width in 1usize..4, step in 1usize..6, seed in 0u32..1000, one_shot: bool, dead: bool,
    ) {
        let units = groups * size;
        let d = units * width;
        let mut x = inputs(&format!("x{seed}"), d + 7, d);
        if dead {
            // A whole group is always zero.
            (0..size * width).for_each(|channel| x.col_mut(channel).fill(0.0));
        }
        let ranking = if one_shot { Ranking::OneShot } else { Ranking::Progressive };
        let setup = Setup { ranking, ..setup(units, width, step) };
        let case = Problem { groups, ..problem(&x, noise(&format!("b{seed}"), d, 3), None) };
        let counts = rounds(units, groups);
        let pruned = prune(&case, &setup, &counts).unwrap();
        let dense = Module { groups, ..module(units, width, case.weight.clone(), vec![0.0; units]) };
        let by_norm = Magnitude.prune(dense, &counts).unwrap();
        for found in [&pruned, &by_norm] {
            for (&removed, level) in counts.iter().zip(&found.levels) {
                prop_assert_eq!(level.weight.ncols(), (units - removed) * width);
                prop_assert_eq!(left(&found.keep_order, units - removed, groups), vec![size - removed / groups; groups]);
            }
        }
    }
}
