//! Measuring one model: size, perplexity, divergence from the dense one, tasks. Each measurement is a list of
//! named figures.

use std::sync::Arc;
use std::time::Instant;

use crate::base::{Error, Kind, Result, Watch};
use crate::bench::{self, Workload};
use crate::data::{EvaluationSet, Sequences, SpecialTokens, Tokenizer};
use crate::eval::effort::{Effort, Tokens};
use crate::eval::perplexity::{divergence, perplexity};
use crate::eval::{self, Bos, Encoder, Options, Scorer, Selection};
use crate::model::{Model, Source};
use crate::report::{Figure, Metric, published, speed};
use crate::serve::{self, lm_eval::HarnessOptions};
use crate::spec::{self, LmEval, Spec};
use crate::trial::kl_sequences;

/// What a measurement gives: figures, the records behind them, what it took.
#[derive(Debug, Default)]
pub struct Measured {
    /// The figures.
    pub figures: Vec<Figure>,
    /// What the model made of each document, of native tasks.
    pub report: Option<eval::Report>,
    /// What answering requests took, in words.
    pub effort: Option<String>,
}

impl From<Vec<Figure>> for Measured {
    fn from(figures: Vec<Figure>) -> Self {
        Self { figures, ..Self::default() }
    }
}

/// Perplexity on one corpus.
pub fn on_corpus(model: &Model, name: &str, set: &EvaluationSet, watch: &dyn Watch) -> Result<Vec<Figure>> {
    let sequences = set.0.count() as u64;
    let mean = watch.step(&format!("perplexity {name}"), sequences, || perplexity(model, set, watch))?;
    Ok(vec![Figure::new(Metric::Perplexity(name.into()), mean)])
}

/// KL(dense ‖ model) on the first `tokens` tokens of an evaluation set.
pub fn from_dense(
    model: &Model,
    dense: &Model,
    set: &EvaluationSet,
    tokens: usize,
    watch: &dyn Watch,
) -> Result<Vec<Figure>> {
    let count = kl_sequences(tokens, set.0.length, set.0.count());
    let part = EvaluationSet(Sequences {
        tokens: set.0.tokens[..count * set.0.length].to_vec(),
        length: set.0.length,
    });
    let mean = watch.step("kl", count as u64, || divergence(model, dense, &part, watch))?;
    Ok(vec![Figure::new(Metric::Kl, mean)])
}

/// Tasks and groups that a spec names, with the log of samples.
pub fn on_tasks(
    source: &Source,
    model: &Model,
    tokenizer: &Tokenizer,
    spec: &Spec,
    watch: &dyn Watch,
) -> Result<Measured> {
    let special = SpecialTokens::of(source, model.config(), tokenizer)?;
    let started = Instant::now();
    let selection = Selection::of(spec)?;
    let bos = bos(spec, special.bos)?;
    let encoder = Encoder::new(tokenizer, bos, special.prefix());
    let options = Options { data: spec.evaluate.data.clone(), limit: spec.evaluate.limit };
    let mut scorer = Scorer::new(model);
    let report = eval::evaluate(&selection, &options, &mut scorer, &encoder, watch)?;
    let effort = Some(effort(&scorer, started.elapsed().as_secs_f64(), bos));
    Ok(Measured { figures: figures(&report), report: Some(report), effort })
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
    let options = HarnessOptions { data: e.data.as_deref(), limit: e.limit, bos: e.bos, samples: false };
    let outcome = serve::lm_eval::evaluate(source, model, settings, options, watch)?;
    let effort = Effort { requests: outcome.prompts, tokens: None, seconds: started.elapsed().as_secs_f64() };
    let effort = Some(format!("lm_eval {}: {effort}, its start included", outcome.harness));
    let all = outcome.tasks.iter().chain(&outcome.groups);
    let figures = all
        .flat_map(|(task, values)| values.iter().map(move |v| (task, v)))
        .map(|(task, (metric, estimate))| Figure::new(Metric::harness(metric, task), *estimate))
        .collect();
    Ok(Measured { figures, report: None, effort })
}

/// How fast a model writes beside the dense one, timed in turn, and what each takes alone.
pub fn timed(
    (source, model): (&Source, &Model),
    (dense_source, dense): (&Source, &Model),
    settings: &spec::Bench,
    seed: u64,
    watch: &dyn Watch,
) -> Result<Vec<Figure>> {
    let workloads = Workload::all(settings);
    let measured = || {
        let sources = [("dense", dense_source), ("pruned", source)];
        let sizes = bench::sizes(&sources, model.device(), &workloads, seed, watch)?;
        let models = [("dense", dense), ("pruned", model)].into_iter().zip(sizes);
        let models = models.map(|((name, model), size)| (name.into(), model, size));
        bench::run(models.collect(), &workloads, settings.repeats, seed, watch)
    };
    let key = |e: Error| match e.kind {
        Kind::Usage => Error { kind: Kind::Spec, ..e }.at("evaluate.bench"),
        _ => e,
    };
    Ok(speed::figures(&measured().map_err(key)?))
}

/// Figures of a report: each task's and group's metrics, and the mean accuracy over what was named (a group
/// counts once).
fn figures(report: &eval::Report) -> Vec<Figure> {
    let rows = report.rows();
    let all = rows.iter().flat_map(|row| of_estimates(Metric::Task, row.name, row.metrics));
    all.chain(report.mean_accuracy().map(|mean| Figure::new(Metric::MeanAccuracy, mean))).collect()
}

fn of_estimates(
    metric: fn(eval::Metric, String) -> Metric,
    name: &str,
    estimates: &eval::Estimates,
) -> Vec<Figure> {
    estimates.iter().map(|(&of, &estimate)| Figure::new(metric(of, name.into()), estimate)).collect()
}

/// What a model keeps of the dense one on the same documents: paired differences of accuracies, and the
/// retained accuracy of their mean.
///
/// # Errors
/// The two reports are not of the same documents.
pub fn beside_dense(dense: &eval::Report, report: &eval::Report) -> Result<Vec<Figure>> {
    let eval::Comparison { differences, mean, retained } = eval::compare(dense, report)?;
    let each =
        differences.iter().flat_map(|(name, estimates)| of_estimates(Metric::Difference, name, estimates));
    let mean = mean.map(|mean| Figure::new(Metric::MeanDifference, mean));
    let retained = retained.map(|retained| Figure::new(Metric::Retained, retained));
    Ok(each.chain(mean).chain(retained).collect())
}

/// Warnings where figures of the dense model are far from published ones.
pub fn against_published(model: &Model, spec: &Spec, dense: &[Figure]) -> Result<Vec<String>> {
    published::warnings(&spec.model.source, model.config(), &spec.evaluate, dense)
}
