//! Legal moves: one step of sparsity from one module to another of the same kind.

use super::{Candidate, ModuleId, Space};

/// `relieved` gets one level sparser's worth of units back, `burdened` loses as many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Move {
    /// Index of the module that becomes one level denser.
    pub relieved: usize,
    /// Index of the module that becomes one level sparser.
    pub burdened: usize,
}

impl Move {
    /// Carries the move out.
    pub fn apply(self, candidate: &mut Candidate) {
        candidate[self.relieved] -= 1;
        candidate[self.burdened] += 1;
    }
}

/// Every move that keeps `candidate` inside the space, in index order.
pub fn legal_moves(space: &Space, candidate: &Candidate) -> Vec<Move> {
    let can = |i: usize, by: i32| (space.range[i].0..=space.range[i].1).contains(&(candidate[i] + by));
    let modules = 0..candidate.len();
    let relieved = modules.clone().filter(|&i| can(i, -1));
    relieved
        .flat_map(|r| {
            modules
                .clone()
                .filter(move |&b| b != r && same_kind(r, b))
                .map(move |b| Move { relieved: r, burdened: b })
        })
        .filter(|m| can(m.burdened, 1))
        .collect()
}

fn same_kind(a: usize, b: usize) -> bool {
    ModuleId::from_index(a).kind == ModuleId::from_index(b).kind
}
