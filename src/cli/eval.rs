//! `tyr eval`: measures one model.

use std::path::PathBuf;

use clap::Args;

use super::with_known;
use crate::base::{Error, Kind, Result};
use crate::data::Tokenizer;
use crate::model::{Model, Source};
use crate::report::{Figure, Tables, event::Event};
use crate::runner::evaluate::{self, Measure};
use crate::runner::prepare::evaluation_set;
use crate::spec::{self, Corpus, Spec};
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
    /// Print the figures as CSV
    #[arg(long)]
    csv: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.text.is_empty() && arguments.perplexity.is_empty() && arguments.tasks.is_empty() {
        return Err(Error::new(Kind::Usage, "nothing to measure").hint("name --text FILE, --perplexity quickstart or --tasks NAMES"));
    }
    let measures = measure(arguments, &spec(arguments)?)?;
    let mut tables = Tables::default();
    for m in measures {
        let figure =
            Figure { trial: arguments.model.clone(), model: "model".into(), metric: m.metric, value: m.value, stderr: m.stderr, n: m.n };
        tables.add(&Event::FigureMeasured { figure });
    }
    print!("{}", if arguments.csv { tables.csv()? } else { tables.terminal() });
    Ok(())
}

/// The arguments as a spec, so that there is one way to evaluate.
fn spec(arguments: &Arguments) -> Result<Spec> {
    let mut spec = with_known(|known| spec::parse("", "command line", known))?.spec;
    let e = &mut spec.evaluate;
    (e.limit, e.bos, e.tokens, e.sequence_length) = (arguments.limit, arguments.bos, arguments.tokens, arguments.sequence_length);
    (e.tasks, e.data, e.perplexity) = (arguments.tasks.clone(), arguments.data.clone(), arguments.perplexity.clone());
    for path in &arguments.text {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        spec.evaluate.perplexity.push(name.clone());
        spec.corpora.insert(name, Corpus { train: vec![], test: vec![path.clone()], column: "text".into(), separator: "\n\n".into() });
    }
    Ok(spec)
}

fn measure(arguments: &Arguments, spec: &Spec) -> Result<Vec<Measure>> {
    let (source, bars) = (Source::resolve(&arguments.model)?, super::watched());
    let model = Model::open(&source, &tensor::device(spec.model.device)?)?;
    let tokenizer = Tokenizer::open(&source)?;
    let mut measures = vec![Measure::exact("parameters", model.checkpoint().parameters() as f64)];
    for name in &spec.evaluate.perplexity {
        measures.extend(evaluate::on_corpus(&model, name, &evaluation_set(spec, name, &tokenizer)?, &bars)?);
    }
    if !spec.evaluate.tasks.is_empty() {
        measures.extend(evaluate::on_tasks(&model, &tokenizer, spec, &bars)?.0);
    }
    Ok(measures)
}
