//! config.json: what every key does, the rotary embedding's forms, what absent keys mean, and sizes that are
//! no model's.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::families::{FAMILIES, LLAMA, MISTRAL, PRUNED_LLAMA, QWEN2};
use super::super::family::Family;
use super::super::keys::{KEYS, Role};
use super::super::rope::RopeScaling;
use super::*;
use crate::base::Error;

/// A configuration of a family with sizes that tell all axes apart.
fn raw(family: &Family) -> Value {
    json!({
        "model_type": family.model_type, "hidden_size": 40, "intermediate_size": 22, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 30,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "sliding_window": null,
        "bos_token_id": 3, "eos_token_id": 4, "hidden_act": "silu", "rope_theta": 10000.0,
        "per_layer_config": {
            "0": {"num_attention_heads": 3, "num_key_value_heads": 2, "query_heads_per_kv": [2, 1], "intermediate_size": 5},
            "1": {"num_attention_heads": 0, "num_key_value_heads": 0, "query_heads_per_kv": [], "intermediate_size": 0},
        },
    })
}

/// A key with another value.
type Change = (&'static str, Value);

fn parsed(family: &'static Family, changes: &[Change]) -> Result<Config, Error> {
    let mut raw = raw(family);
    for (key, value) in changes {
        raw[*key] = value.clone();
    }
    Config::parse(&raw.to_string())
}

fn without(family: &'static Family, keys: &[&str]) -> Result<Config, Error> {
    let mut raw = raw(family);
    keys.iter().for_each(|key| drop(raw.as_object_mut().unwrap().remove(*key)));
    Config::parse(&raw.to_string())
}

/// What decides arithmetic: all but the file itself and what is told of it.
fn arithmetic(config: Config) -> Config {
    Config { raw: serde_json::Map::new(), notes: vec![], ..config }
}

/// Keys of the classes in transformers 4.57 and 5: `PretrainedConfig`, then `LlamaConfig`, `MistralConfig` and
/// `Qwen2Config`, and those that tyr writes.
const OF_CLASSES: &str = "
    architectures model_type transformers_version torch_dtype dtype _name_or_path _commit_hash attn_implementation
    return_dict output_hidden_states output_attentions torchscript use_bfloat16 tf_legacy_loss pruned_heads tie_word_embeddings
    chunk_size_feed_forward is_encoder_decoder is_decoder cross_attention_hidden_size add_cross_attention tie_encoder_decoder
    finetuning_task id2label label2id num_labels task_specific_params problem_type tokenizer_class prefix bos_token_id pad_token_id
    eos_token_id sep_token_id decoder_start_token_id max_length min_length do_sample early_stopping num_beams num_beam_groups
    diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores return_dict_in_generate forced_bos_token_id
    forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
    quantization_config auto_map use_cache gradient_checkpointing
    vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads hidden_act
    max_position_embeddings initializer_range rms_norm_eps pretraining_tp rope_theta rope_scaling rope_parameters attention_bias
    attention_dropout mlp_bias head_dim partial_rotary_factor rope_interleaved
    sliding_window use_sliding_window max_window_layers layer_types use_mrope
    per_layer_config attention_output_bias mlp_output_bias";

#[test]
fn every_key_of_the_supported_classes_has_a_role_and_every_name_one_only() {
    for family in FAMILIES {
        for key in OF_CLASSES.split_whitespace() {
            assert!(family.role(key).is_some(), "{}: `{key}` has no role", family.model_type);
        }
    }
    assert_eq!(KEYS.iter().map(|(key, _)| key).collect::<BTreeSet<_>>().len(), KEYS.len());
}

#[test]
fn keys_that_change_the_arithmetic_and_are_not_implemented_are_refused_by_name() {
    let plain = arithmetic(parsed(&LLAMA, &[]).unwrap());
    for (key, role) in KEYS {
        let refused = |value: Value| parsed(&LLAMA, &[(key, value)]).unwrap_err().to_string();
        match role {
            Role::Only(values) => {
                for value in
                    values.iter().map(|text| serde_json::from_str(text).unwrap()).chain([Value::Null])
                {
                    assert_eq!(arithmetic(parsed(&LLAMA, &[(key, value)]).unwrap()), plain, "{key}");
                }
                assert!(refused(json!(0.7)).contains(&format!("`{key}` is 0.7")), "{key}");
            }
            Role::Packing => {
                let e = refused(json!({"quant_method": "awq"}));
                assert!(e.contains("quantised (awq)") && e.contains(key), "{e}");
            }
            Role::Read | Role::Harmless => {}
        }
    }
}

#[test]
fn harmless_keys_change_nothing_and_keys_of_no_table_are_told() {
    let plain = parsed(&LLAMA, &[]).unwrap();
    assert_eq!(plain.notes, Vec::<String>::new());
    for (key, _) in KEYS.iter().filter(|(_, role)| *role == Role::Harmless) {
        let odd = parsed(&LLAMA, &[(key, json!(0.7))]).unwrap();
        assert_eq!(odd.notes, Vec::<String>::new(), "{key}");
        assert_eq!(arithmetic(odd), arithmetic(plain.clone()), "{key}");
    }
    let odd =
        parsed(&LLAMA, &[("my_key", json!(1)), ("architectures", json!(["LlamaForSequenceClassification"]))]);
    let told = odd.unwrap().notes.join("\n");
    assert!(told.contains("my_key") && told.contains("LlamaForSequenceClassification"), "{told}");
}

#[test]
fn every_key_that_is_read_changes_the_configuration_of_a_family() {
    let linear = json!({"rope_type": "linear", "factor": 2.0});
    let others: [(&str, &'static Family, Vec<Change>); 24] = [
        ("hidden_size", &LLAMA, vec![]),
        ("intermediate_size", &LLAMA, vec![]),
        ("num_hidden_layers", &LLAMA, vec![]),
        ("num_attention_heads", &LLAMA, vec![]),
        ("num_key_value_heads", &LLAMA, vec![("num_key_value_heads", json!(3))]),
        ("head_dim", &LLAMA, vec![]),
        ("vocab_size", &LLAMA, vec![]),
        ("max_position_embeddings", &LLAMA, vec![]),
        ("bos_token_id", &LLAMA, vec![]),
        ("eos_token_id", &LLAMA, vec![]),
        ("sliding_window", &MISTRAL, vec![]),
        ("rms_norm_eps", &LLAMA, vec![("rms_norm_eps", json!(0.25))]),
        ("rope_theta", &LLAMA, vec![("rope_theta", json!(7.0))]),
        ("rope_scaling", &LLAMA, vec![("rope_scaling", linear.clone())]),
        ("rope_parameters", &LLAMA, vec![("rope_parameters", linear)]),
        ("tie_word_embeddings", &LLAMA, vec![("tie_word_embeddings", json!(true))]),
        ("attention_bias", &LLAMA, vec![("attention_bias", json!(true))]),
        ("mlp_bias", &LLAMA, vec![("mlp_bias", json!(true))]),
        ("attention_output_bias", &PRUNED_LLAMA, vec![("attention_output_bias", json!(true))]),
        ("mlp_output_bias", &PRUNED_LLAMA, vec![("mlp_output_bias", json!(true))]),
        ("use_sliding_window", &QWEN2, switched(&[("max_window_layers", json!(0))])),
        ("max_window_layers", &QWEN2, switched(&[("max_window_layers", json!(0))])),
        (
            "layer_types",
            &QWEN2,
            switched(&[("layer_types", json!(["sliding_attention", "sliding_attention"]))]),
        ),
        (
            "per_layer_config",
            &PRUNED_LLAMA,
            vec![("per_layer_config", parsed(&PRUNED_LLAMA, &[]).unwrap().raw["per_layer_config"].clone())],
        ),
    ];
    let mut seen: BTreeSet<&str> = others.iter().map(|(key, ..)| *key).collect();
    for (key, family, mut changes) in others {
        match (key, changes.is_empty()) {
            (_, true) => changes.push((key, json!(12))),
            ("per_layer_config", _) => changes[0].1["1"]["intermediate_size"] = json!(7),
            _ => {}
        }
        let changed = parsed(family, &changes).unwrap();
        assert_ne!(arithmetic(changed), arithmetic(parsed(family, &[]).unwrap()), "{key}");
    }
    assert!(parsed(&LLAMA, &[("hidden_act", json!("gelu"))]).is_err());
    // What is read elsewhere, of the file itself.
    let elsewhere = ["model_type", "hidden_act", "torch_dtype", "dtype", "architectures", "_name_or_path"];
    seen.extend(elsewhere);
    let read: BTreeSet<&str> =
        KEYS.iter().filter(|(_, role)| *role == Role::Read).map(|(key, _)| *key).collect();
    assert_eq!(seen, read);
}

/// Settings under which layers of Qwen 2 may have a window.
fn switched(more: &[Change]) -> Vec<Change> {
    [("use_sliding_window", json!(true)), ("sliding_window", json!(9))]
        .into_iter()
        .chain(more.to_vec())
        .collect()
}

#[test]
fn rope_scaling_is_read_under_both_names_of_its_kind() {
    let scaling = |table: Value| parsed(&LLAMA, &[("rope_scaling", table)]);
    let linear = Some(RopeScaling::Linear { factor: 4.0 });
    for table in [
        json!({"type": "linear", "factor": 4}),
        json!({"rope_type": "linear", "factor": 4.0}),
        json!({"type": "linear", "rope_type": "linear", "factor": 4.0, "original_max_position_embeddings": 32}),
    ] {
        assert_eq!(scaling(table.clone()).unwrap().rope_scaling, linear, "{table}");
        let newer = parsed(&LLAMA, &[("rope_parameters", table)]).unwrap();
        assert_eq!(newer.rope_scaling, linear);
    }
    for table in [json!(null), json!({"rope_type": "default"}), json!({"rope_theta": 10000.0}), json!({})] {
        assert_eq!(scaling(table).unwrap().rope_scaling, None);
    }
    let theta =
        parsed(&LLAMA, &[("rope_theta", json!(null)), ("rope_parameters", json!({"rope_theta": 5e5}))]);
    assert_eq!(theta.unwrap().rope_theta, 5e5);
}

#[test]
fn rope_scaling_that_is_not_implemented_or_contradicts_itself_is_refused_by_name() {
    let refused = |table: Value| parsed(&LLAMA, &[("rope_scaling", table)]).unwrap_err().to_string();
    let llama3 = |low: f64, high: f64| {
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": low, "high_freq_factor": high,
            "original_max_position_embeddings": 32})
    };
    for (table, words) in [
        (json!({"factor": 4.0}), "`factor` is there and `rope_type`"),
        (json!({"type": null, "factor": 4.0}), "`factor` is there and `rope_type`"),
        (json!({"type": "dynamic", "factor": 4.0}), "`dynamic` is not supported"),
        (json!({"rope_type": "yarn", "factor": 4.0}), "`yarn` is not supported"),
        (json!({"rope_type": "longrope"}), "`longrope` is not supported"),
        (
            json!({"type": "linear", "rope_type": "llama3", "factor": 4.0}),
            "`rope_type` is `llama3` and `type` is `linear`",
        ),
        (json!({"type": "linear"}), "lacks `factor`"),
        (json!({"type": "linear", "factor": 0}), "`factor` is 0"),
        (json!({"type": "linear", "factor": "4"}), "`factor` is \"4\", not a finite number"),
        (json!({"type": "linear", "factor": 4, "attention_factor": 1.2}), "`attention_factor` = 1.2"),
        (json!({"rope_type": "default", "factor": 4}), "`factor` = 4 is not implemented for `default`"),
        (json!({"rope_type": "default", "partial_rotary_factor": 0.5}), "`partial_rotary_factor` = 0.5"),
        (json!({"rope_type": "default", "mrope_section": [1, 2]}), "`mrope_section`"),
        (llama3(4.0, 4.0), "`high_freq_factor` 4 is not above"),
        (json!({"rope_theta": 7.0}), "`rope_theta` is 10000 and 7"),
        (json!("linear"), "`rope_scaling` is \"linear\", not an object"),
    ] {
        let e = refused(table.clone());
        assert!(e.contains(words), "{table}: {e}");
    }
    let both = [
        ("rope_scaling", json!({"type": "linear", "factor": 2})),
        ("rope_parameters", json!({"rope_type": "default"})),
    ];
    assert!(parsed(&LLAMA, &both).unwrap_err().to_string().contains("say different things"));
    assert!(
        parsed(&LLAMA, &[("rope_theta", json!(0))]).unwrap_err().to_string().contains("`rope_theta` is 0")
    );
    assert!(parsed(&LLAMA, &[("rope_scaling", llama3(1.0, 4.0))]).is_ok());
}

#[test]
fn absent_keys_mean_what_they_mean_in_the_familys_class_and_are_told() {
    let llama =
        without(&LLAMA, &["rms_norm_eps", "max_position_embeddings", "eos_token_id", "num_key_value_heads"])
            .unwrap();
    assert_eq!(
        (llama.norm_epsilon, llama.context, llama.eos.clone(), llama.kv_heads),
        (1e-6, 2048, vec![2], 6)
    );
    assert!(
        llama.notes[0].contains("rms_norm_eps = 1e-6, bos") || llama.notes[0].contains("rms_norm_eps"),
        "{:?}",
        llama.notes
    );
    assert!(!llama.notes[0].contains("vocab_size"));
    let mistral = without(&MISTRAL, &["sliding_window", "head_dim"]).unwrap();
    assert_eq!((mistral.window, mistral.head_width), (Some(4096), 40 / 6));
    assert!(mistral.notes[0].contains("sliding_window = 4096"));
    let mistral =
        parsed(&MISTRAL, &[("num_key_value_heads", json!(null)), ("eos_token_id", json!(null))]).unwrap();
    assert_eq!((mistral.window, mistral.kv_heads, mistral.eos.len()), (None, 6, 0));
    let qwen2 = without(&QWEN2, &["sliding_window", "max_window_layers", "bos_token_id"]).unwrap();
    assert_eq!((qwen2.window, qwen2.bos, qwen2.notes.len()), (None, None, 0));
    let bare = Config::parse(r#"{"model_type": "llama"}"#).unwrap();
    assert_eq!(bare.parameters().total(), 6_738_415_616);
    assert!(
        without(&PRUNED_LLAMA, &["hidden_size"])
            .unwrap_err()
            .to_string()
            .contains("`hidden_size` is missing")
    );
    assert!(without(&LLAMA, &["model_type"]).unwrap_err().to_string().contains("`model_type` is missing"));
}

#[test]
fn a_pruned_model_says_what_its_base_left_to_its_class() {
    let base = without(&MISTRAL, &["num_key_value_heads", "sliding_window", "rms_norm_eps", "bos_token_id"]);
    // 8 key/value heads by default, which 6 query heads cannot share.
    assert!(base.unwrap_err().to_string().contains("evenly"));
    let base = without(&MISTRAL, &["sliding_window", "rms_norm_eps", "bos_token_id"]).unwrap();
    let written = with_layers(&base, base.layers.clone()).unwrap();
    let read = Config::parse(&serde_json::to_string(&written.raw).unwrap()).unwrap();
    assert_eq!(read, written);
    assert_eq!((read.window, read.norm_epsilon, read.bos), (Some(4096), 1e-6, Some(1)));
}

#[test]
fn sizes_that_are_no_models_are_refused_by_name_before_anything_is_made_of_them() {
    let huge = [
        json!(1u64 << 62),
        json!(u64::MAX),
        json!(100_000_000),
        json!(1e300),
        json!(-1),
        json!(2.5),
        json!("4"),
    ];
    let sizes = [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "vocab_size",
    ];
    for family in FAMILIES {
        for key in sizes {
            for value in &huge {
                let e = parsed(family, &[(key, value.clone())]).unwrap_err();
                assert_eq!(e.kind, Kind::Checkpoint);
                assert!(e.to_string().contains(&format!("`{key}` is ")), "{key} = {value}: {e}");
            }
        }
        for key in ["max_position_embeddings", "rms_norm_eps"] {
            for value in [json!(-1), json!("4"), json!(u64::MAX)] {
                let refused = parsed(family, &[(key, value.clone())]);
                assert!(
                    refused.is_err() || (key, value.as_u64()) == ("rms_norm_eps", Some(u64::MAX)),
                    "{key} = {value}"
                );
            }
        }
    }
    // Each alone is possible.
    let wide = [
        ("num_attention_heads", json!(4096)),
        ("num_key_value_heads", json!(4096)),
        ("head_dim", json!(4096)),
    ];
    assert!(parsed(&LLAMA, &wide).unwrap_err().to_string().contains("`num_attention_heads` x `head_dim`"));
    let largest = [
        ("vocab_size", 1 << 22),
        ("hidden_size", 1 << 22),
        ("intermediate_size", 1 << 22),
        ("num_hidden_layers", 4096),
    ];
    let largest = largest.map(|(key, size)| (key, json!(size)));
    assert!(parsed(&LLAMA, &largest).unwrap().parameters().total() < usize::MAX / 4);
    assert!(
        parsed(&MISTRAL, &[("sliding_window", json!(0))])
            .unwrap_err()
            .to_string()
            .contains("`sliding_window` is 0")
    );
    assert_eq!(parsed(&LLAMA, &[("hidden_size", json!(40.0))]).unwrap().hidden, 40);
}

#[test]
fn pruned_layers_have_no_more_of_anything_than_dense_ones() {
    let refused = |key: &str, value: Value| {
        let mut raw = raw(&PRUNED_LLAMA);
        raw["per_layer_config"]["0"][key] = value;
        Config::parse(&raw.to_string()).unwrap_err().to_string()
    };
    for (key, value) in [
        ("query_heads_per_kv", json!([u64::MAX, 2])),
        ("query_heads_per_kv", json!([4, 3])),
        ("query_heads_per_kv", json!([1, 1, 1])),
        ("intermediate_size", json!(23)),
        ("intermediate_size", json!(u64::MAX)),
    ] {
        let said = refused(key, value.clone());
        assert!(said.contains("layer 0 has more heads or neurons"), "{key} = {value}: {said}");
    }
    assert!(refused("query_heads_per_kv", json!([-1])).contains("layer 0 cannot be read"));
    assert!(refused("query_heads_per_kv", json!([2, 2])).contains("layer 0 contradicts itself"));
}

#[test]
fn tokens_may_be_one_several_none_or_negative() {
    let eos = |value: Value| parsed(&LLAMA, &[("eos_token_id", value)]).map(|config| config.eos);
    assert_eq!(eos(json!(7)).unwrap(), [7]);
    assert_eq!(eos(json!([7, 9])).unwrap(), [7, 9]);
    assert_eq!(eos(json!(-1)).unwrap(), [] as [u32; 0]);
    assert_eq!(eos(json!(null)).unwrap(), [] as [u32; 0]);
    for wrong in [json!("</s>"), json!(1.5), json!([[1]]), json!(u64::MAX)] {
        assert!(eos(wrong).unwrap_err().to_string().contains("`eos_token_id` is"));
    }
}

#[test]
fn a_pruned_model_is_not_pruned_again() {
    assert!(parsed(&LLAMA, &[]).unwrap().check_prunable().is_ok());
    let e = parsed(&PRUNED_LLAMA, &[]).unwrap().check_prunable().unwrap_err();
    assert!(e.kind == Kind::Checkpoint && e.to_string().contains("name the dense model"), "{e}");
}
