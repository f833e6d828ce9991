//! How many distributions a search can choose from: candidates within the levels whose totals are those of
//! the centre.

use crate::space::{ModuleKind, Space};

/// The number of legal distributions of a space, as a decimal logarithm. Counted exactly, module by module
/// over the running total of levels; scaled on the way, so that no model overflows it.
pub(crate) fn log10_legal(space: &Space) -> f64 {
    ModuleKind::ALL.iter().map(|&kind| log10_of_kind(space, kind)).sum()
}

/// Of the modules of one kind, whose levels must sum to zero.
fn log10_of_kind(space: &Space, kind: ModuleKind) -> f64 {
    let ranges: Vec<(i32, i32)> = space.range.iter().skip(kind as usize).step_by(2).copied().collect();
    let lowest: i32 = ranges.iter().map(|r| r.0).sum();
    let mut ways = vec![1.0];
    let mut scale = 0.0;
    for (low, high) in ranges {
        let (next, exponent) = scaled(with_module(&ways, (high - low) as usize));
        ways = next;
        scale += exponent;
    }
    // Index 0 is the sum of all lowest levels, so the sum zero lies at −lowest.
    ways[lowest.unsigned_abs() as usize].log10() + scale
}

/// Ways to each total with one more module, whose level adds 0 to `span`.
fn with_module(ways: &[f64], span: usize) -> Vec<f64> {
    let mut next = vec![0.0; ways.len() + span];
    for (total, count) in ways.iter().enumerate() {
        next[total..=total + span].iter_mut().for_each(|n| *n += count);
    }
    next
}

/// The same divided by a power of ten, when the numbers are large, and its exponent.
fn scaled(ways: Vec<f64>) -> (Vec<f64>, f64) {
    let largest = ways.iter().copied().fold(1.0, f64::max);
    if largest < 1e100 {
        return (ways, 0.0);
    }
    let exponent = largest.log10().floor();
    let factor = 10f64.powf(-exponent);
    (ways.into_iter().map(|w| w * factor).collect(), exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::{Request, Shape, SparsityDistribution, UnitSpec, uniform};

    fn space(layers: usize, levels: usize, fraction: f64) -> Space {
        let attention = UnitSpec { units: 4, width: 4, parameters: 64 };
        let shape = Shape { layers, attention, mlp: UnitSpec { units: 16, width: 1, parameters: 24 } };
        let centre = if fraction == 0.0 {
            SparsityDistribution::dense(&shape)
        } else {
            uniform(&shape, Request::Total(fraction)).unwrap()
        };
        Space::around(shape, centre, [1, 2], levels).unwrap()
    }

    /// Counts by walking every candidate.
    fn brute(space: &Space) -> f64 {
        let mut candidates = vec![vec![]];
        for &(low, high) in &space.range {
            let longer = |c: &Vec<i32>| (low..=high).map(|l| [&c[..], &[l]].concat()).collect::<Vec<_>>();
            candidates = candidates.iter().flat_map(longer).collect();
        }
        let legal = |c: &&Vec<i32>| (0..2).all(|kind| c.iter().skip(kind).step_by(2).sum::<i32>() == 0);
        candidates.iter().filter(legal).count() as f64
    }

    #[test]
    fn small_spaces_agree_with_counting_every_candidate() {
        for (layers, levels, fraction) in
            [(1, 5, 0.5), (2, 3, 0.25), (3, 5, 0.5), (3, 5, 0.9), (2, 1, 0.5), (3, 5, 0.0)]
        {
            let space = space(layers, levels, fraction);
            assert!(
                (10f64.powf(log10_legal(&space)) - brute(&space)).abs() < 1e-6 * brute(&space),
                "{layers} {levels} {fraction}"
            );
        }
    }

    #[test]
    fn a_space_without_a_move_has_one_distribution_and_a_deep_one_does_not_overflow() {
        assert_eq!(log10_legal(&space(1, 9, 0.5)), 0.0);
        let deep = space(600, 5, 0.5);
        let legal = log10_legal(&deep);
        assert!(
            legal.is_finite() && legal < deep.log10_size() && legal > deep.log10_size() - 4.0,
            "{legal} of {}",
            deep.log10_size()
        );
    }
}
