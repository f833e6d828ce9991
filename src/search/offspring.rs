//! Offspring of a parent: drawn by mutation while that finds new ones, enumerated when it does not. No loop
//! depends on luck to end.

use std::collections::BTreeSet;

use rand::RngExt;

use crate::base::Result;
use crate::base::rng::Rng;
use crate::space::{Candidate, Space, legal_flips};

/// Mutations in a row that bring nothing new, before what is left is enumerated.
const MISSES: usize = 256;
/// Neighbours enumerated at most, beyond as many as are requested.
const ENUMERATED: usize = 100_000;

/// Up to `count` distinct candidates within `max_flips` flips of `parent`, without the parent itself, in the
/// order in which they were found. Fewer are returned only when no more exist. `proceed` is asked between
/// candidates.
///
/// # Errors
/// Those of `proceed`.
pub fn offspring(
    space: &Space,
    parent: &Candidate,
    count: usize,
    max_flips: usize,
    rng: &mut Rng,
    proceed: &dyn Fn() -> Result<()>,
) -> Result<Vec<Candidate>> {
    let mut found = DistinctCandidates { seen: BTreeSet::from([parent.clone()]), order: Vec::new() };
    if legal_flips(space, parent).is_empty() {
        return Ok(found.order);
    }
    let mut misses = 0;
    while found.order.len() < count && misses < MISSES {
        proceed()?;
        misses = if found.add(mutate(space, parent, max_flips, rng)) { 0 } else { misses + 1 };
    }
    if found.order.len() < count {
        let pool = neighbours(space, parent, max_flips, ENUMERATED.saturating_add(count), proceed)?;
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

/// One mutation: min(u, v) flips with u and v uniform in 1..=`max_flips`, each drawn uniformly from the legal
/// ones. Later flips may undo earlier ones, so the result can be the parent.
fn mutate(space: &Space, parent: &Candidate, max_flips: usize, rng: &mut Rng) -> Candidate {
    let flips = rng.random_range(1..=max_flips).min(rng.random_range(1..=max_flips));
    let mut child = parent.clone();
    for _ in 0..flips {
        let flips = legal_flips(space, &child);
        if flips.is_empty() {
            break;
        }
        flips[rng.random_range(0..flips.len())].apply(&mut child);
    }
    child
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
