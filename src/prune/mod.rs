//! Local pruning of one module (paper §2.2): which units are removed, in which order, and the weights of the
//! others.
//!
//! A [`Method`] is one way to do it, in a file or folder of its own: it says what it must know of a module's
//! inputs ([`Needs`]), prunes a module to all requested counts of units in one pass, and says what that
//! costs. [`method`] gives the one that a spec names. To add one: a variant of `spec::Method` with the keys
//! that it reads, a file here, an arm of [`method`].
//!
//! | method | file | units ranked by | statistics of the inputs |
//! |---|---|---|---|
//! | `obs` | [`obs`] | loss of their removal, the rest refitted | Gram matrix, correlation with the target |
//! | `magnitude` | [`magnitude`] | the norm of the weights that they own | none |
//!
//! `obs` is the paper's method: Optimal Brain Surgeon on Gram matrices.

mod check;
pub mod collect;
pub mod cost;
pub mod gram;
pub mod magnitude;
pub mod moments;
pub mod obs;
mod rounds;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::sync::Arc;

use faer::Mat;

use crate::base::{Error, Kind, Result};
use crate::space::ModuleKind;
use crate::spec::{self, Target};
use collect::Collected;
use cost::{Cost, Size};

/// One way to prune a module.
pub trait Method: Debug + Send + Sync {
    /// What it must know of a module.
    fn needs(&self) -> Needs;

    /// Prunes a module to every count in `removed` (ascending units, 0 and all included).
    ///
    /// Levels are nested: the units kept at one are among those kept at every denser one. A method that needs
    /// no target beyond the layer's own output ([`Needs::refits_dense`]) gives the dense weight back, without
    /// a bias, where nothing is removed.
    ///
    /// # Errors
    /// [`Kind::Numeric`] when numbers are not finite, [`Kind::Internal`] when shapes or counts do not fit or
    /// a statistic that it needs is not there.
    fn prune(&self, module: Module, removed: &[usize]) -> Result<PrunedModule>;

    /// What [`Method::prune`] costs a module of a size.
    fn cost(&self, size: &Size) -> Cost;
}

/// The method that a spec names, with its settings.
pub fn method(prune: &spec::Prune) -> Arc<dyn Method> {
    match prune.method {
        spec::Method::Obs => Arc::new(obs::Obs::from(prune)),
        spec::Method::Magnitude => Arc::new(magnitude::Magnitude),
    }
}

/// What a method must know of a module beside its weight; what it does not ask for is not collected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Second moments of the inputs.
    pub gram: Option<Gram>,
    /// Mean and variance of every input channel.
    pub moments: bool,
    /// Squared norms of the rows that units own in the matrices before the module: q, k and v, or gate and
    /// up.
    pub rows: bool,
}

/// The Gram matrix X̃ᵀX̃ of a module's inputs, and what is collected with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gram {
    /// With a target Y other than the layer's own output, the correlation X̃ᵀY.
    pub target: Target,
    /// Whether the sums are wanted for each half of the calibration text.
    pub halves: bool,
}

impl Needs {
    /// Whether anything is to be collected from calibration text.
    pub fn text(&self) -> bool {
        self.gram.is_some() || self.moments
    }

    /// Whether weights are fitted to another target than the layer's own output: the dense model's hidden
    /// states are needed then, and the level that removes nothing is not the dense weight.
    pub fn refits_dense(&self) -> bool {
        self.gram.is_some_and(|gram| gram.target != Target::Layer)
    }
}

/// Units of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Units {
    /// How many.
    pub count: usize,
    /// Input channels of one; `count * width` = d_in.
    pub width: usize,
}

impl Units {
    /// Input channels of the module.
    pub fn channels(&self) -> usize {
        self.count * self.width
    }
}

/// A module to be pruned.
#[derive(Debug, Clone)]
pub struct Module {
    /// Attention or MLP.
    pub kind: ModuleKind,
    /// Its units.
    pub units: Units,
    /// Groups of neighbouring units, equal in size, that have to lose equally many at every level; 1 where any
    /// units may go.
    pub groups: usize,
    /// The dense weight B = Wᵀ, \[d_in, d_out\].
    pub weight: Mat<f64>,
    /// For each unit, what the method's [`Needs::rows`] asks for; empty unless it does.
    pub rows: Vec<f64>,
    /// What was collected of its inputs.
    pub collected: Collected,
}

/// One module at every requested level.
#[derive(Debug, Clone)]
pub struct PrunedModule {
    /// All units in keep order: those never removed (ascending), then the removed ones, the last removed
    /// first. The units kept when r are removed are `keep_order[..units - r]`.
    pub keep_order: Vec<u32>,
    /// One level per request, in the order of the requests.
    pub levels: Vec<PrunedLevel>,
    /// Saliency of every unit on the dense weights.
    pub saliency: Vec<f64>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// One module with some units removed.
#[derive(Debug, Clone)]
pub struct PrunedLevel {
    /// Units removed.
    pub removed: usize,
    /// \[d_out, kept units * width\], the columns in keep order, unit by unit.
    pub weight: Mat<f32>,
    /// \[d_out\], what is added to the module's output beside its own bias.
    pub bias: Option<Vec<f32>>,
    /// ½‖Y − X̃B̂‖² − ½‖Y − X̃B‖², summed over tokens: how much the squared error grew over the dense
    /// weight's. For the layer target that is ½‖X̃B − X̃B̂‖², and rounding below zero is zero; for another
    /// target it is negative where the refit beats the dense weight. `None` from a method that does not know.
    pub loss: Option<f64>,
}

impl PrunedLevel {
    /// The weight as rows, \[d_out, kept channels\], as checkpoints store it.
    pub fn row_major(&self) -> Vec<f32> {
        let rows = self.weight.nrows();
        let columns = self.weight.ncols();
        (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))).map(|at| self.weight[at]).collect()
    }
}

/// Reads a checkpoint's weight W \[d_out, d_in\], stored by rows, as B = Wᵀ \[d_in, d_out\].
pub fn transposed(weight: &[f32], d_out: usize, d_in: usize) -> Result<Mat<f64>> {
    if weight.len() != d_out * d_in {
        return Err(Error::new(
            Kind::Internal,
            format!("a weight of {d_out} x {d_in} has {} values", weight.len()),
        ));
    }
    Ok(Mat::from_fn(d_in, d_out, |i, j| f64::from(weight[j * d_in + i])))
}

/// Units never removed, ascending, then `removed_units` from the last to the first.
fn keep_order(units: usize, removed_units: &[u32]) -> Vec<u32> {
    let mut kept = vec![true; units];
    removed_units.iter().for_each(|&unit| kept[unit as usize] = false);
    (0..units as u32).filter(|&unit| kept[unit as usize]).chain(removed_units.iter().rev().copied()).collect()
}

/// The input channels of `units`, unit by unit.
fn channels(units: &[u32], width: usize) -> Vec<usize> {
    units.iter().flat_map(|&unit| (0..width).map(move |c| unit as usize * width + c)).collect()
}
