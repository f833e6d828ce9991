//! The families that the decoder runs, one table each.

use super::family::When::*;
use super::family::{BiasKeys, Family, Given, TensorRule, Windows, bias, weight};
use super::matrix::Matrix::*;

/// All of them.
pub const FAMILIES: &[&Family] = &[&LLAMA, &MISTRAL, &QWEN2, &PRUNED_LLAMA];

/// Llama 2 and 3, and what calls itself so (TinyLlama, SmolLM2).
pub static LLAMA: Family = Family {
    model_type: "llama",
    per_layer: false,
    windows: Windows::Ignored,
    biases: LLAMA_BIASES,
    tensors: LLAMA_TENSORS,
    pruned: Some(&PRUNED_LLAMA),
};

/// Mistral: Llama with a sliding window.
pub static MISTRAL: Family = Family {
    model_type: "mistral",
    per_layer: false,
    windows: Windows::Everywhere,
    biases: LLAMA_BIASES,
    tensors: LLAMA_TENSORS,
    pruned: Some(&PRUNED_LLAMA),
};

/// Qwen 2 and 2.5: Llama with biases on queries, keys and values.
pub static QWEN2: Family = Family {
    model_type: "qwen2",
    per_layer: false,
    windows: Windows::Switched,
    biases: BiasKeys {
        qkv: Given::Always,
        attention_output: Given::Never,
        gate_up: Given::Never,
        mlp_output: Given::Never,
    },
    tensors: LLAMA_TENSORS,
    pruned: Some(&PRUNED_LLAMA),
};

/// What `tyr` pruned: Llama with sizes of its own in every layer.
pub static PRUNED_LLAMA: Family = Family {
    model_type: "pruned_llama",
    per_layer: true,
    windows: Windows::Everywhere,
    biases: BiasKeys {
        qkv: Given::Keys(&["attention_bias"]),
        attention_output: Given::Keys(&["attention_output_bias", "attention_bias"]),
        gate_up: Given::Keys(&["mlp_bias"]),
        mlp_output: Given::Keys(&["mlp_output_bias", "mlp_bias"]),
    },
    tensors: LLAMA_TENSORS,
    pruned: None,
};

/// One key for the attention's four projections, one for the MLP's three.
const LLAMA_BIASES: BiasKeys = BiasKeys {
    qkv: Given::Keys(&["attention_bias"]),
    attention_output: Given::Keys(&["attention_bias"]),
    gate_up: Given::Keys(&["mlp_bias"]),
    mlp_output: Given::Keys(&["mlp_bias"]),
};

/// Llama's layout.
pub const LLAMA_TENSORS: &[TensorRule] = &[
    weight("model.embed_tokens.weight", &[Embedding], Always),
    weight("model.norm.weight", &[FinalNorm], Always),
    weight("lm_head.weight", &[Output], Untied),
    weight("model.layers.{layer}.input_layernorm.weight", &[AttentionNorm], Always),
    weight("model.layers.{layer}.post_attention_layernorm.weight", &[MlpNorm], Always),
    weight("model.layers.{layer}.self_attn.q_proj.weight", &[Query], Always),
    bias("model.layers.{layer}.self_attn.q_proj.bias", &[Query], QkvBias),
    weight("model.layers.{layer}.self_attn.k_proj.weight", &[Key], Always),
    bias("model.layers.{layer}.self_attn.k_proj.bias", &[Key], QkvBias),
    weight("model.layers.{layer}.self_attn.v_proj.weight", &[Value], Always),
    bias("model.layers.{layer}.self_attn.v_proj.bias", &[Value], QkvBias),
    weight("model.layers.{layer}.self_attn.o_proj.weight", &[AttentionOutput], Always),
    bias("model.layers.{layer}.self_attn.o_proj.bias", &[AttentionOutput], AttentionOutputBias),
    weight("model.layers.{layer}.mlp.gate_proj.weight", &[Gate], Always),
    bias("model.layers.{layer}.mlp.gate_proj.bias", &[Gate], GateUpBias),
    weight("model.layers.{layer}.mlp.up_proj.weight", &[Up], Always),
    bias("model.layers.{layer}.mlp.up_proj.bias", &[Up], GateUpBias),
    weight("model.layers.{layer}.mlp.down_proj.weight", &[Down], Always),
    bias("model.layers.{layer}.mlp.down_proj.bias", &[Down], MlpOutputBias),
];
