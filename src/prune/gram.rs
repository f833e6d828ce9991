//! The sums XᵀX and XᵀY that local pruning needs, taken over any number of rows.
//!
//! Blocks of at most [`BLOCK`] rows are multiplied in f32, where the processor is twice as fast, and added up
//! in f64. Against sums in f64 the largest error of an entry is below 2e-6 of √(diagᵢ diagⱼ), whatever the
//! number of blocks; a test holds that. A block of n rows costs d²n + 2·d·o·n flops (d inputs, o outputs; one
//! triangle) and 6 d² + 16·d·o bytes of f64 sums.
//!
//! That is too much where few channels carry nearly all energy, as at an attention sink, and many rows point
//! the same way: λ follows the other channels (their geometric mean), and an error of 2e-6 of the largest
//! energy can be many λ. So a block in which the largest channel's energy is more than [`SPREAD`] times the
//! geometric mean of all is multiplied in f64. An entry that is left to f32 then errs by less than 2e-6 · 300
//! of that mean, which is 0.06 λ at the default damping of 0.01. Measured on SmolLM2-135M
//! (`examples/sums_in_f64.rs`), where 11 of 60 modules spread so widely, the largest energy being 2e9 λ: half of
//! a module's units removed, the re-fitted outputs lie within 1.7e-5 of pruning's own error of those from sums
//! in f64. Without blocks in f64 they lay within 1.3e-4 at ten times that damping; on made-up massive
//! activations (a test) 0.7 of pruning's own error away.

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{BlockStructure, matmul as triangular_matmul};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

use crate::base::{Error, Kind, Result};

/// Rows multiplied in f32 before they are added in f64.
pub const BLOCK: usize = 2048;
/// Columns of the product that are in memory at a time.
pub(super) const STRIP: usize = 2048;
/// Columns that one thread computes at a time.
const SLICE: usize = 128;
/// The largest channel's energy over the geometric mean of all, above which a block is multiplied in f64.
pub const SPREAD: f64 = 300.0;
/// Rows of a block that are held in f64 at a time.
const WIDENED: usize = 256;

/// The sums over the rows seen so far.
#[derive(Debug, Clone)]
pub struct Statistics {
    rows: usize,
    /// The lower triangle of XᵀX.
    gram: Mat<f64>,
    correlation: Option<Mat<f64>>,
    product: Mat<f32>,
}

/// The sums over all rows.
#[derive(Debug, Clone)]
pub struct Sums {
    /// Rows seen.
    pub rows: usize,
    /// XᵀX, \[d_in, d_in\].
    pub gram: Mat<f64>,
    /// XᵀY, \[d_in, d_out\], when targets were given.
    pub correlation: Option<Mat<f64>>,
}

impl Sums {
    /// The sums over the rows of both.
    pub fn with(self, other: &Sums) -> Sums {
        let correlation = self.correlation.zip(other.correlation.as_ref()).map(|(a, b)| a + b);
        Sums { rows: self.rows + other.rows, gram: self.gram + &other.gram, correlation }
    }
}

impl Statistics {
    /// Sums over inputs of `d_in` channels and, with `d_out`, their correlation with targets of `d_out`
    /// channels.
    pub fn new(d_in: usize, d_out: Option<usize>) -> Self {
        let product = Mat::zeros(d_in, STRIP.min(d_in.max(d_out.unwrap_or(0))));
        Self {
            rows: 0,
            gram: Mat::zeros(d_in, d_in),
            correlation: d_out.map(|d_out| Mat::zeros(d_in, d_out)),
            product,
        }
    }

    /// Adds rows of X \[n, d_in\] and, if and only if targets are wanted, of Y \[n, d_out\], both stored by
    /// rows.
    ///
    /// # Errors
    /// [`Kind::Internal`] when the lengths do not fit.
    pub fn add(&mut self, x: &[f32], y: Option<&[f32]>) -> Result<()> {
        let d_in = self.gram.nrows();
        let rows = rows_of("inputs", x, d_in)?;
        let y = self.targets(y, rows)?;
        for (b, x) in x.chunks(BLOCK * d_in).enumerate() {
            let count = x.len() / d_in;
            let y = y.map(|y| y.subrows(b * BLOCK, count));
            let is_wide = spread(&energies(x, d_in)) > SPREAD;
            let x = MatRef::from_row_major_slice(x, count, d_in);
            match is_wide {
                true => self.add_in_f64(x, y),
                false => self.add_in_f32(x, y),
            }
        }
        self.rows += rows;
        Ok(())
    }

    fn targets<'a>(&self, y: Option<&'a [f32]>, rows: usize) -> Result<Option<MatRef<'a, f32>>> {
        match (&self.correlation, y) {
            (None, None) => Ok(None),
            (Some(correlation), Some(y)) if y.len() == rows * correlation.ncols() => {
                Ok(Some(MatRef::from_row_major_slice(y, rows, correlation.ncols())))
            }
            _ => Err(Error::new(Kind::Internal, format!("the targets do not fit {rows} rows of inputs"))),
        }
    }

    fn add_in_f32(&mut self, x: MatRef<f32>, y: Option<MatRef<f32>>) {
        self.add_gram(x);
        if let Some(y) = y {
            self.add_correlation(x, y);
        }
    }

    fn add_in_f64(&mut self, x: MatRef<f32>, y: Option<MatRef<f32>>) {
        let lower = BlockStructure::TriangularLower;
        let full = BlockStructure::Rectangular;
        let par = Par::rayon(0);
        for start in (0..x.nrows()).step_by(WIDENED) {
            let count = WIDENED.min(x.nrows() - start);
            let x = widened(x.subrows(start, count));
            triangular_matmul(
                self.gram.as_mut(),
                lower,
                Accum::Add,
                x.transpose(),
                full,
                x.as_ref(),
                full,
                1.0,
                par,
            );
            if let (Some(correlation), Some(y)) = (&mut self.correlation, y) {
                let y = widened(y.subrows(start, count));
                matmul(correlation.as_mut(), Accum::Add, x.transpose(), y.as_ref(), 1.0, par);
            }
        }
    }

    fn add_gram(&mut self, x: MatRef<f32>) {
        let d_in = x.ncols();
        for start in (0..d_in).step_by(STRIP) {
            let width = STRIP.min(d_in - start);
            let product = self.product.as_mut().submatrix_mut(start, 0, d_in - start, width);
            let sums = self.gram.as_mut().submatrix_mut(start, start, d_in - start, width);
            let slices = slices(product, sums);
            slices.into_par_iter().for_each(|slice| slice.add_lower(x.subcols(start, d_in - start)));
        }
    }

    fn add_correlation(&mut self, x: MatRef<f32>, y: MatRef<f32>) {
        let Some(correlation) = &mut self.correlation else { return };
        for start in (0..y.ncols()).step_by(self.product.ncols().max(1)) {
            let width = self.product.ncols().min(y.ncols() - start);
            let product = self.product.as_mut().subcols_mut(0, width);
            let slices = slices(product, correlation.as_mut().subcols_mut(start, width));
            slices.into_par_iter().for_each(|slice| slice.add(x, y.subcols(start, width)));
        }
    }

    /// The sums, with both triangles.
    ///
    /// # Errors
    /// [`Kind::Numeric`] when a row held NaN or infinity, or the products overflowed.
    pub fn finish(mut self) -> Result<Sums> {
        let d_in = self.gram.nrows();
        for j in 0..d_in {
            for i in 0..j {
                self.gram[(i, j)] = self.gram[(j, i)];
            }
        }
        let finite = self.gram.as_ref().is_all_finite()
            && self.correlation.as_ref().is_none_or(|c| c.as_ref().is_all_finite());
        if !finite {
            let what = format!("the activations of {} tokens hold NaN or infinity, or overflow", self.rows);
            return Err(Error::new(Kind::Numeric, what)
                .hint("look for NaN in the checkpoint and for overflow in its activations"));
        }
        Ok(Sums { rows: self.rows, gram: self.gram, correlation: self.correlation })
    }
}

fn rows_of(what: &str, values: &[f32], width: usize) -> Result<usize> {
    if width == 0 || !values.len().is_multiple_of(width) {
        return Err(Error::new(
            Kind::Internal,
            format!("{} {what} are not whole rows of {width}", values.len()),
        ));
    }
    Ok(values.len() / width)
}

fn widened(values: MatRef<f32>) -> Mat<f64> {
    Mat::from_fn(values.nrows(), values.ncols(), |i, j| f64::from(values[(i, j)]))
}

/// Σ x² of every channel of a block, to a few digits. Parts have fixed sizes and are added in order, so that
/// the sums do not depend on the number of threads.
fn energies(x: &[f32], d_in: usize) -> Vec<f64> {
    let of_part = |part: &[f32]| {
        let mut energies = vec![0.0_f32; d_in];
        for row in part.chunks_exact(d_in) {
            energies.iter_mut().zip(row).for_each(|(energy, value)| *energy += value * value);
        }
        energies
    };
    let parts: Vec<Vec<f32>> = x.par_chunks(WIDENED * d_in).map(of_part).collect();
    let mut energies = vec![0.0; d_in];
    parts.iter().for_each(|part| energies.iter_mut().zip(part).for_each(|(sum, e)| *sum += f64::from(*e)));
    energies
}

/// The largest over the geometric mean, zeros aside; 0 where all are zero.
fn spread(energies: &[f64]) -> f64 {
    let live = || energies.iter().copied().filter(|&energy| energy > 0.0);
    let count = live().count().max(1) as f64;
    live().fold(0.0, f64::max) / (live().map(f64::ln).sum::<f64>() / count).exp()
}

/// Neighbouring columns of a product and of the sums that it is added to. Each is taken by one thread, which waits for
/// no other.
struct Slice<'a> {
    /// The first of the columns.
    first: usize,
    product: MatMut<'a, f32>,
    sums: MatMut<'a, f64>,
}

/// All columns in slices of [`SLICE`], the last one wider: a product of very few columns is summed in another order.
fn slices<'a>(mut product: MatMut<'a, f32>, mut sums: MatMut<'a, f64>) -> Vec<Slice<'a>> {
    let mut slices = Vec::new();
    let mut first = 0;
    while product.ncols() >= 2 * SLICE {
        let (own_product, others) = product.split_at_col_mut(SLICE);
        let (own_sums, other_sums) = sums.split_at_col_mut(SLICE);
        slices.push(Slice { first, product: own_product, sums: own_sums });
        first += SLICE;
        (product, sums) = (others, other_sums);
    }
    slices.push(Slice { first, product, sums });
    slices
}

impl Slice<'_> {
    /// Adds the slice's columns of XᵀX from the diagonal on.
    fn add_lower(self, x: MatRef<f32>) {
        let width = self.product.ncols();
        let full = BlockStructure::Rectangular;
        let own = x.subcols(self.first, width);
        let below = x.subcols(self.first + width, x.ncols() - self.first - width);
        let product = self.product.subrows_mut(self.first, x.ncols() - self.first);
        let (mut corner, mut rest) = product.split_at_row_mut(width);
        let lower = BlockStructure::TriangularLower;
        let own_t = own.transpose();
        triangular_matmul(corner.as_mut(), lower, Accum::Replace, own_t, full, own, full, 1.0, Par::Seq);
        matmul(rest.as_mut(), Accum::Replace, below.transpose(), own, 1.0, Par::Seq);
        let (corner_sums, rest_sums) =
            self.sums.subrows_mut(self.first, x.ncols() - self.first).split_at_row_mut(width);
        accumulate(corner_sums, corner.as_ref(), Part::Lower);
        accumulate(rest_sums, rest.as_ref(), Part::All);
    }

    /// Adds the slice's columns of XᵀY.
    fn add(mut self, x: MatRef<f32>, y: MatRef<f32>) {
        let own = y.subcols(self.first, self.product.ncols());
        matmul(self.product.as_mut(), Accum::Replace, x.transpose(), own, 1.0, Par::Seq);
        accumulate(self.sums, self.product.as_ref(), Part::All);
    }
}

/// Which part of a product counts.
#[derive(Clone, Copy)]
enum Part {
    All,
    Lower,
}

fn accumulate(sums: MatMut<f64>, product: MatRef<f32>, part: Part) {
    for (j, (sums, product)) in sums.col_iter_mut().zip(product.col_iter()).enumerate() {
        let skip = if matches!(part, Part::Lower) { j } else { 0 };
        sums.iter_mut().zip(product.iter()).skip(skip).for_each(|(sum, value)| *sum += f64::from(*value));
    }
}
