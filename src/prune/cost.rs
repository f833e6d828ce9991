//! What collecting statistics and pruning cost, in operations and bytes.

use super::gram::BLOCK;
use super::{Needs, Units};
use crate::base::Work;
use crate::space::ModuleKind;

/// Bytes of an f64 and of an f32.
pub(super) const DOUBLE: f64 = 8.0;
pub(super) const SINGLE: f64 = 4.0;
/// Columns of a product that are in memory at a time while sums are collected.
const STRIP: f64 = super::gram::STRIP as f64;

/// A module to be pruned, by its sizes.
#[derive(Debug, Clone)]
pub struct Size {
    /// Attention or MLP.
    pub kind: ModuleKind,
    /// Its units.
    pub units: Units,
    /// Output channels.
    pub outputs: usize,
    /// Units removed at each requested level, ascending.
    pub removed: Vec<usize>,
}

/// What pruning one module takes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Operations.
    pub work: Work,
    /// The most memory, what was collected and the dense weight included, bytes.
    pub memory: f64,
}

impl Size {
    /// Input channels d.
    pub fn d_in(&self) -> f64 {
        self.units.channels() as f64
    }

    /// Output channels o.
    pub fn d_out(&self) -> f64 {
        self.outputs as f64
    }

    /// Channels kept at each level whose weight a method of such needs makes, in the order of the requests:
    /// the dense level is the checkpoint's own unless it is refitted.
    pub fn made(&self, needs: &Needs) -> Vec<f64> {
        let made = self.removed.iter().filter(|&&removed| removed > 0 || needs.refits_dense());
        made.map(|removed| ((self.units.count - removed) * self.units.width) as f64).collect()
    }

    /// Numbers of all these levels' weights.
    pub fn made_elements(&self, needs: &Needs) -> f64 {
        self.made(needs).iter().sum::<f64>() * self.d_out()
    }

    /// Bytes of the sums over one half, or over the whole.
    pub(super) fn sums(&self, needs: &Needs) -> f64 {
        let d = self.d_in();
        let correlation = if needs.refits_dense() { d * self.d_out() * DOUBLE } else { 0.0 };
        if needs.gram.is_some() { d * d * DOUBLE + correlation } else { 0.0 }
    }

    /// Bytes of the dense weight and of what was collected, halves joined.
    pub fn problem(&self, needs: &Needs) -> f64 {
        let moments = if needs.moments { 2.0 * self.d_in() * DOUBLE } else { 0.0 };
        self.sums(needs) + self.d_in() * self.d_out() * DOUBLE + moments
    }
}

/// Collecting what a method needs over this many tokens in batches of this many rows. Memory is that of the
/// sums.
pub fn collecting(needs: &Needs, size: &Size, tokens: f64, batch: usize) -> Cost {
    let d = size.d_in();
    let moments = if needs.moments {
        let work = Work { elements: 2.0 * d * tokens, ..Work::default() };
        Cost { work, memory: 2.0 * d * DOUBLE }
    } else {
        Cost::default()
    };
    let sums = sums(needs, size, tokens, batch);
    Cost { work: sums.work + moments.work, memory: sums.memory + moments.memory }
}

fn sums(needs: &Needs, size: &Size, tokens: f64, batch: usize) -> Cost {
    let Some(gram) = needs.gram else { return Cost::default() };
    let d = size.d_in();
    let o = size.d_out();
    let blocks = (tokens / (batch as f64).min(BLOCK as f64)).ceil();
    let mut work = Work { products: d * d * tokens, elements: d * d / 2.0 * blocks, ..Work::default() };
    if needs.refits_dense() {
        work += Work { products: 2.0 * d * o * tokens, elements: d * o * blocks, ..Work::default() };
    }
    let halves = if gram.halves { 2.0 } else { 1.0 };
    Cost { work, memory: halves * (size.sums(needs) + d * d.max(o).min(STRIP) * SINGLE) }
}
