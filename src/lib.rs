//! `tyr` prunes large language models structurally: it removes whole attention heads and MLP neurons,
//! searching for the distribution of sparsity over the layers that keeps the model closest to the dense one
//! (Týr-the-Pruner, NeurIPS 2025).
//!
//! The modules are listed in layers: each uses only those above it. `tests/layers.rs` has the table of
//! layers, and checks that this list has the same order.
#![cfg_attr(test, allow(unreachable_pub))] // helpers of tests lie in private modules
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))] // they panic where nobody reads

pub mod base;

pub mod builtin;

pub mod space;

pub mod schedule;

pub mod spec;

pub mod search;

pub mod tensor;

pub mod model;

pub mod data;

pub mod prune;

pub mod supernet;

pub mod fitness;

pub mod eval;

pub mod generate;

pub mod export;

pub mod bench;

pub mod serve;

pub mod trial;

pub mod report;

pub mod plan;

pub mod runner;

pub mod cli;
