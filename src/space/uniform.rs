//! The uniform distribution that the first iteration starts from: the same fraction of every module, in whole
//! units.

use super::{ModuleId, ModuleKind, Shape, SparsityDistribution};
use crate::base::{Error, Kind, Result};

/// The fraction of units to remove, and how to round it to whole units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Request {
    /// This fraction of the units; the total over the layers is right to one unit, and layers differ by at
    /// most one.
    Total(f64),
    /// The same number of units in each layer, rounded to nearest, half to even.
    PerLayer(f64),
}

/// The uniform distribution for a request.
///
/// # Errors
/// The fraction is not within [0, 1] (a basis of total parameters can ask for more than is prunable), or
/// rounds to nothing although something was asked.
pub fn uniform(shape: &Shape, request: Request) -> Result<SparsityDistribution> {
    let fraction = match request {
        Request::Total(s) | Request::PerLayer(s) => s,
    };
    if !(0.0..=1.0).contains(&fraction) {
        return Err(Error::new(
            Kind::Search,
            format!("a fraction {fraction:.4} of the prunable parameters cannot be removed"),
        )
        .hint("lower sparsity.target, or set sparsity.basis = \"prunable\""));
    }
    let per_kind = ModuleKind::ALL.map(|kind| per_layer(shape, request, shape.units(kind).units));
    let removed = (0..shape.modules()).map(|i| per_kind[i % 2][ModuleId::from_index(i).layer]).collect();
    let distribution = SparsityDistribution { removed };
    if fraction > 0.0 && distribution.parameters(shape) == 0 {
        return Err(Error::new(
            Kind::Search,
            format!("a fraction {fraction:.4} is less than one unit of any kind"),
        )
        .hint("raise sparsity.target"));
    }
    Ok(distribution)
}

/// Units removed in each layer of a kind with `units` units a layer.
fn per_layer(shape: &Shape, request: Request, units: usize) -> Vec<usize> {
    match request {
        Request::PerLayer(fraction) => {
            vec![(fraction * units as f64).round_ties_even() as usize; shape.layers]
        }
        Request::Total(fraction) => {
            spread((fraction * (units * shape.layers) as f64).round_ties_even() as usize, shape.layers)
        }
    }
}

/// `total` over `layers` as evenly as whole numbers allow, the larger ones spaced out.
fn spread(total: usize, layers: usize) -> Vec<usize> {
    (0..layers).map(|l| total * (l + 1) / layers - total * l / layers).collect()
}
