//! A quantity that was measured several times.

use serde::Serialize;

/// The median with the quartiles around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the measurements are less.
    pub median: f64,
    /// A quarter is less than the first, a quarter more than the second; absent where there was one measurement
    /// alone, which tells nothing of others.
    pub quartiles: Option<[f64; 2]>,
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
        let quartiles = (values.len() > 1).then(|| [0.25, 0.75].map(quantile));
        Self { median: quantile(0.5), quartiles }
    }

    /// The larger distance of a quartile from the median.
    pub fn width(&self) -> Option<f64> {
        self.quartiles.map(|[low, high]| (high - self.median).max(self.median - low))
    }
}
