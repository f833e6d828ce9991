//! Differences between two models on the same documents: document by document, so that what both find hard
//! cancels out.

use std::collections::BTreeMap;

use crate::base::{Error, Estimate, Kind, Result};

use super::document::Sample;
use super::metric::{self, Estimates, Metric};
use super::run::{Report, Row, Samples, Standing, TaskResult};

/// What one model makes of the documents on which another was evaluated before.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// `after` − `before` in the accuracies (fractions) of each task and group, by its name.
    pub differences: BTreeMap<String, Estimates>,
    /// The same of the mean accuracy; none without a task of choices.
    pub mean: Option<Estimate>,
    /// Mean accuracy divided by `before`'s (the paper's retained accuracy); none when that is zero.
    pub retained: Option<Estimate>,
}

/// Compares two evaluations of the same tasks on the same documents.
///
/// # Errors
/// The two are not of the same documents.
pub fn compare(before: &Report, after: &Report) -> Result<Comparison> {
    let mut differences = BTreeMap::new();
    let mut mean = Vec::new();
    for row in after.rows() {
        let found = row.metrics.keys().copied().filter(|metric| metric.is_accuracy());
        let of = |metric: Metric| Ok(contrast(before, &row, metric, 1.0)?.map(|estimate| (metric, estimate)));
        let found: Estimates = found.map(of).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        mean.extend(found.get(&Metric::Acc).copied().filter(|_| row.standing == Standing::Counted));
        differences.insert(row.name.to_string(), found);
    }
    differences.retain(|_, found| !found.is_empty());
    Ok(Comparison { differences, mean: metric::mean_of_tasks(&mean), retained: retained(before, after)? })
}

/// The ratio r = after / before of the mean accuracies. Its error, to the first order, is that of the paired
/// mean of after − r·before, divided by before.
fn retained(before: &Report, after: &Report) -> Result<Option<Estimate>> {
    let Some((old, new)) =
        before.mean_accuracy().zip(after.mean_accuracy()).filter(|(old, _)| old.value > 0.0)
    else {
        return Ok(None);
    };
    let ratio = new.value / old.value;
    let counted = after.rows().into_iter().filter(|row| row.standing == Standing::Counted);
    let parts: Vec<Option<Estimate>> =
        counted.map(|row| contrast(before, &row, Metric::Acc, ratio)).collect::<Result<_>>()?;
    let spread =
        metric::mean_of_tasks(&parts.into_iter().flatten().collect::<Vec<_>>()).and_then(|e| e.stderr);
    Ok(Some(Estimate { value: ratio, stderr: spread.map(|s| s / old.value), n: new.n }))
}

/// Mean of after − `scale`·before over a row's documents; a group's members are weighted by size. None for
/// tasks over pages.
fn contrast(before: &Report, row: &Row, metric: Metric, scale: f64) -> Result<Option<Estimate>> {
    let member = |after: &&TaskResult| {
        let found = before.tasks.iter().find(|t| t.task == after.task);
        let before = found.ok_or_else(|| {
            Error::new(Kind::Data, "the other model was not evaluated on this task").at(&after.task)
        })?;
        match (&before.samples, &after.samples) {
            (Samples::Choices(b), Samples::Choices(a)) => {
                of_samples(b, a, metric, scale).map(Some).map_err(|e| e.at(&after.task))
            }
            _ => Ok(None),
        }
    };
    let each: Vec<Estimate> =
        row.members.iter().map(member).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    Ok(match each[..] {
        [one] => Some(one),
        _ => metric::pool(&each),
    })
}

/// Mean of `after` − `before` over the documents of a task, with the standard error of that mean. The two
/// must come from the same documents with the same prompts. Differences of several tasks pool by
/// [`metric::pool`].
pub fn difference(before: &[Sample], after: &[Sample], metric: Metric) -> Result<Estimate> {
    of_samples(before, after, metric, 1.0)
}

fn of_samples(before: &[Sample], after: &[Sample], metric: Metric, scale: f64) -> Result<Estimate> {
    if before.len() != after.len() {
        return Err(Error::new(
            Kind::Data,
            format!("{} documents cannot be paired with {}", before.len(), after.len()),
        )
        .hint("score both models with the same task files and the same limit"));
    }
    let changes: Vec<f64> =
        before.iter().zip(after).map(|(b, a)| change(b, a, metric, scale)).collect::<Result<_>>()?;
    metric::mean(&changes).ok_or_else(|| Error::new(Kind::Data, "there is no document to compare"))
}

fn change(before: &Sample, after: &Sample, metric: Metric, scale: f64) -> Result<f64> {
    let same =
        before.index == after.index && before.context_hash == after.context_hash && before.gold == after.gold;
    if !same {
        return Err(Error::new(
            Kind::Data,
            format!("document {} is not the same for both models", before.index),
        )
        .hint("score both models with the same task files and the same limit"));
    }
    let values = after.metric(metric).zip(before.metric(metric));
    values
        .map(|(a, b)| a - scale * b)
        .ok_or_else(|| Error::new(Kind::Internal, format!("{} has no value per document", metric.name())))
}
