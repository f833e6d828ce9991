//! Llama-like models: configurations as data, checkpoints mapped from disk, and a decoder whose layers may
//! have any number of heads and neurons, none included.

pub mod checkpoint;
pub mod companions;
pub mod config;
pub mod cost;
pub mod decoder;
mod diagnose;
pub mod families;
pub mod family;
pub mod hub;
pub mod kept;
pub mod keys;
pub mod layer;
pub mod matrix;
pub mod pico;
pub mod plain;
pub mod provenance;
mod read;
pub mod remote;
pub mod rope;
pub mod save;
pub mod source;
pub mod stored;
mod wire;

pub use checkpoint::Checkpoint;
pub use config::{Config, LayerShape};
pub use decoder::Model;
pub use layer::{Attention, Layer, Linear, Mlp};
pub use matrix::Matrix;
pub use source::Source;

#[cfg(test)]
pub(crate) mod tests;
