//! The order of removal: Optimal Brain Surgeon on blocks of channels, ranked again after each step (paper
//! Algorithm 1).
//!
//! Removing the channels P changes H⁻¹ by −VVᵀ and B by −VU, with RRᵀ = \[H⁻¹\]_PP, V = H⁻¹\[:,P\]R⁻ᵀ and U =
//! R⁻¹B_P. B and the diagonal blocks of H⁻¹, which the saliency reads, follow at once; the rest of H⁻¹
//! follows a panel at a time. The first-order term needs no new gradient: H_KK B_K = G_K holds after every
//! step, so G stays as it is.

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{BlockStructure, matmul as triangular_matmul};
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::prelude::*;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

use super::factor::{Failure, System, cholesky, inverse};
use super::{Obs, Units};
use crate::base::{Error, Kind};
use crate::prune::rounds::Rounds;
use crate::spec::{Ranking, Saliency};

/// Columns of V that are held back before H⁻¹ is updated.
const PANEL: usize = 128;
/// Operations that all threads do together, at least.
const TOGETHER: usize = 1 << 24;
/// Values of B that one thread updates and then reads while they are in its cache.
const CHUNK: usize = 1 << 16;

/// The units removed up to the largest request, first to last, and the saliency of every unit on the dense
/// weights.
pub(super) fn removal(
    system: &System,
    obs: &Obs,
    removed: &[usize],
) -> Result<(Vec<u32>, Vec<f64>), Failure> {
    let mut state = State::new(system, obs.saliency)?;
    let dense = state.sweep(None)?;
    let largest = removed.last().copied().unwrap_or(0);
    let removed_units = match obs.ranking {
        Ranking::OneShot => state.least(&dense, largest).into_iter().map(|unit| unit as u32).collect(),
        Ranking::Progressive => {
            let step = obs.step(system.kind());
            progressive(&mut state, dense.clone(), &steps(step, removed))?
        }
    };
    Ok((removed_units, dense))
}

fn progressive(state: &mut State, mut saliency: Vec<f64>, steps: &[usize]) -> Result<Vec<u32>, Failure> {
    let mut removed_units = Vec::new();
    for (i, &count) in steps.iter().enumerate() {
        let picked = state.least(&saliency, count);
        removed_units.extend(picked.iter().map(|&unit| state.units[unit]));
        if i + 1 < steps.len() {
            saliency = state.remove(&picked)?;
        }
    }
    Ok(removed_units)
}

/// How many units are removed at a time, so that every request is met exactly.
fn steps(step: usize, removed: &[usize]) -> Vec<usize> {
    let mut at = 0;
    let mut steps = Vec::new();
    for &count in removed {
        while at < count {
            let next = step.min(count - at);
            steps.push(next);
            at += next;
        }
    }
    steps
}

/// What is left of the module: the first `units.len() * width` channels of every matrix. Removed units stay
/// until a flush drops them.
struct State {
    terms: Saliency,
    /// Input channels of a unit.
    width: usize,
    /// Original index of each unit held.
    units: Vec<u32>,
    /// Whether a unit held is already removed.
    removed_units: Vec<bool>,
    /// Whether every channel of a unit held is dead.
    dead: Vec<bool>,
    /// What groups of units have lost.
    rounds: Rounds,
    /// H⁻¹ before the delayed updates, lower triangle.
    inverse: Mat<f64>,
    /// The delayed V, \[channels, columns\]; the first `used` columns count.
    delayed: Mat<f64>,
    used: usize,
    /// Bᵀ, \[d_out, channels\].
    weight: Mat<f64>,
    /// Gᵀ, \[d_out, channels\]; without rows when the first-order term is off.
    gradient: Mat<f64>,
    /// The diagonal blocks of H⁻¹ after all updates, side by side, \[width, channels\].
    blocks: Mat<f64>,
}

/// A step's change of B, −VU.
struct Update {
    /// V, \[channels, k\].
    left: Mat<f64>,
    /// Uᵀ, \[d_out, k\].
    right: Mat<f64>,
}

impl State {
    fn new(system: &System, terms: Saliency) -> Result<Self, Failure> {
        let Units { count, width } = system.units();
        let mut factor = system.lower(&(0..count * width).collect::<Vec<_>>());
        cholesky(factor.as_mut(), Par::rayon(0))?;
        let weight = start(system, factor.as_ref());
        let inverse = inverse(factor, Par::rayon(0));
        Ok(Self {
            terms,
            width,
            units: (0..count as u32).collect(),
            removed_units: vec![false; count],
            dead: system.undamped.dead.chunks(width).map(|unit| unit.iter().all(|&dead| dead)).collect(),
            blocks: diagonal_blocks(&inverse, width),
            rounds: Rounds::new(count, system.groups()),
            inverse,
            delayed: Mat::new(),
            used: 0,
            weight,
            gradient: system
                .gradient
                .subrows(0, if terms.first_order { system.gradient.nrows() } else { 0 })
                .to_owned(),
        })
    }

    /// Channels held.
    fn channels(&self) -> usize {
        self.units.len() * self.width
    }

    /// The channels of some units held.
    fn channels_of(&self, units: &[usize]) -> Vec<usize> {
        units.iter().flat_map(|&unit| unit * self.width..(unit + 1) * self.width).collect()
    }

    /// The next `count` units to remove, first to last: dead ones, then the least salient, ties to the lower
    /// index; groups in rounds.
    fn least(&mut self, saliency: &[f64], count: usize) -> Vec<usize> {
        let mut alive: Vec<usize> = (0..self.units.len()).filter(|&unit| !self.removed_units[unit]).collect();
        alive.sort_by(|&a, &b| {
            self.dead[b].cmp(&self.dead[a]).then(saliency[a].total_cmp(&saliency[b])).then(a.cmp(&b))
        });
        self.rounds.order(&mut alive, |&unit| self.units[unit]);
        alive.truncate(count);
        alive.iter().for_each(|&unit| self.rounds.lose(self.units[unit]));
        alive
    }

    /// Removes units held and returns the saliency of all units then held.
    fn remove(&mut self, picked: &[usize]) -> Result<Vec<f64>, Failure> {
        let channels = self.channels_of(picked);
        let update = self.update(&channels)?;
        self.downdate_blocks(update.left.as_ref());
        picked.iter().for_each(|&unit| self.removed_units[unit] = true);
        let saliency = self.sweep(Some(&update))?;
        self.delay(update.left.as_ref());
        Ok(if self.used < PANEL { saliency } else { self.flush(saliency) })
    }

    /// V and U of the channels P.
    fn update(&self, channels: &[usize]) -> Result<Update, Failure> {
        let mut left = self.columns(channels);
        let mut corner = Mat::from_fn(channels.len(), channels.len(), |i, j| left[(channels[i], j)]);
        cholesky(corner.as_mut(), Par::Seq)?;
        let mut right =
            Mat::from_fn(self.weight.nrows(), channels.len(), |i, j| self.weight[(i, channels[j])]);
        for sides in [left.as_mut(), right.as_mut()] {
            let par = threads(sides.nrows() * channels.len() * channels.len());
            solve_lower_triangular_in_place(corner.as_ref(), sides.transpose_mut(), par);
        }
        Ok(Update { left, right })
    }

    /// H⁻¹\[:,P\] after all updates.
    fn columns(&self, channels: &[usize]) -> Mat<f64> {
        let held = self.channels();
        let used = self.used;
        let mut columns =
            Mat::from_fn(held, channels.len(), |i, j| self.inverse[(i.max(channels[j]), i.min(channels[j]))]);
        let delayed = self.delayed.submatrix(0, 0, held.min(self.delayed.nrows()), used);
        if used > 0 {
            let rows = Mat::from_fn(channels.len(), used, |i, j| delayed[(channels[i], j)]);
            let par = threads(2 * held * used * channels.len());
            matmul(columns.as_mut(), Accum::Add, delayed, rows.transpose(), -1.0, par);
        }
        columns
    }

    /// Takes VVᵀ off the diagonal blocks.
    fn downdate_blocks(&mut self, left: MatRef<f64>) {
        let width = self.width;
        if width == 1 {
            return left.col_iter().for_each(|v| {
                self.blocks.row_mut(0).iter_mut().zip(v.iter()).for_each(|(d, v)| *d -= v * v)
            });
        }
        let held = self.units.len() * width;
        let blocks = self.blocks.as_mut().subcols_mut(0, held).par_col_chunks_mut(width);
        blocks
            .zip(left.par_row_chunks(width))
            .for_each(|(block, v)| matmul(block, Accum::Add, v, v.transpose(), -1.0, Par::Seq));
    }

    /// Updates B and returns the saliency of all units held, in one pass over B; that of a removed unit is
    /// zero.
    fn sweep(&mut self, update: Option<&Update>) -> Result<Vec<f64>, Failure> {
        let width = self.width;
        let held = self.channels();
        let chunk = (CHUNK / (self.weight.nrows() * width).max(1)).max(1);
        let terms = self.terms;
        let Self { weight, gradient, blocks, removed_units, .. } = self;
        let gradient = gradient.as_ref();
        let blocks = blocks.as_ref();
        let removed_units = &removed_units[..];
        let chunks = weight.as_mut().subcols_mut(0, held).par_col_chunks_mut(chunk * width).enumerate();
        let saliency = chunks.flat_map_iter(|(i, mut part)| {
            let first = i * chunk;
            if let Some(update) = update {
                let left = update.left.subrows(first * width, part.ncols());
                matmul(part.rb_mut(), Accum::Add, update.right.as_ref(), left.transpose(), -1.0, Par::Seq);
            }
            let part = part.into_const();
            (0..part.ncols() / width).map(move |local| {
                let unit = first + local;
                let own = part.subcols(local * width, width);
                let at = unit * width;
                if removed_units[unit] {
                    Ok(0.0)
                } else {
                    saliency(terms, own, gradient.subcols(at, width), blocks.subcols(at, width))
                }
            })
        });
        saliency.collect()
    }

    /// Keeps V for the next flush.
    fn delay(&mut self, left: MatRef<f64>) {
        let columns = self.used + left.ncols();
        if self.delayed.nrows() < left.nrows() || self.delayed.ncols() < columns {
            self.delayed.resize_with(self.delayed.nrows().max(left.nrows()), columns.max(PANEL), |_, _| 0.0);
        }
        self.delayed.as_mut().submatrix_mut(0, self.used, left.nrows(), left.ncols()).copy_from(left);
        self.used = columns;
    }

    /// Brings H⁻¹ up to date and drops the removed units, from the saliency too, once they are an eighth of
    /// those held.
    fn flush(&mut self, saliency: Vec<f64>) -> Vec<f64> {
        let held = self.channels();
        let lower = BlockStructure::TriangularLower;
        let full = BlockStructure::Rectangular;
        let delayed = self.delayed.submatrix(0, 0, held, self.used);
        let inverse = self.inverse.as_mut().submatrix_mut(0, 0, held, held);
        triangular_matmul(
            inverse,
            lower,
            Accum::Add,
            delayed,
            full,
            delayed.transpose(),
            full,
            -1.0,
            Par::rayon(0),
        );
        self.used = 0;
        if self.removed_units.iter().filter(|&&removed_units| removed_units).count() * 8 < self.units.len() {
            return saliency;
        }
        self.compact(saliency)
    }

    fn compact(&mut self, saliency: Vec<f64>) -> Vec<f64> {
        let kept: Vec<usize> = (0..self.units.len()).filter(|&unit| !self.removed_units[unit]).collect();
        let channels = self.channels_of(&kept);
        pack(&mut self.inverse, &channels, &channels);
        for matrix in [&mut self.weight, &mut self.gradient, &mut self.blocks] {
            let rows: Vec<usize> = (0..matrix.nrows()).collect();
            pack(matrix, &rows, &channels);
        }
        self.units = kept.iter().map(|&unit| self.units[unit]).collect();
        self.dead = kept.iter().map(|&unit| self.dead[unit]).collect();
        self.removed_units = vec![false; kept.len()];
        kept.iter().map(|&unit| saliency[unit]).collect()
    }
}

/// Threads for so many operations: they wait for each other several times, which has to pay.
fn threads(flops: usize) -> Par {
    if flops < TOGETHER { Par::Seq } else { Par::rayon(0) }
}

/// Bᵀ before any removal: the dense weight, or H⁻¹G for another target than the layer's.
fn start(system: &System, factor: MatRef<f64>) -> Mat<f64> {
    if system.is_layer() {
        return system.undamped.weight.clone();
    }
    let mut weight = system.gradient.clone();
    solve_lower_triangular_in_place(factor, weight.as_mut().transpose_mut(), Par::rayon(0));
    solve_upper_triangular_in_place(factor.transpose(), weight.as_mut().transpose_mut(), Par::rayon(0));
    weight
}

/// The diagonal blocks of a symmetric matrix given by its lower triangle, side by side.
fn diagonal_blocks(lower: &Mat<f64>, width: usize) -> Mat<f64> {
    Mat::from_fn(width, lower.ncols(), |i, j| {
        let row = j / width * width + i;
        lower[(row.max(j), row.min(j))]
    })
}

/// Moves the kept rows and columns (ascending) to the front.
fn pack(matrix: &mut Mat<f64>, rows: &[usize], columns: &[usize]) {
    for (j, &column) in columns.iter().enumerate() {
        let values: Vec<f64> = rows.iter().map(|&row| matrix[(row, column)]).collect();
        matrix.col_as_slice_mut(j)[..rows.len()].copy_from_slice(&values);
    }
}

/// Σ_p |G_p·B_p| + ½ tr(B_gᵀ \[H⁻¹\]_gg⁻¹ B_g) over the channels p of one unit g (paper Eq. 4), as far as the
/// terms are on.
fn saliency(
    terms: Saliency,
    weight: MatRef<f64>,
    gradient: MatRef<f64>,
    block: MatRef<f64>,
) -> Result<f64, Failure> {
    let mut sum = 0.0;
    if terms.first_order {
        sum +=
            weight.col_iter().zip(gradient.col_iter()).map(|(b, g)| (b.transpose() * g).abs()).sum::<f64>();
    }
    if terms.second_order {
        sum += second_order(weight, block)?;
    }
    match sum.is_finite() {
        true => Ok(sum),
        false => Err(Failure::Fatal(
            Error::new(Kind::Numeric, "a saliency is not finite").hint("raise prune.damping"),
        )),
    }
}

fn second_order(weight: MatRef<f64>, block: MatRef<f64>) -> Result<f64, Failure> {
    let width = block.nrows();
    if width == 1 {
        let inverse = block[(0, 0)];
        return if inverse > 0.0 {
            Ok(weight.squared_norm_l2() / (2.0 * inverse))
        } else {
            Err(Failure::Singular)
        };
    }
    let mut factor = block.to_owned();
    cholesky(factor.as_mut(), Par::Seq)?;
    let mut scaled = weight.transpose().to_owned();
    solve_lower_triangular_in_place(factor.as_ref(), scaled.as_mut(), Par::Seq);
    Ok(0.5 * scaled.squared_norm_l2())
}
