//! What a search costs: a generation of offspring is drawn as the search draws it, and the hidden states that
//! its candidates share are counted module by module.

use std::collections::BTreeSet;

use super::grouping::{self, PickedLevel};
use super::objective::Objective;
use super::population::Wanted;
use crate::base::{Result, Work, rng};
use crate::data::FitnessText;
use crate::model::Config;
use crate::model::cost::{self, Tokens, attention_inputs, layer_parameters, mlp_inputs, output};
use crate::model::decoder::PART_ROWS;
use crate::search::{Mutations, Sensitivities, offspring};
use crate::space::{Budget, Candidate, ModuleId, ModuleKind, Space};
use crate::spec::{AttentionUnit, Spec};

const SINGLE: f64 = 4.0;

/// Offspring drawn at most: a generation of more is estimated from so many of them.
const SAMPLED: usize = 512;
/// Parts of a round of sensitivities that are estimated at most: those between them cost as much.
const SAMPLED_BLOCKS: usize = 16;

/// Threads that an estimate of memory assumes: plans are the same on every machine, and what one thread has at once
/// is little beside the states of a stage.
const THREADS: f64 = 2.0;

/// A search that is to be run.
pub struct Searching<'a> {
    config: &'a Config,
    space: &'a Space,
    spec: &'a Spec,
    /// What is measured on the search set.
    wanted: Wanted,
    /// Corpora that are scored on texts of their own.
    own_corpora: usize,
    /// Each stage with the candidates that it scores.
    stages: Vec<Stage>,
}

/// One stage of a typical generation.
struct Stage {
    tokens: usize,
    /// A sample of the candidates scored; all of them where there are not many.
    candidates: Vec<Candidate>,
    /// Candidates scored.
    count: usize,
}

impl Stage {
    /// How many candidates each one of the sample stands for.
    fn scale(&self) -> f64 {
        self.count as f64 / self.candidates.len().max(1) as f64
    }
}

impl<'a> Searching<'a> {
    /// Of a space, whose first generation stands for all.
    ///
    /// # Errors
    /// As [`Objective::new`].
    pub fn new(config: &'a Config, space: &'a Space, spec: &'a Spec) -> Result<Self> {
        let objective = Objective::new(&spec.fitness, config, spec.calibration.sequence_length)?;
        let is_search_set = |name: &str| FitnessText::is_search_set(spec, name);
        let own_corpora = objective.corpora().iter().filter(|name| !is_search_set(name)).count();
        let wanted = objective.on_search_set(is_search_set);
        let parent = space.start();
        let sampled = spec.search.offspring.min(SAMPLED);
        let mut rng = rng::stream(spec.seed, "plan");
        let budget = Budget::units(&space.centre);
        let max_flips = spec.search.max_flips;
        let mutations = Mutations { space: space.clone(), budget, max_flips, increases: None };
        let mut left = offspring(&mutations, &parent, sampled, &mut rng, &|| Ok(()))?;
        // A sample that is not full holds all offspring that exist.
        let mut count = if left.len() == SAMPLED { spec.search.offspring } else { left.len() };
        let last = spec.search.stages.len().saturating_sub(1);
        let mut stages = Vec::new();
        for (i, stage) in spec.search.stages.iter().enumerate() {
            let with_parent = if i == last { vec![parent.clone()] } else { vec![] };
            let scored = with_parent.len() + count;
            let candidates = [with_parent, left.clone()].concat();
            stages.push(Stage { tokens: stage.tokens, candidates, count: scored });
            left.truncate(stage.survivors);
            count = count.min(stage.survivors);
        }
        Ok(Self { config, space, spec, wanted, own_corpora, stages })
    }

    /// Tokens that the candidates of one generation are scored on, summed over candidates.
    pub fn candidate_tokens(&self) -> usize {
        self.stages.iter().fold(0, |sum, s| sum.saturating_add(s.tokens.saturating_mul(s.count)))
    }

    /// Operations of all generations of an iteration, counted from 1.
    pub fn work(&self, iteration: usize) -> Work {
        let generation: Work = self.stages.iter().map(|s| self.stage(s)).sum();
        generation * self.spec.search.generations as f64
            + self.dense_states(iteration)
            + cost::conversions(self.config, 1.0)
    }

    /// A sample of what one round of sensitivities scores together, and how many of these each stands for; last
    /// what it departs from and its optimum, on the round's tokens and on those that they are compared on.
    fn round(&self) -> Vec<(Stage, f64)> {
        let settings = &self.spec.search;
        let budget = Budget::units(&self.space.centre);
        let measuring = Sensitivities::new(self.space.clone(), budget, settings);
        let of = |tokens, candidates: Vec<Candidate>| Stage { tokens, count: candidates.len(), candidates };
        let stage = |candidates| of(settings.sensitivity_tokens(), candidates);
        let blocks = measuring.blocks();
        let every = blocks.len().div_ceil(SAMPLED_BLOCKS).max(1);
        let sampled: Vec<_> = blocks.iter().step_by(every).cloned().collect();
        let stands_for = blocks.len() as f64 / sampled.len().max(1) as f64;
        let changed = sampled.into_iter().map(|block| (stage(measuring.changes(block)), stands_for));
        let start = vec![self.space.start()];
        let checked = of(settings.sensitivity_check().0, start.clone());
        changed.chain([(stage(start), 2.0), (checked, 2.0)]).collect()
    }

    /// Operations of the sensitivities that a search starts from; the dense model's states are counted with the
    /// search.
    pub fn sensitivities(&self) -> Work {
        let round: Work = self.round().iter().map(|(stage, times)| self.stage(stage) * *times).sum();
        round * self.spec.search.sensitivity.rounds as f64 + cost::conversions(self.config, 1.0)
    }

    /// Bytes of the sensitivities on disk.
    pub fn sensitivities_disk(&self) -> f64 {
        // A number of about twenty digits for every level.
        let levels: f64 = self.space.range.iter().map(|(low, high)| f64::from(high - low + 1)).sum();
        (24.0 * levels + 12.0 * self.space.range.len() as f64) * self.spec.search.sensitivity.rounds as f64
    }

    /// Bytes of the log of generations.
    pub fn disk(&self) -> f64 {
        // Two candidates and the stages, as JSON.
        let record = 300.0 + 6.0 * self.space.shape.modules() as f64;
        record * self.spec.search.generations as f64 + 6.0 * self.space.shape.modules() as f64
    }

    /// Memory that measuring sensitivities takes, as [`Searching::memory`] counts it.
    pub fn sensitivities_memory(&self) -> f64 {
        self.layers() + self.round().iter().map(|(s, _)| self.stage_memory(s)).fold(0.0, f64::max)
    }

    /// Memory that searching takes beside what is there already, mapped files and the dense model's states
    /// apart, bytes.
    pub fn memory(&self) -> f64 {
        self.layers() + self.stages.iter().map(|s| self.stage_memory(s)).fold(0.0, f64::max)
    }

    /// Two layers, where the model's are not kept.
    fn layers(&self) -> f64 {
        if cost::is_resident(self.config) { 0.0 } else { 2.0 * layer_parameters(self.config) * SINGLE }
    }

    /// Passes over the search set (one or none), and over corpora of the fitness that are texts of their own.
    fn passes(&self) -> (f64, f64) {
        let main = self.wanted != Wanted::default();
        (if main { 1.0 } else { 0.0 }, self.own_corpora as f64)
    }

    /// Losses that each candidate's logits are read for on the search set.
    fn losses(&self) -> f64 {
        self.wanted.kl.len() as f64 + if self.wanted.nll { 1.0 } else { 0.0 }
    }

    fn length(&self, stage: &Stage) -> usize {
        stage.tokens.min(self.spec.calibration.sequence_length).max(1)
    }

    /// Sequences walked at once, and how often any are: a last part of a sequence goes alone.
    fn chunks(&self, stage: &Stage) -> (usize, usize) {
        let length = self.length(stage);
        let sequences = stage.tokens / length;
        let at_once = grouping::sequences_at_once(stage.count, length, self.config.hidden);
        let at_once = at_once.min(sequences.max(1));
        (at_once, sequences.div_ceil(at_once) + usize::from(!stage.tokens.is_multiple_of(length)))
    }

    fn stage(&self, stage: &Stage) -> Work {
        if stage.candidates.is_empty() {
            return Work::default();
        }
        let walked = self.walk(stage);
        let (main, own) = self.passes();
        let tokens = stage.tokens as f64;
        let students = distinct(stage);
        let side = |losses: f64| {
            let once = if losses > 0.0 { 1.0 } else { 0.0 };
            cost::logits(self.config, tokens) * once
                + Work { logits: losses * tokens * self.config.vocabulary as f64, ..Work::default() }
        };
        let dense_states = side(self.wanted.kl.len() as f64);
        let student = side(self.losses());
        walked * (main + own)
            + (dense_states + student * students) * main
            + side(1.0) * (students * own)
            + self.distances(tokens, students)
    }

    /// The dense model's layers again, and a pass over both sides for each compared layer.
    fn distances(&self, tokens: f64, students: f64) -> Work {
        let layers = self.wanted.layers.len() as f64;
        if layers == 0.0 {
            return Work::default();
        }
        let elements = 4.0 * layers * students * tokens * self.config.hidden as f64;
        cost::hidden(self.config, Tokens { count: tokens, length: self.spec.calibration.sequence_length })
            + Work { elements, ..Work::default() }
    }

    /// All modules for the candidates of a stage: inputs once per shared state, outputs once per level picked
    /// of it.
    fn walk(&self, stage: &Stage) -> Work {
        let tokens = Tokens { count: stage.tokens as f64, length: self.length(stage) };
        let chunks = self.chunks(stage).1 as f64;
        let mut groups = vec![grouping::whole(&stage.candidates)];
        let mut total = Work { weights: self.read_again(chunks), ..Work::default() };
        for i in 0..self.space.shape.modules() {
            let module = ModuleId::from_index(i);
            let split = |group: &Vec<usize>| grouping::split(self.space, module, &stage.candidates, group);
            let split: Vec<Vec<PickedLevel>> = groups.iter().map(split).collect();
            let walked: Work = split.iter().map(|levels| self.group(module, levels, tokens)).sum();
            total += walked * stage.scale();
            let levels: BTreeSet<usize> = split.iter().flatten().map(|level| level.removed).collect();
            let width = self.space.shape.units(module.kind).width;
            let kept = |r: &usize| (self.space.shape.units(module.kind).units - r) as f64;
            let read = |r: &usize| kept(r) * (width * self.config.hidden) as f64;
            let densest = levels.first().map_or(0.0, kept);
            let copied = levels.iter().map(read).sum::<f64>() + self.cut(module.kind, densest);
            total.weights += copied * chunks;
            groups = split.into_iter().flatten().map(|level| level.members).collect();
        }
        total
    }

    /// One shared state through one module, whose picked levels lie sparser by sparser.
    fn group(&self, module: ModuleId, levels: &[PickedLevel], tokens: Tokens) -> Work {
        let unit = self.space.shape.units(module.kind);
        let kept = |removed: usize| (unit.units - removed) as f64;
        let densest = levels.iter().map(|level| kept(level.removed)).fold(0.0, f64::max);
        let inputs = match module.kind {
            ModuleKind::Attention => {
                let (heads, kv) = self.heads(densest);
                attention_inputs(self.config, heads, kv, tokens)
            }
            ModuleKind::Mlp => mlp_inputs(self.config, densest, tokens),
        };
        let channels = |level: &PickedLevel| kept(level.removed) * unit.width as f64;
        let outputs: Work =
            levels.iter().map(|level| output(self.config, channels(level), tokens.count)).sum();
        inputs + outputs
    }

    /// Query and key/value heads of this many kept attention units.
    fn heads(&self, units: f64) -> (f64, f64) {
        match self.spec.prune.unit.attention {
            AttentionUnit::Head => (units, units.min(self.config.kv_heads as f64)),
            AttentionUnit::KvGroup => (units * self.config.group() as f64, units),
        }
    }

    /// Weights copied to cut a module for all shared states of a chunk.
    fn cut(&self, kind: ModuleKind, units: f64) -> f64 {
        let d = self.config.hidden as f64;
        let c = self.config.head_width as f64;
        let rows = match kind {
            ModuleKind::Attention => {
                let (heads, kv) = self.heads(units);
                c * (heads + 2.0 * kv)
            }
            ModuleKind::Mlp => 2.0 * units,
        };
        rows * d
    }

    /// Weights that a model whose layers are not kept reads again: all layers, once for each chunk.
    fn read_again(&self, chunks: f64) -> f64 {
        if cost::is_resident(self.config) {
            0.0
        } else {
            layer_parameters(self.config) * self.config.layers.len() as f64 * chunks
        }
    }

    /// Sequences of the search set that any stage draws in this many iterations.
    fn sequences_drawn(&self, iterations: usize) -> f64 {
        let length = self.spec.calibration.sequence_length.max(1);
        let all = (self.spec.search.tokens / length).max(1) as f64;
        let missed: f64 =
            self.stages.iter().map(|s| 1.0 - (s.tokens.div_ceil(length) as f64 / all).min(1.0)).product();
        all * (1.0 - missed.powf((self.spec.search.generations * iterations) as f64))
    }

    /// Dense states, computed once for each sequence drawn that no iteration before drew.
    fn dense_states(&self, iteration: usize) -> Work {
        if self.wanted.kl.is_empty() {
            return Work::default();
        }
        let length = self.spec.calibration.sequence_length;
        let sequences = self.sequences_drawn(iteration) - self.sequences_drawn(iteration - 1);
        let again = if cost::is_resident(self.config) {
            Work::default()
        } else {
            cost::conversions(self.config, sequences)
        };
        cost::hidden(self.config, Tokens { count: sequences * length as f64, length }) + again
    }

    /// Dense hidden states that are kept after this many iterations, bytes.
    pub fn dense_state_bytes(&self, iterations: usize) -> f64 {
        let one = (self.spec.calibration.sequence_length * self.config.hidden) as f64 * SINGLE;
        if self.wanted.kl.is_empty() { 0.0 } else { self.sequences_drawn(iterations) * one }
    }

    /// Neurons of the densest level that any candidate of a stage picks.
    fn most_neurons(&self, stage: &Stage) -> f64 {
        let kept =
            |c: &Candidate| (1..c.len()).step_by(2).map(|i| self.kept(ModuleId::from_index(i), c[i])).max();
        stage.candidates.iter().filter_map(kept).max().unwrap_or(0) as f64
    }

    fn kept(&self, module: ModuleId, level: i32) -> usize {
        self.space.shape.units(module.kind).units - self.space.removed(module, level)
    }

    /// Shared states, a module's weights, and what each thread has at once: one part's inputs, or the logits of a
    /// block of rows.
    fn stage_memory(&self, stage: &Stage) -> f64 {
        let c = self.config;
        let rows = (self.chunks(stage).0 * self.length(stage)) as f64;
        let d = c.hidden as f64;
        let v = c.vocabulary as f64;
        let states = (distinct(stage) + 1.0) * rows * d;
        let part = (self.length(stage).max(PART_ROWS) as f64).min(rows);
        let mlp = 2.0 * d + 3.0 * self.most_neurons(stage);
        let attention = 2.0 * d + (c.head_width * (2 * c.heads + 2 * c.kv_heads)) as f64;
        let inputs = THREADS * part * mlp.max(attention);
        let levels = self.space.levels(ModuleId::from_index(1)).count() as f64 * d * c.neurons as f64 / 2.0;
        let cut = 2.0 * d * c.neurons as f64;
        // The dense model's probabilities, and one candidate's logits.
        let sides = 1.0 + self.wanted.kl.len() as f64;
        let logits = THREADS * (c.thread_logit_rows() as f64).min(rows) * v * sides + rows * d;
        let compared = self.wanted.layers.len() as f64 * rows * d;
        SINGLE * (states + compared + (inputs + levels + cut).max(logits))
    }
}

/// Distinct candidates of a stage.
fn distinct(stage: &Stage) -> f64 {
    stage.candidates.iter().collect::<BTreeSet<_>>().len() as f64 * stage.scale()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pico::Pico;
    use crate::space::{Request, uniform};

    /// The search of a model of 12 layers with so many offspring.
    fn with<T>(offspring: usize, of: impl FnOnce(&Searching) -> T) -> T {
        let config = Pico { layers: 12, ..Pico::default() }.config().unwrap();
        let mut spec: Spec = toml::from_str(crate::spec::defaults_toml()).unwrap();
        spec.search.offspring = offspring;
        let shape = config.shape(AttentionUnit::Head);
        let centre = uniform(&shape, Request::Total(0.5)).unwrap();
        let space = Space::around(shape, centre, [1, 1], 9).unwrap();
        of(&Searching::new(&config, &space, &spec).unwrap())
    }

    #[test]
    fn a_generation_of_many_is_estimated_from_a_sample_and_counts_them_all() {
        for offspring in [8, SAMPLED, 10 * SAMPLED, crate::spec::MOST_OFFSPRING] {
            with(offspring, |searching| {
                let counts: Vec<usize> = searching.stages.iter().map(|s| s.count).collect();
                assert_eq!(counts, [offspring, offspring.min(16), offspring.min(4) + 1]);
                assert_eq!(searching.stages[0].candidates.len(), offspring.min(SAMPLED));
                assert_eq!(
                    searching.candidate_tokens(),
                    1024 * counts[0] + 8192 * counts[1] + 32768 * counts[2]
                );
            });
        }
        let cost = |offspring| with(offspring, |s| (s.stage(&s.stages[0]).logits, s.memory()));
        let (few, many) = (cost(SAMPLED), cost(10 * SAMPLED));
        assert!(many.0 > 5.0 * few.0 && many.1 > few.1, "{few:?} {many:?}");
    }
}
