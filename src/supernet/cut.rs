//! Physically smaller modules: the rows of q, k, v, gate and up that belong to kept units, in a given order.

use candle_core::Tensor;

use crate::base::Result;
use crate::model::{Attention, Config, Mlp};
use crate::space::UnitSpec;

/// Attention that computes the context of the kept `units` only, unit after unit in the given order; `o` is
/// left whole. Key/value heads that no kept query head uses are cut too.
pub fn cut_attention(
    attention: &Attention,
    units: &[u32],
    unit: UnitSpec,
    config: &Config,
) -> Result<Attention> {
    let c = config.head_width;
    let heads: Vec<usize> = units
        .iter()
        .flat_map(|&u| {
            let n = unit.width / c;
            u as usize * n..(u as usize + 1) * n
        })
        .collect();
    let mut kv: Vec<usize> = heads.iter().map(|&h| attention.kv_of[h]).collect();
    kv.sort_unstable();
    kv.dedup();
    let kv_of = heads.iter().map(|&h| kv.partition_point(|&j| j < attention.kv_of[h])).collect();
    let q_rows = channels(&heads, c, &attention.norm)?;
    let kv_rows = channels(&kv, c, &attention.norm)?;
    Ok(Attention {
        norm: attention.norm.clone(),
        q: attention.q.rows(&q_rows)?,
        k: attention.k.rows(&kv_rows)?,
        v: attention.v.rows(&kv_rows)?,
        o: attention.o.clone(),
        kv_of,
    })
}

/// An MLP that computes the kept neurons only, in the given order; `down` is left whole.
pub fn cut_mlp(mlp: &Mlp, neurons: &[u32]) -> Result<Mlp> {
    let rows = Tensor::from_slice(neurons, neurons.len(), mlp.norm.device())?;
    Ok(Mlp {
        norm: mlp.norm.clone(),
        gate: mlp.gate.rows(&rows)?,
        up: mlp.up.rows(&rows)?,
        down: mlp.down.clone(),
    })
}

/// Rows of blocks of `width` rows each.
fn channels(blocks: &[usize], width: usize, like: &Tensor) -> Result<Tensor> {
    let rows: Vec<u32> = blocks.iter().flat_map(|&b| b * width..(b + 1) * width).map(|r| r as u32).collect();
    Ok(Tensor::from_slice(&rows, rows.len(), like.device())?)
}
