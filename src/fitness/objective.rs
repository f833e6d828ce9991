//! What is minimised (paper Eq. 6): which measurements it needs, and the one number that it makes of them.

use super::population::{Measured, Wanted};
use super::script::Script;
use super::scripted::{Known, Scripted};
use crate::base::{Error, Kind, Result};
use crate::model::Config;
use crate::space::SparsityDistribution;
use crate::spec::{Fitness, FitnessKind, KeyPath};
use crate::supernet::{Supernet, compact};

/// The `[fitness]` table, ready for one model.
pub struct Objective {
    rule: Rule,
    wanted: Wanted,
    corpora: Vec<String>,
}

enum Rule {
    /// The one KL divergence that is wanted.
    Kl,
    /// Σ α ‖Δh‖² over the wanted layers, plus β times the KL divergence.
    Similarity { alphas: Vec<f64>, beta: f64 },
    /// Mean −ln p over the corpora.
    Perplexity,
    /// A script's value.
    Script(Box<Scripted>),
}

/// What was measured of one candidate.
pub(super) struct Evidence<'a> {
    /// On the search set.
    pub measured: &'a Measured,
    /// Mean −ln p on every corpus of [`Objective::corpora`].
    pub nll: &'a [f64],
    /// The candidate.
    pub distribution: &'a SparsityDistribution,
}

impl Objective {
    /// For a model; `length` is the number of tokens of a search sequence, which a script's `flops` are
    /// counted for.
    ///
    /// # Errors
    /// A layer that the model does not have, a corpus listed twice, a missing list or script, or a script
    /// that does not compile or fails on made-up metrics.
    pub fn new(fitness: &Fitness, config: &Config, length: usize) -> Result<Self> {
        let kl = vec![fitness.top_k];
        check_distinct(&fitness.corpora)?;
        let objective = |rule, wanted| Self { rule, wanted, corpora: vec![] };
        match fitness.kind {
            FitnessKind::Kl => Ok(objective(Rule::Kl, Wanted { kl, ..Wanted::default() })),
            FitnessKind::Similarity => {
                let (layers, alphas) = weighted_layers(fitness, config.layers.len())?;
                let beta = fitness.logits_weight;
                let kl = if beta == 0.0 { vec![] } else { kl };
                Ok(objective(Rule::Similarity { alphas, beta }, Wanted { kl, nll: false, layers }))
            }
            FitnessKind::Perplexity => perplexity(fitness),
            FitnessKind::Script => {
                let path = fitness
                    .script
                    .as_ref()
                    .ok_or_else(|| missing("script", "a script fitness has no script"))?;
                let scripted =
                    Scripted::new(Script::load(path)?, &fitness.corpora, fitness.top_k, config, length)?;
                Ok(Self {
                    wanted: scripted.wanted().clone(),
                    corpora: scripted.corpora().to_vec(),
                    rule: Rule::Script(Box::new(scripted)),
                })
            }
        }
    }

    /// What to measure on the search set; may be nothing. It includes −ln p where a corpus is the search set
    /// itself, as `is_search_set` tells of its name.
    pub fn on_search_set(&self, is_search_set: impl Fn(&str) -> bool) -> Wanted {
        let nll = self.corpora.iter().any(|name| is_search_set(name));
        Wanted { nll, ..self.wanted.clone() }
    }

    /// Whether it is a mean over sequences: a script's value may be anything.
    pub fn is_mean(&self) -> bool {
        !matches!(self.rule, Rule::Script(_))
    }

    /// Corpora whose search text is scored.
    pub fn corpora(&self) -> &[String] {
        &self.corpora
    }

    /// The fitness; NaN in, NaN out, except for scripts, where NaN is an error.
    pub(super) fn value(&mut self, supernet: &Supernet, evidence: &Evidence) -> Result<f64> {
        let kl = || evidence.measured.kl.first().copied().unwrap_or(0.0);
        match &mut self.rule {
            Rule::Kl => Ok(kl()),
            Rule::Similarity { alphas, beta } => {
                let distance: f64 = alphas.iter().zip(&evidence.measured.distances).map(|(a, d)| a * d).sum();
                Ok(if *beta == 0.0 { distance } else { distance + *beta * kl() })
            }
            Rule::Perplexity => Ok(evidence.nll.iter().sum::<f64>() / evidence.nll.len() as f64),
            Rule::Script(scripted) => {
                script_value(scripted, supernet, evidence).map_err(|e| shown(e, evidence.distribution))
            }
        }
    }
}

fn script_value(scripted: &mut Scripted, supernet: &Supernet, evidence: &Evidence) -> Result<f64> {
    let distribution = evidence.distribution;
    let shape = supernet.space().shape;
    let layers = if scripted.counts_wanted() {
        Some(compact::shapes(scripted.config(), supernet, distribution)?)
    } else {
        None
    };
    let counts = layers.map(|layers| scripted.counts(layers));
    let sparsity = distribution.sparsity(&shape);
    let variance = distribution.variance(&shape);
    scripted.value(&Known { measured: evidence.measured, nll: evidence.nll, counts, sparsity, variance })
}

/// The error of a script, and which candidate it failed on.
fn shown(error: Error, distribution: &SparsityDistribution) -> Error {
    let of = |kind: usize| distribution.removed.iter().skip(kind).step_by(2).collect::<Vec<_>>();
    let what = format!(
        "{} for the candidate that removes {:?} attention units and {:?} neurons by layer",
        error.what,
        of(0),
        of(1)
    );
    Error { what, ..error }
}

fn perplexity(fitness: &Fitness) -> Result<Objective> {
    if fitness.corpora.is_empty() {
        return Err(missing("corpora", "a perplexity fitness has no corpus"));
    }
    Ok(Objective { rule: Rule::Perplexity, wanted: Wanted::default(), corpora: fitness.corpora.clone() })
}

fn check_distinct(corpora: &[String]) -> Result<()> {
    let Some(i) = (0..corpora.len()).find(|&i| corpora[..i].contains(&corpora[i])) else { return Ok(()) };
    Err(Error::new(Kind::Spec, format!("corpus \"{}\" is listed twice", corpora[i]))
        .at(KeyPath::of("fitness.corpora").index(i)))
}

fn missing(key: &str, what: &str) -> Error {
    Error::new(Kind::Spec, what).at(format!("fitness.{key}")).hint(format!("set `fitness.{key}`"))
}

/// The layers of a similarity with a weight, counted from the start, and the weights.
fn weighted_layers(fitness: &Fitness, layers: usize) -> Result<(Vec<usize>, Vec<f64>)> {
    if fitness.layers.is_empty() {
        return Err(missing("layers", "a similarity fitness compares no layer"));
    }
    let index = |(i, l): (usize, &crate::spec::LayerWeight)| Ok((layer_index(i, l.layer, layers)?, l.weight));
    let all = fitness.layers.iter().enumerate().map(index).collect::<Result<Vec<_>>>()?;
    Ok(all.into_iter().filter(|(_, weight)| *weight != 0.0).unzip())
}

fn layer_index(entry: usize, layer: i64, layers: usize) -> Result<usize> {
    let from_start = if layer < 0 { layer.checked_add(layers as i64) } else { Some(layer) };
    from_start.and_then(|l| usize::try_from(l).ok()).filter(|&l| l < layers).ok_or_else(|| {
        Error::new(Kind::Spec, format!("there is no layer {layer} in a model of {layers} layers"))
            .at(KeyPath::of("fitness.layers").index(entry).key("layer"))
            .hint(format!("layers go from 0 to {}, or from -1 back to -{layers}", layers - 1))
    })
}
