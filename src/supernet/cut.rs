//! Physically smaller modules: the rows of q, k, v, gate and up that belong to kept units, in a given order.
//! Which rows are a unit's is what the axes of the matrices say.

use candle_core::Tensor;

use crate::base::Result;
use crate::model::kept::Kept;
use crate::model::{Attention, Config, Linear, Matrix, Mlp};
use crate::space::UnitSpec;

/// Attention that computes the context of the kept `units` only, unit after unit in the given order; `o` is
/// left whole. Key/value heads that no kept query head uses are cut too.
pub fn cut_attention(
    attention: &Attention,
    units: &[u32],
    unit: UnitSpec,
    config: &Config,
) -> Result<Attention> {
    let kept = Kept::units(config, unit, units, &[]);
    Ok(Attention {
        norm: attention.norm.clone(),
        q: rows(&attention.q, Matrix::Query, &kept, config)?,
        k: rows(&attention.k, Matrix::Key, &kept, config)?,
        v: rows(&attention.v, Matrix::Value, &kept, config)?,
        o: attention.o.clone(),
        kv_of: kept.kv_of(config),
    })
}

/// An MLP that computes the kept neurons only, in the given order; `down` is left whole.
pub fn cut_mlp(mlp: &Mlp, neurons: &[u32], config: &Config) -> Result<Mlp> {
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
