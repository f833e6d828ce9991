//! The damped system H B̂ = G of one module, and Cholesky factors that refuse to divide by rounding noise.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{BlockStructure, matmul as triangular_matmul};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Accum, Mat, MatMut, MatRef, Par};

use super::{Problem, Units};
use crate::base::{Error, Kind, Result};
use crate::space::ModuleKind;
use crate::spec::DampingMean;

/// Why one damping failed.
pub(super) enum Failure {
    /// A pivot is not above rounding: more damping may help.
    Singular,
    /// Nothing helps.
    Fatal(Error),
}

/// How often λ may be raised.
const RAISES: i32 = 6;
/// The first coefficient that is tried after a damping of zero fails.
const FIRST_COEFFICIENT: f64 = 1e-6;

/// The damping, then six larger ones, each ten times the one before.
pub(super) fn coefficients(damping: f64) -> impl Iterator<Item = f64> {
    let raised = move |n: i32| {
        if damping > 0.0 { damping * 10f64.powi(n) } else { FIRST_COEFFICIENT * 10f64.powi(n - 1) }
    };
    std::iter::once(damping).chain((1..=RAISES).map(raised))
}

/// What no damping changes. Channels of the matrices are columns: \[d_out, d_in\].
pub(super) struct Undamped {
    /// Whether a channel was zero for every token.
    pub dead: Vec<bool>,
    /// The wanted mean of diag X̃ᵀX̃.
    pub mean: f64,
    /// Bᵀ with zeros for dead channels.
    pub weight: Mat<f64>,
    /// (X̃ᵀY)ᵀ with zeros for dead channels.
    pub target: Mat<f64>,
    /// tr BᵀX̃ᵀX̃B.
    pub energy: f64,
}

impl Undamped {
    pub(crate) fn new(problem: &Problem, mean: DampingMean) -> Result<Self> {
        let d_in = problem.weight.nrows();
        let d_out = problem.weight.ncols();
        let dead: Vec<bool> = (0..d_in).map(|p| problem.gram[(p, p)] == 0.0).collect();
        let mean = diagonal_mean(&problem.gram, mean);
        let live =
            |matrix: &Mat<f64>| Mat::from_fn(d_out, d_in, |i, j| if dead[j] { 0.0 } else { matrix[(j, i)] });
        let weight = live(&problem.weight);
        let mut output = Mat::zeros(d_out, d_in);
        matmul(output.as_mut(), Accum::Replace, weight.as_ref(), problem.gram.as_ref(), 1.0, Par::rayon(0));
        let energy = inner(weight.as_ref(), output.as_ref());
        if !energy.is_finite() {
            return Err(Error::new(Kind::Numeric, "the module's output overflows")
                .hint("look for huge values in the checkpoint"));
        }
        let target = problem.correlation.as_ref().map(live).unwrap_or(output);
        Ok(Self { dead, mean, weight, target, energy })
    }
}

/// A mean of the diagonal of a Gram matrix; 1 when the diagonal is zero.
pub(super) fn diagonal_mean(gram: &Mat<f64>, mean: DampingMean) -> f64 {
    let diagonal = || (0..gram.nrows()).map(|p| gram[(p, p)]);
    let live: Vec<f64> = diagonal().filter(|&value| value > 0.0).map(f64::ln).collect();
    match mean {
        _ if live.is_empty() => 1.0,
        DampingMean::Arithmetic => diagonal().sum::<f64>() / gram.nrows() as f64,
        DampingMean::Geometric => (live.iter().sum::<f64>() / live.len() as f64).exp(),
    }
}

/// Σ aᵢⱼ bᵢⱼ, column by column.
pub(super) fn inner(a: MatRef<f64>, b: MatRef<f64>) -> f64 {
    a.col_iter().zip(b.col_iter()).map(|(x, y)| x.transpose() * y).sum()
}

/// H = X̃ᵀX̃ + λI and G = X̃ᵀY + λB for one λ. A dead channel is uncoupled: its row of H is a multiple of the
/// identity's, its row of G zero.
pub(super) struct System<'a> {
    problem: &'a Problem,
    pub undamped: &'a Undamped,
    /// λ itself, not the coefficient.
    pub lambda: f64,
    /// Gᵀ, \[d_out, d_in\].
    pub gradient: Mat<f64>,
}

impl<'a> System<'a> {
    pub(crate) fn new(problem: &'a Problem, undamped: &'a Undamped, coefficient: f64) -> Self {
        let lambda = coefficient * undamped.mean;
        let gradient = &undamped.target + faer::Scale(lambda) * &undamped.weight;
        Self { problem, undamped, lambda, gradient }
    }

    /// The module's units.
    pub(crate) fn units(&self) -> Units {
        self.problem.units
    }

    /// Groups of units that lose equally many.
    pub(crate) fn groups(&self) -> usize {
        self.problem.groups
    }

    /// Attention or MLP.
    pub(crate) fn kind(&self) -> ModuleKind {
        self.problem.kind
    }

    /// Whether G = HB, so that the dense weight is the solution.
    pub(crate) fn is_layer(&self) -> bool {
        self.problem.correlation.is_none()
    }

    /// The dense weight B, \[d_in, d_out\], dead channels included.
    pub(crate) fn dense(&self) -> &Mat<f64> {
        &self.problem.weight
    }

    /// The lower triangle of H for `channels`, in that order.
    pub(crate) fn lower(&self, channels: &[usize]) -> Mat<f64> {
        let mut lower = Mat::zeros(channels.len(), channels.len());
        for (j, &q) in channels.iter().enumerate() {
            let source = self.problem.gram.col(q);
            let column = lower.col_as_slice_mut(j);
            for (i, &p) in channels.iter().enumerate().skip(j) {
                column[i] = if self.undamped.dead[p] || self.undamped.dead[q] { 0.0 } else { source[p] };
            }
            column[j] = if self.undamped.dead[q] { self.undamped.mean } else { column[j] + self.lambda };
        }
        lower
    }
}

/// L of A = LLᵀ, in place of the lower triangle; the rest is neither read nor written.
pub(super) fn cholesky(mut matrix: MatMut<f64>, par: Par) -> Result<(), Failure> {
    let n = matrix.nrows();
    let diagonal: Vec<f64> = (0..n).map(|j| matrix[(j, j)]).collect();
    let mut memory = MemBuffer::new(cholesky_in_place_scratch::<f64>(n, par, Default::default()));
    let stack = MemStack::new(&mut memory);
    cholesky_in_place(matrix.as_mut(), Default::default(), par, stack, Default::default())
        .map_err(|_| Failure::Singular)?;
    let floor = 8.0 * n as f64 * f64::EPSILON;
    let sound = (0..n).all(|j| matrix[(j, j)] * matrix[(j, j)] > floor * diagonal[j]);
    if sound { Ok(()) } else { Err(Failure::Singular) }
}

/// The lower triangle of (LLᵀ)⁻¹, in the memory of L.
pub(super) fn inverse(mut factor: Mat<f64>, par: Par) -> Mat<f64> {
    let n = factor.nrows();
    let mut inverted = Mat::zeros(n, n);
    invert_lower_triangular(inverted.as_mut(), factor.as_ref(), par);
    let lower = BlockStructure::TriangularLower;
    let upper = BlockStructure::TriangularUpper;
    let inverted = inverted.as_ref();
    triangular_matmul(
        factor.as_mut(),
        lower,
        Accum::Replace,
        inverted.transpose(),
        upper,
        inverted,
        lower,
        1.0,
        par,
    );
    factor
}
