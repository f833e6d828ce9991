//! Work counted by what limits it: operations of each kind, bytes read and written. Costs stand beside the
//! code that costs and speak in this unit; a machine's rates are in it too.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul};

use serde::Serialize;

/// Operations by what limits them. Each kind has a rate of its own on a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Work {
    /// Flops of f32 matrix products.
    pub products: f64,
    /// Flops of f64 factorisations, solves and updates in local pruning.
    pub solves: f64,
    /// Flops of attention's scores and contexts.
    pub attention: f64,
    /// Logits that a loss passes over.
    pub logits: f64,
    /// Elements of norms, gated units and sums.
    pub elements: f64,
    /// Weights converted from storage, copied or gathered.
    pub weights: f64,
    /// Bytes read from disk.
    pub read: f64,
    /// Bytes written to disk.
    pub written: f64,
    /// Bytes of text tokenised.
    pub text: f64,
}

impl Work {
    /// Floating-point operations of products, attention and pruning; a multiplication and an addition count
    /// one each.
    pub fn flops(&self) -> f64 {
        self.products + self.solves + self.attention
    }

    /// The sum over kinds of this work divided by other work of the same kind.
    pub fn over(self, other: Self) -> f64 {
        let Self { products, solves, attention, logits, elements, weights, read, written, text } =
            self.each(other, |a, b| a / b);
        [products, solves, attention, logits, elements, weights, read, written, text].iter().sum()
    }

    fn each(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            products: f(self.products, other.products),
            solves: f(self.solves, other.solves),
            attention: f(self.attention, other.attention),
            logits: f(self.logits, other.logits),
            elements: f(self.elements, other.elements),
            weights: f(self.weights, other.weights),
            read: f(self.read, other.read),
            written: f(self.written, other.written),
            text: f(self.text, other.text),
        }
    }
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.each(other, |a, b| a + b)
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Mul<f64> for Work {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        self.each(self, |a, _| a * factor)
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}
