//! Error accumulation: what later layers see of a module that has several levels (paper §2.3, Table 4).
//!
//! `o_proj` and `down_proj` are linear, so the mean of the levels' outputs is the output of their mean
//! weight and mean bias: one forward pass.

use rand::RngExt as _;

use crate::base::{Result, rng};
use crate::space::{ModuleId, Space};
use crate::spec::Accumulation;

/// Weight of every level (by removed units) in the mean that is passed on; none means that the dense output
/// is passed on.
pub(super) fn level_weights(
    mode: Accumulation,
    space: &Space,
    module: ModuleId,
    seed: u64,
    name: &str,
) -> Option<Vec<(usize, f64)>> {
    let removed: Vec<usize> = space.levels(module).map(|level| space.removed(module, level)).collect();
    let one = |r: usize| Some(vec![(r, 1.0)]);
    match mode {
        Accumulation::None => None,
        Accumulation::Single => one(space.centre.removed[module.index()]),
        Accumulation::Random => {
            one(removed
                [rng::stream(seed, &format!("accumulate/{name}/{module}")).random_range(0..removed.len())])
        }
        Accumulation::Uniform => Some(normalised(removed, |_| 1.0)),
        Accumulation::Expectation => {
            let units = space.shape.units(module.kind).units as f64;
            Some(normalised(removed, |r| 1.0 - r as f64 / units))
        }
    }
}

/// Weights that sum to one; when all are zero (every level removes everything) all levels count alike.
fn normalised(removed: Vec<usize>, weight: impl Fn(usize) -> f64) -> Vec<(usize, f64)> {
    let total: f64 = removed.iter().map(|&r| weight(r)).sum();
    let even = 1.0 / removed.len() as f64;
    removed.into_iter().map(|r| (r, if total > 0.0 { weight(r) / total } else { even })).collect()
}

/// Adds `level_weight`·(a level's weight in keep order) to a dense-shaped weight [d_out, d_in], both
/// row-major.
pub(super) fn add_level(
    dense: &mut [f32],
    level: &[f32],
    level_weight: f64,
    keep_order: &[u32],
    kept: usize,
    width: usize,
) -> Result<()> {
    let inner = keep_order.len() * width;
    let columns = kept * width;
    if columns == 0 {
        return Ok(());
    }
    for (to, from) in dense.chunks_exact_mut(inner).zip(level.chunks_exact(columns)) {
        for (unit, from) in keep_order[..kept].iter().zip(from.chunks_exact(width)) {
            let to = &mut to[*unit as usize * width..][..width];
            to.iter_mut().zip(from).for_each(|(t, f)| *t += level_weight as f32 * f);
        }
    }
    Ok(())
}

/// Adds `level_weight`·(a level's bias).
pub(super) fn add_bias(mean: &mut [f32], level: &[f32], level_weight: f64) {
    mean.iter_mut().zip(level).for_each(|(mean, bias)| *mean += level_weight as f32 * bias);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::{Shape, SparsityDistribution, UnitSpec};

    fn space() -> Space {
        let unit = UnitSpec { units: 4, width: 1, parameters: 1 };
        let shape = Shape { layers: 1, attention: unit, mlp: unit };
        Space::around(shape, SparsityDistribution { removed: vec![2, 4] }, [1, 1], 5).unwrap()
    }

    #[test]
    fn expectation_weighs_a_level_by_what_it_keeps() {
        let level_weights =
            level_weights(Accumulation::Expectation, &space(), ModuleId::from_index(0), 0, "1").unwrap();
        let want = [(0, 0.4), (1, 0.3), (2, 0.2), (3, 0.1), (4, 0.0)];
        assert!(
            level_weights.iter().zip(want).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-12),
            "{level_weights:?}"
        );
    }

    #[test]
    fn every_mode_that_passes_levels_on_sums_to_one() {
        for mode in
            [Accumulation::Single, Accumulation::Random, Accumulation::Uniform, Accumulation::Expectation]
        {
            for module in [0, 1].map(ModuleId::from_index) {
                let sum: f64 =
                    level_weights(mode, &space(), module, 0, "1").unwrap().iter().map(|s| s.1).sum();
                assert!((sum - 1.0).abs() < 1e-12);
            }
        }
        assert!(level_weights(Accumulation::None, &space(), ModuleId::from_index(0), 0, "1").is_none());
        assert_eq!(
            level_weights(Accumulation::Single, &space(), ModuleId::from_index(1), 0, "1").unwrap(),
            vec![(4, 1.0)]
        );
    }

    #[test]
    fn levels_that_all_remove_everything_count_alike() {
        assert_eq!(normalised(vec![4, 4], |_| 0.0), vec![(4, 0.5), (4, 0.5)]);
    }

    #[test]
    fn a_level_is_scattered_to_its_units() {
        let mut dense = vec![0.0; 2 * 6];
        add_level(&mut dense, &[1., 2., 3., 4., 5., 6., 7., 8.], 0.5, &[2, 0, 1], 2, 2).unwrap();
        assert_eq!(dense, [1.5, 2., 0., 0., 0.5, 1., 3.5, 4., 0., 0., 2.5, 3.]);
    }
}
