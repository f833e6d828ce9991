//! Models whose layers are all alike are written as the plain family, and others as they were; both are read
//! back as they were written.

use safetensors::Dtype;
use serde_json::{Value, json};

use super::super::families::{LLAMA, MISTRAL, PRUNED_LLAMA, QWEN2};
use super::super::family::{Biases, Family};
use super::super::save::with_layers_and_biases;
use super::super::{plain, remote};
use super::*;

fn layer(groups: &[usize], neurons: usize) -> LayerShape {
    LayerShape { query_heads_per_kv: groups.to_vec(), intermediate_size: neurons }
}

/// A dense model of two layers, 8 query heads, 4 key/value heads, residual width 64.
fn dense(family: &'static Family, changes: &[(&str, Value)]) -> Config {
    let mut raw = json!({
        "model_type": family.model_type, "hidden_size": 64, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8, "vocab_size": 30, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "max_position_embeddings": 64, "sliding_window": null, "bos_token_id": 3, "eos_token_id": 4,
        "hidden_act": "silu", "auto_map": {"AutoConfig": "someone.Else"},
    });
    changes.iter().for_each(|(key, value)| raw[*key] = value.clone());
    Config::parse(&raw.to_string()).unwrap()
}

/// Written with these layers, and read again.
fn written(base: &Config, layers: [LayerShape; 2], biases: Biases) -> Config {
    let written = with_layers_and_biases(base, layers.to_vec(), biases).unwrap();
    let read = Config::parse(&serde_json::to_string(&written.raw).unwrap()).unwrap();
    assert_eq!(read, written);
    assert_eq!((&written.layers[..], written.head_width, written.hidden), (&layers[..], 8, 64));
    assert_eq!((written.biases, written.window), (biases, base.window));
    written
}

#[test]
fn alike_layers_are_written_as_the_family_that_can_say_them() {
    let all = Biases { qkv: true, attention_output: true, gate_up: true, mlp_output: true };
    let qkv = Biases { qkv: true, ..Biases::default() };
    let output = Biases { attention_output: true, ..Biases::default() };
    let windowed = [("sliding_window", json!(9))];
    let biased = [("attention_bias", json!(true)), ("mlp_bias", json!(true))];
    let cases: [(Config, &[usize], Biases, &Family); 11] = [
        (dense(&LLAMA, &[]), &[1, 1, 1, 1], Biases::default(), &LLAMA),
        (dense(&LLAMA, &[]), &[2, 2, 2, 2], Biases::default(), &LLAMA),
        (dense(&LLAMA, &biased), &[2, 2], all, &LLAMA),
        // Three heads do not divide the residual width, which Llama's class insists on.
        (dense(&LLAMA, &[]), &[1, 1, 1], Biases::default(), &MISTRAL),
        (dense(&LLAMA, &biased), &[1, 1, 1], all, &PRUNED_LLAMA),
        (dense(&LLAMA, &[]), &[2, 2], output, &PRUNED_LLAMA),
        (dense(&MISTRAL, &windowed), &[2, 2, 2], Biases::default(), &MISTRAL),
        (dense(&MISTRAL, &windowed), &[2, 2], output, &PRUNED_LLAMA),
        (dense(&QWEN2, &[]), &[2, 2, 2], qkv, &QWEN2),
        (dense(&QWEN2, &[]), &[2, 2], Biases { mlp_output: true, ..qkv }, &PRUNED_LLAMA),
        (dense(&QWEN2, &[("sliding_window", json!(5))]), &[2, 2], qkv, &QWEN2),
    ];
    for (base, groups, biases, family) in cases {
        let case = format!("{} {groups:?} {biases:?}", base.family.model_type);
        let written = written(&base, [layer(groups, 24), layer(groups, 24)], biases);
        assert_eq!(written.family.model_type, family.model_type, "{case}");
        let is_plain = !family.per_layer;
        assert_eq!(written.raw.contains_key("per_layer_config"), !is_plain, "{case}");
        assert_eq!(written.raw.contains_key("auto_map"), !is_plain, "{case}");
        if is_plain {
            assert_eq!((written.heads, written.neurons), (groups.iter().sum(), 24), "{case}");
            assert!(written.is_dense() && written.check_prunable().is_ok(), "{case}");
            assert_eq!(written.raw["num_key_value_heads"], groups.len(), "{case}");
        }
    }
}

#[test]
fn what_no_plain_family_can_say_keeps_its_layers() {
    let base = dense(&LLAMA, &[]);
    for layers in [
        [layer(&[2, 2], 24), layer(&[2, 2], 23)],
        [layer(&[2, 1], 24), layer(&[2, 1], 24)],
        [layer(&[], 24), layer(&[], 24)],
        [layer(&[2, 2], 0), layer(&[2, 2], 0)],
    ] {
        let written = written(&base, layers, Biases::default());
        assert_eq!(written.family.model_type, "pruned_llama");
        assert!(written.check_prunable().is_err());
        assert_eq!(plain::of(&written, &LLAMA), None);
        assert_eq!(
            written.raw["auto_map"]["AutoModelForCausalLM"],
            "modeling_pruned_llama.PrunedLlamaForCausalLM"
        );
    }
}

#[test]
fn a_pruned_model_with_alike_layers_of_an_earlier_version_becomes_plain_when_it_is_written_again() {
    let base = dense(&LLAMA, &[]);
    let mut old = with_layers(&base, vec![layer(&[2, 2], 24), layer(&[2, 2], 23)]).unwrap().raw;
    old["per_layer_config"]["1"]["intermediate_size"] = json!(24);
    let old = Config::parse(&serde_json::to_string(&old).unwrap()).unwrap();
    assert_eq!(old.family.model_type, "pruned_llama");
    let again = with_layers(&old, old.layers.clone()).unwrap();
    assert_eq!((again.family.model_type, again.heads, again.kv_heads), ("llama", 4, 2));
}

#[test]
fn the_newer_keys_of_the_rotary_embedding_are_written_as_the_older_ones_that_all_versions_read() {
    let table = json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5});
    let base = dense(&LLAMA, &[("rope_theta", json!(null)), ("rope_parameters", table)]);
    let pruned = written(&base, [layer(&[2], 5), layer(&[1], 6)], Biases::default());
    assert!(!pruned.raw.contains_key("rope_parameters"));
    assert_eq!(pruned.raw["rope_theta"], 5e5);
    assert_eq!(pruned.raw["rope_scaling"], json!({"rope_type": "linear", "factor": 4.0}));
    assert_eq!((pruned.rope_theta, &pruned.rope_scaling), (base.rope_theta, &base.rope_scaling));
    let unscaled = dense(&LLAMA, &[("rope_parameters", json!({"rope_type": "default", "rope_theta": 1e4}))]);
    let pruned = written(&unscaled, [layer(&[2], 5), layer(&[1], 6)], Biases::default());
    assert_eq!((pruned.raw["rope_scaling"].clone(), pruned.rope_theta), (Value::Null, 1e4));
}

/// A folder with these layers, all weights alike.
fn saved(base: &Config, layers: Vec<LayerShape>, tokenizer_config: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let companions = dir.path().join("companions");
    std::fs::create_dir(&companions).unwrap();
    std::fs::write(companions.join("tokenizer_config.json"), tokenizer_config).unwrap();
    let config = with_layers(base, layers).unwrap();
    let source = Source::folder(&companions).unwrap();
    let names = save(&dir.path().join("model"), &config, &source, Dtype::F32, |tensor| {
        Ok(vec![0.25; tensor.shape.iter().product()])
    })
    .unwrap();
    assert_eq!(names.contains(&remote::FILE.to_string()), config.family.per_layer);
    dir
}

#[test]
fn a_folder_has_the_code_that_transformers_needs_and_no_tensor_without_elements() {
    let base = dense(&LLAMA, &[]);
    let dir = saved(&base, vec![layer(&[], 24), layer(&[2, 1], 0)], "{}");
    let folder = dir.path().join("model");
    assert_eq!(std::fs::read_to_string(folder.join(remote::FILE)).unwrap(), remote::CODE);
    let model = open(&folder);
    let names: Vec<&str> = model.checkpoint().names().collect();
    assert!(!names.iter().any(|name| name.contains("0.self_attn") || name.contains("1.mlp")), "{names:?}");
    assert!(names.contains(&"model.layers.0.input_layernorm.weight"), "{names:?}");
    assert_eq!(model.checkpoint().parameters(), model.config().parameters().total());
    assert_eq!(model.config().raw["tokenizer_class"], "PreTrainedTokenizerFast");
    let hidden = model.hidden(&[1, 2, 3], &Segments::sequences(1, 3)).unwrap();
    assert_eq!(model.logits(&hidden).unwrap().dims(), [3, 30]);
    // Earlier versions wrote such tensors.
    let path = folder.join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let nothing = Tensor::zeros((0, 64), DType::F32, &Device::Cpu).unwrap();
    tensors.insert("model.layers.0.self_attn.q_proj.weight".into(), nothing);
    drop(model);
    candle_core::safetensors::save(&tensors, &path).unwrap();
    assert!(open(&folder).notes().is_empty() && open(&folder).unclaimed().is_empty());
}

#[test]
fn a_tokenizer_that_has_a_class_keeps_it_and_plain_folders_have_no_code() {
    let named = r#"{"tokenizer_class": "LlamaTokenizer"}"#;
    let dir = saved(&dense(&LLAMA, &[]), vec![layer(&[2], 24), layer(&[1], 24)], named);
    assert!(!open(&dir.path().join("model")).config().raw.contains_key("tokenizer_class"));
    let dir = saved(&dense(&LLAMA, &[]), vec![layer(&[2], 24); 2], "{}");
    let folder = dir.path().join("model");
    assert!(!folder.join(remote::FILE).exists());
    assert_eq!(open(&folder).config().raw["architectures"], json!(["LlamaForCausalLM"]));
}
