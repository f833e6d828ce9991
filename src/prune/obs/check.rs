//! What a problem and the settings must satisfy before any arithmetic.

use super::{Obs, Problem};
use crate::base::{Error, Kind, Result};
use crate::prune::check::{finite, misfit, requests_fit, units_fit};
use crate::prune::gram::Sums;

pub(super) fn inputs(problem: &Problem, obs: &Obs, removed: &[usize]) -> Result<()> {
    settings_hold(obs, problem)?;
    shapes_fit(problem)?;
    requests_fit(problem.units, problem.groups, removed)?;
    finite("the Gram matrix X̃ᵀX̃", problem.gram.as_ref())?;
    finite("the weight", problem.weight.as_ref())?;
    problem
        .correlation
        .as_ref()
        .map_or(Ok(()), |correlation| finite("the correlation X̃ᵀY", correlation.as_ref()))?;
    diagonal_holds(problem)
}

fn settings_hold(obs: &Obs, problem: &Problem) -> Result<()> {
    if !obs.saliency.first_order && !obs.saliency.second_order {
        return Err(Error::new(Kind::Spec, "no term of the saliency is on")
            .at("prune.saliency")
            .hint("set first_order or second_order to true"));
    }
    if !(obs.damping.coefficient.is_finite() && obs.damping.coefficient >= 0.0) {
        return Err(Error::new(Kind::Spec, format!("{} is no damping coefficient", obs.damping.coefficient))
            .at("prune.damping"));
    }
    if obs.step(problem.kind) == 0 {
        return Err(Error::new(Kind::Spec, "a step removes no unit")
            .at("prune.step")
            .hint("set it to 1 or more"));
    }
    Ok(())
}

fn shapes_fit(problem: &Problem) -> Result<()> {
    units_fit(problem.units, &problem.weight)?;
    let d_in = problem.weight.nrows();
    let d_out = problem.weight.ncols();
    if (problem.gram.nrows(), problem.gram.ncols()) != (d_in, d_in) {
        let what = format!("a Gram matrix of {} x {}", problem.gram.nrows(), problem.gram.ncols());
        return Err(misfit(what, &problem.weight));
    }
    match &problem.correlation {
        Some(c) if (c.nrows(), c.ncols()) != (d_in, d_out) => {
            Err(misfit(format!("a correlation of {} x {}", c.nrows(), c.ncols()), &problem.weight))
        }
        _ => Ok(()),
    }
}

/// A channel's sum of squares is not negative. It is zero where the channel is, of every channel where a
/// module's inputs are always zero.
fn diagonal_holds(problem: &Problem) -> Result<()> {
    if problem.gram.diagonal().column_vector().iter().any(|&value| value < 0.0) {
        return Err(Error::new(Kind::Numeric, "the Gram matrix X̃ᵀX̃ has a negative diagonal"));
    }
    Ok(())
}

/// Whether the sums are over any row.
pub(super) fn tokens_seen(sums: &Sums) -> Result<()> {
    if sums.rows == 0 {
        return Err(Error::new(Kind::Numeric, "no token was seen").hint("calibrate on at least one token"));
    }
    Ok(())
}
