//! The tasks as data: where each one's documents come from, how a row becomes a document, what is reported.

pub mod custom;
pub mod mmlu;
pub mod prompt;
pub mod quickstart;
pub mod wikitext;

use std::path::{Path, PathBuf};

use crate::base::{Error, Kind, Result};
use crate::spec;

use super::document::Document;
use super::hub::Split;
use super::metric::Metric;
use crate::data::format::Format;
use crate::data::rows::Row;

/// One task.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its name in the experiment file and in results.
    pub name: String,
    /// What is scored.
    pub form: Form,
}

/// What a task scores.
#[derive(Debug, Clone)]
pub enum Form {
    /// The choices of each document.
    Choice {
        /// Where documents come from.
        source: Source,
        /// What is reported of them.
        metrics: &'static [Metric],
    },
    /// Whole pages of WikiText-2.
    Pages,
}

/// Where documents come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A data set on disk, a document per row.
    Hub(Split, fn(&Row) -> Result<Document>),
    /// A subject of MMLU.
    Mmlu(&'static str),
    /// A file of the user's own.
    File(spec::Task),
    /// A generated task of the built-in little world, by its name there.
    Quickstart(&'static str),
    /// Documents made by the caller.
    Generated(Vec<Document>),
}

const ACC: &[Metric] = &[Metric::Acc];
const BOTH: &[Metric] = &[Metric::Acc, Metric::AccNorm];

type Line = (
    &'static str,
    &'static str,
    Option<&'static str>,
    &'static str,
    &'static [&'static str],
    fn(&Row) -> Result<Document>,
    &'static [Metric],
);

const QUESTION: &[&str] = &["question", "choices", "answerKey"];
const STEM: &[&str] = &["question_stem", "choices", "answerKey"];
const PASSAGE: &[&str] = &["passage", "question", "label"];
const ENDINGS: &[&str] = &["activity_label", "ctx_a", "ctx_b", "endings", "label"];
const SOLUTIONS: &[&str] = &["goal", "sol1", "sol2", "label"];
const SENTENCES: &[&str] = &["sentence1", "sentence2", "label"];
const OPTIONS: &[&str] = &["sentence", "option1", "option2", "answer"];

/// Name, data set, configuration, split, fields read, prompt and metrics of the tasks without examples.
#[rustfmt::skip]
const TABLE: [Line; 8] = [
    ("arc_challenge", "allenai/ai2_arc", Some("ARC-Challenge"), "test", QUESTION, prompt::arc, BOTH),
    ("arc_easy", "allenai/ai2_arc", Some("ARC-Easy"), "test", QUESTION, prompt::arc, BOTH),
    ("boolq", "aps/super_glue", Some("boolq"), "validation", PASSAGE, prompt::boolq, ACC),
    ("hellaswag", "Rowan/hellaswag", None, "validation", ENDINGS, prompt::hellaswag, BOTH),
    ("openbookqa", "allenai/openbookqa", Some("main"), "test", STEM, prompt::openbookqa, BOTH),
    ("piqa", "baber/piqa", None, "validation", SOLUTIONS, prompt::piqa, BOTH),
    ("rte", "nyu-mll/glue", Some("rte"), "validation", SENTENCES, prompt::rte, ACC),
    ("winogrande", "allenai/winogrande", Some("winogrande_xl"), "validation", OPTIONS, prompt::winogrande, ACC),
];

/// The tasks that are read from a folder of data sets, by name.
pub fn builtin() -> Vec<Task> {
    let plain = TABLE.iter().map(|&(name, dataset, config, split, columns, prompt, metrics)| {
        Task::choice(name, Source::Hub(Split { dataset, config, split, columns }, prompt), metrics)
    });
    let subjects = mmlu::SUBGROUPS.iter().flat_map(|(_, subjects)| subjects.iter());
    let subjects =
        subjects.map(|subject| Task::choice(&format!("mmlu_{subject}"), Source::Mmlu(subject), ACC));
    plain.chain(subjects).chain([Task { name: "wikitext".into(), form: Form::Pages }]).collect()
}

impl Task {
    fn choice(name: &str, source: Source, metrics: &'static [Metric]) -> Self {
        Self { name: name.into(), form: Form::Choice { source, metrics } }
    }

    /// A task over documents made by the caller; reports acc and acc_norm.
    pub fn generated(name: &str, documents: Vec<Document>) -> Self {
        Self::choice(name, Source::Generated(documents), BOTH)
    }

    /// A task over a user's file; reports acc and acc_norm.
    pub fn custom(name: &str, task: &spec::Task) -> Self {
        Self::choice(name, Source::File(task.clone()), BOTH)
    }

    /// Fails if a file that the task reads is not there, without reading any.
    pub fn check(&self, root: Option<&Path>) -> Result<()> {
        self.files(root).map(drop)
    }

    /// The data set on the hub that it comes from, if it does.
    pub fn dataset(&self) -> Option<&'static str> {
        match &self.form {
            Form::Pages => Some(wikitext::SPLIT.dataset),
            Form::Choice { source: Source::Hub(split, _), .. } => Some(split.dataset),
            Form::Choice { source: Source::Mmlu(subject), .. } => Some(mmlu::split(subject).dataset),
            Form::Choice { .. } => None,
        }
    }

    /// The files that the task reads, which must be there; a generated task has none.
    pub fn files(&self, root: Option<&Path>) -> Result<Vec<PathBuf>> {
        let found = match &self.form {
            Form::Pages => wikitext::SPLIT.files(root),
            Form::Choice { source, .. } => source.files(root),
        };
        found.map_err(|e| e.at(&self.name))
    }
}

impl Source {
    fn files(&self, root: Option<&Path>) -> Result<Vec<PathBuf>> {
        match self {
            Source::Hub(split, _) => split.files(root),
            Source::Mmlu(subject) => {
                Ok([mmlu::split(subject).files(root)?, mmlu::examples(subject).files(root)?].concat())
            }
            Source::File(task) if !task.file.is_file() => Err(no_file(&task.file)),
            Source::File(task) => match Format::of(&task.file)? {
                Format::Text => Err(Error::new(Kind::Data, "plain text is no task file")
                    .at(task.file.display())
                    .hint("`file` of the task names a .jsonl or .parquet file")),
                Format::Lines | Format::Parquet => Ok(vec![task.file.clone()]),
            },
            Source::Quickstart(_) | Source::Generated(_) => Ok(Vec::new()),
        }
    }

    /// The first `limit` documents.
    pub fn documents(&self, root: Option<&Path>, limit: usize) -> Result<Vec<Document>> {
        let documents: Vec<Document> = match self {
            Source::Hub(split, prompt) => {
                split.rows(root, limit)?.iter().map(|row| checked(row, *prompt)).collect::<Result<_>>()?
            }
            Source::Mmlu(subject) => mmlu::documents(subject, root, limit)?,
            Source::File(task) => custom::documents(task, limit)?,
            Source::Quickstart(name) => quickstart::documents(name, limit),
            Source::Generated(documents) => {
                documents.iter().take(limit).map(|d| d.clone().check()).collect::<Result<_>>()?
            }
        };
        if documents.is_empty() {
            return Err(Error::new(Kind::Data, "there is no document to score"));
        }
        Ok(documents)
    }
}

fn checked(row: &Row, prompt: fn(&Row) -> Result<Document>) -> Result<Document> {
    prompt(row)?.check().map_err(|e| e.at(row.place()))
}

fn no_file(path: &Path) -> Error {
    Error::new(Kind::Data, "there is no such file")
        .at(path.display())
        .hint("`file` of the task names a .jsonl or .parquet file")
}
