//! Runs tasks on a model: documents to requests, scores to samples, samples to metrics.

use std::path::PathBuf;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::base::{Error, Estimate, Kind, Result, Watch, hash};

use super::catalogue::Selection;
use super::document::{Document, Sample, log_likelihood};
use super::metric::{self, Estimates, Metric};
use super::request::{Encoder, LanguageModel, Request, Score};
use super::rolling;
use super::tasks::{Form, Source, Task, wikitext};

/// What a run of tasks reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Folder of data sets, laid out as on the hub.
    pub data: Option<PathBuf>,
    /// The largest number of documents of each task, from its start; 0 takes all.
    pub limit: usize,
}

/// Results of tasks and of groups, in the order they were selected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// One per task.
    pub tasks: Vec<TaskResult>,
    /// One per group.
    pub groups: Vec<GroupResult>,
}

/// One task on one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// Name of the task.
    pub task: String,
    /// What is reported.
    pub metrics: Estimates,
    /// What the model made of each document.
    pub samples: Samples,
}

/// The records behind a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Samples {
    /// Of a multiple-choice task.
    Choices(Vec<Sample>),
    /// Of a task over pages.
    Pages(Vec<PageSample>),
}

/// One scored page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PageSample {
    /// Place in the task, from 0.
    pub index: usize,
    /// Hash of the text that was scored.
    pub context_hash: String,
    /// Log-likelihood of the whole page, nats; one that is not finite is stored as null.
    #[serde(with = "log_likelihood")]
    pub loglikelihood: f64,
    /// Words of the original page.
    pub words: usize,
    /// UTF-8 bytes of the original page.
    pub bytes: usize,
}

/// A group of tasks, weighted by size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupResult {
    /// Name of the group.
    pub group: String,
    /// Its tasks.
    pub tasks: Vec<String>,
    /// The metrics that all of them report, pooled.
    pub metrics: Estimates,
}

/// A task or a group of a report, with the tasks behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is reported.
    pub metrics: &'a Estimates,
    /// The task itself, or the group's tasks.
    pub members: Vec<&'a TaskResult>,
    /// Whether it counts in the mean accuracy.
    pub standing: Standing,
}

/// How a task or group stands in the mean accuracy, in which every document counts through one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It counts.
    Counted,
    /// A group that holds it counts.
    Contained,
}

impl Report {
    /// Tasks, then groups.
    pub fn rows(&self) -> Vec<Row<'_>> {
        let standing = |contained: bool| if contained { Standing::Contained } else { Standing::Counted };
        let tasks = self.tasks.iter().map(|t| {
            let contained = self.groups.iter().any(|g| g.tasks.contains(&t.task));
            Row { name: &t.task, metrics: &t.metrics, members: vec![t], standing: standing(contained) }
        });
        let groups = self.groups.iter().map(|g| {
            let members = self.tasks.iter().filter(|t| g.tasks.contains(&t.task)).collect();
            Row { name: &g.group, metrics: &g.metrics, members, standing: standing(self.contained(g)) }
        });
        tasks.chain(groups).collect()
    }

    /// Whether another group holds all tasks of this one.
    fn contained(&self, group: &GroupResult) -> bool {
        self.groups
            .iter()
            .any(|g| g.tasks.len() > group.tasks.len() && group.tasks.iter().all(|t| g.tasks.contains(t)))
    }

    /// The unweighted mean of acc over tasks and groups; a group counts once and its tasks not again.
    pub fn mean_accuracy(&self) -> Option<Estimate> {
        let counted = self.rows().into_iter().filter(|row| row.standing == Standing::Counted);
        metric::mean_of_tasks(
            &counted.filter_map(|row| row.metrics.get(&Metric::Acc).copied()).collect::<Vec<_>>(),
        )
    }
}

impl Options {
    fn limit(&self) -> usize {
        if self.limit == 0 { usize::MAX } else { self.limit }
    }
}

/// Scores the selected tasks. All files are looked for before the first is scored.
pub fn evaluate(
    selection: &Selection,
    options: &Options,
    model: &mut dyn LanguageModel,
    encoder: &Encoder,
    watch: &dyn Watch,
) -> Result<Report> {
    selection.tasks.iter().try_for_each(|task| task.check(options.data.as_deref()))?;
    let run = |task: &Task| run_task(task, options, model, encoder, watch).map_err(|e| e.at(&task.name));
    let tasks: Vec<TaskResult> = selection.tasks.iter().map(run).collect::<Result<_>>()?;
    let groups = selection.groups.iter().map(|(group, members)| pool(group, members, &tasks)).collect();
    Ok(Report { tasks, groups })
}

fn pool(group: &str, members: &[String], tasks: &[TaskResult]) -> GroupResult {
    let found: Vec<&Estimates> =
        tasks.iter().filter(|t| members.contains(&t.task)).map(|t| &t.metrics).collect();
    GroupResult { group: group.into(), tasks: members.to_vec(), metrics: metric::pool_all(&found) }
}

fn run_task(
    task: &Task,
    options: &Options,
    model: &mut dyn LanguageModel,
    encoder: &Encoder,
    watch: &dyn Watch,
) -> Result<TaskResult> {
    watch.checkpoint()?;
    let mut scorer = Scorer { name: &task.name, model, encoder, watch };
    let (metrics, samples) = match &task.form {
        Form::Choice { source, metrics } => scorer.choices(source, metrics, options)?,
        Form::Pages => scorer.pages(options)?,
    };
    Ok(TaskResult { task: task.name.clone(), metrics, samples })
}

/// What scoring one task takes.
struct Scorer<'a> {
    name: &'a str,
    model: &'a mut dyn LanguageModel,
    encoder: &'a Encoder<'a>,
    watch: &'a dyn Watch,
}

impl Scorer<'_> {
    fn choices(
        &mut self,
        source: &Source,
        metrics: &[Metric],
        options: &Options,
    ) -> Result<(Estimates, Samples)> {
        let documents = source.documents(options.data.as_deref(), options.limit())?;
        let encoder = self.encoder;
        let length = self.model.context_length();
        let scores = self.score(&documents, |document: &Document| document.requests(encoder, length))?;
        let pairs = documents.iter().zip(&scores).enumerate();
        let samples: Vec<Sample> = pairs.map(|(i, (document, scores))| document.sample(i, scores)).collect();
        Ok((accuracies(&samples, metrics), Samples::Choices(samples)))
    }

    fn pages(&mut self, options: &Options) -> Result<(Estimates, Samples)> {
        let originals = wikitext::pages(options.data.as_deref(), options.limit())?;
        let texts: Vec<String> = originals.iter().map(|page| wikitext::detokenise(page)).collect();
        let encoder = self.encoder;
        let length = self.model.context_length();
        let scores = self.score(&texts, |text: &String| rolling::windows(encoder, text, length))?;
        let pages: Vec<PageSample> =
            (0..texts.len()).map(|i| page(i, &originals[i], &texts[i], &scores[i])).collect();
        if pages.is_empty() {
            return Err(Error::new(Kind::Data, "there is no page to score"));
        }
        Ok((perplexities(&pages), Samples::Pages(pages)))
    }

    /// Scores all items' requests at once and hands the scores back by item.
    fn score<T: Sync>(
        &mut self,
        items: &[T],
        requests: impl Fn(&T) -> Result<Vec<Request>> + Sync,
    ) -> Result<Vec<Vec<Score>>> {
        let numbered = items.par_iter().enumerate();
        let of_item = |(i, item): (usize, &T)| requests(item).map_err(|e| e.at(format!("document {i}")));
        let by_item: Vec<Vec<Request>> = numbered.map(of_item).collect::<Result<_>>()?;
        let counts: Vec<usize> = by_item.iter().map(Vec::len).collect();
        let mut scores = self.score_all(&by_item.concat())?.into_iter();
        Ok(counts.iter().map(|&n| scores.by_ref().take(n).collect()).collect())
    }

    fn score_all(&mut self, requests: &[Request]) -> Result<Vec<Score>> {
        let watch = self.watch;
        let scores = watch.step(self.name, requests.len() as u64, || self.model.score(requests, watch))?;
        if scores.len() != requests.len() {
            return Err(Error::new(
                Kind::Internal,
                format!("{} requests got {} scores", requests.len(), scores.len()),
            ));
        }
        Ok(scores)
    }
}

fn page(index: usize, original: &str, text: &str, scores: &[Score]) -> PageSample {
    let loglikelihood = scores.iter().map(|s| s.loglikelihood).sum();
    let context_hash = hash::of_bytes(text.as_bytes());
    PageSample { index, context_hash, loglikelihood, words: wikitext::words(original), bytes: original.len() }
}

fn perplexities(pages: &[PageSample]) -> Estimates {
    let loglikelihood = pages.iter().map(|p| p.loglikelihood).sum();
    let words = pages.iter().map(|p| p.words).sum();
    let bytes = pages.iter().map(|p| p.bytes).sum();
    metric::perplexities(loglikelihood, words, bytes, pages.len())
}

/// Means of a task's samples.
fn accuracies(samples: &[Sample], metrics: &[Metric]) -> Estimates {
    let estimate = |&m: &Metric| {
        Some((m, metric::mean(&samples.iter().map(|s| s.metric(m)).collect::<Option<Vec<f64>>>()?)?))
    };
    metrics.iter().filter_map(estimate).collect()
}
