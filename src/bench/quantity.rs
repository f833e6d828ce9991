//! What a bench says of a model, by name.

/// A quantity of one workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Seconds to the first token of each text.
    FirstToken,
    /// Tokens per second after it.
    TokensPerSecond,
    /// The first of the dense model.
    DenseFirstToken,
    /// The second of the dense model.
    DenseTokensPerSecond,
    /// How many times faster than the dense model to the first token.
    PrefillRatio,
    /// The same of the tokens after it.
    DecodeRatio,
    /// How many times fewer operations than the dense model's the prompts take.
    FlopsRatio,
    /// How many times fewer bytes than the dense model's a step reads.
    BytesRatio,
    /// Bytes of keys and values at the end.
    CacheBytes,
}

impl Quantity {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::FirstToken,
        Self::TokensPerSecond,
        Self::DenseFirstToken,
        Self::DenseTokensPerSecond,
        Self::PrefillRatio,
        Self::DecodeRatio,
        Self::FlopsRatio,
        Self::BytesRatio,
        Self::CacheBytes,
    ];

    /// As it stands in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstToken => "first_token_s",
            Self::TokensPerSecond => "tokens_per_s",
            Self::DenseFirstToken => "dense_first_token_s",
            Self::DenseTokensPerSecond => "dense_tokens_per_s",
            Self::PrefillRatio => "prefill_ratio",
            Self::DecodeRatio => "decode_ratio",
            Self::FlopsRatio => "flops_ratio",
            Self::BytesRatio => "bytes_ratio",
            Self::CacheBytes => "kv_bytes",
        }
    }

    /// The one of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|quantity| quantity.name() == name)
    }
}
