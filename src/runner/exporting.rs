//! Exporting a model: writing it in another form, reading that back with our own readers, and comparing both on
//! held-out text.

use std::path::Path;

use crate::base::{Result, Watch, files};
use crate::data::corpus::QUICKSTART;
use crate::data::inputs::evaluation_set;
use crate::data::{EvaluationSet, Tokenizer};
use crate::export::runtimes::{self, Verified};
use crate::export::{self, COMPARED_TOKENS, Exported, Options, Parity};
use crate::model::{Model, Source};
use crate::report::{Figure, Metric};
use crate::spec::{Form, Spec};

/// The folder inside an export's own that what is read back lies in meanwhile.
const READ_BACK: &str = "read-back.partial";

/// Tokens of a sequence that another runtime is tried with: some give a token's distribution at a time.
const VERIFIED_LENGTH: usize = 48;

/// An export that was written and compared.
#[derive(Debug)]
pub struct Compared {
    /// What was written.
    pub exported: Exported,
    /// How far it is from the model.
    pub parity: Parity,
}

/// A model to be exported.
pub struct Exporting<'a> {
    /// The open model.
    pub model: &'a Model,
    /// Where it comes from.
    pub source: &'a Source,
    /// Text that both are compared on.
    pub text: &'a EvaluationSet,
}

impl Exporting<'_> {
    /// Writes the model in a form into a folder, and compares what was written with it.
    ///
    /// # Errors
    /// A form that cannot carry the model; a disk failure; what was written does not read back.
    pub fn export(&self, form: Form, options: &Options, out: &Path, watch: &dyn Watch) -> Result<Compared> {
        let exported = export::write(self.model, self.source, form, options, out, watch)?;
        Ok(Compared { exported, parity: self.compare(form, out)? })
    }

    /// Reads an export back from its folder and compares it with the model.
    ///
    /// # Errors
    /// It does not read back; a disk failure.
    pub fn compare(&self, form: Form, folder: &Path) -> Result<Parity> {
        let scratch = folder.join(READ_BACK);
        clear(&scratch)?;
        let compared = export::read_back(form, folder, &scratch)
            .and_then(|back| export::parity(self.model, &back, &self.sequences()));
        clear(&scratch)?;
        compared
    }

    /// Runs what was written into a folder in its own runtime, by a Python that has it.
    ///
    /// # Errors
    /// The runtime is not installed, or does not run the export.
    pub fn verify(&self, form: Form, folder: &Path, python: &Path) -> Result<Verified> {
        let scratch = folder.join(READ_BACK);
        clear(&scratch)?;
        let sequences = self.sequences();
        let few: Vec<&[u32]> =
            sequences.iter().take(2).map(|tokens| &tokens[..tokens.len().min(VERIFIED_LENGTH)]).collect();
        let verified = runtimes::verify(self.model, form, folder, &few, python, &scratch);
        clear(&scratch)?;
        verified
    }

    /// Tokens that an export is compared on.
    pub fn tokens(&self) -> usize {
        self.sequences().iter().map(|tokens| tokens.len()).sum()
    }

    fn sequences(&self) -> Vec<&[u32]> {
        let length = self.text.0.length.max(1);
        let count = (COMPARED_TOKENS / length).clamp(1, self.text.0.count().max(1));
        (0..count.min(self.text.0.count())).map(|i| self.text.0.get(i)).collect()
    }
}

/// Removes a folder that may be there.
fn clear(folder: &Path) -> Result<()> {
    if folder.exists() { files::remove_folder(folder) } else { Ok(()) }
}

/// Text to compare exports on: that of the first corpus that a spec evaluates on, else the built-in one.
///
/// # Errors
/// Those of reading the text.
pub fn held_out(spec: &Spec, tokenizer: &Tokenizer) -> Result<EvaluationSet> {
    evaluation_set(spec, corpus(spec), tokenizer)
}

/// As much of it as is compared.
///
/// # Errors
/// As for [`held_out`].
pub fn held_out_start(spec: &Spec, tokenizer: &Tokenizer) -> Result<EvaluationSet> {
    let mut few = spec.clone();
    let compared = COMPARED_TOKENS.max(few.evaluate.sequence_length);
    let all = few.evaluate.tokens;
    few.evaluate.tokens = if all == 0 { compared } else { all.min(compared) };
    held_out(&few, tokenizer)
}

/// What that text is called.
pub fn text_name(spec: &Spec) -> String {
    match corpus(spec) {
        QUICKSTART => "generated text".into(),
        named => format!("the held-out text of corpus \"{named}\""),
    }
}

fn corpus(spec: &Spec) -> &str {
    spec.evaluate.perplexity.first().map_or(QUICKSTART, String::as_str)
}

impl Compared {
    /// The figures of results.
    pub fn figures(&self, form: Form) -> Vec<Figure> {
        let [_, there] = self.parity.perplexity;
        vec![
            Figure::exact(Metric::ExportBytes(form), self.exported.bytes as f64),
            Figure::exact(Metric::ExportLogitDifference(form), self.parity.max_logit_difference),
            Figure::exact(Metric::ExportPerplexity(form), there),
        ]
    }
}
