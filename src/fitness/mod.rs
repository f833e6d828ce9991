//! Which subnet is better (paper §2.4, Eq. 6): a population measured layer by layer, and the fitness made of
//! what was measured.

pub mod cost;
mod counts;
mod dense;
mod draw;
mod evaluator;
mod grouping;
mod metric;
mod objective;
mod population;
mod reads;
mod script;
mod scripted;

pub use counts::{Counts, flops, kv_head_bytes, mean_keys};
pub use dense::DenseStates;
pub use draw::{Drawn, Sampler};
pub use evaluator::{Corpus, Evaluator};
pub use metric::Metric;
pub use objective::Objective;
pub use population::{Measured, Population, Readings, Wanted};
pub use script::{Metrics, Script};
pub use scripted::check;

#[cfg(test)]
mod tests;
