//! `tyr export MODEL|RUN --to FORM`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::serve::parse_device;
use super::{show, with_known};
use crate::base::{Error, Kind, Result, Watch, files};
use crate::data::Tokenizer;
use crate::export::Options;
use crate::export::runtimes::Verified;
use crate::model::provenance::{CARD, Provenance};
use crate::model::{Model, Source};
use crate::report::Card;
use crate::report::columns::{Side, columns};
use crate::report::number;
use crate::runner::exporting::{Compared, Exporting, held_out};
use crate::runner::kept;
use crate::spec::{self, DeviceChoice, Form, Quantisation, model_folder};
use crate::tensor;
use crate::trial::ModelName;

#[derive(Args)]
pub(crate) struct Arguments {
    /// A model folder, hf:OWNER/NAME or builtin:quickstart; or a run's folder, as in runs/NAME, whose last model
    /// is taken
    model: String,
    /// The form: gguf, mlx, hf or stock; several separated by commas
    #[arg(long = "to", value_name = "FORMS", required = true, value_delimiter = ',')]
    to: Vec<Form>,
    /// The folder that is written; without it NAME-FORM in the current one
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How a GGUF file stores its matrices: auto (as the model), f32, f16, bf16, q8_0, q4_0, q4_k or q6_k
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    gguf: Quantisation,
    /// A GGUF file of the dense model, whose tokenizer and description are taken over
    #[arg(long, value_name = "FILE")]
    gguf_base: Option<PathBuf>,
    /// The trial of a run, where it has several
    #[arg(long, value_name = "LABEL")]
    trial: Option<String>,
    /// Another model of the trial than its last one: uniform, iteration-1, refit
    #[arg(long = "model", value_name = "NAME")]
    name: Option<ModelName>,
    /// Also run each export in its own runtime: gguf in llama.cpp (xllamacpp), mlx in MLX-LM, hf and stock in
    /// transformers, whose `trust_remote_code` this gives
    #[arg(long)]
    verify: bool,
    /// The Python that has these runtimes
    #[arg(long, value_name = "FILE", default_value = "python3", requires = "verify")]
    python: PathBuf,
    /// Device: auto, cpu, cuda or metal
    #[arg(long, default_value = "auto", value_parser = parse_device)]
    device: DeviceChoice,
}

pub(crate) fn run(arguments: &Arguments, watch: &dyn Watch) -> Result<()> {
    let chosen = Chosen::of(arguments)?;
    let folders = folders(arguments, &chosen)?;
    let source = Source::resolve(&chosen.source)?;
    let model = Model::open(&source, &tensor::device(arguments.device)?)?;
    model.tell(watch);
    let spec = with_known(|_| spec::Inputs::default(), |known| spec::parse("", "command line", known))?.spec;
    let text = held_out(&spec, &Tokenizer::open(&source)?)?;
    let options = Options { quantisation: arguments.gguf, gguf_base: arguments.gguf_base.as_deref() };
    let exporting = Exporting { model: &model, source: &source, text: &text };
    let (mut rows, mut written) = (Vec::new(), Vec::new());
    for (form, folder) in folders {
        let compared = exporting.export(form, &options, &folder, watch)?;
        compared.exported.notes.iter().for_each(|note| watch.note(&format!("{form}: {note}")));
        files::write(&folder.join(CARD), card(&chosen, &source, &model, form)?.as_bytes())?;
        rows.push(row(form, &folder, &compared));
        written.push((form, folder));
    }
    let heads = [
        ("form", Side::Left),
        ("size", Side::Right),
        ("max |Δlogit|", Side::Right),
        ("perplexity", Side::Right),
        ("there", Side::Right),
        ("written to", Side::Left),
    ];
    show(&columns(heads, &rows))?;
    for (form, folder) in written.iter().filter(|_| arguments.verify) {
        show(&told(*form, &exporting.verify(*form, folder, &arguments.python)?))?;
    }
    Ok(())
}

/// The card of an export, as far as the model alone tells.
fn card(chosen: &Chosen, source: &Source, model: &Model, form: Form) -> Result<String> {
    let card = Card {
        title: format!("{}: {form}", chosen.name),
        source: &chosen.name,
        provenance: &Provenance::of(source, &chosen.source)?,
        form,
        config: model.config(),
        dense: None,
        rows: Vec::new(),
        spec: None,
    };
    Ok(card.text())
}

/// What a runtime made of an export.
fn told(form: Form, verified: &Verified) -> String {
    let [here, there] = verified.perplexity;
    let text = verified.text.trim().replace('\n', "\n    ");
    format!(
        "\n{form} in {}: max |Δ log-probability| {:.1e}, perplexity {there:.4} (here {here:.4}); it goes on:\n    {text}\n",
        verified.runtime, verified.max_logprob_difference
    )
}

/// The model that is exported, and what its exports are called.
struct Chosen {
    source: String,
    name: String,
}

impl Chosen {
    fn of(arguments: &Arguments) -> Result<Self> {
        let own = &arguments.model;
        let is_run =
            model_folder(own).is_some_and(|folder| !folder.join("config.json").exists() && folder.is_dir());
        let name = end_of(own);
        if !is_run {
            if arguments.trial.is_some() || arguments.name.is_some() {
                let what = "--trial and --model choose a model of a run, and this is a model";
                return Err(Error::new(Kind::Usage, what)
                    .at(own)
                    .hint("leave them out, or name a run's folder"));
            }
            return Ok(Self { source: own.clone(), name });
        }
        let folder = kept::find(Path::new(own), arguments.trial.as_deref(), arguments.name)?;
        let parts = [Some(name), arguments.trial.clone(), arguments.name.map(|name| name.to_string())];
        let name =
            parts.into_iter().flatten().map(|part| part.replace('/', "-")).collect::<Vec<_>>().join("-");
        Ok(Self { source: folder.to_string_lossy().into_owned(), name })
    }
}

/// The last part of a source: of a folder its name, of a hub model the model's.
fn end_of(source: &str) -> String {
    let whole =
        std::fs::canonicalize(source).map_or(source.to_owned(), |path| path.to_string_lossy().into_owned());
    let last = whole.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
    last.split('@').next().unwrap_or_default().to_owned()
}

/// The folder of each form: none of them has anything in it yet.
fn folders(arguments: &Arguments, chosen: &Chosen) -> Result<Vec<(Form, PathBuf)>> {
    let several = arguments.to.len() > 1;
    let folder = |form: Form| match &arguments.out {
        None => PathBuf::from(format!("{}-{form}", chosen.name)),
        Some(out) if several => out.join(form.name()),
        Some(out) => out.clone(),
    };
    let mut folders: Vec<(Form, PathBuf)> = Vec::new();
    for &form in &arguments.to {
        let folder = folder(form);
        if folders.iter().any(|(other, _)| *other == form) {
            return Err(Error::new(Kind::Usage, format!("the form {form} is named twice")).at("--to"));
        }
        let used = folder.exists() && std::fs::read_dir(&folder).map_or(true, |mut all| all.next().is_some());
        if used {
            return Err(Error::new(Kind::Usage, "there is something in the folder to be written already")
                .at(folder.display())
                .hint("remove it, or name another with --out"));
        }
        folders.push((form, folder));
    }
    Ok(folders)
}

fn row(form: Form, folder: &Path, compared: &Compared) -> [String; 6] {
    let [here, there] = compared.parity.perplexity;
    [
        form.to_string(),
        number::bytes(compared.exported.bytes as f64),
        format!("{:.1e}", compared.parity.max_logit_difference),
        format!("{here:.4}"),
        format!("{there:.4}"),
        folder.display().to_string(),
    ]
}
