//! Selection: the order of fitness values, and what one stage keeps.
//!
//! A stage may *race*: its tokens are read in growing parts, and after each part candidates that lose against the
//! last of those that would be kept, by more than what chance gives, are dropped (as in the Hoeffding races of
//! Maron and Moore, 1994, with paired differences).

use std::cmp::Ordering;

use super::score::FEWEST_SEQUENCES;
use super::{Draw, Evaluate, Score, StageRecord};
use crate::base::{Error, Kind, Result};
use crate::space::Candidate;

/// Parts of a stage's tokens after which a race drops candidates.
const EARLY: [f64; 2] = [0.25, 0.5];

/// A candidate with what it scored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scored {
    /// The candidate.
    pub candidate: Candidate,
    /// Its score; its fitness is never NaN after selection.
    pub score: Score,
}

/// How a stage selects.
pub(crate) struct Race<'a> {
    /// Candidates that it keeps.
    pub survivors: usize,
    /// Whether candidates are dropped before they have read all tokens.
    pub drop_early: bool,
    /// One that is kept beyond the survivors, whatever it scores.
    pub kept: Option<&'a Candidate>,
}

/// What a stage leaves behind.
pub(crate) struct Selected {
    /// The best candidates, best first, and the one that is kept whatever it scores.
    pub survivors: Vec<Scored>,
    /// What the log keeps of the stage.
    pub record: StageRecord,
}

/// Lower is better, NaN is worse than everything, infinity included.
pub(crate) fn order(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Scores `candidates` on the stage's draw and keeps the best; among equals the earlier candidate goes first.
///
/// # Errors
/// The evaluator fails, returns another number of values than candidates, or only NaN.
pub(crate) fn stage(
    evaluator: &mut (impl Evaluate + ?Sized),
    draw: &Draw,
    candidates: Vec<Candidate>,
    race: &Race,
) -> Result<Selected> {
    let count = candidates.len();
    let mut candidate_tokens = 0;
    let mut invalid = 0;
    let mut left: Vec<Scored> = vec![];
    let mut entered = candidates;
    for lap in laps(evaluator, draw, race) {
        let scores = evaluator.score(&entered, &lap)?;
        check(&scores, entered.len(), &lap)?;
        candidate_tokens += entered.len() * (lap.tokens - lap.skipped);
        left = merge(left, entered, scores, &lap);
        let all = left.len();
        left.retain(|s| !s.score.fitness.is_nan());
        invalid += all - left.len();
        left.sort_by(|a, b| order(a.score.fitness, b.score.fitness));
        drop_losers(&mut left, race);
        entered = left.iter().map(|s| s.candidate.clone()).collect();
    }
    let place = |s: &Scored| race.kept == Some(&s.candidate);
    let mut rank = 0;
    left.retain(|s| {
        rank += 1;
        rank <= race.survivors || place(s)
    });
    let survivors = left.len().min(race.survivors);
    let record = StageRecord { tokens: draw.tokens, candidate_tokens, candidates: count, invalid, survivors };
    Ok(Selected { survivors: left, record })
}

/// The parts of a draw that are read one after the other: growing ones in a race, of whole sequences.
fn laps(evaluator: &(impl Evaluate + ?Sized), draw: &Draw, race: &Race) -> Vec<Draw> {
    let mut ends = vec![];
    if let Some(length) = evaluator.sequence_length().filter(|_| race.drop_early) {
        let sequences = draw.tokens / length;
        let early = EARLY.map(|part| (part * sequences as f64) as usize);
        let enough = early.into_iter().filter(|&first| first >= FEWEST_SEQUENCES);
        ends.extend(enough.map(|sequences| sequences * length));
    }
    ends.push(draw.tokens);
    let starts = [draw.skipped].into_iter().chain(ends.clone());
    starts.zip(ends).map(|(skipped, tokens)| Draw { skipped, tokens, ..*draw }).collect()
}

/// What candidates scored before, with what they scored in a lap; they are in the same order.
fn merge(before: Vec<Scored>, candidates: Vec<Candidate>, scores: Vec<Score>, lap: &Draw) -> Vec<Scored> {
    let scored = candidates.into_iter().zip(scores);
    if before.is_empty() {
        return scored.map(|(candidate, score)| Scored { candidate, score }).collect();
    }
    let both = before.into_iter().zip(scored);
    both.map(|(mut known, (_, next))| {
        known.score.append(lap.skipped, next, lap.tokens - lap.skipped);
        known
    })
    .collect()
}

/// Leaves out candidates, sorted best first, that lose against the last of those that would be kept.
fn drop_losers(left: &mut Vec<Scored>, race: &Race) {
    let Some(last) = left.get(race.survivors.saturating_sub(1)).filter(|_| race.drop_early) else { return };
    let last = last.score.clone();
    let mut rank = 0;
    left.retain(|s| {
        rank += 1;
        rank <= race.survivors || race.kept == Some(&s.candidate) || !s.score.loses_against(&last)
    });
}

fn check(scores: &[Score], candidates: usize, draw: &Draw) -> Result<()> {
    let place = format!("generation {}, stage {}", draw.generation, draw.stage);
    if scores.len() != candidates {
        let what =
            format!("the evaluator returned {} fitness values for {candidates} candidates", scores.len());
        return Err(Error::new(Kind::Internal, what).at(place));
    }
    if scores.iter().all(|score| score.fitness.is_nan()) {
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
