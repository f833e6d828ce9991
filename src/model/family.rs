//! What a model family's checkpoint holds, as a table: for every tensor its name, the matrices stacked in it
//! (whose axes say its shape and what cuts it, [`super::matrix`]), and when it exists.
//!
//! Reader, checker, writer, counter, compaction and plan all read these tables, so that a family is added by
//! its table alone ([`super::families`]).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::config::{Config, LayerShape};
use super::keys::Keys;
use super::matrix::{Axis, Matrix, Part};
use crate::base::{Error, Kind, Result};

/// Stands for the layer's number in a tensor's name.
const LAYER: &str = "{layer}";

/// Which projections have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Biases {
    /// Queries, keys and values.
    pub qkv: bool,
    /// The attention's output projection.
    pub attention_output: bool,
    /// Gate and up projections.
    pub gate_up: bool,
    /// The MLP's output projection.
    pub mlp_output: bool,
}

/// When a tensor is part of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// In every model of the family.
    Always,
    /// When the output projection is not the embedding.
    Untied,
    /// When [`Biases::qkv`] is set.
    QkvBias,
    /// When [`Biases::attention_output`] is set.
    AttentionOutputBias,
    /// When [`Biases::gate_up`] is set.
    GateUpBias,
    /// When [`Biases::mlp_output`] is set.
    MlpOutputBias,
    /// When a key of config.json is `true`.
    Set(&'static str),
}

impl When {
    fn holds(self, config: &Config) -> bool {
        match self {
            When::Always => true,
            When::Untied => !config.tied,
            When::QkvBias => config.biases.qkv,
            When::AttentionOutputBias => config.biases.attention_output,
            When::GateUpBias => config.biases.gate_up,
            When::MlpOutputBias => config.biases.mlp_output,
            When::Set(key) => config.raw.get(key).and_then(serde_json::Value::as_bool).unwrap_or(false),
        }
    }
}

/// One row of a family's table: a tensor of the checkpoint, or one of every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorRule {
    /// Its name; `{layer}` stands for the layer's number.
    pub name: &'static str,
    /// Weight or bias.
    pub part: Part,
    /// The matrices stacked in it along their outputs, from the top: more than one in a fused tensor.
    pub holds: &'static [Matrix],
    /// When it exists.
    pub when: When,
}

/// The row of a weight or of a norm.
pub const fn weight(name: &'static str, holds: &'static [Matrix], when: When) -> TensorRule {
    TensorRule { name, part: Part::Weight, holds, when }
}

/// The row of a bias.
pub const fn bias(name: &'static str, holds: &'static [Matrix], when: When) -> TensorRule {
    TensorRule { name, part: Part::Bias, holds, when }
}

impl TensorRule {
    /// Whether every layer has one.
    pub fn is_of_layer(&self) -> bool {
        self.name.contains(LAYER)
    }

    /// The tensor of a layer (any layer does for one that is not in layers).
    fn name_in(&self, layer: usize) -> String {
        self.name.replace(LAYER, &layer.to_string())
    }

    fn shape(&self, config: &Config, layer: &LayerShape) -> Vec<usize> {
        let rows = self.holds.iter().map(|m| m.axes().0.size(config, layer)).sum();
        let columns = self.holds.first().and_then(|m| m.axes().1).filter(|_| self.part == Part::Weight);
        std::iter::once(rows).chain(columns.map(|axis| axis.size(config, layer))).collect()
    }
}

/// Where the answer to "is there such a bias?" lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// Every model of the family has it.
    Always,
    /// None has it.
    Never,
    /// The first of these keys that config.json has says; none of them means that there is no bias.
    Keys(&'static [&'static str]),
}

/// Where a family says which biases it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BiasKeys {
    /// For [`Biases::qkv`].
    pub qkv: Given,
    /// For [`Biases::attention_output`].
    pub attention_output: Given,
    /// For [`Biases::gate_up`].
    pub gate_up: Given,
    /// For [`Biases::mlp_output`].
    pub mlp_output: Given,
}

/// What a family makes of the key `sliding_window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Windows {
    /// Nothing.
    Ignored,
    /// All layers have it.
    Everywhere,
    /// `use_sliding_window` says whether layers have it, `layer_types` or `max_window_layers` which.
    Switched,
}

/// The value of a key that is not there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Preset {
    /// A size, a token.
    Whole(u64),
    /// Any number.
    Number(f64),
}

/// A model family: what differs from plain Llama, as data.
#[derive(Debug, PartialEq)]
pub struct Family {
    /// `model_type` in config.json.
    pub model_type: &'static str,
    /// Whether layers have sizes of their own, in `per_layer_config`.
    pub per_layer: bool,
    /// Sliding windows.
    pub windows: Windows,
    /// Biases.
    pub biases: BiasKeys,
    /// Values of keys that a config.json does not have: those of the family's class in transformers.
    pub defaults: &'static [(&'static str, Preset)],
    /// Keys whose role is not the usual one ([`super::keys::KEYS`]).
    pub keys: Keys,
    /// Every tensor, in the order in which we write them.
    pub tensors: &'static [TensorRule],
    /// The family that pruned models of this one are written as; this one itself where it has layers of
    /// their own sizes.
    pub pruned: Option<&'static Family>,
}

/// A tensor of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its layer, if it is in one.
    pub layer: Option<usize>,
    /// Its row in the family's table.
    pub rule: &'static TensorRule,
}

/// Where a matrix lies in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The tensor.
    pub name: String,
    /// The tensor's whole shape.
    pub tensor: Vec<usize>,
    /// The matrix' rows in it.
    pub rows: Range<usize>,
}

impl Place {
    /// Shape of the matrix.
    pub fn shape(&self) -> Vec<usize> {
        std::iter::once(self.rows.len()).chain(self.tensor[1..].iter().copied()).collect()
    }
}

impl Config {
    /// The rows of the family's table that this model has.
    pub fn rules(&self) -> impl Iterator<Item = &'static TensorRule> {
        self.family.tensors.iter().filter(|rule| rule.when.holds(self))
    }

    /// Every tensor of the checkpoint, in the order of the family's table: those of no layer, then layer by
    /// layer. What has no elements, as in a layer without attention, is no tensor of a file.
    pub fn tensors(&self) -> Vec<TensorEntry> {
        let dense = self.dense_layer();
        let entry = |rule: &'static TensorRule, layer: Option<usize>, shape: &LayerShape| TensorEntry {
            name: rule.name_in(layer.unwrap_or(0)),
            shape: rule.shape(self, shape),
            layer,
            rule,
        };
        let whole = self.rules().filter(|r| !r.is_of_layer()).map(|rule| entry(rule, None, &dense));
        let layers = self.layers.iter().enumerate().flat_map(|(l, shape)| {
            self.rules().filter(|r| r.is_of_layer()).map(move |rule| entry(rule, Some(l), shape))
        });
        whole.chain(layers).filter(|tensor| !tensor.shape.contains(&0)).collect()
    }

    /// Where a part of a matrix lies; `layer` is of no account for those that are in no layer. `None` when
    /// the model has none.
    pub fn place(&self, matrix: Matrix, part: Part, layer: usize) -> Option<Place> {
        let rule = self.rules().find(|r| r.part == part && r.holds.contains(&matrix))?;
        let dense;
        let shape = match rule.is_of_layer() {
            true => &self.layers[layer],
            false => {
                dense = self.dense_layer();
                &dense
            }
        };
        let above = rule.holds.iter().take_while(|m| **m != matrix);
        let start = above.map(|m| m.axes().0.size(self, shape)).sum();
        let rows = matrix.axes().0.size(self, shape);
        Some(Place { name: rule.name_in(layer), tensor: rule.shape(self, shape), rows: start..start + rows })
    }

    /// Where a matrix lies that no decoder does without.
    ///
    /// # Errors
    /// The family's table lacks it.
    pub fn required(&self, matrix: Matrix, layer: usize) -> Result<Place> {
        self.place(matrix, Part::Weight, layer).ok_or_else(|| {
            let what = format!("`{}` models have no {}", self.family.model_type, matrix.label());
            Error::new(Kind::Checkpoint, what).hint("this family's table of tensors is not complete")
        })
    }

    /// The matrices that the rules name, with their parts.
    pub fn pieces(&self) -> impl Iterator<Item = (Matrix, Part, &'static TensorRule)> {
        self.rules().flat_map(|rule| rule.holds.iter().map(move |&matrix| (matrix, rule.part, rule)))
    }

    /// Parameters of everything that really exists, by matrix.
    pub fn parameters(&self) -> Parameters {
        let dense = self.dense_layer();
        let mut counts = [0; Matrix::ALL.len()];
        for (matrix, part, rule) in self.pieces() {
            counts[matrix as usize] += match rule.is_of_layer() {
                true => self.layers.iter().map(|shape| matrix.elements(part, self, shape)).sum(),
                false => matrix.elements(part, self, &dense),
            };
        }
        Parameters { counts }
    }

    /// Parameters of one layer.
    pub fn layer_parameters(&self, shape: &LayerShape) -> usize {
        let pieces = self.pieces().filter(|(.., rule)| rule.is_of_layer());
        pieces.map(|(matrix, part, _)| matrix.elements(part, self, shape)).sum()
    }

    /// Entries of the matrices that a token's hidden state is multiplied with in one layer.
    pub fn layer_products(&self, shape: &LayerShape) -> usize {
        let pieces = self.pieces().filter(|(matrix, part, rule)| {
            rule.is_of_layer() && *part == Part::Weight && matrix.axes().1.is_some()
        });
        pieces.map(|(matrix, part, _)| matrix.elements(part, self, shape)).sum()
    }

    /// Parameters that leave a dense layer with one unit of an axis.
    pub fn unit_parameters(&self, axis: Axis) -> usize {
        let dense = self.dense_layer();
        self.pieces().map(|(matrix, part, _)| matrix.unit_elements(part, axis, self, &dense)).sum()
    }
}

/// Parameter counts by matrix, biases with their matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    counts: [usize; Matrix::ALL.len()],
}

impl Parameters {
    /// Of one matrix in all layers.
    pub fn of(&self, matrix: Matrix) -> usize {
        self.counts[matrix as usize]
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.counts.iter().sum()
    }

    /// By kind ([`Matrix::label`]), in the order of [`Matrix::ALL`].
    pub fn by_kind(&self) -> Vec<(&'static str, usize)> {
        let mut kinds: Vec<(&'static str, usize)> = Vec::new();
        for (label, count) in Matrix::ALL.iter().map(|&m| (m.label(), self.of(m))) {
            match kinds.last_mut().filter(|(last, _)| *last == label) {
                Some((_, sum)) => *sum += count,
                None => kinds.push((label, count)),
            }
        }
        kinds
    }
}
