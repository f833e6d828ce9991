//! What a problem and a rule must satisfy before any arithmetic.

use faer::MatRef;

use super::{Problem, Rule};
use crate::base::{Error, Kind, Result};

pub(super) fn inputs(problem: &Problem, rule: &Rule, removed: &[usize]) -> Result<()> {
    rule_holds(rule)?;
    shapes_fit(problem, rule)?;
    requests_fit(rule, removed)?;
    finite("the Gram matrix X̃ᵀX̃", problem.gram.as_ref())?;
    finite("the weight", problem.weight.as_ref())?;
    problem
        .correlation
        .as_ref()
        .map_or(Ok(()), |correlation| finite("the correlation X̃ᵀY", correlation.as_ref()))?;
    tokens_seen(problem)
}

fn rule_holds(rule: &Rule) -> Result<()> {
    if !rule.saliency.first_order && !rule.saliency.second_order {
        return Err(Error::new(Kind::Spec, "no term of the saliency is on")
            .at("prune.saliency")
            .hint("set first_order or second_order to true"));
    }
    if !(rule.damping.share.is_finite() && rule.damping.share >= 0.0) {
        return Err(Error::new(Kind::Spec, format!("a damping of {} is no share", rule.damping.share))
            .at("prune.damping"));
    }
    if rule.step == 0 {
        return Err(Error::new(Kind::Spec, "a step removes no unit")
            .at("prune.step")
            .hint("set it to 1 or more"));
    }
    Ok(())
}

fn shapes_fit(problem: &Problem, rule: &Rule) -> Result<()> {
    let d_in = problem.weight.nrows();
    let d_out = problem.weight.ncols();
    if rule.units == 0 || rule.width == 0 || rule.units * rule.width != d_in || rule.units > u32::MAX as usize
    {
        return Err(misfit(format!("{} units of {} channels", rule.units, rule.width), d_in, d_out));
    }
    if (problem.gram.nrows(), problem.gram.ncols()) != (d_in, d_in) {
        return Err(misfit(
            format!("a Gram matrix of {} x {}", problem.gram.nrows(), problem.gram.ncols()),
            d_in,
            d_out,
        ));
    }
    match &problem.correlation {
        Some(c) if (c.nrows(), c.ncols()) != (d_in, d_out) => {
            Err(misfit(format!("a correlation of {} x {}", c.nrows(), c.ncols()), d_in, d_out))
        }
        _ => Ok(()),
    }
}

fn misfit(what: String, d_in: usize, d_out: usize) -> Error {
    Error::new(Kind::Internal, format!("{what} does not fit a module of {d_in} inputs and {d_out} outputs"))
}

fn requests_fit(rule: &Rule, removed: &[usize]) -> Result<()> {
    if let Some(&count) = removed.iter().find(|&&count| count > rule.units) {
        return Err(Error::new(
            Kind::Internal,
            format!("{count} units cannot go from a module of {}", rule.units),
        ));
    }
    if !removed.is_sorted() {
        return Err(Error::new(Kind::Internal, "the requested counts of removed units are not ascending"));
    }
    Ok(())
}

fn finite(what: &str, matrix: MatRef<f64>) -> Result<()> {
    if matrix.is_all_finite() {
        return Ok(());
    }
    Err(Error::new(Kind::Numeric, format!("{what} holds NaN or infinity"))
        .hint("look for NaN in the checkpoint and for overflow in its activations"))
}

/// A Gram matrix without a positive diagonal entry comes from no token, or from inputs that are all zero.
fn tokens_seen(problem: &Problem) -> Result<()> {
    let diagonal = || problem.gram.diagonal().column_vector().iter();
    if diagonal().any(|&value| value < 0.0) {
        return Err(Error::new(Kind::Numeric, "the Gram matrix X̃ᵀX̃ has a negative diagonal"));
    }
    if diagonal().all(|&value| value == 0.0) {
        return Err(Error::new(
            Kind::Numeric,
            "the Gram matrix X̃ᵀX̃ is zero: no token was seen, or every input is zero",
        )
        .hint("calibrate on at least one token"));
    }
    Ok(())
}
