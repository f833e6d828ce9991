//! What a search keeps constant, whatever it moves: the units removed of each kind, as the paper does, or the
//! cost of what is kept, where heads may be traded for neurons.

use serde::{Deserialize, Serialize};

use super::{Candidate, ModuleId, ModuleKind, Shape, Space, SparsityDistribution};

/// What a module costs by the units that it keeps: linear between knots, and never less for more units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Curve {
    /// Kept units, ascending, and what they cost.
    knots: Vec<(usize, u64)>,
}

impl Curve {
    /// So much for each of a module's units.
    pub fn linear(units: usize, per_unit: u64) -> Self {
        Self { knots: vec![(0, 0), (units, units as u64 * per_unit)] }
    }

    /// Through points of kept units and their cost, in any order; a cost that is less than that of fewer units is
    /// raised to it. A module costs as much as at the nearest point where it keeps fewer or more units than at
    /// any, and nothing without points.
    pub fn through(points: impl IntoIterator<Item = (usize, u64)>) -> Self {
        let mut knots: Vec<(usize, u64)> = points.into_iter().collect();
        knots.sort_unstable();
        knots.dedup_by_key(|(kept, _)| *kept);
        let mut most = 0;
        for (_, cost) in &mut knots {
            most = most.max(*cost);
            *cost = most;
        }
        Self { knots }
    }

    /// What so many kept units cost.
    pub fn of(&self, kept: usize) -> u64 {
        let above = self.knots.partition_point(|(units, _)| *units < kept);
        let (below, above) = (above.checked_sub(1).and_then(|i| self.knots.get(i)), self.knots.get(above));
        match (below, above) {
            (Some(&(fewer, low)), Some(&(more, high))) => {
                let share = u128::from(high - low) * (kept - fewer) as u128 / (more - fewer) as u128;
                low + share as u64
            }
            (Some(&(_, nearest)), None) | (None, Some(&(_, nearest))) => nearest,
            (None, None) => 0,
        }
    }

    /// What all modules of a distribution cost, by the curves of attention and of the MLP.
    pub fn total(curves: &[Self; 2], shape: &Shape, distribution: &SparsityDistribution) -> u64 {
        let of = |i: usize| {
            let module = ModuleId::from_index(i);
            curves[module.kind as usize].of(distribution.kept(shape, module))
        };
        (0..shape.modules()).map(of).sum()
    }
}

/// What every candidate of a search has to keep to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// So many units are removed from all attention modules, and so many from all MLPs.
    Units([usize; 2]),
    /// What is kept costs no more than `most`.
    Cost {
        /// What an attention module costs, and an MLP.
        curves: [Curve; 2],
        /// Of all modules together, at most.
        most: u64,
    },
}

impl Budget {
    /// The units that a distribution removes.
    pub fn units(distribution: &SparsityDistribution) -> Self {
        Self::Units(ModuleKind::ALL.map(|kind| distribution.total(kind)))
    }

    /// The cost of what a distribution keeps.
    pub fn cost(shape: &Shape, distribution: &SparsityDistribution, curves: [Curve; 2]) -> Self {
        let most = Curve::total(&curves, shape, distribution);
        Self::Cost { curves, most }
    }

    /// Whether a distribution keeps to it.
    pub fn allows(&self, shape: &Shape, distribution: &SparsityDistribution) -> bool {
        match self {
            Self::Units(removed) => ModuleKind::ALL.map(|kind| distribution.total(kind)) == *removed,
            Self::Cost { curves, most } => Curve::total(curves, shape, distribution) <= *most,
        }
    }

    /// Whether a candidate of a space is in it and keeps to the budget.
    pub fn allows_candidate(&self, space: &Space, candidate: &Candidate) -> bool {
        space.contains(candidate) && self.allows(&space.shape, &space.distribution(candidate))
    }

    /// What a candidate leaves of the budget, negative where it takes more; of units there is nothing to leave.
    pub(crate) fn left(&self, space: &Space, candidate: &Candidate) -> i128 {
        match self {
            Self::Units(_) => 0,
            Self::Cost { curves, most } => {
                let taken = Curve::total(curves, &space.shape, &space.distribution(candidate));
                i128::from(*most) - i128::from(taken)
            }
        }
    }

    /// What a module costs at one of its levels beyond the sparsest one.
    pub(crate) fn beyond_sparsest(&self, space: &Space, module: usize, level: i32) -> u64 {
        let Self::Cost { curves, .. } = self else { return 0 };
        let id = ModuleId::from_index(module);
        let at = |level: i32| {
            let kept = space.shape.units(id.kind).units - space.removed(id, level);
            curves[id.kind as usize].of(kept)
        };
        at(level) - at(space.range[module].1)
    }
}
