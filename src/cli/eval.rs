//! `tyr eval`: measures one model.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::with_known;
use crate::base::{Error, Kind, Result, Watch, files};
use crate::data::Tokenizer;
use crate::data::inputs::evaluation_set;
use crate::eval;
use crate::model::{Model, Source};
use crate::report::{Figure, Metric, Tables, event::Event};
use crate::runner::evaluate::Measured;
use crate::runner::measure::{self, OpenedModel, Recorder};
use crate::spec::{self, Corpus, LmEval, Spec};
use crate::tensor;
use crate::trial::{Evaluation, ModelName, evaluations};

#[derive(Args)]
pub struct Arguments {
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
    /// At most so many documents per task
    #[arg(long, default_value_t = 0)]
    limit: usize,
    /// Tokens of a window
    #[arg(long, default_value_t = 256)]
    sequence_length: usize,
    /// At most so many tokens per text; 0 takes all
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

pub fn run(arguments: &Arguments) -> Result<()> {
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
    let mut spec = with_known(|known| spec::parse("", "command line", known))?.spec;
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
    for path in &arguments.text {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
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

/// The spec's model on everything that the spec evaluates, beside what the dense one made of each document.
fn measure(
    spec: &Spec,
    dense_report: Option<&eval::Report>,
    watch: &dyn Watch,
) -> Result<(Vec<Figure>, Option<eval::Report>)> {
    let source = Source::resolve(&spec.model.source)?;
    let model = Arc::new(Model::open(&source, &tensor::device(spec.model.device)?)?);
    model.note_unclaimed(watch);
    let tokenizer = Tokenizer::open(&source)?;
    let text = |name: &String| Ok((name.clone(), evaluation_set(spec, name, &tokenizer)?));
    let texts = spec.evaluate.perplexity.iter().map(text).collect::<Result<_>>()?;
    let parameters = Figure::exact(Metric::Parameters, model.checkpoint().parameters() as f64);
    let mut told = Told { figures: vec![parameters], watch };
    let opened = OpenedModel {
        source: &source,
        model,
        tokenizer: &tokenizer,
        texts: &texts,
        dense: None,
        dense_report,
    };
    // As the dense model is: there is none from which it could diverge.
    let report = measure::measure(&opened, spec, &evaluations(spec, ModelName::Dense), &mut told)?;
    Ok((told.figures, report))
}

/// Keeps no measurement, and says on the way what is odd and what it took.
struct Told<'a> {
    figures: Vec<Figure>,
    watch: &'a dyn Watch,
}

impl Recorder for Told<'_> {
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
