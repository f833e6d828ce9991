//! Measuring a whole population at once, module by module.
//!
//! Candidates that agree on all modules so far share one hidden state, which is computed once; a module's
//! inputs are computed at the densest level that any of them picks, and the sparser levels read the leading
//! columns of it. Memory is one module of the supernet plus the distinct hidden states, which are bounded by
//! working on a few sequences at a time.
//!
//! Operations per token of a distinct (prefix, level): 2·(parameters of the cut module) and attention; per
//! distinct candidate the output projection, 2·V·d. The dense model's side costs one pass over the search set
//! in all, kept as last hidden states (d floats a token).

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::dense::DenseStates;
use super::draw::Drawn;
use super::grouping::{self, PickedLevel};
use crate::base::{Result, Watch};
use crate::data::{SearchSet, Sequences};
use crate::model::{Layer, Model};
use crate::space::{Candidate, ModuleId, ModuleKind};
use crate::supernet::{Supernet, cut_attention, cut_mlp};
use crate::tensor::attention::Segments;
use crate::tensor::{add_bias, linear, loss};

/// What to measure of each candidate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// KL divergences from the dense model, one for each k: the dense model is cut to its top k tokens (0:
    /// all).
    pub kl: Vec<usize>,
    /// Mean negative log-likelihood of the next token.
    pub nll: bool,
    /// Layers whose outputs are compared with the dense model's.
    pub layers: Vec<usize>,
}

/// Sums over tokens for one candidate.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measured {
    /// Mean KL(dense ‖ candidate) over positions, nats, for each wanted k.
    pub kl: Vec<f64>,
    /// Mean negative log-likelihood over predicted tokens, nats.
    pub nll: f64,
    /// Mean ‖h dense − h candidate‖² over positions, per wanted layer.
    pub distances: Vec<f64>,
}

/// Measures candidates of one supernet.
pub struct Population<'a> {
    model: &'a Model,
    supernet: &'a Supernet<'a>,
    dense: DenseStates,
}

/// Candidates that agree on every module so far.
struct Group {
    candidates: Vec<usize>,
    hidden: Tensor,
}

/// Some sequences of equal length, as one batch.
struct Chunk {
    sequences: Vec<usize>,
    tokens: Vec<u32>,
    segments: Segments,
    length: usize,
}

impl<'a> Population<'a> {
    /// The dense model.
    pub fn model(&self) -> &'a Model {
        self.model
    }

    /// The supernet that the candidates pick from.
    pub fn supernet(&self) -> &'a Supernet<'a> {
        self.supernet
    }

    /// Of a supernet whose modules are all there. `dense` are the states of the same model on the search set.
    pub fn new(model: &'a Model, supernet: &'a Supernet<'a>, dense: DenseStates) -> Self {
        Self { model, supernet, dense }
    }

    /// Measures every candidate on what was drawn of the search set, two tokens at least. The means are per
    /// token, whatever the number of sequences walked at once.
    pub fn measure(
        &mut self,
        candidates: &[Candidate],
        set: &SearchSet,
        drawn: &Drawn,
        wanted: &Wanted,
        watch: &dyn Watch,
    ) -> Result<Vec<Measured>> {
        if candidates.is_empty() {
            return Ok(vec![]);
        }
        let nothing =
            Measured { kl: vec![0.0; wanted.kl.len()], nll: 0.0, distances: vec![0.0; wanted.layers.len()] };
        let mut totals = vec![nothing; candidates.len()];
        let hidden = self.model.config().hidden;
        let at_once = |length| grouping::sequences_at_once(candidates.len(), length, hidden);
        for (part, length) in drawn.parts(set.0.length, at_once) {
            watch.checkpoint()?;
            self.chunk(candidates, &chunk(&set.0, &part, length), wanted, &mut totals)?;
        }
        let (positions, predictions) = drawn.counts(set.0.length);
        let positions = positions as f64;
        for total in &mut totals {
            total.kl.iter_mut().for_each(|kl| *kl /= positions);
            total.nll /= predictions as f64;
            total.distances.iter_mut().for_each(|d| *d /= positions);
        }
        Ok(totals)
    }

    /// Adds what one chunk gives to the totals.
    fn chunk(
        &mut self,
        candidates: &[Candidate],
        chunk: &Chunk,
        wanted: &Wanted,
        totals: &mut [Measured],
    ) -> Result<()> {
        let dense = if wanted.layers.is_empty() { vec![] } else { self.dense_layers(chunk, &wanted.layers)? };
        let mut groups =
            vec![Group { candidates: grouping::whole(candidates), hidden: self.model.embed(&chunk.tokens)? }];
        for layer in 0..self.model.config().layers.len() {
            let weights = self.model.layer(layer)?;
            for kind in ModuleKind::ALL {
                groups =
                    self.module(ModuleId { layer, kind }, &weights, groups, candidates, &chunk.segments)?;
            }
            for (i, _) in wanted.layers.iter().enumerate().filter(|(_, l)| **l == layer) {
                for group in &groups {
                    let distance = loss::squared_distance(&dense[i], &group.hidden)?;
                    group.candidates.iter().for_each(|&c| totals[c].distances[i] += distance);
                }
            }
        }
        self.losses(&groups, chunk, wanted, totals)
    }

    /// Passes every group through a module, splitting it by the levels that its candidates pick.
    fn module(
        &self,
        module: ModuleId,
        layer: &Layer,
        groups: Vec<Group>,
        candidates: &[Candidate],
        segments: &Segments,
    ) -> Result<Vec<Group>> {
        let mut weights: BTreeMap<usize, Tensor> = BTreeMap::new();
        let mut next = Vec::new();
        for group in groups {
            let levels = grouping::split(self.supernet.space(), module, candidates, &group.candidates);
            let Some(densest) = levels.first() else { continue };
            let (inputs, bias) = self.inputs(module, layer, densest.removed, &group.hidden, segments)?;
            for PickedLevel { removed, members } in levels {
                let weight = match weights.get(&removed) {
                    Some(w) => w.clone(),
                    None => weights
                        .entry(removed)
                        .or_insert(self.supernet.weight_tensor(module, removed)?)
                        .clone(),
                };
                let leading = inputs.narrow(1, 0, weight.dim(1)?)?;
                let bias = self.supernet.bias_tensor(module, removed, bias.as_ref())?;
                let hidden = (&group.hidden + add_bias(linear(&leading, &weight)?, bias.as_ref())?)?;
                next.push(Group { candidates: members, hidden });
            }
        }
        Ok(next)
    }

    /// Inputs of a module's kept units in keep order, with `removed` gone, and the dense module's own bias.
    fn inputs(
        &self,
        module: ModuleId,
        layer: &Layer,
        removed: usize,
        hidden: &Tensor,
        segments: &Segments,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let units = self.supernet.kept(module, removed)?;
        match module.kind {
            ModuleKind::Attention => {
                let cut = cut_attention(
                    &layer.attention,
                    units,
                    self.supernet.space().shape.attention,
                    self.model.config(),
                )?;
                Ok((self.model.attention_context(&cut, hidden, segments)?, cut.o.bias))
            }
            ModuleKind::Mlp => {
                let cut = cut_mlp(&layer.mlp, units, self.model.config())?;
                Ok((self.model.mlp_activations(&cut, hidden)?, cut.down.bias))
            }
        }
    }

    fn losses(
        &mut self,
        groups: &[Group],
        chunk: &Chunk,
        wanted: &Wanted,
        totals: &mut [Measured],
    ) -> Result<()> {
        if wanted.kl.is_empty() && !wanted.nll {
            return Ok(());
        }
        let dense = || self.dense.of(self.model, &chunk.sequences, &chunk.tokens, chunk.length);
        let dense_states = if wanted.kl.is_empty() { None } else { Some(dense()?) };
        for rows in self.model.config().logit_blocks(chunk.tokens.len()) {
            let logits = |hidden: &Tensor| self.model.logits(&hidden.narrow(0, rows.start, rows.len())?);
            let sides = dense_states
                .as_ref()
                .map(|hidden| dense_predictions(&logits(hidden)?, &wanted.kl))
                .transpose()?
                .unwrap_or_default();
            for group in groups {
                let logits = logits(&group.hidden)?;
                let kl = sides.iter().map(|side| side.divergence(&logits, 0)).collect::<Result<Vec<_>>>()?;
                let nll = if wanted.nll { next_token_nll(&logits, chunk, rows.start)? } else { 0.0 };
                for &c in &group.candidates {
                    totals[c].kl.iter_mut().zip(&kl).for_each(|(total, kl)| *total += kl);
                    totals[c].nll += nll;
                }
            }
        }
        Ok(())
    }

    /// Outputs of some layers of the dense model.
    fn dense_layers(&self, chunk: &Chunk, layers: &[usize]) -> Result<Vec<Tensor>> {
        let mut outputs = Vec::new();
        let mut hidden = self.model.embed(&chunk.tokens)?;
        for l in 0..self.model.config().layers.len() {
            hidden = self.model.forward_layer(&*self.model.layer(l)?, &hidden, &chunk.segments)?;
            outputs.push(layers.contains(&l).then(|| hidden.clone()));
        }
        Ok(layers.iter().filter_map(|&l| outputs[l].clone()).collect())
    }
}

/// The dense model's predictions, cut to the top k tokens for each k.
fn dense_predictions(logits: &Tensor, cuts: &[usize]) -> Result<Vec<loss::Teacher>> {
    cuts.iter().map(|&top_k| loss::Teacher::new(logits, top_k)).collect()
}

fn chunk(set: &Sequences, sequences: &[usize], length: usize) -> Chunk {
    let tokens = sequences.iter().flat_map(|&w| &set.get(w)[..length]).copied().collect();
    Chunk {
        sequences: sequences.to_vec(),
        tokens,
        segments: Segments::sequences(sequences.len(), length),
        length,
    }
}

/// Σ −ln p(next token) over the rows from `start` on whose next token lies in the same sequence.
fn next_token_nll(logits: &Tensor, chunk: &Chunk, start: usize) -> Result<f64> {
    let rows = start..start + logits.dim(0)?;
    let next: Vec<u32> = rows.clone().map(|r| chunk.tokens.get(r + 1).copied().unwrap_or(0)).collect();
    let scores = loss::token_logprobs(logits, &next)?;
    Ok(rows.zip(scores).filter(|(r, _)| (r + 1) % chunk.length != 0).map(|(_, (lp, _))| -lp).sum())
}
