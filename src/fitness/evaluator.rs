//! The search's evaluator: draws a stage's tokens, measures the population on them, and lets the objective
//! make one number of it.

use super::draw::Sampler;
use super::objective::{Evidence, Objective};
use super::population::{Measured, Population, Wanted};
use crate::base::{Error, Kind, Result, Watch};
use crate::data::FitnessText;
use crate::search::{Draw, Evaluate};
use crate::space::Candidate;

/// A corpus whose search text an objective scores.
pub struct Corpus<'a> {
    /// Its name in `fitness.corpora`.
    pub name: String,
    /// Its search text.
    pub text: FitnessText<Sampler<'a>>,
}

/// Scores candidates of one supernet.
pub struct Evaluator<'a> {
    population: Population<'a>,
    search: Sampler<'a>,
    corpora: Vec<Corpus<'a>>,
    objective: Objective,
    watch: &'a dyn Watch,
}

impl<'a> Evaluator<'a> {
    /// `search` draws from the search set, which KL and distances are measured on; `corpora` are those whose
    /// perplexity may be requested.
    ///
    /// # Errors
    /// The objective names a corpus that is not given.
    pub fn new(
        population: Population<'a>,
        search: Sampler<'a>,
        corpora: Vec<Corpus<'a>>,
        objective: Objective,
        watch: &'a dyn Watch,
    ) -> Result<Self> {
        let mut given = corpora;
        let corpora = objective.corpora().iter().map(|name| take(&mut given, name)).collect::<Result<_>>()?;
        Ok(Self { population, search, corpora, objective, watch })
    }

    /// What the objective wants of the search set, and −ln p where a corpus is the search set itself.
    fn on_search_set(&mut self, candidates: &[Candidate], draw: &Draw) -> Result<Vec<Measured>> {
        let is_search_set = |name: &str| {
            self.corpora.iter().any(|c| c.name == name && matches!(c.text, FitnessText::SearchSet))
        };
        let wanted = self.objective.on_search_set(is_search_set);
        measure(&mut self.population, &self.search, candidates, draw, &wanted, self.watch)
    }

    /// −ln p of every candidate on one corpus.
    fn on_corpus(
        &mut self,
        i: usize,
        shared: &[Measured],
        candidates: &[Candidate],
        draw: &Draw,
    ) -> Result<Vec<f64>> {
        let nll = |measured: &[Measured]| measured.iter().map(|m| m.nll).collect();
        let FitnessText::Own(sampler) = &self.corpora[i].text else { return Ok(nll(shared)) };
        let wanted = Wanted { nll: true, ..Wanted::default() };
        Ok(nll(&measure(&mut self.population, sampler, candidates, draw, &wanted, self.watch)?))
    }
}

impl Evaluate for Evaluator<'_> {
    fn checkpoint(&self) -> Result<()> {
        self.watch.checkpoint()
    }

    fn fitness(&mut self, candidates: &[Candidate], draw: &Draw) -> Result<Vec<f64>> {
        let measured = self.on_search_set(candidates, draw)?;
        let by_corpus = (0..self.corpora.len())
            .map(|i| self.on_corpus(i, &measured, candidates, draw))
            .collect::<Result<Vec<Vec<f64>>>>()?;
        let supernet = self.population.supernet();
        let one = |(i, candidate): (usize, &Candidate)| {
            let nll: Vec<f64> = by_corpus.iter().map(|each| each[i]).collect();
            let distribution = supernet.space().distribution(candidate);
            self.objective
                .value(supernet, &Evidence { measured: &measured[i], nll: &nll, distribution: &distribution })
        };
        candidates.iter().enumerate().map(one).collect()
    }
}

fn take<'a>(given: &mut Vec<Corpus<'a>>, name: &str) -> Result<Corpus<'a>> {
    let missing = || {
        Error::new(Kind::Spec, format!("the text of corpus \"{name}\" is not there")).at("fitness.corpora")
    };
    given.iter().position(|c| c.name == name).map(|i| given.swap_remove(i)).ok_or_else(missing)
}

/// Measures on the sequences of a draw; no measurement or no candidate costs nothing.
fn measure(
    population: &mut Population,
    sampler: &Sampler,
    candidates: &[Candidate],
    draw: &Draw,
    wanted: &Wanted,
    watch: &dyn Watch,
) -> Result<Vec<Measured>> {
    if candidates.is_empty() || *wanted == Wanted::default() {
        return Ok(vec![Measured::default(); candidates.len()]);
    }
    population.measure(candidates, sampler.search_set(), &sampler.sequences(draw)?, wanted, watch)
}
