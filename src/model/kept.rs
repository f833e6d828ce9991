//! What a layer keeps of a dense one, and the entries of every axis that stay with it.

use super::config::{Config, LayerShape};
use super::matrix::Axis;
use crate::space::UnitSpec;

/// Heads and neurons that a layer keeps of a dense one, in the order in which they are to lie.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// Query heads.
    pub heads: Vec<usize>,
    /// Key/value heads that a kept query head uses, ascending.
    pub kv_heads: Vec<usize>,
    /// Neurons.
    pub neurons: Vec<usize>,
}

impl Kept {
    /// Attention units (heads, or groups of them that share a key/value head) and neurons.
    pub fn units(config: &Config, unit: UnitSpec, attention: &[u32], neurons: &[u32]) -> Self {
        let per_unit = unit.width / config.head_width;
        let heads: Vec<usize> =
            attention.iter().flat_map(|&u| u as usize * per_unit..(u as usize + 1) * per_unit).collect();
        let mut kv_heads: Vec<usize> = heads.iter().map(|h| h / config.group()).collect();
        kv_heads.sort_unstable();
        kv_heads.dedup();
        Self { heads, kv_heads, ..Self::neurons(neurons) }
    }

    /// Neurons alone.
    pub fn neurons(neurons: &[u32]) -> Self {
        Self { neurons: neurons.iter().map(|&n| n as usize).collect(), ..Self::default() }
    }

    /// The kept entries of an axis, in order; `None` for an axis that stays whole.
    pub fn entries(&self, axis: Axis, config: &Config) -> Option<Vec<usize>> {
        let width = axis.unit_width(config)?;
        let units = match axis {
            Axis::QueryHeads => &self.heads,
            Axis::KvHeads => &self.kv_heads,
            _ => &self.neurons,
        };
        Some(units.iter().flat_map(|&u| u * width..(u + 1) * width).collect())
    }

    /// Place among the kept key/value heads of the one that each kept query head uses.
    pub fn kv_of(&self, config: &Config) -> Vec<usize> {
        let place = |h: &usize| self.kv_heads.partition_point(|&kv| kv < h / config.group());
        self.heads.iter().map(place).collect()
    }

    /// The layer's shape, for query heads that lie together by key/value head.
    pub fn shape(&self, config: &Config) -> LayerShape {
        let mut groups = vec![0; self.kv_heads.len()];
        self.kv_of(config).into_iter().for_each(|kv| groups[kv] += 1);
        LayerShape { query_heads_per_kv: groups, intermediate_size: self.neurons.len() }
    }
}
