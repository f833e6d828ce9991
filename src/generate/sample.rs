//! Choosing the next token: candle-transformers' `LogitsProcessor`, with its arguments checked and NaN
//! refused.

use candle_core::Tensor;
use candle_transformers::generation::LogitsProcessor;

use crate::base::{Error, Kind, Result};
use crate::tensor::is_finite;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token; larger values flatten the distribution. 0 to 2.
    pub temperature: f64,
    /// Only the likeliest tokens that together have this probability are drawn from; 0 leaves the likeliest
    /// alone. 0 to 1.
    pub top_p: f64,
    /// Of the draws.
    pub seed: u64,
}

/// The hottest temperature.
pub const HOTTEST: f64 = 2.0;

/// Below this temperature the likeliest token is taken: logits divided by less overflow.
const COLDEST: f64 = 1e-7;

/// Below this `top_p` the likeliest token is taken: probabilities are compared in f32, where it would be 0.
const NARROWEST: f64 = f32::MIN_POSITIVE as f64;

impl Sampling {
    /// The likeliest token each time.
    pub const GREEDY: Self = Self { temperature: 0.0, top_p: 1.0, seed: 0 };

    /// Refuses values out of range.
    pub fn check(self) -> Result<Self> {
        let refuse = |what: String| Err(Error::new(Kind::Usage, what));
        if !(0.0..=HOTTEST).contains(&self.temperature) {
            return refuse(format!("temperature is {}, it must lie in 0 to {HOTTEST}", self.temperature));
        }
        if !(0.0..=1.0).contains(&self.top_p) {
            return refuse(format!("top_p is {}, it must lie in 0 to 1", self.top_p));
        }
        Ok(self)
    }

    /// Whether no draw is made.
    pub fn is_greedy(&self) -> bool {
        self.temperature < COLDEST || self.top_p < NARROWEST
    }
}

/// Chooses token after token.
pub struct Sampler(LogitsProcessor);

impl Sampler {
    /// From checked settings.
    pub fn new(sampling: Sampling) -> Self {
        let temperature = (!sampling.is_greedy()).then_some(sampling.temperature);
        Self(LogitsProcessor::new(
            sampling.seed,
            temperature,
            (sampling.top_p < 1.0).then_some(sampling.top_p),
        ))
    }

    /// The next token, given its logits [V].
    ///
    /// # Errors
    /// A logit that is NaN or infinite: the model is broken, and any choice would look like a healthy one.
    pub fn next(&mut self, logits: &Tensor) -> Result<u32> {
        if !is_finite(logits)? {
            return Err(Error::new(Kind::Numeric, "the model's logits are not numbers (NaN or infinity)")
                .hint("evaluate the model: it may be damaged"));
        }
        Ok(self.0.sample(logits)?)
    }
}
