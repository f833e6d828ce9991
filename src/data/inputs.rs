//! The token sets of one trial: what its spec's corpora, token counts and seed make of them with a tokenizer.

use std::collections::BTreeMap;

use super::corpus::Corpus;
use super::overlap::{PASSAGE, Passages};
use super::sets::{self, Draw};
use super::{CalibrationSet, EvaluationSet, SearchSet, Sequences, Tokenizer};
use crate::base::{Error, Result, Watch};
use crate::spec::{SearchText, Spec};

/// Bytes of generated text per token requested: more than any tokenizer needs.
pub const BYTES_PER_TOKEN: usize = 8;

/// Tokens of generated held-out text when all of it is requested.
pub const GENERATED_TOKENS: usize = 131_072;

/// What the perplexity of a corpus that the fitness names is measured on.
pub enum FitnessText<T = SearchSet> {
    /// The search set, in the same pass as all else: the corpus is the one that the search set is drawn from.
    SearchSet,
    /// A set of the corpus's own, or what draws from it.
    Own(T),
}

impl<T> FitnessText<T> {
    /// The same with something else of a set of the corpus's own.
    pub fn map<'a, U>(&'a self, of_own: impl FnOnce(&'a T) -> U) -> FitnessText<U> {
        match self {
            Self::SearchSet => FitnessText::SearchSet,
            Self::Own(own) => FitnessText::Own(of_own(own)),
        }
    }
}

impl FitnessText {
    /// Whether a corpus that the fitness names is scored on the search set, in the same pass as all else.
    pub fn is_search_set(spec: &Spec, corpus: &str) -> bool {
        corpus == spec.calibration.corpus
    }

    fn of(spec: &Spec, corpus: &str, tokenizer: &Tokenizer, avoid: Option<&Passages>) -> Result<Self> {
        if Self::is_search_set(spec, corpus) {
            return Ok(Self::SearchSet);
        }
        fitness_set(spec, corpus, tokenizer, avoid).map(Self::Own)
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
            watch.checkpoint()?;
            let set = evaluation_set(spec, name, tokenizer)?;
            watch.advance(1);
            Ok((name.clone(), set))
        });
        let evaluation = evaluation.collect::<Result<_>>()?;
        let avoid = (spec.search.text == SearchText::Disjoint).then(|| {
            let sequences = &calibration.sequences;
            Passages::of(&[sequences], sequences.length)
        });
        let of = |name| FitnessText::of(spec, name, tokenizer, avoid.as_ref());
        let corpora = spec.fitness.corpora.iter().map(|name| Ok((name.clone(), of(name)?)));
        let corpora = corpora.collect::<Result<_>>()?;
        let sets = Self { calibration, search, corpora, evaluation };
        sets.shared(spec.search.text).iter().for_each(|warning| watch.note(warning));
        Ok(sets)
    }

    /// What is to be said of text that is in two sets, which should have none in common.
    fn shared(&self, text: SearchText) -> Vec<String> {
        let calibration = &self.calibration.sequences;
        let mut warnings = Vec::new();
        if text == SearchText::Disjoint {
            warnings.extend(warning("search", &self.search.0, "calibration", &[calibration]));
        }
        let own = self.corpora.values().filter_map(|text| match text {
            FitnessText::SearchSet => None,
            FitnessText::Own(set) => Some(&set.0),
        });
        let fitted: Vec<&Sequences> = [calibration, &self.search.0].into_iter().chain(own).collect();
        warnings.extend(self.evaluation.iter().filter_map(|(name, set)| {
            warning(&format!("evaluation (corpus {name})"), &set.0, "calibration or search", &fitted)
        }));
        warnings
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
        sink_tokens: spec.calibration.sink_tokens,
        search: spec.search.tokens,
        length: spec.calibration.sequence_length,
        text: spec.search.text,
    };
    let name = &spec.calibration.corpus;
    let text = Corpus::find(spec, name)?
        .training(draw.calibration.max(draw.search).saturating_mul(BYTES_PER_TOKEN))
        .map_err(|e| e.at(format!("corpus {name}")))?;
    sets::draw(name, text, tokenizer, &draw, spec.seed).map_err(|e| at_corpus(e, name))
}

/// A warning where sequences share passages with others.
fn warning(use_: &str, sequences: &Sequences, other: &str, others: &[&Sequences]) -> Option<String> {
    let count = Passages::of(others, sequences.length).count(sequences);
    (count > 0).then(|| {
        format!(
            "{count} of {} sequences of {use_} text are {other} text too: {PASSAGE} tokens in a row or more",
            sequences.count()
        )
    })
}

/// The search set of one corpus that the fitness names.
fn fitness_set(
    spec: &Spec,
    name: &str,
    tokenizer: &Tokenizer,
    avoid: Option<&Passages>,
) -> Result<SearchSet> {
    let draw = Draw {
        calibration: 0,
        sink_tokens: 0,
        search: spec.search.tokens,
        length: spec.calibration.sequence_length,
        text: SearchText::Disjoint,
    };
    let text = Corpus::find(spec, name)?
        .training(draw.search.saturating_mul(BYTES_PER_TOKEN))
        .map_err(|e| e.at(format!("corpus {name}")))?;
    sets::draw_search(name, text, tokenizer, &draw, spec.seed, avoid).map_err(|e| at_corpus(e, name))
}

/// The evaluation set of a corpus.
pub fn evaluation_set(spec: &Spec, name: &str, tokenizer: &Tokenizer) -> Result<EvaluationSet> {
    let wanted = if spec.evaluate.tokens == 0 { GENERATED_TOKENS } else { spec.evaluate.tokens };
    let text = Corpus::find(spec, name)?
        .held_out(wanted.saturating_mul(BYTES_PER_TOKEN))
        .map_err(|e| e.at(format!("corpus {name}")))?;
    let limit = match Corpus::find(spec, name)? {
        Corpus::Quickstart => wanted,
        Corpus::Files(_) => spec.evaluate.tokens,
    };
    sets::evaluation(name, text, tokenizer, limit, spec.evaluate.sequence_length)
        .map_err(|e| at_corpus(e, name))
}

/// Names the corpus beside a place in one of its files; what has no place names it itself.
fn at_corpus(e: Error, name: &str) -> Error {
    if e.place.is_some() { e.at(format!("corpus {name}")) } else { e }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use super::super::corpus::QUICKSTART;
    use super::*;
    use crate::builtin as quickstart;
    use crate::model::Source;

    /// Keeps what is noted.
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Watch for Notes {
        fn begin(&self, _what: &str, _units: u64) {}
        fn advance(&self, _units: u64) {}
        fn end(&self) {}
        fn note(&self, message: &str) {
            self.0.lock().unwrap().push(message.into());
        }
        fn stopped(&self) -> bool {
            false
        }
    }

    /// The sets of a spec on files of a folder, and what was said of them.
    fn sets(dir: &Path, toml: &str) -> (Sets, Vec<String>) {
        let head = "[calibration]\ncorpus = \"a\"\ntokens = 4096\nsequence_length = 128\n\
            [search]\ntokens = 2048\nstages = [{ survivors = 1, tokens = 512 }]\n";
        let toml = format!("{head}{toml}").replace("DIR", &dir.display().to_string());
        let known = crate::spec::Known {
            corpora: &[QUICKSTART],
            tasks: &[],
            script: crate::fitness::check,
            inputs: |_| crate::spec::Inputs::default(),
        };
        let spec = crate::spec::parse(&toml, "test", &known).unwrap().spec;
        let tokenizer = Tokenizer::open(&Source::resolve("builtin:quickstart").unwrap()).unwrap();
        let notes = Notes::default();
        let sets = Sets::of(&spec, &tokenizer, &notes).unwrap();
        (sets, notes.0.into_inner().unwrap())
    }

    #[test]
    fn search_text_of_another_corpus_over_the_same_text_is_apart_from_the_calibration_text() {
        let dir = tempfile::tempdir().unwrap();
        let text = quickstart::text(quickstart::Split::Calibration, 60_000);
        std::fs::write(dir.path().join("a.txt"), &text).unwrap();
        std::fs::write(dir.path().join("copy.txt"), &text[1000..]).unwrap();
        std::fs::write(dir.path().join("held_out.txt"), &text[1000..]).unwrap();
        let other = quickstart::text(quickstart::Split::Search, 60_000);
        std::fs::write(dir.path().join("other.txt"), &other).unwrap();
        let corpora = "[corpora.a]\ntrain = [\"DIR/a.txt\"]\n[corpora.b]\ntrain = [\"DIR/copy.txt\"]\n\
            [corpora.c]\ntrain = [\"DIR/other.txt\"]\ntest = [\"DIR/held_out.txt\"]\n\
            [fitness]\nkind = \"perplexity\"\ncorpora = [\"a\", \"b\", \"c\"]\n";
        let (sets, notes) =
            sets(dir.path(), &format!("{corpora}[evaluate]\nperplexity = [\"quickstart\"]\n"));
        let calibration = Passages::of(&[&sets.calibration.sequences], 128);
        for (name, text) in &sets.corpora {
            let set = match text {
                FitnessText::SearchSet => &sets.search,
                FitnessText::Own(set) => set,
            };
            assert_eq!((set.0.count(), calibration.count(&set.0)), (16, 0), "{name}");
        }
        // Generated texts share sentences, which is said of the evaluation text and of nothing else.
        assert!(notes.iter().all(|note| note.contains("evaluation (corpus quickstart)")), "{notes:?}");
        let (_, notes) = self::sets(dir.path(), &format!("{corpora}[evaluate]\nperplexity = [\"c\"]\n"));
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(
            notes[0].contains("evaluation (corpus c) text are calibration or search text too"),
            "{notes:?}"
        );
    }

    #[test]
    fn a_text_that_repeats_itself_is_said_to_search_on_calibration_text() {
        let dir = tempfile::tempdir().unwrap();
        let text = quickstart::text(quickstart::Split::Calibration, 25_000);
        std::fs::write(dir.path().join("a.txt"), text.repeat(2)).unwrap();
        let corpora = "[corpora.a]\ntrain = [\"DIR/a.txt\"]\n[evaluate]\nperplexity = [\"quickstart\"]\n";
        let (_, notes) = sets(dir.path(), corpora);
        assert!(
            notes.len() == 1 && notes[0].contains("of search text are calibration text too"),
            "{notes:?}"
        );
        let apart = corpora.replace("[corpora.a]", "text = \"calibration\"\n[corpora.a]");
        assert!(sets(dir.path(), &apart).1.is_empty(), "as asked");
    }
}
