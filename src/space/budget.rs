//! What a search keeps constant, whatever it moves: the units removed of each kind, as the paper does, or the
//! cost of what is kept, where heads may be traded for neurons.

use serde::{Deserialize, Serialize};

use super::{Candidate, ModuleId, ModuleKind, Shape, Space, SparsityDistribution};

/// What every candidate of a search has to keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// So many units are removed from all attention modules, and so many from all MLPs.
    Units([usize; 2]),
    /// What is kept costs no more than `most`.
    Cost {
        /// Cost of one kept unit, of attention and of the MLP.
        per_unit: [u64; 2],
        /// Of all kept units together, at most.
        most: u64,
    },
}

impl Budget {
    /// The units that a distribution removes.
    pub fn units(distribution: &SparsityDistribution) -> Self {
        Self::Units(ModuleKind::ALL.map(|kind| distribution.total(kind)))
    }

    /// The cost of what a distribution keeps.
    pub fn cost(shape: &Shape, distribution: &SparsityDistribution, per_unit: [u64; 2]) -> Self {
        Self::Cost { per_unit, most: cost(shape, distribution, per_unit) }
    }

    /// Whether a distribution keeps to it.
    pub fn allows(&self, shape: &Shape, distribution: &SparsityDistribution) -> bool {
        match *self {
            Self::Units(removed) => ModuleKind::ALL.map(|kind| distribution.total(kind)) == removed,
            Self::Cost { per_unit, most } => cost(shape, distribution, per_unit) <= most,
        }
    }

    /// Whether a candidate of a space is in it and keeps to the budget.
    pub fn allows_candidate(&self, space: &Space, candidate: &Candidate) -> bool {
        space.contains(candidate) && self.allows(&space.shape, &space.distribution(candidate))
    }

    /// What a candidate leaves of the budget, negative where it takes more; of units there is nothing to leave.
    pub(crate) fn left(&self, space: &Space, candidate: &Candidate) -> i128 {
        match *self {
            Self::Units(_) => 0,
            Self::Cost { per_unit, most } => {
                i128::from(most) - i128::from(cost(&space.shape, &space.distribution(candidate), per_unit))
            }
        }
    }

    /// What one level of a module costs.
    pub(crate) fn of_level(&self, space: &Space, module: usize) -> u64 {
        let kind = ModuleId::from_index(module).kind;
        match *self {
            Self::Units(_) => 0,
            Self::Cost { per_unit, .. } => space.spacing(kind) as u64 * per_unit[kind as usize],
        }
    }
}

/// The cost of what a distribution keeps.
fn cost(shape: &Shape, distribution: &SparsityDistribution, per_unit: [u64; 2]) -> u64 {
    let of = |kind: ModuleKind| {
        let kept = shape.units(kind).units * shape.layers - distribution.total(kind);
        kept as u64 * per_unit[kind as usize]
    };
    ModuleKind::ALL.into_iter().map(of).sum()
}
