//! The uniform distribution that the first iteration starts from: the same fraction of every module, in whole
//! units, or multiples of them.

use super::bounds::{key, words};
use super::{Bounds, ModuleId, ModuleKind, Shape, SparsityDistribution};
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

impl Request {
    /// The fraction.
    pub fn fraction(self) -> f64 {
        match self {
            Request::Total(fraction) | Request::PerLayer(fraction) => fraction,
        }
    }
}

/// The uniform distribution for a request, without bounds on what modules keep.
///
/// # Errors
/// The fraction is not within [0, 1] (a basis of total parameters can ask for more than is prunable), or
/// rounds to nothing although something was asked.
pub fn uniform(shape: &Shape, request: Request) -> Result<SparsityDistribution> {
    Bounds::NONE.uniform(shape, request)
}

/// The same within bounds, with a request for each kind: where bounds are multiples, one of them takes the place of
/// one unit.
pub(super) fn within(bounds: &Bounds, shape: &Shape, requests: [Request; 2]) -> Result<SparsityDistribution> {
    let most = requests.map(Request::fraction).into_iter().fold(0.0, f64::max);
    if let Some(fraction) = requests.map(Request::fraction).into_iter().find(|f| !(0.0..=1.0).contains(f)) {
        return Err(Error::new(
            Kind::Search,
            format!("a fraction {fraction:.4} of the prunable parameters cannot be removed"),
        )
        .hint("lower sparsity.target, or set sparsity.basis = \"prunable\""));
    }
    let [attention, mlp] =
        ModuleKind::ALL.map(|kind| per_layer(bounds, shape, requests[kind as usize], kind));
    let per_kind = [attention?, mlp?];
    let removed = (0..shape.modules()).map(|i| per_kind[i % 2][ModuleId::from_index(i).layer]).collect();
    let distribution = SparsityDistribution { removed };
    if most > 0.0 && distribution.parameters(shape) == 0 {
        return Err(Error::new(Kind::Search, too_little(most, bounds)).hint("raise sparsity.target"));
    }
    Ok(distribution)
}

fn too_little(fraction: f64, bounds: &Bounds) -> String {
    match bounds.multiples {
        [1, 1] => format!("a fraction {fraction:.4} is less than one unit of any kind"),
        [heads, neurons] => format!(
            "a fraction {fraction:.4} rounds to nothing in multiples of {heads} heads and {neurons} neurons"
        ),
    }
}

/// Units of a kind removed in each layer.
fn per_layer(bounds: &Bounds, shape: &Shape, request: Request, kind: ModuleKind) -> Result<Vec<usize>> {
    let (fewest, most) = bounds.removable(shape, kind)?;
    let multiple = bounds.multiple(kind);
    let units = shape.units(kind).units;
    // Multiples beyond what has to go, over some layers.
    let rounded = |fraction: f64, layers: usize| {
        let beyond = fraction * (units * layers) as f64 - (fewest * layers) as f64;
        (beyond / multiple as f64).round_ties_even().max(0.0) as usize
    };
    let multiples = match request {
        Request::PerLayer(fraction) => vec![rounded(fraction, 1); shape.layers],
        Request::Total(fraction) => spread(rounded(fraction, shape.layers), shape.layers),
    };
    let removed: Vec<usize> = multiples.into_iter().map(|count| fewest + multiple * count).collect();
    match removed.iter().max() {
        Some(&asked) if asked > most => Err(too_much(units, asked, most, kind)),
        _ => Ok(removed),
    }
}

/// More is to go than may.
fn too_much(units: usize, asked: usize, most: usize, kind: ModuleKind) -> Error {
    let (module, unit) = words(kind);
    let kept = units - most;
    let what = format!(
        "{asked} of the {units} {unit} of an {module} module would have to go, but {kept} have to stay"
    );
    let place = format!("prune.keep_at_least.{}", key(kind));
    Error::new(Kind::Spec, what).at(place).hint("lower it, or sparsity.target")
}

/// `total` over `layers` as evenly as whole numbers allow, the larger ones spaced out.
fn spread(total: usize, layers: usize) -> Vec<usize> {
    (0..layers).map(|l| total * (l + 1) / layers - total * l / layers).collect()
}
