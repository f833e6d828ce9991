//! Writing text with a model: a key/value cache per layer, sampling, stop strings, whole characters.

pub mod cache;
pub mod sample;
pub mod sequence;
pub mod stream;
pub mod text;

#[cfg(test)]
mod tests;

pub use cache::Cache;
pub use sample::Sampling;
pub use sequence::{Entry, Finish, Sequence, Settings, Step, advance};
pub use stream::{Stream, pass};

use crate::base::{Error, Kind, Result, Watch};
use crate::data::tokenizer::Tokenizer;
use crate::model::Model;

/// Continues a prompt, handing out text as it comes; gives the reason of the end.
///
/// # Errors
/// An empty prompt, one that is longer than the model's context, settings out of range, or a stop requested
/// through `watch`.
pub fn write(
    model: &Model,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    settings: &Settings,
    watch: &dyn Watch,
    mut show: impl FnMut(&str) -> Result<()>,
) -> Result<Finish> {
    settings.sampling.check()?;
    if prompt.is_empty() {
        return Err(Error::new(Kind::Usage, "the prompt has no token").hint("give some text to continue"));
    }
    if settings.max_tokens == 0 {
        return Ok(Finish::Length);
    }
    let mut sequence = Sequence::new(model, tokenizer, prompt, settings);
    loop {
        watch.checkpoint()?;
        let Some(step) = advance(model, &mut [&mut sequence])?.pop().flatten() else { continue };
        let step = step?;
        show(&step.text)?;
        if let Some(finish) = step.finish {
            return Ok(finish);
        }
    }
}
