//! Text: corpora, tokenisation, and the three sets that must not touch: calibration, search and evaluation.

pub mod corpus;
pub mod inputs;
pub mod rows;
pub mod sets;
pub mod tokenizer;

pub use inputs::{FitnessText, Sets};
pub use sets::{CalibrationSet, EvaluationSet, SearchSet, Windows, batch};
pub use tokenizer::Tokenizer;
