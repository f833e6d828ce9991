//! Collects of a module's inputs what a method needs, and nothing else.

use super::gram::{Statistics, Sums};
use super::moments::Moments;
use super::{Gram, Needs};
use crate::base::{Error, Kind, Result};

/// What was collected of a module's inputs X̃ and targets Y, as far as it was needed.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// X̃ᵀX̃, and X̃ᵀY for a target other than the layer's.
    pub sums: Option<Halves>,
    /// Means and variances.
    pub moments: Option<Moments>,
}

/// Sums over the text, or over each half of it where the halves are to be compared.
#[derive(Debug, Clone)]
pub struct Halves {
    /// Over the whole text, or over its first half.
    pub first: Sums,
    /// Over its second half.
    pub second: Option<Sums>,
}

/// Collects over batches of rows.
#[derive(Debug, Clone)]
pub struct Collector {
    d_in: usize,
    d_out: usize,
    sums: Option<(Statistics, Option<Statistics>)>,
    moments: Option<Moments>,
}

impl Collector {
    /// Of a module with `d_in` inputs and `d_out` outputs.
    pub fn new(needs: &Needs, d_in: usize, d_out: usize) -> Self {
        let outputs = needs.refits_dense().then_some(d_out);
        let new = || Statistics::new(d_in, outputs);
        let sums = |gram: Gram| (new(), gram.halves.then(new));
        Self { d_in, d_out, sums: needs.gram.map(sums), moments: needs.moments.then(|| Moments::new(d_in)) }
    }

    /// Adds rows of X̃ \[n, d_in\] and, for a target other than the layer's, of Y \[n, d_out\], both stored
    /// by rows. The first `first` rows count to the first half of the text where halves are wanted.
    ///
    /// # Errors
    /// [`Kind::Internal`] when the lengths do not fit.
    pub fn add(&mut self, x: &[f32], y: Option<&[f32]>, first: usize) -> Result<()> {
        if let Some(moments) = &mut self.moments {
            moments.add(x)?;
        }
        match &mut self.sums {
            None => Ok(()),
            Some((whole, None)) => whole.add(x, y),
            Some((before, Some(after))) => {
                let (x, y) =
                    (split(x, first * self.d_in)?, y.map(|y| split(y, first * self.d_out)).transpose()?);
                before.add(x.0, y.map(|y| y.0))?;
                after.add(x.1, y.map(|y| y.1))
            }
        }
    }

    /// What was collected.
    ///
    /// # Errors
    /// [`Kind::Numeric`] when a row held NaN or infinity, or products overflowed.
    pub fn finish(self) -> Result<Collected> {
        let halves = |(first, second): (Statistics, Option<Statistics>)| -> Result<Halves> {
            Ok(Halves { first: first.finish()?, second: second.map(Statistics::finish).transpose()? })
        };
        Ok(Collected {
            sums: self.sums.map(halves).transpose()?,
            moments: self.moments.map(Moments::finish).transpose()?,
        })
    }
}

fn split(values: &[f32], at: usize) -> Result<(&[f32], &[f32])> {
    values
        .split_at_checked(at)
        .ok_or_else(|| Error::new(Kind::Internal, format!("{} values have no half of {at}", values.len())))
}

impl Collected {
    /// The sums.
    ///
    /// # Errors
    /// [`Kind::Internal`] where none were collected.
    pub fn into_sums(self) -> Result<Halves> {
        self.sums.ok_or_else(|| Error::new(Kind::Internal, "no Gram matrix was collected for the module"))
    }
}
