//! A quantity that was measured several times.

use serde::Serialize;

/// The median with the quartiles around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the measurements are less.
    pub median: f64,
    /// A quarter is less.
    pub low: f64,
    /// A quarter is more.
    pub high: f64,
}

impl Spread {
    /// Of measurements in any order; those between two measurements are interpolated. NaN of none.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let quantile = |p: f64| {
            let place = p * values.len().saturating_sub(1) as f64;
            let below = values.get(place.floor() as usize).copied().unwrap_or(f64::NAN);
            let above = values.get(place.ceil() as usize).copied().unwrap_or(f64::NAN);
            below + (above - below) * place.fract()
        };
        Self { median: quantile(0.5), low: quantile(0.25), high: quantile(0.75) }
    }

    /// The larger distance of a quartile from the median.
    pub fn width(&self) -> f64 {
        (self.high - self.median).max(self.median - self.low)
    }
}
