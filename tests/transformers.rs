//! Pruned models in transformers, as the folder lies there: logits, cached and batched writing, saving again.
//!
//! Needs a Python with torch and transformers: `TYR_RUNTIMES_PYTHON`, or what `scripts/install_runtimes` makes.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod runtimes_support;

use std::path::{Path, PathBuf};

use candle_core::Device;
use rand::RngExt as _;
use serde_json::{Value, json};
use tyr::base::rng;
use tyr::data::Tokenizer;
use tyr::model::family::Biases;
use tyr::model::pico::{Pico, bytes};
use tyr::model::save::{save, with_layers_and_biases};
use tyr::model::{Config, LayerShape, Model, Source};
use tyr::tensor::attention::Segments;

/// The largest difference of two logits, which are of size 1 to 10.
const CLOSE: f64 = 1e-4;

/// A model: name, changes of the dense configuration, query heads of every key/value head and neurons of every
/// layer, whether outputs have biases, the class that transformers is to take.
struct Case {
    name: &'static str,
    dense: Value,
    layers: Vec<(&'static [usize], usize)>,
    output_biases: bool,
    class: &'static str,
}

fn case(name: &'static str, dense: Value, layers: &[(&'static [usize], usize)], class: &'static str) -> Case {
    Case { name, dense, layers: layers.to_vec(), output_biases: false, class }
}

fn cases() -> Vec<Case> {
    let llama = || json!({"model_type": "llama"});
    let mistral = || {
        let rope = json!({"type": "linear", "factor": 2.0});
        json!({"model_type": "mistral", "sliding_window": 5, "rope_scaling": rope, "tie_word_embeddings": false})
    };
    let qwen2 = || json!({"model_type": "qwen2", "use_sliding_window": false, "sliding_window": 4});
    let llama3 = json!({
        "model_type": "llama", "head_dim": 12, "tie_word_embeddings": false,
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    });
    let biased = json!({"model_type": "llama", "attention_bias": true, "mlp_bias": true});
    let irregular: [(&[usize], usize); 4] = [(&[4, 1], 9), (&[3, 2], 40), (&[4, 2], 1), (&[3], 17)];
    let uneven: [(&[usize], usize); 4] = [(&[], 20), (&[2, 1], 0), (&[2], 7), (&[4, 4], 33)];
    let alike = |groups: &'static [usize]| [(groups, 24); 4];
    let pruned = "PrunedLlamaForCausalLM";
    vec![
        case("irregular", llama(), &irregular, pruned),
        case("first_empty", llama(), &[(&[], 0), (&[2, 1], 9), (&[1], 8), (&[4, 2], 7)], pruned),
        case("middle_empty", llama(), &[(&[1, 3], 8), (&[], 0), (&[], 5), (&[4, 4], 0)], pruned),
        case("last_empty", llama(), &[(&[1, 2], 8), (&[4], 3), (&[2], 5), (&[], 0)], pruned),
        case("one_attends", llama(), &[(&[], 8), (&[], 3), (&[], 5), (&[1], 0)], pruned),
        Case { output_biases: true, ..case("output_biases", llama(), &uneven, pruned) },
        case("all_biases", biased.clone(), &uneven, pruned),
        case("scaled_rope", llama3.clone(), &uneven, pruned),
        case("qkv_biases", qwen2(), &uneven, pruned),
        case("window", mistral(), &uneven, "PrunedMistralForCausalLM"),
        case("alike", llama(), &alike(&[2, 2]), "LlamaForCausalLM"),
        case("alike_biased", biased, &alike(&[1, 1]), "LlamaForCausalLM"),
        case("alike_three", llama3, &alike(&[3]), "MistralForCausalLM"),
        case("alike_window", mistral(), &alike(&[3, 3]), "MistralForCausalLM"),
        case("alike_qwen2", qwen2(), &alike(&[3, 3]), "Qwen2ForCausalLM"),
    ]
}

/// The dense model's configuration: four layers of two groups of four heads.
fn dense(changes: &Value) -> Config {
    let mut raw = json!({
        "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 40, "num_hidden_layers": 4, "num_attention_heads": 8,
        "num_key_value_heads": 2, "head_dim": 8, "vocab_size": bytes::VOCABULARY, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "max_position_embeddings": 128, "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 1,
    });
    for (key, value) in changes.as_object().unwrap() {
        raw[key] = value.clone();
    }
    if raw["rope_parameters"].is_object() {
        raw.as_object_mut().unwrap().remove("rope_theta");
    }
    Config::parse(&raw.to_string()).unwrap()
}

impl Case {
    /// Writes the pruned model with random weights.
    fn write(&self, folder: &Path, source: &Source) -> Model {
        let dense = dense(&self.dense);
        let shape = |(groups, neurons): &(&[usize], usize)| LayerShape {
            query_heads_per_kv: groups.to_vec(),
            intermediate_size: *neurons,
        };
        let mut biases = dense.biases;
        biases.attention_output |= self.output_biases;
        biases.mlp_output |= self.output_biases;
        let biases = Biases { ..biases };
        let layers = self.layers.iter().map(shape).collect();
        let config = with_layers_and_biases(&dense, layers, biases).unwrap();
        save(folder, &config, source, safetensors::Dtype::F32, |tensor| {
            let mut rng = rng::stream(7, &format!("{}/{}", self.name, tensor.name));
            let (middle, scale) = match tensor.name.as_str() {
                name if name.contains("norm") => (1.0, 0.3),
                name if name.ends_with("bias") => (0.0, 0.5),
                _ => (0.0, 3.0 / (*tensor.shape.last().unwrap() as f32).sqrt()),
            };
            let count = tensor.shape.iter().product();
            Ok((0..count).map(|_| middle + scale * rng.random_range(-1.0f32..1.0)).collect())
        })
        .unwrap();
        open(folder)
    }
}

fn open(folder: &Path) -> Model {
    Model::open(&Source::folder(folder).unwrap(), &Device::Cpu).unwrap()
}

/// Logits of a sequence, token by token.
fn logits(model: &Model, tokens: &[u32]) -> Vec<Vec<f32>> {
    let hidden = model.hidden(tokens, &Segments::sequences(1, tokens.len())).unwrap();
    model.logits(&hidden).unwrap().to_vec2().unwrap()
}

/// The likeliest tokens after a prompt, one after the other.
fn greedy(model: &Model, prompt: &[u32], new: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..new {
        let last = logits(model, &tokens).pop().unwrap();
        let next = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
        tokens.push(next as u32);
    }
    tokens.split_off(prompt.len())
}

fn random_tokens(count: usize, name: &str) -> Vec<u32> {
    let mut rng = rng::stream(5, name);
    (0..count).map(|_| rng.random_range(2..bytes::VOCABULARY as u32)).collect()
}

/// What tyr makes of a model, for the script.
fn expect(model: &Model, source: &Source, folder: &Path) {
    let sequences = [random_tokens(14, "a"), random_tokens(14, "b")];
    let prompts = [random_tokens(9, "c"), random_tokens(3, "d"), random_tokens(1, "e")];
    let text = "A pruned model.";
    let expected = json!({
        "logits": sequences.iter().map(|tokens| logits(model, tokens)).collect::<Vec<_>>(),
        "last": prompts.iter().map(|tokens| logits(model, tokens).pop()).collect::<Vec<_>>(),
        "greedy": prompts.iter().map(|prompt| greedy(model, prompt, 6)).collect::<Vec<_>>(),
        "sequences": sequences,
        "prompts": prompts,
        "text": text,
        "ids": Tokenizer::open(source).unwrap().encode(text).unwrap(),
    });
    std::fs::write(folder.join("expected.json"), expected.to_string()).unwrap();
}

/// What the script prints of folders: what it runs on, then a report of each.
fn reports(python: &Path, folders: &[PathBuf], home: &Path) -> (Value, Vec<Value>) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runtimes/transformers_check.py");
    let mut command = std::process::Command::new(python);
    command
        .arg(script)
        .args(folders)
        .env("HF_HOME", home)
        .env("HF_HUB_OFFLINE", "1")
        .env("OMP_NUM_THREADS", "2");
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{printed}", String::from_utf8_lossy(&output.stdout));
    let mut lines =
        std::str::from_utf8(&output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap());
    (lines.next().unwrap(), lines.collect())
}

#[test]
fn every_pruned_model_is_the_same_one_in_transformers() {
    let Some(python) = runtimes_support::python("transformers") else { return };
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    let source = Pico::of_bytes(128).write(&base, 3).unwrap();
    // Without a class, which transformers would otherwise find by the model type.
    std::fs::write(base.join("tokenizer_config.json"), r#"{"bos_token": "<s>", "eos_token": "</s>"}"#)
        .unwrap();
    let cases = cases();
    let folders: Vec<PathBuf> = cases.iter().map(|case| dir.path().join(case.name)).collect();
    for (case, folder) in cases.iter().zip(&folders) {
        expect(&case.write(folder, &source), &source, folder);
    }
    let (versions, reports) = reports(&python, &folders, &dir.path().join("home"));
    println!("{versions}");
    assert_eq!(reports.len(), cases.len());
    for ((case, folder), report) in cases.iter().zip(&folders).zip(&reports) {
        check(case, report);
        same_after_saving(folder);
    }
}

/// Holds a report against what must be.
fn check(case: &Case, report: &Value) {
    println!("{report}");
    let name = case.name;
    let is_own = case.class.starts_with("Pruned");
    for figure in ["eager", "sdpa", "cached", "left_padded", "base_model"] {
        let apart = report[figure].as_f64().unwrap();
        assert!(apart < CLOSE, "{name}: {figure} differs by {apart}");
    }
    assert_eq!(report["round_trip"], 0.0, "{name}");
    for same in ["greedy", "greedy_sdpa", "greedy_uncached", "beams", "saved_tensors", "saved_sizes"] {
        assert_eq!(report[same], true, "{name}: {same}");
    }
    assert_eq!(report["class"], case.class, "{name}");
    assert_eq!(report["keys"], json!([]), "{name}");
    let refusal = report["without_trust"].as_str();
    assert_eq!(refusal.is_some(), is_own, "{name}: {refusal:?}");
    assert!(refusal.is_none_or(|said| said.contains("trust_remote_code")), "{name}: {refusal:?}");
    if is_own {
        assert_eq!(report["tokenizer"], report["ids"], "{name}");
    }
}

/// What transformers saved is the same model here.
fn same_after_saving(folder: &Path) {
    let tokens = random_tokens(14, "a");
    let [before, after] =
        [folder.to_path_buf(), folder.join("saved")].map(|folder| logits(&open(&folder), &tokens));
    assert_eq!(before, after, "{}", folder.display());
}
