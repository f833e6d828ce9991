//! Frequencies of the rotary embedding: their base and their scaling.

use serde::Deserialize;

use super::config::error;
use crate::base::Result;

/// RoPE scaling: the rotary embedding for longer contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// All frequencies divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Wavelengths longer than `original / low` are scaled by the whole factor.
        low: f64,
        /// Wavelengths shorter than `original / high` are kept.
        high: f64,
        /// Context of the original training.
        original: f64,
    },
}

#[derive(Deserialize)]
pub(super) struct WireRope {
    #[serde(alias = "type")]
    pub rope_type: Option<String>,
    pub rope_theta: Option<f64>,
    pub factor: Option<f64>,
    pub low_freq_factor: Option<f64>,
    pub high_freq_factor: Option<f64>,
    pub original_max_position_embeddings: Option<f64>,
}

/// The RoPE scaling that a configuration asks for.
///
/// # Errors
/// One that is not supported, or lacks a key.
pub(super) fn scaling(rope: &WireRope) -> Result<Option<RopeScaling>> {
    let need =
        |value: Option<f64>, key: &str| value.ok_or_else(|| error(format!("rope scaling lacks `{key}`")));
    match rope.rope_type.as_deref() {
        None | Some("default") => Ok(None),
        Some("linear") => Ok(Some(RopeScaling::Linear { factor: need(rope.factor, "factor")? })),
        Some("llama3") => Ok(Some(RopeScaling::Llama3 {
            factor: need(rope.factor, "factor")?,
            low: need(rope.low_freq_factor, "low_freq_factor")?,
            high: need(rope.high_freq_factor, "high_freq_factor")?,
            original: need(rope.original_max_position_embeddings, "original_max_position_embeddings")?,
        })),
        Some(other) => Err(error(format!("rope scaling `{other}` is not supported"))
            .hint("supported: default, linear, llama3")),
    }
}

/// A frequency after RoPE scaling.
pub(super) fn scaled(frequency: f64, scaling: Option<&RopeScaling>) -> f64 {
    match *match scaling {
        None => return frequency,
        Some(s) => s,
    } {
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low, high, original } => {
            // How often the pair turns within the original context.
            let turns = original * frequency / std::f64::consts::TAU;
            let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        }
    }
}
