//! Compaction: a distribution becomes a really smaller model, its heads and neurons in their original order,
//! saved as a folder.

use std::path::Path;

use safetensors::Dtype;

use super::store::Supernet;
use crate::base::Result;
use crate::model::save::{save, with_layers};
use crate::model::{Config, LayerShape, Model, Source};
use crate::space::{Distribution, ModuleId, ModuleKind, UnitSpec};
use crate::tensor::with_slice;

/// Writes the model of `distribution`: every removed unit's rows and columns are gone, the rest has the
/// supernet's weights.
///
/// # Errors
/// A level that the supernet does not hold, or a disk failure.
pub fn compact(
    model: &Model,
    source: &Source,
    supernet: &Supernet,
    distribution: &Distribution,
    dtype: Dtype,
    folder: &Path,
) -> Result<Config> {
    let kept = all_kept(supernet, distribution)?;
    let config = with_layers(model.config(), layer_shapes(model.config(), supernet, &kept));
    let compaction = Compaction { model, supernet, distribution, kept: &kept };
    save(folder, &config, source, dtype, |name, shape| compaction.tensor(name, shape))?;
    Ok(config)
}

/// What every layer of `distribution` keeps: a key/value head goes with the last of its query heads.
///
/// # Errors
/// A module of the supernet that is not there.
pub fn shapes(config: &Config, supernet: &Supernet, distribution: &Distribution) -> Result<Vec<LayerShape>> {
    Ok(layer_shapes(config, supernet, &all_kept(supernet, distribution)?))
}

/// The kept units of every module, ascending.
fn all_kept(supernet: &Supernet, distribution: &Distribution) -> Result<Vec<Vec<u32>>> {
    (0..distribution.removed.len())
        .map(|i| kept_units(supernet, distribution, ModuleId::from_index(i)))
        .collect()
}

/// The kept units of a module, ascending.
fn kept_units(supernet: &Supernet, distribution: &Distribution, module: ModuleId) -> Result<Vec<u32>> {
    let mut units = supernet.kept(module, distribution.removed[module.index()])?.to_vec();
    units.sort_unstable();
    Ok(units)
}

fn layer_shapes(config: &Config, supernet: &Supernet, kept: &[Vec<u32>]) -> Vec<LayerShape> {
    let unit = supernet.space().shape.attention;
    let shape = |l: usize| {
        let mut groups = vec![0; config.kv_heads];
        heads(&kept[2 * l], unit, config.head_width).for_each(|h| groups[h / config.group()] += 1);
        groups.retain(|&n| n > 0);
        LayerShape { query_heads_per_kv: groups, intermediate_size: kept[2 * l + 1].len() }
    };
    (0..config.layers.len()).map(shape).collect()
}

/// Query heads of attention units.
fn heads(units: &[u32], unit: UnitSpec, head_width: usize) -> impl Iterator<Item = usize> {
    let per_unit = unit.width / head_width;
    units.iter().flat_map(move |&u| u as usize * per_unit..(u as usize + 1) * per_unit)
}

struct Compaction<'a> {
    model: &'a Model,
    supernet: &'a Supernet<'a>,
    distribution: &'a Distribution,
    kept: &'a [Vec<u32>],
}

impl Compaction<'_> {
    /// A tensor of the smaller model, by name.
    fn tensor(&self, name: &str, _shape: &[usize]) -> Result<Vec<f32>> {
        let parts: Vec<&str> = name.split('.').collect();
        match parts[..] {
            ["model", "layers", layer, _, projection, what] => {
                self.projection(name, layer.parse().unwrap_or(0), projection, what)
            }
            _ => self.whole(name),
        }
    }

    fn whole(&self, name: &str) -> Result<Vec<f32>> {
        let config = self.model.config();
        let shapes = config.tensors();
        let shape = shapes.iter().find(|(n, _)| n == name).map(|(_, s)| s.clone()).unwrap_or_default();
        with_slice(&self.model.checkpoint().tensor(name, &shape, self.model.device())?, |x| Ok(x.to_vec()))
    }

    fn projection(&self, name: &str, layer: usize, projection: &str, what: &str) -> Result<Vec<f32>> {
        match (projection, what) {
            ("o_proj", "weight") => self.columns(ModuleId { layer, kind: ModuleKind::Attention }),
            ("down_proj", "weight") => self.columns(ModuleId { layer, kind: ModuleKind::Mlp }),
            ("o_proj" | "down_proj", _) => self.whole(name),
            _ => Ok(self.rows(&self.whole(name)?, layer, projection)),
        }
    }

    /// The rows of q, k, v, gate or up that stay.
    fn rows(&self, whole: &[f32], layer: usize, projection: &str) -> Vec<f32> {
        let config = self.model.config();
        let unit = self.supernet.space().shape.attention;
        let c = config.head_width;
        let attention = &self.kept[2 * layer];
        let (blocks, width, count): (Vec<usize>, usize, usize) = match projection {
            "q_proj" => (heads(attention, unit, c).collect(), c, config.heads),
            "k_proj" | "v_proj" => {
                let mut kv: Vec<usize> = heads(attention, unit, c).map(|h| h / config.group()).collect();
                kv.dedup();
                (kv, c, config.kv_heads)
            }
            _ => (self.kept[2 * layer + 1].iter().map(|&n| n as usize).collect(), 1, config.neurons),
        };
        let size = whole.len() / count; // elements of one block: `width` rows of a matrix, or as many entries of a bias
        debug_assert_eq!(size % width, 0);
        blocks.iter().flat_map(|&b| &whole[b * size..(b + 1) * size]).copied().collect()
    }

    /// A module's weight with its columns in original order.
    fn columns(&self, module: ModuleId) -> Result<Vec<f32>> {
        let removed = self.distribution.removed[module.index()];
        let width = self.supernet.space().shape.units(module.kind).width;
        let weight = self.supernet.weight(module, removed)?;
        let survivors = self.supernet.kept(module, removed)?;
        let sorted = &self.kept[module.index()];
        if sorted.is_empty() {
            return Ok(vec![]);
        }
        let place: std::collections::BTreeMap<u32, usize> =
            survivors.iter().enumerate().map(|(i, &u)| (u, i)).collect();
        let rows = weight.chunks_exact(sorted.len() * width);
        Ok(rows
            .flat_map(|row| sorted.iter().flat_map(|u| &row[place[u] * width..][..width]))
            .copied()
            .collect())
    }
}
