//! What the method costs; the parts are those of the table in [`super`].

use super::Obs;
use crate::base::Work;
use crate::prune::Method;
use crate::prune::cost::{Cost, DOUBLE, SINGLE, Size};
use crate::spec::TargetShrinkage;

impl Obs {
    pub(super) fn costs(&self, size: &Size) -> Cost {
        let work = self.solving(size) + Work { solves: self.interpolation(size), ..Work::default() };
        let needs = self.needs();
        let d = size.d_in();
        let o = size.d_out();
        let comparing =
            if self.halves() { 2.0 * size.sums(&needs) + DOUBLE * (d * d + 6.0 * d * o) } else { 0.0 };
        Cost { work, memory: comparing.max(size.problem(&needs) + self.solving_memory(size)) }
    }

    /// Operations of comparing the halves and of mixing the targets.
    fn interpolation(&self, size: &Size) -> f64 {
        if !self.needs().refits_dense() {
            return 0.0;
        }
        let d = size.d_in();
        let o = size.d_out();
        let mixing = if self.halves() || self.target_interpolation < 1.0 { 2.0 * d * d * o } else { 0.0 };
        mixing + if self.halves() { 12.0 * d * d * o + 2.0 * d.powi(3) / 3.0 } else { 0.0 }
    }

    /// Removal and refit of one module to all levels.
    fn solving(&self, size: &Size) -> Work {
        let needs = self.needs();
        let d = size.d_in();
        let o = size.d_out();
        let levels = size.made(&needs);
        let removed = d - levels.iter().copied().fold(d, f64::min);
        let densest = levels.iter().copied().fold(0.0, f64::max);
        let energy = 2.0 * d * d * o;
        let inverse = d * d * d;
        let updates = removed * (d - removed / 2.0) * d + 2.0 * d * o * removed;
        let start = if needs.refits_dense() { 2.0 * d * d * o } else { 0.0 };
        let refit =
            densest.powi(3) / 3.0 + densest * densest * o + levels.iter().map(|k| k * k * o).sum::<f64>();
        let step = (self.step(size.kind) * size.units.width).max(1) as f64; // channels
        let steps = (removed / step).ceil();
        let sweeps = steps * d * o / 4.0; // each step passes over what is left of the weight in f64
        let copies = size.made_elements(&needs) * 4.0 + 6.0 * d * o + 3.0 * d * d;
        Work {
            solves: energy + inverse + updates + start + refit,
            elements: sweeps,
            weights: copies,
            ..Work::default()
        }
    }

    /// Beside the problem: three weights, then the larger of removal and refit, and the levels.
    fn solving_memory(&self, size: &Size) -> f64 {
        let needs = self.needs();
        let d = size.d_in();
        let o = size.d_out();
        let densest = size.made(&needs).into_iter().fold(0.0, f64::max);
        let first_order = if self.saliency.first_order { 1.0 } else { 0.0 };
        let removal = 2.0 * d * d + (1.0 + first_order) * d * o + 160.0 * d;
        let refit = densest * densest + 2.0 * densest * o + size.made_elements(&needs) * SINGLE / DOUBLE;
        DOUBLE * (3.0 * d * o + removal.max(refit))
    }

    /// Whether the sums over two halves of the text are compared.
    pub(super) fn halves(&self) -> bool {
        self.target_shrinkage == TargetShrinkage::SplitHalf && self.goes_beyond_the_layer()
    }
}
