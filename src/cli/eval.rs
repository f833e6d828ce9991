//! `tyr eval`: measures one model.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::with_known;
use crate::base::{Error, Kind, Result, Watch, files};
use crate::data::Tokenizer;
use crate::model::{Model, Source};
use crate::report::{Figure, Tables, event::Event};
use crate::runner::evaluate::{self, Measure, Measured};
use crate::runner::prepare::evaluation_set;
use crate::spec::{self, Corpus, LmEval, Spec};
use crate::tensor;

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
    for (model, measure) in measure_all(arguments, &super::watched())? {
        let Measure { metric, value, stderr, n } = measure;
        let figure = Figure { trial: arguments.model.clone(), model: model.into(), metric, value, stderr, n };
        tables.add(&Event::FigureMeasured { figure });
    }
    tables.add(&Event::TrialFinished { trial: arguments.model.clone() });
    super::show(&if arguments.csv { tables.csv()? } else { tables.terminal() })
}

/// Figures of the baseline, if there is one, then of the model, then of the two compared.
fn measure_all(arguments: &Arguments, watch: &dyn Watch) -> Result<Vec<(&'static str, Measure)>> {
    let spec = spec(arguments)?;
    let of = |source: &str| {
        let model = spec::Model { source: source.into(), ..spec.model.clone() };
        measure(&Spec { model, ..spec.clone() }, watch)
    };
    let dense = arguments.baseline.as_deref().map(of).transpose()?.unwrap_or_default();
    let own = of(&arguments.model)?;
    let compared = match (&dense.report, &own.report) {
        (Some(dense), Some(own)) => evaluate::beside_dense(dense, own)?,
        _ => Vec::new(),
    };
    if let Some((path, report)) = arguments.samples.as_ref().zip(own.report) {
        files::write_json(path, &report)?;
    }
    let named = |name, measures: Vec<Measure>| measures.into_iter().map(move |m| (name, m));
    Ok(named("dense", dense.measures)
        .chain(named("model", own.measures))
        .chain(named("model", compared))
        .collect())
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

/// The spec's model on everything that the spec evaluates; says on the way what is odd and what it took.
fn measure(spec: &Spec, watch: &dyn Watch) -> Result<Measured> {
    let source = Source::resolve(&spec.model.source)?;
    let model = Arc::new(Model::open(&source, &tensor::device(spec.model.device)?)?);
    model.note_unclaimed(watch);
    let tokenizer = Tokenizer::open(&source)?;
    let mut all = Measured::from(vec![Measure::exact("parameters", model.checkpoint().parameters() as f64)]);
    for name in &spec.evaluate.perplexity {
        all.measures.extend(evaluate::on_corpus(
            &model,
            name,
            &evaluation_set(spec, name, &tokenizer)?,
            watch,
        )?);
    }
    if !spec.evaluate.tasks.is_empty() {
        add(&mut all, evaluate::on_tasks(&model, &tokenizer, spec, watch)?, watch);
    }
    evaluate::against_published(&model, spec, &all.measures)?.iter().for_each(|warning| watch.note(warning));
    if let Some(settings) = &spec.evaluate.lm_eval {
        add(&mut all, evaluate::on_harness(&source, model, settings, spec, watch)?, watch);
    }
    Ok(all)
}

fn add(all: &mut Measured, more: Measured, watch: &dyn Watch) {
    more.effort.iter().for_each(|effort| watch.note(effort));
    all.measures.extend(more.measures);
    all.report = all.report.take().or(more.report);
}
