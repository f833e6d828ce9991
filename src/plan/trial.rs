//! What a trial is about, in numbers: parameters before and after, iterations with their spaces, tokens by
//! use.

use serde::Serialize;

use super::Step;
use super::size::log10_legal;
use super::texts::Texts;
use crate::base::Result;
use crate::eval::{Catalogue, cost as evaluating};
use crate::fitness::cost::Searching;
use crate::model::family::Parameters;
use crate::model::{Config, LayerShape};
use crate::schedule::Iteration;
use crate::space::{ModuleId, ModuleKind, Space, SparsityDistribution};
use crate::spec::{AttentionUnit, Basis, SparsityShape, Spec};
use crate::trial::{Evaluation, ModelName, evaluations, kl_sequences};

/// A trial's plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrialPlan {
    /// Its label.
    pub label: String,
    /// Its model, as the spec names it.
    pub model: String,
    /// Where the model's sizes come from.
    pub origin: String,
    /// Parameters by kind of matrix, before and after.
    pub parameters: Vec<Count>,
    /// The sparsity that is requested.
    pub asked: f64,
    /// The sparsity that whole units reach, on the same basis.
    pub reached: f64,
    /// The basis of both.
    pub basis: Basis,
    /// One per interval.
    pub iterations: Vec<IterationPlan>,
    /// Tokens by use.
    pub tokens: TokenCounts,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// Notes for the reader.
    pub notes: Vec<String>,
}

/// Parameters of one kind of matrix.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Count {
    /// The kind.
    pub kind: &'static str,
    /// In the dense model.
    pub before: usize,
    /// At the uniform distribution, at most.
    pub after: usize,
    /// At least: key/value heads are removed with the last of their query heads, and which these are is known
    /// only later.
    pub least: usize,
}

/// One iteration of the coarse-to-fine schedule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IterationPlan {
    /// From 1.
    pub number: usize,
    /// Sparsity between neighbouring levels.
    pub interval: f64,
    /// The same in heads (or groups) and neurons.
    pub spacings: [usize; 2],
    /// Fewest and most levels of a module, by kind.
    pub levels: [(usize, usize); 2],
    /// Distributions to choose from, as a decimal logarithm; around the uniform start.
    pub log10_distributions: f64,
}

/// Tokens by use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenCounts {
    /// For Gram matrices.
    pub calibration: usize,
    /// Of a sequence of these.
    pub sequence_length: usize,
    /// Of the search set.
    pub search: usize,
    /// Tokens and survivors of every stage.
    pub stages: Vec<(usize, usize)>,
    /// Generations of one iteration.
    pub generations: usize,
    /// Tokens that candidates are scored on in one iteration, summed over candidates.
    pub candidates: usize,
    /// Of every evaluation set.
    pub evaluation: Vec<(String, usize)>,
    /// For the divergence.
    pub kl: usize,
    /// For all tasks, about.
    pub tasks: usize,
}

/// A configuration with what a distribution keeps. With single heads, `spread` says how they lie over the
/// key/value heads.
pub(crate) fn pruned(
    config: &Config,
    unit: AttentionUnit,
    distribution: &SparsityDistribution,
    spread: Spread,
) -> Config {
    let layer = |l: usize| {
        let kept = |kind| {
            config.shape(unit).units(kind).units - distribution.removed[ModuleId { layer: l, kind }.index()]
        };
        LayerShape {
            query_heads_per_kv: match unit {
                AttentionUnit::KvGroup => vec![config.group(); kept(ModuleKind::Attention)],
                AttentionUnit::Head => spread.groups(config, kept(ModuleKind::Attention)),
            },
            intermediate_size: kept(ModuleKind::Mlp),
        }
    };
    Config { layers: (0..config.layers.len()).map(layer).collect(), ..config.clone() }
}

/// How kept query heads lie over key/value heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Over as many as there are.
    Wide,
    /// Over as few as will hold them.
    Narrow,
}

impl Spread {
    fn groups(self, config: &Config, heads: usize) -> Vec<usize> {
        let groups = match self {
            Spread::Wide => heads.min(config.kv_heads),
            Spread::Narrow => heads.div_ceil(config.group()),
        };
        LayerShape::spread(heads, groups)
    }
}

/// Parameters by kind of matrix.
pub(crate) fn parameters(config: &Config, wide: &Config, narrow: &Config) -> Vec<Count> {
    let all = [config, wide, narrow].map(Config::parameters);
    let [before, after, least] = all.each_ref().map(Parameters::by_kind);
    let kinds = before.into_iter().zip(after).zip(least);
    let count = |kind, [before, after, least]: [usize; 3]| Count { kind, before, after, least };
    let total = count("all", all.each_ref().map(Parameters::total));
    kinds
        .map(|(((kind, before), (_, after)), (_, least))| count(kind, [before, after, least]))
        .chain([total])
        .collect()
}

/// One iteration's numbers.
pub(crate) fn iteration(iteration: &Iteration, space: &Space, spec: &Spec) -> IterationPlan {
    let levels = ModuleKind::ALL.map(|kind| {
        let counts =
            space.range.iter().skip(kind as usize).step_by(2).map(|(low, high)| (high - low + 1) as usize);
        (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0))
    });
    IterationPlan {
        number: iteration.number,
        interval: iteration.interval,
        spacings: iteration.spacings,
        levels,
        log10_distributions: if spec.sparsity.shape == SparsityShape::Free {
            log10_legal(space)
        } else {
            0.0
        },
    }
}

/// Tokens of a trial. `first` is the search of its first iteration.
pub(crate) fn tokens(spec: &Spec, texts: &Texts, first: Option<&Searching>, tasks: &Tasks) -> TokenCounts {
    let evaluation = spec
        .evaluate
        .perplexity
        .iter()
        .filter_map(|name| Some((name.clone(), texts.evaluation.get(name)?.1)));
    let generations = if spec.searches() { spec.search.generations } else { 0 };
    let diverges = evaluations(spec, ModelName::Uniform).contains(&Evaluation::Kl);
    TokenCounts {
        calibration: spec.calibration.tokens,
        sequence_length: spec.calibration.sequence_length,
        search: spec.search.tokens,
        stages: spec.search.stages.iter().map(|s| (s.tokens, s.survivors)).collect(),
        generations,
        candidates: first.map_or(0, |s| s.candidate_tokens().saturating_mul(generations)),
        evaluation: evaluation.collect(),
        kl: if diverges { kl_tokens(spec, texts) } else { 0 },
        tasks: tasks.tokens.run as usize,
    }
}

/// Tokens that the divergence from the dense model is measured on: whole sequences of those asked.
fn kl_tokens(spec: &Spec, texts: &Texts) -> usize {
    let e = &spec.evaluate;
    let there = e.perplexity.first().and_then(|name| texts.evaluation.get(name)).map_or(0, |(_, n)| *n);
    kl_sequences(e.kl_tokens, e.sequence_length, there / e.sequence_length) * e.sequence_length
}

/// The tasks of a trial as far as their size is known.
pub(crate) struct Tasks {
    /// Of all of them.
    pub tokens: evaluating::TaskTokens,
    /// Those whose size is not known.
    pub unsized_names: Vec<String>,
}

impl Tasks {
    /// Tasks and groups by name, the user's own included.
    ///
    /// # Errors
    /// A name that neither is built in nor has a table.
    pub(crate) fn of(names: &[String], spec: &Spec) -> Result<Self> {
        let selection = Catalogue::builtin().with_custom(&spec.tasks)?.select(names)?;
        let sized = |name: &str| {
            evaluating::task_tokens(name, spec.evaluate.limit).filter(|_| !spec.tasks.contains_key(name))
        };
        let mut tasks = Self { tokens: evaluating::TaskTokens::default(), unsized_names: vec![] };
        for task in &selection.tasks {
            match sized(&task.name) {
                Some(t) => {
                    tasks.tokens = evaluating::TaskTokens {
                        run: tasks.tokens.run + t.run,
                        scored: tasks.tokens.scored + t.scored,
                    }
                }
                None => tasks.unsized_names.push(task.name.clone()),
            }
        }
        Ok(tasks)
    }
}
