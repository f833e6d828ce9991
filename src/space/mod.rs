//! The search space as data: units, levels, candidates, legal flips, budget arithmetic. Pure: no tensor, no
//! file, no clock.
//!
//! A model of L layers has 2L modules; a module loses whole units (heads or neurons). A *distribution* says
//! how many units each module loses. A *space* offers every module a few levels around a distribution, with
//! the same *spacing* in units between neighbouring levels for all modules of a kind; so one level down in
//! one module and one level up in another of its kind (a *flip*) keep the total exactly.

mod bounds;
mod budget;
mod flips;
mod uniform;

pub use bounds::Bounds;
pub use budget::{Budget, Curve};
pub use flips::{Flip, legal_flips};
pub use uniform::{Request, uniform};

use serde::{Deserialize, Serialize};

use crate::base::{Error, Kind, Result};

/// The two prunable modules of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleKind {
    /// `o_proj`, whose units are heads (or key/value groups).
    Attention,
    /// `down_proj`, whose units are neurons.
    Mlp,
}

impl ModuleKind {
    /// Both kinds, in the order in which a layer runs them.
    pub const ALL: [ModuleKind; 2] = [ModuleKind::Attention, ModuleKind::Mlp];
}

/// A module by its place: layers in order, attention before MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModuleId {
    /// Layer, from 0.
    pub layer: usize,
    /// Which of the layer's two modules.
    pub kind: ModuleKind,
}

impl ModuleId {
    /// The module at `index` in candidate vectors.
    pub fn from_index(index: usize) -> Self {
        Self { layer: index / 2, kind: ModuleKind::ALL[index % 2] }
    }

    /// Its index in candidate vectors.
    pub fn index(self) -> usize {
        self.layer * 2 + self.kind as usize
    }
}

impl std::fmt::Display for ModuleId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            ModuleKind::Attention => "attention",
            ModuleKind::Mlp => "mlp",
        };
        write!(f, "layer {} {kind}", self.layer)
    }
}

/// What the modules of one kind are made of; the same in every layer of the dense model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitSpec {
    /// Units of one module.
    pub units: usize,
    /// Input channels of the module's weight per unit (head width, width of a whole group, or 1).
    pub width: usize,
    /// Parameters that are removed with one unit.
    pub parameters: usize,
}

/// The prunable part of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Number of layers.
    pub layers: usize,
    /// Attention units.
    pub attention: UnitSpec,
    /// MLP units.
    pub mlp: UnitSpec,
}

impl Shape {
    /// Modules: two per layer.
    pub fn modules(&self) -> usize {
        self.layers * 2
    }

    /// The units of a kind.
    pub fn units(&self, kind: ModuleKind) -> UnitSpec {
        match kind {
            ModuleKind::Attention => self.attention,
            ModuleKind::Mlp => self.mlp,
        }
    }

    /// Parameters that can be removed: those of all units of all modules.
    pub fn prunable(&self) -> usize {
        ModuleKind::ALL.iter().map(|&k| self.units(k).units * self.units(k).parameters).sum::<usize>()
            * self.layers
    }
}

/// Removed units of every module, in module order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SparsityDistribution {
    /// Units removed, one entry per module.
    pub removed: Vec<usize>,
}

impl SparsityDistribution {
    /// Nothing removed anywhere.
    pub fn dense(shape: &Shape) -> Self {
        Self { removed: vec![0; shape.modules()] }
    }

    /// Units that a module keeps.
    pub fn kept(&self, shape: &Shape, module: ModuleId) -> usize {
        shape.units(module.kind).units - self.removed[module.index()]
    }

    /// Units removed from all modules of a kind.
    pub fn total(&self, kind: ModuleKind) -> usize {
        self.removed.iter().skip(kind as usize).step_by(2).sum()
    }

    /// Parameters removed with the units.
    pub fn parameters(&self, shape: &Shape) -> usize {
        ModuleKind::ALL.iter().map(|&k| self.total(k) * shape.units(k).parameters).sum()
    }

    /// Removed fraction of the prunable parameters.
    pub fn sparsity(&self, shape: &Shape) -> f64 {
        self.parameters(shape) as f64 / shape.prunable() as f64
    }

    /// Population variance of the modules' own sparsities.
    pub fn variance(&self, shape: &Shape) -> f64 {
        let sparsities: Vec<f64> = self.sparsities(shape).collect();
        let mean = sparsities.iter().sum::<f64>() / sparsities.len() as f64;
        sparsities.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / sparsities.len() as f64
    }

    /// Each module's own sparsity.
    pub fn sparsities<'a>(&'a self, shape: &'a Shape) -> impl Iterator<Item = f64> + 'a {
        self.removed
            .iter()
            .enumerate()
            .map(|(i, &r)| r as f64 / shape.units(ModuleId::from_index(i).kind).units as f64)
    }
}

/// One level of every module, counted from the space's centre: the integer vector that the search evolves.
pub type Candidate = Vec<i32>;

/// Levels around a distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// What is being pruned.
    pub shape: Shape,
    /// The distribution in the middle.
    pub centre: SparsityDistribution,
    /// Units between neighbouring levels: attention, MLP.
    pub spacings: [usize; 2],
    /// Lowest and highest level of every module.
    pub range: Vec<(i32, i32)>,
}

impl Space {
    /// At most `levels` levels per module around `centre`; those below nothing or above everything removed
    /// are left out.
    ///
    /// # Errors
    /// `levels` is even or zero, a spacing is zero, or the centre does not fit the shape.
    pub fn around(
        shape: Shape,
        centre: SparsityDistribution,
        spacings: [usize; 2],
        levels: usize,
    ) -> Result<Self> {
        if levels.is_multiple_of(2) || spacings.contains(&0) {
            return Err(Error::new(
                Kind::Search,
                format!("{levels} levels with steps {spacings:?} do not form a search space"),
            )
            .hint("use an odd number of levels and spacings of at least one unit"));
        }
        if centre.removed.len() != shape.modules() {
            return Err(Error::new(
                Kind::Search,
                format!(
                    "a distribution over {} modules does not fit {} modules",
                    centre.removed.len(),
                    shape.modules()
                ),
            ));
        }
        let range = (0..shape.modules())
            .map(|i| level_range(&shape, &centre, spacings, levels, ModuleId::from_index(i)))
            .collect::<Result<_>>()?;
        Ok(Self { shape, centre, spacings, range })
    }

    /// The same space with those levels alone that keep to bounds.
    ///
    /// # Errors
    /// The centre or the spacing of levels does not keep to them.
    pub fn within(mut self, bounds: &Bounds) -> Result<Self> {
        for kind in ModuleKind::ALL {
            let (fewest, most) = bounds.removable(&self.shape, kind)?;
            for module in (0..self.shape.layers).map(|layer| ModuleId { layer, kind }) {
                self.restrict(module, fewest, most, bounds.multiple(kind))?;
            }
        }
        Ok(self)
    }

    /// Leaves out levels at which a module loses fewer than `fewest` or more than `most` units.
    fn restrict(&mut self, module: ModuleId, fewest: usize, most: usize, multiple: usize) -> Result<()> {
        let removed = self.centre.removed[module.index()];
        let spacing = self.spacing(module.kind);
        let several = self.levels(module).count() > 1;
        let aligned = removed >= fewest && (removed - fewest).is_multiple_of(multiple);
        if !aligned || removed > most || (several && !spacing.is_multiple_of(multiple)) {
            let what = format!(
                "{module} loses {removed} units in steps of {spacing}, where {fewest} to {most} in steps of \
                 {multiple} are within bounds"
            );
            return Err(Error::new(Kind::Search, what));
        }
        let (low, high) = &mut self.range[module.index()];
        *low = (*low).max(-(((removed - fewest) / spacing) as i32));
        *high = (*high).min(((most - removed) / spacing) as i32);
        Ok(())
    }

    /// Units between levels of a kind.
    pub fn spacing(&self, kind: ModuleKind) -> usize {
        self.spacings[kind as usize]
    }

    /// The centre as a candidate.
    pub fn start(&self) -> Candidate {
        vec![0; self.shape.modules()]
    }

    /// Units that `module` loses at `level`.
    pub fn removed(&self, module: ModuleId, level: i32) -> usize {
        let units =
            self.centre.removed[module.index()] as i64 + level as i64 * self.spacing(module.kind) as i64;
        debug_assert!((0..=self.shape.units(module.kind).units as i64).contains(&units));
        units as usize
    }

    /// All levels of a module, ascending.
    pub fn levels(&self, module: ModuleId) -> std::ops::RangeInclusive<i32> {
        let (low, high) = self.range[module.index()];
        low..=high
    }

    /// A candidate's distribution.
    pub fn distribution(&self, candidate: &Candidate) -> SparsityDistribution {
        SparsityDistribution {
            removed: candidate
                .iter()
                .enumerate()
                .map(|(i, &level)| self.removed(ModuleId::from_index(i), level))
                .collect(),
        }
    }

    /// Whether every module's level exists.
    pub fn contains(&self, candidate: &Candidate) -> bool {
        candidate.len() == self.range.len()
            && candidate.iter().zip(&self.range).all(|(l, (low, high))| low <= l && l <= high)
    }

    /// Candidates that keep the totals, as a decimal logarithm (an upper bound: totals are not enforced).
    pub fn log10_size(&self) -> f64 {
        self.range.iter().map(|(low, high)| ((high - low + 1) as f64).log10()).sum()
    }
}

fn level_range(
    shape: &Shape,
    centre: &SparsityDistribution,
    spacings: [usize; 2],
    levels: usize,
    module: ModuleId,
) -> Result<(i32, i32)> {
    let units = shape.units(module.kind).units;
    let removed = centre.removed[module.index()];
    let spacing = spacings[module.kind as usize];
    if removed > units {
        return Err(Error::new(Kind::Search, format!("{module} cannot lose {removed} of {units} units")));
    }
    let half = levels / 2;
    Ok((-(half.min(removed / spacing) as i32), half.min((units - removed) / spacing) as i32))
}

#[cfg(test)]
mod tests;
