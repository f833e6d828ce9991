//! The search's evaluator: draws a stage's tokens, measures the population on them, and lets the objective
//! make one number of it.

use super::draw::Sampler;
use super::objective::{Evidence, Objective};
use super::population::{Measured, Population, Readings, Wanted};
use crate::base::{Error, Kind, Result, Watch};
use crate::data::FitnessText;
use crate::search::{Draw, Evaluate, Score};
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
    /// Whether the fitness is a mean over sequences.
    mean: bool,
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
        let mean = objective.is_mean();
        Ok(Self { population, search, corpora, objective, mean, watch })
    }

    /// What the objective wants of the search set, and −ln p where a corpus is the search set itself.
    fn on_search_set(&mut self, candidates: &[Candidate], draw: &Draw) -> Result<Vec<Readings>> {
        let is_search_set = |name: &str| {
            self.corpora.iter().any(|c| c.name == name && matches!(c.text, FitnessText::SearchSet))
        };
        let wanted = self.objective.on_search_set(is_search_set);
        measure(&mut self.population, &self.search, candidates, draw, &wanted, self.watch)
    }

    /// −ln p of every candidate on one corpus; none where it is the search set itself.
    fn on_corpus(
        &mut self,
        i: usize,
        candidates: &[Candidate],
        draw: &Draw,
    ) -> Result<Option<Vec<Readings>>> {
        let FitnessText::Own(sampler) = &self.corpora[i].text else { return Ok(None) };
        let wanted = Wanted { nll: true, ..Wanted::default() };
        measure(&mut self.population, sampler, candidates, draw, &wanted, self.watch).map(Some)
    }

    /// What one candidate scores, given what was read of it on the search set and on each corpus.
    fn one(&mut self, candidate: &Candidate, read: &Readings, corpora: &[&Readings]) -> Result<Score> {
        let supernet = self.population.supernet();
        let distribution = &supernet.space().distribution(candidate);
        let mut value = |measured: &Measured, nll: &[f64]| {
            self.objective.value(supernet, &Evidence { measured, nll, distribution })
        };
        let nll: Vec<f64> = corpora.iter().map(|each| each.all.nll).collect();
        let fitness = value(&read.all, &nll)?;
        let sequences = std::iter::once(read).chain(corpora.iter().copied()).map(|r| r.sequences.len());
        let sequences = if self.mean { sequences.max().unwrap_or(0) } else { 0 };
        let nothing = Measured::default();
        let one = |s: usize| {
            let nll: Vec<f64> = corpora.iter().map(|each| each.sequences[s].nll).collect();
            value(read.sequences.get(s).unwrap_or(&nothing), &nll)
        };
        Ok(Score { fitness, sequences: (0..sequences).map(one).collect::<Result<_>>()? })
    }
}

impl Evaluate for Evaluator<'_> {
    fn checkpoint(&self) -> Result<()> {
        self.watch.checkpoint()
    }

    fn sequence_length(&self) -> Option<usize> {
        self.mean.then(|| self.search.set().length)
    }

    fn score(&mut self, candidates: &[Candidate], draw: &Draw) -> Result<Vec<Score>> {
        let read = self.on_search_set(candidates, draw)?;
        let corpora = (0..self.corpora.len())
            .map(|i| self.on_corpus(i, candidates, draw))
            .collect::<Result<Vec<Option<Vec<Readings>>>>>()?;
        let one = |(i, candidate): (usize, &Candidate)| {
            let corpora: Vec<&Readings> =
                corpora.iter().map(|own| own.as_ref().map_or(&read[i], |own| &own[i])).collect();
            self.one(candidate, &read[i], &corpora)
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
) -> Result<Vec<Readings>> {
    if candidates.is_empty() || *wanted == Wanted::default() {
        return Ok(vec![Readings::default(); candidates.len()]);
    }
    population.measure(candidates, sampler.search_set(), &sampler.sequences(draw)?, wanted, watch)
}
