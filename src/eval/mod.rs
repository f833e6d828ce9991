//! Evaluation. Tasks are scored as the lm-evaluation-harness (0.4.13) scores them: its prompts, its requests,
//! its metrics; they know no model, and whoever answers log-likelihood requests can be evaluated. A model's
//! own answers (`score`), token-level perplexity and divergence (`perplexity`), and what all of it costs
//! (`cost`) are beside them.

pub mod catalogue;
pub mod cost;
pub mod document;
pub mod effort;
pub mod hub;
pub mod lm_eval;
pub mod metric;
pub mod paired;
pub mod perplexity;
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
pub use metric::{Estimates, Metric};
pub use paired::{Comparison, compare};
pub use request::{Bos, Encoder, LanguageModel, Request, Score, Tokenize};
pub use run::{GroupResult, Options, Report, Row, Samples, Standing, TaskResult, evaluate};
pub use score::Scorer;
pub use tasks::Task;

/// Distinct tokens of one batch, about.
pub(crate) const BATCH_TOKENS: usize = 4096;

/// Names of all built-in tasks and groups, sorted.
pub fn known() -> Vec<String> {
    Catalogue::builtin().names()
}
