//! Frequencies of the rotary embedding: their base and their scaling.

use serde_json::{Map, Value, json};

use super::config::error;
use super::keys::short;
use super::read::Keys;
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

/// Base of the frequencies where a configuration names none.
const THETA: f64 = 10_000.0;

/// The base of the rotary embedding and its scaling, from `rope_parameters`, or from `rope_scaling` and
/// `rope_theta`.
///
/// # Errors
/// A kind, a factor or a key that is not implemented; one that is missing; two that contradict each other.
pub(super) fn read(keys: &Keys) -> Result<(f64, Option<RopeScaling>)> {
    let tables = (keys.table("rope_parameters")?, keys.table("rope_scaling")?);
    let table = match tables {
        (Some(new), Some(old)) if new != old => {
            return Err(error("`rope_parameters` and `rope_scaling` say different things")
                .hint("remove one of them from config.json"));
        }
        (new, old) => new.or(old),
    };
    let outer = keys.number("rope_theta")?;
    let inner = table.as_ref().map(|rope| rope.number("rope_theta")).transpose()?.flatten();
    if let (Some(outer), Some(inner)) = (outer, inner)
        && outer != inner
    {
        return Err(error(format!("`rope_theta` is {outer} and {inner} in `{}`", table_name(keys)))
            .hint("remove one of them from config.json"));
    }
    let theta = inner.or(outer).unwrap_or(THETA);
    if theta <= 0.0 {
        return Err(error(format!("`rope_theta` is {theta}, not a positive number")));
    }
    let scaling = match table {
        None => None,
        Some(rope) => scaling(&rope).map_err(|e| e.at(table_name(keys)))?,
    };
    Ok((theta, scaling))
}

/// Says the same in the keys that every version of transformers reads, where a config.json has the newer
/// `rope_parameters`: older versions pass over that, and would take other frequencies without a word.
pub(super) fn write(raw: &mut Map<String, Value>, theta: f64, scaling: Option<&RopeScaling>) {
    let Some(Value::Object(mut table)) = raw.remove("rope_parameters") else { return };
    table.remove("rope_theta");
    raw.insert("rope_theta".into(), json!(theta));
    raw.insert("rope_scaling".into(), json!(scaling.map(|_| table)));
}

fn table_name(keys: &Keys) -> &'static str {
    if keys.has("rope_parameters") { "rope_parameters" } else { "rope_scaling" }
}

/// The RoPE scaling that a table asks for.
fn scaling(rope: &Keys) -> Result<Option<RopeScaling>> {
    // Files that were saved again by later versions have both names.
    let kind = match (rope.text("rope_type")?, rope.text("type")?) {
        (Some(new), Some(old)) if new != old => {
            return Err(error(format!("`rope_type` is `{new}` and `type` is `{old}`"))
                .hint("remove one of them from config.json"));
        }
        (new, old) => new.or(old),
    };
    let (scaling, read): (_, &[&str]) = match kind {
        None | Some("default") => (None, &[]),
        Some("linear") => (Some(RopeScaling::Linear { factor: factor(rope)? }), &["factor"]),
        Some("llama3") => (Some(llama3(rope)?), &["factor", "low_freq_factor", "high_freq_factor"]),
        Some(other) => {
            return Err(error(format!("rope scaling `{other}` is not supported"))
                .hint("supported: default, linear, llama3"));
        }
    };
    // `original_max_position_embeddings` decides nothing but in `llama3`.
    let known = ["rope_type", "type", "rope_theta", "original_max_position_embeddings"];
    let is_known = |key: &str| known.contains(&key) || read.contains(&key);
    match rope.iter().find(|(key, value)| !is_known(key) && !is_neutral(key, value)) {
        None => Ok(scaling),
        Some((key, _)) if kind.is_none() => {
            Err(error(format!("`{key}` is there and `rope_type`, which says what for, is not"))
                .hint("supported kinds: default, linear, llama3"))
        }
        Some((key, value)) => {
            let kind = kind.unwrap_or_default();
            Err(error(format!("`{key}` = {} is not implemented for `{kind}`", short(value))))
        }
    }
}

/// A value that leaves the rotary embedding as it is.
fn is_neutral(key: &str, value: &Value) -> bool {
    value.is_null() || (key == "partial_rotary_factor" && value.as_f64() == Some(1.0))
}

fn positive(rope: &Keys, key: &str) -> Result<f64> {
    match rope.number(key)? {
        None => Err(error(format!("rope scaling lacks `{key}`"))),
        Some(value) if value > 0.0 => Ok(value),
        Some(value) => Err(error(format!("`{key}` is {value}, not a positive number"))),
    }
}

fn factor(rope: &Keys) -> Result<f64> {
    positive(rope, "factor")
}

fn llama3(rope: &Keys) -> Result<RopeScaling> {
    let factor = factor(rope)?;
    let low = positive(rope, "low_freq_factor")?;
    let high = positive(rope, "high_freq_factor")?;
    let original = positive(rope, "original_max_position_embeddings")?;
    if high <= low {
        return Err(error(format!("`high_freq_factor` {high} is not above `low_freq_factor` {low}")));
    }
    Ok(RopeScaling::Llama3 { factor, low, high, original })
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
