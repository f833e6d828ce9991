//! Stages that drop candidates on the way, and what a generation gains.

use super::*;

/// Tokens of a sequence.
const LENGTH: usize = 4;

/// Scores sequence by sequence: a value of the candidate, and noise of the sequence that all candidates share.
struct Sequences<F> {
    value: F,
    asked: Vec<(Draw, Vec<Candidate>)>,
}

impl<F: Fn(&Candidate, &Draw, usize) -> f64> Sequences<F> {
    fn new(value: F) -> Self {
        Self { value, asked: vec![] }
    }

    fn tokens(&self) -> usize {
        self.asked.iter().map(|(draw, candidates)| (draw.tokens - draw.skipped) * candidates.len()).sum()
    }
}

impl<F: Fn(&Candidate, &Draw, usize) -> f64> Evaluate for Sequences<F> {
    fn score(&mut self, candidates: &[Candidate], draw: &Draw) -> Result<Vec<Score>> {
        self.asked.push((*draw, candidates.to_vec()));
        let read = draw.skipped / LENGTH..draw.tokens / LENGTH;
        let one = |candidate: &Candidate| {
            let of = |s: usize| (self.value)(candidate, draw, s) + (s * 7919 % 101) as f64;
            let sequences: Vec<f64> = read.clone().map(of).collect();
            Score { fitness: sequences.iter().sum::<f64>() / sequences.len() as f64, sequences }
        };
        Ok(candidates.iter().map(one).collect())
    }

    fn sequence_length(&self) -> Option<usize> {
        Some(LENGTH)
    }
}

/// Small differences of a candidate from sequence to sequence.
fn jitter(candidate: &Candidate, draw: &Draw, sequence: usize) -> f64 {
    let text = format!("{candidate:?} {} {sequence}", draw.generation);
    let hash = text.bytes().fold(17u64, |h, b| h.wrapping_mul(0x100_0000_01b3) ^ u64::from(b));
    (hash % 1000) as f64 / 1000.0 - 0.5
}

fn staged(racing: bool, tokens: &[(usize, usize)]) -> Settings {
    let stages = tokens.iter().map(|&(tokens, survivors)| Stage { tokens, survivors }).collect();
    Settings { racing, stages, ..settings(4, 24, &[1]) }
}

#[test]
fn a_race_finds_what_reading_everything_finds_with_fewer_tokens() {
    let run = |racing| {
        let search = search(space(4, 5), staged(racing, &[(128, 6), (512, 1)]));
        let mut evaluator = Sequences::new(|c: &Candidate, d: &Draw, s| convex(c) + jitter(c, d, s));
        let mut records = vec![];
        let each = |record: &GenerationRecord| {
            records.push(record.clone());
            Ok(())
        };
        let (state, _) = search.run(search.start(), &mut evaluator, each).unwrap();
        let logged: usize = records.iter().flat_map(|r| &r.stages).map(|s| s.candidate_tokens).sum();
        assert_eq!(logged, evaluator.tokens());
        (state.parent, evaluator.tokens(), records)
    };
    let (raced, few, records) = run(true);
    let (whole, all, others) = run(false);
    assert_eq!(raced, whole);
    assert!(few < all * 2 / 3, "{few} of {all}");
    for (a, b) in records.iter().zip(&others) {
        assert_eq!((a.winner.clone(), a.stages[0].survivors), (b.winner.clone(), b.stages[0].survivors));
        assert!((a.fitness.unwrap() - b.fitness.unwrap()).abs() < 1e-9);
    }
}

#[test]
fn the_parent_is_read_to_the_end_and_the_gain_is_paired_with_it() {
    let search = search(space(4, 5), staged(true, &[(512, 1)]));
    let start = search.start();
    let parent = start.parent.clone();
    let mut evaluator =
        Sequences::new(|c: &Candidate, d: &Draw, s| if *c == parent { 9.0 } else { jitter(c, d, s) });
    let Outcome::Generation { record, .. } = search.run_generation(&start, &mut evaluator).unwrap() else {
        panic!("flips exist")
    };
    assert!(evaluator.asked.iter().all(|(_, candidates)| candidates.contains(&parent)));
    assert!(evaluator.asked.last().unwrap().1.len() < 25);
    let gain = record.gain.unwrap();
    assert_eq!(gain.n, Some(128));
    assert!((gain.value - 9.0).abs() < 0.2 && gain.stderr.unwrap() < 0.1, "{gain:?}");
    assert!(record.is_better());
}

#[test]
fn stages_of_few_sequences_and_fitness_without_sequences_are_read_whole() {
    let settings = staged(true, &[(31 * LENGTH, 1)]);
    let search = search(space(4, 5), settings);
    let mut evaluator = Sequences::new(|c: &Candidate, _: &Draw, _| convex(c));
    search.run_generation(&search.start(), &mut evaluator).unwrap();
    assert_eq!(evaluator.asked.len(), 2);
    let mut mock = Mock::new(|c: &Candidate, _: &Draw| convex(c));
    search.run_generation(&search.start(), &mut mock).unwrap();
    assert_eq!(mock.asked.len(), 1);
}

#[test]
fn patience_counts_generations_whose_gain_is_within_chance() {
    let settings = Settings { patience: 2, ..staged(false, &[(128, 1)]) };
    let search = search(space(4, 5), Settings { generations: 50, ..settings });
    let mut evaluator = Sequences::new(jitter);
    let mut records = vec![];
    let each = |record: &GenerationRecord| {
        records.push(record.clone());
        Ok(())
    };
    let (state, ending) = search.run(search.start(), &mut evaluator, each).unwrap();
    assert_eq!((ending, state.stalled), (Ending::Patience, 2));
    let stalled: Vec<_> = records.iter().rev().take(2).map(GenerationRecord::is_better).collect();
    assert_eq!(stalled, [false, false]);
    assert!(records.iter().any(|r| r.winner != r.parent && !r.is_better()), "{records:?}");
}
