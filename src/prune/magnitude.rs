//! Magnitude pruning: units ranked by the L2 norm of all weights that they own, and nothing refitted.
//!
//! A head owns its columns of `o_proj` and its rows of `q_proj`, and those of `k_proj` and `v_proj` where its
//! key/value head is its own; a neuron its column of `down_proj` and its rows of `gate_proj` and `up_proj`.
//! The norm over everything that leaves together is the usual importance of a structure (the group magnitude
//! of LLM-Pruner, Ma et al. 2023, and of DepGraph, Fang et al. 2023). Biases do not count.
//!
//! Levels are columns of the dense weight as they are. No calibration text is needed, so nothing that comes
//! before a module changes what becomes of it. Ties go to the lower unit. Operations: one pass over the
//! weights.

use faer::{Mat, MatRef};

use super::check::{finite, requests_fit, units_fit};
use super::cost::{Cost, SINGLE, Size};
use super::rounds::Rounds;
use super::{Method, Module, Needs, PrunedLevel, PrunedModule, channels, keep_order};
use crate::base::{Error, Kind, Result, Work};

/// The method; it has no settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Magnitude;

impl Method for Magnitude {
    fn needs(&self) -> Needs {
        Needs { rows: true, ..Needs::default() }
    }

    fn prune(&self, module: Module, removed: &[usize]) -> Result<PrunedModule> {
        let Module { units, groups, weight, rows, .. } = module;
        units_fit(units, &weight)?;
        requests_fit(units, groups, removed)?;
        finite("the weight", weight.as_ref())?;
        let norms = norms(weight.as_ref(), &rows, units.width)?;
        let largest = removed.last().copied().unwrap_or(0);
        let keep_order = keep_order(units.count, &least(&norms, Rounds::new(units.count, groups), largest));
        let level = |&count: &usize| {
            let kept = channels(&keep_order[..units.count - count], units.width);
            let weight = Mat::from_fn(weight.ncols(), kept.len(), |i, j| weight[(kept[j], i)] as f32);
            PrunedLevel { removed: count, weight, bias: None, loss: None }
        };
        let levels = removed.iter().map(level).collect();
        Ok(PrunedModule { keep_order, levels, saliency: norms, notes: Vec::new() })
    }

    fn cost(&self, size: &Size) -> Cost {
        let needs = self.needs();
        let copies = size.made_elements(&needs);
        let work = Work { weights: 3.0 * size.d_in() * size.d_out() + copies, ..Work::default() };
        Cost { work, memory: size.problem(&needs) + copies * SINGLE }
    }
}

/// The norm of each unit from its rows of B and the squares of what it owns before the module.
fn norms(weight: MatRef<f64>, rows: &[f64], width: usize) -> Result<Vec<f64>> {
    let units = weight.nrows() / width;
    if rows.len() != units {
        let what = format!("{} norms of rows for a module of {units} units", rows.len());
        return Err(Error::new(Kind::Internal, what));
    }
    let norm = |(unit, before): (usize, &f64)| {
        (weight.subrows(unit * width, width).squared_norm_l2() + before).sqrt()
    };
    let norms: Vec<f64> = rows.iter().enumerate().map(norm).collect();
    match norms.iter().all(|norm| norm.is_finite()) {
        true => Ok(norms),
        false => Err(Error::new(Kind::Numeric, "the norm of a unit's weights is not finite")
            .hint("look for NaN or huge values in the checkpoint")),
    }
}

/// The `count` units to go, first to last: those of the smallest norm, ties to the lower unit.
fn least(norms: &[f64], rounds: Rounds, count: usize) -> Vec<u32> {
    let mut units: Vec<u32> = (0..norms.len() as u32).collect();
    units.sort_by(|&a, &b| norms[a as usize].total_cmp(&norms[b as usize]).then(a.cmp(&b)));
    rounds.order(&mut units, |&unit| unit);
    units.truncate(count);
    units
}
