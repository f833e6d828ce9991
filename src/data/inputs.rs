//! The token sets of one trial: what its spec's corpora, token counts and seed make of them with a tokenizer.

use std::collections::BTreeMap;

use super::corpus::Corpus;
use super::sets::{self, Draw};
use super::{CalibrationSet, EvaluationSet, SearchSet, Tokenizer};
use crate::base::{Result, Watch};
use crate::spec::{SearchText, Spec};

/// Bytes of generated text per token asked for: more than any tokenizer needs.
pub const BYTES_PER_TOKEN: usize = 8;

/// Tokens of generated held-out text when all of it is asked for.
pub const GENERATED_TOKENS: usize = 131_072;

/// What the perplexity of a corpus that the fitness names is measured on.
pub enum FitnessText {
    /// The search set: the corpus is the one that the search set is drawn from.
    SearchSet,
    /// A set of the corpus's own.
    Own(SearchSet),
}

impl FitnessText {
    /// Whether a corpus that the fitness names is scored on the search set, in the same pass as all else.
    pub fn is_search_set(spec: &Spec, corpus: &str) -> bool {
        corpus == spec.calibration.corpus
    }

    fn of(spec: &Spec, corpus: &str, tokenizer: &Tokenizer) -> Result<Self> {
        if Self::is_search_set(spec, corpus) {
            return Ok(Self::SearchSet);
        }
        fitness_set(spec, corpus, tokenizer).map(Self::Own)
    }
}

/// All sets of a trial.
pub struct Sets {
    /// For Gram matrices.
    pub calibration: CalibrationSet,
    /// For fitness.
    pub search: SearchSet,
    /// For a fitness that names corpora, by corpus.
    pub corpora: BTreeMap<String, FitnessText>,
    /// For results, by corpus.
    pub evaluation: BTreeMap<String, EvaluationSet>,
}

impl Sets {
    /// Reads and tokenises every text that a spec names.
    ///
    /// # Errors
    /// A corpus that is missing or shorter than what is asked of it.
    pub fn of(spec: &Spec, tokenizer: &Tokenizer, watch: &dyn Watch) -> Result<Self> {
        let texts = 1 + spec.evaluate.perplexity.len() as u64;
        watch.step("tokenise", texts, || Self::read(spec, tokenizer, watch))
    }

    fn read(spec: &Spec, tokenizer: &Tokenizer, watch: &dyn Watch) -> Result<Self> {
        let (calibration, search) = fitted(spec, tokenizer)?;
        watch.advance(1);
        let evaluation = spec.evaluate.perplexity.iter().map(|name| {
            let set = evaluation_set(spec, name, tokenizer)?;
            watch.advance(1);
            Ok((name.clone(), set))
        });
        let evaluation = evaluation.collect::<Result<_>>()?;
        let corpora = spec
            .fitness
            .corpora
            .iter()
            .map(|name| Ok((name.clone(), FitnessText::of(spec, name, tokenizer)?)));
        Ok(Self { calibration, search, corpora: corpora.collect::<Result<_>>()?, evaluation })
    }

    /// Hashes of the texts that the fitness's corpora are scored on.
    pub fn corpora_hashes(&self) -> BTreeMap<String, String> {
        let set = |text| match text {
            &FitnessText::SearchSet => &self.search,
            FitnessText::Own(set) => set,
        };
        self.corpora.iter().map(|(name, text)| (name.clone(), set(text).0.hash())).collect()
    }

    /// Hashes of the evaluation sets by corpus.
    pub fn evaluation_hashes(&self) -> BTreeMap<String, String> {
        self.evaluation.iter().map(|(name, set)| (name.clone(), set.0.hash())).collect()
    }
}

/// The calibration and the search set.
fn fitted(spec: &Spec, tokenizer: &Tokenizer) -> Result<(CalibrationSet, SearchSet)> {
    let draw = Draw {
        calibration: spec.calibration.tokens,
        starts: spec.calibration.starts,
        search: spec.search.tokens,
        length: spec.calibration.sequence_length,
        text: spec.search.text,
    };
    let name = &spec.calibration.corpus;
    let text = Corpus::find(spec, name)?
        .training(draw.calibration.max(draw.search) * BYTES_PER_TOKEN)
        .map_err(|e| e.at(format!("corpus {name}")))?;
    sets::draw(name, &text, tokenizer, &draw, spec.seed)
}

/// The search set of one corpus that the fitness names.
fn fitness_set(spec: &Spec, name: &str, tokenizer: &Tokenizer) -> Result<SearchSet> {
    let draw = Draw {
        calibration: 0,
        starts: 0,
        search: spec.search.tokens,
        length: spec.calibration.sequence_length,
        text: SearchText::Disjoint,
    };
    let text = Corpus::find(spec, name)?
        .training(draw.search * BYTES_PER_TOKEN)
        .map_err(|e| e.at(format!("corpus {name}")))?;
    Ok(sets::draw(name, &text, tokenizer, &draw, spec.seed)?.1)
}

/// The evaluation set of a corpus.
pub fn evaluation_set(spec: &Spec, name: &str, tokenizer: &Tokenizer) -> Result<EvaluationSet> {
    let wanted = if spec.evaluate.tokens == 0 { GENERATED_TOKENS } else { spec.evaluate.tokens };
    let text = Corpus::find(spec, name)?
        .held_out(wanted * BYTES_PER_TOKEN)
        .map_err(|e| e.at(format!("corpus {name}")))?;
    let limit = match Corpus::find(spec, name)? {
        Corpus::Quickstart => wanted,
        Corpus::Files(_) => spec.evaluate.tokens,
    };
    sets::evaluation(name, &text, tokenizer, limit, spec.evaluate.sequence_length)
}
