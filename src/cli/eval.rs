//! `tyr eval`: measures one model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::with_known;
use crate::base::{Error, Kind, Result, Watch, files};
use crate::data::inputs::evaluation_set;
use crate::data::{Tokenizer, corpus};
use crate::eval;
use crate::model::Model;
use crate::report::{Figure, Metric, Tables, event::Event};
use crate::runner::evaluate::Measured;
use crate::runner::measure::{self, OpenedModel, Recorder};
use crate::spec::{self, Corpus, LmEval, Spec};
use crate::tensor;
use crate::trial::{Evaluation, ModelName, evaluations};

#[derive(Args)]
pub(crate) struct Arguments {
    /// A model folder, `hf:OWNER/NAME` or `builtin:quickstart`
    model: String,
    /// Text file for token-level perplexity; may be repeated
    #[arg(long, value_name = "FILE")]
    text: Vec<PathBuf>,
    /// Built-in corpora for token-level perplexity, comma-separated
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    perplexity: Vec<String>,
    /// Tasks, comma-separated
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    tasks: Vec<String>,
    /// Folder of task files, laid out as on the hub
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The largest number of documents per task
    #[arg(long, default_value_t = 0)]
    limit: usize,
    /// Tokens of a sequence, at least 2
    #[arg(long, default_value_t = 256, value_parser = sequence_length)]
    sequence_length: usize,
    /// The largest number of tokens per text; 0 takes all
    #[arg(long, default_value_t = 0)]
    tokens: usize,
    /// Put BOS before every task request
    #[arg(long)]
    bos: bool,
    /// A second model, for example the dense one, to compare MODEL with document by document
    #[arg(long, value_name = "MODEL")]
    baseline: Option<String>,
    /// Write what the model made of every document of the tasks, as JSON
    #[arg(long, value_name = "FILE", requires = "tasks")]
    samples: Option<PathBuf>,
    /// Also run the tasks through the lm-evaluation-harness of this Python interpreter
    #[arg(long, value_name = "PYTHON", requires = "tasks")]
    lm_eval: Option<String>,
    /// Shots in the harness; MMLU needs 5
    #[arg(long, value_name = "SHOTS", requires = "lm_eval")]
    lm_eval_shots: Option<usize>,
    /// Print the figures as CSV
    #[arg(long)]
    csv: bool,
}

/// A sequence predicts all of its tokens but the first, so it has two at least.
fn sequence_length(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(length) if length >= 2 => Ok(length),
        Ok(_) => Err("a sequence has at least 2 tokens, of which the second is predicted".into()),
        Err(e) => Err(format!("{e}")),
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.text.is_empty() && arguments.perplexity.is_empty() && arguments.tasks.is_empty() {
        return Err(Error::new(Kind::Usage, "nothing to measure")
            .hint("name --text FILE, --perplexity quickstart or --tasks NAMES"));
    }
    let mut tables = Tables::default();
    for (model, figure) in measure_all(arguments, &super::watched())? {
        tables.add(&Event::FigureMeasured { figure: figure.of(&arguments.model, &model) });
    }
    tables.add(&Event::TrialFinished { trial: arguments.model.clone() });
    super::show(&if arguments.csv { tables.csv()? } else { tables.terminal() })
}

/// Figures of the baseline, if there is one, then of the model beside it, each with its model's name.
fn measure_all(arguments: &Arguments, watch: &dyn Watch) -> Result<Vec<(String, Figure)>> {
    let spec = spec(arguments)?;
    let samples = arguments.samples.as_deref().and_then(Path::parent);
    if let Some(folder) = samples.filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        return Err(Error::new(Kind::Disk, "no such folder for --samples").at(folder.display()));
    }
    let of = |source: &str, dense: Option<&eval::Report>| {
        let model = spec::Model { source: source.into(), ..spec.model.clone() };
        measure(&Spec { model, ..spec.clone() }, dense, watch)
    };
    let baseline = arguments.baseline.as_deref().map(|source| of(source, None)).transpose()?;
    let (dense, dense_report) = baseline.unwrap_or_default();
    let (own, report) = of(&arguments.model, dense_report.as_ref())?;
    if let Some((path, report)) = arguments.samples.as_ref().zip(report) {
        files::write_json(path, &report)?;
    }
    let named = |name: String, figures: Vec<Figure>| figures.into_iter().map(move |f| (name.clone(), f));
    Ok(named(ModelName::Dense.to_string(), dense).chain(named("model".into(), own)).collect())
}

/// The arguments as a spec, so that there is one way to evaluate.
fn spec(arguments: &Arguments) -> Result<Spec> {
    let mut spec =
        with_known(|_| spec::Inputs::default(), |known| spec::parse("", "command line", known))?.spec;
    let e = &mut spec.evaluate;
    e.limit = arguments.limit;
    e.bos = arguments.bos;
    e.tokens = arguments.tokens;
    e.sequence_length = arguments.sequence_length;
    e.tasks = arguments.tasks.clone();
    e.data = arguments.data.clone();
    e.perplexity = arguments.perplexity.clone();
    let tasks = arguments.tasks.clone();
    e.lm_eval = arguments.lm_eval.clone().map(|python| LmEval {
        url: None,
        python,
        tasks,
        num_fewshot: arguments.lm_eval_shots,
    });
    for (name, path) in text_names(&arguments.text, &arguments.perplexity)?.into_iter().zip(&arguments.text) {
        spec.evaluate.perplexity.push(name.clone());
        spec.corpora.insert(
            name,
            Corpus {
                train: vec![],
                test: vec![path.clone()],
                column: "text".into(),
                separator: "\n\n".into(),
            },
        );
    }
    Ok(spec)
}

/// A name for each text file: its stem, or where another text or corpus has that, the end of its path from
/// the file's name on that no other has.
fn text_names(paths: &[PathBuf], corpora: &[String]) -> Result<Vec<String>> {
    let parts = |path: &PathBuf| path.components().count().max(1);
    let longest = paths.iter().map(parts).max().unwrap_or_default();
    let candidates: Vec<Vec<String>> =
        (0..=longest).map(|depth| paths.iter().map(|path| end_of(path, depth)).collect()).collect();
    let taken = |name: &String| corpora.contains(name) || corpus::KNOWN.contains(&name.as_str());
    let unique = |names: &[String], i: usize| {
        !taken(&names[i]) && names.iter().filter(|other| **other == names[i]).count() == 1
    };
    let mut given: Vec<String> = Vec::new();
    for i in 0..paths.len() {
        let fits = |names: &&Vec<String>| unique(names, i) && !given.contains(&names[i]);
        let found = candidates.iter().find(fits).ok_or_else(|| {
            Error::new(Kind::Usage, "a text that is named twice, or that has the name of a built-in corpus")
                .at(format!("--text {}", paths[i].display()))
                .hint("name each file once")
        })?;
        given.push(found[i].clone());
    }
    Ok(given)
}

/// The file's stem (depth 0), or that many last parts of its path.
fn end_of(path: &Path, depth: usize) -> String {
    if depth == 0 {
        return path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    }
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts[parts.len().saturating_sub(depth)..].join("/")
}

/// The spec's model on everything that the spec evaluates, beside what the dense one made of each document.
fn measure(
    spec: &Spec,
    dense_report: Option<&eval::Report>,
    watch: &dyn Watch,
) -> Result<(Vec<Figure>, Option<eval::Report>)> {
    let source = super::model_source(&spec.model.source)?;
    let model = Arc::new(Model::open(&source, &tensor::device(spec.model.device)?)?);
    model.tell(watch);
    let tokenizer = Tokenizer::open(&source)?;
    let text = |name: &String| Ok((name.clone(), evaluation_set(spec, name, &tokenizer)?));
    let texts = spec.evaluate.perplexity.iter().map(text).collect::<Result<_>>()?;
    let parameters = Figure::exact(Metric::Parameters, model.checkpoint().parameters() as f64);
    let mut recorder = FigureCollector { figures: vec![parameters], watch };
    let opened = OpenedModel {
        source: &source,
        model,
        tokenizer: &tokenizer,
        texts: &texts,
        dense: None,
        dense_report,
    };
    // As the dense model is: there is none from which it could diverge.
    let report = measure::measure(&opened, spec, &evaluations(spec, ModelName::Dense), &mut recorder)?;
    Ok((recorder.figures, report))
}

/// Keeps no measurement, and reports notes and effort on the way.
struct FigureCollector<'a> {
    figures: Vec<Figure>,
    watch: &'a dyn Watch,
}

impl Recorder for FigureCollector<'_> {
    fn keep(
        &mut self,
        _: &Evaluation,
        work: impl FnOnce(&dyn Watch) -> Result<Measured>,
    ) -> Result<Measured> {
        let measured = work(self.watch)?;
        measured.effort.iter().for_each(|effort| self.watch.note(effort));
        Ok(measured)
    }

    fn figures(&mut self, figures: &[Figure]) -> Result<()> {
        self.figures.extend_from_slice(figures);
        Ok(())
    }

    fn warn(&mut self, message: String) -> Result<()> {
        self.watch.note(&message);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[&str], corpora: &[&str]) -> Result<Vec<String>> {
        let corpora: Vec<String> = corpora.iter().map(|c| c.to_string()).collect();
        text_names(&paths.iter().map(PathBuf::from).collect::<Vec<_>>(), &corpora)
    }

    #[test]
    fn texts_are_called_by_their_stems_or_told_apart_by_as_much_of_their_paths_as_it_takes() {
        assert_eq!(names(&["a/one.txt", "b/two.txt"], &[]).unwrap(), ["one", "two"]);
        assert_eq!(
            names(&["wikitext2/test.txt", "ptb/test.txt", "c4.json"], &[]).unwrap(),
            ["wikitext2/test.txt", "ptb/test.txt", "c4"]
        );
        assert_eq!(names(&["a.txt", "a.jsonl"], &[]).unwrap(), ["a.txt", "a.jsonl"]);
        assert_eq!(names(&["test.txt", "x/test.txt"], &[]).unwrap()[1], "x/test.txt");
        assert_eq!(names(&["a.txt", "a.json", "a.txt.gz"], &[]).unwrap(), ["a.txt", "a.json", "a.txt.gz"]);
        assert_eq!(names(&["quickstart.txt"], &["quickstart"]).unwrap(), ["quickstart.txt"]);
    }

    #[test]
    fn a_text_that_is_named_twice_is_refused() {
        for paths in [["a.txt", "a.txt"], ["x/a.txt", "x/a.txt"], ["quickstart", "b.txt"]] {
            let e = names(&paths, &[]).unwrap_err();
            assert!(e.kind == Kind::Usage && e.to_string().contains(paths[0]), "{e}");
        }
    }
}
