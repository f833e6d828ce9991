//! Measuring one model: size, perplexity, divergence from the dense one, tasks. Each measurement is a list of
//! named figures.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::base::{Error, Kind, Result, Watch};
use crate::data::{EvaluationSet, Tokenizer, Windows};
use crate::eval::effort::{Effort, Tokens};
use crate::eval::perplexity::{Mean, divergence, perplexity};
use crate::eval::published::{self, Ours};
use crate::eval::{self, Bos, Encoder, Options, Scorer, Selection};
use crate::model::{Model, Source};
use crate::serve::{self, lm_eval::Extent};
use crate::spec::{LmEval, Spec};

/// One figure of a model, not yet tied to a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// As in `results.csv`.
    pub metric: String,
    /// The value; one that is not finite survives storage.
    #[serde(with = "crate::report::number::json")]
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

    fn estimate(metric: String, e: &eval::Estimate) -> Self {
        Self { metric, value: e.value, stderr: e.stderr, n: Some(e.n as u64) }
    }
}

/// What a measurement gives: figures, the records behind them, what it took.
#[derive(Debug, Default)]
pub struct Measured {
    /// The figures.
    pub measures: Vec<Measure>,
    /// What the model made of each document, of native tasks.
    pub report: Option<eval::Report>,
    /// What answering requests took, in words.
    pub effort: Option<String>,
}

impl From<Vec<Measure>> for Measured {
    fn from(measures: Vec<Measure>) -> Self {
        Self { measures, ..Self::default() }
    }
}

/// Perplexity on one corpus.
pub fn on_corpus(model: &Model, name: &str, set: &EvaluationSet, watch: &dyn Watch) -> Result<Vec<Measure>> {
    let windows = set.0.count() as u64;
    let mean = watch.step(&format!("perplexity {name}"), windows, || perplexity(model, set, watch))?;
    Ok(vec![Measure::mean(format!("perplexity/{name}"), mean)])
}

/// KL(dense ‖ model) on the first `tokens` tokens of an evaluation set.
pub fn from_dense(
    model: &Model,
    dense: &Model,
    set: &EvaluationSet,
    tokens: usize,
    watch: &dyn Watch,
) -> Result<Vec<Measure>> {
    let count = (tokens / set.0.length).clamp(1, set.0.count());
    let part = EvaluationSet(Windows {
        tokens: set.0.tokens[..count * set.0.length].to_vec(),
        length: set.0.length,
    });
    let mean = watch.step("kl", count as u64, || divergence(model, dense, &part, watch))?;
    Ok(vec![Measure::mean("kl".into(), mean)])
}

/// Tasks and groups that a spec names, with the log of samples.
pub fn on_tasks(model: &Model, tokenizer: &Tokenizer, spec: &Spec, watch: &dyn Watch) -> Result<Measured> {
    let config = model.config();
    let started = Instant::now();
    let selection = Selection::of(spec)?;
    let bos = bos(spec, config.bos)?;
    let encoder = Encoder::new(tokenizer, bos, config.bos.or(config.eos.first().copied()));
    let options = Options { data: spec.evaluate.data.clone(), limit: spec.evaluate.limit };
    let mut scorer = Scorer::new(model);
    let report = eval::evaluate(&selection, &options, &mut scorer, &encoder, watch)?;
    let effort = Some(effort(&scorer, started.elapsed().as_secs_f64(), bos));
    Ok(Measured { measures: measures(&report), report: Some(report), effort })
}

fn effort(scorer: &Scorer, seconds: f64, bos: Bos) -> String {
    let (asked, computed) = scorer.tokens();
    let tokens = Some(Tokens { asked: asked as u64, computed: computed as u64 });
    let beginning = match bos {
        Bos::Absent => "no BOS".to_string(),
        Bos::Before(id) => format!("BOS {id} before each"),
    };
    format!("native tasks: {}; {beginning}", Effort { requests: scorer.requests() as u64, tokens, seconds })
}

fn bos(spec: &Spec, id: Option<u32>) -> Result<Bos> {
    match (spec.evaluate.bos, id) {
        (false, _) => Ok(Bos::Absent),
        (true, Some(id)) => Ok(Bos::Before(id)),
        (true, None) => Err(Error::new(Kind::Spec, "the model names no BOS token")
            .at("evaluate.bos")
            .hint("set evaluate.bos = false")),
    }
}

/// Tasks through the lm-evaluation-harness: `lm_eval:<metric>/<task>`, beside the native figures of the same
/// tasks.
pub fn on_harness(
    source: &Source,
    model: Arc<Model>,
    settings: &LmEval,
    spec: &Spec,
    watch: &dyn Watch,
) -> Result<Measured> {
    let e = &spec.evaluate;
    let started = Instant::now();
    let extent = Extent { data: e.data.as_deref(), limit: e.limit, bos: e.bos, samples: false };
    let outcome = serve::lm_eval::evaluate(source, model, settings, extent, watch)?;
    let effort = Effort { requests: outcome.prompts, tokens: None, seconds: started.elapsed().as_secs_f64() };
    let effort = Some(format!("lm_eval {}: {effort}, its start included", outcome.harness));
    let all = outcome.tasks.iter().chain(&outcome.groups);
    let measure = |task: &String, metric: &String, e: &eval::Estimate| {
        Measure::estimate(format!("lm_eval:{metric}/{task}"), e)
    };
    let measures = all
        .flat_map(|(task, values)| values.iter().map(move |(metric, e)| measure(task, metric, e)))
        .collect();
    Ok(Measured { measures, report: None, effort })
}

/// Figures of a report: each task's and group's metrics, and the mean accuracy over what was named (a group
/// counts once).
fn measures(report: &eval::Report) -> Vec<Measure> {
    let rows = report.rows();
    let of_row = |row: &eval::Row| of_estimates("", row.name, row.metrics);
    let all = rows.iter().flat_map(of_row);
    all.chain(report.mean_accuracy().map(|mean| Measure::estimate("acc_mean".into(), &mean))).collect()
}

fn of_estimates(suffix: &str, name: &str, estimates: &eval::Estimates) -> Vec<Measure> {
    estimates
        .iter()
        .map(|(metric, e)| Measure::estimate(format!("{}{suffix}/{name}", metric.name()), e))
        .collect()
}

/// What a model keeps of the dense one on the same documents: paired differences of accuracies, and the
/// retained share of their mean.
///
/// # Errors
/// The two reports are not of the same documents.
pub fn beside_dense(dense: &eval::Report, report: &eval::Report) -> Result<Vec<Measure>> {
    let eval::Comparison { differences, mean, retained } = eval::compare(dense, report)?;
    let each = differences.iter().flat_map(|(name, estimates)| of_estimates("_diff", name, estimates));
    let mean = mean.map(|mean| Measure::estimate("acc_diff_mean".into(), &mean));
    let retained = retained.map(|retained| Measure::estimate("acc_retained".into(), &retained));
    Ok(each.chain(mean).chain(retained).collect())
}

/// Warnings where figures of the dense model are far from published ones.
pub fn against_published(model: &Model, spec: &Spec, dense: &[Measure]) -> Result<Vec<String>> {
    let ours: Vec<Ours> =
        dense.iter().map(|m| Ours { metric: &m.metric, value: m.value, stderr: m.stderr }).collect();
    published::warnings(&spec.model.source, model.config(), &spec.evaluate, &ours)
}
