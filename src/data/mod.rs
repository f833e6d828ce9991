//! Text: corpora, tokenisation, and the three sets that must not touch: calibration, search and evaluation.

mod characters;
pub mod corpus;
pub mod format;
pub mod inputs;
mod overlap;
mod pages;
mod parquet;
pub mod rows;
mod sequences;
pub mod sets;
mod special;
mod stream;
pub mod tokenizer;

pub use inputs::{FitnessText, Sets};
pub use sets::{BATCH_TOKENS, CalibrationSet, EvaluationSet, SearchSet, Sequences, batch};
pub use special::SpecialTokens;
pub use stream::HELD_AT_ONCE;
pub use tokenizer::Tokenizer;
