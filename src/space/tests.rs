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

proptest! {
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
