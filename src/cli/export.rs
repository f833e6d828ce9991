//! `tyr export MODEL|RUN --to FORM`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::serve::parse_device;
use super::{show, with_known};
use crate::base::{Error, Kind, Result, Watch, files, last_part};
use crate::data::{EvaluationSet, Tokenizer};
use crate::export::runtimes::{self, Verified};
use crate::export::{self, Options};
use crate::model::provenance::{CARD, Provenance};
use crate::model::{Model, Source};
use crate::report::Card;
use crate::report::columns::{Side, columns};
use crate::report::number;
use crate::runner::exported::{self, ModelHashes, Record};
use crate::runner::exporting::{Compared, Exporting, held_out_start, text_name};
use crate::runner::kept::{self, Kept, RunFolder};
use crate::spec::{self, DeviceChoice, Form, Quantisation, model_folder};
use crate::tensor;
use crate::trial::ModelName;

#[derive(Args)]
pub(crate) struct Arguments {
    /// A model folder, hf:OWNER/NAME or builtin:quickstart; or a run's folder, as in runs/NAME, or that of one of
    /// its trials, whose last model is taken
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

/// What is true after Ctrl-C.
pub(super) const KEPT: &str = "exports that were whole are kept, and known by the same command; the one that was begun is \
                               made from the beginning";

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
    let options = Options {
        gguf_base: arguments.gguf_base.as_deref(),
        quantisation: arguments.gguf,
        stored: None,
        name: Some(&chosen.name),
    };
    let hashes = ModelHashes::of(&source)?;
    let there = folders.iter().map(|(form, folder)| there(&hashes, *form, &options, folder));
    let there = there.collect::<Result<Vec<_>>>()?;
    let model = Model::open(&source, &tensor::device(arguments.device)?)?;
    model.tell(watch);
    let new = folders.iter().zip(&there).filter(|(_, there)| there.is_none());
    new.into_iter().try_for_each(|((form, _), _)| export::check(model.config(), &source, *form, &options))?;
    let (text, words) = chosen.text(&Tokenizer::open(&source)?, watch)?;
    let exporting = Exporting { model: &model, source: &source, text: &text };
    let making = Making {
        chosen: &chosen,
        exporting: &exporting,
        options: &options,
        hashes: &hashes,
        text: &words,
        watch,
    };
    let mut rows = Vec::new();
    for ((form, folder), there) in folders.iter().zip(there) {
        let compared = making.compared(*form, folder, there)?;
        rows.push(row(*form, folder, &compared));
    }
    show(&columns(HEADS, &rows))?;
    show(&format!("read back and compared with the model on {} tokens of {words}\n", exporting.tokens()))?;
    for (form, folder) in folders.iter().filter(|_| arguments.verify) {
        show(&told(*form, &exporting.verify(*form, folder, &arguments.python)?, &words))?;
    }
    Ok(())
}

const HEADS: [(&str, Side); 6] = [
    ("form", Side::Left),
    ("size", Side::Right),
    ("max |Δlogit|", Side::Right),
    ("perplexity", Side::Right),
    ("there", Side::Right),
    ("written to", Side::Left),
];

/// What makes the exports of a command.
struct Making<'a> {
    chosen: &'a Chosen,
    exporting: &'a Exporting<'a>,
    options: &'a Options<'a>,
    hashes: &'a ModelHashes,
    /// What exports are compared on, in words.
    text: &'a str,
    watch: &'a dyn Watch,
}

impl Making<'_> {
    /// An export compared with the model: one that is there, or a new one, whose folder appears whole.
    fn compared(&self, form: Form, folder: &Path, there: Option<Record>) -> Result<Compared> {
        let compared = match there {
            Some(record) => {
                self.watch.note(&format!("{form}: this export was there already: {}", folder.display()));
                Compared { exported: record.exported(), parity: self.exporting.compare(form, folder)? }
            }
            None => self.made(form, folder)?,
        };
        compared.exported.notes.iter().for_each(|note| self.watch.note(&format!("{form}: {note}")));
        Ok(compared)
    }

    fn made(&self, form: Form, folder: &Path) -> Result<Compared> {
        let identity = exported::identity(self.hashes, form, self.options)?;
        let mut made = None;
        files::publish_folder(folder, |staged| {
            let compared = self.exporting.export(form, self.options, staged, self.watch)?;
            let card = self.card(form, &compared)?;
            files::write(&staged.join(CARD), card.as_bytes())?;
            Record::write(identity, &compared.exported, staged)?;
            made = Some(compared);
            Ok(())
        })?;
        made.ok_or_else(|| Error::new(Kind::Internal, "nothing was exported").at(folder.display()))
    }

    /// The card of an export: where the model comes from, how far the export is from it and, of a run, the spec and
    /// what the run measured.
    fn card(&self, form: Form, compared: &Compared) -> Result<String> {
        let Self { chosen, exporting, options, .. } = self;
        let kept = chosen.kept.as_ref();
        let provenance = match kept {
            Some(kept) => Provenance::of(&Source::folder(&kept.last)?, &chosen.source)?,
            None => Provenance::of(exporting.source, &chosen.source)?,
        };
        let (name, mut rows) = kept.map(Kept::results).transpose()?.unwrap_or_default();
        let name = if name.is_empty() { &chosen.name } else { &name };
        rows.extend(compared.figures(form).into_iter().map(|figure| figure.of("", name)));
        let spec = kept.map(|kept| kept.spec.to_toml()).transpose()?;
        let card = Card {
            title: format!("{}: {form}", chosen.name),
            source: kept.map_or(&chosen.name, |kept| &kept.spec.model.source),
            provenance: &provenance,
            form,
            notes: &compared.exported.notes,
            config: &export::written(exporting.model.config(), form, options)?,
            files: &compared.exported.files,
            dense: None,
            rows,
            compared_on: Some(format!("{} tokens of {}", compared.parity.tokens, self.text)),
            spec: spec.as_deref(),
        };
        Ok(card.text())
    }
}

/// What a runtime made of an export.
fn told(form: Form, verified: &Verified, words: &str) -> String {
    let Verified { runtime, parity, text } = verified;
    let [here, there] = parity.perplexity;
    format!(
        "\n{form} in {runtime}: max |Δ log-probability| {:.1e}, perplexity {there:.4} (here {here:.4}) on {} tokens of \
         {words}; it goes on:\n    {}\n",
        parity.max_logit_difference,
        parity.tokens,
        text.trim().replace('\n', "\n    ")
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
        let Some(found) = model_folder(own).and_then(RunFolder::of) else {
            if arguments.trial.is_some() || arguments.name.is_some() {
                let what = "--trial and --model choose a model of a run, and this is a model";
                return Err(Error::new(Kind::Usage, what)
                    .at(own)
                    .hint("leave them out, or name a run's folder"));
            }
            return Ok(Self { source: own.clone(), name: end_of(own), kept: None });
        };
        let trial = match (&arguments.trial, &found.trial) {
            (Some(asked), Some(own)) if asked != own => {
                let what = format!("--trial names \"{asked}\", and the folder is that of \"{own}\"");
                return Err(Error::new(Kind::Usage, what).at(&arguments.model).hint("leave --trial out"));
            }
            (asked, own) => asked.as_ref().or(own.as_ref()),
        };
        let kept = kept::find(&found.run, trial.map(String::as_str), arguments.name)?;
        let name = end_of(&found.run.to_string_lossy());
        let parts = [Some(name), trial.cloned(), arguments.name.map(|name| name.to_string())];
        let parts = parts.into_iter().flatten().map(|part| part.replace('/', "-"));
        let source = kept.folder.to_string_lossy().into_owned();
        Ok(Self { source, name: parts.collect::<Vec<_>>().join("-"), kept: Some(kept) })
    }

    /// Text to compare exports on, and what it is called: that of the run's own corpus where there is a run and its
    /// files are still there, else generated text.
    fn text(&self, tokenizer: &Tokenizer, watch: &dyn Watch) -> Result<(EvaluationSet, String)> {
        if let Some(Kept { spec, .. }) = &self.kept {
            match held_out_start(spec, tokenizer) {
                Ok(text) => return Ok((text, text_name(spec))),
                Err(e) => watch.note(&format!(
                    "{} cannot be read, so that exports are compared on generated text: {}",
                    text_name(spec),
                    e.to_string().replace('\n', ",")
                )),
            }
        }
        let spec =
            with_known(|_| spec::Inputs::default(), |known| spec::parse("", "command line", known))?.spec;
        Ok((held_out_start(&spec, tokenizer)?, text_name(&spec)))
    }
}

/// The last part of a source; of a folder the name that it has on disk.
fn end_of(source: &str) -> String {
    let whole = model_folder(source).and_then(|folder| std::fs::canonicalize(folder).ok());
    last_part(&whole.map_or(source.to_owned(), |path| path.to_string_lossy().into_owned())).to_owned()
}

/// The folder of each form.
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
        if folder.file_name().is_none() {
            return Err(Error::new(Kind::Usage, "an export makes a folder, which needs a name")
                .at(folder.display())
                .hint("name a new folder with --out"));
        }
        folders.push((form, folder));
    }
    Ok(folders)
}

/// The record of the same export where it lies in a folder whole; `None` where there is nothing.
///
/// # Errors
/// There is something else in it.
fn there(hashes: &ModelHashes, form: Form, options: &Options, folder: &Path) -> Result<Option<Record>> {
    if !folder.exists() || std::fs::read_dir(folder).is_ok_and(|mut all| all.next().is_none()) {
        return Ok(None);
    }
    if let Some(record) = Record::of(folder)
        && record.of == exported::identity(hashes, form, options)?
    {
        return Ok(Some(record));
    }
    Err(Error::new(Kind::Usage, "there is something in the folder to be written already")
        .at(folder.display())
        .hint("remove it, or name another with --out; only a whole export of the same model with the same options is taken as it is"))
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
