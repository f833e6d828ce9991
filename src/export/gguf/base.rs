//! The tokenizer and the description of another GGUF file of the same model, taken over as they are.

use std::path::Path;

use candle_core::quantized::gguf_file::{Content, Value};

use super::file::Metadata;
use crate::base::{Error, Kind, Result, files, without_backtrace};
use crate::model::Config;

/// Keys that say how that file is stored, not what it is.
const ITS_OWN: [&str; 5] = [
    "general.architecture",
    "general.type",
    "general.file_type",
    "general.quantization_version",
    "general.alignment",
];

/// The keys `general.*` and `tokenizer.*` of a file.
///
/// # Errors
/// No GGUF file, or one whose vocabulary is another.
pub(super) fn taken_over(path: &Path, config: &Config) -> Result<Metadata> {
    let content = open(path)?;
    let tokens = content.metadata.get("tokenizer.ggml.tokens").and_then(|tokens| tokens.to_vec().ok());
    let count = tokens.map_or(0, Vec::len);
    if count != config.vocabulary {
        let what = format!("the base GGUF file has {count} tokens, and the model {}", config.vocabulary);
        return Err(Error::new(Kind::Data, what)
            .at(path.display())
            .hint("name a GGUF file of the same dense model"));
    }
    let is_taken =
        |key: &str| (key.starts_with("general.") && !ITS_OWN.contains(&key)) || key.starts_with("tokenizer.");
    let mut taken: Vec<(String, Value)> =
        content.metadata.into_iter().filter(|(key, _)| is_taken(key)).collect();
    taken.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(taken)
}

/// Opens a GGUF file.
pub(super) fn open(path: &Path) -> Result<Content> {
    let file = std::fs::File::open(path).map_err(|e| files::io_error(path, "open", &e))?;
    Content::read(&mut std::io::BufReader::new(file)).map_err(|e| damaged(path, &e))
}

/// An error of a file that cannot be read as GGUF.
pub(super) fn damaged(path: &Path, e: &candle_core::Error) -> Error {
    Error::new(Kind::Checkpoint, format!("not a complete GGUF file: {}", without_backtrace(e)))
        .at(path.display())
        .hint("the file may be damaged or only partly downloaded: make or fetch it again")
}
