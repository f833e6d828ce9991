//! The form for llama.cpp and what is built on it: one GGUF file.
//!
//! A model whose layers are all alike is of the architecture `llama`, which every reader of GGUF knows. Any
//! other is of `deci`, whose layers have heads, key/value heads and widths of their own. Its graph has traps,
//! each avoided by a head or neurons of zeros: a layer with heads and without neurons loses its attention's
//! output, a last layer without neurons and a first one without heads are not loaded. Biases of a sub-layer
//! that was removed whole are applied only where it has a head or a neuron. Neither architecture has sliding
//! windows. Queries and keys are permuted, because llama.cpp turns neighbouring channels where transformers
//! turns halves ([`rope`]).
//!
//! Checked with llama.cpp of October 2026 (xllamacpp 2026.10).

mod base;
mod bpe;
mod file;
mod metadata;
mod numbers;
mod read;
mod rope;
mod sentencepiece;
mod tokenizer;

#[cfg(test)]
mod tests;

use std::path::Path;

use candle_core::quantized::GgmlDType;

use super::layout::{Layout, Rewritten};
use super::notes::{Dummies, dummies, groups, larger};
use super::{Options, next, refusal, refuse_window, watched};
use crate::base::{Result, Watch, files};
use crate::model::family::When::*;
use crate::model::family::{BiasKeys, Family, Given, TensorEntry, TensorRule, Windows, bias, weight};
use crate::model::matrix::Matrix::*;
use crate::model::matrix::Part;
use crate::model::{Config, Model, Source};
use crate::spec::Quantisation;
use numbers::Numbers;

pub(super) use read::{only_file, read_back};

/// Layers that llama.cpp has room for.
const MOST_LAYERS: usize = 512;

/// The name of the divisors of the rotary frequencies.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// GGUF's names, as a table of ours.
static GGUF: Family = Family {
    model_type: "gguf",
    per_layer: true,
    windows: Windows::Ignored,
    biases: BiasKeys {
        qkv: Given::Never,
        attention_output: Given::Never,
        gate_up: Given::Never,
        mlp_output: Given::Never,
    },
    defaults: &[],
    keys: &[],
    tensors: TENSORS,
    pruned: None,
};

const TENSORS: &[TensorRule] = &[
    weight("token_embd.weight", &[Embedding], Always),
    weight("output_norm.weight", &[FinalNorm], Always),
    weight("output.weight", &[Output], Untied),
    weight("blk.{layer}.attn_norm.weight", &[AttentionNorm], Always),
    weight("blk.{layer}.attn_q.weight", &[Query], Always),
    bias("blk.{layer}.attn_q.bias", &[Query], QkvBias),
    weight("blk.{layer}.attn_k.weight", &[Key], Always),
    bias("blk.{layer}.attn_k.bias", &[Key], QkvBias),
    weight("blk.{layer}.attn_v.weight", &[Value], Always),
    bias("blk.{layer}.attn_v.bias", &[Value], QkvBias),
    weight("blk.{layer}.attn_output.weight", &[AttentionOutput], Always),
    bias("blk.{layer}.attn_output.bias", &[AttentionOutput], AttentionOutputBias),
    weight("blk.{layer}.ffn_norm.weight", &[MlpNorm], Always),
    weight("blk.{layer}.ffn_gate.weight", &[Gate], Always),
    bias("blk.{layer}.ffn_gate.bias", &[Gate], GateUpBias),
    weight("blk.{layer}.ffn_up.weight", &[Up], Always),
    bias("blk.{layer}.ffn_up.bias", &[Up], GateUpBias),
    weight("blk.{layer}.ffn_down.weight", &[Down], Always),
    bias("blk.{layer}.ffn_down.bias", &[Down], MlpOutputBias),
];

/// A tensor of the file.
struct Stored {
    entry: TensorEntry,
    numbers: GgmlDType,
}

/// What the file will hold.
struct Plan {
    layout: Layout,
    /// The sizes that are written, with GGUF's names.
    target: Config,
    tensors: Vec<Stored>,
    numbers: Numbers,
    notes: Vec<String>,
}

impl Plan {
    fn new(config: &Config, quantisation: Quantisation, stored: safetensors::Dtype) -> Result<Self> {
        refuse_window("gguf", config)?;
        let count = config.layers.len();
        if count > MOST_LAYERS {
            let why = format!("it has {count} layers, and llama.cpp has room for {MOST_LAYERS}");
            return Err(refusal("gguf", why, "export.to = [\"hf\"] carries them"));
        }
        let numbers = Numbers::new(quantisation, stored);
        let layout = layout(config, numbers.dummy_neurons());
        let layers = layout.shapes();
        let target = Config { family: &GGUF, layers, notes: Vec::new(), ..config.clone() };
        let stored = |entry: TensorEntry| Stored { numbers: numbers.of(&entry, config.tied), entry };
        let tensors: Vec<Stored> =
            target.tensors().into_iter().filter(|entry| exists(entry, &target)).map(stored).collect();
        let elements = tensors.iter().map(|t| t.entry.shape.iter().product::<usize>()).sum();
        let notes = [
            groups(config, &layout),
            dummies(config, &layout, Dummies::WhereNeeded),
            larger(config, elements),
        ];
        let entries = tensors.iter().map(|t| (&t.entry, t.numbers));
        let notes = notes.into_iter().flatten().chain(numbers.notes(entries, config.tied)).collect();
        Ok(Self { layout, target, tensors, numbers, notes })
    }

    /// llama.cpp's name of the architecture.
    fn architecture(&self) -> &'static str {
        let layers = &self.target.layers;
        let first = &layers[0];
        let whole = first.heads() > 0 && first.intermediate_size > 0;
        if whole && layers.iter().all(|layer| layer == first) { "llama" } else { "deci" }
    }

    /// What lies in the file, in order: the divisors of the rotary frequencies where there are any, then the
    /// tensors of the table.
    fn infos(&self) -> Vec<file::Info> {
        let factors = rope::factors(&self.target).map(|factors| file::Info {
            name: ROPE_FACTORS.into(),
            shape: vec![factors.len()],
            numbers: GgmlDType::F32,
        });
        let tensors = self.tensors.iter().map(|stored| file::Info {
            name: stored.entry.name.clone(),
            shape: stored.entry.shape.clone(),
            numbers: stored.numbers,
        });
        factors.into_iter().chain(tensors).collect()
    }
}

/// Whether a tensor is there at all: none of a sub-layer without heads or neurons is.
fn exists(entry: &TensorEntry, target: &Config) -> bool {
    let Some(layer) = entry.layer.map(|l| &target.layers[l]) else { return true };
    match entry.rule.holds {
        [MlpNorm | Gate | Up | Down] => layer.intermediate_size > 0,
        _ => layer.heads() > 0,
    }
}

/// Regular groups, and heads and neurons of zeros where llama.cpp needs them.
fn layout(config: &Config, dummy_neurons: usize) -> Layout {
    let mut layout = Layout::regular(config);
    let last = layout.layers.len() - 1;
    for (l, written) in layout.layers.iter_mut().enumerate() {
        if l == 0 || config.biases.attention_output {
            written.fill_attention();
        }
        if l == last || config.biases.mlp_output || !written.heads.is_empty() {
            written.fill_mlp(dummy_neurons);
        }
    }
    layout
}

/// Bytes and notes of the file's tensors.
pub(super) fn look(config: &Config, options: &Options) -> Result<super::Exported> {
    let plan = Plan::new(config, options.quantisation, options.dtype(config))?;
    let bytes = plan.infos().iter().map(file::Info::bytes).sum();
    Ok(super::Exported { files: Vec::new(), bytes, notes: plan.notes })
}

/// The sizes that are written.
pub(super) fn written(config: &Config, options: &Options) -> Result<Config> {
    Plan::new(config, options.quantisation, options.dtype(config)).map(|plan| plan.target)
}

/// Writes the file; its name and the notes.
pub(super) fn write(
    model: &Model,
    source: &Source,
    options: &Options,
    out: &Path,
    watch: &dyn Watch,
) -> Result<(Vec<String>, Vec<String>)> {
    let plan = Plan::new(model.config(), options.quantisation, model.dtype()?)?;
    let metadata = metadata(model, source, options, &plan)?;
    let infos = plan.infos();
    let rewritten = Rewritten { model, layout: &plan.layout };
    let first = infos.len() - plan.tensors.len();
    let name = format!("model-{}.gguf", plan.numbers.label());
    files::create_dir(out)?;
    watched(watch, infos.len(), || {
        file::write(&out.join(&name), &metadata, &infos, |index| {
            next(watch)?;
            match index.checked_sub(first) {
                None => Ok(rope::factors(&plan.target)
                    .unwrap_or_default()
                    .iter()
                    .flat_map(|f| f.to_le_bytes())
                    .collect()),
                Some(index) => bytes(&rewritten, &plan.tensors[index]),
            }
        })
    })?;
    Ok((vec![name], plan.notes))
}

/// A tensor's bytes in the file.
fn bytes(rewritten: &Rewritten, stored: &Stored) -> Result<Vec<u8>> {
    let entry = &stored.entry;
    let mut values = rewritten.tensor(entry)?;
    if let [Query | Key] = entry.rule.holds {
        let width = if entry.rule.part == Part::Weight { entry.shape[1] } else { 1 };
        values = rope::interleaved(&values, rewritten.model.config().head_width, width);
    }
    numbers::encode(&entry.name, stored.numbers, &entry.shape, values)
}

/// Refuses a tokenizer that the file has no name for, or a base file of another model.
pub(super) fn check_tokenizer(config: &Config, source: &Source, options: &Options) -> Result<()> {
    match options.gguf_base {
        Some(file) => base::taken_over(file, config).map(drop),
        None => tokenizer::metadata(source, config).map(drop),
    }
}

/// Everything that the file says beside its tensors.
fn metadata(model: &Model, source: &Source, options: &Options, plan: &Plan) -> Result<file::Metadata> {
    let mut pairs = metadata::of_architecture(plan.architecture(), &plan.target, plan.numbers);
    match options.gguf_base {
        Some(file) => pairs.extend(base::taken_over(file, model.config())?),
        None => {
            pairs.push((
                "general.name".into(),
                file::text(options.name.map_or_else(|| metadata::name(source, model.config()), String::from)),
            ));
            pairs.extend(tokenizer::metadata(source, model.config())?);
        }
    }
    pairs.extend(metadata::provenance(model.config()));
    Ok(pairs)
}
