//! Selection: the order of fitness values, and what one stage keeps.

use std::cmp::Ordering;

use super::{Draw, Evaluate, StageRecord};
use crate::base::{Error, Kind, Result};
use crate::space::Candidate;

/// A candidate with its fitness.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scored {
    /// The candidate.
    pub candidate: Candidate,
    /// Lower is better; never NaN after selection.
    pub fitness: f64,
}

/// What a stage leaves behind.
pub(crate) struct Selected {
    /// The best candidates, best first.
    pub survivors: Vec<Scored>,
    /// What the log keeps of the stage.
    pub record: StageRecord,
}

/// Lower is better, NaN is worse than everything, infinity included.
pub(crate) fn order(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Scores `candidates` on the stage's draw and keeps the `survivors` best; among equals the earlier candidate
/// goes first.
///
/// # Errors
/// The evaluator fails, returns another number of values than candidates, or only NaN.
pub(crate) fn stage(
    evaluator: &mut (impl Evaluate + ?Sized),
    draw: &Draw,
    candidates: Vec<Candidate>,
    survivors: usize,
) -> Result<Selected> {
    let values = evaluator.fitness(&candidates, draw)?;
    check(&values, candidates.len(), draw)?;
    let count = candidates.len();
    let mut scored: Vec<Scored> = candidates
        .into_iter()
        .zip(values)
        .map(|(candidate, fitness)| Scored { candidate, fitness })
        .collect();
    scored.retain(|s| !s.fitness.is_nan());
    let invalid = count - scored.len();
    scored.sort_by(|a, b| order(a.fitness, b.fitness));
    scored.truncate(survivors);
    let record = StageRecord { tokens: draw.tokens, candidates: count, invalid, survivors: scored.len() };
    Ok(Selected { survivors: scored, record })
}

fn check(values: &[f64], candidates: usize, draw: &Draw) -> Result<()> {
    let place = format!("generation {}, stage {}", draw.generation, draw.stage);
    if values.len() != candidates {
        let what =
            format!("the evaluator returned {} fitness values for {candidates} candidates", values.len());
        return Err(Error::new(Kind::Internal, what).at(place));
    }
    if values.iter().all(|v| v.is_nan()) {
        return Err(Error::new(
            Kind::Numeric,
            format!("the fitness of all {candidates} candidates is not a number"),
        )
        .at(place)
        .hint(
            "look for NaN in the supernet's weights; more calibration tokens or a larger prune.damping help",
        ));
    }
    Ok(())
}
