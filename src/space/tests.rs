use proptest::prelude::*;

use super::*;

fn shape(layers: usize, heads: usize, neurons: usize) -> Shape {
    let attention = UnitSpec { units: heads, width: 4, parameters: 64 };
    Shape { layers, attention, mlp: UnitSpec { units: neurons, width: 1, parameters: 24 } }
}

#[test]
fn the_uniform_total_is_right_to_one_unit_and_layers_differ_by_one() {
    let d = uniform(&shape(30, 9, 1536), Request::Total(0.25)).unwrap();
    assert_eq!(d.total(ModuleKind::Attention), 68);
    assert_eq!(d.total(ModuleKind::Mlp), 30 * 384);
    assert!(d.removed.iter().step_by(2).all(|&h| h == 2 || h == 3));
}

#[test]
fn per_layer_rounding_is_the_same_in_every_layer() {
    let d = uniform(&shape(30, 9, 1536), Request::PerLayer(0.5)).unwrap();
    assert!(d.removed.iter().step_by(2).all(|&h| h == 4));
}

#[test]
fn shares_out_of_reach_are_errors() {
    assert_eq!(uniform(&shape(2, 4, 8), Request::Total(1.2)).unwrap_err().kind, Kind::Search);
    assert_eq!(uniform(&shape(2, 4, 8), Request::Total(f64::NAN)).unwrap_err().kind, Kind::Search);
    assert_eq!(uniform(&shape(2, 4, 8), Request::PerLayer(0.01)).unwrap_err().kind, Kind::Search);
    assert_eq!(uniform(&shape(2, 4, 8), Request::Total(1.0)).unwrap().sparsity(&shape(2, 4, 8)), 1.0);
}

#[test]
fn levels_stop_at_nothing_and_everything_removed() {
    let shape = shape(1, 4, 8);
    let space = Space::around(shape, SparsityDistribution { removed: vec![1, 8] }, [1, 2], 9).unwrap();
    assert_eq!(space.range, vec![(-1, 3), (-4, 0)]);
    assert_eq!(space.removed(ModuleId::from_index(0), 3), 4);
    assert_eq!(space.removed(ModuleId::from_index(1), -4), 0);
}

#[test]
fn one_layer_has_no_legal_move() {
    let space =
        Space::around(shape(1, 4, 8), SparsityDistribution { removed: vec![2, 4] }, [1, 2], 9).unwrap();
    assert!(legal_flips(&space, &space.start()).is_empty());
}

#[test]
fn an_even_number_of_levels_is_refused() {
    assert!(Space::around(shape(1, 4, 8), SparsityDistribution { removed: vec![2, 4] }, [1, 2], 8).is_err());
}

#[test]
fn a_width_that_is_no_multiple_loses_what_is_over() {
    let shape = shape(4, 6, 50);
    let bounds = Bounds { multiples: [3, 16], at_least: [0, 0] };
    // 48 of 50 neurons may stay; a tenth of them is two, and nothing of the heads.
    let d = bounds.uniform(&shape, Request::PerLayer(0.1)).unwrap();
    assert_eq!(d.removed, [0, 2].repeat(4));
    let d = bounds.uniform(&shape, Request::Total(0.5)).unwrap();
    assert_eq!((d.total(ModuleKind::Attention), d.total(ModuleKind::Mlp)), (12, 4 * 2 + 6 * 16));
    let space = Space::around(shape, d, [3, 16], 9).unwrap().within(&bounds).unwrap();
    let mlp = ModuleId { layer: 0, kind: ModuleKind::Mlp };
    assert_eq!(space.levels(mlp).map(|l| space.removed(mlp, l)).collect::<Vec<_>>(), [2, 18, 34, 50]);
}

#[test]
fn bounds_that_nothing_keeps_to_name_their_key() {
    let shape = shape(2, 4, 48);
    let place = |multiples, at_least, fraction| {
        let bounds = Bounds { multiples, at_least };
        let error = bounds.uniform(&shape, Request::Total(fraction)).unwrap_err();
        error.place.unwrap_or(error.what)
    };
    assert_eq!(place([1, 64], [0, 0], 0.5), "prune.align.neurons");
    assert_eq!(place([1, 1], [0, 49], 0.5), "prune.keep_at_least.neurons");
    assert_eq!(place([1, 32], [0, 33], 0.5), "prune.keep_at_least.neurons");
    assert_eq!(place([1, 1], [3, 0], 0.5), "prune.keep_at_least.heads");
    assert_eq!(place([1, 16], [0, 32], 0.5), "prune.keep_at_least.neurons");
    assert!(place([4, 48], [0, 0], 0.1).contains("rounds to nothing in multiples of 4 heads and 48 neurons"));
    assert!(Bounds { multiples: [1, 16], at_least: [2, 16] }.uniform(&shape, Request::Total(0.5)).is_ok());
}

#[test]
fn a_space_out_of_step_with_its_bounds_is_refused() {
    let space = |removed: [usize; 2], spacings, levels| {
        Space::around(shape(1, 4, 48), SparsityDistribution { removed: removed.into() }, spacings, levels)
            .unwrap()
    };
    let bounds = Bounds { multiples: [2, 16], at_least: [2, 16] };
    assert_eq!(space([2, 16], [2, 16], 5).within(&bounds).unwrap().range, [(-1, 0), (-1, 1)]);
    assert!(space([2, 32], [1, 1], 1).within(&bounds).is_ok());
    for (removed, spacings) in [([1, 16], [2, 16]), ([2, 8], [2, 16]), ([4, 16], [2, 16]), ([2, 16], [2, 24])]
    {
        assert_eq!(
            space(removed, spacings, 3).within(&bounds).unwrap_err().kind,
            Kind::Search,
            "{removed:?}"
        );
    }
}

#[test]
fn a_curve_is_straight_between_its_knots_and_never_falls() {
    let linear = Curve::linear(7, 3);
    assert!((0..=7).all(|kept| linear.of(kept) == 3 * kept as u64));
    let stepped = Curve::through([(8, 100), (2, 10), (4, 5), (6, 30)]);
    let costs: Vec<u64> = (0..=9).map(|kept| stepped.of(kept)).collect();
    assert_eq!(costs, [10, 10, 10, 10, 10, 20, 30, 65, 100, 100]);
    assert_eq!(Curve::through([]).of(3), 0);
    let large = Curve::linear(1 << 20, 1 << 40);
    assert_eq!(large.of((1 << 20) - 1), ((1 << 20) - 1) << 40);
}

/// The counts that a module of `units` may lose, from the definition.
fn allowed(units: usize, multiple: usize, at_least: usize) -> Vec<usize> {
    (0..=units).filter(|r| (units - r).is_multiple_of(multiple) && units - r >= at_least).collect()
}

proptest! {
    #[test]
    fn starts_levels_and_flips_keep_to_bounds(
        layers in 1usize..5, groups in 1usize..4, group in 1usize..5, neurons in 20usize..70, multiple in 1usize..20,
        heads_at_least in 0usize..4, neurons_at_least in 0usize..30, fraction in 0.0f64..0.8, alike: bool,
        spacings in (1usize..3, 1usize..3), picks in prop::collection::vec(any::<u32>(), 0..12),
    ) {
        let shape = shape(layers, groups * group, neurons);
        let bounds = Bounds { multiples: [groups, multiple], at_least: [heads_at_least, neurons_at_least] };
        let request = if alike { Request::PerLayer(fraction) } else { Request::Total(fraction) };
        let Ok(centre) = bounds.uniform(&shape, request) else { return Ok(()) };
        let of = |kind: ModuleKind| {
            let units = shape.units(kind).units;
            (units, allowed(units, bounds.multiple(kind), bounds.at_least[kind as usize]))
        };
        for kind in ModuleKind::ALL {
            let (units, allowed) = of(kind);
            let removed: Vec<usize> = centre.removed.iter().skip(kind as usize).step_by(2).copied().collect();
            prop_assert!(removed.iter().all(|r| allowed.contains(r)), "{kind:?} {removed:?} {allowed:?}");
            let (low, high) = (*removed.iter().min().unwrap(), *removed.iter().max().unwrap());
            let between_layers = if alike { 0 } else { bounds.multiple(kind) };
            prop_assert!(high - low <= between_layers);
            let asked = fraction * units as f64;
            let off = |r: f64| (r - asked).abs();
            if alike {
                let nearest = allowed.iter().map(|&r| off(r as f64)).fold(f64::MAX, f64::min);
                prop_assert!(off(low as f64) <= nearest + 1e-9);
            } else if low > allowed[0] {
                let mean = centre.total(kind) as f64 / layers as f64;
                prop_assert!(off(mean) * layers as f64 <= bounds.multiple(kind) as f64 / 2.0 + 1e-9);
            }
        }
        let spacings = [spacings.0 * groups, spacings.1 * multiple];
        let free = Space::around(shape, centre.clone(), spacings, 5).unwrap();
        let space = free.clone().within(&bounds).unwrap();
        for module in (0..shape.modules()).map(ModuleId::from_index) {
            let (_, allowed) = of(module.kind);
            for level in free.levels(module) {
                let legal = allowed.contains(&free.removed(module, level));
                prop_assert_eq!(space.levels(module).contains(&level), legal, "{} {}", module, level);
            }
        }
        let mut candidate = space.start();
        for pick in picks {
            let flips = legal_flips(&space, &candidate);
            if flips.is_empty() { break }
            flips[pick as usize % flips.len()].apply(&mut candidate);
            let found = space.distribution(&candidate);
            for (i, removed) in found.removed.iter().enumerate() {
                prop_assert!(of(ModuleId::from_index(i).kind).1.contains(removed));
            }
            prop_assert_eq!(found.parameters(&shape), centre.parameters(&shape));
        }
    }

    #[test]
    fn flips_keep_totals_and_stay_inside(layers in 1usize..6, heads in 1usize..9, neurons in 1usize..40, fraction in 0.2f64..0.9, picks in prop::collection::vec(any::<u32>(), 0..12)) {
        let shape = shape(layers, heads, neurons);
        let Ok(centre) = uniform(&shape, Request::Total(fraction)) else { return Ok(()) };
        let space = Space::around(shape, centre.clone(), [1, 3], 5).unwrap();
        let mut candidate = space.start();
        for pick in picks {
            let flips = legal_flips(&space, &candidate);
            if flips.is_empty() { break }
            flips[pick as usize % flips.len()].apply(&mut candidate);
            prop_assert!(space.contains(&candidate));
        }
        let found = space.distribution(&candidate);
        for kind in ModuleKind::ALL {
            prop_assert_eq!(found.total(kind), centre.total(kind));
        }
        prop_assert_eq!(found.parameters(&shape), centre.parameters(&shape));
    }

    #[test]
    fn enumerated_moves_are_all_there_are(levels in prop::collection::vec(-1i32..=1, 6)) {
        let shape = shape(3, 4, 8);
        let space = Space::around(shape, uniform(&shape, Request::Total(0.5)).unwrap(), [1, 2], 3).unwrap();
        let flips = legal_flips(&space, &levels);
        for denser in 0..6 {
            for sparser in 0..6 {
                let m = Flip { denser, sparser };
                let mut next = levels.clone();
                m.apply(&mut next);
                let legal = denser != sparser && denser % 2 == sparser % 2 && space.contains(&next);
                prop_assert_eq!(legal, flips.contains(&m));
            }
        }
    }
}
