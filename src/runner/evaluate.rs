//! Measuring one model: size, perplexity, divergence from the dense one, tasks. Each measurement is a list of named figures.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::{Error, Kind, Result, Watch};
use crate::data::{EvaluationSet, Tokenizer, Windows};
use crate::eval::perplexity::{Mean, divergence, perplexity};
use crate::eval::{self, Bos, Catalogue, Encoder, Options, Scorer};
use crate::model::{Model, Source};
use crate::serve::{self, lm_eval::Extent};
use crate::spec::{LmEval, Spec};

/// One figure of a model, not yet tied to a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// As in `results.csv`.
    pub metric: String,
    /// The value.
    pub value: f64,
    /// Standard error.
    pub stderr: Option<f64>,
    /// What it is a mean over.
    pub n: Option<u64>,
}

impl Measure {
    /// A figure without an error.
    pub fn exact(metric: &str, value: f64) -> Self {
        Self { metric: metric.into(), value, stderr: None, n: None }
    }

    fn mean(metric: String, mean: Mean) -> Self {
        Self { metric, value: mean.value, stderr: mean.stderr, n: Some(mean.n as u64) }
    }
}

/// Perplexity on one corpus.
pub fn on_corpus(model: &Model, name: &str, set: &EvaluationSet, watch: &dyn Watch) -> Result<Vec<Measure>> {
    watch.begin(&format!("perplexity {name}"), set.0.count() as u64);
    let mean = perplexity(model, set, watch);
    watch.end();
    Ok(vec![Measure::mean(format!("perplexity/{name}"), mean?)])
}

/// KL(dense ‖ model) on the first `tokens` tokens of an evaluation set.
pub fn from_dense(model: &Model, dense: &Model, set: &EvaluationSet, tokens: usize, watch: &dyn Watch) -> Result<Vec<Measure>> {
    let count = (tokens / set.0.length).clamp(1, set.0.count());
    let part = EvaluationSet(Windows { tokens: set.0.tokens[..count * set.0.length].to_vec(), length: set.0.length });
    watch.begin("kl", count as u64);
    let mean = divergence(model, dense, &part, watch);
    watch.end();
    Ok(vec![Measure::mean("kl".into(), mean?)])
}

/// Tasks and groups that a spec names, with the log of samples.
pub fn on_tasks(model: &Model, tokenizer: &Tokenizer, spec: &Spec, watch: &dyn Watch) -> Result<(Vec<Measure>, eval::Report)> {
    let config = model.config();
    let selection = Catalogue::builtin().with_custom(&spec.tasks)?.select(&spec.evaluate.tasks)?;
    let bos = match (spec.evaluate.bos, config.bos) {
        (false, _) => Bos::Absent,
        (true, Some(id)) => Bos::Before(id),
        (true, None) => {
            return Err(Error::new(Kind::Spec, "the model names no BOS token").at("evaluate.bos").hint("set evaluate.bos = false"));
        }
    };
    let encoder = Encoder::new(tokenizer, bos, config.bos.or(config.eos.first().copied()));
    let options = Options { data: spec.evaluate.data.clone(), limit: spec.evaluate.limit };
    let report = eval::evaluate(&selection, &options, &mut Scorer::new(model), &encoder, watch)?;
    Ok((measures(&report), report))
}

/// Tasks through the lm-evaluation-harness: `lm_eval:<metric>/<task>`, beside the native figures of the same tasks.
pub fn on_harness(source: &Source, model: Arc<Model>, settings: &LmEval, spec: &Spec, watch: &dyn Watch) -> Result<Vec<Measure>> {
    let e = &spec.evaluate;
    let extent = Extent { data: e.data.as_deref(), limit: e.limit, bos: e.bos, samples: false };
    let outcome = serve::lm_eval::evaluate(source, model, settings, extent, watch)?;
    let all = outcome.tasks.iter().chain(&outcome.groups);
    let measure = |task: &String, metric: &String, e: &eval::Estimate| Measure {
        metric: format!("lm_eval:{metric}/{task}"),
        value: e.value,
        stderr: e.stderr,
        n: Some(e.n as u64),
    };
    Ok(all.flat_map(|(task, values)| values.iter().map(move |(metric, e)| measure(task, metric, e))).collect())
}

/// Figures of a report: each task's and group's metrics, and the mean accuracy over what was named (a group counts once).
fn measures(report: &eval::Report) -> Vec<Measure> {
    let grouped: Vec<&String> = report.groups.iter().flat_map(|g| &g.tasks).collect();
    let tasks = report.tasks.iter().map(|t| (&t.task, &t.metrics, !grouped.contains(&&t.task)));
    let groups = report.groups.iter().map(|g| (&g.group, &g.metrics, !contained(g, report)));
    let (mut all, mut accuracies) = (Vec::new(), Vec::new());
    for (name, metrics, counts) in tasks.chain(groups) {
        all.extend(metrics.iter().map(|(metric, e)| Measure {
            metric: format!("{}/{name}", metric.name()),
            value: e.value,
            stderr: e.stderr,
            n: Some(e.n as u64),
        }));
        accuracies.extend(metrics.get(&eval::Metric::Acc).filter(|_| counts));
    }
    all.extend(mean_accuracy(&accuracies));
    all
}

/// Whether another group of the report holds all tasks of this one.
fn contained(group: &eval::GroupResult, report: &eval::Report) -> bool {
    report.groups.iter().any(|g| g.tasks.len() > group.tasks.len() && group.tasks.iter().all(|t| g.tasks.contains(t)))
}

/// The unweighted mean over tasks, its standard error from the tasks' own.
fn mean_accuracy(accuracies: &[&eval::Estimate]) -> Option<Measure> {
    let n = accuracies.len() as f64;
    if accuracies.is_empty() {
        return None;
    }
    let value = accuracies.iter().map(|e| e.value).sum::<f64>() / n;
    let variance: Option<f64> = accuracies.iter().map(|e| e.stderr.map(|s| s * s)).sum();
    let count = accuracies.iter().map(|e| e.n as u64).sum();
    Some(Measure { metric: "acc_mean".into(), value, stderr: variance.map(|v| v.sqrt() / n), n: Some(count) })
}
