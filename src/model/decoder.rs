//! The decoder: embedding, layers with heads and neurons of their own number, final norm and output
//! projection.
//!
//! Each half of a layer is two steps, so that callers can look between them: attention gives its context (the
//! input of `o_proj`) and then projects it; the MLP gives its hidden activations (the input of `down_proj`)
//! and then projects them. One hidden state is [n, d], the rows being the tokens of a ragged batch
//! ([`Segments`]).

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use candle_core::{Device, Tensor};
use safetensors::Dtype;

use super::checkpoint::Checkpoint;
use super::config::Config;
use super::families::FAMILIES;
use super::family::Family;
use super::matrix::{Matrix, Part};
use super::source::Source;
use crate::base::{self, Error, Kind, Result, Watch};
use crate::tensor::attention::{Heads, Rotary, Segments};
use crate::tensor::{add_bias, linear, rms_norm, swiglu};

/// Models whose weights take at most this many bytes in f32 keep their layers after first use; larger ones
/// read a layer again each time.
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
    unclaimed: Vec<String>,
    device: Device,
    rotary: OnceLock<Rotary>,
    layers: Vec<OnceLock<Arc<Layer>>>,
    output: OnceLock<(Tensor, Tensor)>,
}

impl Model {
    /// Opens a model: reads its configuration, maps its weights, and checks that every tensor is there in its
    /// shape.
    pub fn open(source: &Source, device: &Device) -> Result<Self> {
        Self::open_with(FAMILIES, source, device)
    }

    /// The same for a model of one of `families`.
    pub fn open_with(families: &[&'static Family], source: &Source, device: &Device) -> Result<Self> {
        let at = |e: Error| e.at(source.place());
        let config = Config::parse_with(families, &source.text("config.json")?)
            .map_err(|e| e.at("config.json"))
            .map_err(at)?;
        check_runs(&config).map_err(at)?;
        let mut checkpoint = Checkpoint::open(source).map_err(at)?;
        let tensors = config.tensors();
        for tensor in &tensors {
            checkpoint.raw(&tensor.name, &tensor.shape).map_err(at)?;
        }
        let unclaimed = checkpoint.keep_only(tensors.into_iter().map(|t| t.name).collect());
        Ok(Self {
            layers: (0..config.layers.len()).map(|_| OnceLock::new()).collect(),
            unclaimed: unclaimed.into_iter().filter(|name| !name.ends_with(HARMLESS)).collect(),
            config,
            checkpoint,
            device: device.clone(),
            rotary: OnceLock::new(),
            output: OnceLock::new(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The mapped weights: the tensors that the family's table names, and no others.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Names of tensors that the files hold and the family's table does not name, sorted; they are no part of
    /// the model.
    pub fn unclaimed(&self) -> &[String] {
        &self.unclaimed
    }

    /// Says once which tensors are unclaimed, if any are.
    pub fn note_unclaimed(&self, watch: &dyn Watch) {
        let names = &self.unclaimed;
        if names.is_empty() {
            return;
        }
        let first = names.iter().take(UNCLAIMED_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = match names.len().saturating_sub(UNCLAIMED_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        watch.note(&format!(
            "the weights hold tensors that config.json gives no place; they are neither used nor \
             counted: {first}{more}"
        ));
    }

    /// Storage dtype of the embedding.
    pub fn dtype(&self) -> Result<Dtype> {
        self.checkpoint.dtype(&self.config.required(Matrix::Embedding, 0)?.name)
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Rotary tables for the whole context.
    pub fn rotary(&self) -> &Rotary {
        self.rotary.get_or_init(|| Rotary::new(&self.config.inverse_frequencies(), self.config.context))
    }

    fn required(&self, matrix: Matrix, layer: usize) -> Result<Tensor> {
        self.checkpoint.tensor(&self.config.required(matrix, layer)?, &self.device)
    }

    fn linear(&self, matrix: Matrix, layer: usize) -> Result<Linear> {
        let bias = self.config.place(matrix, Part::Bias, layer);
        let bias = bias.map(|place| self.checkpoint.tensor(&place, &self.device)).transpose()?;
        Ok(Linear { weight: self.required(matrix, layer)?, bias })
    }

    /// Embeddings of tokens: [n, d]. Only their rows are read.
    ///
    /// # Errors
    /// A token outside the vocabulary.
    pub fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        let v = self.config.vocabulary;
        let d = self.config.hidden;
        let (dtype, bytes) = self.checkpoint.rows(&self.config.required(Matrix::Embedding, 0)?)?;
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
        let attention = Attention {
            norm: self.required(Matrix::AttentionNorm, l)?,
            q: self.linear(Matrix::Query, l)?,
            k: self.linear(Matrix::Key, l)?,
            v: self.linear(Matrix::Value, l)?,
            o: self.linear(Matrix::AttentionOutput, l)?,
            kv_of: self.config.layers[l].kv_of(),
        };
        let mlp = Mlp {
            norm: self.required(Matrix::MlpNorm, l)?,
            gate: self.linear(Matrix::Gate, l)?,
            up: self.linear(Matrix::Up, l)?,
            down: self.linear(Matrix::Down, l)?,
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
            return Ok(self.hidden(&[token; 2], &Segments::sequences(2, 1))?.narrow(0, 0, 1)?); // see `logits`
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
        let output = if self.config.tied { Matrix::Embedding } else { Matrix::Output };
        let read = || Ok((self.required(Matrix::FinalNorm, 0)?, self.required(output, 0)?));
        // Another thread may be first, with the same tensors.
        let (norm, output) = base::get_or_try_init(&self.output, read)?;
        linear(&rms_norm(hidden, norm, self.config.norm_epsilon)?, output)
    }
}

/// Elements of logits that are held at once: 64 MiB.
const LOGITS: usize = 1 << 24;

/// The end of names of tensors that older versions of transformers saved and none reads: tables that follow
/// from the configuration.
const HARMLESS: &str = "rotary_emb.inv_freq";

/// Unclaimed tensors that a note names.
const UNCLAIMED_NAMED: usize = 12;

/// The matrices that this decoder uses, with or without a bias.
const LINEAR: [Matrix; 7] = [
    Matrix::Query,
    Matrix::Key,
    Matrix::Value,
    Matrix::AttentionOutput,
    Matrix::Gate,
    Matrix::Up,
    Matrix::Down,
];

/// The others that it uses, without biases.
const PLAIN: [Matrix; 5] =
    [Matrix::Embedding, Matrix::Output, Matrix::FinalNorm, Matrix::AttentionNorm, Matrix::MlpNorm];

/// Refuses a model with a tensor that the decoder would leave unused.
fn check_runs(config: &Config) -> Result<()> {
    let used = |matrix: &Matrix, part: Part| {
        LINEAR.contains(matrix) || (part == Part::Weight && PLAIN.contains(matrix))
    };
    match config.pieces().find(|(matrix, part, _)| !used(matrix, *part)) {
        None => Ok(()),
        Some((.., rule)) => Err(Error::new(
            Kind::Checkpoint,
            format!(
                "`{}` models have `{}`, which the decoder does not use",
                config.family.model_type, rule.name
            ),
        )),
    }
}

impl Config {
    /// Rows whose logits are worth having at once: about [`LOGITS`] elements, and one row at least.
    pub fn logit_rows(&self) -> usize {
        (LOGITS / self.vocabulary).max(1)
    }

    /// This many rows in blocks whose logits are worth having at once, in order.
    pub fn logit_blocks(&self, rows: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let at_once = self.logit_rows();
        (0..rows).step_by(at_once).map(move |start| start..(start + at_once).min(rows))
    }
}
