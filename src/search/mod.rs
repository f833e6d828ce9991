//! Evolutionary search for the distribution of sparsity (paper §2.4, Algorithm 3) over a trait [`Evaluate`].
//!
//! Pure: no tensor, no file, no clock. A generation depends on its parent and its number alone, because each
//! draws from a random stream of its own; so a search that was stopped resumes from the last record with the
//! same results.

mod knapsack;
mod offspring;
mod score;
mod select;
mod sensitivity;

pub use knapsack::optimum;
pub use offspring::{Mutations, neighbours, offspring};
pub use score::Score;
pub use sensitivity::{Round, RoundOutcome, Sensitivities};

use serde::{Deserialize, Serialize};

use select::Race;

use crate::base::{Error, Estimate, Kind, Result, rng};
use crate::space::{Budget, Candidate, Space};
use crate::spec::{MOST_OFFSPRING, Search as Settings, Stage};

/// Scores candidates.
pub trait Evaluate {
    /// What every candidate scores, in order. All candidates are scored on the same tokens, which `draw` names.
    fn score(&mut self, candidates: &[Candidate], draw: &Draw) -> Result<Vec<Score>>;

    /// Tokens of one sequence of a draw, where the fitness is a mean over sequences; none where it is not.
    fn sequence_length(&self) -> Option<usize> {
        None
    }

    /// An error where the search is to stop: asked between units of its own work.
    fn checkpoint(&self) -> Result<()> {
        Ok(())
    }
}

/// Names the token subset of one stage: the evaluator draws it from a random stream of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Draw {
    /// Generation, from 1; 0 for what is measured before the first.
    pub generation: usize,
    /// Stage of the generation, or round before the first one, from 1.
    pub stage: usize,
    /// Tokens to draw.
    pub tokens: usize,
    /// Tokens of these that are left out at the start: sequences that begin in them.
    pub skipped: usize,
}

impl Draw {
    /// All tokens of a stage's draw.
    pub fn whole(generation: usize, stage: usize, tokens: usize) -> Self {
        Self { generation, stage, tokens, skipped: 0 }
    }
}

/// The state of a search: all that is needed to resume it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Generations done.
    pub generation: usize,
    /// The best candidate so far.
    pub parent: Candidate,
    /// Its fitness on the tokens of the last stage that scored it; absent before the first generation and
    /// when it is infinite.
    pub fitness: Option<f64>,
    /// Generations in a row, the last one among them, that found nothing better.
    pub stalled: usize,
}

impl State {
    /// Before the first generation.
    pub fn before(parent: Candidate) -> Self {
        Self { generation: 0, parent, fitness: None, stalled: 0 }
    }

    /// The state that a generation led to.
    pub fn after(&self, record: &GenerationRecord) -> Self {
        let stalled = if record.is_better() { 0 } else { self.stalled + 1 };
        Self {
            generation: record.generation,
            parent: record.winner.clone(),
            fitness: record.fitness,
            stalled,
        }
    }
}

/// One generation in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerationRecord {
    /// Generation, from 1.
    pub generation: usize,
    /// The parent that it started from.
    pub parent: Candidate,
    /// The candidate that it kept: the next parent.
    pub winner: Candidate,
    /// The parent's fitness in the last stage; absent when it is not a finite number.
    pub parent_fitness: Option<f64>,
    /// The winner's fitness on the same tokens; absent when it is not a finite number.
    pub fitness: Option<f64>,
    /// What the winner gains on its parent: the mean of paired differences over the sequences of the last stage.
    /// Absent when the parent won, and where the fitness is not a finite number.
    pub gain: Option<Estimate>,
    /// Distinct offspring.
    pub offspring: usize,
    /// The stages in order.
    pub stages: Vec<StageRecord>,
}

impl GenerationRecord {
    /// Whether the winner is better than the parent by more than what the best of the last stage gains by chance. Of
    /// a fitness that is no mean over sequences every gain counts.
    pub fn is_better(&self) -> bool {
        let compared = self.stages.last().map_or(1, |stage| stage.candidates.saturating_sub(1));
        self.winner != self.parent && self.gain.is_none_or(|gain| score::is_significant(&gain, compared))
    }
}

/// One selection stage in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Tokens that the candidates kept were scored on.
    pub tokens: usize,
    /// Tokens times candidates scored: fewer than their product where candidates were dropped on the way.
    pub candidate_tokens: usize,
    /// Candidates scored; in the last stage the parent is one of them.
    pub candidates: usize,
    /// Candidates whose fitness was NaN; they never survive.
    pub invalid: usize,
    /// Candidates kept.
    pub survivors: usize,
}

/// The outcome of one generation.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was run.
    Generation {
        /// The new state.
        state: State,
        /// For the log.
        record: GenerationRecord,
    },
    /// The parent has no legal flip: the search is over.
    NoFlip,
}

/// Why a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// All generations requested are done.
    Generations,
    /// The last generations found nothing better, as many as `search.patience` waits for.
    Patience,
    /// The parent has no legal flip (one layer, one level): there was nothing to search.
    NoFlip,
}

/// One search: the space, its settings, and the names of its random streams.
#[derive(Debug, Clone)]
pub struct Search {
    mutations: Mutations,
    start: Candidate,
    settings: Settings,
    seed: u64,
    iteration: usize,
}

impl Search {
    /// A search from `start` for iteration `iteration` (from 1) of the coarse-to-fine schedule, by mutations
    /// in a space within a budget.
    ///
    /// # Errors
    /// `settings` request no offspring, no flip or no stage, a stage keeps no candidate, or the last one
    /// keeps several; or more offspring than [`MOST_OFFSPRING`].
    pub fn new(
        mutations: Mutations,
        start: Candidate,
        settings: Settings,
        seed: u64,
        iteration: usize,
    ) -> Result<Self> {
        check(&settings)?;
        Ok(Self { mutations, start, settings, seed, iteration })
    }

    /// The space that is searched.
    pub fn space(&self) -> &Space {
        &self.mutations.space
    }

    /// What every candidate keeps to.
    pub fn budget(&self) -> &Budget {
        &self.mutations.budget
    }

    /// The state before the first generation.
    pub fn start(&self) -> State {
        State::before(self.start.clone())
    }

    /// Runs the generation after `state`: offspring of the parent pass the stages, the last of which scores
    /// the parent too and keeps one. Among equals the parent stays.
    ///
    /// # Errors
    /// The parent is not in the space, the evaluator fails, or all fitness values of a stage are NaN.
    pub fn run_generation(&self, state: &State, evaluator: &mut (impl Evaluate + ?Sized)) -> Result<Outcome> {
        self.check_parent(state)?;
        let generation = state.generation + 1;
        let mut rng = rng::stream(self.seed, &format!("search/{}/{generation}", self.iteration));
        let proceed = || evaluator.checkpoint();
        let offspring =
            offspring(&self.mutations, &state.parent, self.settings.offspring, &mut rng, &proceed)?;
        if offspring.is_empty() {
            return Ok(Outcome::NoFlip);
        }
        let record = self.select(generation, &state.parent, offspring, evaluator)?;
        Ok(Outcome::Generation { state: state.after(&record), record })
    }

    /// Runs generations after `state` until all are done, patience ends or no flip is left; `each` is called after every
    /// generation, so that the caller can store the record, and stops the search by returning an error.
    ///
    /// # Errors
    /// As [`Search::run_generation`], and whatever `each` returns.
    pub fn run(
        &self,
        mut state: State,
        evaluator: &mut (impl Evaluate + ?Sized),
        mut each: impl FnMut(&GenerationRecord) -> Result<()>,
    ) -> Result<(State, Ending)> {
        while state.generation < self.settings.generations {
            if self.settings.patience > 0 && state.stalled >= self.settings.patience {
                return Ok((state, Ending::Patience));
            }
            match self.run_generation(&state, evaluator)? {
                Outcome::NoFlip => return Ok((state, Ending::NoFlip)),
                Outcome::Generation { state: next, record } => {
                    each(&record)?;
                    state = next;
                }
            }
        }
        Ok((state, Ending::Generations))
    }

    /// Passes `offspring` through the stages.
    fn select(
        &self,
        generation: usize,
        parent: &Candidate,
        offspring: Vec<Candidate>,
        evaluator: &mut (impl Evaluate + ?Sized),
    ) -> Result<GenerationRecord> {
        let count = offspring.len();
        let (survivors, mut stages) = self.narrow(generation, offspring, evaluator)?;
        // First among equals: a candidate must be better to replace the parent.
        let finalists = [vec![parent.clone()], survivors].concat();
        let stage = self.settings.stages.len();
        let draw = Draw::whole(generation, stage, self.settings.stages[stage - 1].tokens);
        let race = Race { survivors: 1, drop_early: self.settings.racing, kept: Some(parent) };
        let mut last = select::stage(evaluator, &draw, finalists, &race)?;
        stages.push(last.record);
        let parent_score = last.survivors.iter().find(|s| s.candidate == *parent).map(|s| s.score.clone());
        let winner = last.survivors.swap_remove(0);
        let gain = parent_score.as_ref().filter(|_| winner.candidate != *parent);
        Ok(GenerationRecord {
            generation,
            parent: parent.clone(),
            parent_fitness: parent_score.as_ref().and_then(|s| finite(s.fitness)),
            fitness: finite(winner.score.fitness),
            gain: gain.and_then(|parent| winner.score.gain_on(parent)),
            winner: winner.candidate,
            offspring: count,
            stages,
        })
    }

    /// All stages but the last: who is left, best first.
    fn narrow(
        &self,
        generation: usize,
        mut candidates: Vec<Candidate>,
        evaluator: &mut (impl Evaluate + ?Sized),
    ) -> Result<(Vec<Candidate>, Vec<StageRecord>)> {
        let early = &self.settings.stages[..self.settings.stages.len() - 1];
        let mut records = Vec::new();
        for (stage, &Stage { tokens, survivors }) in (1..).zip(early) {
            let race = Race { survivors, drop_early: self.settings.racing, kept: None };
            let selected =
                select::stage(evaluator, &Draw::whole(generation, stage, tokens), candidates, &race)?;
            candidates = selected.survivors.into_iter().map(|s| s.candidate).collect();
            records.push(selected.record);
        }
        Ok((candidates, records))
    }

    fn check_parent(&self, state: &State) -> Result<()> {
        if self.budget().allows_candidate(self.space(), &state.parent) {
            return Ok(());
        }
        let what = format!("the parent of generation {} is not in the search space", state.generation + 1);
        Err(Error::new(Kind::Search, what)
            .hint("the stored search belongs to another spec; remove it to search again"))
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

fn check(settings: &Settings) -> Result<()> {
    let error = |key: &str, what: &str, hint: &str| {
        Err(Error::new(Kind::Spec, what).at(format!("search.{key}")).hint(hint))
    };
    if settings.offspring == 0 {
        return error("offspring", "a generation without offspring finds nothing", "use at least 1");
    }
    if settings.offspring > MOST_OFFSPRING {
        let hint = format!("use at most {MOST_OFFSPRING}");
        return error("offspring", "a generation of so many offspring does not end", &hint);
    }
    if settings.max_flips == 0 {
        return error("max_flips", "mutations of no flip change nothing", "use at least 1");
    }
    match settings.stages.last() {
        None => error(
            "stages",
            "there is no selection stage",
            "give at least one, for example [{ tokens = 2048, survivors = 1 }]",
        ),
        Some(last) if last.survivors != 1 => {
            error("stages", "the last stage keeps more or less than one", "set its survivors to 1")
        }
        Some(_) if settings.stages.iter().any(|s| s.survivors == 0) => {
            error("stages", "a stage keeps no candidate", "use at least 1")
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
