//! Models in the forms of other runtimes: one GGUF file for llama.cpp, a folder for MLX-LM, one for
//! transformers, and one of the plain family for everything else; and reading each of them back.
//!
//! A form that knows fewer shapes than ours gets repeated key/value heads and heads and neurons of zeros
//! ([`layout`]), which change no output. What a form cannot carry at all is an error that says why.

mod gguf;
mod layout;
mod mlx;
mod notes;
mod ours;
mod parity;
pub mod runtimes;
mod stock;

#[cfg(test)]
mod tests;

use std::path::Path;

use candle_core::Device;
use safetensors::Dtype;

use crate::base::{Error, Kind, Result, Watch, files};
use crate::model::save::{save, with_layers_and_biases};
use crate::model::{Config, Model, Source};
use crate::spec::{Form, Quantisation, Spec};
use layout::{Layout, Rewritten};

/// Tokens that an export is compared on, at most; one sequence at least.
pub const COMPARED_TOKENS: usize = 1024;

pub use parity::{Parity, parity};

/// What an export may choose.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// How a GGUF file stores its matrices.
    pub quantisation: Quantisation,
    /// A GGUF file whose tokenizer and description a GGUF file takes over.
    pub gguf_base: Option<&'a Path>,
    /// What a model that is only looked at will be stored in, where that is not what its configuration names.
    pub stored: Option<Dtype>,
    /// What runtimes call the model, where that is known better than its folder tells.
    pub name: Option<&'a str>,
}

impl<'a> Options<'a> {
    /// Those of a spec.
    pub fn of(spec: &'a Spec) -> Self {
        Self {
            quantisation: spec.export.gguf,
            gguf_base: spec.export.gguf_base.as_deref(),
            stored: None,
            name: Some(spec.model_name()),
        }
    }

    /// The dtype of a model that is only looked at.
    fn dtype(&self, config: &Config) -> Dtype {
        self.stored.unwrap_or_else(|| config.named_dtype())
    }
}

/// What was written, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Names of the files in the folder, weights among them; of a mere look, none.
    pub files: Vec<String>,
    /// Bytes of these files; of a mere look, of the weights alone.
    pub bytes: u64,
    /// What is not as in the model: repeated heads, zeros, other types of numbers, and how much larger that
    /// is.
    pub notes: Vec<String>,
}

/// A model's new sizes in a form whose folder is that of a family.
struct Draft {
    /// What the layers become.
    layout: Layout,
    /// The configuration that is written.
    target: Config,
    /// What to know of it.
    notes: Vec<String>,
}

/// Writes a model in a form into the folder `out`, which is made; every file appears whole, config.json the
/// last.
///
/// # Errors
/// What the form cannot carry, with the layer, the reason and what would make it possible; a tokenizer that
/// GGUF has no name for; a disk failure.
pub fn write(
    model: &Model,
    source: &Source,
    form: Form,
    options: &Options,
    out: &Path,
    watch: &dyn Watch,
) -> Result<Exported> {
    let (names, notes) = match form {
        Form::Gguf => gguf::write(model, source, options, out, watch)?,
        Form::Mlx => mlx::write(model, source, out, watch)?,
        Form::Stock => write_folder(model, source, stock::draft(model.config())?, out, watch)?,
        Form::Hf => write_folder(model, source, as_it_is(model.config())?, out, watch)?,
    };
    let sizes = names.iter().map(|name| size(&out.join(name)));
    Ok(Exported { bytes: sizes.sum::<Result<u64>>()?, files: names, notes })
}

/// What a form would be: its notes and the bytes of its weights. Nothing is read or written, so that of the
/// tokenizer nothing is known.
///
/// # Errors
/// What the form cannot carry, as for [`write()`].
pub fn look(config: &Config, form: Form, options: &Options) -> Result<Exported> {
    let of = |target: &Config, notes: Vec<String>| {
        let bytes = target.parameters().total() * options.dtype(config).bitsize() / 8;
        Exported { files: Vec::new(), bytes: bytes as u64, notes }
    };
    match form {
        Form::Gguf => gguf::look(config, options),
        Form::Mlx => mlx::draft(config).map(|draft| of(&draft.target, draft.notes)),
        Form::Stock => stock::draft(config).map(|draft| of(&draft.target, draft.notes)),
        Form::Hf => as_it_is(config).map(|draft| of(&draft.target, draft.notes)),
    }
}

/// The configuration of what a form writes: its layers have the sizes that lie in the files, and its family is
/// the form's.
///
/// # Errors
/// What the form cannot carry, as for [`write()`].
pub fn written(config: &Config, form: Form, options: &Options) -> Result<Config> {
    match form {
        Form::Gguf => gguf::written(config, options),
        Form::Mlx => mlx::draft(config).map(|draft| draft.target),
        Form::Stock => stock::draft(config).map(|draft| draft.target),
        Form::Hf => as_it_is(config).map(|draft| draft.target),
    }
}

/// Bytes of weights that [`read_back`] writes into its own folder: a copy in 32-bit floats of what our readers do not
/// read as it lies there.
///
/// # Errors
/// What the form cannot carry, as for [`write()`].
pub fn read_back_bytes(config: &Config, form: Form, options: &Options) -> Result<u64> {
    match form {
        Form::Gguf => Ok(4 * written(config, form, options)?.parameters().total() as u64),
        Form::Mlx | Form::Hf | Form::Stock => Ok(0),
    }
}

/// Refuses what a form cannot carry of a model like this, or of its tokenizer, before there is one to be written.
///
/// # Errors
/// As for [`write()`].
pub fn check(config: &Config, source: &Source, form: Form, options: &Options) -> Result<()> {
    look(config, form, options)?;
    match form {
        Form::Gguf => gguf::check_tokenizer(config, source, options),
        Form::Mlx | Form::Hf | Form::Stock => Ok(()),
    }
}

/// Opens what [`write()`] wrote into `folder` with our own readers; what they cannot read as it lies there is
/// written in our own form, in 32-bit floats, into the folder `into`, which must outlive the model.
///
/// # Errors
/// A file that is missing, damaged, or not of the form.
pub fn read_back(form: Form, folder: &Path, into: &Path) -> Result<Model> {
    match form {
        Form::Gguf => gguf::read_back(folder, into),
        Form::Mlx => mlx::read_back(folder, into),
        Form::Hf | Form::Stock => Model::open(&Source::folder(folder)?, &Device::Cpu),
    }
}

fn size(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).map_err(|e| files::io_error(path, "read", &e))?.len())
}

/// Writes the folder of a family.
fn write_folder(
    model: &Model,
    source: &Source,
    draft: Draft,
    out: &Path,
    watch: &dyn Watch,
) -> Result<(Vec<String>, Vec<String>)> {
    let rewritten = Rewritten { model, layout: &draft.layout };
    let names = watched(watch, draft.target.tensors().len(), || {
        save(out, &draft.target, source, model.dtype()?, |tensor| {
            next(watch)?;
            rewritten.tensor(tensor)
        })
    })?;
    Ok((names, draft.notes))
}

/// The folder of our own form.
fn as_it_is(config: &Config) -> Result<Draft> {
    let target = with_layers_and_biases(config, config.layers.clone(), config.biases)?;
    Ok(Draft { layout: Layout::same(config), target, notes: Vec::new() })
}

fn watched<T>(watch: &dyn Watch, tensors: usize, work: impl FnOnce() -> T) -> T {
    watch.step("export", tensors as u64, work)
}

/// One more tensor is on its way.
fn next(watch: &dyn Watch) -> Result<()> {
    watch.checkpoint()?;
    watch.advance(1);
    Ok(())
}

/// An error of a form that cannot carry a model.
fn refusal(form: &str, why: impl std::fmt::Display, hint: impl Into<String>) -> Error {
    Error::new(Kind::Checkpoint, format!("the form `{form}` cannot carry this model: {why}")).hint(hint)
}

/// Refuses a window that hides tokens, in forms that know none.
fn refuse_window(form: &str, config: &Config) -> Result<()> {
    match config.window.filter(|window| *window < config.context) {
        None => Ok(()),
        Some(window) => Err(refusal(
            form,
            format!(
                "layers 0 to {} see the last {window} tokens only (sliding_window), and it has no such layers",
                config.layers.len() - 1
            ),
            format!(
                "export.to = [\"hf\"] or [\"stock\"] carries windows; a max_position_embeddings of at most {window} in \
                 config.json, now {}, makes the window idle",
                config.context
            ),
        )),
    }
}
