//! The exact weights of every level, from one factor: in keep order, the Cholesky factor of a level is a
//! leading block of the whole.

use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Mat, MatRef, Par};

use super::factor::{Failure, System, cholesky, inner};
use crate::base::{Error, Kind};
use crate::prune::{PrunedLevel, channels};

/// B̂_K = H_KK⁻¹ G_K for each count of removed units.
pub(super) fn levels(
    system: &System,
    keep_order: &[u32],
    removed: &[usize],
) -> Result<Vec<PrunedLevel>, Failure> {
    let units = system.units();
    let channels = channels(keep_order, units.width);
    let solver = Solver::new(system, &channels, largest(system, removed))?;
    removed.iter().map(|&count| level(&solver, count, (units.count - count) * units.width)).collect()
}

/// Channels of the largest level that needs a solve.
fn largest(system: &System, removed: &[usize]) -> usize {
    let units = system.units();
    let solved = removed.iter().filter(|&&count| count > 0 || !system.is_layer());
    solved.min().map_or(0, |count| (units.count - count) * units.width)
}

/// The system in keep order, solved half-way.
struct Solver<'a> {
    system: &'a System<'a>,
    channels: &'a [usize],
    /// L of H.
    factor: Mat<f64>,
    /// (L⁻¹G)ᵀ, \[d_out, channels\].
    forward: Mat<f64>,
}

impl<'a> Solver<'a> {
    fn new(system: &'a System, channels: &'a [usize], size: usize) -> Result<Self, Failure> {
        let mut factor = system.lower(&channels[..size]);
        cholesky(factor.as_mut(), Par::rayon(0))?;
        let mut forward = gather(system.gradient.as_ref(), &channels[..size]);
        solve_lower_triangular_in_place(factor.as_ref(), forward.as_mut().transpose_mut(), Par::rayon(0));
        Ok(Self { system, channels, factor, forward })
    }

    /// B̂ᵀ of the first `kept` channels, \[d_out, kept\].
    fn weight(&self, kept: usize) -> Mat<f64> {
        let mut weight = self.forward.subcols(0, kept).to_owned();
        let factor = self.factor.submatrix(0, 0, kept, kept);
        solve_upper_triangular_in_place(factor.transpose(), weight.as_mut().transpose_mut(), Par::rayon(0));
        weight
    }

    /// With J(M) = ½tr MᵀHM − tr MᵀG, which is −½tr B̂ᵀG at its minimum B̂: J(B̂) − J(B) is the growth of the
    /// loss plus ½λ‖B̂ − B‖².
    fn loss(&self, weight: MatRef<f64>) -> f64 {
        let system = self.system;
        let kept = weight.ncols();
        let dense = system.undamped.weight.as_ref();
        let ridge = system.lambda * system.undamped.weight.squared_norm_l2();
        let start = 0.5 * (system.undamped.energy + ridge) - inner(dense, system.gradient.as_ref());
        let end = -0.5 * inner(weight, gather(system.gradient.as_ref(), &self.channels[..kept]).as_ref());
        let moved = (weight - gather(dense, &self.channels[..kept])).squared_norm_l2()
            + gather(dense, &self.channels[kept..]).squared_norm_l2();
        end - start - 0.5 * system.lambda * moved
    }
}

fn level(solver: &Solver, removed: usize, kept: usize) -> Result<PrunedLevel, Failure> {
    if removed == 0 && solver.system.is_layer() {
        let dense = solver.system.dense();
        let weight = Mat::from_fn(dense.ncols(), kept, |i, j| dense[(solver.channels[j], i)]);
        return finished(removed, weight.as_ref(), 0.0);
    }
    let weight = solver.weight(kept);
    let loss = solver.loss(weight.as_ref());
    finished(removed, weight.as_ref(), if solver.system.is_layer() { loss.max(0.0) } else { loss })
}

fn finished(removed: usize, weight: MatRef<f64>, loss: f64) -> Result<PrunedLevel, Failure> {
    let weight = Mat::from_fn(weight.nrows(), weight.ncols(), |i, j| weight[(i, j)] as f32);
    if weight.as_ref().is_all_finite() && loss.is_finite() {
        return Ok(PrunedLevel { removed, weight, bias: None, loss: Some(loss) });
    }
    let what = format!("the weights refitted after removing {removed} units are not finite");
    Err(Failure::Fatal(Error::new(Kind::Numeric, what).hint("raise prune.damping")))
}

fn gather(matrix: MatRef<f64>, columns: &[usize]) -> Mat<f64> {
    let mut gathered = Mat::zeros(matrix.nrows(), columns.len());
    for (j, &column) in columns.iter().enumerate() {
        gathered.col_mut(j).copy_from(matrix.col(column));
    }
    gathered
}
