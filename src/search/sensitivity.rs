//! What single changes cost: around a candidate, the fitness of every candidate that differs from it in one
//! module; and the start that follows from the sum of these increases, which is exact where modules do not
//! interact (SPDY, Frantar and Alistarh 2022; ZipLM, Kurtic et al. 2023).
//!
//! A *round* measures them around a candidate and finds the optimum of their sum under the budget. That is taken
//! where it is better than what the round departed from on tokens that it was not fitted to; the next round departs
//! from there, and a round that brings nothing is the last.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::knapsack;
use super::{Draw, Evaluate, finite};
use crate::base::{Error, Estimate, Kind, Result};
use crate::space::{Budget, Candidate, Space};
use crate::spec::Search as Settings;

/// Candidates that are scored when a round ends: its optimum, and both ends of the round on other tokens.
const CONCLUDING: usize = 3;
/// Candidates that are scored together at least: they share what their first modules have in common.
const TOGETHER: usize = 32;

/// One round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// The candidate that single changes are measured around.
    pub around: Candidate,
    /// Its fitness; absent when it is not a finite number.
    pub fitness: Option<f64>,
    /// Tokens that all are scored on.
    pub tokens: usize,
    /// For every module, in order, what each of its levels adds to the fitness; absent when that is not a finite
    /// number. Modules that are not measured yet are missing at the end.
    pub increases: Vec<Vec<Option<f64>>>,
    /// What followed, once all modules are measured.
    pub outcome: Option<RoundOutcome>,
}

/// What a round led to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundOutcome {
    /// The optimum of the sum of increases.
    pub optimum: Candidate,
    /// The fitness that the sum predicts for it.
    pub predicted: Option<f64>,
    /// The fitness that it has on the same tokens.
    pub fitness: Option<f64>,
    /// What it gains on what the round departed from, on `checked` tokens; absent when that is no number.
    pub gain: Option<Estimate>,
    /// Tokens that it was checked on: others than those of the round, where the search set has others.
    pub checked: usize,
}

impl Round {
    /// The better of the optimum and of what the round departed from; none before the round has ended.
    pub fn best(&self) -> Option<&Candidate> {
        let outcome = self.outcome.as_ref()?;
        Some(if self.is_better() { &outcome.optimum } else { &self.around })
    }

    /// Whether the round found something better.
    pub fn is_better(&self) -> bool {
        let gain = self.outcome.as_ref().and_then(|outcome| outcome.gain);
        gain.is_some_and(|gain| gain.value > 0.0)
    }

    /// Whether it can be a round of these settings around a candidate: what is stored may be of something else.
    fn is_of(&self, space: &Space, around: &Candidate, tokens: usize) -> bool {
        let fits = |(levels, (low, high)): (&Vec<Option<f64>>, &(i32, i32))| {
            levels.len() == (high - low + 1) as usize
        };
        self.around == *around
            && self.tokens == tokens
            && self.increases.len() <= space.range.len()
            && self.increases.iter().zip(&space.range).all(fits)
    }
}

/// Measures sensitivities in a space.
#[derive(Debug, Clone)]
pub struct Sensitivities {
    space: Space,
    budget: Budget,
    /// Tokens of a round.
    tokens: usize,
    /// Tokens that a round's optimum is checked on, and those of the draw before them that it was fitted to.
    check: (usize, usize),
    /// Rounds at most.
    rounds: usize,
}

impl Sensitivities {
    /// As `settings` ask for.
    pub fn new(space: Space, budget: Budget, settings: &Settings) -> Self {
        let tokens = settings.sensitivity_tokens();
        let check = settings.sensitivity_check();
        Self { space, budget, tokens, check, rounds: settings.sensitivity.rounds }
    }

    /// Candidates that are scored in all rounds: of each what it departs from, the changes, the optimum, and both
    /// ends once more.
    pub fn candidates(&self) -> usize {
        let changes: usize = self.space.range.iter().map(|(low, high)| (high - low) as usize).sum();
        self.rounds * (1 + changes + CONCLUDING)
    }

    /// Modules as they are measured together in the first round.
    pub fn blocks(&self) -> Vec<Range<usize>> {
        let next = |end: usize| self.block(end);
        std::iter::successors(next(0), |block| next(block.end)).collect()
    }

    /// The changes of some modules in the first round.
    pub fn changes(&self, modules: Range<usize>) -> Vec<Candidate> {
        singles(&self.space, &self.space.start(), modules)
    }

    /// Candidates that were scored for rounds so far.
    pub fn done(&self, rounds: &[Round]) -> usize {
        let of = |round: &Round| {
            let modules = 0..round.increases.len().min(self.space.range.len());
            let concluded = if round.outcome.is_some() { CONCLUDING } else { 0 };
            1 + singles(&self.space, &round.around, modules).len() + concluded
        };
        rounds.iter().map(of).sum()
    }

    /// Does what is left after `rounds`; `each` is called with all rounds so far whenever some modules are
    /// measured, and with the number of candidates that this took.
    ///
    /// # Errors
    /// The fitness of a round's centre is not finite, the evaluator fails, and what `each` returns.
    pub fn run(
        &self,
        rounds: &mut Vec<Round>,
        evaluator: &mut (impl Evaluate + ?Sized),
        mut each: impl FnMut(&[Round], usize) -> Result<()>,
    ) -> Result<()> {
        self.keep_own(rounds);
        for number in 1..=self.rounds {
            if rounds.len() < number {
                if rounds.last().is_some_and(|last| !last.is_better()) {
                    break;
                }
                let around =
                    rounds.last().and_then(Round::best).cloned().unwrap_or_else(|| self.space.start());
                rounds.push(self.begin(number, around, evaluator)?);
                each(rounds, 1)?;
            }
            while let Some(modules) = self.block(rounds[number - 1].increases.len()) {
                evaluator.checkpoint()?;
                let (measured, count) = self.measure(number, &rounds[number - 1], modules, evaluator)?;
                rounds[number - 1].increases.extend(measured);
                each(rounds, count)?;
            }
            if rounds[number - 1].outcome.is_none() {
                let outcome = self.conclude(number, &rounds[number - 1], evaluator)?;
                rounds[number - 1].outcome = Some(outcome);
                each(rounds, CONCLUDING)?;
            }
        }
        Ok(())
    }

    /// Leaves out stored rounds that are not of this space, and all after them.
    fn keep_own(&self, rounds: &mut Vec<Round>) {
        let mut around = self.space.start();
        let mut own = 0;
        for round in rounds.iter().take(self.rounds) {
            if !round.is_of(&self.space, &around, self.tokens) {
                break;
            }
            own += 1;
            let Some(best) = round.best().filter(|_| round.is_better()) else { break };
            around = best.clone();
        }
        rounds.truncate(own);
    }

    fn draw(&self, round: usize) -> Draw {
        Draw::whole(0, round, self.tokens)
    }

    fn begin(
        &self,
        number: usize,
        around: Candidate,
        evaluator: &mut (impl Evaluate + ?Sized),
    ) -> Result<Round> {
        let fitness = one(evaluator, &around, &self.draw(number))?;
        Ok(Round { around, fitness, tokens: self.tokens, increases: Vec::new(), outcome: None })
    }

    /// The modules from `first` on that are measured together; none when there are no more.
    fn block(&self, first: usize) -> Option<Range<usize>> {
        let all = self.space.range.len();
        let changes = |module: usize| (self.space.range[module].1 - self.space.range[module].0) as usize;
        let enough = |&end: &usize| (first..end).map(changes).sum::<usize>() >= TOGETHER;
        (first < all).then(|| first..(first + 1..=all).find(enough).unwrap_or(all))
    }

    /// What every level of some modules adds, and the candidates that were scored.
    fn measure(
        &self,
        number: usize,
        round: &Round,
        modules: Range<usize>,
        evaluator: &mut (impl Evaluate + ?Sized),
    ) -> Result<(Vec<Vec<Option<f64>>>, usize)> {
        let singles = singles(&self.space, &round.around, modules.clone());
        let base = round.fitness.ok_or_else(no_number)?;
        let scored =
            if singles.is_empty() { vec![] } else { evaluator.score(&singles, &self.draw(number))? };
        let mut scored = scored.into_iter();
        let increases = modules.map(|module| {
            let of_level = |level: i32| match level == round.around[module] {
                true => Some(0.0),
                false => scored.next().and_then(|score| finite(score.fitness - base)),
            };
            let (low, high) = self.space.range[module];
            (low..=high).map(of_level).collect()
        });
        Ok((increases.collect(), singles.len()))
    }

    fn conclude(
        &self,
        number: usize,
        round: &Round,
        evaluator: &mut (impl Evaluate + ?Sized),
    ) -> Result<RoundOutcome> {
        let optimum = knapsack::optimum(&self.space, &self.budget, &round.increases);
        let optimum = optimum.unwrap_or_else(|| round.around.clone());
        let increase =
            |(i, level): (usize, &i32)| round.increases[i][(level - self.space.range[i].0) as usize];
        let sum: Option<f64> = optimum.iter().enumerate().map(increase).sum();
        let predicted = round.fitness.zip(sum).map(|(base, sum)| base + sum);
        let fitness = one(evaluator, &optimum, &self.draw(number))?;
        let (tokens, skipped) = self.check;
        let draw = Draw { skipped, tokens: skipped + tokens, ..self.draw(number) };
        let ends = evaluator.score(&[round.around.clone(), optimum.clone()], &draw)?;
        let gain = ends.first().zip(ends.get(1)).and_then(|(before, after)| after.gain_on(before));
        Ok(RoundOutcome { optimum, predicted, fitness, gain, checked: tokens })
    }
}

fn no_number() -> Error {
    Error::new(Kind::Search, "the fitness of the distribution that a search starts from is not a number")
        .hint("set search.start = \"uniform\", or look at the fitness and the model")
}

/// The candidates that differ from `around` in one of some modules, module by module, levels ascending.
fn singles(space: &Space, around: &Candidate, modules: Range<usize>) -> Vec<Candidate> {
    let of_module = |module: usize| {
        let (low, high) = space.range[module];
        let others = (low..=high).filter(move |level| *level != around[module]);
        others.map(move |level| {
            let mut changed = around.clone();
            changed[module] = level;
            changed
        })
    };
    modules.flat_map(of_module).collect()
}

fn one(evaluator: &mut (impl Evaluate + ?Sized), candidate: &Candidate, draw: &Draw) -> Result<Option<f64>> {
    let scored = evaluator.score(std::slice::from_ref(candidate), draw)?;
    Ok(scored.first().and_then(|score| finite(score.fitness)))
}
