//! The files of a model: which weights are taken, what lies there instead of a checkpoint, numbers that are
//! none, and the small files that decide behaviour.

use std::path::Path;

use safetensors::Dtype;
use serde_json::json;

use super::super::companions::{self, Companions};
use super::super::pico::Tokens;
use super::super::save::companions_hash;
use super::*;
use crate::base::Error;
use crate::tensor::attention::Rotary;

const INDEX: &str = "model.safetensors.index.json";

type Tensors = std::collections::HashMap<String, Tensor>;

fn written() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Pico { tied: false, ..Pico::default() }.write(dir.path(), 1).unwrap();
    dir
}

/// A model whose tensors were changed.
fn with_tensors(change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let dir = written();
    let path = dir.path().join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    change(&mut tensors);
    candle_core::safetensors::save(&tensors, &path).unwrap();
    dir
}

fn with_config(change: impl FnOnce(&mut serde_json::Value)) -> tempfile::TempDir {
    let dir = written();
    let path = dir.path().join("config.json");
    let mut config = files::read_json(&path).unwrap();
    change(&mut config);
    files::write_json(&path, &config).unwrap();
    dir
}

fn logits(model: &Model) -> Result<Tensor, Error> {
    model.logits(&model.hidden(&[3, 1, 4], &Segments::sequences(1, 3))?)
}

#[test]
fn a_single_file_goes_before_an_index_and_that_is_told() {
    let dir = written();
    let hash = Source::folder(dir.path()).unwrap().hash().unwrap();
    let names = |folder: &Path| open(folder).notes().join("\n");
    assert_eq!(names(dir.path()), "");
    let index = json!({"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}});
    files::write_json(&dir.path().join(INDEX), &index).unwrap();
    let source = Source::folder(dir.path()).unwrap();
    assert!(source.has_weights().unwrap());
    assert_eq!(source.hash().unwrap(), hash);
    let told = names(dir.path());
    assert!(told.contains("model.safetensors and model.safetensors.index.json"), "{told}");
    // Without the single file the index counts again.
    std::fs::rename(
        dir.path().join("model.safetensors"),
        dir.path().join("model-00001-of-00001.safetensors"),
    )
    .unwrap();
    assert!(source.has_weights().unwrap());
    assert_eq!(names(dir.path()), "");
    std::fs::remove_file(dir.path().join("model-00001-of-00001.safetensors")).unwrap();
    assert!(!source.has_weights().unwrap());
}

/// A file, and the text that is written to it; without one it is removed.
type Change = (&'static str, Option<&'static str>);

/// A file's old and new name.
type Rename = Option<(&'static str, &'static str)>;

/// What is said of a folder whose files were renamed, written (with a text) or removed (without one).
fn said_of(changes: &[Change], rename: Rename) -> String {
    let dir = written();
    if let Some((from, to)) = rename {
        std::fs::rename(dir.path().join(from), dir.path().join(to)).unwrap();
    }
    for (name, text) in changes {
        let path = dir.path().join(name);
        match text {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
    }
    let source = Source::folder(dir.path()).unwrap();
    let e = match Model::open(&source, &Device::Cpu) {
        Err(e) => e,
        Ok(_) => source.file(companions::TOKENIZER).err().expect("must fail"),
    };
    assert!(e.kind == Kind::Checkpoint && e.hint.is_some(), "{e}");
    e.to_string()
}

#[test]
fn folders_of_another_kind_are_named_with_what_to_do() {
    const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n";
    let single = "model.safetensors";
    let cases: [(&[Change], Rename, &str); 16] = [
        (&[], Some((single, "pytorch_model.bin")), "pytorch_model.bin: pickle"),
        (&[], Some((single, "pytorch_model-00001-of-00002.bin")), "save_pretrained"),
        (&[], Some((single, "tf_model.h5")), "tf_model.h5"),
        (&[], Some((single, "model.Q4_K_M.gguf")), "llama.cpp file (model.Q4_K_M.gguf)"),
        (&[], Some((single, "consolidated.00.safetensors")), "maker's own layout"),
        (&[], Some((single, "adapter_model.safetensors")), "adapter (LoRA"),
        (&[], Some((single, "weights.safetensors")), "the folder has weights.safetensors"),
        (&[], Some((single, "model-00001-of-00003.safetensors")), "no model.safetensors.index.json"),
        (&[("config.json", None), ("adapter_config.json", Some("{}"))], None, "adapter (LoRA"),
        (&[("config.json", None), ("params.json", Some("{}"))], None, "maker's own layout (params.json)"),
        (&[("tokenizer.json", None), ("tokenizer.model", Some("\n"))], None, "sentencepiece tokenizer.model"),
        (
            &[("tokenizer.json", None), ("vocab.json", Some("{}")), ("merges.txt", Some(""))],
            None,
            "vocab.json and merges.txt",
        ),
        (&[("tokenizer.json", None), ("tekken.json", Some("{}"))], None, "tekken.json"),
        (&[("tokenizer.json", Some(POINTER))], None, "tokenizer.json is a Git LFS pointer"),
        (&[(single, Some(POINTER))], None, "model.safetensors is a Git LFS pointer"),
        (&[("config.json", Some(POINTER))], None, "git lfs pull"),
    ];
    for (changes, rename, words) in cases {
        let said = said_of(changes, rename);
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn quantised_wrapped_and_partial_checkpoints_are_named() {
    let renamed = |from: &'static str, to: &'static str| {
        let rename = move |tensors: &mut Tensors| {
            let all: Vec<_> = tensors.drain().collect();
            tensors.extend(all.into_iter().map(|(name, tensor)| (name.replace(from, to), tensor)));
        };
        error(with_tensors(rename).path()).to_string()
    };
    for (from, to, words) in [
        ("model.", "_orig_mod.model.", "`_orig_mod.`"),
        ("model.", "module.model.", "`module.`"),
        ("model.", "base_model.model.model.", "`base_model.model.`"),
        ("model.", "", "lack `model.`"),
        ("q_proj.weight", "q_proj.qweight", "quantised (GPTQ or AWQ"),
        ("q_proj.weight", "q_proj.weight_packed", "compressed-tensors"),
        ("q_proj.weight", "q_proj.weight.absmax", "bitsandbytes"),
        ("q_proj.weight", "q_proj.base_layer.weight", "adapter that is not merged"),
        ("q_proj.weight", "q_proj.other", "`model.layers.0.self_attn.q_proj.weight` is missing"),
    ] {
        let said = renamed(from, to);
        assert!(said.contains(words), "{to}: {said}");
    }
    let packed = with_tensors(|tensors| {
        let codes = Tensor::zeros(512, DType::U8, &Device::Cpu).unwrap();
        tensors.insert("model.layers.0.self_attn.q_proj.weight".into(), codes);
    });
    let said = error(packed.path()).to_string();
    assert!(said.contains("stored as U8") && said.contains("quantised"), "{said}");
    let said =
        error(with_config(|c| c["quantization_config"] = json!({"quant_method": "fp8"})).path()).to_string();
    assert!(said.contains("quantised (fp8)"), "{said}");
}

#[test]
fn what_is_passed_over_is_told() {
    let dir = with_config(|config| {
        config.as_object_mut().unwrap().remove("rms_norm_eps");
        config["my_own_key"] = json!(1);
    });
    std::fs::write(dir.path().join("adapter_config.json"), "{}").unwrap();
    let told = open(dir.path()).notes().join("\n");
    for words in ["rms_norm_eps = 1e-6", "my_own_key", "adapter_config.json"] {
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn a_stored_head_of_a_tied_model_is_told_where_it_differs() {
    let told = |factor: f64| {
        let dir = with_tensors(|tensors| {
            let head = (&tensors["model.embed_tokens.weight"] * factor).unwrap();
            tensors.insert("lm_head.weight".into(), head);
        });
        let config = dir.path().join("config.json");
        let mut raw: serde_json::Value = files::read_json(&config).unwrap();
        raw["tie_word_embeddings"] = true.into();
        files::write_json(&config, &raw).unwrap();
        open(dir.path()).notes().join("\n")
    };
    assert_eq!(told(1.0), "");
    assert!(told(2.0).contains("another lm_head.weight"), "{}", told(2.0));
}

#[test]
fn a_shape_that_a_default_made_wrong_names_the_default() {
    let dir = with_config(|config| drop(config.as_object_mut().unwrap().remove("intermediate_size")));
    let said = error(dir.path()).to_string();
    assert!(said.contains("asks for [11008, 32]") && said.contains("intermediate_size = 11008"), "{said}");
}

#[test]
fn a_weight_that_is_no_number_is_named() {
    for (name, value) in [
        ("model.layers.1.mlp.down_proj.weight", f32::NAN),
        ("model.embed_tokens.weight", f32::INFINITY),
        ("model.layers.2.input_layernorm.weight", f32::NEG_INFINITY),
        ("lm_head.weight", f32::NAN),
    ] {
        let dir = with_tensors(|tensors| {
            let broken = (&tensors[name] * value as f64).unwrap();
            tensors.insert(name.into(), broken);
        });
        let e = logits(&open(dir.path())).unwrap_err();
        assert!(e.kind == Kind::Numeric && e.what.contains(name), "{name}: {e}");
    }
}

#[test]
fn activations_that_overflow_are_an_error_and_no_figure() {
    let dir = with_tensors(|tensors| {
        for name in ["model.norm.weight", "lm_head.weight"] {
            let huge = (&tensors[name] * 1e25).unwrap();
            tensors.insert(name.into(), huge);
        }
    });
    let e = logits(&open(dir.path())).unwrap_err();
    assert!(e.kind == Kind::Numeric && e.what.contains("logits"), "{e}");
}

#[test]
fn a_number_that_the_storage_dtype_cannot_hold_is_named_with_its_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let pico = Pico::default();
    let source = pico.write(&dir.path().join("dense"), 1).unwrap();
    let save_as = |dtype: Dtype, value: f32| {
        save(&dir.path().join("out"), &pico.config().unwrap(), &source, dtype, |tensor| {
            let mut values = vec![0.5; tensor.shape.iter().product()];
            if tensor.name == "model.norm.weight" {
                values[3] = value;
            }
            Ok(values)
        })
    };
    for (dtype, value, words) in [
        (Dtype::F16, 1e5, "holds 100000, which is too large for f16"),
        (Dtype::F16, 65520.0, "too large for f16"),
        (Dtype::BF16, f32::MAX, "too large for bf16"),
        (Dtype::F32, f32::NAN, "holds NaN (entry 3 of 32)"),
    ] {
        let e = save_as(dtype, value).unwrap_err();
        assert!(
            e.kind == Kind::Numeric && e.what.contains("model.norm.weight") && e.what.contains(words),
            "{e}"
        );
    }
    for (dtype, value) in
        [(Dtype::F16, 65519.0), (Dtype::F16, -65504.0), (Dtype::BF16, 1e38), (Dtype::F32, f32::MAX)]
    {
        save_as(dtype, value).unwrap();
    }
}

#[test]
fn ends_of_text_are_those_of_generation_config_and_else_those_of_the_configuration() {
    let dir = written();
    let eos = |text: &str| {
        std::fs::write(dir.path().join("generation_config.json"), text).unwrap();
        open(dir.path()).config().eos.clone()
    };
    assert_eq!(open(dir.path()).config().eos, [1]);
    assert_eq!(eos(r#"{"eos_token_id": [5, 9]}"#), [5, 9]);
    assert_eq!(eos(r#"{"eos_token_id": 7}"#), [7]);
    assert_eq!(eos(r#"{"do_sample": true}"#), [1]);
    for damaged in ["{", "[1]", r#"{"eos_token_id": "</s>"}"#] {
        std::fs::write(dir.path().join("generation_config.json"), damaged).unwrap();
        let e = error(dir.path());
        assert!(e.kind == Kind::Checkpoint && e.to_string().contains("generation_config.json"), "{e}");
    }
}

#[test]
fn the_chat_template_is_that_of_its_own_file_and_else_that_of_the_settings() {
    let dir = written();
    let source = Source::folder(dir.path()).unwrap();
    let template = || Companions::open(&source).unwrap().chat_template().map(String::from);
    let settings = |value: serde_json::Value| {
        files::write_json(&dir.path().join("tokenizer_config.json"), &json!({"chat_template": value}))
            .unwrap();
    };
    assert_eq!(template(), None);
    settings(json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]));
    assert_eq!(template().as_deref(), Some("d"));
    settings(json!("inside"));
    assert_eq!(template().as_deref(), Some("inside"));
    std::fs::write(dir.path().join("chat_template.jinja"), "{{ own }}").unwrap();
    assert_eq!(template().as_deref(), Some("{{ own }}"));
}

#[test]
fn every_small_file_is_hashed_and_goes_to_the_pruned_model() {
    let dir = tempfile::tempdir().unwrap();
    let pico = Pico { tokens: Tokens::Bytes, ..Pico::of_bytes(64) };
    let source = pico.write(&dir.path().join("dense"), 1).unwrap();
    let mut hashes = vec![companions_hash(&source).unwrap()];
    for name in companions::OPTIONAL {
        std::fs::write(dir.path().join("dense").join(name), "{}").unwrap();
        let hash = companions_hash(&source).unwrap();
        assert!(!hashes.contains(&hash), "{name}");
        hashes.push(hash);
    }
    let copy = dir.path().join("copy");
    let files = save(&copy, &pico.config().unwrap(), &source, Dtype::F32, |t| {
        Ok(vec![0.5; t.shape.iter().product()])
    });
    let mut files = files.unwrap();
    files.sort();
    let mut there: Vec<String> =
        std::fs::read_dir(&copy).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    assert_eq!(files, there);
    assert!(companions::all().all(|name| there.iter().any(|n| n == name)));
}

#[test]
fn rotary_tables_grow_with_the_texts_and_not_with_the_declared_context() {
    let dir = with_config(|config| config["max_position_embeddings"] = json!(1u64 << 40));
    let model = open(dir.path());
    logits(&model).unwrap();
    assert_eq!(model.rotary(3).positions(), 256);
    let long = model.rotary(300);
    assert_eq!(long.positions(), 512);
    // The same as tables that were made at once.
    let at_once = Rotary::new(&model.config().inverse_frequencies(), 512);
    assert_eq!((&long.cos, &long.sin), (&at_once.cos, &at_once.sin));
    let short = with_config(|config| config["max_position_embeddings"] = json!(20));
    assert_eq!(open(short.path()).rotary(7).positions(), 20);
}
