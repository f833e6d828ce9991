//! Which subnet is better (paper §2.4, Eq. 6): a population measured layer by layer, and the fitness made of what was measured.

mod draw;
mod evaluator;
mod population;

pub use draw::Sampler;
pub use evaluator::{Evaluator, Objective};
pub use population::{Measured, Population, Wanted};

#[cfg(test)]
mod tests;
