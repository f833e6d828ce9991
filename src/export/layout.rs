//! What a layer becomes in a form that knows fewer shapes than ours: for every query head, key/value head and
//! neuron that is written, the model's own, or none for one of zeros. Every form that writes other shapes
//! than the model's takes its matrices from here.
//!
//! Runtimes give query head h the key/value head h / (query heads / key/value heads). Where a layer's heads
//! lie in groups of several sizes, a size g is chosen: a key/value head with n query heads is written
//! ⌈n / g⌉ times, and its query heads fill the copies' places; what is left of the last copy are heads of
//! zeros. With N copies in all the layer's attention has 2·d·c·(g + 1)·N weights, which the choice minimises.
//! A zero head's query gives all keys the same weight and its output is multiplied by zeros, and a zero
//! neuron is silu(0)·0: the sums of a layer stay what they were.

use crate::base::Result;
use crate::model::family::TensorEntry;
use crate::model::matrix::{Axis, Part};
use crate::model::{Config, LayerShape, Matrix, Model};

/// Sources of what is written: an index into the model's own, none for zeros.
pub(super) type Sources = Vec<Option<usize>>;

/// What one layer becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// Query heads, as many for each key/value head, together by key/value head.
    pub heads: Sources,
    /// Key/value heads.
    pub kv_heads: Sources,
    /// Neurons.
    pub neurons: Sources,
}

impl Written {
    /// A layer with groups of `group` query heads.
    fn grouped(layer: &LayerShape, group: usize) -> Self {
        let mut heads = Vec::new();
        let mut kv_heads = Vec::new();
        let mut first = 0;
        for (kv, &own) in layer.query_heads_per_kv.iter().enumerate() {
            let places = own.div_ceil(group) * group;
            kv_heads.extend(std::iter::repeat_n(Some(kv), places / group));
            heads.extend((0..places).map(|place| (place < own).then_some(first + place)));
            first += own;
        }
        let neurons = (0..layer.intermediate_size).map(Some).collect();
        Self { heads, kv_heads, neurons }
    }

    /// With the cheapest groups.
    fn cheapest(layer: &LayerShape) -> Self {
        let most = layer.query_heads_per_kv.iter().copied().max().unwrap_or(1);
        let group = (1..=most).min_by_key(|&group| cost(group, copies(layer, group)));
        Self::grouped(layer, group.unwrap_or(1))
    }

    /// Fills up with heads and neurons of zeros, heads in groups of `group`.
    fn fill(&mut self, group: usize, kv_heads: usize, neurons: usize) {
        self.kv_heads.resize(kv_heads.max(self.kv_heads.len()), None);
        self.heads.resize(self.kv_heads.len() * group, None);
        self.neurons.resize(neurons.max(self.neurons.len()), None);
    }

    /// Gives an attention without heads one of zeros.
    pub(super) fn fill_attention(&mut self) {
        if self.heads.is_empty() {
            self.heads.push(None);
            self.kv_heads.push(None);
        }
    }

    /// Gives an MLP without neurons `count` of zeros.
    pub(super) fn fill_mlp(&mut self, count: usize) {
        if self.neurons.is_empty() {
            self.neurons.resize(count, None);
        }
    }

    /// Its sizes.
    pub(super) fn shape(&self) -> LayerShape {
        let group = self.heads.len().checked_div(self.kv_heads.len()).unwrap_or(0);
        LayerShape {
            query_heads_per_kv: vec![group; self.kv_heads.len()],
            intermediate_size: self.neurons.len(),
        }
    }

    /// The sources of the entries of an axis; none for an axis that stays as it is.
    fn entries(&self, axis: Axis, config: &Config) -> Option<Sources> {
        let width = axis.unit_width(config)?;
        let units = match axis {
            Axis::QueryHeads => &self.heads,
            Axis::KvHeads => &self.kv_heads,
            _ => &self.neurons,
        };
        let channels =
            |unit: &Option<usize>| (0..width).map(move |c| unit.map(|u| u * width + c)).collect::<Vec<_>>();
        Some(if width == 1 {
            units.clone()
        } else {
            units.iter().copied().flat_map(|u| channels(&u)).collect()
        })
    }
}

/// Key/value heads that a layer has in groups of `group` query heads.
fn copies(layer: &LayerShape, group: usize) -> usize {
    layer.query_heads_per_kv.iter().map(|own| own.div_ceil(group)).sum()
}

/// Weights of an attention with this many key/value heads, in units of 2·d·c; of equals that with the
/// smaller cache.
fn cost(group: usize, kv_heads: usize) -> (usize, usize) {
    ((group + 1) * kv_heads, kv_heads)
}

/// What every layer becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Layer by layer.
    pub layers: Vec<Written>,
}

impl Layout {
    /// Groups of one size inside every layer; nothing else is changed.
    pub(super) fn regular(config: &Config) -> Self {
        Self { layers: config.layers.iter().map(Written::cheapest).collect() }
    }

    /// Every layer as it is.
    pub(super) fn same(config: &Config) -> Self {
        let all = |count: usize| (0..count).map(Some).collect();
        let one = |layer: &LayerShape| Written {
            heads: all(layer.heads()),
            kv_heads: all(layer.kv_heads()),
            neurons: all(layer.intermediate_size),
        };
        Self { layers: config.layers.iter().map(one).collect() }
    }

    /// All layers with the same sizes, each at least 1: those of the layers that need most, with the cheapest
    /// groups that give an `allowed` layer. Of every size of groups those with the fewest key/value heads are
    /// tried, and those whose query heads divide the residual width. `None` where nothing is allowed.
    pub(super) fn alike(config: &Config, allowed: impl Fn(&LayerShape) -> bool) -> Option<Self> {
        let layers = &config.layers;
        let most = layers.iter().flat_map(|l| &l.query_heads_per_kv).copied().max().unwrap_or(1);
        let neurons = layers.iter().map(|l| l.intermediate_size).max().unwrap_or(0).max(1);
        let sizes = (1..=most).filter_map(|group| {
            let fewest = layers.iter().map(|l| copies(l, group)).max().unwrap_or(0).max(1);
            let divides = |kv_heads: &usize| config.hidden.is_multiple_of(group * kv_heads);
            let dividing = (fewest..=config.hidden).find(divides);
            let layer = |kv_heads: &usize| LayerShape {
                query_heads_per_kv: vec![group; *kv_heads],
                intermediate_size: neurons,
            };
            let found = std::iter::once(fewest).chain(dividing).find(|kv_heads| allowed(&layer(kv_heads)));
            found.map(|kv_heads| (group, kv_heads))
        });
        let (group, kv_heads) = sizes.min_by_key(|&(group, kv_heads)| cost(group, kv_heads))?;
        let one = |layer: &LayerShape| {
            let mut written = Written::grouped(layer, group);
            written.fill(group, kv_heads, neurons);
            written
        };
        Some(Self { layers: layers.iter().map(one).collect() })
    }

    /// Sizes of the layers.
    pub(super) fn shapes(&self) -> Vec<LayerShape> {
        self.layers.iter().map(Written::shape).collect()
    }
}

/// A model in the sizes of a layout.
pub(super) struct Rewritten<'a> {
    /// The model.
    pub model: &'a Model,
    /// What its layers become.
    pub layout: &'a Layout,
}

impl Rewritten<'_> {
    /// A tensor of the form's own table: the matrices stacked in it, row-major.
    pub(super) fn tensor(&self, tensor: &TensorEntry) -> Result<Vec<f32>> {
        let mut values = Vec::with_capacity(tensor.shape.iter().product());
        for &matrix in tensor.rule.holds {
            values.extend(self.matrix(matrix, tensor.rule.part, tensor.layer)?);
        }
        Ok(values)
    }

    /// A matrix or a bias; zeros for a bias that the model has not.
    pub(super) fn matrix(&self, matrix: Matrix, part: Part, layer: Option<usize>) -> Result<Vec<f32>> {
        let config = self.model.config();
        let place = config.place(matrix, part, layer.unwrap_or(0));
        let whole = place.map(|place| self.model.checkpoint().values(&place)).transpose()?;
        let Some(layer) = layer else {
            return Ok(
                whole.unwrap_or_else(|| vec![0.0; matrix.elements(part, config, &config.dense_layer())])
            );
        };
        let written = &self.layout.layers[layer];
        match whole {
            Some(whole) => Ok(taken(&whole, matrix, part, config, &config.layers[layer], written)),
            None => Ok(vec![0.0; matrix.elements(part, config, &written.shape())]),
        }
    }
}

/// The entries of a layer's matrix that are written, zeros between them.
fn taken(
    whole: &[f32],
    matrix: Matrix,
    part: Part,
    config: &Config,
    own: &LayerShape,
    written: &Written,
) -> Vec<f32> {
    let (rows, columns) = matrix.axes();
    let columns = columns.filter(|_| part == Part::Weight);
    let width = columns.map_or(1, |axis| axis.size(config, own));
    let all = |count: usize| (0..count).map(Some).collect::<Sources>();
    let rows = written.entries(rows, config).unwrap_or_else(|| all(rows.size(config, own)));
    let columns = columns.and_then(|axis| written.entries(axis, config)).unwrap_or_else(|| all(width));
    let mut out = Vec::with_capacity(rows.len() * columns.len());
    for row in rows {
        match row {
            None => out.resize(out.len() + columns.len(), 0.0),
            Some(row) => {
                let row = &whole[row * width..(row + 1) * width];
                out.extend(columns.iter().map(|column| column.map_or(0.0, |c| row[c])));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(groups: &[usize], neurons: usize) -> LayerShape {
        LayerShape { query_heads_per_kv: groups.to_vec(), intermediate_size: neurons }
    }

    #[test]
    fn the_cheapest_groups_are_chosen() {
        // 2 query heads each: 2 + 2 + 1 + 1 copies, 18 units; 1 each: 22, 3 each: 24, 4 each: 20.
        let written = Written::cheapest(&layer(&[4, 4, 2, 1], 3));
        assert_eq!(written.shape().query_heads_per_kv, [2; 6]);
        let kv: Vec<_> = written.kv_heads.iter().map(|kv| kv.unwrap()).collect();
        assert_eq!(kv, [0, 0, 1, 1, 2, 3]);
        let heads: Vec<_> = written.heads.iter().map(|h| h.map_or(-1, |h| h as i32)).collect();
        assert_eq!(heads, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, -1]);
    }

    #[test]
    fn regular_groups_stay_as_they_are() {
        for groups in [vec![3; 2], vec![1; 5], vec![4], vec![]] {
            let own = layer(&groups, 2);
            let written = Written::cheapest(&own);
            assert_eq!(written.shape(), own);
            assert!(written.heads.iter().chain(&written.kv_heads).all(Option::is_some));
        }
    }

    #[test]
    fn no_group_size_is_cheaper_than_the_chosen_one() {
        for groups in [[1, 5, 5, 5], [7, 1, 1, 1], [2, 3, 4, 5], [6, 6, 3, 3]] {
            let own = layer(&groups, 0);
            let shape = Written::cheapest(&own).shape();
            let chosen = shape.heads() + shape.kv_heads();
            for group in 1..=7 {
                let other = Written::grouped(&own, group).shape();
                assert!(chosen <= other.heads() + other.kv_heads(), "{groups:?} {group}");
            }
        }
    }
}
