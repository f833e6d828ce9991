//! The decoder: embedding, layers with heads and neurons of their own number, final norm and output
//! projection.
//!
//! Each half of a layer is two steps, so that callers can look between them: attention gives its context (the
//! input of `o_proj`) and then projects it; the MLP gives its hidden activations (the input of `down_proj`)
//! and then projects them. One hidden state is [n, d], the rows being the tokens of a ragged batch
//! ([`Segments`]).

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use safetensors::Dtype;

use super::checkpoint::{Checkpoint, finite, to_f32};
use super::companions::Companions;
use super::config::Config;
use super::families::FAMILIES;
use super::family::Family;
use super::hub;
use super::layer::{Attention, Layer, Linear, Mlp};
use super::matrix::{Matrix, Part};
use super::source::Source;
use super::wire::list;
use crate::base::{self, Error, Kind, Result, Watch};
use crate::tensor::attention::{Heads, Part as Texts, Rotary, Segments};
use crate::tensor::{gated, is_finite, linear, rms_norm};

/// Models whose weights take at most this many bytes in f32 keep their layers after first use; larger ones
/// read a layer again each time.
pub const RESIDENT_BYTES: usize = 3 << 29;

/// A model ready to run.
pub struct Model {
    config: Config,
    checkpoint: Checkpoint,
    unclaimed: Vec<String>,
    notes: Vec<String>,
    device: Device,
    rotary: Mutex<Arc<Rotary>>,
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
        let mut config = Config::parse_with(families, &source.text("config.json")?)
            .map_err(|e| e.at("config.json"))
            .map_err(at)?;
        check_runs(&config).map_err(at)?;
        if let Some(eos) = Companions::open(source)?.eos().map_err(at)? {
            config.eos = eos;
        }
        let mut checkpoint = Checkpoint::open(source)?;
        let tensors = config.tensors();
        for tensor in &tensors {
            let fits = checkpoint.raw(&tensor.name, &tensor.shape);
            fits.map(drop).map_err(|e| also(e, &config.notes)).map_err(at)?;
        }
        let head = stored_head(&config, &checkpoint).map_err(at)?;
        let mut unclaimed = checkpoint.keep_only(tensors.into_iter().map(|t| t.name).collect());
        unclaimed.retain(|name| !name.ends_with(HARMLESS));
        let strangers: Vec<_> =
            unclaimed.iter().filter(|name| head.is_none_or(|(h, _)| *name != h)).collect();
        let mut notes = notes(source, &config, &checkpoint, &strangers);
        notes.extend(head.and_then(|(head, differs)| differs.then(|| other_head(head))));
        Ok(Self {
            layers: (0..config.layers.len()).map(|_| OnceLock::new()).collect(),
            notes,
            unclaimed,
            config,
            checkpoint,
            device: device.clone(),
            rotary: Mutex::new(Arc::new(Rotary::new(&[], 0))),
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

    /// What its user should know: tensors that are unclaimed, files and keys that are passed over, values
    /// that the configuration leaves to its family.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Tells the notes.
    pub fn tell(&self, watch: &dyn Watch) {
        self.notes.iter().for_each(|note| watch.note(note));
    }

    /// Storage dtype of the embedding.
    pub fn dtype(&self) -> Result<Dtype> {
        self.checkpoint.dtype(&self.config.required(Matrix::Embedding, 0)?.name)
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Rotary tables for this many positions at least. Those of the whole context may be much longer than
    /// any text: they grow with the texts, twofold each time.
    pub fn rotary(&self, positions: usize) -> Arc<Rotary> {
        let mut tables = self.rotary.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.positions() < positions {
            let grown = positions.checked_next_power_of_two().unwrap_or(positions).max(FEWEST_POSITIONS);
            let grown = grown.min(self.config.context.max(positions));
            *tables = Arc::new(Rotary::new(&self.config.inverse_frequencies(), grown));
        }
        tables.clone()
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
        let place = self.config.required(Matrix::Embedding, 0)?;
        let (dtype, bytes) = self.checkpoint.rows(&place)?;
        let width = bytes.len() / v;
        let mut out = Vec::with_capacity(tokens.len() * d);
        for &token in tokens {
            let start = token as usize * width;
            let row = bytes.get(start..start + width).ok_or_else(|| {
                Error::new(Kind::Data, format!("token {token} is outside the model's vocabulary of {v}"))
                    .hint("the tokenizer must belong to the model")
            })?;
            let row = to_f32(dtype, row);
            finite(&place.name, &row)?;
            out.extend(row);
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

    /// Bytes of the weights in f32 that it keeps so far.
    pub fn widened_bytes(&self) -> usize {
        let layers = self.layers.iter().zip(&self.config.layers).filter(|(layer, _)| layer.get().is_some());
        let parameters: usize = layers.map(|(_, shape)| self.config.layer_parameters(shape)).sum();
        let output = self.output.get().map_or(0, |(_, output)| output.elem_count());
        (parameters + output) * size_of::<f32>()
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
        crate::tensor::attention::attention(&q, &k, &v, segments, heads, &self.rotary(segments.longest()))
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
        gated(&h, mlp.gate.parts(), mlp.up.parts())
    }

    /// A layer's output for a hidden state [n, d].
    pub fn forward_layer(&self, layer: &Layer, x: &Tensor, segments: &Segments) -> Result<Tensor> {
        let x = layer.attention.o.onto(x, &self.attention_context(&layer.attention, x, segments)?)?;
        layer.mlp.down.onto(&x, &self.mlp_activations(&layer.mlp, &x)?)
    }

    /// The last layer's output for the tokens of a batch: [n, d]. On an x86-64 host a row is the same, bit
    /// for bit, whatever else is in the batch.
    pub fn hidden(&self, tokens: &[u32], segments: &Segments) -> Result<Tensor> {
        if let &[token] = tokens {
            return Ok(self.hidden(&[token; 2], &Segments::sequences(2, 1))?.narrow(0, 0, 1)?); // see `logits`
        }
        let parts = self.parts(segments);
        let embed = |part: &Texts| self.embed(&tokens[part.rows.clone()]);
        let mut states = parts.iter().map(embed).collect::<Result<Vec<_>>>()?;
        for l in 0..self.config.layers.len() {
            let layer = self.layer(l)?;
            let each = states.into_par_iter().zip(&parts);
            let each = each.map(|(x, part)| self.forward_layer(&layer, &x, &part.segments));
            states = each.collect::<Result<_>>()?;
        }
        match states.is_empty() {
            true => self.embed(&[]),
            false => Ok(Tensor::cat(&states, 0)?),
        }
    }

    /// A batch in parts whose activations a processor's caches hold, where it computes on the host: each goes
    /// through a layer on a thread of its own. Elsewhere the batch is one part.
    pub fn parts(&self, segments: &Segments) -> Vec<Texts> {
        match self.device.is_cpu() {
            true => segments.parts(PART_ROWS),
            false => vec![segments.whole()],
        }
    }

    /// What `read` makes of the logits of last hidden states [n, d], from the first row to the last; it is given
    /// the logits of some rows and the place of the first of them. On the host each thread has the logits of a
    /// block of rows, as many as its caches hold.
    ///
    /// # Errors
    /// As [`Model::logits`].
    pub fn read_logits<T: Send>(
        &self,
        hidden: &Tensor,
        read: impl Fn(&Tensor, usize) -> Result<Vec<T>> + Sync,
    ) -> Result<Vec<T>> {
        let n = hidden.dim(0)?;
        let of =
            |rows: Range<usize>| read(&self.logits(&hidden.narrow(0, rows.start, rows.len())?)?, rows.start);
        let each: Vec<Vec<T>> = match self.device.is_cpu() {
            true => {
                let blocks: Vec<_> = self.config.thread_blocks(n).collect();
                blocks.into_par_iter().map(of).collect::<Result<_>>()?
            }
            false => self.config.logit_blocks(n).map(of).collect::<Result<_>>()?,
        };
        Ok(each.into_iter().flatten().collect())
    }

    /// Logits [n, V] of the last layer's output [n, d]. A row does not depend on the others, as in
    /// [`Model::hidden`]: a product with one row alone sums in another order, so that one is taken twice.
    ///
    /// # Errors
    /// A logit that is NaN or infinite, of kind [`Kind::Numeric`]: what is read off it would look like a
    /// figure.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let logits = match hidden.dim(0)? {
            1 => self.next_logits(&Tensor::cat(&[hidden, hidden], 0)?)?.narrow(0, 0, 1)?,
            _ => self.next_logits(hidden)?,
        };
        if !is_finite(&logits)? {
            return Err(Error::new(Kind::Numeric, "the model's logits hold NaN or infinity").hint(
                "its weights are numbers and its activations overflow: the checkpoint may be damaged",
            ));
        }
        Ok(logits)
    }

    /// The matrix that gives logits.
    pub(super) fn output_matrix(&self) -> Matrix {
        if self.config.tied { Matrix::Embedding } else { Matrix::Output }
    }

    /// The same for the last tokens of texts that are being written: a single row takes a third of the time
    /// and rounds otherwise.
    pub fn next_logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let read = || Ok((self.required(Matrix::FinalNorm, 0)?, self.required(self.output_matrix(), 0)?));
        // Another thread may be first, with the same tensors.
        let (norm, output) = base::get_or_try_init(&self.output, read)?;
        linear(&rms_norm(hidden, norm, self.config.norm_epsilon)?, output)
    }
}

/// Positions of the first rotary tables.
const FEWEST_POSITIONS: usize = 256;

/// Rows of a batch that a thread takes through a layer at once, at least.
pub const PART_ROWS: usize = 256;

/// Elements of logits that are held at once: 64 MiB.
const LOGITS: usize = 1 << 24;

/// Elements of logits that a thread reads at once: 2 MiB, or more for so many rows that the output projection is
/// worth reading.
const THREAD_LOGITS: usize = 1 << 19;

/// Rows of logits that a thread reads at once, at least, where [`LOGITS`] allow it.
const FEWEST_LOGIT_ROWS: usize = 64;

/// The end of names of tensors that older versions of transformers saved and none reads: tables that follow
/// from the configuration.
const HARMLESS: &str = "rotary_emb.inv_freq";

/// An error about a tensor; the values that the configuration leaves out may be why.
fn also(e: Error, notes: &[String]) -> Error {
    let hints: Vec<String> = e.hint.iter().chain(notes).cloned().collect();
    if hints.is_empty() { e } else { e.hint(hints.join("; ")) }
}

/// The name of an output projection that is stored although the output is tied to the embedding, and whether
/// it differs from the embedding.
fn stored_head(config: &Config, checkpoint: &Checkpoint) -> Result<Option<(&'static str, bool)>> {
    let rule = config.family.tensors.iter().find(|rule| rule.holds == [Matrix::Output]);
    let Some(name) = rule.map(|rule| rule.name).filter(|name| config.tied && checkpoint.contains(name))
    else {
        return Ok(None);
    };
    let embedding = config.required(Matrix::Embedding, 0)?;
    let differs = match checkpoint.raw(name, &embedding.tensor) {
        Ok(head) => head != checkpoint.raw(&embedding.name, &embedding.tensor)?,
        Err(_) => true,
    };
    Ok(Some((name, differs)))
}

/// What to know of such a projection when it differs.
fn other_head(name: &str) -> String {
    format!(
        "config.json ties the output to the embedding, but the weights hold another {name}: it is not used, as in \
         transformers 4; transformers 5 uses it (set tie_word_embeddings to false to do the same)"
    )
}

/// What the user of a model should know.
fn notes(source: &Source, config: &Config, checkpoint: &Checkpoint, unclaimed: &[&String]) -> Vec<String> {
    let mut notes = [config.notes.clone(), checkpoint.notes.clone()].concat();
    if !unclaimed.is_empty() {
        notes.push(format!(
            "the weights hold tensors that config.json gives no place; they are neither used nor counted: {}",
            list(unclaimed)
        ));
    }
    if source.has("adapter_config.json") {
        notes.push(
            "the folder holds an adapter (adapter_config.json) beside the weights; it is not applied".into(),
        );
    }
    notes.extend(hub::unasked(source).map(|names| {
        format!("the hub's cache lacks {names} and does not say whether the model has them; the hub was not reached, or the cache cannot be written")
    }));
    notes
}

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

    /// Rows whose logits one of several threads has at once.
    pub fn thread_logit_rows(&self) -> usize {
        (THREAD_LOGITS / self.vocabulary).max(FEWEST_LOGIT_ROWS).min(self.logit_rows())
    }

    /// This many rows in blocks of about equal size whose logits one of several threads has at once, in order.
    pub fn thread_blocks(&self, rows: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let count = rows.div_ceil(self.thread_logit_rows());
        (0..count).map(move |i| rows * i / count..rows * (i + 1) / count)
    }

    /// This many rows in blocks whose logits are worth having at once, in order.
    pub fn logit_blocks(&self, rows: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let at_once = self.logit_rows();
        (0..rows).step_by(at_once).map(move |start| start..(start + at_once).min(rows))
    }
}
