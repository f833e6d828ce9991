//! Evaluation: token-level perplexity and divergence, and tasks scored as the lm-evaluation-harness (0.4.13)
//! scores them: its prompts, its requests, its metrics. Beside them stand the harness itself, asked over its
//! adapter service, and the paper's published figures.
//!
//! Tasks know no model: whoever answers log-likelihood requests ([`LanguageModel`]) can be evaluated, and
//! [`Scorer`] answers them for a decoder. Perplexity and divergence run a decoder themselves.

pub mod catalogue;
pub mod document;
pub mod effort;
pub mod hub;
pub mod lm_eval;
pub mod metric;
pub mod paired;
pub mod perplexity;
pub mod published;
pub mod python;
pub mod request;
pub mod rolling;
pub mod run;
pub mod score;
pub mod tasks;

#[cfg(test)]
mod tests;

pub use catalogue::{Catalogue, Selection};
pub use document::{Context, Document, Sample};
pub use effort::Effort;
pub use metric::{Estimate, Estimates, Metric};
pub use paired::{Comparison, compare};
pub use request::{Bos, Encoder, LanguageModel, Request, Score, Tokenize};
pub use run::{GroupResult, Options, Report, Row, Samples, Standing, TaskResult, evaluate};
pub use score::Scorer;
pub use tasks::Task;

/// Names of all built-in tasks and groups, sorted.
pub fn known() -> Vec<String> {
    Catalogue::builtin().names()
}
