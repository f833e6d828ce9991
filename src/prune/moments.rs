//! Mean and variance of every input channel over any number of rows.
//!
//! Each block of rows has its own mean, and blocks are joined as Chan, Golub and LeVeque do (1983), in f64,
//! so that a large mean does not swallow a small variance. A row of d channels costs 5d flops; the sums take
//! 16d bytes.

use crate::base::{Error, Kind, Result};

/// Over the rows seen so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Rows seen.
    pub rows: usize,
    /// Mean of every channel.
    pub mean: Vec<f64>,
    /// Σ(x − mean)² of every channel.
    squares: Vec<f64>,
}

impl Moments {
    /// Of `d_in` channels, before any row.
    pub fn new(d_in: usize) -> Self {
        Self { rows: 0, mean: vec![0.0; d_in], squares: vec![0.0; d_in] }
    }

    /// Adds rows of X \[n, d_in\], stored by rows.
    ///
    /// # Errors
    /// [`Kind::Internal`] when these are no whole rows.
    pub fn add(&mut self, x: &[f32]) -> Result<()> {
        let d_in = self.mean.len();
        if d_in == 0 || !x.len().is_multiple_of(d_in) {
            return Err(Error::new(
                Kind::Internal,
                format!("{} inputs are not whole rows of {d_in}", x.len()),
            ));
        }
        if !x.is_empty() {
            self.join(&Self::of(x, d_in));
        }
        Ok(())
    }

    /// Of one block of rows, in two passes.
    fn of(x: &[f32], d_in: usize) -> Self {
        let mut block = Self::new(d_in);
        block.rows = x.len() / d_in;
        for row in x.chunks_exact(d_in) {
            block.mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        block.mean.iter_mut().for_each(|sum| *sum /= block.rows as f64);
        for row in x.chunks_exact(d_in) {
            let centred = row.iter().zip(&block.mean).map(|(value, mean)| f64::from(*value) - mean);
            block.squares.iter_mut().zip(centred).for_each(|(sum, value)| *sum += value * value);
        }
        block
    }

    fn join(&mut self, other: &Self) {
        let rows = (self.rows + other.rows) as f64;
        let part = other.rows as f64 / rows;
        let cross = self.rows as f64 * part;
        for (i, (mean, squares)) in self.mean.iter_mut().zip(&mut self.squares).enumerate() {
            let shift = other.mean[i] - *mean;
            *mean += shift * part;
            *squares += other.squares[i] + shift * shift * cross;
        }
        self.rows += other.rows;
    }

    /// Variance of every channel over the rows; zeros before any row.
    pub fn variance(&self) -> Vec<f64> {
        self.squares.iter().map(|squares| squares / self.rows.max(1) as f64).collect()
    }

    /// These, once all rows were seen.
    ///
    /// # Errors
    /// [`Kind::Numeric`] when a row held NaN or infinity.
    pub fn finish(self) -> Result<Self> {
        if self.mean.iter().chain(&self.squares).all(|value| value.is_finite()) {
            return Ok(self);
        }
        let what = format!("the activations of {} tokens hold NaN or infinity", self.rows);
        Err(Error::new(Kind::Numeric, what)
            .hint("look for NaN in the checkpoint and for overflow in its activations"))
    }
}
