use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::base::rng::Rng;
use crate::space::{
    Bounds, Budget, ModuleId, ModuleKind, Request, Shape, SparsityDistribution, UnitSpec, legal_flips,
    uniform,
};
use crate::spec::{SearchStart, SearchText, Sensitivity};

mod races;
mod sensitivities;

/// Offspring of a search that nobody stops.
fn offspring(space: &Space, parent: &Candidate, count: usize, flips: usize, rng: &mut Rng) -> Vec<Candidate> {
    super::offspring(&mutations(space.clone(), flips), parent, count, rng, &|| Ok(())).unwrap()
}

/// The paper's mutations: within one kind, all flips equally likely.
fn mutations(space: Space, max_flips: usize) -> Mutations {
    let budget = Budget::units(&space.centre);
    Mutations { space, budget, max_flips, increases: None }
}

/// Neighbours for a search that nobody stops.
fn neighbours(space: &Space, parent: &Candidate, flips: usize, limit: usize) -> BTreeSet<Candidate> {
    super::neighbours(space, parent, flips, limit, &|| Ok(())).unwrap()
}

/// Scores with a function of the candidate and the draw, and keeps what it was asked.
struct Mock<F> {
    score: F,
    asked: Vec<(Draw, Vec<Candidate>)>,
}

impl<F: FnMut(&Candidate, &Draw) -> f64> Mock<F> {
    fn new(score: F) -> Self {
        Self { score, asked: Vec::new() }
    }
}

impl<F: FnMut(&Candidate, &Draw) -> f64> Evaluate for Mock<F> {
    fn score(&mut self, candidates: &[Candidate], draw: &Draw) -> Result<Vec<Score>> {
        self.asked.push((*draw, candidates.to_vec()));
        Ok(candidates.iter().map(|c| Score::from((self.score)(c, draw))).collect())
    }
}

fn space(layers: usize, levels: usize) -> Space {
    let attention = UnitSpec { units: 8, width: 4, parameters: 64 };
    let shape = Shape { layers, attention, mlp: UnitSpec { units: 16, width: 1, parameters: 24 } };
    Space::around(shape, uniform(&shape, Request::Total(0.5)).unwrap(), [1, 2], levels).unwrap()
}

fn settings(generations: usize, offspring: usize, survivors: &[usize]) -> Settings {
    let stages =
        survivors.iter().enumerate().map(|(i, &survivors)| Stage { tokens: 10 << i, survivors }).collect();
    Settings {
        start: SearchStart::Uniform,
        sensitivity: Sensitivity { tokens: 10, rounds: 1 },
        generations,
        offspring,
        max_flips: 3,
        stages,
        patience: 0,
        racing: false,
        guided: false,
        text: SearchText::Disjoint,
        tokens: 1000,
    }
}

/// A search from the centre.
fn create(space: Space, settings: Settings, seed: u64, iteration: usize) -> Result<Search> {
    let start = space.start();
    Search::new(mutations(space, settings.max_flips), start, settings, seed, iteration)
}

fn search(space: Space, settings: Settings) -> Search {
    create(space, settings, 7, 1).unwrap()
}

/// Convex and separable, with its minimum off the centre and different weights per module.
fn convex(candidate: &Candidate) -> f64 {
    candidate
        .iter()
        .enumerate()
        .map(|(i, &level)| {
            (1.0 + i as f64) * (level as f64 - [2.0, -1.0, -2.0, 1.5, 0.5, 0.0][i % 6]).powi(2)
        })
        .sum()
}

/// A fitness without structure that also depends on the tokens.
fn rugged(candidate: &Candidate, draw: &Draw) -> f64 {
    let text = format!("{candidate:?} {draw:?}");
    text.bytes().fold(17u64, |h, b| h.wrapping_mul(0x100_0000_01b3) ^ b as u64) as f64
}

/// Every candidate of the space with the centre's totals.
fn all(space: &Space) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = vec![vec![]];
    for &(low, high) in &space.range {
        found = found.iter().flat_map(|c| (low..=high).map(|l| [c.as_slice(), &[l]].concat())).collect();
    }
    found.retain(|c| [0, 1].iter().all(|k| c.iter().skip(*k).step_by(2).sum::<i32>() == 0));
    found
}

fn run(search: &Search, score: impl FnMut(&Candidate, &Draw) -> f64) -> (State, Vec<GenerationRecord>) {
    let mut records = Vec::new();
    let (state, ending) = search
        .run(search.start(), &mut Mock::new(score), |r| {
            records.push(r.clone());
            Ok(())
        })
        .unwrap();
    assert_eq!(ending, Ending::Generations);
    (state, records)
}

#[test]
fn the_search_finds_the_global_optimum_of_a_convex_separable_fitness() {
    let space = space(3, 5);
    let best = all(&space).into_iter().min_by(|a, b| convex(a).total_cmp(&convex(b))).unwrap();
    let (state, _) = run(&search(space, settings(20, 64, &[16, 4, 1])), |c, _| convex(c));
    assert_eq!(state.parent, best);
    assert_eq!(state.fitness, Some(convex(&best)));
}

#[test]
fn the_search_finds_the_best_of_all_distributions_within_bounds_and_asks_for_no_other() {
    // Two groups of four heads, and 17 neurons in multiples of 4: at least 2 and 4 of them stay.
    let attention = UnitSpec { units: 8, width: 4, parameters: 64 };
    let shape = Shape { layers: 3, attention, mlp: UnitSpec { units: 17, width: 1, parameters: 24 } };
    let bounds = Bounds { multiples: [2, 4], at_least: [2, 4] };
    let centre = bounds.uniform(&shape, Request::Total(0.55)).unwrap();
    let space = Space::around(shape, centre.clone(), [2, 4], 9).unwrap().within(&bounds).unwrap();
    let obeys = |removed: &[usize]| {
        let kept = |i: usize, r: usize| [8, 17][i % 2] - r;
        let sound = |(i, &r): (usize, &usize)| kept(i, r) % [2, 4][i % 2] == 0 && kept(i, r) >= [2, 4][i % 2];
        removed.iter().enumerate().all(sound)
    };
    // All of them from the definition, without levels.
    let mut legal: Vec<Vec<usize>> = vec![vec![]];
    for i in 0..6 {
        legal =
            legal.iter().flat_map(|d| (0..=[8, 17][i % 2]).map(|r| [d.as_slice(), &[r]].concat())).collect();
        legal.retain(|d| obeys(d));
    }
    let total = |d: &[usize], kind: usize| d.iter().skip(kind).step_by(2).sum::<usize>();
    legal.retain(|d| (0..2).all(|kind| total(d, kind) == total(&centre.removed, kind)));
    let listed: BTreeSet<Vec<usize>> = all(&space).iter().map(|c| space.distribution(c).removed).collect();
    assert_eq!(listed, legal.into_iter().collect());
    assert!(listed.len() > 20, "{}", listed.len());

    let best = all(&space).into_iter().min_by(|a, b| convex(a).total_cmp(&convex(b))).unwrap();
    let search = search(space.clone(), settings(20, 64, &[16, 4, 1]));
    let mut mock = Mock::new(|c: &Candidate, _: &Draw| convex(c));
    let (state, _) = search.run(search.start(), &mut mock, |_| Ok(())).unwrap();
    assert_eq!(state.parent, best);
    let asked = mock.asked.iter().flat_map(|(_, candidates)| candidates);
    assert!(asked.map(|c| space.distribution(c).removed).all(|removed| obeys(&removed)));
}

#[test]
fn one_generation_over_all_neighbours_is_steepest_descent() {
    let space = space(3, 5);
    let near = neighbours(&space, &space.start(), 3, usize::MAX - 1);
    let best = near.iter().min_by(|a, b| convex(a).total_cmp(&convex(b))).unwrap().clone();
    let search = search(space, settings(1, 100_000, &[1]));
    let (state, records) = run(&search, |c, _| convex(c));
    assert_eq!(state.parent, best);
    assert_eq!(records[0].offspring, near.len());
}

#[test]
fn neighbours_are_all_candidates_within_so_many_moves() {
    let space = space(3, 3);
    // A flip changes two modules by one level each; a candidate is within n flips when n levels in all have
    // to go up.
    for flips in 1..=4 {
        let within = |c: &Candidate| (1..=flips).contains(&c.iter().filter(|&&l| l > 0).sum::<i32>());
        let expected: BTreeSet<Candidate> = all(&space).into_iter().filter(within).collect();
        assert_eq!(neighbours(&space, &space.start(), flips as usize, 100_000), expected);
    }
}

#[test]
fn enumeration_stops_at_its_limit() {
    let space = space(6, 5);
    assert_eq!(neighbours(&space, &space.start(), 3, 10).len(), 10);
}

#[test]
fn fewer_offspring_than_asked_are_all_that_exist() {
    let space = space(2, 3);
    let near = neighbours(&space, &space.start(), 3, 1000);
    let found = offspring(&space, &space.start(), 500, 3, &mut rng::stream(0, "x"));
    assert_eq!(found.len(), near.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), near);
}

#[test]
fn a_search_that_is_stopped_draws_and_enumerates_no_further() {
    // All of a small space is drawn, missed and enumerated; a large one is drawn from without end.
    for (space, count, calls) in
        [(space(2, 3), 500, 20), (space(2, 3), 500, 264), (space(40, 9), 100_000, 50)]
    {
        let asked = std::cell::Cell::new(0);
        let proceed = || {
            asked.set(asked.get() + 1);
            let stop = Err(Error::new(Kind::Interrupted, "stopped"));
            if asked.get() == calls { stop } else { Ok(()) }
        };
        let rng = &mut rng::stream(0, "x");
        let stopped =
            super::offspring(&mutations(space.clone(), 3), &space.start(), count, rng, &proceed).unwrap_err();
        assert_eq!((stopped.kind, asked.get()), (Kind::Interrupted, calls));
    }
    let space = space(2, 3);
    let no = || Err(Error::new(Kind::Interrupted, "stopped"));
    assert_eq!(super::neighbours(&space, &space.start(), 3, 1000, &no).unwrap_err().kind, Kind::Interrupted);
}

#[test]
fn more_offspring_than_a_generation_may_have_are_refused() {
    assert!(create(space(2, 3), settings(1, MOST_OFFSPRING, &[1]), 7, 1).is_ok());
    let refused = create(space(2, 3), settings(1, MOST_OFFSPRING + 1, &[1]), 7, 1).unwrap_err();
    assert_eq!((refused.kind, refused.place.as_deref()), (Kind::Spec, Some("search.offspring")));
}

#[test]
fn single_flips_reach_one_move_and_no_further() {
    let space = space(4, 5);
    let found = offspring(&space, &space.start(), 10_000, 1, &mut rng::stream(0, "x"));
    assert_eq!(found.len(), legal_flips(&space, &space.start()).len());
}

#[test]
fn one_layer_ends_the_search_at_once_and_says_so() {
    let search = search(space(1, 9), settings(5, 8, &[4, 1]));
    let mut mock = Mock::new(|_: &Candidate, _: &Draw| 0.0);
    assert_eq!(search.run_generation(&search.start(), &mut mock).unwrap(), Outcome::NoFlip);
    let ended = search.run(search.start(), &mut mock, |_| panic!("no generation is run")).unwrap();
    assert_eq!(ended, (search.start(), Ending::NoFlip));
    assert!(mock.asked.is_empty());
}

#[test]
fn a_single_level_and_a_model_pruned_to_nothing_offer_no_move() {
    let single = search(space(3, 1), settings(5, 8, &[1]));
    assert_eq!(
        single.run_generation(&single.start(), &mut Mock::new(|_: &Candidate, _: &Draw| 0.0)).unwrap(),
        Outcome::NoFlip
    );
    let shape = space(3, 5).shape;
    let all_removed = SparsityDistribution { removed: vec![8, 16, 8, 16, 8, 16] };
    let search = search(Space::around(shape, all_removed, [1, 2], 5).unwrap(), settings(5, 8, &[1]));
    assert_eq!(
        search.run_generation(&search.start(), &mut Mock::new(|_: &Candidate, _: &Draw| 0.0)).unwrap(),
        Outcome::NoFlip
    );
}

#[test]
fn a_search_goes_on_from_any_generation_with_the_same_results() {
    let search = search(space(4, 5), settings(8, 12, &[6, 3, 1]));
    let (end, records) = run(&search, rugged);
    assert_eq!(records.len(), 8);
    let mut state = search.start();
    for (i, from) in records.iter().enumerate() {
        let text = serde_json::to_string(from).unwrap();
        let read: GenerationRecord = serde_json::from_str(&text).unwrap();
        let mut rest = Vec::new();
        state = state.after(&read);
        let resumed = search.run(state.clone(), &mut Mock::new(rugged), |r| {
            rest.push(r.clone());
            Ok(())
        });
        assert_eq!(resumed.unwrap(), (end.clone(), Ending::Generations));
        assert_eq!(rest, records[i + 1..]);
    }
}

#[test]
fn seed_and_iteration_change_the_offspring() {
    let first = |seed, iteration| {
        let mut mock = Mock::new(|c: &Candidate, _: &Draw| convex(c));
        let search = create(space(4, 5), settings(1, 12, &[1]), seed, iteration).unwrap();
        search.run_generation(&search.start(), &mut mock).unwrap();
        mock.asked
    };
    assert_eq!(first(1, 1), first(1, 1));
    assert_ne!(first(1, 1), first(2, 1));
    assert_ne!(first(1, 1), first(1, 2));
}

#[test]
fn stages_pass_the_best_on_and_only_the_last_scores_the_parent() {
    let search = search(space(4, 5), settings(1, 12, &[6, 3, 1]));
    let mut mock = Mock::new(rugged);
    let Outcome::Generation { record, .. } = search.run_generation(&search.start(), &mut mock).unwrap()
    else {
        panic!("flips exist")
    };
    let draws: Vec<_> = mock.asked.iter().map(|(d, c)| (d.generation, d.stage, d.tokens, c.len())).collect();
    assert_eq!(draws, [(1, 1, 10, 12), (1, 2, 20, 6), (1, 3, 40, 4)]);
    for (before, after) in mock.asked.iter().zip(&mock.asked[1..]) {
        let mut ranked = before.1.clone();
        ranked.sort_by(|a, b| rugged(a, &before.0).total_cmp(&rugged(b, &before.0)));
        let passed: Vec<_> = after.1.iter().filter(|c| **c != search.start().parent).cloned().collect();
        assert_eq!(passed, ranked[..passed.len()]);
    }
    assert_eq!(mock.asked[2].1.iter().filter(|c| **c == search.start().parent).count(), 1);
    assert!(!mock.asked[0].1.contains(&search.start().parent));
    assert_eq!(record.stages.iter().map(|s| s.survivors).collect::<Vec<_>>(), [6, 3, 1]);
}

#[test]
fn the_parent_stays_when_nothing_is_better() {
    let search = search(space(4, 5), settings(3, 12, &[6, 1]));
    let (state, records) = run(&search, |_, _| 1.0);
    assert_eq!((state.parent, state.fitness), (search.start().parent, Some(1.0)));
    assert!(records.iter().all(|r| r.parent == r.winner && r.parent_fitness == r.fitness));
}

#[test]
fn patience_ends_a_search_whose_parents_stay_and_counts_across_a_resumption() {
    let patient = |generations| Settings { patience: 3, ..settings(generations, 12, &[6, 1]) };
    // The first two generations find something better, and none after them.
    let falling = |c: &Candidate, d: &Draw| if d.generation < 3 { convex(c) } else { 1.0 };
    let all = |settings: Settings, from: Option<State>| {
        let search = search(space(4, 5), settings);
        let mut records = Vec::new();
        let from = from.unwrap_or_else(|| search.start());
        let ended = search.run(from, &mut Mock::new(falling), |r| {
            records.push(r.clone());
            Ok(())
        });
        (ended.unwrap(), records.len())
    };
    let ((end, why), count) = all(patient(20), None);
    assert_eq!((why, count, end.generation, end.stalled), (Ending::Patience, 5, 5, 3));
    let ((middle, _), _) = all(patient(4), None);
    assert_eq!(middle.stalled, 2);
    assert_eq!(all(patient(20), Some(middle)), ((end.clone(), Ending::Patience), 1));
    assert_eq!(all(patient(20), Some(end.clone())), ((end, Ending::Patience), 0));
    let ((_, why), count) = all(settings(20, 12, &[6, 1]), None);
    assert_eq!((why, count), (Ending::Generations, 20));
}

#[test]
fn more_survivors_than_offspring_keep_everybody() {
    let space = space(2, 3);
    let exist = neighbours(&space, &space.start(), 3, 1000).len();
    let (state, records) = run(&search(space, settings(2, 500, &[900, 800, 1])), |c, _| convex(c));
    assert_eq!(records[0].stages.iter().map(|s| s.candidates).collect::<Vec<_>>(), [exist, exist, exist + 1]);
    assert_eq!(state.generation, 2);
}

#[test]
fn candidates_that_are_not_a_number_never_win() {
    let search = search(space(3, 5), settings(10, 30, &[20, 4, 1]));
    let score = |c: &Candidate, _: &Draw| if c[0] > 0 { f64::NAN } else { f64::INFINITY.min(convex(c)) };
    let (state, records) = run(&search, score);
    assert!(state.parent[0] <= 0);
    assert!(records.iter().any(|r| r.stages[0].invalid > 0));
    assert!(records.iter().all(|r| r.fitness.is_some()));
}

#[test]
fn a_parent_that_is_not_a_number_loses_to_infinity() {
    let search = search(space(3, 5), settings(1, 8, &[1]));
    let start = search.start().parent;
    let (state, records) = run(&search, |c, _| if *c == start { f64::NAN } else { f64::INFINITY });
    assert_ne!(state.parent, search.start().parent);
    assert_eq!((records[0].parent_fitness, records[0].fitness), (None, None));
    assert_eq!(
        serde_json::from_str::<GenerationRecord>(&serde_json::to_string(&records[0]).unwrap()).unwrap(),
        records[0]
    );
}

#[test]
fn nothing_but_nan_is_an_error_that_names_the_generation() {
    let search = search(space(3, 5), settings(5, 8, &[4, 1]));
    let score = |_: &Candidate, d: &Draw| if d.generation == 3 { f64::NAN } else { 1.0 };
    let e = search.run(search.start(), &mut Mock::new(score), |_| Ok(())).unwrap_err();
    assert_eq!((e.kind, e.place.as_deref()), (Kind::Numeric, Some("generation 3, stage 1")));
}

#[test]
fn an_evaluator_that_forgets_a_candidate_is_an_error() {
    struct Forgetful;
    impl Evaluate for Forgetful {
        fn score(&mut self, candidates: &[Candidate], _: &Draw) -> Result<Vec<Score>> {
            Ok(vec![Score::from(1.0); candidates.len() - 1])
        }
    }
    let search = search(space(3, 5), settings(5, 8, &[4, 1]));
    assert_eq!(search.run_generation(&search.start(), &mut Forgetful).unwrap_err().kind, Kind::Internal);
}

#[test]
fn the_caller_stops_a_search_between_generations() {
    let search = search(space(3, 5), settings(5, 8, &[4, 1]));
    let stop = |r: &GenerationRecord| {
        if r.generation == 2 { Err(Error::new(Kind::Interrupted, "stopped")) } else { Ok(()) }
    };
    let e = search.run(search.start(), &mut Mock::new(rugged), stop).unwrap_err();
    assert_eq!(e.kind, Kind::Interrupted);
}

#[test]
fn a_parent_from_another_space_is_refused() {
    let search = search(space(3, 3), settings(5, 8, &[1]));
    for parent in [vec![2, 0, -2, 0, 0, 0], vec![0, 0]] {
        let state = State { generation: 1, ..State::before(parent) };
        assert_eq!(search.run_generation(&state, &mut Mock::new(rugged)).unwrap_err().kind, Kind::Search);
    }
}

#[test]
fn settings_that_cannot_select_name_their_key() {
    let wrong = [
        ("search.offspring", settings(1, 0, &[1])),
        ("search.max_flips", Settings { max_flips: 0, ..settings(1, 8, &[1]) }),
        ("search.stages", settings(1, 8, &[])),
        ("search.stages", settings(1, 8, &[4, 2])),
        ("search.stages", settings(1, 8, &[0, 1])),
    ];
    for (key, settings) in wrong {
        let e = create(space(2, 3), settings, 0, 1).unwrap_err();
        assert_eq!((e.kind, e.place.as_deref()), (Kind::Spec, Some(key)));
    }
}

#[test]
fn no_generations_leave_the_centre() {
    let (state, records) = run(&search(space(3, 5), settings(0, 8, &[1])), |c, _| convex(c));
    assert_eq!(state.parent, vec![0; 6]);
    assert!(records.is_empty());
}

#[test]
fn fitness_is_ordered_with_nan_last() {
    let mut values = [f64::NAN, f64::INFINITY, 0.0, f64::NEG_INFINITY, -1.0, f64::NAN];
    values.sort_by(|a, b| select::order(*a, *b));
    assert_eq!(values[..4], [f64::NEG_INFINITY, -1.0, 0.0, f64::INFINITY]);
    assert!(values[4].is_nan() && values[5].is_nan());
    assert_eq!(select::order(0.0, -0.0), std::cmp::Ordering::Equal);
}

proptest! {
    #[test]
    fn offspring_are_distinct_legal_and_keep_the_totals(layers in 1usize..6, levels in prop::sample::select(vec![1usize, 3, 5, 9]), count in 1usize..80, flips in 1usize..5, seed: u64) {
        let space = space(layers, levels);
        let found = offspring(&space, &space.start(), count, flips, &mut rng::stream(seed, "offspring"));
        let distinct: BTreeSet<_> = found.iter().cloned().collect();
        prop_assert_eq!(distinct.len(), found.len());
        prop_assert_eq!(found.len(), count.min(neighbours(&space, &space.start(), flips, 1_000).len()));
        for child in &found {
            prop_assert!(space.contains(child) && *child != space.start());
            for kind in ModuleKind::ALL {
                prop_assert_eq!(space.distribution(child).total(kind), space.centre.total(kind));
            }
        }
    }

    #[test]
    fn fitness_never_rises_when_the_tokens_do_not_matter(seed: u64, offspring in 1usize..20) {
        let search = create(space(4, 5), settings(6, offspring, &[4, 1]), seed, 2).unwrap();
        let (_, records) = run(&search, |c, _| convex(c));
        for r in &records {
            prop_assert!(r.fitness <= r.parent_fitness);
        }
        for (a, b) in records.iter().zip(&records[1..]) {
            prop_assert_eq!(&a.winner, &b.parent);
        }
    }
}
