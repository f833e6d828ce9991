//! What every key of config.json is to this decoder: read, harmless, or refused by name because it changes
//! the arithmetic in a way that is not implemented.
//!
//! The harmless ones are what transformers writes for training, generation, other heads and bookkeeping. A
//! key in no table is passed over, as transformers passes over it, and named in a note.

use serde_json::{Map, Value};

use super::config::error;
use super::family::Family;
use crate::base::Result;

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It decides sizes, arithmetic, or where a text begins and ends.
    Read,
    /// It has no part in what a model makes of a text.
    Harmless,
    /// It changes the arithmetic; only these values, as JSON, `null` and absence leave it as it is here.
    Only(&'static [&'static str]),
    /// It says how weights are packed.
    Packing,
}

/// Keys with their roles.
pub type Keys = &'static [(&'static str, Role)];

use Role::{Harmless, Only, Packing, Read};

/// Of all families.
pub const KEYS: Keys = &[
    ("model_type", Read),
    ("hidden_size", Read),
    ("intermediate_size", Read),
    ("num_hidden_layers", Read),
    ("num_attention_heads", Read),
    ("num_key_value_heads", Read),
    ("head_dim", Read),
    ("vocab_size", Read),
    ("rms_norm_eps", Read),
    ("rope_theta", Read),
    ("rope_scaling", Read),
    ("rope_parameters", Read),
    ("tie_word_embeddings", Read),
    ("attention_bias", Read),
    ("attention_output_bias", Read),
    ("mlp_bias", Read),
    ("mlp_output_bias", Read),
    ("sliding_window", Read),
    ("use_sliding_window", Read),
    ("max_window_layers", Read),
    ("layer_types", Read),
    ("max_position_embeddings", Read),
    ("bos_token_id", Read),
    ("eos_token_id", Read),
    ("hidden_act", Read),
    ("per_layer_config", Read),
    ("torch_dtype", Read),
    ("dtype", Read),
    ("architectures", Read),
    ("_name_or_path", Read),
    // What packed weights are.
    ("quantization_config", Packing),
    ("quantization", Packing),
    ("compression_config", Packing),
    // Rotary embedding.
    ("partial_rotary_factor", Only(&["1", "1.0"])),
    ("rotary_pct", Only(&["1", "1.0"])),
    ("rotary_percent", Only(&["1", "1.0"])),
    ("rotary_dim", Only(&[])),
    ("rope_interleaved", Only(&["false"])),
    ("rope_local_base_freq", Only(&[])),
    ("rope_ratio", Only(&["1", "1.0"])),
    ("rope_percent", Only(&["1", "1.0"])),
    ("no_rope_layers", Only(&["[]"])),
    ("no_rope_layer_interval", Only(&[])),
    ("use_mrope", Only(&["false"])),
    ("mrope_section", Only(&[])),
    ("alibi", Only(&["false"])),
    ("position_embedding_type", Only(&["\"rope\"", "\"rotary\"", "\"absolute\""])),
    // Attention.
    ("qk_norm", Only(&["false"])),
    ("use_qk_norm", Only(&["false"])),
    ("qk_layernorm", Only(&["false"])),
    ("use_qkv_bias", Only(&["false"])),
    ("clip_qkv", Only(&[])),
    ("attention_multiplier", Only(&[])),
    ("query_pre_attn_scalar", Only(&[])),
    ("attn_logit_softcapping", Only(&[])),
    ("attn_temperature_tuning", Only(&["false", "0"])),
    ("attention_chunk_size", Only(&[])),
    ("attention_sinks", Only(&["false"])),
    ("kv_lora_rank", Only(&[])),
    ("q_lora_rank", Only(&[])),
    ("parallel_attn", Only(&["false"])),
    ("use_parallel_residual", Only(&["false"])),
    ("multi_query", Only(&["false"])),
    // Scales of the residual stream and of logits.
    ("embedding_multiplier", Only(&["1", "1.0"])),
    ("residual_multiplier", Only(&["1", "1.0"])),
    ("logits_scaling", Only(&["1", "1.0"])),
    ("logit_scale", Only(&["1", "1.0"])),
    ("final_logit_softcapping", Only(&[])),
    ("scale_emb", Only(&["1", "1.0"])),
    ("scale_depth", Only(&[])),
    ("dim_model_base", Only(&[])),
    ("mup_width_scale", Only(&["1", "1.0"])),
    ("normalize_embedding", Only(&["false"])),
    ("norm_type", Only(&["\"rmsnorm\"", "\"rms_norm\""])),
    // Experts, encoders, adapters, heads cut by transformers itself.
    ("num_experts", Only(&["0", "1"])),
    ("num_local_experts", Only(&["0", "1"])),
    ("n_routed_experts", Only(&["0"])),
    ("num_experts_per_tok", Only(&["0", "1"])),
    ("is_encoder_decoder", Only(&["false"])),
    ("add_cross_attention", Only(&["false"])),
    ("pruned_heads", Only(&["{}"])),
    ("text_config", Only(&[])),
    // The same product in parts: mathematically without effect.
    ("pretraining_tp", Harmless),
    ("layer_norm_eps", Harmless), // of other norms
    // Training.
    ("attention_dropout", Harmless),
    ("hidden_dropout", Harmless),
    ("attn_pdrop", Harmless),
    ("embd_pdrop", Harmless),
    ("resid_pdrop", Harmless),
    ("classifier_dropout", Harmless),
    ("initializer_range", Harmless),
    ("use_cache", Harmless),
    ("gradient_checkpointing", Harmless),
    ("router_aux_loss_coef", Harmless),
    ("finetuning_task", Harmless),
    ("task_specific_params", Harmless),
    ("problem_type", Harmless),
    ("id2label", Harmless),
    ("label2id", Harmless),
    ("num_labels", Harmless),
    // How it is run elsewhere.
    ("transformers_version", Harmless),
    ("auto_map", Harmless),
    ("attn_implementation", Harmless),
    ("_attn_implementation", Harmless),
    ("_attn_implementation_autoset", Harmless),
    ("_flash_attn_2_enabled", Harmless),
    ("torchscript", Harmless),
    ("use_bfloat16", Harmless),
    ("tf_legacy_loss", Harmless),
    ("return_dict", Harmless),
    ("output_hidden_states", Harmless),
    ("output_attentions", Harmless),
    ("chunk_size_feed_forward", Harmless),
    ("cross_attention_hidden_size", Harmless),
    ("is_decoder", Harmless),
    ("tie_encoder_decoder", Harmless),
    ("transformers.js_config", Harmless),
    ("is_llama_config", Harmless),
    ("unsloth_version", Harmless),
    ("unsloth_fixed", Harmless),
    ("_commit_hash", Harmless),
    // Tokens that no text here is padded or begun with.
    ("pad_token_id", Harmless),
    ("sep_token_id", Harmless),
    ("decoder_start_token_id", Harmless),
    ("tokenizer_class", Harmless),
    ("prefix", Harmless),
    // Generation, which has settings of its own here.
    ("max_length", Harmless),
    ("min_length", Harmless),
    ("max_new_tokens", Harmless),
    ("do_sample", Harmless),
    ("early_stopping", Harmless),
    ("num_beams", Harmless),
    ("num_beam_groups", Harmless),
    ("diversity_penalty", Harmless),
    ("temperature", Harmless),
    ("top_k", Harmless),
    ("top_p", Harmless),
    ("typical_p", Harmless),
    ("repetition_penalty", Harmless),
    ("length_penalty", Harmless),
    ("no_repeat_ngram_size", Harmless),
    ("encoder_no_repeat_ngram_size", Harmless),
    ("bad_words_ids", Harmless),
    ("num_return_sequences", Harmless),
    ("output_scores", Harmless),
    ("return_dict_in_generate", Harmless),
    ("forced_bos_token_id", Harmless),
    ("forced_eos_token_id", Harmless),
    ("remove_invalid_values", Harmless),
    ("exponential_decay_length_penalty", Harmless),
    ("suppress_tokens", Harmless),
    ("begin_suppress_tokens", Harmless),
];

impl Family {
    /// What a key is in this family; `None` for one that no table has.
    pub fn role(&self, key: &str) -> Option<Role> {
        self.keys.iter().chain(KEYS).find(|(name, _)| *name == key).map(|(_, role)| *role)
    }

    /// Refuses what is not implemented, by name; gives the keys that no table has.
    ///
    /// # Errors
    /// A key whose value changes the arithmetic in a way that is not implemented.
    pub(super) fn check_keys(&self, raw: &Map<String, Value>) -> Result<Vec<String>> {
        let mut unknown = Vec::new();
        for (key, value) in raw.iter().filter(|(_, value)| !value.is_null()) {
            match self.role(key) {
                Some(Read | Harmless) => {}
                Some(Packing) => return Err(packed(key, value)),
                Some(Only(values)) if is_one_of(value, values) => {}
                Some(Only(values)) => return Err(not_implemented(key, value, values)),
                None => unknown.push(key.clone()),
            }
        }
        Ok(unknown)
    }
}

/// Whether a value is one of some, given as JSON.
fn is_one_of(value: &Value, values: &[&str]) -> bool {
    values.contains(&value.to_string().as_str())
}

fn not_implemented(key: &str, value: &Value, values: &[&str]) -> crate::base::Error {
    let hint = match values {
        [] => format!("only models without `{key}` are supported"),
        [one, ..] => format!("only {one} is supported"),
    };
    error(format!("`{key}` is {}, which changes the model's arithmetic and is not implemented", short(value)))
        .hint(hint)
}

/// A value in a message: long ones are cut.
pub(super) fn short(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The weights are packed; what with is named where the configuration does.
fn packed(key: &str, value: &Value) -> crate::base::Error {
    let method = ["quant_method", "quant_algo", "mode", "format"].iter().find_map(|k| value[*k].as_str());
    let by = method.map(|method| format!(" ({method})")).unwrap_or_default();
    error(format!("the checkpoint is quantised{by}: `{key}` = {}", short(value)))
        .hint("name the checkpoint that it was made of, or convert it to f32, f16 or bf16 first")
}
