//! `tyr export MODEL|RUN --to FORM`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::serve::parse_device;
use super::{show, with_known};
use crate::base::{Error, Kind, Result, Watch, files};
use crate::data::Tokenizer;
use crate::export::runtimes::{self, Verified};
use crate::export::{self, Options};
use crate::model::provenance::{CARD, Provenance};
use crate::model::{Config, Model, Source};
use crate::report::Card;
use crate::report::columns::{Side, columns};
use crate::report::folder::run_log;
use crate::report::number;
use crate::runner::exporting::{Compared, Exporting, held_out};
use crate::runner::kept::{self, Kept};
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
    if !arguments.to.contains(&Form::Gguf)
        && (arguments.gguf != Quantisation::Auto || arguments.gguf_base.is_some())
    {
        let what = "--gguf and --gguf-base say how a GGUF file is written, and none is";
        return Err(Error::new(Kind::Usage, what).at("--to").hint("add gguf to --to, or leave them out"));
    }
    let verified = arguments.to.iter().filter(|_| arguments.verify);
    verified.into_iter().try_for_each(|&form| runtimes::installed(form, &arguments.python))?;
    let chosen = Chosen::of(arguments)?;
    let folders = folders(arguments, &chosen)?;
    let source = Source::resolve(&chosen.source)?;
    let model = Model::open(&source, &tensor::device(arguments.device)?)?;
    model.tell(watch);
    let spec = with_known(|_| spec::Inputs::default(), |known| spec::parse("", "command line", known))?.spec;
    let text = held_out(&spec, &Tokenizer::open(&source)?)?;
    let options = Options {
        gguf_base: arguments.gguf_base.as_deref(),
        quantisation: arguments.gguf,
        stored: None,
        name: Some(&chosen.name),
    };
    let forms = folders.iter().map(|(form, _)| *form);
    forms.clone().try_for_each(|form| export::check(model.config(), &source, form, &options))?;
    let exporting = Exporting { model: &model, source: &source, text: &text };
    let (mut rows, mut written) = (Vec::new(), Vec::new());
    for (form, folder) in folders {
        let compared = exporting.export(form, &options, &folder, watch)?;
        compared.exported.notes.iter().for_each(|note| watch.note(&format!("{form}: {note}")));
        let card = chosen.card(&source, &model, form, &folder, &compared)?;
        files::write(&folder.join(CARD), card.as_bytes())?;
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
    /// Of a run: the model with the card, and the spec.
    kept: Option<Kept>,
}

impl Chosen {
    fn of(arguments: &Arguments) -> Result<Self> {
        let own = &arguments.model;
        let is_run = model_folder(own)
            .is_some_and(|folder| !folder.join("config.json").exists() && run_log(folder).exists());
        let name = end_of(own);
        if !is_run {
            if arguments.trial.is_some() || arguments.name.is_some() {
                let what = "--trial and --model choose a model of a run, and this is a model";
                return Err(Error::new(Kind::Usage, what)
                    .at(own)
                    .hint("leave them out, or name a run's folder"));
            }
            return Ok(Self { source: own.clone(), name, kept: None });
        }
        let kept = kept::find(Path::new(own), arguments.trial.as_deref(), arguments.name)?;
        let parts = [Some(name), arguments.trial.clone(), arguments.name.map(|name| name.to_string())];
        let parts = parts.into_iter().flatten().map(|part| part.replace('/', "-"));
        let source = kept.folder.to_string_lossy().into_owned();
        Ok(Self { source, name: parts.collect::<Vec<_>>().join("-"), kept: Some(kept) })
    }

    /// The card of an export: where the model comes from, how far the export is from it and, of a run, the spec.
    fn card(
        &self,
        source: &Source,
        model: &Model,
        form: Form,
        folder: &Path,
        compared: &Compared,
    ) -> Result<String> {
        let written = match form {
            Form::Stock => Config::parse(&Source::folder(folder)?.text("config.json")?)?,
            Form::Gguf | Form::Mlx | Form::Hf => model.config().clone(),
        };
        let spec = self.kept.as_ref().map(|kept| kept.spec.to_toml()).transpose()?;
        let provenance = match &self.kept {
            Some(kept) => Provenance::of(&Source::folder(&kept.last)?, &self.source)?,
            None => Provenance::of(source, &self.source)?,
        };
        let card = Card {
            title: format!("{}: {form}", self.name),
            source: self.kept.as_ref().map_or(&self.name, |kept| &kept.spec.model.source),
            provenance: &provenance,
            form,
            notes: &compared.exported.notes,
            config: &written,
            dense: None,
            rows: compared.figures(form).into_iter().map(|figure| figure.of("", &self.name)).collect(),
            spec: spec.as_deref(),
        };
        Ok(card.text())
    }
}

/// The last part of a source: of a folder its name, of a hub model the model's.
fn end_of(source: &str) -> String {
    let whole =
        std::fs::canonicalize(source).map_or(source.to_owned(), |path| path.to_string_lossy().into_owned());
    let last = whole.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
    // Of the hub alone, a revision follows.
    let revision = if source.starts_with("hf:") { '@' } else { '/' };
    last.split(revision).next().unwrap_or_default().to_owned()
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
        match compared.parity.max_logit_difference {
            0.0 => "0".into(),
            difference => format!("{difference:.1e}"),
        },
        format!("{here:.4}"),
        format!("{there:.4}"),
        folder.display().to_string(),
    ]
}
