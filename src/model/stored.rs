//! A layer whose matrices stay as they are stored, for products of a few rows.
//!
//! Nothing is kept and nothing converted in advance: a model of any size writes a token by reading its weights
//! once.

use candle_core::Tensor;

use super::decoder::Model;
use super::matrix::{Matrix, Part};
use crate::base::Result;
use crate::tensor::stored::{Stored, linear_stored};
use crate::tensor::{add_bias, rms_norm};

/// One layer.
pub struct StoredLayer<'a> {
    model: &'a Model,
    layer: usize,
    /// Key/value head of every query head.
    pub kv_of: Vec<usize>,
}

impl StoredLayer<'_> {
    /// A norm's weight [d].
    pub fn norm(&self, matrix: Matrix) -> Result<Tensor> {
        self.model
            .checkpoint()
            .tensor(&self.model.config().required(matrix, self.layer)?, self.model.device())
    }

    /// x·Wᵀ + b for `x` [n, in] on the host.
    ///
    /// # Errors
    /// The checkpoint lacks the matrix. That its entries are numbers is not checked: what is computed with them
    /// is, where it is used.
    pub fn product(&self, matrix: Matrix, x: &Tensor) -> Result<Tensor> {
        let bias = self.model.config().place(matrix, Part::Bias, self.layer);
        let bias =
            bias.map(|place| self.model.checkpoint().tensor(&place, self.model.device())).transpose()?;
        add_bias(linear_stored(x, &self.model.stored(matrix, self.layer)?)?, bias.as_ref())
    }
}

impl Model {
    /// A layer, for products of a few rows on the host.
    pub fn stored_layer(&self, layer: usize) -> StoredLayer<'_> {
        StoredLayer { model: self, layer, kv_of: self.config().layers[layer].kv_of() }
    }

    fn stored(&self, matrix: Matrix, layer: usize) -> Result<Stored<'_>> {
        let place = self.config().required(matrix, layer)?;
        let (dtype, bytes) = self.checkpoint().rows(&place)?;
        Stored::new(dtype, bytes, place.rows.len(), place.tensor[1..].iter().product())
    }

    /// Logits [n, V] of the last tokens of a few texts, from the last layer's output [n, d] on the host.
    pub fn few_logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let norm = self.config().required(Matrix::FinalNorm, 0)?;
        let norm = self.checkpoint().tensor(&norm, self.device())?;
        let output = self.stored(self.output_matrix(), 0)?;
        linear_stored(&rms_norm(hidden, &norm, self.config().norm_epsilon)?, &output)
    }
}
