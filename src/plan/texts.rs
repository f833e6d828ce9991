//! The texts of a trial: their token sets when they can be had cheaply, else how large they will be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::base::{Result, Silent, hash};
use crate::data::corpus::Corpus;
use crate::data::inputs::{BYTES_PER_TOKEN, GENERATED_TOKENS, Sets};
use crate::data::{HELD_AT_ONCE, Tokenizer, format};
use crate::spec::Spec;

/// Bytes of text per token, about, where a text is not tokenised.
const BYTES: f64 = 4.0;
/// Bytes that a passage's hash takes.
const PASSAGE_BYTES: f64 = 18.0;
/// Bytes of text in one byte of a packed file, about.
const PACKED: f64 = 3.0;
/// Tokens taken for a held-out text that is not there and of which all is requested: about WikiText-2's.
const HELD_OUT: usize = 300_000;

/// Hashes and sizes of a trial's token sets.
#[derive(Debug, Clone)]
pub(crate) struct Texts {
    /// Hash of the calibration set.
    pub calibration: String,
    /// Hash of the search set.
    pub search: String,
    /// Hashes of the fitness corpora's search sets.
    pub corpora: BTreeMap<String, String>,
    /// Hash and tokens of every evaluation set.
    pub evaluation: BTreeMap<String, (String, usize)>,
    /// Whether the hashes are those of real sets.
    pub real: bool,
    /// Text files that are not there.
    pub missing: Vec<PathBuf>,
    /// Bytes of text that a run reads.
    pub bytes: f64,
    /// Bytes of them that are tokenised at once.
    pub at_once: f64,
    /// Bytes of the token sets and of the passages by which they are compared.
    pub sets: f64,
}

impl Texts {
    /// By reading and tokenising them, as a run does.
    ///
    /// # Errors
    /// As [`Sets::of`].
    pub(crate) fn read(spec: &Spec, tokenizer: &Tokenizer) -> Result<Self> {
        let sets = Sets::of(spec, tokenizer, &Silent)?;
        let evaluated = sets.evaluation.values().map(|set| set.0.tokens.len()).sum();
        let evaluation =
            sets.evaluation.iter().map(|(name, set)| (name.clone(), (set.0.hash(), set.0.tokens.len())));
        Ok(Self {
            calibration: sets.calibration.hash(),
            search: sets.search.0.hash(),
            corpora: sets.corpora_hashes(),
            evaluation: evaluation.collect(),
            real: true,
            missing: vec![],
            bytes: bytes(spec),
            at_once: bytes(spec).min(HELD_AT_ONCE as f64),
            sets: bytes_of_sets(spec, evaluated),
        })
    }

    /// From what the spec says about them; the hashes only distinguish texts.
    ///
    /// # Errors
    /// A corpus that the spec does not have.
    pub(crate) fn assume(spec: &Spec) -> Result<Self> {
        let files =
            |name: &str| spec.corpora.get(name).map(|c| json!([c.train, c.test, c.column, c.separator]));
        let c = &spec.calibration;
        let s = &spec.search;
        let e = &spec.evaluate;
        let trained =
            |name: &str| json!([name, files(name), c.tokens, c.sequence_length, s.tokens, s.text, spec.seed]);
        let evaluated = |name: &String| -> Result<_> {
            let tokens = held_out_tokens(spec, name)?;
            Ok((
                name.clone(),
                (hash::of_json(&json!([name, files(name), e.tokens, e.sequence_length]))?, tokens),
            ))
        };
        let corpora =
            spec.fitness.corpora.iter().map(|name| Ok((name.clone(), hash::of_json(&trained(name))?)));
        let evaluation: BTreeMap<String, (String, usize)> =
            e.perplexity.iter().map(evaluated).collect::<Result<_>>()?;
        let evaluated = evaluation.values().map(|(_, tokens)| tokens).sum();
        Ok(Self {
            calibration: hash::of_json(&json!(["calibration", trained(&c.corpus)]))?,
            search: hash::of_json(&json!(["search", trained(&c.corpus)]))?,
            corpora: corpora.collect::<Result<_>>()?,
            evaluation,
            real: false,
            missing: files_of(spec).into_iter().filter(|file| !file.is_file()).collect(),
            bytes: bytes(spec),
            at_once: bytes(spec).min(HELD_AT_ONCE as f64),
            sets: bytes_of_sets(spec, evaluated),
        })
    }
}

/// The text files that a spec reads, each once.
pub(crate) fn files_of(spec: &Spec) -> Vec<PathBuf> {
    let tuned = std::iter::once(&spec.calibration.corpus).chain(&spec.fitness.corpora);
    let train = tuned.filter_map(|name| spec.corpora.get(name)).flat_map(|c| &c.train);
    let test =
        spec.evaluate.perplexity.iter().filter_map(|name| spec.corpora.get(name)).flat_map(|c| &c.test);
    let mut files: Vec<PathBuf> = train.chain(test).cloned().collect();
    files.sort();
    files.dedup();
    files
}

/// Bytes that the token sets take, with the hashes of the passages of those that are fitted to.
fn bytes_of_sets(spec: &Spec, evaluated: usize) -> f64 {
    let searched = spec.search.tokens * (1 + spec.fitness.corpora.len());
    (spec.calibration.tokens + searched) as f64 * (8.0 + PASSAGE_BYTES) + evaluated as f64 * 8.0
}

/// Bytes of text that a run tokenises: whole files, and what is generated. A file that is not there counts as
/// what is asked of it.
pub(super) fn bytes(spec: &Spec) -> f64 {
    let there: f64 = files_of(spec).iter().filter_map(|file| bytes_of_text(file)).sum();
    let asked = (spec.calibration.tokens + spec.search.tokens) as f64;
    let generated = |name: &str| !spec.corpora.contains_key(name);
    let fitted = match spec.calibration.corpus.as_str() {
        name if generated(name) => {
            2.0 * (spec.calibration.tokens.max(spec.search.tokens) * BYTES_PER_TOKEN) as f64
        }
        name if spec.corpora[name].train.iter().all(|f| f.is_file()) => 0.0,
        _ => asked * BYTES,
    };
    let wanted = if spec.evaluate.tokens == 0 { GENERATED_TOKENS } else { spec.evaluate.tokens };
    let evaluated =
        spec.evaluate.perplexity.iter().filter(|name| generated(name)).count() * wanted * BYTES_PER_TOKEN;
    there + fitted + evaluated as f64
}

/// Tokens of a corpus's evaluation set, in whole sequences.
fn held_out_tokens(spec: &Spec, name: &str) -> Result<usize> {
    let e = &spec.evaluate;
    let there = match Corpus::find(spec, name)? {
        Corpus::Quickstart => GENERATED_TOKENS.max(e.tokens),
        Corpus::Files(c) => {
            let sizes: Option<Vec<f64>> = c.test.iter().map(|file| bytes_of_text(file)).collect();
            sizes.map_or(HELD_OUT.max(e.tokens), |sizes| (sizes.iter().sum::<f64>() / BYTES) as usize)
        }
    };
    let wanted = if e.tokens == 0 { there } else { e.tokens.min(there) };
    Ok((wanted / e.sequence_length.max(1)).max(1) * e.sequence_length)
}

/// Bytes of text in a file that is there.
fn bytes_of_text(file: &Path) -> Option<f64> {
    let size = std::fs::metadata(file).ok()?.len() as f64;
    Some(if format::is_packed(file) { PACKED * size } else { size })
}
