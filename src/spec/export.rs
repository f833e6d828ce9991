//! `[export]`: the forms for other runtimes in which a trial's last model is also written.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::{Error, Kind};

/// `[export]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Forms in which the last model of a trial is written.
    pub to: Vec<Form>,
    /// How a GGUF file stores its matrices.
    pub gguf: Quantisation,
    /// A GGUF file of the dense model, whose tokenizer and description are taken over. A relative path is
    /// taken from the spec file's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gguf_base: Option<PathBuf>,
}

/// A form of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// One file for llama.cpp and what is built on it.
    Gguf,
    /// A folder for MLX-LM.
    Mlx,
    /// A folder for transformers, which is also what `tyr` itself reads.
    Hf,
    /// A folder of the plain family, for every runtime: what was removed is filled up with zeros unless all
    /// layers are alike.
    Stock,
}

/// How a GGUF file stores a matrix; vectors are 32-bit floats always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Quantisation {
    /// As the model does.
    #[serde(rename = "auto")]
    Auto,
    /// 32-bit floats.
    #[serde(rename = "f32")]
    F32,
    /// 16-bit IEEE floats.
    #[serde(rename = "f16")]
    F16,
    /// bfloat16.
    #[serde(rename = "bf16")]
    Bf16,
    /// Blocks of 32 in 8 bits.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// Blocks of 32 in 4 bits.
    #[serde(rename = "q4_0")]
    Q4_0,
    /// Blocks of 256 in about 4.5 bits.
    #[serde(rename = "q4_k")]
    Q4K,
    /// Blocks of 256 in about 6.6 bits.
    #[serde(rename = "q6_k")]
    Q6K,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Gguf, Self::Mlx, Self::Hf, Self::Stock];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gguf => "gguf",
            Self::Mlx => "mlx",
            Self::Hf => "hf",
            Self::Stock => "stock",
        }
    }
}

impl Display for Form {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Form {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::new(Kind::Usage, format!("there is no form \"{text}\"")).hint(format!("known: {known}"))
        };
        Self::ALL.into_iter().find(|form| form.name() == text).ok_or_else(unknown)
    }
}

impl FromStr for Quantisation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let known = "auto, f32, f16, bf16, q8_0, q4_0, q4_k, q6_k";
        serde_json::from_value(text.into()).map_err(|_| {
            Error::new(Kind::Usage, format!("there is no such storage \"{text}\""))
                .hint(format!("known: {known}"))
        })
    }
}
