//! The search step of a trial: what an evaluator is made of, and the record of every generation, from which a
//! stopped search resumes.

use std::path::{Path, PathBuf};

use super::prepare::Prepared;
use crate::base::{Error, Kind, Result, ResultExt, Watch, files};
use crate::data::FitnessText;
use crate::fitness::{Corpus, CorpusText, DenseStates, Evaluator, Objective, Population, Sampler};
use crate::search::{Ending, GenerationRecord, Search, State};
use crate::spec::Spec;
use crate::supernet::Supernet;
use crate::trial::{FOUND, Found};

/// One search of one supernet.
pub(crate) struct Job<'a> {
    pub spec: &'a Spec,
    pub prepared: &'a Prepared,
    pub net: &'a Supernet<'a>,
    /// Of the iteration, from 1.
    pub number: usize,
    /// What earlier searches of the trial computed of the dense model, and this one adds to.
    pub states: &'a DenseStates,
}

impl Job<'_> {
    /// Resumes the search after the generations in `folder`, where every generation and then the distribution
    /// found are written; gives all generations.
    ///
    /// # Errors
    /// [`Kind::Search`] when the space has no legal flip; those of the evaluator.
    pub(crate) fn run(&self, folder: &Path, watch: &dyn Watch) -> Result<Vec<GenerationRecord>> {
        let mut records = GenerationLog::at(folder).read()?;
        let mut evaluator = self.evaluator(watch)?;
        let generations = self.spec.search.generations as u64;
        let ended = watch.step(&format!("search {}", self.number), generations, || {
            self.evolve(&mut evaluator, &mut records, folder, watch)
        });
        let state = ended?;
        let found = Found {
            distribution: self.net.space().distribution(&state.parent),
            generations: state.generation,
        };
        files::write_json(&folder.join(FOUND), &found)?;
        Ok(records)
    }

    fn evaluator<'b>(&'b self, watch: &'b dyn Watch) -> Result<Evaluator<'b>> {
        let spec = self.spec;
        let prepared = self.prepared;
        let sampler = |set| Sampler::new(set, spec.seed, self.number);
        let corpus = |(name, text): (&String, &'b FitnessText)| {
            let text = match text {
                FitnessText::SearchSet => CorpusText::SearchSet,
                FitnessText::Own(set) => CorpusText::Own(sampler(set)),
            };
            Corpus { name: name.clone(), text }
        };
        let corpora = prepared.sets.corpora.iter().map(corpus).collect();
        let objective =
            Objective::new(&spec.fitness, prepared.model.config(), spec.calibration.sequence_length)?;
        let population = Population::new(&prepared.model, self.net, self.states.clone());
        Evaluator::new(population, sampler(&prepared.sets.search), corpora, objective, watch)
    }

    /// The remaining generations, each written as it ends.
    fn evolve(
        &self,
        evaluator: &mut Evaluator,
        records: &mut Vec<GenerationRecord>,
        folder: &Path,
        watch: &dyn Watch,
    ) -> Result<State> {
        let search =
            Search::new(self.net.space().clone(), self.spec.search.clone(), self.spec.seed, self.number)?;
        let start = records.last().map_or_else(|| search.start(), GenerationRecord::state);
        watch.advance(records.len() as u64);
        let (state, ending) = search.run(start, evaluator, |record| {
            records.push(record.clone());
            GenerationLog::at(folder).write(records)?;
            watch.advance(1);
            watch.checkpoint()
        })?;
        match ending {
            Ending::NoFlip if records.is_empty() => Err(no_flip()),
            _ => Ok(state),
        }
    }
}

fn no_flip() -> Error {
    Error::new(
        Kind::Search,
        "the search space has no legal flip: no module can give a level of sparsity to another of its kind",
    )
    .hint("raise supernet.levels, change sparsity.target, or set search.generations = 0")
}

/// The generations of one search, one JSON line each.
pub(crate) struct GenerationLog {
    path: PathBuf,
}

impl GenerationLog {
    /// Its file in the step's folder.
    pub(crate) const NAME: &'static str = "generations.jsonl";

    fn at(folder: &Path) -> Self {
        Self { path: folder.join(Self::NAME) }
    }

    fn read(&self) -> Result<Vec<GenerationRecord>> {
        if !self.path.exists() {
            return Ok(vec![]);
        }
        let text = files::read_text(&self.path)?;
        text.lines()
            .map(|l| {
                serde_json::from_str(l)
                    .or_error(Kind::Disk, "not a generation")
                    .map_err(|e| e.at(self.path.display()))
            })
            .collect()
    }

    /// Written whole each time: a few hundred bytes per generation.
    fn write(&self, records: &[GenerationRecord]) -> Result<()> {
        let lines = records
            .iter()
            .map(serde_json::to_string)
            .collect::<Result<Vec<_>, _>>()
            .or_error(Kind::Internal, "a generation cannot be written as JSON")?;
        files::write(&self.path, (lines.join("\n") + "\n").as_bytes())
    }
}
