//! `tyr` prunes large language models structurally: it removes whole attention heads and MLP neurons, searching for the
//! distribution of sparsity over the layers that keeps the model closest to the dense one (Týr-the-Pruner, NeurIPS 2025).
//!
//! The modules are listed in layers: each uses only those above it, which `tests/layers.rs` enforces.

pub mod base;
pub mod report;
pub mod schedule;
pub mod search;
pub mod space;
pub mod spec;
