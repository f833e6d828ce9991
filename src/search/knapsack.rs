//! The exact optimum of a sum of values of single modules under a budget: a knapsack with one choice per module,
//! by dynamic programming over the total weight.
//!
//! Operations: modules · levels · largest total weight. Memory: two bytes per module and total weight.

use crate::space::{Budget, Candidate, ModuleId, ModuleKind, Space};

/// Total weights told apart at most. Where costs need more, each is rounded up to a coarser unit, so that the
/// budget is kept all the same.
const MOST_WEIGHTS: u64 = 200_000;

/// One level of a module.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Choice {
    /// What it takes of the budget.
    weight: usize,
    /// What it adds to the sum to be minimised; infinite where it must not be taken.
    value: f64,
}

/// The least sum for every total weight, and the choices that lead to it.
struct Solved {
    least: Vec<f64>,
    /// For every module and total weight up to it.
    picked: Vec<Vec<u16>>,
}

impl Solved {
    fn of(modules: &[Vec<Choice>]) -> Self {
        let mut least = vec![0.0];
        let mut picked = Vec::new();
        for choices in modules {
            let widest = choices.iter().map(|choice| choice.weight).max().unwrap_or(0);
            let mut next = vec![f64::INFINITY; least.len() + widest];
            let mut picks = vec![0u16; next.len()];
            for (i, choice) in choices.iter().enumerate() {
                for (before, sum) in least.iter().enumerate() {
                    let total = before + choice.weight;
                    let sum = sum + choice.value;
                    if sum < next[total] {
                        next[total] = sum;
                        picks[total] = i as u16;
                    }
                }
            }
            least = next;
            picked.push(picks);
        }
        Self { least, picked }
    }

    /// The choices of each module that reach a total weight; none where nothing does.
    fn choices(&self, modules: &[Vec<Choice>], mut total: usize) -> Option<Vec<usize>> {
        if !self.least.get(total)?.is_finite() {
            return None;
        }
        let mut choices = vec![0; modules.len()];
        for i in (0..modules.len()).rev() {
            choices[i] = usize::from(self.picked[i][total]);
            total -= modules[i][choices[i]].weight;
        }
        Some(choices)
    }
}

/// The candidate within a budget whose sum of values is least. `values` has those of every module's levels,
/// ascending; none where a level must not be taken. None where no candidate keeps to the budget. Among equals,
/// that of the larger cost, then of the lower levels.
pub fn optimum(space: &Space, budget: &Budget, values: &[Vec<Option<f64>>]) -> Option<Candidate> {
    match budget {
        Budget::Units(removed) => by_kind(space, removed, values),
        Budget::Cost { .. } => by_cost(space, budget, values),
    }
}

/// Both kinds on their own: the level numbers of one kind add up to what its units need.
fn by_kind(space: &Space, removed: &[usize; 2], values: &[Vec<Option<f64>>]) -> Option<Candidate> {
    let mut candidate = space.start();
    for kind in ModuleKind::ALL {
        let indices: Vec<usize> = (kind as usize..values.len()).step_by(2).collect();
        let modules: Vec<Vec<Choice>> = indices.iter().map(|&i| choices(&values[i], |level| level)).collect();
        let lowest: usize = indices.iter().map(|&i| removed_at(space, i, 0)).sum();
        let above = removed[kind as usize].checked_sub(lowest)?;
        let spacing = space.spacing(kind);
        let total = above.is_multiple_of(spacing).then_some(above / spacing)?;
        let picked = Solved::of(&modules).choices(&modules, total)?;
        indices.iter().zip(picked).for_each(|(&i, pick)| candidate[i] = space.range[i].0 + pick as i32);
    }
    Some(candidate)
}

/// Both kinds together: what is kept beyond the sparsest candidate costs what the budget leaves, at most.
fn by_cost(space: &Space, budget: &Budget, values: &[Vec<Option<f64>>]) -> Option<Candidate> {
    let sparsest: Candidate = space.range.iter().map(|(_, high)| *high).collect();
    let left = u64::try_from(budget.left(space, &sparsest)).ok()?;
    let of_module = |i: usize| {
        let levels = space.levels(ModuleId::from_index(i));
        levels.map(|level| budget.beyond_sparsest(space, i, level)).collect::<Vec<u64>>()
    };
    let weights: Vec<Vec<u64>> = (0..values.len()).map(of_module).collect();
    let all: u64 = weights.iter().filter_map(|levels| levels.first()).sum();
    let exact = weights.iter().flatten().copied().fold(0, gcd).max(1);
    let unit = exact.max(left.min(all).div_ceil(MOST_WEIGHTS));
    let modules: Vec<Vec<Choice>> = values
        .iter()
        .zip(&weights)
        .map(|(levels, weights)| choices(levels, |level| weights[level].div_ceil(unit) as usize))
        .collect();
    let solved = Solved::of(&modules);
    let within = solved.least.iter().take((left / unit) as usize + 1).enumerate();
    let (total, _) =
        within.filter(|(_, sum)| sum.is_finite()).min_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)))?;
    let picked = solved.choices(&modules, total)?;
    Some(picked.iter().zip(&space.range).map(|(&pick, (low, _))| low + pick as i32).collect())
}

/// The levels of a module with their weights, by index from the lowest.
fn choices(values: &[Option<f64>], weight: impl Fn(usize) -> usize) -> Vec<Choice> {
    let choice = |(level, value): (usize, &Option<f64>)| Choice {
        weight: weight(level),
        value: value.filter(|v| v.is_finite()).unwrap_or(f64::INFINITY),
    };
    values.iter().enumerate().map(choice).collect()
}

/// Units that a module loses at its level of an index.
fn removed_at(space: &Space, module: usize, index: usize) -> usize {
    space.removed(ModuleId::from_index(module), space.range[module].0 + index as i32)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
