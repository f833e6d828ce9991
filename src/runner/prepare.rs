//! What a trial works on: the opened model, its tokenizer, the three token sets, the uniform start.

use std::collections::BTreeMap;

use crate::base::{Result, Watch};
use crate::data::corpus::Corpus;
use crate::data::sets::{self, Draw};
use crate::data::{CalibrationSet, EvaluationSet, SearchSet, Tokenizer};
use crate::model::{Model, Source};
use crate::space::{self, Distribution, Request, Shape};
use crate::spec::{Basis, Rounding, SearchText, Spec};
use crate::tensor;

/// Bytes of generated text per token asked for: more than any tokenizer needs.
const BYTES_PER_TOKEN: usize = 8;

/// Tokens of generated held-out text when all of it is asked for.
const GENERATED_TOKENS: usize = 131_072;

/// Everything a trial starts from.
pub struct Prepared {
    /// Where the dense model comes from.
    pub source: Source,
    /// Hash of its files.
    pub hash: String,
    /// The dense model.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// For Gram matrices.
    pub calibration: CalibrationSet,
    /// For fitness.
    pub search: SearchSet,
    /// For a fitness that names corpora, by corpus.
    pub corpora: BTreeMap<String, SearchSet>,
    /// For results, by corpus.
    pub evaluation: BTreeMap<String, EvaluationSet>,
    /// The prunable part.
    pub shape: Shape,
}

impl Prepared {
    /// Opens and reads everything that a spec names.
    pub fn new(spec: &Spec, watch: &dyn Watch) -> Result<Self> {
        let source = Source::resolve(&spec.model.source)?;
        let model = Model::open(&source, &tensor::device(spec.model.device)?)?;
        let tokenizer = Tokenizer::open(&source)?;
        watch.begin("tokenise", 1 + spec.evaluate.perplexity.len() as u64);
        let sets = Self::sets(spec, &tokenizer, watch);
        watch.end();
        let (calibration, search, evaluation) = sets?;
        let corpora =
            spec.fitness.corpora.iter().map(|name| Ok((name.clone(), fitness_set(spec, name, &tokenizer)?))).collect::<Result<_>>()?;
        let shape = model.config().shape(spec.prune.unit.attention);
        Ok(Self { hash: source.hash()?, source, model, tokenizer, calibration, search, corpora, evaluation, shape })
    }

    fn sets(spec: &Spec, tokenizer: &Tokenizer, watch: &dyn Watch) -> Result<(CalibrationSet, SearchSet, BTreeMap<String, EvaluationSet>)> {
        let draw = Draw {
            calibration: spec.calibration.tokens,
            search: spec.search.tokens,
            length: spec.calibration.sequence_length,
            text: spec.search.text,
        };
        let name = &spec.calibration.corpus;
        let text = Corpus::find(spec, name)?
            .training(draw.calibration.max(draw.search) * BYTES_PER_TOKEN)
            .map_err(|e| e.at(format!("corpus {name}")))?;
        let (calibration, search) = sets::draw(name, &text, tokenizer, &draw, spec.seed)?;
        watch.advance(1);
        let evaluation = spec.evaluate.perplexity.iter().map(|name| {
            let set = evaluation_set(spec, name, tokenizer)?;
            watch.advance(1);
            Ok((name.clone(), set))
        });
        Ok((calibration, search, evaluation.collect::<Result<_>>()?))
    }

    /// The search set of a fitness corpus: the main one for the calibration corpus, so that both are scored in one pass.
    pub fn search_set<'a>(&'a self, spec: &Spec, name: &str, own: &'a SearchSet) -> &'a SearchSet {
        if name == spec.calibration.corpus { &self.search } else { own }
    }

    /// Hashes of the fitness corpora's search sets.
    pub fn corpora_hashes(&self) -> BTreeMap<&String, String> {
        self.corpora.iter().map(|(name, set)| (name, set.0.hash())).collect()
    }

    /// The uniform distribution that the spec's sparsity means for this model.
    pub fn uniform(&self, spec: &Spec) -> Result<Distribution> {
        let share = match spec.sparsity.basis {
            Basis::Prunable => spec.sparsity.target,
            Basis::Total => spec.sparsity.target * self.model.config().parameters().total() as f64 / self.shape.prunable() as f64,
        };
        let request = match spec.sparsity.rounding {
            Rounding::Total => Request::Total(share),
            Rounding::Layer => Request::PerLayer(share),
        };
        space::uniform(&self.shape, request).map_err(|e| e.at("sparsity.target"))
    }
}

/// The search set of one corpus that the fitness names.
fn fitness_set(spec: &Spec, name: &str, tokenizer: &Tokenizer) -> Result<SearchSet> {
    let draw = Draw { calibration: 0, search: spec.search.tokens, length: spec.calibration.sequence_length, text: SearchText::Disjoint };
    let text = Corpus::find(spec, name)?.training(draw.search * BYTES_PER_TOKEN).map_err(|e| e.at(format!("corpus {name}")))?;
    Ok(sets::draw(name, &text, tokenizer, &draw, spec.seed)?.1)
}

/// The evaluation set of a corpus.
pub fn evaluation_set(spec: &Spec, name: &str, tokenizer: &Tokenizer) -> Result<EvaluationSet> {
    let wanted = if spec.evaluate.tokens == 0 { GENERATED_TOKENS } else { spec.evaluate.tokens };
    let text = Corpus::find(spec, name)?.held_out(wanted * BYTES_PER_TOKEN).map_err(|e| e.at(format!("corpus {name}")))?;
    let limit = match Corpus::find(spec, name)? {
        Corpus::Quickstart => wanted,
        Corpus::Files(_) => spec.evaluate.tokens,
    };
    sets::evaluation(name, &text, tokenizer, limit, spec.evaluate.sequence_length)
}
