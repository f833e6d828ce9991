//! The evaluator of a search.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::{Population, Sampler, Wanted};
use crate::base::{Result, Watch};
use crate::model::Model;
use crate::search::{Draw, Evaluate};
use crate::space::{Candidate, Shape};
use crate::spec::Fitness;

/// What is minimised.
pub struct Objective {
    wanted: Wanted,
}

impl Objective {
    /// From the spec.
    pub fn new(fitness: &Fitness, _model: &Model, _shape: &Shape) -> Result<Self> {
        Ok(Self { wanted: Wanted { kl: Some(fitness.top_k), ..Wanted::default() } })
    }

    /// What decides its values beside the spec.
    pub fn fingerprint(_fitness: &Fitness) -> Result<Option<String>> {
        Ok(None)
    }
}

/// Scores candidates of a search.
pub struct Evaluator<'a> {
    population: Population<'a>,
    sampler: Sampler<'a>,
    objective: Objective,
    watch: &'a dyn Watch,
}

impl<'a> Evaluator<'a> {
    /// Over a population and the search set that `sampler` draws from.
    pub fn new(population: Population<'a>, sampler: Sampler<'a>, objective: Objective, watch: &'a dyn Watch) -> Self {
        Self { population, sampler, objective, watch }
    }

    /// The dense hidden states computed so far.
    pub fn into_teacher(self) -> BTreeMap<usize, Tensor> {
        self.population.into_teacher()
    }
}

impl Evaluate for Evaluator<'_> {
    fn fitness(&mut self, candidates: &[Candidate], draw: &Draw) -> Result<Vec<f64>> {
        let (windows, length) = self.sampler.windows(draw)?;
        let measured = self.population.measure(candidates, self.sampler.search_set(), &windows, length, &self.objective.wanted, self.watch)?;
        Ok(measured.iter().map(|m| m.kl).collect())
    }
}
