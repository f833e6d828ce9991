//! Bounds on what every module keeps, whatever is removed: whole multiples of some units, and never fewer than
//! some.

use super::{ModuleKind, Request, Shape, SparsityDistribution};
use crate::base::{Error, Kind, Result};

/// Bounds on the units that a module keeps, of attention and of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Kept units are multiples of these, at least 1.
    pub multiples: [usize; 2],
    /// Kept units are at least these.
    pub at_least: [usize; 2],
}

impl Bounds {
    /// Any number of units may be kept.
    pub const NONE: Self = Self { multiples: [1, 1], at_least: [0, 0] };

    /// What the number of kept units of a kind is a multiple of.
    pub fn multiple(&self, kind: ModuleKind) -> usize {
        self.multiples[kind as usize]
    }

    /// The fewest and the most units that a module of a kind may lose; those between differ from them by
    /// multiples.
    ///
    /// # Errors
    /// No multiple lies between the bound from below and the units that there are.
    pub fn removable(&self, shape: &Shape, kind: ModuleKind) -> Result<(usize, usize)> {
        let units = shape.units(kind).units;
        let multiple = self.multiple(kind);
        let at_least = self.at_least[kind as usize];
        let most = units / multiple * multiple;
        let fewest = at_least.next_multiple_of(multiple);
        let (module, unit) = words(kind);
        let refused = |what: String, place: &str, most: usize| {
            let hint = format!("set it to at most {most}");
            Err(Error::new(Kind::Spec, what).at(format!("prune.{place}.{}", key(kind))).hint(hint))
        };
        if multiple > units {
            let what =
                format!("an {module} module has {units} {unit}, which is less than the multiple {multiple}");
            return refused(what, "align", units);
        }
        if fewest > most {
            let what =
                format!("an {module} module cannot keep {at_least} {unit}: {most} of its {units} may stay");
            return refused(what, "keep_at_least", most);
        }
        Ok((units - most, units - fewest))
    }

    /// The uniform distribution for a request within these bounds.
    ///
    /// # Errors
    /// As [`super::uniform`], and where the bounds keep more than what is requested leaves.
    pub fn uniform(&self, shape: &Shape, request: Request) -> Result<SparsityDistribution> {
        self.uniform_by_kind(shape, [request; 2])
    }

    /// The same with a request for each kind.
    ///
    /// # Errors
    /// As [`Bounds::uniform`].
    pub fn uniform_by_kind(&self, shape: &Shape, requests: [Request; 2]) -> Result<SparsityDistribution> {
        super::uniform::within(self, shape, requests)
    }
}

/// The key of a kind's units in `prune.align` and `prune.keep_at_least`.
pub(super) fn key(kind: ModuleKind) -> &'static str {
    match kind {
        ModuleKind::Attention => "heads",
        ModuleKind::Mlp => "neurons",
    }
}

/// What a module and its units are called.
pub(super) fn words(kind: ModuleKind) -> (&'static str, &'static str) {
    match kind {
        ModuleKind::Attention => ("attention", "heads or groups"),
        ModuleKind::Mlp => ("mlp", "neurons"),
    }
}
