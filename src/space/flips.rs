//! Flips (level switches, as EvoPress calls them): one level of sparsity goes from one module to another of
//! the same kind.

use super::{Candidate, ModuleId, Space};

/// `denser` gets the units of one level back, `sparser` loses as many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flip {
    /// Index of the module that becomes one level denser.
    pub denser: usize,
    /// Index of the module that becomes one level sparser.
    pub sparser: usize,
}

impl Flip {
    /// Applies the flip.
    pub fn apply(self, candidate: &mut Candidate) {
        candidate[self.denser] -= 1;
        candidate[self.sparser] += 1;
    }
}

/// Every flip that keeps `candidate` inside the space, in index order.
pub fn legal_flips(space: &Space, candidate: &Candidate) -> Vec<Flip> {
    let can = |i: usize, by: i32| (space.range[i].0..=space.range[i].1).contains(&(candidate[i] + by));
    let modules = 0..candidate.len();
    let denser = modules.clone().filter(|&i| can(i, -1));
    denser
        .flat_map(|r| {
            modules
                .clone()
                .filter(move |&b| b != r && same_kind(r, b))
                .map(move |b| Flip { denser: r, sparser: b })
        })
        .filter(|m| can(m.sparser, 1))
        .collect()
}

fn same_kind(a: usize, b: usize) -> bool {
    ModuleId::from_index(a).kind == ModuleId::from_index(b).kind
}
