//! Tiny random models with layers of given sizes.

use candle_core::Device;
use rand::RngExt as _;
use safetensors::Dtype;

use crate::base::rng;
use crate::model::pico::Pico;
use crate::model::save::{save, with_layers};
use crate::model::{LayerShape, Model, Source};

pub fn layer(groups: &[usize], neurons: usize) -> LayerShape {
    LayerShape { query_heads_per_kv: groups.to_vec(), intermediate_size: neurons }
}

pub fn random_tokens(count: usize, vocabulary: usize) -> Vec<u32> {
    let mut rng = rng::stream(3, "tokens");
    (0..count).map(|_| rng.random_range(0..vocabulary as u32)).collect()
}

/// A model and the folder that it lies in.
pub struct Subject {
    _dir: tempfile::TempDir,
    pub source: Source,
    pub model: Model,
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?}", self.model.config().layers, self.model.config().biases)
    }
}

impl Subject {
    pub fn new(layers: &[LayerShape], change: impl FnOnce(&mut Pico)) -> Self {
        Self::seeded(layers, 8, change)
    }

    pub fn seeded(layers: &[LayerShape], seed: u64, change: impl FnOnce(&mut Pico)) -> Self {
        let mut pico = Pico { heads: 16, kv_heads: 4, layers: layers.len(), ..Pico::of_bytes(256) };
        change(&mut pico);
        Self::of(pico, layers, seed, Dtype::F32, |_| {})
    }

    /// One stored in another dtype.
    pub fn stored(layers: &[LayerShape], dtype: Dtype) -> Self {
        let pico = Pico { heads: 16, kv_heads: 4, layers: layers.len(), ..Pico::of_bytes(256) };
        Self::of(pico, layers, 8, dtype, |_| {})
    }

    /// One whose config.json is changed; the folder is the dense model's with its tokenizer.
    pub fn of(
        pico: Pico,
        layers: &[LayerShape],
        seed: u64,
        dtype: Dtype,
        change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = pico.write(&dir.path().join("dense"), seed).unwrap();
        let mut raw = pico.config().unwrap().raw;
        change(&mut raw);
        let config = crate::model::Config::parse(&serde_json::Value::Object(raw).to_string()).unwrap();
        let config = with_layers(&config, layers.to_vec()).unwrap();
        let folder = dir.path().join("model");
        save(&folder, &config, &base, dtype, |tensor| {
            let mut rng = rng::stream(seed, &tensor.name);
            let middle = if tensor.name.contains("norm") { 1.0 } else { 0.0 };
            let count = tensor.shape.iter().product();
            Ok((0..count).map(|_| middle + rng.random_range(-0.3f32..0.3)).collect())
        })
        .unwrap();
        let source = Source::folder(&folder).unwrap();
        let model = Model::open(&source, &Device::Cpu).unwrap();
        Self { _dir: dir, source, model }
    }
}
