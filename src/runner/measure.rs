//! Measuring a model on all that a spec asks for: the same for a trial, which keeps every measurement, and
//! for `tyr eval`, which keeps none.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::evaluate::{self, Measured};
use crate::base::{Error, Kind, Result, Watch};
use crate::data::{EvaluationSet, Tokenizer};
use crate::eval;
use crate::model::{Model, Source};
use crate::report::Figure;
use crate::spec::Spec;
use crate::trial::Evaluation;

/// An open model with what it takes to measure it.
pub struct OpenedModel<'a> {
    /// Where it comes from.
    pub source: &'a Source,
    /// The open model.
    pub model: Arc<Model>,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The evaluation sets by corpus.
    pub texts: &'a BTreeMap<String, EvaluationSet>,
    /// The dense model, from which its divergence is measured, and where it comes from.
    pub dense: Option<(&'a Source, &'a Model)>,
    /// What the dense model made of each document of the tasks, with which it is compared.
    pub dense_report: Option<&'a eval::Report>,
}

/// Who has a model measured.
pub trait Recorder {
    /// A measurement, from where it is kept or by doing the work.
    fn keep(
        &mut self,
        evaluation: &Evaluation,
        work: impl FnOnce(&dyn Watch) -> Result<Measured>,
    ) -> Result<Measured>;

    /// Figures are known.
    fn figures(&mut self, figures: &[Figure]) -> Result<()>;

    /// Something is odd.
    fn warn(&mut self, message: String) -> Result<()>;
}

/// Measures a model: the native evaluations, how far they are from published ones, then the harness. Tasks
/// are also compared with the dense model's. Gives what the model made of each document.
///
/// # Errors
/// Those of the evaluations and the recorder; the dense model's documents are others.
pub fn measure(
    of: &OpenedModel,
    spec: &Spec,
    evaluations: &[Evaluation],
    recorder: &mut impl Recorder,
) -> Result<Option<eval::Report>> {
    let is_harness = |evaluation: &&Evaluation| **evaluation == Evaluation::Harness;
    let (harness, native): (Vec<_>, Vec<_>) = evaluations.iter().partition(is_harness);
    let mut all = Vec::new();
    let mut documents = None;
    for evaluation in native {
        let measured = take(of, spec, evaluation, recorder)?;
        all.extend(measured.figures);
        if let Some(report) = measured.report {
            if let Some(dense) = of.dense_report {
                recorder.figures(&evaluate::beside_dense(dense, &report)?)?;
            }
            documents = Some(report);
        }
    }
    evaluate::against_published(&of.model, spec, &all)?.into_iter().try_for_each(|w| recorder.warn(w))?;
    for evaluation in harness {
        take(of, spec, evaluation, recorder)?;
    }
    Ok(documents)
}

/// One evaluation, kept and reported.
fn take(
    of: &OpenedModel,
    spec: &Spec,
    evaluation: &Evaluation,
    recorder: &mut impl Recorder,
) -> Result<Measured> {
    let measured = recorder.keep(evaluation, |watch| of.evaluate(evaluation, spec, watch))?;
    recorder.figures(&measured.figures)?;
    Ok(measured)
}

impl OpenedModel<'_> {
    fn evaluate(&self, evaluation: &Evaluation, spec: &Spec, watch: &dyn Watch) -> Result<Measured> {
        let model = &self.model;
        match evaluation {
            Evaluation::Perplexity(corpus) => {
                Ok(evaluate::on_corpus(model, corpus, self.text(evaluation, spec)?, watch)?.into())
            }
            Evaluation::Kl => {
                let (_, dense) = self.dense.ok_or_else(|| missing(evaluation, "the dense model"))?;
                let text = self.text(evaluation, spec)?;
                Ok(evaluate::from_dense(model, dense, text, spec.evaluate.kl_tokens, watch)?.into())
            }
            Evaluation::Tasks => evaluate::on_tasks(self.source, model, self.tokenizer, spec, watch),
            Evaluation::Harness => {
                let settings = spec.evaluate.lm_eval.as_ref();
                let settings = settings.ok_or_else(|| missing(evaluation, "its settings"))?;
                evaluate::on_harness(self.source, model.clone(), settings, spec, watch)
            }
            Evaluation::Bench => {
                let dense = self.dense.ok_or_else(|| missing(evaluation, "the dense model"))?;
                let bench =
                    spec.evaluate.bench.as_ref().ok_or_else(|| missing(evaluation, "its settings"))?;
                Ok(evaluate::timed((self.source, model), dense, bench, spec.seed, watch)?.into())
            }
        }
    }

    fn text(&self, evaluation: &Evaluation, spec: &Spec) -> Result<&EvaluationSet> {
        let text = evaluation.corpus(spec).and_then(|corpus| self.texts.get(corpus));
        text.ok_or_else(|| missing(evaluation, "its text"))
    }
}

fn missing(evaluation: &Evaluation, what: &str) -> Error {
    Error::new(Kind::Internal, format!("{what} was not read before {evaluation} was to be measured"))
}
