//! The model of a trial as far as it is known without reading weights: its configuration, and its files when
//! they are on this disk.

use safetensors::Dtype;

use super::facts;
use crate::base::{Error, Kind, Result};
use crate::model::{Checkpoint, Config, Matrix, Source, hub};
use crate::spec;

/// A model to plan for.
pub(crate) struct KnownModel {
    /// Its sizes.
    pub config: Config,
    /// Where the sizes come from, for people.
    pub origin: String,
    /// Its files, when the weights and the tokenizer are there.
    pub source: Option<Source>,
    /// Storage dtype of its checkpoint.
    checkpoint: Dtype,
}

impl KnownModel {
    /// The model that `model.source` names. Nothing is fetched: a hub model's sizes come from the hub's cache
    /// or from the shipped facts.
    ///
    /// # Errors
    /// A folder without a configuration, a hub model whose sizes are not known here, or a model that is pruned
    /// already.
    pub(crate) fn find(source: &str) -> Result<Self> {
        match source.strip_prefix("hf:") {
            Some(repository) => Self::of_hub(repository),
            None => Self::of_source(Source::resolve(source)?, source),
        }
    }

    fn of_hub(repository: &str) -> Result<Self> {
        if let Some(folder) = hub::cached(repository) {
            return Self::of_source(Source::folder(&folder)?, "the hub's cache");
        }
        let text = facts::config(repository).ok_or_else(|| unknown(repository))?;
        let config = Config::parse(text)?;
        Ok(Self {
            checkpoint: config.named_dtype(),
            config,
            origin: "facts that ship with tyr".into(),
            source: None,
        })
    }

    fn of_source(source: Source, place: &str) -> Result<Self> {
        let at = |e: Error| e.at(source.place());
        let config =
            Config::parse(&source.text("config.json")?).map_err(|e| e.at("config.json")).map_err(at)?;
        config.check_prunable().map_err(at)?;
        let whole = source.has_weights()? && source.optional("tokenizer.json")?.is_some();
        let checkpoint = if whole {
            let embedding = config.required(Matrix::Embedding, 0)?.name;
            Checkpoint::open(&source)?.dtype(&embedding).map_err(at)?
        } else {
            config.named_dtype()
        };
        let origin = if whole { place.to_string() } else { format!("{place}, configuration only") };
        Ok(Self { config, origin, source: whole.then_some(source), checkpoint })
    }

    /// The dtype that a run stores in.
    pub(crate) fn storage(&self, asked: spec::Dtype) -> Dtype {
        match asked {
            spec::Dtype::F32 => Dtype::F32,
            spec::Dtype::F16 => Dtype::F16,
            spec::Dtype::Bf16 => Dtype::BF16,
            spec::Dtype::Auto => self.checkpoint,
        }
    }

    /// Bytes of the checkpoint's weights.
    pub(crate) fn weight_bytes(&self) -> f64 {
        self.config.parameters().total() as f64 * bytes_of(self.checkpoint)
    }
}

/// Bytes of a stored number.
pub(crate) fn bytes_of(dtype: Dtype) -> f64 {
    dtype.bitsize() as f64 / 8.0
}

fn unknown(repository: &str) -> Error {
    let near = spec::nearest(repository, facts::known())
        .map(|near| format!("did you mean hf:{near}? "))
        .unwrap_or_default();
    let what = "the sizes of this model are not known here: it is neither in the hub's cache nor among the \
                shipped facts";
    let hint = format!(
        "{near}fetch its config.json into the hub's cache, or name a folder that holds one in model.source"
    );
    Error::new(Kind::Checkpoint, what).at(format!("hf:{repository}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pico::Pico;

    #[test]
    fn a_folder_with_only_a_configuration_is_enough_to_plan_for() {
        let dir = tempfile::tempdir().unwrap();
        Pico::default().write(dir.path(), 1).unwrap();
        let name = dir.path().to_str().unwrap();
        assert!(KnownModel::find(name).unwrap().source.is_some());
        std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
        let model = KnownModel::find(name).unwrap();
        assert!(model.source.is_none() && model.origin.contains("configuration only"));
        assert_eq!(model.storage(spec::Dtype::Auto), Dtype::F32);
        std::fs::remove_file(dir.path().join("config.json")).unwrap();
        assert_eq!(KnownModel::find(name).err().unwrap().kind, Kind::Checkpoint);
    }

    #[test]
    fn a_known_model_needs_no_file_and_an_unknown_one_is_named() {
        let model = KnownModel::find("hf:meta-llama/Llama-2-70b-hf").unwrap();
        assert_eq!(model.storage(spec::Dtype::Auto), Dtype::F16);
        assert_eq!(model.storage(spec::Dtype::Bf16), Dtype::BF16);
        let e = KnownModel::find("hf:meta-llama/Llama-2-70b-h").err().unwrap();
        assert!(e.to_string().contains("did you mean hf:meta-llama/Llama-2-70b-hf?"), "{e}");
    }
}
