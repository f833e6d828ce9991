//! Compaction: a distribution becomes a really smaller model, its heads and neurons in their original order,
//! saved as a folder. What is cut from a tensor is what the family's table says.

use std::path::Path;

use safetensors::Dtype;

use super::store::Supernet;
use crate::base::{Error, Kind, Result};
use crate::model::family::{Biases, TensorEntry};
use crate::model::kept::Kept;
use crate::model::matrix::Part;
use crate::model::save::{save, with_layers_and_biases};
use crate::model::{Config, LayerShape, Matrix, Model, Source};
use crate::space::{ModuleId, ModuleKind, SparsityDistribution};

/// Writes the model of `distribution`: every removed unit's rows and columns are dropped, the rest has the
/// supernet's weights. Returns the names of the files written.
///
/// # Errors
/// A level that the supernet does not hold, or a disk failure.
pub fn compact(
    model: &Model,
    source: &Source,
    supernet: &Supernet,
    distribution: &SparsityDistribution,
    dtype: Dtype,
    folder: &Path,
) -> Result<Vec<String>> {
    let units = all_kept(supernet, distribution)?;
    let layers = kept_layers(model.config(), supernet, &units);
    let compaction = Compaction { model, supernet, distribution, units: &units, layers: &layers };
    let shapes = layers.iter().map(|kept| kept.shape(model.config())).collect();
    let config = with_layers_and_biases(model.config(), shapes, compaction.biases()?)?;
    save(folder, &config, source, dtype, |tensor| compaction.tensor(tensor))
}

/// What every layer of `distribution` keeps: a key/value head is removed with the last of its query heads.
///
/// # Errors
/// A module of the supernet that is not there.
pub fn shapes(
    config: &Config,
    supernet: &Supernet,
    distribution: &SparsityDistribution,
) -> Result<Vec<LayerShape>> {
    let layers = kept_layers(config, supernet, &all_kept(supernet, distribution)?);
    Ok(layers.iter().map(|kept| kept.shape(config)).collect())
}

/// The kept units of every module, ascending.
fn all_kept(supernet: &Supernet, distribution: &SparsityDistribution) -> Result<Vec<Vec<u32>>> {
    (0..distribution.removed.len())
        .map(|i| kept_units(supernet, distribution, ModuleId::from_index(i)))
        .collect()
}

/// The kept units of a module, ascending.
fn kept_units(
    supernet: &Supernet,
    distribution: &SparsityDistribution,
    module: ModuleId,
) -> Result<Vec<u32>> {
    let mut units = supernet.kept(module, distribution.removed[module.index()])?.to_vec();
    units.sort_unstable();
    Ok(units)
}

/// The same as heads and neurons of every layer.
fn kept_layers(config: &Config, supernet: &Supernet, units: &[Vec<u32>]) -> Vec<Kept> {
    let unit = supernet.space().shape.attention;
    units.chunks_exact(2).map(|pair| Kept::units(config, unit, &pair[0], &pair[1])).collect()
}

struct Compaction<'a> {
    model: &'a Model,
    supernet: &'a Supernet<'a>,
    distribution: &'a SparsityDistribution,
    units: &'a [Vec<u32>],
    layers: &'a [Kept],
}

impl Compaction<'_> {
    fn removed(&self, module: ModuleId) -> usize {
        self.distribution.removed[module.index()]
    }

    fn bias(&self, module: ModuleId) -> Result<Option<Vec<f32>>> {
        self.supernet.bias(module, self.removed(module))
    }

    /// The dense model's biases, and output biases where any layer's level has one.
    fn biases(&self) -> Result<Biases> {
        let any = |kind| -> Result<bool> {
            let layers = (0..self.layers.len()).map(|layer| self.bias(ModuleId { layer, kind }));
            Ok(layers.collect::<Result<Vec<_>>>()?.iter().any(Option::is_some))
        };
        let attention_output = any(ModuleKind::Attention)?;
        let mlp_output = any(ModuleKind::Mlp)?;
        Ok(Biases { attention_output, mlp_output, ..self.model.config().biases })
    }

    /// A tensor of the smaller model: the matrices stacked in it.
    fn tensor(&self, tensor: &TensorEntry) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(tensor.shape.iter().product());
        for &matrix in tensor.rule.holds {
            values.extend(match tensor.layer {
                Some(layer) => self.matrix(matrix, tensor.rule.part, layer)?,
                None => self.whole(matrix, tensor.rule.part, 0)?,
            });
        }
        Ok(values)
    }

    /// A layer's matrix without what leaves with its units.
    fn matrix(&self, matrix: Matrix, part: Part, layer: usize) -> Result<Vec<f32>> {
        match (matrix.module(), part) {
            (Some(kind), Part::Weight) => self.columns(ModuleId { layer, kind }),
            (Some(kind), Part::Bias) => {
                let none = || vec![0.0; self.model.config().hidden];
                Ok(self.bias(ModuleId { layer, kind })?.unwrap_or_else(none))
            }
            (None, _) => self.rows(matrix, part, layer),
        }
    }

    /// A matrix of the dense model.
    fn whole(&self, matrix: Matrix, part: Part, layer: usize) -> Result<Vec<f32>> {
        let place = self.model.config().place(matrix, part, layer).ok_or_else(|| {
            Error::new(Kind::Internal, format!("the dense model has no {} to write", matrix.label()))
        })?;
        self.model.checkpoint().values(&place)
    }

    /// The rows of a matrix that stay.
    fn rows(&self, matrix: Matrix, part: Part, layer: usize) -> Result<Vec<f32>> {
        let config = self.model.config();
        let whole = self.whole(matrix, part, layer)?;
        let axis = matrix.axes().0;
        let Some(entries) = self.layers[layer].entries(axis, config) else { return Ok(whole) };
        let row = whole.len().checked_div(axis.size(config, &config.layers[layer])).unwrap_or(0);
        Ok(entries.iter().flat_map(|&entry| &whole[entry * row..(entry + 1) * row]).copied().collect())
    }

    /// A module's weight with its columns in original order.
    fn columns(&self, module: ModuleId) -> Result<Vec<f32>> {
        let removed = self.removed(module);
        let width = self.supernet.space().shape.units(module.kind).width;
        let weight = self.supernet.weight(module, removed)?;
        let survivors = self.supernet.kept(module, removed)?;
        let sorted = &self.units[module.index()];
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

#[cfg(test)]
mod tests {
    use super::super::tests::{fixture, options, tokens, worst, zero_filled_logits};
    use crate::model::Checkpoint;
    use crate::model::families::{LLAMA, MISTRAL, QWEN2};
    use crate::model::pico::Pico;
    use crate::model::tests::family::PHI3;
    use crate::spec::AttentionUnit;
    use crate::tensor::attention::Segments;

    /// Compacts a candidate that keeps everything somewhere, nothing elsewhere, and compares.
    fn compare(pico: Pico, unit: AttentionUnit) {
        let f = fixture(pico);
        let supernet = f.build("net", f.space(unit, 0.5), &options(|_, _| {}));
        let all = supernet.space().shape.attention.units as i32 / 2;
        let candidate = vec![all - 1, 0, -all, 2, all, -2];
        let small = f.compacted(&supernet, &candidate, "small");
        let file =
            Checkpoint::open(&crate::model::Source::folder(&f.dir.path().join("small")).unwrap()).unwrap();
        assert_eq!(file.parameters(), small.config().parameters().total(), "{pico:?}");
        let lost = supernet.space().distribution(&candidate).parameters(&supernet.space().shape);
        let kept = |groups: &crate::model::LayerShape| groups.kv_heads();
        if unit == AttentionUnit::KvGroup {
            assert_eq!(f.model.checkpoint().parameters() - file.parameters(), lost);
        } else {
            assert_eq!(small.config().layers.iter().map(kept).collect::<Vec<_>>()[2], 0);
        }
        let ids = tokens(40, "text");
        let logits = small.logits(&small.hidden(&ids, &Segments::sequences(1, 40)).unwrap()).unwrap();
        let difference = worst(&logits, &zero_filled_logits(&f, &supernet, &candidate, &ids));
        assert!(difference < 2e-5, "{pico:?} {unit:?}: {difference}");
    }

    #[test]
    fn the_compacted_model_equals_the_zero_filled_one_in_every_family() {
        for family in [&LLAMA, &MISTRAL, &QWEN2, &PHI3] {
            for unit in [AttentionUnit::Head, AttentionUnit::KvGroup] {
                compare(Pico { family, bias: true, tied: false, ..Pico::default() }, unit);
            }
        }
    }
}
