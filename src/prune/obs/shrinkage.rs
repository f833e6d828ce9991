//! Split-half shrinkage of a reconstruction target towards the layer's own output: Y = X̃B + E·diag(b), with
//! a coefficient b for every output channel.
//!
//! E is the part of the target beyond X̃B (for the residual target, the error that the residual stream
//! carries so far). The inputs predict little of E, so that few calibration tokens fit its noise. Two halves
//! of the calibration text show how much of the fit is signal: with Δᵢ = Hᵢ⁻¹X̃ᵢᵀEᵢ, the weights that half i
//! would add, the coefficient of a column δ₁ of Δ₁ that minimises the error on half 2 is δ₁ᵀX̃₂ᵀe₂ /
//! δ₁ᵀX̃₂ᵀX̃₂δ₁, and likewise with the halves exchanged. That is s/(s + ν) for a signal s and a noise ν; the
//! noise halves when both halves are fitted, so b = 2h/(1 + h) of the coefficient h that both halves agree
//! on. Channels have coefficients of their own because a few carry massive activations, a thousand times the
//! others'.
//!
//! Operations of [`agreed`] for d inputs and o outputs: 12 d²o + 2d³/3, in f64; [`interpolated`] takes 2 d²o
//! more.

use faer::linalg::matmul::matmul;
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Accum, Mat, MatRef, Par};

use super::Damping;
use super::factor::{self, Failure, cholesky};
use crate::base::{Error, Kind, Result};
use crate::prune::gram::Sums;

/// The shrinkage coefficient of E when both halves are fitted, 0 to 1, for each output channel; `None` when a
/// half has no row or no correlation. `weight` is B \[d_in, d_out\].
///
/// # Errors
/// [`Kind::Numeric`] when a half's Gram matrix stays singular whatever the damping.
pub fn agreed(halves: [&Sums; 2], weight: &Mat<f64>, damping: Damping) -> Result<Option<Vec<f64>>> {
    let [Some(first), Some(second)] = halves.map(|half| Half::new(half, weight)) else { return Ok(None) };
    let a = first.added(damping)?;
    let b = second.added(damping)?;
    let on_second = second.evaluate(a.as_ref());
    let on_first = first.evaluate(b.as_ref());
    Ok(Some(on_second.into_iter().zip(on_first).map(|(p, q)| coefficient(p.0 + q.0, p.1 + q.1)).collect()))
}

fn coefficient(agreement: f64, power: f64) -> f64 {
    // Without a difference between the targets there is nothing to shrink.
    let half = if power > 0.0 { (agreement / power).clamp(0.0, 1.0) } else { 1.0 };
    2.0 * half / (1.0 + half)
}

/// X̃ᵀY of Y = X̃B + E·diag(b) from the sums for b = 1.
pub fn interpolated(sums: &Sums, weight: &Mat<f64>, coefficients: &[f64]) -> Option<Mat<f64>> {
    let mut interpolated = sums.correlation.clone()?;
    if coefficients.iter().all(|&coefficient| coefficient == 1.0) {
        return Some(interpolated);
    }
    let mut layer = Mat::zeros(interpolated.nrows(), interpolated.ncols());
    matmul(layer.as_mut(), Accum::Replace, sums.gram.as_ref(), weight.as_ref(), 1.0, Par::rayon(0));
    for ((to, layer), coefficient) in interpolated.col_iter_mut().zip(layer.col_iter()).zip(coefficients) {
        to.iter_mut()
            .zip(layer.iter())
            .for_each(|(to, layer)| *to = coefficient * *to + (1.0 - coefficient) * layer);
    }
    Some(interpolated)
}

/// One half of the text.
struct Half<'a> {
    gram: &'a Mat<f64>,
    /// X̃ᵀE.
    extra: Mat<f64>,
}

impl<'a> Half<'a> {
    fn new(sums: &'a Sums, weight: &Mat<f64>) -> Option<Self> {
        let mut extra = sums.correlation.clone().filter(|_| sums.rows > 0)?;
        matmul(extra.as_mut(), Accum::Add, sums.gram.as_ref(), weight.as_ref(), -1.0, Par::rayon(0));
        Some(Self { gram: &sums.gram, extra })
    }

    /// Δ = (X̃ᵀX̃ + λI)⁻¹X̃ᵀE, \[d_in, d_out\].
    fn added(&self, damping: Damping) -> Result<Mat<f64>> {
        let d_in = self.gram.nrows();
        let mean = factor::diagonal_mean(self.gram, damping.mean);
        for coefficient in factor::coefficients(damping.coefficient) {
            let mut lower = self.gram.clone();
            (0..d_in).for_each(|p| lower[(p, p)] += coefficient * mean);
            match cholesky(lower.as_mut(), Par::rayon(0)) {
                Ok(()) => return Ok(solved(lower.as_ref(), &self.extra)),
                Err(Failure::Singular) => {}
                Err(Failure::Fatal(error)) => return Err(error),
            }
        }
        Err(Error::new(Kind::Numeric, "the Gram matrix of half the text stays singular whatever the damping")
            .hint("calibrate on more tokens, or set prune.target_shrinkage = \"none\""))
    }

    /// δᵀX̃ᵀe and δᵀX̃ᵀX̃δ for each column δ of the other half's Δ.
    fn evaluate(&self, added: MatRef<f64>) -> Vec<(f64, f64)> {
        let mut output = Mat::zeros(added.nrows(), added.ncols());
        matmul(output.as_mut(), Accum::Replace, self.gram.as_ref(), added, 1.0, Par::rayon(0));
        let columns = added.col_iter().zip(self.extra.col_iter()).zip(output.col_iter());
        columns
            .map(|((added, extra), output)| (added.transpose() * extra, added.transpose() * output))
            .collect()
    }
}

fn solved(lower: MatRef<f64>, right: &Mat<f64>) -> Mat<f64> {
    let mut solution = right.clone();
    solve_lower_triangular_in_place(lower, solution.as_mut(), Par::rayon(0));
    solve_upper_triangular_in_place(lower.transpose(), solution.as_mut(), Par::rayon(0));
    solution
}
