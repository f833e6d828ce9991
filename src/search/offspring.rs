//! Offspring of a parent: drawn by mutation while that finds new ones, enumerated when it does not. No loop
//! depends on luck to end.

use std::collections::BTreeSet;

use rand::RngExt;

use crate::base::Result;
use crate::base::rng::Rng;
use crate::space::{Budget, Candidate, Space, legal_flips};

/// Mutations in a row that bring nothing new, before what is left is enumerated.
const MISSES: usize = 256;
/// Neighbours enumerated at most, beyond as many as are requested.
const ENUMERATED: usize = 100_000;

/// How candidates are changed: where to, and by how much at once.
#[derive(Debug, Clone)]
pub struct Mutations {
    /// The levels that there are.
    pub space: Space,
    /// What every candidate keeps to.
    pub budget: Budget,
    /// Flips of one mutation, at most.
    pub max_flips: usize,
    /// What every level of every module adds to the fitness, as far as it is known: flips that should cost less
    /// are drawn more often.
    pub increases: Option<Vec<Vec<Option<f64>>>>,
}

/// Up to `count` distinct candidates within `max_flips` flips of `parent`, without the parent itself, in the
/// order in which they were found. Fewer are returned only when no more exist; where heads may be traded for
/// neurons, when drawing and the flips within one kind find no more. `proceed` is asked between candidates.
///
/// # Errors
/// Those of `proceed`.
pub fn offspring(
    mutations: &Mutations,
    parent: &Candidate,
    count: usize,
    rng: &mut Rng,
    proceed: &dyn Fn() -> Result<()>,
) -> Result<Vec<Candidate>> {
    let mut found = DistinctCandidates { seen: BTreeSet::from([parent.clone()]), order: Vec::new() };
    let trades = matches!(mutations.budget, Budget::Cost { .. });
    if !trades && legal_flips(&mutations.space, parent).is_empty() {
        return Ok(found.order);
    }
    let mut misses = 0;
    while found.order.len() < count && misses < MISSES {
        proceed()?;
        misses = if found.add(mutations.mutate(parent, rng)) { 0 } else { misses + 1 };
    }
    if found.order.len() < count {
        let limit = ENUMERATED.saturating_add(count);
        let mut pool = neighbours(&mutations.space, parent, mutations.max_flips, limit, proceed)?;
        if trades {
            // Modules of a kind need not cost the same at the same number of units moved.
            pool.retain(|candidate| mutations.budget.allows_candidate(&mutations.space, candidate));
        }
        found.fill(pool, count, rng);
    }
    Ok(found.order)
}

/// Distinct candidates in the order in which they came.
struct DistinctCandidates {
    seen: BTreeSet<Candidate>,
    order: Vec<Candidate>,
}

impl DistinctCandidates {
    /// Whether the candidate is a new one.
    fn add(&mut self, candidate: Candidate) -> bool {
        let new = self.seen.insert(candidate.clone());
        if new {
            self.order.push(candidate);
        }
        new
    }

    /// Adds candidates of `pool` that are new, drawn without replacement, until there are `count`.
    fn fill(&mut self, pool: BTreeSet<Candidate>, count: usize, rng: &mut Rng) {
        let mut fresh: Vec<Candidate> = pool.into_iter().filter(|c| !self.seen.contains(c)).collect();
        while self.order.len() < count && !fresh.is_empty() {
            let drawn = fresh.swap_remove(rng.random_range(0..fresh.len()));
            self.add(drawn);
        }
    }
}

impl Mutations {
    /// One mutation: min(u, v) changes with u and v uniform in 1..=`max_flips`. Later ones may undo earlier ones, so
    /// the result can be the parent.
    pub(super) fn mutate(&self, parent: &Candidate, rng: &mut Rng) -> Candidate {
        let changes = rng.random_range(1..=self.max_flips).min(rng.random_range(1..=self.max_flips));
        let mut child = parent.clone();
        for _ in 0..changes {
            match self.budget {
                Budget::Units(_) => self.flip(&mut child, rng),
                Budget::Cost { .. } => self.trade(&mut child, rng),
            }
        }
        child
    }

    /// One of the legal flips, if there are any.
    fn flip(&self, candidate: &mut Candidate, rng: &mut Rng) {
        let flips = legal_flips(&self.space, candidate);
        if flips.is_empty() {
            return;
        }
        let drawn = match &self.increases {
            None => rng.random_range(0..flips.len()),
            Some(_) => {
                let costs: Vec<f64> = flips
                    .iter()
                    .map(|f| self.step(candidate, f.denser, -1) + self.step(candidate, f.sparser, 1))
                    .collect();
                weighted(&costs, rng)
            }
        };
        flips[drawn].apply(candidate);
    }

    /// Makes a module denser, others sparser until the budget is kept, and then others denser while it is. Changes
    /// nothing where that does not end within the budget.
    fn trade(&self, candidate: &mut Candidate, rng: &mut Rng) {
        let mut child = candidate.clone();
        let beyond = |module: usize, level: i32| self.budget.beyond_sparsest(&self.space, module, level);
        let Some(denser) = self.step_one(&mut child, -1, |_, _| true, rng) else { return };
        while self.budget.left(&self.space, &child) < 0 {
            let gives = |module: usize, level: i32| module != denser && beyond(module, level) > 0;
            if self.step_one(&mut child, 1, gives, rng).is_none() {
                return;
            }
        }
        let sparser: Vec<bool> = child.iter().zip(candidate.iter()).map(|(new, old)| new > old).collect();
        loop {
            let left = self.budget.left(&self.space, &child);
            let fits = |module: usize, level: i32| {
                !sparser[module] && i128::from(beyond(module, level - 1) - beyond(module, level)) <= left
            };
            if self.step_one(&mut child, -1, fits, rng).is_none() {
                break;
            }
        }
        *candidate = child;
    }

    /// Moves one of the modules that may be moved from its level to the next; gives which.
    fn step_one(
        &self,
        candidate: &mut Candidate,
        by: i32,
        may: impl Fn(usize, i32) -> bool,
        rng: &mut Rng,
    ) -> Option<usize> {
        let inside = |&module: &usize| {
            let (low, high) = self.space.range[module];
            (low..=high).contains(&(candidate[module] + by))
        };
        let modules: Vec<usize> =
            (0..candidate.len()).filter(inside).filter(|&module| may(module, candidate[module])).collect();
        if modules.is_empty() {
            return None;
        }
        let drawn = match &self.increases {
            None => rng.random_range(0..modules.len()),
            Some(_) => {
                let costs: Vec<f64> = modules.iter().map(|&m| self.step(candidate, m, by)).collect();
                weighted(&costs, rng)
            }
        };
        candidate[modules[drawn]] += by;
        Some(modules[drawn])
    }

    /// What moving a module by a level should add to the fitness; infinite where that is not known.
    fn step(&self, candidate: &Candidate, module: usize, by: i32) -> f64 {
        let Some(increases) = &self.increases else { return 0.0 };
        let at = |level: i32| {
            let index = usize::try_from(level - self.space.range[module].0).ok()?;
            increases.get(module)?.get(index).copied().flatten()
        };
        match (at(candidate[module]), at(candidate[module] + by)) {
            (Some(from), Some(to)) => to - from,
            _ => f64::INFINITY,
        }
    }
}

/// Draws an index with weights exp(−(cost − least) / mean of cost − least); uniform where all costs are equal, or
/// none is known.
fn weighted(costs: &[f64], rng: &mut Rng) -> usize {
    let least = costs.iter().copied().fold(f64::INFINITY, f64::min);
    let known: Vec<f64> = costs.iter().map(|cost| cost - least).filter(|above| above.is_finite()).collect();
    let mean = known.iter().sum::<f64>() / known.len() as f64;
    if !least.is_finite() || mean == 0.0 {
        return rng.random_range(0..costs.len());
    }
    let weights: Vec<f64> = costs.iter().map(|cost| (-(cost - least) / mean).exp()).collect();
    let mut drawn = rng.random_range(0.0..weights.iter().sum());
    let inside = |weight: &f64| {
        drawn -= weight;
        drawn < 0.0
    };
    // Rounding may leave a rest beyond the last.
    weights.iter().position(inside).unwrap_or(costs.len() - 1)
}

/// The candidates within `max_flips` flips of `parent`, nearest first until `limit` are known, without the
/// parent. `proceed` is asked between candidates.
///
/// # Errors
/// Those of `proceed`.
pub fn neighbours(
    space: &Space,
    parent: &Candidate,
    max_flips: usize,
    limit: usize,
    proceed: &dyn Fn() -> Result<()>,
) -> Result<BTreeSet<Candidate>> {
    let mut known = BTreeSet::from([parent.clone()]);
    let mut frontier = vec![parent.clone()];
    for _ in 0..max_flips {
        frontier = expand(space, &frontier, &mut known, limit, proceed)?;
        if frontier.is_empty() {
            break;
        }
    }
    known.remove(parent);
    Ok(known)
}

/// The unknown candidates one flip from `frontier`; they become known. Stops when more than `limit` are
/// known.
fn expand(
    space: &Space,
    frontier: &[Candidate],
    known: &mut BTreeSet<Candidate>,
    limit: usize,
    proceed: &dyn Fn() -> Result<()>,
) -> Result<Vec<Candidate>> {
    let mut next = Vec::new();
    for from in frontier {
        proceed()?;
        for flip in legal_flips(space, from) {
            if known.len() > limit {
                return Ok(next);
            }
            let mut to = from.clone();
            flip.apply(&mut to);
            if known.insert(to.clone()) {
                next.push(to);
            }
        }
    }
    Ok(next)
}
