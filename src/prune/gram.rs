//! The sums XᵀX and XᵀY that local pruning needs, taken over any number of rows.
//!
//! Blocks of at most [`BLOCK`] rows are multiplied in f32, where the processor is twice as fast, and added up
//! in f64. Against sums in f64 the largest error of an entry is below 1e-6 of √(diagᵢ diagⱼ), whatever the
//! number of blocks; a test holds that. A block of n rows costs d²n + 2·d·o·n flops (d inputs, o outputs; one
//! triangle) and 6 d² + 16·d·o bytes of f64 sums.

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{BlockStructure, matmul as triangular_matmul};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

use crate::base::{Error, Kind, Result};

/// Rows multiplied in f32 before they are added in f64.
pub const BLOCK: usize = 2048;
/// Columns of the product that are in memory at a time.
pub(super) const STRIP: usize = 2048;

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
        let x = MatRef::from_row_major_slice(x, rows, d_in);
        let y = self.targets(y, rows)?;
        for start in (0..rows).step_by(BLOCK) {
            let count = BLOCK.min(rows - start);
            self.add_gram(x.subrows(start, count));
            if let Some(y) = y {
                self.add_correlation(x.subrows(start, count), y.subrows(start, count));
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

    fn add_gram(&mut self, x: MatRef<f32>) {
        let d_in = x.ncols();
        let lower = BlockStructure::TriangularLower;
        let full = BlockStructure::Rectangular;
        for start in (0..d_in).step_by(STRIP) {
            let width = STRIP.min(d_in - start);
            let below = start + STRIP.min(d_in - start);
            let xt = x.transpose();
            let strip = x.subcols(start, width);
            let (mut corner, mut rest) =
                self.product.as_mut().submatrix_mut(start, 0, d_in - start, width).split_at_row_mut(width);
            triangular_matmul(
                corner.as_mut(),
                lower,
                Accum::Replace,
                strip.transpose(),
                full,
                strip,
                full,
                1.0,
                Par::rayon(0),
            );
            matmul(rest.as_mut(), Accum::Replace, xt.subrows(below, d_in - below), strip, 1.0, Par::rayon(0));
            let sums = self.gram.as_mut().submatrix_mut(start, start, d_in - start, width);
            accumulate(sums, self.product.submatrix(start, 0, d_in - start, width), Part::Lower);
        }
    }

    fn add_correlation(&mut self, x: MatRef<f32>, y: MatRef<f32>) {
        let Some(correlation) = &mut self.correlation else { return };
        for start in (0..y.ncols()).step_by(self.product.ncols().max(1)) {
            let width = self.product.ncols().min(y.ncols() - start);
            let mut product = self.product.as_mut().subcols_mut(0, width);
            matmul(
                product.as_mut(),
                Accum::Replace,
                x.transpose(),
                y.subcols(start, width),
                1.0,
                Par::rayon(0),
            );
            accumulate(correlation.as_mut().subcols_mut(start, width), product.as_ref(), Part::All);
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

/// Which part of a product counts.
#[derive(Clone, Copy)]
enum Part {
    All,
    Lower,
}

fn accumulate(sums: MatMut<f64>, product: MatRef<f32>, part: Part) {
    sums.par_col_chunks_mut(1).zip(product.par_col_chunks(1)).enumerate().for_each(|(j, (sums, product))| {
        let skip = if matches!(part, Part::Lower) { j } else { 0 };
        sums.col_mut(0)
            .iter_mut()
            .zip(product.col(0).iter())
            .skip(skip)
            .for_each(|(sum, value)| *sum += f64::from(*value));
    });
}
