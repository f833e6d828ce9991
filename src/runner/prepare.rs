//! What a trial works on: the opened model, its tokenizer, the token sets.

use std::sync::Arc;

use crate::base::{Result, Watch};
use crate::data::{Sets, Tokenizer};
use crate::export;
use crate::model::save::companions_hash;
use crate::model::{Model, Source};
use crate::space::Shape;
use crate::spec::Spec;
use crate::tensor;
use crate::trial::{InputHashes, keys};

/// Everything a trial starts from.
pub(crate) struct Prepared {
    /// Where the dense model comes from.
    pub source: Source,
    /// Hashes of all that decides the results.
    pub input_hashes: InputHashes,
    /// The dense model.
    pub model: Arc<Model>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The token sets.
    pub sets: Sets,
    /// The prunable part.
    pub shape: Shape,
}

impl Prepared {
    /// Opens and reads everything that a spec names.
    pub(crate) fn new(spec: &Spec, watch: &dyn Watch) -> Result<Self> {
        let source = Source::resolve(&spec.model.source)?;
        let model = Arc::new(Model::open(&source, &tensor::device(spec.model.device)?)?);
        model.config().check_prunable().map_err(|e| e.at(source.place()))?;
        let forms = &spec.export.to;
        let options = export::Options::of(spec);
        forms.iter().try_for_each(|&form| export::check(model.config(), &source, form, &options))?;
        model.tell(watch);
        let tokenizer = Tokenizer::open(&source)?;
        let sets = Sets::of(spec, &tokenizer, watch)?;
        let input_hashes = InputHashes {
            model: source.hash()?,
            calibration: sets.calibration.hash(),
            search: sets.search.0.hash(),
            corpora: sets.corpora_hashes(),
            evaluation: sets.evaluation_hashes(),
            script: keys::script(spec)?,
            tasks: keys::task_files(spec)?,
            companions: companions_hash(&source)?,
            harness: keys::harness(spec)?,
            gguf_base: keys::gguf_base(spec)?,
        };
        let shape = model.config().shape(spec.prune.unit.attention);
        Ok(Self { source, input_hashes, model, tokenizer, sets, shape })
    }
}
