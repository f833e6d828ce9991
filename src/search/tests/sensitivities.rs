//! Single changes, the optimum of their sum, and searches that start from there or trade heads for neurons.

use super::*;
use crate::base::rng;
use crate::space::Curve;

/// Costs of 64 a head and 24 a neuron, as the units of [`space`] have parameters.
const PER_UNIT: [u64; 2] = [64, 24];

fn cost_budget(space: &Space) -> Budget {
    Budget::cost(&space.shape, &space.centre, linear(&space.shape, PER_UNIT))
}

/// So much for every unit of attention and of the MLP.
fn linear(shape: &Shape, per_unit: [u64; 2]) -> [Curve; 2] {
    ModuleKind::ALL.map(|kind| Curve::linear(shape.units(kind).units, per_unit[kind as usize]))
}

/// Curves that rise by different amounts, and not everywhere.
fn stepped(shape: &Shape, steps: &[u64]) -> [Curve; 2] {
    ModuleKind::ALL.map(|kind| {
        let costs = steps.iter().skip(kind as usize).step_by(2);
        let kept = (0..=shape.units(kind).units).step_by(2);
        Curve::through(kept.zip(costs).map(|(kept, cost)| (kept, cost * kept as u64)))
    })
}

fn unit_budget(space: &Space) -> Budget {
    Budget::units(&space.centre)
}

/// Every candidate of a space, whatever it costs.
fn unbounded(space: &Space) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = vec![vec![]];
    for &(low, high) in &space.range {
        found = found.iter().flat_map(|c| (low..=high).map(|l| [c.as_slice(), &[l]].concat())).collect();
    }
    found
}

fn sum(space: &Space, values: &[Vec<Option<f64>>], candidate: &Candidate) -> f64 {
    let of =
        |(i, level): (usize, &i32)| values[i][(level - space.range[i].0) as usize].unwrap_or(f64::INFINITY);
    candidate.iter().enumerate().map(of).sum()
}

/// The least sum that any candidate within a budget has; none where there is none.
fn brute(space: &Space, budget: &Budget, values: &[Vec<Option<f64>>]) -> Option<f64> {
    let within = unbounded(space).into_iter().filter(|c| budget.allows_candidate(space, c));
    within.map(|c| sum(space, values, &c)).min_by(f64::total_cmp).filter(|least| least.is_finite())
}

/// So many rounds of so many tokens, whose optima are checked on as many others.
fn rounds_of(space: Space, budget: Budget, tokens: usize, rounds: usize) -> Sensitivities {
    let stages = vec![Stage { tokens, survivors: 1 }];
    let settings = Settings { sensitivity: Sensitivity { tokens, rounds }, stages, ..settings(0, 1, &[1]) };
    Sensitivities::new(space, budget, &settings)
}

/// Measures all rounds from the beginning.
fn measured(sensitivities: &Sensitivities, score: impl FnMut(&Candidate, &Draw) -> f64) -> Vec<Round> {
    let mut rounds = Vec::new();
    sensitivities.run(&mut rounds, &mut Mock::new(score), |_, _| Ok(())).unwrap();
    rounds
}

#[test]
fn one_round_finds_the_optimum_of_a_separable_fitness() {
    let space = space(3, 5);
    for budget in [unit_budget(&space), cost_budget(&space)] {
        let within = unbounded(&space).into_iter().filter(|c| budget.allows_candidate(&space, c));
        let best = within.min_by(|a, b| convex(a).total_cmp(&convex(b))).unwrap();
        let rounds = measured(&rounds_of(space.clone(), budget, 8, 1), |c, _| convex(c));
        assert_eq!(convex(rounds[0].best().unwrap()), convex(&best));
        let outcome = rounds[0].outcome.as_ref().unwrap();
        assert!((outcome.predicted.unwrap() - outcome.fitness.unwrap()).abs() < 1e-9);
    }
    assert!(!unit_budget(&space).allows_candidate(&space, &vec![1, -1, 0, 0, 0, 0]));
}

#[test]
fn every_single_change_is_scored_once_around_the_centre_on_the_tokens_of_its_round() {
    let space = space(3, 5);
    let sensitivities = rounds_of(space.clone(), unit_budget(&space), 8, 2);
    let mut mock = Mock::new(rugged);
    let mut rounds = Vec::new();
    let mut counted = 0;
    let each = |_: &[Round], count: usize| {
        counted += count;
        Ok(())
    };
    sensitivities.run(&mut rounds, &mut mock, each).unwrap();
    assert_eq!(counted, sensitivities.candidates());
    assert_eq!(counted, sensitivities.done(&rounds));
    assert_eq!(counted, mock.asked.iter().map(|(_, candidates)| candidates.len()).sum::<usize>());
    for (number, round) in (1..).zip(&rounds) {
        let draw = Draw::whole(0, number, 8);
        let asked: Vec<&Candidate> =
            mock.asked.iter().filter(|(d, _)| *d == draw).flat_map(|(_, candidates)| candidates).collect();
        let changed = |c: &&&Candidate| c.iter().zip(&round.around).filter(|(a, b)| a != b).count() == 1;
        let others = Draw { skipped: 8, tokens: 16, ..draw };
        let ends = mock.asked.iter().find(|(d, _)| *d == others).unwrap();
        let optimum = &round.outcome.as_ref().unwrap().optimum;
        assert_eq!(ends.1, [round.around.clone(), optimum.clone()]);
        let singles: BTreeSet<_> = asked[1..asked.len() - 1].iter().filter(changed).collect();
        assert_eq!(singles.len(), asked.len() - 2);
        assert_eq!(singles.len(), space.range.iter().map(|(low, high)| (high - low) as usize).sum::<usize>());
        for (i, levels) in round.increases.iter().enumerate() {
            for (level, increase) in (space.range[i].0..).zip(levels) {
                let mut changed = round.around.clone();
                changed[i] = level;
                let expected = rugged(&changed, &draw) - rugged(&round.around, &draw);
                assert_eq!(increase.unwrap(), expected);
            }
        }
    }
    assert_eq!(Some(&rounds[1].around), rounds[0].best());
    let blocks = sensitivities.blocks();
    assert_eq!((blocks[0].start, blocks.last().unwrap().end), (0, space.range.len()));
    let changes: usize = blocks.into_iter().map(|block| sensitivities.changes(block).len()).sum();
    assert_eq!(2 * (changes + 4), counted);
}

#[test]
fn an_optimum_that_turns_out_worse_is_not_taken() {
    let space = space(3, 5);
    let start = space.start();
    // Each change alone looks good or bad as it is convex, two together are bad.
    let several = |c: &Candidate| c.iter().zip(&start).filter(|(a, b)| a != b).count() > 1;
    let score = |c: &Candidate, _: &Draw| if several(c) { 1e9 } else { convex(c) };
    let rounds = measured(&rounds_of(space.clone(), unit_budget(&space), 8, 1), score);
    assert_ne!(rounds[0].outcome.as_ref().unwrap().optimum, start);
    assert_eq!(rounds[0].best(), Some(&start));
}

#[test]
fn levels_without_a_number_are_not_taken_and_a_centre_without_one_is_an_error() {
    let space = space(3, 5);
    let score = |c: &Candidate, _: &Draw| if c[0] > 0 { f64::NAN } else { convex(c) };
    let sensitivities = rounds_of(space.clone(), unit_budget(&space), 8, 1);
    let best = measured(&sensitivities, score)[0].best().unwrap().clone();
    assert!(best[0] <= 0 && best != space.start());
    let nothing =
        sensitivities.run(&mut vec![], &mut Mock::new(|_: &Candidate, _: &Draw| f64::NAN), |_, _| Ok(()));
    assert_eq!(nothing.unwrap_err().kind, Kind::Search);
}

#[test]
fn sensitivities_go_on_from_any_place_with_the_same_results_and_leave_out_what_is_of_another_space() {
    let space = space(12, 5);
    let score = |c: &Candidate, d: &Draw| convex(c) + 1e-19 * rugged(c, d);
    let sensitivities = rounds_of(space.clone(), unit_budget(&space), 8, 2);
    let mut states: Vec<Vec<Round>> = vec![vec![]];
    let all = measured(&sensitivities, score);
    let mut again = Vec::new();
    let keep = |rounds: &[Round], _: usize| {
        states.push(rounds.to_vec());
        Ok(())
    };
    sensitivities.run(&mut again, &mut Mock::new(score), keep).unwrap();
    assert!(again == all && states.len() > 8, "{}", states.len());
    for state in states {
        let text = serde_json::to_string(&state).unwrap();
        let mut resumed: Vec<Round> = serde_json::from_str(&text).unwrap();
        let left = sensitivities.candidates() - sensitivities.done(&resumed);
        let mut mock = Mock::new(score);
        sensitivities.run(&mut resumed, &mut mock, |_, _| Ok(())).unwrap();
        assert_eq!(resumed, all);
        assert_eq!(mock.asked.iter().map(|(_, candidates)| candidates.len()).sum::<usize>(), left);
    }
    let other = rounds_of(space, unit_budget(&super::space(12, 5)), 9, 2);
    let mut foreign = all.clone();
    other.run(&mut foreign, &mut Mock::new(score), |_, _| Ok(())).unwrap();
    assert!(foreign.len() == 2 && foreign.iter().all(|round| round.tokens == 9));
}

#[test]
fn a_space_of_one_level_has_no_change_and_stays_where_it_is() {
    let space = space(3, 1);
    let rounds = measured(&rounds_of(space.clone(), unit_budget(&space), 8, 1), |c, _| convex(c));
    assert_eq!(rounds[0].best(), Some(&space.start()));
    assert!(rounds[0].increases.iter().all(|levels| *levels == [Some(0.0)]));
}

#[test]
fn costs_that_need_too_many_weights_are_rounded_up_and_kept_to() {
    let attention = UnitSpec { units: 64, width: 128, parameters: 0 };
    let shape = Shape { layers: 40, attention, mlp: UnitSpec { units: 14_336, width: 1, parameters: 0 } };
    let centre = uniform(&shape, Request::Total(0.5))
        .unwrap_or_else(|_| SparsityDistribution { removed: (0..80).map(|i| [32, 7168][i % 2]).collect() });
    let space = Space::around(shape, centre.clone(), [8, 1791], 9).unwrap();
    let budget = Budget::cost(&shape, &centre, linear(&shape, [1_048_583, 12_289]));
    let value = |i: usize, level: i32| f64::from(level) * ((i * 7919) % 101 + 1) as f64;
    let values: Vec<Vec<Option<f64>>> =
        (0..80).map(|i| space.levels(ModuleId::from_index(i)).map(|l| Some(value(i, l))).collect()).collect();
    let found = optimum(&space, &budget, &values).unwrap();
    let left = budget.left(&space, &found);
    let Budget::Cost { most, .. } = budget else { panic!("a cost") };
    assert!(left >= 0 && (left as f64) < 0.001 * most as f64, "{left} of {most}");
    assert!(sum(&space, &values, &found) < sum(&space, &values, &space.start()));
}

#[test]
fn nothing_within_a_budget_is_none() {
    let space = space(2, 3);
    let zeros = vec![vec![Some(0.0); 3]; 4];
    let curves = linear(&space.shape, PER_UNIT);
    assert_eq!(optimum(&space, &Budget::Cost { curves, most: 1 }, &zeros), None);
    assert_eq!(optimum(&space, &Budget::Units([0, 0]), &zeros), None);
    assert_eq!(optimum(&space, &unit_budget(&space), &vec![vec![None; 3]; 4]), None);
}

#[test]
fn trades_reach_the_best_of_all_candidates_within_a_cost() {
    let space = space(3, 5);
    let budget = cost_budget(&space);
    let within = unbounded(&space).into_iter().filter(|c| budget.allows_candidate(&space, c));
    let best = within.map(|c| convex(&c)).min_by(f64::total_cmp).unwrap();
    let settings = settings(40, 64, &[16, 4, 1]);
    let mutations = Mutations { budget: budget.clone(), ..mutations(space.clone(), 3) };
    let search = Search::new(mutations, space.start(), settings, 7, 1).unwrap();
    let mut mock = Mock::new(|c: &Candidate, _: &Draw| convex(c));
    let (state, _) = search.run(search.start(), &mut mock, |_| Ok(())).unwrap();
    assert_eq!(state.fitness, Some(best));
    let asked = mock.asked.iter().flat_map(|(_, candidates)| candidates);
    assert!(asked.clone().all(|c| budget.allows_candidate(&space, c)));
    assert!(asked.clone().any(|c| !unit_budget(&space).allows_candidate(&space, c)));
}

#[test]
fn a_trade_makes_nothing_sparser_that_frees_nothing() {
    let space = space(3, 5);
    let free = [Curve::linear(space.shape.attention.units, 8), Curve::through([(0, 0)])];
    let budget = Budget::cost(&space.shape, &space.centre, free);
    let mutations = Mutations { budget, ..mutations(space.clone(), 2) };
    let mut rng = rng::stream(5, "trades");
    let mut drawn: Vec<Candidate> =
        (0..40).map(|_| mutations.mutate(&space.start(), &mut rng)).filter(|c| *c != space.start()).collect();
    drawn.dedup();
    let mlps = |c: &Candidate| c.iter().skip(1).step_by(2).copied().collect::<Vec<i32>>();
    assert!(drawn.len() > 10 && drawn.iter().all(|c| mlps(c) == [-2; 3]), "{drawn:?}");
}

#[test]
fn guided_flips_are_drawn_where_they_should_cost_less_and_all_stay_possible() {
    let space = space(4, 5);
    let cheap = 2;
    let value = |i: usize, level: i32| if i == cheap { -f64::from(level) } else { f64::from(level) };
    let increases: Vec<Vec<Option<f64>>> =
        (0..8).map(|i| space.levels(ModuleId::from_index(i)).map(|l| Some(value(i, l))).collect()).collect();
    let guided = Mutations { increases: Some(increases), ..mutations(space.clone(), 1) };
    let blind = mutations(space.clone(), 1);
    let sparser = |mutations: &Mutations| {
        let mut rng = rng::stream(3, "guided");
        let drawn = (0..2000).map(|_| mutations.mutate(&space.start(), &mut rng));
        drawn.fold([0; 8], |mut count, child| {
            child.iter().enumerate().filter(|(_, level)| **level > 0).for_each(|(i, _)| count[i] += 1);
            count
        })
    };
    let (guided, blind) = (sparser(&guided), sparser(&blind));
    assert!(guided[cheap] > 2 * blind[cheap], "{guided:?} {blind:?}");
    assert!(guided.iter().all(|&count| count > 0), "{guided:?}");
}

proptest! {
    #[test]
    fn the_optimum_is_that_of_all_candidates(
        layers in 1usize..4, levels in prop::sample::select(vec![1usize, 3, 5]), spacings in (1usize..3, 1usize..4),
        fraction in 0.1f64..0.9, basis in 0usize..3, per_unit in (0u64..90, 1u64..40), holes in 0usize..4,
        steps in prop::collection::vec(0u64..30, 18),
        noise in prop::collection::vec(-1.0f64..1.0, 40),
    ) {
        let attention = UnitSpec { units: 8, width: 4, parameters: 64 };
        let shape = Shape { layers, attention, mlp: UnitSpec { units: 16, width: 1, parameters: 24 } };
        let Ok(centre) = uniform(&shape, Request::Total(fraction)) else { return Ok(()) };
        let space = Space::around(shape, centre.clone(), [spacings.0, spacings.1], levels).unwrap();
        let budget = match basis {
            0 => Budget::units(&centre),
            1 => Budget::cost(&shape, &centre, linear(&shape, [per_unit.0, per_unit.1])),
            _ => Budget::cost(&shape, &centre, stepped(&shape, &steps)),
        };
        let mut next = noise.iter().cycle();
        let mut values: Vec<Vec<Option<f64>>> = space.range.iter()
            .map(|(low, high)| (*low..=*high).map(|_| next.next().copied()).collect()).collect();
        for hole in 0..holes {
            let module = hole % values.len();
            let level = hole % values[module].len();
            values[module][level] = None;
        }
        let least = brute(&space, &budget, &values);
        let found = optimum(&space, &budget, &values);
        prop_assert_eq!(found.is_some(), least.is_some());
        if let (Some(found), Some(least)) = (found, least) {
            prop_assert!(budget.allows_candidate(&space, &found));
            prop_assert!((sum(&space, &values, &found) - least).abs() < 1e-9);
        }
    }

    #[test]
    fn trades_are_distinct_and_within_the_budget(
        layers in 1usize..5, levels in prop::sample::select(vec![1usize, 3, 5, 9]), count in 1usize..60, flips in 1usize..4, seed: u64,
        steps in prop::option::of(prop::collection::vec(0u64..30, 18)),
    ) {
        let space = space(layers, levels);
        let budget = match steps {
            None => cost_budget(&space),
            Some(steps) => Budget::cost(&space.shape, &space.centre, stepped(&space.shape, &steps)),
        };
        let mutations = Mutations { budget: budget.clone(), ..mutations(space.clone(), flips) };
        let mut rng = rng::stream(seed, "trades");
        let found = super::super::offspring(&mutations, &space.start(), count, &mut rng, &|| Ok(())).unwrap();
        let distinct: BTreeSet<_> = found.iter().cloned().collect();
        prop_assert_eq!(distinct.len(), found.len());
        for child in &found {
            prop_assert!(budget.allows_candidate(&space, child) && *child != space.start());
        }
    }
}
