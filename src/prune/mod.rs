//! Local pruning of one module (paper §2.2, Algorithm 1): which units go, in which order, and what the others
//! become.
//!
//! Everything is f64 on Gram matrices; no activation is needed here. One pass removes units up to the largest
//! request and visits every smaller one on its way, so all levels cost one pass and are nested.
//!
//! With d input channels, o outputs, r removed channels, k removed per step and K kept at the smallest level
//! (flops, f64):
//!
//! | part | flops | bytes |
//! |---|---|---|
//! | H⁻¹ by Cholesky | d³ | 16 d², in cache blocks |
//! | rank-k updates of H⁻¹, delayed to panels of 128 columns, lower triangle, live rows only | below d²r | 8 d² per panel |
//! | rank-k updates of B, fused with the saliency that reads it | 2dor | 16 do per step |
//! | refit: one Cholesky in survival order holds that of every level as its leading block | K³/3 + K²o (1 + levels) | 8 K² + 8 Ko per level |
//!
//! Memory beside the problem: two d x d and four d x o matrices of f64, five with the first-order term.

pub mod blend;
mod check;
mod factor;
pub mod gram;
mod obs;
mod refit;
#[cfg(test)]
mod tests;

use faer::Mat;

use crate::base::{Error, Kind, Result};
use crate::spec::{self, DampingMean, Ranking, Saliency};
use factor::{Failure, Moments, System};

/// What a module must do, from the rows X̃ \[tokens, d_in\] that enter it.
#[derive(Debug, Clone)]
pub struct Problem {
    /// X̃ᵀX̃, \[d_in, d_in\], symmetric, without damping.
    pub gram: Mat<f64>,
    /// X̃ᵀY, \[d_in, d_out\], for a target Y; `None` is the layer target Y = X̃B.
    pub correlation: Option<Mat<f64>>,
    /// The dense weight B = Wᵀ, \[d_in, d_out\].
    pub weight: Mat<f64>,
}

/// How to prune.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Units of the module.
    pub units: usize,
    /// Input channels of a unit; `units * width` = d_in.
    pub width: usize,
    /// Units removed between two rankings.
    pub step: usize,
    /// Terms of the saliency (paper Eq. 4).
    pub saliency: Saliency,
    /// Whether units are ranked again after each step.
    pub ranking: Ranking,
    /// What is added to the diagonal of X̃ᵀX̃.
    pub damping: Damping,
}

/// The λ that keeps H = X̃ᵀX̃ + λI well-conditioned: a share of the mean of diag X̃ᵀX̃.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Damping {
    /// The share.
    pub share: f64,
    /// Which mean.
    pub mean: DampingMean,
}

impl From<&spec::Prune> for Damping {
    fn from(prune: &spec::Prune) -> Self {
        Self { share: prune.damping, mean: prune.damping_mean }
    }
}

/// One module at every requested level.
#[derive(Debug, Clone)]
pub struct Pruned {
    /// All units in order of survival: those never removed (ascending), then the removed ones, the last
    /// removed first. The units kept when r are removed are `order[..units - r]`.
    pub order: Vec<u32>,
    /// One level per request, in the order asked.
    pub levels: Vec<Level>,
    /// Saliency of every unit on the dense weights.
    pub saliency: Vec<f64>,
    /// The λ share that was used: the rule's, unless H was singular with it.
    pub damping: f64,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// One module with some units removed.
#[derive(Debug, Clone)]
pub struct Level {
    /// Units removed.
    pub removed: usize,
    /// \[d_out, kept units * width\], the columns in order of survival, unit by unit.
    pub weight: Mat<f32>,
    /// ½‖Y − X̃B̂‖² − ½‖Y − X̃B‖², summed over tokens: how much the squared error grew over the dense
    /// weight's. For the layer target that is ½‖X̃B − X̃B̂‖², and rounding below zero is zero; for another
    /// target it is negative where the refit beats the dense weight.
    pub loss: f64,
}

impl Level {
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

/// Prunes one module to every count in `removed` (ascending units, 0 and all included).
///
/// The weights of a level are the ridge solution towards the dense weight, B̂_K = H_KK⁻¹ G_K with H = X̃ᵀX̃ +
/// λI and G = X̃ᵀY + λB. With the layer target, the level that removes nothing is B itself. Channels that are
/// always zero (zero diagonal of X̃ᵀX̃) are dead: units made of them go first, and their weights become zero.
/// Ties go to the lower unit. When H is numerically singular, λ grows tenfold, six times at most, and `notes`
/// says so.
///
/// # Errors
/// [`Kind::Spec`] when no saliency term is on, [`Kind::Numeric`] when an input is not finite, when no token
/// was seen or when no damping saves the factorisation, [`Kind::Internal`] when shapes or counts do not fit.
pub fn prune(problem: &Problem, rule: &Rule, removed: &[usize]) -> Result<Pruned> {
    check::inputs(problem, rule, removed)?;
    let moments = Moments::new(problem, rule.damping.mean)?;
    let mut notes = Vec::new();
    for share in factor::shares(rule.damping.share) {
        match attempt(&System::new(problem, &moments, share), rule, removed) {
            Ok(pruned) => return Ok(Pruned { damping: share, notes, ..pruned }),
            Err(Failure::Fatal(error)) => return Err(error),
            Err(Failure::Singular) => {
                notes.push(format!("the Gram matrix is singular with a damping of {share:e}: it is raised"))
            }
        }
    }
    Err(Error::new(Kind::Numeric, "the Gram matrix stays singular whatever the damping")
        .hint("calibrate on more tokens"))
}

fn attempt(system: &System, rule: &Rule, removed: &[usize]) -> Result<Pruned, Failure> {
    let (gone, saliency) = obs::removal(system, rule, removed)?;
    let order = survival(rule.units, &gone);
    let levels = refit::levels(system, rule, &order, removed)?;
    Ok(Pruned { order, levels, saliency, damping: rule.damping.share, notes: Vec::new() })
}

/// Units never removed, then `gone` from the last to the first.
fn survival(units: usize, gone: &[u32]) -> Vec<u32> {
    let mut kept = vec![true; units];
    gone.iter().for_each(|&unit| kept[unit as usize] = false);
    (0..units as u32).filter(|&unit| kept[unit as usize]).chain(gone.iter().rev().copied()).collect()
}
