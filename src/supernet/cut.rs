//! Physically smaller modules: the rows of q, k, v, gate and up that belong to kept units, in a given order.
//! Which rows are a unit's is what the axes of the matrices say.

use candle_core::Tensor;

use crate::base::Result;
use crate::model::kept::Kept;
use crate::model::{Attention, Config, Layer, Linear, Matrix, Mlp, Model};
use crate::space::{ModuleKind, UnitSpec};
use crate::tensor::attention::Segments;

/// The part of a layer that gives a module's inputs, cut to kept units.
#[derive(Debug, Clone)]
pub enum CutInputs {
    /// Of `o_proj`.
    Attention(Attention),
    /// Of `down_proj`.
    Mlp(Mlp),
}

impl CutInputs {
    /// What computes the inputs of the kept `units` only, unit after unit in the given order; the module itself is
    /// left whole. Key/value heads that no kept query head uses are cut too; the others lie in the order in which
    /// the units use them first.
    pub fn new(
        layer: &Layer,
        kind: ModuleKind,
        units: &[u32],
        unit: UnitSpec,
        config: &Config,
    ) -> Result<Self> {
        match kind {
            ModuleKind::Attention => Ok(Self::Attention(attention(&layer.attention, units, unit, config)?)),
            ModuleKind::Mlp => Ok(Self::Mlp(mlp(&layer.mlp, units, config)?)),
        }
    }

    /// The same for the first `units` of the given ones, without a copy.
    pub fn first(&self, units: usize, unit: UnitSpec, config: &Config) -> Result<Self> {
        let rows = units * unit.width;
        Ok(match self {
            Self::Attention(a) => {
                let kv_of = a.kv_of[..rows / config.head_width].to_vec();
                let kv_rows = kv_of.iter().max().map_or(0, |most| (most + 1) * config.head_width);
                Self::Attention(Attention {
                    norm: a.norm.clone(),
                    q: a.q.first_rows(rows)?,
                    k: a.k.first_rows(kv_rows)?,
                    v: a.v.first_rows(kv_rows)?,
                    o: a.o.clone(),
                    kv_of,
                })
            }
            Self::Mlp(m) => Self::Mlp(Mlp {
                norm: m.norm.clone(),
                gate: m.gate.first_rows(rows)?,
                up: m.up.first_rows(rows)?,
                down: m.down.clone(),
            }),
        })
    }

    /// The inputs for a hidden state [n, d]: [n, kept channels].
    pub fn of(&self, model: &Model, hidden: &Tensor, segments: &Segments) -> Result<Tensor> {
        match self {
            Self::Attention(attention) => model.attention_context(attention, hidden, segments),
            Self::Mlp(mlp) => model.mlp_activations(mlp, hidden),
        }
    }

    /// The dense module's own bias.
    pub fn own_bias(&self) -> Option<&Tensor> {
        match self {
            Self::Attention(attention) => attention.o.bias.as_ref(),
            Self::Mlp(mlp) => mlp.down.bias.as_ref(),
        }
    }
}

fn attention(attention: &Attention, units: &[u32], unit: UnitSpec, config: &Config) -> Result<Attention> {
    let mut kept = Kept::units(config, unit, units, &[]);
    let first_use = |kv: &usize| kept.heads.iter().position(|head| head / config.group() == *kv);
    kept.kv_heads.sort_by_key(first_use);
    let place = |head: &usize| kept.kv_heads.iter().position(|kv| *kv == head / config.group()).unwrap_or(0);
    Ok(Attention {
        norm: attention.norm.clone(),
        q: rows(&attention.q, Matrix::Query, &kept, config)?,
        k: rows(&attention.k, Matrix::Key, &kept, config)?,
        v: rows(&attention.v, Matrix::Value, &kept, config)?,
        o: attention.o.clone(),
        kv_of: kept.heads.iter().map(place).collect(),
    })
}

fn mlp(mlp: &Mlp, neurons: &[u32], config: &Config) -> Result<Mlp> {
    let kept = Kept::neurons(neurons);
    Ok(Mlp {
        norm: mlp.norm.clone(),
        gate: rows(&mlp.gate, Matrix::Gate, &kept, config)?,
        up: rows(&mlp.up, Matrix::Up, &kept, config)?,
        down: mlp.down.clone(),
    })
}

/// The rows of a matrix that stay.
fn rows(linear: &Linear, matrix: Matrix, kept: &Kept, config: &Config) -> Result<Linear> {
    let Some(entries) = kept.entries(matrix.axes().0, config) else { return Ok(linear.clone()) };
    let rows: Vec<u32> = entries.into_iter().map(|row| row as u32).collect();
    linear.rows(&Tensor::from_slice(&rows, rows.len(), linear.weight.device())?)
}
