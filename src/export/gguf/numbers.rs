//! How the numbers of a GGUF file are stored: which type a matrix gets, and its bytes.
//!
//! Blocks lie along a matrix' inputs, whose number must be a multiple of the block's length. As llama.cpp's
//! own quantiser does, a matrix that is too narrow for a block of 256 gets blocks of 32 with more bits, and
//! one that these do not fit either is stored in 16 bits; the matrix that gives logits gets 6 bits at least.
//! Vectors are 32-bit floats.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use safetensors::Dtype;

use crate::base::Result;
use crate::model::Matrix;
use crate::model::checkpoint::{finite, narrowed};
use crate::model::family::TensorEntry;
use crate::spec::Quantisation;

/// What matrices are stored in where they fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers(GgmlDType);

impl Numbers {
    /// What was chosen, for a model that is stored in `stored`.
    pub(super) fn new(quantisation: Quantisation, stored: Dtype) -> Self {
        Self(match quantisation {
            Quantisation::Auto => match stored {
                Dtype::BF16 => GgmlDType::BF16,
                Dtype::F16 => GgmlDType::F16,
                _ => GgmlDType::F32,
            },
            Quantisation::F32 => GgmlDType::F32,
            Quantisation::F16 => GgmlDType::F16,
            Quantisation::Bf16 => GgmlDType::BF16,
            Quantisation::Q8_0 => GgmlDType::Q8_0,
            Quantisation::Q4_0 => GgmlDType::Q4_0,
            Quantisation::Q4K => GgmlDType::Q4K,
            Quantisation::Q6K => GgmlDType::Q6K,
        })
    }

    /// Its name.
    pub(super) fn label(self) -> &'static str {
        label(self.0)
    }

    /// GGUF's number of such a file (`general.file_type`).
    pub(super) fn file_type(self) -> u32 {
        match self.0 {
            GgmlDType::F16 => 1,
            GgmlDType::Q4_0 => 2,
            GgmlDType::Q8_0 => 7,
            GgmlDType::Q4K => 14,
            GgmlDType::Q6K => 18,
            GgmlDType::BF16 => 32,
            _ => 0,
        }
    }

    /// Whether numbers are in blocks.
    pub(super) fn is_quantised(self) -> bool {
        self.0.block_size() > 1
    }

    /// Neurons of zeros that stand for an MLP: as few as a block of 32 takes.
    pub(super) fn dummy_neurons(self) -> usize {
        if self.is_quantised() { 32 } else { 1 }
    }

    /// What a tensor would be stored in, were it wide enough.
    fn wanted(self, entry: &TensorEntry, tied: bool) -> GgmlDType {
        let gives_logits = match entry.rule.holds {
            [Matrix::Output] => true,
            [Matrix::Embedding] => tied,
            _ => false,
        };
        match self.0 {
            _ if entry.shape.len() < 2 => GgmlDType::F32,
            GgmlDType::Q4_0 | GgmlDType::Q4K if gives_logits => GgmlDType::Q6K,
            numbers => numbers,
        }
    }

    /// What a tensor is stored in.
    pub(super) fn of(self, entry: &TensorEntry, tied: bool) -> GgmlDType {
        let width = entry.shape.last().copied().unwrap_or(1);
        let wanted = self.wanted(entry, tied);
        let fits = |numbers: &GgmlDType| width.is_multiple_of(numbers.block_size());
        let second = match wanted {
            GgmlDType::Q4K => GgmlDType::Q5_0,
            GgmlDType::Q6K => GgmlDType::Q8_0,
            _ => GgmlDType::F16,
        };
        [wanted, second].into_iter().find(fits).unwrap_or(GgmlDType::F16)
    }

    /// What is stored otherwise than was wanted, with the kinds of matrices.
    pub(super) fn notes<'a>(
        self,
        tensors: impl Iterator<Item = (&'a TensorEntry, GgmlDType)>,
        tied: bool,
    ) -> Vec<String> {
        let mut changes: BTreeMap<(&'static str, &'static str), Changed> = BTreeMap::new();
        for (entry, numbers) in tensors {
            let wanted = self.wanted(entry, tied);
            if numbers != wanted {
                let changed = changes.entry((label(wanted), label(numbers))).or_default();
                changed.block = wanted.block_size();
                *changed.kinds.entry(entry.rule.holds[0].label()).or_default() += 1;
                changed.widths.extend(entry.shape.last());
            }
        }
        changes.into_iter().map(|((wanted, numbers), changed)| changed.note(wanted, numbers)).collect()
    }
}

/// Matrices that are stored otherwise than was wanted.
#[derive(Default)]
struct Changed {
    /// Length of the blocks that do not fit.
    block: usize,
    /// How many of each kind.
    kinds: BTreeMap<&'static str, usize>,
    widths: BTreeSet<usize>,
}

impl Changed {
    fn note(self, wanted: &str, numbers: &str) -> String {
        const NAMED: usize = 4;
        let kinds: Vec<String> = self.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let widths: Vec<String> = self.widths.iter().take(NAMED).map(usize::to_string).collect();
        let more = if self.widths.len() > NAMED { ", …" } else { "" };
        let neurons = self.kinds.contains_key(Matrix::Down.label());
        let hint = if neurons { "; prune.align.neurons avoids this for down_proj" } else { "" };
        format!(
            "stored as {numbers} instead of {wanted}, as llama.cpp does: {}, whose widths ({}{more}) are no multiples of \
             {}{hint}",
            kinds.join(", "),
            widths.join(", "),
            self.block
        )
    }
}

/// llama.cpp's name of a type, in small letters.
fn label(numbers: GgmlDType) -> &'static str {
    match numbers {
        GgmlDType::F32 => "f32",
        GgmlDType::F16 => "f16",
        GgmlDType::BF16 => "bf16",
        GgmlDType::Q4_0 => "q4_0",
        GgmlDType::Q4_1 => "q4_1",
        GgmlDType::Q5_0 => "q5_0",
        GgmlDType::Q5_1 => "q5_1",
        GgmlDType::Q8_0 => "q8_0",
        GgmlDType::Q8_1 => "q8_1",
        GgmlDType::Q2K => "q2_k",
        GgmlDType::Q3K => "q3_k",
        GgmlDType::Q4K => "q4_k",
        GgmlDType::Q5K => "q5_k",
        GgmlDType::Q6K => "q6_k",
        GgmlDType::Q8K => "q8_k",
    }
}

/// GGUF's number of a type of tensors.
pub(super) fn type_number(numbers: GgmlDType) -> u32 {
    match numbers {
        GgmlDType::F32 => 0,
        GgmlDType::F16 => 1,
        GgmlDType::Q4_0 => 2,
        GgmlDType::Q4_1 => 3,
        GgmlDType::Q5_0 => 6,
        GgmlDType::Q5_1 => 7,
        GgmlDType::Q8_0 => 8,
        GgmlDType::Q8_1 => 9,
        GgmlDType::Q2K => 10,
        GgmlDType::Q3K => 11,
        GgmlDType::Q4K => 12,
        GgmlDType::Q5K => 13,
        GgmlDType::Q6K => 14,
        GgmlDType::Q8K => 15,
        GgmlDType::BF16 => 30,
    }
}

/// A tensor's bytes.
///
/// # Errors
/// A value that is no number or that the type cannot hold.
pub(super) fn encode(name: &str, numbers: GgmlDType, shape: &[usize], values: Vec<f32>) -> Result<Vec<u8>> {
    let dtype = match numbers {
        GgmlDType::F32 => Dtype::F32,
        GgmlDType::F16 => Dtype::F16,
        GgmlDType::BF16 => Dtype::BF16,
        _ => {
            finite(name, &values)?;
            let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
            return Ok(QTensor::quantize(&tensor, numbers)?.data()?.into_owned());
        }
    };
    narrowed(name, dtype, &values)
}
