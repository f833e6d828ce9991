//! Differences between two models on the same documents: document by document, so that what both find hard cancels out.

use crate::base::{Error, Kind, Result};

use super::document::Sample;
use super::metric::{self, Estimate, Metric};

/// Mean of `after` − `before` over the documents of a task, with the standard error of that mean. The two must come from the same
/// documents with the same prompts. Differences of several tasks pool by [`metric::pool`].
pub fn difference(before: &[Sample], after: &[Sample], metric: Metric) -> Result<Estimate> {
    if before.len() != after.len() {
        return Err(Error::new(Kind::Data, format!("{} documents cannot be paired with {}", before.len(), after.len())));
    }
    let changes: Vec<f64> = before.iter().zip(after).map(|(b, a)| change(b, a, metric)).collect::<Result<_>>()?;
    metric::mean(&changes).ok_or_else(|| Error::new(Kind::Data, "there is no document to compare"))
}

fn change(before: &Sample, after: &Sample, metric: Metric) -> Result<f64> {
    let same = before.index == after.index && before.context_hash == after.context_hash && before.gold == after.gold;
    if !same {
        return Err(Error::new(Kind::Data, format!("document {} is not the same for both models", before.index))
            .hint("score both models with the same task files and the same limit"));
    }
    let values = after.metric(metric).zip(before.metric(metric));
    values.map(|(a, b)| a - b).ok_or_else(|| Error::new(Kind::Internal, format!("{} has no value per document", metric.name())))
}
