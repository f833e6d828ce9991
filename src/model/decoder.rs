//! The decoder: embedding, layers with heads and neurons of their own number, final norm and output
//! projection.
//!
//! Each half of a layer is two steps, so that callers can look between them: attention gives its context (the
//! input of `o_proj`) and then projects it; the MLP gives its hidden activations (the input of `down_proj`)
//! and then projects them. One hidden state is [n, d], the rows being the tokens of a ragged batch
//! ([`Segments`]).

use std::sync::{Arc, OnceLock};

use candle_core::{Device, Tensor};

use super::checkpoint::Checkpoint;
use super::config::{Config, LayerShape};
use super::source::Source;
use crate::base::{self, Error, Kind, Result};
use crate::tensor::attention::{Heads, Rotary, Segments};
use crate::tensor::{add_bias, linear, rms_norm, swiglu};

/// Models whose weights take at most this many bytes in f32 keep their layers after first use; larger ones
/// read a layer anew each time.
pub const RESIDENT_BYTES: usize = 3 << 29;

/// A weight [out, in] with an optional bias [out].
#[derive(Debug, Clone)]
pub struct Linear {
    /// [out, in]
    pub weight: Tensor,
    /// [out]
    pub bias: Option<Tensor>,
}

impl Linear {
    /// x·Wᵀ + b for `x` [n, in].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        add_bias(linear(x, &self.weight)?, self.bias.as_ref())
    }

    /// Only some outputs (rows of the weight).
    pub fn rows(&self, rows: &Tensor) -> Result<Self> {
        let bias = self.bias.as_ref().map(|b| b.index_select(rows, 0)).transpose()?;
        Ok(Self { weight: self.weight.index_select(rows, 0)?, bias })
    }

    /// The same bias with another weight.
    pub fn with_weight(&self, weight: Tensor) -> Self {
        Self { weight, bias: self.bias.clone() }
    }
}

/// The attention half of a layer.
#[derive(Debug, Clone)]
pub struct Attention {
    /// `input_layernorm` [d]
    pub norm: Tensor,
    /// `q_proj` [heads·c, d]
    pub q: Linear,
    /// `k_proj` [kv_heads·c, d]
    pub k: Linear,
    /// `v_proj` [kv_heads·c, d]
    pub v: Linear,
    /// `o_proj` [d, heads·c]
    pub o: Linear,
    /// Key/value head of every query head.
    pub kv_of: Vec<usize>,
}

/// The MLP half of a layer.
#[derive(Debug, Clone)]
pub struct Mlp {
    /// `post_attention_layernorm` [d]
    pub norm: Tensor,
    /// `gate_proj` [m, d]
    pub gate: Linear,
    /// `up_proj` [m, d]
    pub up: Linear,
    /// `down_proj` [d, m]
    pub down: Linear,
}

/// One layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Attention.
    pub attention: Attention,
    /// MLP.
    pub mlp: Mlp,
}

/// A model ready to run.
pub struct Model {
    config: Config,
    checkpoint: Checkpoint,
    device: Device,
    rotary: OnceLock<Rotary>,
    layers: Vec<OnceLock<Arc<Layer>>>,
    output: OnceLock<(Tensor, Tensor)>,
}

impl Model {
    /// Opens a model: reads its configuration, maps its weights, and checks that every tensor is there in its
    /// shape.
    pub fn open(source: &Source, device: &Device) -> Result<Self> {
        let at = |e: Error| e.at(source.place());
        let config =
            Config::parse(&source.text("config.json")?).map_err(|e| e.at("config.json")).map_err(at)?;
        let checkpoint = Checkpoint::open(source).map_err(at)?;
        let layers = (0..config.layers.len()).map(|_| OnceLock::new()).collect();
        let model = Self {
            config,
            checkpoint,
            device: device.clone(),
            rotary: OnceLock::new(),
            layers,
            output: OnceLock::new(),
        };
        model.check().map_err(at)?;
        Ok(model)
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The mapped weights.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    fn check(&self) -> Result<()> {
        let c = &self.config;
        for (name, shape) in c.tensors() {
            self.checkpoint.raw(&name, &shape)?;
        }
        Ok(())
    }

    /// Rotary tables for the whole context.
    pub fn rotary(&self) -> &Rotary {
        self.rotary.get_or_init(|| Rotary::new(&self.config.inverse_frequencies(), self.config.context))
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.checkpoint.tensor(name, shape, &self.device)
    }

    /// Embeddings of tokens: [n, d]. Only their rows are read.
    ///
    /// # Errors
    /// A token outside the vocabulary.
    pub fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        let v = self.config.vocabulary;
        let d = self.config.hidden;
        let (dtype, bytes) = self.checkpoint.raw(EMBEDDING, &[v, d])?;
        let width = bytes.len() / v;
        let mut out = Vec::with_capacity(tokens.len() * d);
        for &token in tokens {
            let start = token as usize * width;
            let row = bytes.get(start..start + width).ok_or_else(|| {
                Error::new(Kind::Data, format!("token {token} is outside the model's vocabulary of {v}"))
                    .hint("the tokenizer must belong to the model")
            })?;
            out.extend(super::checkpoint::to_f32(dtype, row));
        }
        Ok(Tensor::from_vec(out, (tokens.len(), d), &Device::Cpu)?.to_device(&self.device)?)
    }

    /// A layer's weights in f32.
    pub fn layer(&self, l: usize) -> Result<Arc<Layer>> {
        if let Some(layer) = self.layers[l].get() {
            return Ok(layer.clone());
        }
        let layer = Arc::new(self.read_layer(l)?);
        if self.config.parameters().total() * 4 <= RESIDENT_BYTES {
            return Ok(self.layers[l].get_or_init(|| layer).clone());
        }
        Ok(layer)
    }

    fn read_layer(&self, l: usize) -> Result<Layer> {
        let c = &self.config;
        let shape = &self.config.layers[l];
        let prefix = format!("model.layers.{l}");
        let linear = |name: &str, out: usize, input: usize, bias: bool| -> Result<Linear> {
            let weight = self.tensor(&format!("{prefix}.{name}.weight"), &[out, input])?;
            let bias = bias.then(|| self.tensor(&format!("{prefix}.{name}.bias"), &[out])).transpose()?;
            Ok(Linear { weight, bias })
        };
        let norm = |name: &str| self.tensor(&format!("{prefix}.{name}.weight"), &[c.hidden]);
        let d = c.hidden;
        let q = shape.heads() * c.head_width;
        let kv = shape.kv_heads() * c.head_width;
        let m = shape.intermediate_size;
        let attention = Attention {
            norm: norm("input_layernorm")?,
            q: linear("self_attn.q_proj", q, d, c.attention_bias)?,
            k: linear("self_attn.k_proj", kv, d, c.attention_bias)?,
            v: linear("self_attn.v_proj", kv, d, c.attention_bias)?,
            o: linear("self_attn.o_proj", d, q, c.attention_bias)?,
            kv_of: shape.kv_of(),
        };
        let mlp = Mlp {
            norm: norm("post_attention_layernorm")?,
            gate: linear("mlp.gate_proj", m, d, c.mlp_bias)?,
            up: linear("mlp.up_proj", m, d, c.mlp_bias)?,
            down: linear("mlp.down_proj", d, m, c.mlp_bias)?,
        };
        Ok(Layer { attention, mlp })
    }

    /// Input of `o_proj` for a hidden state: [n, heads·c].
    pub fn attention_context(
        &self,
        attention: &Attention,
        x: &Tensor,
        segments: &Segments,
    ) -> Result<Tensor> {
        self.check_length(segments)?;
        let h = rms_norm(x, &attention.norm, self.config.norm_epsilon)?;
        let q = attention.q.forward(&h)?;
        let k = attention.k.forward(&h)?;
        let v = attention.v.forward(&h)?;
        let heads =
            Heads { kv_of: &attention.kv_of, width: self.config.head_width, window: self.config.window };
        crate::tensor::attention::attention(&q, &k, &v, segments, heads, self.rotary())
    }

    fn check_length(&self, segments: &Segments) -> Result<()> {
        let longest = segments.longest();
        let context = self.config.context;
        if longest > context {
            return Err(Error::new(
                Kind::Data,
                format!("a text of {longest} tokens is longer than the model's context of {context}"),
            )
            .hint("lower the sequence length"));
        }
        Ok(())
    }

    /// Input of `down_proj` for a hidden state: [n, m].
    pub fn mlp_activations(&self, mlp: &Mlp, x: &Tensor) -> Result<Tensor> {
        let h = rms_norm(x, &mlp.norm, self.config.norm_epsilon)?;
        swiglu(mlp.gate.forward(&h)?, &mlp.up.forward(&h)?)
    }

    /// A layer's output for a hidden state [n, d].
    pub fn forward_layer(&self, layer: &Layer, x: &Tensor, segments: &Segments) -> Result<Tensor> {
        let x =
            (x + layer.attention.o.forward(&self.attention_context(&layer.attention, x, segments)?)?)?;
        Ok((&x + layer.mlp.down.forward(&self.mlp_activations(&layer.mlp, &x)?)?)?)
    }

    /// The last layer's output for the tokens of a batch: [n, d]. On an x86-64 host a row is the same, bit
    /// for bit, whatever else is in the batch.
    pub fn hidden(&self, tokens: &[u32], segments: &Segments) -> Result<Tensor> {
        if let &[token] = tokens {
            return Ok(self.hidden(&[token; 2], &Segments::windows(2, 1))?.narrow(0, 0, 1)?); // see `logits`
        }
        (0..self.config.layers.len())
            .try_fold(self.embed(tokens)?, |x, l| self.forward_layer(&*self.layer(l)?, &x, segments))
    }

    /// Logits [n, V] of the last layer's output [n, d]. A row does not depend on the others, as in
    /// [`Model::hidden`]: a product with one row alone sums in another order, so that one is taken twice.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        match hidden.dim(0)? {
            1 => Ok(self.next_logits(&Tensor::cat(&[hidden, hidden], 0)?)?.narrow(0, 0, 1)?),
            _ => self.next_logits(hidden),
        }
    }

    /// The same for the last tokens of texts that are being written: a single row takes a third of the time
    /// and rounds otherwise.
    pub fn next_logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let read = || {
            let v = self.config.vocabulary;
            let d = self.config.hidden;
            let name = if self.config.tied { EMBEDDING } else { "lm_head.weight" };
            Ok::<_, Error>((self.tensor("model.norm.weight", &[d])?, self.tensor(name, &[v, d])?))
        };
        // Another thread may be first, with the same tensors.
        let (norm, output) = base::get_or_try_init(&self.output, read)?;
        linear(&rms_norm(hidden, norm, self.config.norm_epsilon)?, output)
    }
}

/// Elements of logits that are held at once: 64 MiB.
const LOGITS: usize = 1 << 24;

const EMBEDDING: &str = "model.embed_tokens.weight";

impl Config {
    /// Rows whose logits are worth having at once: about [`LOGITS`] elements, and one row at least.
    pub fn logit_rows(&self) -> usize {
        (LOGITS / self.vocabulary).max(1)
    }

    /// Every tensor of the checkpoint with its shape, in a fixed order.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let v = self.vocabulary;
        let d = self.hidden;
        let mut all = vec![(EMBEDDING.to_string(), vec![v, d]), ("model.norm.weight".to_string(), vec![d])];
        if !self.tied {
            all.push(("lm_head.weight".into(), vec![v, d]));
        }
        for (l, shape) in self.layers.iter().enumerate() {
            all.extend(
                self.layer_tensors(shape)
                    .into_iter()
                    .map(|(name, shape)| (format!("model.layers.{l}.{name}"), shape)),
            );
        }
        all
    }

    fn layer_tensors(&self, shape: &LayerShape) -> Vec<(String, Vec<usize>)> {
        let d = self.hidden;
        let q = shape.heads() * self.head_width;
        let kv = shape.kv_heads() * self.head_width;
        let m = shape.intermediate_size;
        let projections = [
            ("self_attn.q_proj", q, d, self.attention_bias),
            ("self_attn.k_proj", kv, d, self.attention_bias),
            ("self_attn.v_proj", kv, d, self.attention_bias),
            ("self_attn.o_proj", d, q, self.attention_bias),
            ("mlp.gate_proj", m, d, self.mlp_bias),
            ("mlp.up_proj", m, d, self.mlp_bias),
            ("mlp.down_proj", d, m, self.mlp_bias),
        ];
        let norms = ["input_layernorm", "post_attention_layernorm"].map(|n| (format!("{n}.weight"), vec![d]));
        let weights = projections.iter().flat_map(|&(name, out, input, bias)| {
            let bias = bias.then(|| (format!("{name}.bias"), vec![out]));
            std::iter::once((format!("{name}.weight"), vec![out, input])).chain(bias)
        });
        norms.into_iter().chain(weights).collect()
    }
}
