mod checkpoints;
mod configs;
pub(crate) mod family;
mod fixtures;
mod plain;

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::pico::Pico;
use super::save::{save, with_layers};
use super::*;
use crate::base::testing::shared;
use crate::base::{Kind, files};
use crate::tensor::attention::Segments;

fn worst(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

fn open(folder: &Path) -> Model {
    Model::open(&Source::folder(folder).unwrap(), &Device::Cpu).unwrap()
}

fn error(folder: &Path) -> crate::base::Error {
    Source::folder(folder).and_then(|s| Model::open(&s, &Device::Cpu)).err().expect("must fail")
}

#[test]
fn logits_equal_those_of_transformers() {
    let Some(root) = shared("golden/architectures") else { return };
    for name in [
        "llama2-mha",
        "llama31-gqa-scaled-rope",
        "llama32-tied-bf16",
        "mistral-nemo-head-dim",
        "mistral-sliding-window",
    ] {
        let expected =
            candle_core::safetensors::load(root.join(name).join("expected.safetensors"), &Device::Cpu)
                .unwrap();
        let model = open(&root.join(name));
        let ids: Vec<u32> =
            expected["input_ids"].flatten_all().unwrap().to_dtype(DType::U32).unwrap().to_vec1().unwrap();
        let segments = Segments::sequences(2, 48);
        let first =
            model.forward_layer(&model.layer(0).unwrap(), &model.embed(&ids).unwrap(), &segments).unwrap();
        assert!(
            worst(&first, &expected["hidden_first"].flatten_to(1).unwrap()) < 2e-4,
            "{name}: first layer"
        );
        let logits = model.logits(&model.hidden(&ids, &segments).unwrap()).unwrap();
        let difference = worst(&logits, &expected["logits"].flatten_to(1).unwrap());
        assert!(difference < 2e-4, "{name}: logits differ by {difference}");
    }
}

#[test]
fn logits_equal_those_of_candle_transformers() {
    use candle_transformers::models::llama::{Cache, Llama, LlamaConfig};
    let dir = tempfile::tempdir().unwrap();
    Pico::default().write(dir.path(), 1).unwrap();
    let config: LlamaConfig = files::read_json(&dir.path().join("config.json")).unwrap();
    let config = config.into_config(false);
    let tensors = candle_core::safetensors::load(dir.path().join("model.safetensors"), &Device::Cpu).unwrap();
    let oracle =
        Llama::load(candle_nn::VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu), &config).unwrap();
    let ids: Vec<u32> = (0..40).map(|i| (i * 7) % 64).collect();
    let model = open(dir.path());
    let ours = model.logits(&model.hidden(&ids, &Segments::sequences(1, 40)).unwrap()).unwrap();
    for length in [1, 2, 17, 40] {
        let mut cache = Cache::new(false, DType::F32, &config, &Device::Cpu).unwrap();
        let input = Tensor::from_slice(&ids[..length], (1, length), &Device::Cpu).unwrap();
        let theirs = oracle.forward(&input, 0, &mut cache).unwrap();
        assert!(worst(&ours.narrow(0, length - 1, 1).unwrap(), &theirs) < 1e-4, "length {length}");
    }
}

#[test]
fn a_model_saved_with_other_layers_counts_and_loads_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let source = Pico { bias: true, ..Pico::default() }.write(&dir.path().join("dense"), 1).unwrap();
    let dense = open(&dir.path().join("dense"));
    let shapes = [(vec![2, 1], 48), (vec![], 5), (vec![1], 0)];
    let layers =
        shapes.map(|(groups, m)| LayerShape { query_heads_per_kv: groups, intermediate_size: m }).to_vec();
    let config = with_layers(dense.config(), layers.clone()).unwrap();
    let folder = dir.path().join("pruned");
    save(&folder, &config, &source, safetensors::Dtype::BF16, |tensor| {
        Ok(vec![0.5; tensor.shape.iter().product()])
    })
    .unwrap();
    let pruned = open(&folder);
    assert_eq!(pruned.config().layers, layers);
    assert_eq!(pruned.checkpoint().parameters(), config.parameters().total());
    let logits = pruned.logits(&pruned.hidden(&[1, 2, 3], &Segments::sequences(1, 3)).unwrap()).unwrap();
    assert_eq!(logits.dims(), [3, 64]);
    assert!(logits.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|x| x.is_finite()));
}

#[test]
fn a_missing_config_or_shard_is_named() {
    let dir = tempfile::tempdir().unwrap();
    assert!(error(dir.path()).to_string().contains("config.json is missing"));
    Pico::default().write(dir.path(), 1).unwrap();
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#;
    std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let e = error(dir.path());
    assert_eq!(e.kind, Kind::Checkpoint);
    assert!(e.to_string().contains("model-00001-of-00002.safetensors is missing"), "{e}");
}

#[test]
fn a_truncated_file_is_an_error_at_every_length() {
    let dir = tempfile::tempdir().unwrap();
    Pico { layers: 1, ..Pico::default() }.write(dir.path(), 1).unwrap();
    let path = dir.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 1, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let e = error(dir.path());
        assert!(e.kind == Kind::Checkpoint || e.kind == Kind::Disk, "{length}: {e}");
        assert!(e.to_string().contains("model.safetensors"), "{length}: {e}");
    }
}

#[test]
fn shapes_and_dtypes_that_do_not_fit_the_config_are_named() {
    let dir = tempfile::tempdir().unwrap();
    Pico::default().write(dir.path(), 1).unwrap();
    let path = dir.path().join("config.json");
    let good = files::read_text(&path).unwrap();
    let with = |from: &str, to: &str| {
        files::write(&path, good.replace(from, to).as_bytes()).unwrap();
        error(dir.path()).to_string()
    };
    assert!(
        with("\"intermediate_size\": 48", "\"intermediate_size\": 50").contains(
            "`model.layers.0.mlp.gate_proj.weight` has shape [48, 32], config.json asks for [50, 32]"
        )
    );
    assert!(
        with("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4")
            .contains("`model.layers.3.input_layernorm.weight` is missing")
    );
    assert!(with("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3").contains("evenly"));
    assert!(with("\"silu\"", "\"gelu\"").contains("hidden_act"));
    assert!(with("\"llama\"", "\"gpt2\"").contains("model_type `gpt2`"));
    assert!(with("\"vocab_size\"", "\"vocabulary\"").contains("vocab_size"));
    files::write(&path, good.as_bytes()).unwrap();
    let ints = Tensor::zeros((64, 32), DType::I64, &Device::Cpu).unwrap();
    let mut tensors =
        candle_core::safetensors::load(dir.path().join("model.safetensors"), &Device::Cpu).unwrap();
    tensors.insert("model.embed_tokens.weight".into(), ints);
    candle_core::safetensors::save(&tensors, dir.path().join("model.safetensors")).unwrap();
    assert!(error(dir.path()).to_string().contains("stored as I64"));
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    Pico::default().write(dir.path(), 1).unwrap();
    assert_eq!(open(dir.path()).embed(&[64]).unwrap_err().kind, Kind::Data);
}

#[test]
fn a_text_longer_than_the_context_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    Pico::default().write(dir.path(), 1).unwrap();
    let model = open(dir.path());
    assert!(
        model
            .hidden(&vec![1; 257], &Segments::sequences(1, 257))
            .unwrap_err()
            .to_string()
            .contains("257 tokens")
    );
}

#[test]
fn an_unknown_builtin_and_a_missing_folder_say_what_exists() {
    assert!(Source::resolve("builtin:nothing").unwrap_err().to_string().contains("builtin:quickstart"));
    assert!(Source::resolve("no/such/folder").unwrap_err().to_string().contains("no/such/folder"));
}
