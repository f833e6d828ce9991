//! What a module and the requests must satisfy, whatever the method.

use faer::{Mat, MatRef};

use super::Units;
use crate::base::{Error, Kind, Result};

/// Whether the weight B \[d_in, d_out\] is made of the units.
pub(super) fn units_fit(units: Units, weight: &Mat<f64>) -> Result<()> {
    let Units { count, width } = units;
    if count == 0 || width == 0 || count * width != weight.nrows() || count > u32::MAX as usize {
        return Err(misfit(format!("{count} units of {width} channels"), weight));
    }
    Ok(())
}

/// What does not fit a module.
pub(super) fn misfit(what: String, weight: &Mat<f64>) -> Error {
    let d_in = weight.nrows();
    let d_out = weight.ncols();
    Error::new(Kind::Internal, format!("{what} does not fit a module of {d_in} inputs and {d_out} outputs"))
}

/// Whether the requested counts are possible and ascending, and whole rounds of one unit per group.
pub(super) fn requests_fit(units: Units, groups: usize, removed: &[usize]) -> Result<()> {
    if groups == 0 || !units.count.is_multiple_of(groups) {
        let what = format!("{} units do not fall into {groups} groups of equal size", units.count);
        return Err(Error::new(Kind::Internal, what));
    }
    if let Some(&count) = removed.iter().find(|count| !count.is_multiple_of(groups)) {
        let what = format!("{groups} groups cannot lose {count} units in equal numbers");
        return Err(Error::new(Kind::Internal, what));
    }
    if let Some(&count) = removed.iter().find(|&&count| count > units.count) {
        return Err(Error::new(
            Kind::Internal,
            format!("{count} units cannot be removed from a module of {}", units.count),
        ));
    }
    if !removed.is_sorted() {
        return Err(Error::new(Kind::Internal, "the requested counts of removed units are not ascending"));
    }
    Ok(())
}

/// Whether every entry is a number.
pub(super) fn finite(what: &str, matrix: MatRef<f64>) -> Result<()> {
    if matrix.is_all_finite() {
        return Ok(());
    }
    Err(Error::new(Kind::Numeric, format!("{what} holds NaN or infinity"))
        .hint("look for NaN in the checkpoint and for overflow in its activations"))
}
