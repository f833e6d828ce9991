//! What holds for every problem.

use proptest::prelude::*;

use super::*;

/// ½‖X(B−B̂)‖² + ½λ‖B−B̂‖², the objective that the refit minimises exactly.
fn objective(x: &Mat<f64>, weight: &Mat<f64>, found: &Mat<f64>, damping: f64) -> f64 {
    let lambda = damping * x.squared_norm_l2() / x.ncols() as f64;
    0.5 * (x * (weight - found)).squared_norm_l2() + 0.5 * lambda * (weight - found).squared_norm_l2()
}

/// The least squares solution on the kept channels by QR of the stacked system [X; √λ I], which shares
/// nothing with the code under test.
fn least_squares(x: &Mat<f64>, weight: &Mat<f64>, kept: &[usize], damping: f64) -> Mat<f64> {
    let n = x.nrows();
    let d = x.ncols();
    let root = (damping * x.squared_norm_l2() / d as f64).sqrt();
    let stacked =
        Mat::from_fn(n + d, d, |i, j| if i < n { x[(i, j)] } else { root * f64::from(u8::from(i - n == j)) });
    let columns = Mat::from_fn(n + d, kept.len(), |i, j| stacked[(i, kept[j])]);
    let solution = columns.qr().solve_lstsq(&stacked * weight);
    let mut full = Mat::zeros(d, weight.ncols());
    kept.iter().enumerate().for_each(|(i, &channel)| full.row_mut(channel).copy_from(solution.row(i)));
    full
}

/// Wide modules, so that panels are flushed and packed several times.
#[test]
fn delayed_updates_keep_the_order_of_undelayed_ones() {
    for setup in [setup(480, 1, 16), setup(30, 16, 1), setup(60, 8, 3)] {
        let case = problem(&inputs("wide", 700, 480), noise("wide weight", 480, 20), None);
        let removed = setup.units - setup.units / 10;
        let pruned = prune(&case, &setup, &[removed]).unwrap();
        let found: Vec<u32> = pruned.keep_order.iter().rev().take(removed).copied().collect();
        assert_eq!(found, undelayed(&case, &setup, removed));
    }
}

/// The first `removed` units to go, from dense inverses computed again at each step.
fn undelayed(case: &Problem, setup: &Setup, removed: usize) -> Vec<u32> {
    let mut removed_units = Vec::new();
    let mut kept = (0..setup.units).collect::<Vec<_>>();
    while removed_units.len() < removed {
        let saliency = exact(case, setup, &kept);
        let mut ranked: Vec<usize> = (0..kept.len()).collect();
        ranked.sort_by(|&a, &b| saliency[a].total_cmp(&saliency[b]));
        let picked: Vec<usize> =
            ranked.iter().take(setup.step.min(removed - removed_units.len())).map(|&i| kept[i]).collect();
        kept.retain(|unit| !picked.contains(unit));
        removed_units.extend(picked.into_iter().map(|unit| unit as u32));
    }
    removed_units
}

/// Saliency of the kept units from a dense inverse.
pub(super) fn exact(case: &Problem, setup: &Setup, kept: &[usize]) -> Vec<f64> {
    let d = case.gram.nrows();
    let width = setup.width;
    let channels: Vec<usize> = kept.iter().flat_map(|unit| unit * width..(unit + 1) * width).collect();
    let lambda = setup.damping.coefficient * (0..d).map(|p| case.gram[(p, p)]).sum::<f64>() / d as f64;
    let gradient = &case.gram * &case.weight + Scale(lambda) * &case.weight;
    let at = |i: usize, j: usize| case.gram[(channels[i], channels[j])] + if i == j { lambda } else { 0.0 };
    let n = channels.len();
    let inverse = Mat::from_fn(n, n, at).partial_piv_lu().solve(Mat::<f64>::identity(n, n));
    let own = Mat::from_fn(n, gradient.ncols(), |i, j| gradient[(channels[i], j)]);
    let weight = &inverse * &own;
    let unit = |u: usize| {
        let b = weight.subrows(u * width, width);
        let block = inverse.submatrix(u * width, u * width, width, width);
        let first: f64 =
            (u * width..(u + 1) * width).map(|p| (weight.row(p) * own.row(p).transpose()).abs()).sum();
        let solved = block.partial_piv_lu().solve(b);
        first + 0.5 * (0..b.ncols()).map(|j| b.col(j).transpose() * solved.col(j)).sum::<f64>()
    };
    (0..kept.len()).map(unit).collect()
}

#[test]
fn the_target_of_the_layer_given_as_a_correlation_changes_nothing() {
    let x = inputs("x", 80, 24);
    let weight = noise("b", 24, 5);
    for (units, width) in [(24, 1), (6, 4)] {
        let own = prune(&problem(&x, weight.clone(), None), &setup(units, width, 1), &[2, 5]).unwrap();
        let given =
            prune(&problem(&x, weight.clone(), Some(&(&x * &weight))), &setup(units, width, 1), &[2, 5])
                .unwrap();
        assert_eq!(own.keep_order, given.keep_order);
        for (a, b) in own.levels.iter().zip(&given.levels) {
            assert!((0..a.weight.ncols()).all(|j| (a.weight.col(j) - b.weight.col(j)).norm_max() < 1e-6));
            assert!((loss(a) - loss(b)).abs() < 1e-10 * loss(a).max(1.0));
        }
    }
}

#[test]
fn one_pass_over_several_levels_equals_a_pass_for_each() {
    let case = problem(&inputs("x", 80, 24), noise("b", 24, 5), None);
    let together = prune(&case, &setup(24, 1, 4), &[4, 12, 24]).unwrap();
    for (level, removed) in together.levels.iter().zip([4, 12, 24]) {
        let alone = prune(&case, &setup(24, 1, 4), &[removed]).unwrap();
        let sorted =
            |keep_order: &[u32]| keep_order.iter().copied().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(sorted(&alone.keep_order[..24 - removed]), sorted(&together.keep_order[..24 - removed]));
        assert!((loss(level) - loss(&alone.levels[0])).abs() < 1e-10 * loss(level));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn levels_are_nested_exact_and_never_better_than_a_smaller_removal(
        units in 1usize..7, width in 1usize..4, step in 1usize..4, outputs in 1usize..5, seed in 0u32..1000, one_shot: bool,
    ) {
        let d = units * width;
        let (x, weight) = (inputs(&format!("x{seed}"), d + 7, d), noise(&format!("b{seed}"), d, outputs));
        let ranking = if one_shot { Ranking::OneShot } else { Ranking::Progressive };
        let setup = Setup { ranking, damping: arithmetic(1e-3), ..setup(units, width, step) };
        let pruned = prune(&problem(&x, weight.clone(), None), &setup, &(0..=units).collect::<Vec<_>>()).unwrap();
        let mut sorted = pruned.keep_order.clone();
        sorted.sort();
        prop_assert_eq!(sorted, (0..units as u32).collect::<Vec<_>>());
        let mut before = 0.0;
        for level in &pruned.levels {
            let kept: Vec<usize> = pruned.keep_order[..units - level.removed].iter().flat_map(|&u| u as usize * width..(u as usize + 1) * width).collect();
            let found = spread(level, &pruned.keep_order, &setup);
            let brute = if kept.is_empty() { Mat::zeros(d, outputs) } else { least_squares(&x, &weight, &kept, setup.damping.coefficient) };
            prop_assert!((&found - &brute).norm_max() < 1e-5 * weight.norm_max().max(brute.norm_max()));
            let expected = 0.5 * (&x * (&weight - &brute)).squared_norm_l2();
            prop_assert!((loss(level) - expected).abs() < 1e-9 * expected.max(1.0));
            let now = objective(&x, &weight, &brute, setup.damping.coefficient);
            prop_assert!(now >= before * (1.0 - 1e-9));
            before = now;
        }
    }

    #[test]
    fn the_loss_never_falls_as_more_units_go(units in 2usize..12, step in 1usize..4, seed in 0u32..1000) {
        let (x, weight) = (inputs(&format!("x{seed}"), units + 9, units), noise(&format!("b{seed}"), units, 3));
        let setup = Setup { damping: arithmetic(1e-8), ..setup(units, 1, step) };
        let pruned = prune(&problem(&x, weight, None), &setup, &(0..=units).collect::<Vec<_>>()).unwrap();
        let scale = loss(&pruned.levels[units]);
        prop_assert!(pruned.levels.windows(2).all(|pair| loss(&pair[1]) >= loss(&pair[0]) - 1e-9 * scale));
    }
}
