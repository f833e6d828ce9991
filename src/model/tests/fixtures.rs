//! The decoder against transformers on the project's own tiny models (`tests/fixtures/decoder.py`), each with
//! one thing that a decoder can get wrong.

use super::*;

/// The largest difference from what transformers computes in f32, over the largest value.
const CLOSE: f32 = 1e-5;

fn fixtures() -> Vec<std::path::PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decoder");
    let mut folders: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

/// Relative differences of the first layer's output and of the logits, the config.json changed before.
fn differences(folder: &Path, change: impl FnOnce(&mut serde_json::Value)) -> [f32; 2] {
    let dir = tempfile::tempdir().unwrap();
    let mut config: serde_json::Value = files::read_json(&folder.join("config.json")).unwrap();
    change(&mut config);
    files::write_json(&dir.path().join("config.json"), &config).unwrap();
    std::fs::copy(folder.join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let model = open(dir.path());
    assert!(model.unclaimed().is_empty());
    let expected = candle_core::safetensors::load(folder.join("expected.safetensors"), &Device::Cpu).unwrap();
    let tokens = expected["tokens"].flatten_all().unwrap().to_dtype(DType::U32).unwrap();
    let tokens: Vec<u32> = tokens.to_vec1().unwrap();
    let segments = Segments::sequences(2, 24);
    let layer = model.layer(0).unwrap();
    let first = model.forward_layer(&layer, &model.embed(&tokens).unwrap(), &segments).unwrap();
    let logits = model.logits(&model.hidden(&tokens, &segments).unwrap()).unwrap();
    let apart = |found: &Tensor, name: &str| {
        let expected = expected[name].flatten_to(1).unwrap();
        worst(found, &expected) / worst(&expected, &expected.zeros_like().unwrap())
    };
    [apart(&first, "first_layer"), apart(&logits, "logits")]
}

#[test]
fn tiny_models_give_the_logits_of_transformers() {
    let folders = fixtures();
    assert_eq!(folders.len(), 7);
    for folder in folders {
        let found = differences(&folder, |_| {});
        println!("{}: {found:?}", folder.display());
        assert!(found.iter().all(|d| *d < CLOSE), "{}: {found:?}", folder.display());
    }
}

/// Each fixture must be able to tell: without the thing that it is about, its logits are far off.
#[test]
fn what_a_tiny_model_is_about_decides_its_logits() {
    let change = |name: &str, change: fn(&mut serde_json::Value)| {
        let folder = fixtures().into_iter().find(|folder| folder.ends_with(name)).unwrap();
        let [_, logits] = differences(&folder, change);
        assert!(logits > 1e-2, "{name}: {logits}");
    };
    let no_scaling = |config: &mut serde_json::Value| {
        let rope = serde_json::json!({"rope_type": "default", "rope_theta": 10000.0});
        config["rope_scaling"] = serde_json::Value::Null;
        config["rope_parameters"] = rope;
    };
    change("rope_llama3", no_scaling);
    change("rope_linear", no_scaling);
    change("window", |config| config["sliding_window"] = 24.into());
}
