//! The families that the decoder runs, one table each.

use super::family::Preset::{Number, Whole};
use super::family::When::*;
use super::family::{BiasKeys, Family, Given, Preset, TensorRule, Windows, bias, weight};
use super::matrix::Matrix::*;

/// All of them.
pub const FAMILIES: &[&Family] = &[&LLAMA, &MISTRAL, &QWEN2, &PRUNED_LLAMA];

/// Llama 2 and 3, and what calls itself so (TinyLlama, SmolLM2).
pub static LLAMA: Family = Family {
    model_type: "llama",
    per_layer: false,
    windows: Windows::Ignored,
    biases: LLAMA_BIASES,
    defaults: LLAMA_DEFAULTS,
    keys: &[],
    tensors: LLAMA_TENSORS,
    pruned: Some(&PRUNED_LLAMA),
};

/// Mistral: Llama with a sliding window.
pub static MISTRAL: Family = Family {
    model_type: "mistral",
    per_layer: false,
    windows: Windows::Everywhere,
    biases: LLAMA_BIASES,
    defaults: MISTRAL_DEFAULTS,
    keys: &[],
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
    defaults: QWEN2_DEFAULTS,
    keys: &[],
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
    defaults: &[],
    keys: &[],
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

/// `LlamaConfig` of transformers.
const LLAMA_DEFAULTS: &[(&str, Preset)] = &[
    ("vocab_size", Whole(32_000)),
    ("hidden_size", Whole(4_096)),
    ("intermediate_size", Whole(11_008)),
    ("num_hidden_layers", Whole(32)),
    ("num_attention_heads", Whole(32)),
    ("max_position_embeddings", Whole(2_048)),
    ("rms_norm_eps", Number(1e-6)),
    ("bos_token_id", Whole(1)),
    ("eos_token_id", Whole(2)),
];

/// `MistralConfig` of transformers.
const MISTRAL_DEFAULTS: &[(&str, Preset)] = &[
    ("vocab_size", Whole(32_000)),
    ("hidden_size", Whole(4_096)),
    ("intermediate_size", Whole(14_336)),
    ("num_hidden_layers", Whole(32)),
    ("num_attention_heads", Whole(32)),
    ("num_key_value_heads", Whole(8)),
    ("max_position_embeddings", Whole(131_072)),
    ("rms_norm_eps", Number(1e-6)),
    ("bos_token_id", Whole(1)),
    ("eos_token_id", Whole(2)),
    ("sliding_window", Whole(4_096)),
];

/// `Qwen2Config` of transformers.
const QWEN2_DEFAULTS: &[(&str, Preset)] = &[
    ("vocab_size", Whole(151_936)),
    ("hidden_size", Whole(4_096)),
    ("intermediate_size", Whole(22_016)),
    ("num_hidden_layers", Whole(32)),
    ("num_attention_heads", Whole(32)),
    ("num_key_value_heads", Whole(32)),
    ("max_position_embeddings", Whole(32_768)),
    ("rms_norm_eps", Number(1e-6)),
    ("sliding_window", Whole(4_096)),
    ("max_window_layers", Whole(28)),
];

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
