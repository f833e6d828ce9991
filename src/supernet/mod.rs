//! The supernet: every module pruned to many sparsities around a distribution (paper §2.3, Algorithm 2), on
//! disk.
//!
//! A module's levels are nested, so its units have one *keep order*: the units kept with r removed are the
//! first `units − r` of it. Every level's weight has its columns in that order; a level's input is therefore
//! a leading part of the columns of any denser level's input.

mod accumulate;
mod build;
pub mod compact;
pub mod cost;
mod cut;
mod store;

pub use build::{Options, build};
pub use cut::CutInputs;
pub use store::{Supernet, storage_dtype};

#[cfg(test)]
pub(crate) mod tests;
