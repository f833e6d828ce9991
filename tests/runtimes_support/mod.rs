//! Models for other runtimes, and what these make of them.
// Each test file uses a part.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::Device;
use serde_json::{Value, json};
use tyr::base::Silent;
use tyr::data::{SpecialTokens, Tokenizer};
use tyr::export::{Exported, Options, write};
use tyr::model::kept::Kept;
use tyr::model::matrix::Part;
use tyr::model::pico::Pico;
use tyr::model::save::{save, with_layers};
use tyr::model::{Config, LayerShape, Model, Source};
use tyr::spec::{Form, Quantisation};
use tyr::tensor::attention::Segments;

/// The interpreter that has the runtimes: `TYR_RUNTIMES_PYTHON`, else that of `scripts/install_runtimes`. `None`, and a
/// word about it, where it lacks a module.
pub fn python(module: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/runtimes/bin/python");
    let python = std::env::var_os("TYR_RUNTIMES_PYTHON").map_or(default, PathBuf::from);
    let check = format!("import importlib.util, sys; sys.exit(importlib.util.find_spec('{module}') is None)");
    let has = Command::new(&python).args(["-c", &check]).output().is_ok_and(|out| out.status.success());
    if !has {
        let place = python.display();
        eprintln!("skipped: {place} has no {module} (scripts/install_runtimes, or TYR_RUNTIMES_PYTHON)");
    }
    has.then_some(python)
}

/// What one layer keeps of a dense one: query heads and neurons.
pub type Keep = (&'static [usize], std::ops::Range<usize>);

/// A model with what is to be known of it.
pub struct Subject {
    pub source: Source,
    pub model: Model,
    pub tokenizer: Tokenizer,
    pub bos: Option<u32>,
}

impl Subject {
    pub fn open(source: Source) -> Self {
        let model = Model::open(&source, &Device::Cpu).unwrap();
        let tokenizer = Tokenizer::open(&source).unwrap();
        let bos = SpecialTokens::of(&source, model.config(), &tokenizer).unwrap().bos;
        Self { source, model, tokenizer, bos }
    }

    /// The built-in model.
    pub fn builtin() -> Self {
        Self::open(Source::resolve("builtin:quickstart").unwrap())
    }

    /// A tiny random one of three layers, each with two groups of four heads.
    pub fn tiny(folder: &Path, seed: u64, change: impl FnOnce(&mut Pico)) -> Self {
        let mut pico = Pico { heads: 8, kv_heads: 2, ..Pico::of_bytes(256) };
        change(&mut pico);
        let source = pico.write(folder, seed).unwrap();
        let special = json!({"bos_token": "<s>", "eos_token": "</s>"});
        std::fs::write(folder.join("tokenizer_config.json"), special.to_string()).unwrap();
        Self::open(source)
    }

    /// What is left of it when each layer keeps some of its heads and neurons.
    pub fn cut(&self, keep: &[Keep], folder: &Path) -> Self {
        let config = self.model.config();
        let kept: Vec<Kept> = keep.iter().map(|keep| kept(config, keep)).collect();
        let shapes: Vec<LayerShape> = kept.iter().map(|kept| kept.shape(config)).collect();
        let target = with_layers(config, shapes).unwrap();
        save(folder, &target, &self.source, self.model.dtype().unwrap(), |tensor| {
            let [matrix] = tensor.rule.holds else { panic!("{} is fused", tensor.name) };
            let layer = tensor.layer.unwrap_or(0);
            let place = config.place(*matrix, tensor.rule.part, layer).unwrap();
            let whole = self.model.checkpoint().values(&place).unwrap();
            let (rows, columns) = matrix.axes();
            let all =
                |axis: tyr::model::matrix::Axis| (0..axis.size(config, &config.layers[layer])).collect();
            let taken = |axis| match tensor.layer {
                Some(layer) => kept[layer].entries(axis, config).unwrap_or_else(|| all(axis)),
                None => all(axis),
            };
            let columns = columns.filter(|_| tensor.rule.part == Part::Weight);
            let width = columns.map_or(1, |axis| axis.size(config, &config.layers[layer]));
            let columns = columns.map_or(vec![0], taken);
            Ok(taken(rows)
                .iter()
                .flat_map(|r| columns.iter().map(|c| whole[r * width + c]).collect::<Vec<_>>())
                .collect())
        })
        .unwrap();
        Self::open(Source::folder(folder).unwrap())
    }

    /// Writes it in a form.
    pub fn export(&self, form: Form, quantisation: Quantisation, out: &Path) -> Exported {
        let options = Options { quantisation, gguf_base: None, stored: None, name: None };
        write(&self.model, &self.source, form, &options, out, &Silent).unwrap()
    }

    /// Log-probabilities after every token: [n][V].
    pub fn logprobs(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        let hidden = self.model.hidden(tokens, &Segments::sequences(1, tokens.len())).unwrap();
        let logits = self.model.logits(&hidden).unwrap().to_vec2::<f32>().unwrap();
        let one = |row: Vec<f32>| {
            let top = row.iter().copied().fold(f32::MIN, f32::max);
            let sum: f64 = row.iter().map(|x| f64::from(x - top).exp()).sum();
            row.iter().map(|x| f64::from(x - top) - sum.ln()).collect()
        };
        logits.into_iter().map(one).collect()
    }

    /// exp of the mean negative log-likelihood of all tokens but the first.
    pub fn perplexity(&self, tokens: &[u32]) -> f64 {
        let rows = self.logprobs(tokens);
        let nats: f64 = tokens[1..].iter().zip(&rows).map(|(t, row)| -row[*t as usize]).sum();
        (nats / (tokens.len() - 1) as f64).exp()
    }

    /// The likeliest continuation, up to what ends a text.
    pub fn greedy(&self, prompt: &[u32], count: usize) -> Vec<u32> {
        let mut tokens = prompt.to_vec();
        for _ in 0..count {
            let row = self.logprobs(&tokens).pop().unwrap();
            let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap() as u32;
            if self.model.config().eos.contains(&best) {
                break;
            }
            tokens.push(best);
        }
        tokens.split_off(prompt.len())
    }
}

fn kept(config: &Config, (heads, neurons): &Keep) -> Kept {
    let mut kv_heads: Vec<usize> = heads.iter().map(|h| h / config.group()).collect();
    kv_heads.dedup();
    Kept { heads: heads.to_vec(), kv_heads, neurons: neurons.clone().collect() }
}

/// Three layers of a tiny model, as pruning may leave them: one irregular, others with everything gone somewhere.
pub fn tiny_cuts() -> Vec<(&'static str, [Keep; 3])> {
    vec![
        ("irregular", [(&[0, 1, 2, 3, 5], 0..33), (&[2, 4, 5], 5..12), (&[1, 6], 0..1)]),
        ("alike", [(&[0, 1, 4, 5], 0..32), (&[2, 3, 6, 7], 3..35), (&[0, 3, 5, 6], 8..40)]),
        ("attention_gone_first", [(&[], 0..9), (&[0, 1, 2, 6], 0..20), (&[7], 0..3)]),
        ("attention_gone_last", [(&[0, 4, 5], 0..9), (&[], 0..20), (&[], 4..7)]),
        ("neurons_gone_first", [(&[0, 1, 4], 0..0), (&[2, 3], 0..0), (&[3, 4], 1..6)]),
        ("neurons_gone_last", [(&[3, 4, 5, 6], 0..8), (&[], 0..0), (&[1, 2, 7], 0..0)]),
        ("all_gone", [(&[], 0..0), (&[], 0..0), (&[], 0..0)]),
    ]
}

/// Eight layers of the built-in model (four groups of two heads, 704 neurons), a good tenth of it removed.
pub const BUILTIN_CUT: [Keep; 8] = [
    (&[0, 1, 2, 3, 4, 5, 6, 7], 0..704),
    (&[0, 1, 2, 3, 4, 5, 6], 0..640),
    (&[0, 1, 2, 3, 4, 6, 7], 10..680),
    (&[0, 1, 2, 3, 4, 5, 6, 7], 0..673),
    (&[1, 2, 3, 4, 5, 6, 7], 0..700),
    (&[0, 1, 2, 3, 4, 5, 6, 7], 64..704),
    (&[0, 1, 3, 4, 5, 6, 7], 0..704),
    (&[0, 1, 2, 3, 5, 6], 0..704),
];

/// Texts that cutters, bytes and special tokens treat differently.
pub const TEXTS: [&str; 6] = [
    "The cook took the knife.",
    "  two spaces,\ttabs\n\nand lines  \n",
    "It's 12345 o'clock; we'll see: don't!",
    "naïve façade — “quoted” … 日本語 🎉 ÀÉ",
    "camelCase snake_case x=y+z; //comment {[()]}",
    " ",
];

/// Runs a script of ours on requests, in one process, and returns the answers.
pub fn answers(python: &Path, script: &str, requests: &[Value], folder: &Path) -> Vec<Value> {
    let file = folder.join("script.py");
    let request = folder.join("request.json");
    std::fs::write(&file, script).unwrap();
    std::fs::write(&request, json!(requests).to_string()).unwrap();
    let out = Command::new(python).arg(&file).arg(&request).output().unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{}: {errors}", out.status);
    let answer = String::from_utf8(out.stdout).unwrap();
    let last =
        answer.lines().rfind(|line| line.starts_with('[')).unwrap_or_else(|| panic!("{answer} {errors}"));
    serde_json::from_str(last).unwrap()
}

/// Largest difference from the log-probabilities in a file that a script wrote.
pub fn apart(subject: &Subject, tokens: &[u32], file: &Path) -> f64 {
    let bytes = std::fs::read(file).unwrap();
    let theirs: Vec<f64> = bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
    let ours: Vec<f64> = subject.logprobs(tokens).concat();
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
