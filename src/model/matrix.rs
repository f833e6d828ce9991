//! The matrices that a decoder may use, each with its two axes: they say its shape, the units that cut it,
//! and how many parameters leave with a unit.

use super::config::{Config, LayerShape};
use crate::space::ModuleKind;

/// One axis of a matrix: what its entries belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Tokens of the vocabulary; never cut.
    Vocabulary,
    /// Channels of the residual stream; never cut.
    Hidden,
    /// Channels of one head, shared by all heads; never cut.
    HeadWidth,
    /// Query heads, as many channels each as a head is wide.
    QueryHeads,
    /// Key/value heads, as many channels each as a head is wide.
    KvHeads,
    /// Neurons of the MLP.
    Neurons,
}

impl Axis {
    /// Entries in a layer.
    pub fn size(self, config: &Config, layer: &LayerShape) -> usize {
        match self {
            Axis::Vocabulary => config.vocabulary,
            Axis::Hidden => config.hidden,
            Axis::HeadWidth => config.head_width,
            Axis::QueryHeads => layer.heads() * config.head_width,
            Axis::KvHeads => layer.kv_heads() * config.head_width,
            Axis::Neurons => layer.intermediate_size,
        }
    }

    /// Entries that leave with one head or neuron; none for an axis that no unit cuts.
    pub fn unit_width(self, config: &Config) -> Option<usize> {
        match self {
            Axis::Vocabulary | Axis::Hidden | Axis::HeadWidth => None,
            Axis::QueryHeads | Axis::KvHeads => Some(config.head_width),
            Axis::Neurons => Some(1),
        }
    }
}

/// A matrix or vector that a decoder may use, wherever a family's checkpoint keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matrix {
    /// Queries of hidden states.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// From the heads' outputs to the residual stream.
    AttentionOutput,
    /// Gates of the neurons.
    Gate,
    /// What is gated.
    Up,
    /// From the neurons to the residual stream.
    Down,
    /// Hidden states of tokens.
    Embedding,
    /// Logits of hidden states; absent where the embedding serves.
    Output,
    /// Norm before the output projection.
    FinalNorm,
    /// Norm before attention.
    AttentionNorm,
    /// Norm before the MLP.
    MlpNorm,
    /// Norm of the attention's output, before it is added to the residual stream.
    AttentionOutputNorm,
    /// Norm of the MLP's output, before it is added to the residual stream.
    MlpOutputNorm,
    /// Norm of every query, the same for all heads.
    QueryNorm,
    /// Norm of every key, the same for all heads.
    KeyNorm,
}

impl Matrix {
    /// All of them, in the order of tables for people.
    pub const ALL: [Matrix; 16] = [
        Matrix::Query,
        Matrix::Key,
        Matrix::Value,
        Matrix::AttentionOutput,
        Matrix::Gate,
        Matrix::Up,
        Matrix::Down,
        Matrix::Embedding,
        Matrix::Output,
        Matrix::FinalNorm,
        Matrix::AttentionNorm,
        Matrix::MlpNorm,
        Matrix::AttentionOutputNorm,
        Matrix::MlpOutputNorm,
        Matrix::QueryNorm,
        Matrix::KeyNorm,
    ];

    /// Its outputs (rows; the entries of a vector and of a bias) and its inputs (columns).
    pub fn axes(self) -> (Axis, Option<Axis>) {
        use Matrix::*;
        match self {
            Embedding | Output => (Axis::Vocabulary, Some(Axis::Hidden)),
            Query => (Axis::QueryHeads, Some(Axis::Hidden)),
            Key | Value => (Axis::KvHeads, Some(Axis::Hidden)),
            AttentionOutput => (Axis::Hidden, Some(Axis::QueryHeads)),
            Gate | Up => (Axis::Neurons, Some(Axis::Hidden)),
            Down => (Axis::Hidden, Some(Axis::Neurons)),
            FinalNorm | AttentionNorm | MlpNorm | AttentionOutputNorm | MlpOutputNorm => (Axis::Hidden, None),
            QueryNorm | KeyNorm => (Axis::HeadWidth, None),
        }
    }

    /// The module whose levels give this matrix in a pruned model: the one whose inputs units cut.
    pub fn module(self) -> Option<ModuleKind> {
        match self.axes().1 {
            Some(Axis::QueryHeads) => Some(ModuleKind::Attention),
            Some(Axis::Neurons) => Some(ModuleKind::Mlp),
            _ => None,
        }
    }

    /// The matrix that writes a module's output.
    pub fn output_of(kind: ModuleKind) -> Self {
        match kind {
            ModuleKind::Attention => Matrix::AttentionOutput,
            ModuleKind::Mlp => Matrix::Down,
        }
    }

    /// Its kind in tables for people, by the name that most checkpoints give it.
    pub fn label(self) -> &'static str {
        use Matrix::*;
        match self {
            Query => "q_proj",
            Key => "k_proj",
            Value => "v_proj",
            AttentionOutput => "o_proj",
            Gate => "gate_proj",
            Up => "up_proj",
            Down => "down_proj",
            Embedding => "embed_tokens",
            Output => "lm_head",
            FinalNorm | AttentionNorm | MlpNorm | AttentionOutputNorm | MlpOutputNorm | QueryNorm
            | KeyNorm => "norms",
        }
    }

    /// Entries of a matrix, or of its bias.
    pub fn elements(self, part: Part, config: &Config, layer: &LayerShape) -> usize {
        let (rows, columns) = self.axes();
        rows.size(config, layer) * columns_of(columns, part, config, layer)
    }

    /// Entries that leave with one unit of `axis`.
    pub fn unit_elements(self, part: Part, axis: Axis, config: &Config, layer: &LayerShape) -> usize {
        let (rows, columns) = self.axes();
        let width = axis.unit_width(config).unwrap_or(0);
        match part {
            _ if rows == axis => width * columns_of(columns, part, config, layer),
            Part::Weight if columns == Some(axis) => width * rows.size(config, layer),
            _ => 0,
        }
    }
}

/// Columns of a part; 1 for vectors and biases.
fn columns_of(columns: Option<Axis>, part: Part, config: &Config, layer: &LayerShape) -> usize {
    match (part, columns) {
        (Part::Weight, Some(axis)) => axis.size(config, layer),
        _ => 1,
    }
}

/// Which part of a linear map a tensor holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The matrix itself, or a norm's vector.
    Weight,
    /// One number for each of its outputs.
    Bias,
}
