//! Measuring a whole population at once, module by module.
//!
//! Candidates that agree on all modules so far share one hidden state, which is computed once; a module's
//! inputs are computed at the densest level that any of them picks, and the sparser levels read the leading
//! columns of it. Memory is one module of the supernet plus the distinct hidden states, which are bounded by
//! working on a few sequences at a time.
//!
//! A module's weights are brought into keep order once for all candidates; a level's are the leading rows. Then
//! threads take parts of the hidden states through it, one after the other, each in memory that its caches hold.
//!
//! Operations per token of a distinct (prefix, level): 2·(parameters of the cut module) and attention; per
//! distinct candidate the output projection, 2·V·d. The dense model's side costs one pass over the search set
//! in all, kept as last hidden states (d floats a token).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;

use super::dense::DenseStates;
use super::draw::Drawn;
use super::grouping::{self, PickedLevel};
use crate::base::{Result, Watch};
use crate::data::{SearchSet, Sequences};
use crate::model::{Layer, Linear, Model};
use crate::space::{Candidate, ModuleId, ModuleKind};
use crate::supernet::{CutInputs, Supernet};
use crate::tensor::attention::{Part, Segments};
use crate::tensor::loss;

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

/// What one candidate gives on a draw.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Readings {
    /// On all of it.
    pub all: Measured,
    /// On each of its whole sequences, in order.
    pub sequences: Vec<Measured>,
}

impl Readings {
    fn nothing(wanted: &Wanted) -> Self {
        Self { all: Measured::nothing(wanted), sequences: vec![] }
    }

    /// Makes room for the sequences of a chunk, of which only whole ones are read one by one.
    fn begin(&mut self, chunk: &Chunk, wanted: &Wanted) {
        if chunk.whole {
            self.sequences.extend(vec![Measured::nothing(wanted); chunk.sequences.len()]);
        }
    }

    /// Those of a chunk, the last begun, with their numbers in it.
    fn of_chunk(&mut self, chunk: &Chunk) -> impl Iterator<Item = (usize, &mut Measured)> {
        let read = if chunk.whole { chunk.sequences.len() } else { 0 };
        let first = self.sequences.len() - read;
        self.sequences[first..].iter_mut().enumerate()
    }
}

impl Measured {
    fn nothing(wanted: &Wanted) -> Self {
        Self { kl: vec![0.0; wanted.kl.len()], nll: 0.0, distances: vec![0.0; wanted.layers.len()] }
    }

    /// Divides sums by the tokens that they are over.
    fn per_token(&mut self, positions: usize, predictions: usize) {
        let positions = positions as f64;
        self.kl.iter_mut().for_each(|kl| *kl /= positions);
        self.nll /= predictions as f64;
        self.distances.iter_mut().for_each(|d| *d /= positions);
    }
}

/// Measures candidates of one supernet.
pub struct Population<'a> {
    model: &'a Model,
    supernet: &'a Supernet<'a>,
    dense: DenseStates,
}

/// Candidates that agree on every module so far, and their hidden state by part of the chunk.
struct Group {
    candidates: Vec<usize>,
    hidden: Vec<Tensor>,
}

/// Some sequences of equal length, as one batch.
struct Chunk {
    sequences: Vec<usize>,
    tokens: Vec<u32>,
    parts: Vec<Part>,
    length: usize,
    /// Whether they are whole ones of the set, not the start of one.
    whole: bool,
}

impl Chunk {
    /// Rows of one of its sequences.
    fn rows(&self, sequence: usize) -> Range<usize> {
        sequence * self.length..(sequence + 1) * self.length
    }
}

/// What a module's groups need of its weights, by removed units.
struct Weights {
    /// What gives the inputs of the densest level that a group picks.
    inputs: BTreeMap<usize, CutInputs>,
    /// The levels.
    levels: BTreeMap<usize, Linear>,
}

impl Weights {
    /// Passes one part of a group through the module: its hidden state after each of the levels, the densest first.
    fn pass(
        &self,
        model: &Model,
        hidden: &Tensor,
        segments: &Segments,
        levels: &[PickedLevel],
    ) -> Result<Vec<Tensor>> {
        let Some(densest) = levels.first() else { return Ok(vec![]) };
        let inputs = self.inputs[&densest.removed].of(model, hidden, segments)?;
        let outputs = levels.iter().map(|level| {
            let linear = &self.levels[&level.removed];
            linear.onto(hidden, &inputs.narrow(1, 0, linear.weight.dim(1)?)?)
        });
        outputs.collect()
    }
}

/// Losses of one group, row by row.
#[derive(Default)]
struct RowLosses {
    /// For each wanted divergence.
    kl: Vec<Vec<f64>>,
    nll: Vec<f64>,
}

impl RowLosses {
    fn extend(&mut self, next: Self) {
        self.kl.resize_with(next.kl.len(), Vec::new);
        self.kl.iter_mut().zip(next.kl).for_each(|(rows, next)| rows.extend(next));
        self.nll.extend(next.nll);
    }

    /// Adds those of some rows to sums.
    fn add_rows(&self, rows: &Range<usize>, to: &mut Measured) {
        let sum = |of: &[f64]| of[rows.clone()].iter().sum::<f64>();
        to.kl.iter_mut().zip(&self.kl).for_each(|(total, kl)| *total += sum(kl));
        to.nll += sum(&self.nll);
    }
}

/// Some rows of a part whose logits are read at once.
struct Piece {
    /// Index of the part.
    part: usize,
    /// Rows of it.
    rows: Range<usize>,
    /// Row of the chunk that the first of them is.
    start: usize,
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
    ) -> Result<Vec<Readings>> {
        if candidates.is_empty() {
            return Ok(vec![]);
        }
        let mut totals = vec![Readings::nothing(wanted); candidates.len()];
        let hidden = self.model.config().hidden;
        let at_once = |length| grouping::sequences_at_once(candidates.len(), length, hidden);
        for (part, length) in drawn.parts(set.0.length, at_once) {
            watch.checkpoint()?;
            let chunk = self.sequences(&set.0, &part, length);
            self.chunk(candidates, &chunk, wanted, &mut totals)?;
        }
        let (positions, predictions) = drawn.counts(set.0.length);
        let length = set.0.length;
        for total in &mut totals {
            total.all.per_token(positions, predictions);
            total.sequences.iter_mut().for_each(|one| one.per_token(length, length - 1));
        }
        Ok(totals)
    }

    /// Adds what one chunk gives to the totals.
    fn chunk(
        &mut self,
        candidates: &[Candidate],
        chunk: &Chunk,
        wanted: &Wanted,
        totals: &mut [Readings],
    ) -> Result<()> {
        totals.iter_mut().for_each(|total| total.begin(chunk, wanted));
        let dense = if wanted.layers.is_empty() { vec![] } else { self.dense_layers(chunk, &wanted.layers)? };
        let embed = |part: &Part| self.model.embed(&chunk.tokens[part.rows.clone()]);
        let hidden = chunk.parts.iter().map(embed).collect::<Result<_>>()?;
        let mut groups = vec![Group { candidates: grouping::whole(candidates), hidden }];
        for layer in 0..self.model.config().layers.len() {
            let weights = self.model.layer(layer)?;
            for kind in ModuleKind::ALL {
                groups = self.module(ModuleId { layer, kind }, &weights, groups, candidates, chunk)?;
            }
            for (i, _) in wanted.layers.iter().enumerate().filter(|(_, l)| **l == layer) {
                groups.iter().try_for_each(|group| distances(group, i, &dense[i], chunk, totals))?;
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
        chunk: &Chunk,
    ) -> Result<Vec<Group>> {
        let split =
            |group: &Group| grouping::split(self.supernet.space(), module, candidates, &group.candidates);
        let picked: Vec<Vec<PickedLevel>> = groups.iter().map(split).collect();
        let weights = self.weights(module, layer, &picked)?;
        let passed = groups.into_par_iter().zip(&picked).map(|(group, levels)| {
            let parts = group.hidden.into_par_iter().zip(&chunk.parts);
            let parts = parts.map(|(hidden, part)| weights.pass(self.model, &hidden, &part.segments, levels));
            parts.collect::<Result<Vec<Vec<Tensor>>>>()
        });
        let passed = passed.collect::<Result<Vec<_>>>()?;
        let next = picked.into_iter().zip(passed).flat_map(|(levels, parts)| by_level(levels, parts));
        Ok(next.collect())
    }

    /// What groups that pick these levels of a module need of its weights.
    fn weights(&self, module: ModuleId, layer: &Layer, picked: &[Vec<PickedLevel>]) -> Result<Weights> {
        let unit = self.supernet.space().shape.units(module.kind);
        let config = self.model.config();
        let removed: BTreeSet<usize> = picked.iter().flatten().map(|level| level.removed).collect();
        let densest: BTreeSet<usize> =
            picked.iter().flat_map(|levels| levels.first()).map(|l| l.removed).collect();
        let units = self.supernet.kept(module, removed.first().copied().unwrap_or(unit.units))?;
        let all = CutInputs::new(layer, module.kind, units, unit, config)?;
        let first = |removed: usize| Ok((removed, all.first(unit.units - removed, unit, config)?));
        let level = |removed: usize| {
            let weight = self.supernet.weight_tensor(module, removed)?;
            let bias = self.supernet.bias_tensor(module, removed, all.own_bias())?;
            Ok((removed, Linear { weight, bias }))
        };
        Ok(Weights {
            inputs: densest.into_iter().map(first).collect::<Result<_>>()?,
            levels: removed.into_iter().map(level).collect::<Result<_>>()?,
        })
    }

    fn losses(
        &mut self,
        groups: &[Group],
        chunk: &Chunk,
        wanted: &Wanted,
        totals: &mut [Readings],
    ) -> Result<()> {
        if wanted.kl.is_empty() && !wanted.nll {
            return Ok(());
        }
        let dense = || self.dense.of(self.model, &chunk.sequences, &chunk.tokens, chunk.length);
        let dense_states = if wanted.kl.is_empty() { None } else { Some(dense()?) };
        let read = self.pieces(chunk).into_par_iter();
        let read = read.map(|piece| self.piece(&piece, groups, chunk, wanted, dense_states.as_ref()));
        let mut losses: Vec<RowLosses> = groups.iter().map(|_| RowLosses::default()).collect();
        for piece in read.collect::<Result<Vec<_>>>()? {
            losses.iter_mut().zip(piece).for_each(|(rows, next)| rows.extend(next));
        }
        let blocks: Vec<Range<usize>> = self.model.config().logit_blocks(chunk.tokens.len()).collect();
        for (group, losses) in groups.iter().zip(&losses) {
            for &c in &group.candidates {
                // Summed by blocks of rows, each on its own first.
                blocks.iter().for_each(|rows| losses.add_rows(rows, &mut totals[c].all));
                totals[c].of_chunk(chunk).for_each(|(i, one)| losses.add_rows(&chunk.rows(i), one));
            }
        }
        Ok(())
    }

    /// A chunk in pieces whose logits a thread reads at once.
    fn pieces(&self, chunk: &Chunk) -> Vec<Piece> {
        let config = self.model.config();
        let of = |(i, part): (usize, &Part)| {
            let first = part.rows.start;
            config.thread_blocks(part.rows.len()).map(move |rows| Piece {
                part: i,
                start: first + rows.start,
                rows,
            })
        };
        chunk.parts.iter().enumerate().flat_map(of).collect()
    }

    /// What one piece gives, group by group. The dense model's predictions are made once for all of them.
    fn piece(
        &self,
        piece: &Piece,
        groups: &[Group],
        chunk: &Chunk,
        wanted: &Wanted,
        dense_states: Option<&Tensor>,
    ) -> Result<Vec<RowLosses>> {
        let rows = &piece.rows;
        let sides = match dense_states {
            Some(hidden) => {
                let logits = self.model.logits(&hidden.narrow(0, piece.start, rows.len())?)?;
                wanted
                    .kl
                    .iter()
                    .map(|&top_k| loss::Teacher::new(&logits, top_k))
                    .collect::<Result<Vec<_>>>()?
            }
            None => vec![],
        };
        let of = |group: &Group| {
            let hidden = group.hidden[piece.part].narrow(0, rows.start, rows.len())?;
            let logits = self.model.logits(&hidden)?;
            let kl = sides.iter().map(|side| side.divergences(&logits, 0)).collect::<Result<_>>()?;
            let nll =
                if wanted.nll { next_token_nll(&logits, chunk, piece.start)? } else { vec![0.0; rows.len()] };
            Ok(RowLosses { kl, nll })
        };
        groups.par_iter().map(of).collect()
    }

    /// Outputs of some layers of the dense model.
    fn dense_layers(&self, chunk: &Chunk, layers: &[usize]) -> Result<Vec<Tensor>> {
        let mut outputs = Vec::new();
        let segments = Segments::sequences(chunk.sequences.len(), chunk.length);
        let mut hidden = self.model.embed(&chunk.tokens)?;
        for l in 0..self.model.config().layers.len() {
            hidden = self.model.forward_layer(&*self.model.layer(l)?, &hidden, &segments)?;
            outputs.push(layers.contains(&l).then(|| hidden.clone()));
        }
        Ok(layers.iter().filter_map(|&l| outputs[l].clone()).collect())
    }

    fn sequences(&self, set: &Sequences, sequences: &[usize], length: usize) -> Chunk {
        let tokens = sequences.iter().flat_map(|&w| &set.get(w)[..length]).copied().collect();
        let parts = self.model.parts(&Segments::sequences(sequences.len(), length));
        Chunk { sequences: sequences.to_vec(), tokens, parts, length, whole: length == set.length }
    }
}

/// Adds the distances of a group from the dense model's output of the layer that is compared `i`-th.
fn distances(group: &Group, i: usize, dense: &Tensor, chunk: &Chunk, totals: &mut [Readings]) -> Result<()> {
    let hidden = Tensor::cat(&group.hidden, 0)?;
    let all = loss::squared_distance(dense, &hidden)?;
    let of_sequence = |s: usize| {
        let rows = |of: &Tensor| of.narrow(0, chunk.rows(s).start, chunk.length);
        loss::squared_distance(&rows(dense)?, &rows(&hidden)?)
    };
    let each = (0..chunk.sequences.len()).map(of_sequence).collect::<Result<Vec<_>>>()?;
    for &c in &group.candidates {
        totals[c].all.distances[i] += all;
        totals[c].of_chunk(chunk).for_each(|(s, one)| one.distances[i] += each[s]);
    }
    Ok(())
}

/// The groups that a group splits into: by level the hidden states of all parts.
fn by_level(levels: Vec<PickedLevel>, parts: Vec<Vec<Tensor>>) -> Vec<Group> {
    let mut groups: Vec<Group> =
        levels.into_iter().map(|level| Group { candidates: level.members, hidden: vec![] }).collect();
    for part in parts {
        groups.iter_mut().zip(part).for_each(|(group, hidden)| group.hidden.push(hidden));
    }
    groups
}

/// −ln p(next token) of the rows from `start` on; 0 where the next token lies in another sequence.
fn next_token_nll(logits: &Tensor, chunk: &Chunk, start: usize) -> Result<Vec<f64>> {
    let rows = start..start + logits.dim(0)?;
    let next: Vec<u32> = rows.clone().map(|r| chunk.tokens.get(r + 1).copied().unwrap_or(0)).collect();
    let scores = loss::token_logprobs(logits, &next)?;
    let within = |r: usize| !(r + 1).is_multiple_of(chunk.length);
    Ok(rows.zip(scores).map(|(r, (lp, _))| if within(r) { -lp } else { 0.0 }).collect())
}
