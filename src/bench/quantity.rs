//! What figures of a bench in a trial are of, by name.

use std::fmt;

/// A number that a bench gives at one workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    /// Whose it is.
    pub subject: Subject,
    /// What was measured or counted.
    pub measure: Measure,
    /// Which number of several rounds.
    pub point: Point,
}

/// Whose a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The model's that was timed.
    Own,
    /// The dense model's, beside which it was timed.
    Dense,
}

/// What was measured or counted, as `bench.csv` calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Seconds to the first token of each text.
    FirstToken,
    /// Tokens per second after it.
    TokensPerSecond,
    /// How many times faster than the dense model to the first token.
    PrefillRatio,
    /// The same of the tokens after it.
    DecodeRatio,
    /// Part of the speed of a plain read of the weights at which decoding reads its bytes.
    ReadShare,
    /// How many times fewer operations than the dense model's the prompts take.
    FlopsRatio,
    /// How many times fewer bytes than the dense model's a step reads.
    BytesRatio,
    /// Bytes of keys and values at the end.
    CacheBytes,
    /// Bytes of the weights as they are stored.
    WeightBytes,
    /// Bytes by which opening the model and this workload, its largest, made memory grow.
    PeakBytes,
}

/// Which number of several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// The median, or the only one there is.
    Median,
    /// The lower quartile.
    Low,
    /// The upper quartile.
    High,
}

/// Before quantities of the dense model.
const DENSE: &str = "dense_";

impl Measure {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::FirstToken,
        Self::TokensPerSecond,
        Self::PrefillRatio,
        Self::DecodeRatio,
        Self::ReadShare,
        Self::FlopsRatio,
        Self::BytesRatio,
        Self::CacheBytes,
        Self::WeightBytes,
        Self::PeakBytes,
    ];

    /// As it stands in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstToken => "first_token_s",
            Self::TokensPerSecond => "tokens_per_s",
            Self::PrefillRatio => "prefill_ratio",
            Self::DecodeRatio => "decode_ratio",
            Self::ReadShare => "read_share",
            Self::FlopsRatio => "flops_ratio",
            Self::BytesRatio => "bytes_ratio",
            Self::CacheBytes => "kv_bytes",
            Self::WeightBytes => "weight_bytes",
            Self::PeakBytes => "peak_bytes",
        }
    }
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Median, Self::Low, Self::High];

    /// What stands after the name of what was measured.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Median => "",
            Self::Low => "_low",
            Self::High => "_high",
        }
    }
}

impl Quantity {
    /// The one of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        let (subject, rest) = match name.strip_prefix(DENSE) {
            Some(rest) => (Subject::Dense, rest),
            None => (Subject::Own, name),
        };
        let of = |point: Point| {
            let measured = rest.strip_suffix(point.suffix())?;
            let measure = Measure::ALL.into_iter().find(|measure| measure.name() == measured)?;
            Some(Self { subject, measure, point })
        };
        Point::ALL.into_iter().find_map(of)
    }
}

/// `first_token_s`, `dense_first_token_s_low`.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let whose = if self.subject == Subject::Dense { DENSE } else { "" };
        write!(f, "{whose}{}{}", self.measure.name(), self.point.suffix())
    }
}
