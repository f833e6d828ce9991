//! The weights of one layer, with heads and neurons of its own number.

use candle_core::Tensor;

use crate::base::Result;
use crate::tensor::{add_bias, linear, linear_onto};

/// A weight [out, in] with an optional bias [out].
#[derive(Debug, Clone)]
pub struct Linear {
    /// [out, in]
    pub weight: Tensor,
    /// [out]
    pub bias: Option<Tensor>,
}

impl Linear {
    /// x·Wᵀ + b for `x` [n, in].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        add_bias(linear(x, &self.weight)?, self.bias.as_ref())
    }

    pub(super) fn parts(&self) -> (&Tensor, Option<&Tensor>) {
        (&self.weight, self.bias.as_ref())
    }

    /// residual + (x·Wᵀ + b), for `residual` [n, out].
    pub fn onto(&self, residual: &Tensor, x: &Tensor) -> Result<Tensor> {
        linear_onto(residual, x, &self.weight, self.bias.as_ref())
    }

    /// The first `count` outputs.
    pub fn first_rows(&self, count: usize) -> Result<Self> {
        let bias = self.bias.as_ref().map(|b| b.narrow(0, 0, count)).transpose()?;
        Ok(Self { weight: self.weight.narrow(0, 0, count)?, bias })
    }

    /// Only some outputs (rows of the weight).
    pub fn rows(&self, rows: &Tensor) -> Result<Self> {
        let bias = self.bias.as_ref().map(|b| b.index_select(rows, 0)).transpose()?;
        Ok(Self { weight: self.weight.index_select(rows, 0)?, bias })
    }
}

/// The attention half of a layer.
#[derive(Debug, Clone)]
pub struct Attention {
    /// `input_layernorm` [d]
    pub norm: Tensor,
    /// `q_proj` [heads·c, d]
    pub q: Linear,
    /// `k_proj` [kv_heads·c, d]
    pub k: Linear,
    /// `v_proj` [kv_heads·c, d]
    pub v: Linear,
    /// `o_proj` [d, heads·c]
    pub o: Linear,
    /// Key/value head of every query head.
    pub kv_of: Vec<usize>,
}

/// The MLP half of a layer.
#[derive(Debug, Clone)]
pub struct Mlp {
    /// `post_attention_layernorm` [d]
    pub norm: Tensor,
    /// `gate_proj` [m, d]
    pub gate: Linear,
    /// `up_proj` [m, d]
    pub up: Linear,
    /// `down_proj` [d, m]
    pub down: Linear,
}

/// One layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Attention.
    pub attention: Attention,
    /// MLP.
    pub mlp: Mlp,
}
