//! Reading such a GGUF file back: its tensors as 32-bit floats in our own form, one at a time. Copies of
//! key/value heads and zeros stay what they are in the file.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, Value};
use safetensors::Dtype;
use serde_json::{Map, json};

use super::{GGUF, ROPE_FACTORS, base, metadata, rope};
use crate::base::{Error, Kind, Result, files};
use crate::export::ours;
use crate::model::family::TensorEntry;
use crate::model::matrix::Part;
use crate::model::save::save;
use crate::model::{Config, LayerShape, Matrix, Model, Source};

/// Largest difference between a frequency's divisor in the file and what the RoPE scaling says, relative.
const CLOSE: f64 = 1e-6;

/// A file that is read.
struct Opened {
    path: PathBuf,
    content: Content,
    file: BufReader<File>,
    architecture: String,
}

/// Opens the one GGUF file of a folder, by way of our own form in `into`.
pub(in crate::export) fn read_back(folder: &Path, into: &Path) -> Result<Model> {
    let mut opened = Opened::new(only_file(folder)?)?;
    let config = opened.config().map_err(|e| e.at(opened.path.display()))?;
    opened.check_factors(&config)?;
    save(into, &config, &Source::Builtin(&[]), Dtype::F32, |entry| opened.values(entry, &config))?;
    Model::open(&Source::folder(into)?, &Device::Cpu)
}

/// The one GGUF file of a folder, or the file itself.
pub(in crate::export) fn only_file(folder: &Path) -> Result<PathBuf> {
    if folder.is_file() {
        return Ok(folder.to_path_buf());
    }
    let entries = std::fs::read_dir(folder).map_err(|e| files::io_error(folder, "list", &e))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let found: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "gguf")).collect();
    match &found[..] {
        [one] => Ok(one.clone()),
        all => Err(Error::new(Kind::Checkpoint, format!("{} GGUF files, where one is expected", all.len()))
            .at(folder.display())
            .hint("name the folder that an export wrote, or the file itself")),
    }
}

impl Opened {
    fn new(path: PathBuf) -> Result<Self> {
        let content = base::open(&path)?;
        let file = BufReader::new(File::open(&path).map_err(|e| files::io_error(&path, "open", &e))?);
        let architecture = content.metadata.get("general.architecture").and_then(|v| v.to_string().ok());
        let architecture = architecture.cloned().unwrap_or_default();
        if !["llama", "deci"].contains(&architecture.as_str()) {
            let what = format!("a GGUF file of the architecture `{architecture}`, which is not read");
            return Err(Error::new(Kind::Checkpoint, what)
                .at(path.display())
                .hint("read are llama and deci"));
        }
        Ok(Self { path, content, file, architecture })
    }

    /// A key of the architecture.
    fn key(&self, key: &str) -> Result<&Value> {
        let name = format!("{}.{key}", self.architecture);
        let lacks = || Error::new(Kind::Checkpoint, format!("the GGUF file lacks the key `{name}`"));
        self.content.metadata.get(&name).ok_or_else(lacks)
    }

    fn size(&self, key: &str) -> Result<usize> {
        Ok(self.key(key)?.to_u64()? as usize)
    }

    fn number(&self, key: &str) -> Result<f64> {
        Ok(f64::from(self.key(key)?.to_f32()?))
    }

    /// A size of every layer.
    fn each(&self, key: &str, layers: usize) -> Result<Vec<usize>> {
        match self.key(key)? {
            Value::Array(all) => all.iter().map(|one| Ok(one.to_i32()?.max(0) as usize)).collect(),
            one => Ok(vec![one.to_u64()? as usize; layers]),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    /// Whether any layer has such a tensor.
    fn any(&self, name: &str) -> bool {
        self.content.tensor_infos.keys().any(|key| key.ends_with(name))
    }

    /// The configuration in our own form.
    fn config(&self) -> Result<Config> {
        let count = self.size("block_count")?;
        let heads = self.each("attention.head_count", count)?;
        let kv_heads = self.each("attention.head_count_kv", count)?;
        let neurons = self.each("feed_forward_length", count)?;
        let layers = heads.iter().zip(&kv_heads).zip(&neurons).map(|((&heads, &kv), &neurons)| LayerShape {
            query_heads_per_kv: vec![heads.checked_div(kv).unwrap_or(0); kv],
            intermediate_size: neurons,
        });
        let mut raw = ours::sizes(&layers.collect::<Vec<_>>());
        let own: Map<_, _> = [
            ("model_type", json!("pruned_llama")),
            ("hidden_act", json!("silu")),
            ("hidden_size", json!(self.size("embedding_length")?)),
            ("head_dim", json!(self.size("attention.key_length")?)),
            ("vocab_size", json!(self.size("vocab_size")?)),
            ("max_position_embeddings", json!(self.size("context_length")?)),
            ("rms_norm_eps", json!(self.number("attention.layer_norm_rms_epsilon")?)),
            ("rope_theta", json!(self.number("rope.freq_base")?)),
            ("rope_scaling", self.scaling()?),
            ("tie_word_embeddings", json!(!self.has("output.weight"))),
            ("attention_bias", json!(self.any(".attn_q.bias"))),
            ("attention_output_bias", json!(self.any(".attn_output.bias"))),
            ("mlp_bias", json!(self.any(".ffn_gate.bias"))),
            ("mlp_output_bias", json!(self.any(".ffn_down.bias"))),
        ]
        .map(|(key, value)| (key.to_string(), value))
        .into_iter()
        .collect();
        raw.extend(own);
        Config::parse(&serde_json::Value::Object(raw).to_string())
    }

    /// The RoPE scaling, as config.json says it: what GGUF's own keys say, else what ours remember.
    fn scaling(&self) -> Result<serde_json::Value> {
        if let Ok(kind) = self.key("rope.scaling.type") {
            return Ok(
                json!({"rope_type": kind.to_string()?, "factor": self.number("rope.scaling.factor")?}),
            );
        }
        let ours = self.content.metadata.get(metadata::ROPE_SCALING).filter(|_| self.has(ROPE_FACTORS));
        match ours {
            None => Ok(serde_json::Value::Null),
            Some(text) => Ok(serde_json::from_str(text.to_string()?).unwrap_or_default()),
        }
    }

    /// Refuses divisors of frequencies that are not those of the scaling.
    fn check_factors(&mut self, config: &Config) -> Result<()> {
        let expected = rope::factors(config).unwrap_or_default();
        let found = if self.has(ROPE_FACTORS) { self.tensor(ROPE_FACTORS)? } else { Vec::new() };
        let apart = |(a, b): (&f32, &f32)| f64::from((a - b).abs()) > CLOSE * f64::from(b.abs());
        if expected.len() == found.len() && !found.iter().zip(&expected).any(apart) {
            return Ok(());
        }
        let what = format!("`{ROPE_FACTORS}` is not what `{}` says", metadata::ROPE_SCALING);
        Err(Error::new(Kind::Checkpoint, what).at(self.path.display()).hint("export the model again"))
    }

    fn tensor(&mut self, name: &str) -> Result<Vec<f32>> {
        let read = self.content.tensor(&mut self.file, name, &Device::Cpu);
        let values = read.and_then(|tensor| tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>());
        values.map_err(|e| base::damaged(&self.path, &e))
    }

    /// The values of a tensor of our form; what a sub-layer that is not in the file leaves open is of no
    /// account: ones for its norm, zeros for its bias.
    fn values(&mut self, entry: &TensorEntry, config: &Config) -> Result<Vec<f32>> {
        let Some(name) = gguf_name(entry, config).filter(|name| self.has(name)) else {
            let norm = matches!(entry.rule.holds, [Matrix::AttentionNorm | Matrix::MlpNorm]);
            let elements = entry.shape.iter().product();
            if !norm && entry.rule.part == Part::Weight && elements > 0 {
                let what = format!("the GGUF file lacks what `{}` is made of", entry.name);
                return Err(Error::new(Kind::Checkpoint, what).at(self.path.display()));
            }
            return Ok(vec![if norm { 1.0 } else { 0.0 }; elements]);
        };
        let values = self.tensor(&name)?;
        Ok(match entry.rule.holds {
            [Matrix::Query | Matrix::Key] => {
                let width = if entry.rule.part == Part::Weight { entry.shape[1] } else { 1 };
                rope::halved(&values, config.head_width, width)
            }
            _ => values,
        })
    }
}

/// GGUF's name of a tensor.
fn gguf_name(entry: &TensorEntry, config: &Config) -> Option<String> {
    let target = Config { family: &GGUF, ..config.clone() };
    let place = target.place(*entry.rule.holds.first()?, entry.rule.part, entry.layer.unwrap_or(0))?;
    Some(place.name)
}
