//! What a trial works on: the opened model, its tokenizer, the token sets, the uniform start.

use crate::base::{Result, Watch};
pub use crate::data::inputs::evaluation_set;
use crate::data::{SearchSet, Sets, Tokenizer};
use crate::model::{Model, Source};
use crate::plan::keys::{self, Roots};
use crate::space::{Distribution, Shape};
use crate::spec::Spec;
use crate::tensor;

/// Everything a trial starts from.
pub struct Prepared {
    /// Where the dense model comes from.
    pub source: Source,
    /// Hashes of all that decides the results.
    pub roots: Roots,
    /// The dense model.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The token sets.
    pub sets: Sets,
    /// The prunable part.
    pub shape: Shape,
}

impl Prepared {
    /// Opens and reads everything that a spec names.
    pub fn new(spec: &Spec, watch: &dyn Watch) -> Result<Self> {
        let source = Source::resolve(&spec.model.source)?;
        let model = Model::open(&source, &tensor::device(spec.model.device)?)?;
        model.note_unclaimed(watch);
        let tokenizer = Tokenizer::open(&source)?;
        let sets = Sets::of(spec, &tokenizer, watch)?;
        let roots = Roots {
            model: source.hash()?,
            calibration: sets.calibration.hash(),
            search: sets.search.0.hash(),
            corpora: sets.corpora_hashes(),
            script: keys::script(spec)?,
            tasks: keys::task_files(spec)?,
        };
        let shape = model.config().shape(spec.prune.unit.attention);
        Ok(Self { source, roots, model, tokenizer, sets, shape })
    }

    /// The search set of a fitness corpus: the main one for the calibration corpus, so that both are scored
    /// in one pass.
    pub fn search_set<'a>(&'a self, spec: &Spec, name: &str, own: &'a SearchSet) -> &'a SearchSet {
        if name == spec.calibration.corpus { &self.sets.search } else { own }
    }

    /// The uniform distribution that the spec's sparsity means for this model.
    pub fn uniform(&self, spec: &Spec) -> Result<Distribution> {
        crate::plan::uniform(spec, self.model.config())
    }
}
