//! The search step of a trial: what an evaluator is made of, and the record of every generation, from which a
//! stopped search resumes.

use std::path::{Path, PathBuf};

use super::prepare::Prepared;
use serde::{Deserialize, Serialize};

use crate::base::{Error, Kind, Result, ResultExt, Watch, files, hash};
use crate::data::FitnessText;
use crate::fitness::{Corpus, DenseStates, Evaluator, Objective, Population, Sampler};
use crate::search::{Ending, GenerationRecord, Mutations, Round, Search, Sensitivities, State};
use crate::space::Budget;
use crate::spec::Spec;
use crate::supernet::Supernet;
use crate::trial::{FOUND, Found, SENSITIVITIES};

/// One search of one supernet, and what it starts from.
pub(crate) struct Job<'a> {
    pub spec: &'a Spec,
    pub prepared: &'a Prepared,
    pub net: &'a Supernet<'a>,
    /// What every candidate keeps to.
    pub budget: Budget,
    /// Of the iteration, from 1.
    pub number: usize,
    /// What earlier searches of the trial computed of the dense model, and this one adds to.
    pub states: DenseStates,
}

impl Job<'_> {
    /// Measures what single changes cost, after what is in `folder` already; all of it is written there.
    ///
    /// # Errors
    /// Those of [`Sensitivities::run`].
    pub(crate) fn sensitivities(&self, folder: &Path, watch: &dyn Watch) -> Result<()> {
        let path = folder.join(SENSITIVITIES);
        let settings = &self.spec.search;
        let space = self.net.space().clone();
        let measuring = Sensitivities::new(space, self.budget.clone(), settings);
        let mut rounds = if path.exists() { read_rounds(&path).unwrap_or_default() } else { vec![] };
        let mut evaluator = self.evaluator(watch)?;
        let what = format!("sensitivities {}", self.number);
        watch.step(&what, measuring.candidates() as u64, || {
            watch.advance(measuring.done(&rounds) as u64);
            measuring.run(&mut rounds, &mut evaluator, |rounds, scored| {
                write_rounds(&path, rounds)?;
                watch.advance(scored as u64);
                watch.checkpoint()
            })
        })
    }

    /// Resumes the search after the generations in `folder`, where every generation and then the distribution
    /// found are written; gives all generations. It starts from what the last of `rounds` gives, if there are any.
    ///
    /// # Errors
    /// [`Kind::Search`] when the space has no legal flip; those of the evaluator.
    pub(crate) fn run(
        &self,
        rounds: Option<&[Round]>,
        folder: &Path,
        watch: &dyn Watch,
    ) -> Result<Vec<GenerationRecord>> {
        let search = self.search(rounds)?;
        let mut records = GenerationLog::at(folder).read(&search, watch)?;
        let mut evaluator = self.evaluator(watch)?;
        let generations = self.spec.search.generations as u64;
        let ended = watch.step(&format!("search {}", self.number), generations, || {
            self.evolve(&search, &mut evaluator, &mut records, folder, watch)
        });
        let state = ended?;
        if records.is_empty() {
            GenerationLog::at(folder).write(&records)?;
        }
        let found = Found {
            distribution: self.net.space().distribution(&state.parent),
            generations: state.generation,
        };
        files::write_json(&folder.join(FOUND), &found)?;
        Ok(records)
    }

    fn search(&self, rounds: Option<&[Round]>) -> Result<Search> {
        let settings = self.spec.search.clone();
        let space = self.net.space().clone();
        let last = rounds.and_then(<[Round]>::last);
        let start = last.and_then(Round::best).cloned().unwrap_or_else(|| space.start());
        let increases = last.filter(|_| settings.guided).map(|round| round.increases.clone());
        let mutations =
            Mutations { space, budget: self.budget.clone(), max_flips: settings.max_flips, increases };
        Search::new(mutations, start, settings, self.spec.seed, self.number)
    }

    fn evaluator<'b>(&'b self, watch: &'b dyn Watch) -> Result<Evaluator<'b>> {
        let spec = self.spec;
        let prepared = self.prepared;
        let sampler = |set| Sampler::new(set, spec.seed, self.number);
        let corpus =
            |(name, text): (&String, &'b FitnessText)| Corpus { name: name.clone(), text: text.map(sampler) };
        let corpora = prepared.sets.corpora.iter().map(corpus).collect();
        let objective =
            Objective::new(&spec.fitness, prepared.model.config(), spec.calibration.sequence_length)?;
        let population = Population::new(&prepared.model, self.net, self.states.clone());
        Evaluator::new(population, sampler(&prepared.sets.search), corpora, objective, watch)
    }

    /// The remaining generations, each written as it ends.
    fn evolve(
        &self,
        search: &Search,
        evaluator: &mut Evaluator,
        records: &mut Vec<GenerationRecord>,
        folder: &Path,
        watch: &dyn Watch,
    ) -> Result<State> {
        let start = records.iter().fold(search.start(), |state, record| state.after(record));
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

/// Rounds of sensitivities with the hash that shows damage.
#[derive(Serialize, Deserialize)]
struct StoredRounds {
    hash: String,
    rounds: Vec<Round>,
}

/// The rounds in a file.
///
/// # Errors
/// The file cannot be read, or is not what was written.
pub(crate) fn read_rounds(path: &Path) -> Result<Vec<Round>> {
    let stored: StoredRounds = files::read_json(path)?;
    if hash::of_json(&stored.rounds)? == stored.hash {
        return Ok(stored.rounds);
    }
    Err(Error::new(Kind::Disk, "the file is not what was written").at(path.display()))
}

fn write_rounds(path: &Path, rounds: &[Round]) -> Result<()> {
    files::write_json(path, &StoredRounds { hash: hash::of_json(&rounds)?, rounds: rounds.to_vec() })
}

fn no_flip() -> Error {
    Error::new(
        Kind::Search,
        "the search space has no legal flip: no module can give a level of sparsity to another of its kind",
    )
    .hint(
        "raise supernet.levels, change sparsity.target or prune.keep_at_least, or set search.generations = 0",
    )
}

/// A line of the log: a generation, and the hash that shows damage.
#[derive(Serialize, Deserialize)]
struct LoggedGeneration {
    hash: String,
    record: GenerationRecord,
}

/// The generation of a line, if it is what was written, follows `last` and keeps to the space and the budget.
fn verified(line: &[u8], last: &State, search: &Search) -> Option<GenerationRecord> {
    let LoggedGeneration { hash, record } = serde_json::from_slice(line).ok()?;
    let whole = hash::of_json(&record).ok()? == hash;
    let follows = record.generation == last.generation + 1 && record.parent == last.parent;
    (whole && follows && search.budget().allows_candidate(search.space(), &record.winner)).then_some(record)
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

    /// The generations from which the search can go on: those before the first damaged one.
    fn read(&self, search: &Search, watch: &dyn Watch) -> Result<Vec<GenerationRecord>> {
        if !self.path.exists() {
            return Ok(vec![]);
        }
        let bytes = std::fs::read(&self.path).map_err(|e| files::io_error(&self.path, "read", &e))?;
        let mut records: Vec<GenerationRecord> = Vec::new();
        let mut last = search.start();
        for line in bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            let Some(record) = verified(line, &last, search) else {
                let place = format!("{}:{}", self.path.display(), records.len() + 1);
                watch.note(&format!("{place} is damaged; the search resumes before it"));
                break;
            };
            last = last.after(&record);
            records.push(record);
        }
        Ok(records)
    }

    /// Written whole each time: a few hundred bytes per generation.
    fn write(&self, records: &[GenerationRecord]) -> Result<()> {
        let line = |record: &GenerationRecord| -> Result<String> {
            let logged = LoggedGeneration { hash: hash::of_json(record)?, record: record.clone() };
            let text = serde_json::to_string(&logged);
            Ok(text.or_error(Kind::Internal, "a generation cannot be written as JSON")? + "\n")
        };
        let lines = records.iter().map(line).collect::<Result<String>>()?;
        files::write(&self.path, lines.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Silent;
    use crate::runner::watched::Watched;
    use crate::space::{Candidate, Request, Shape, Space, UnitSpec, uniform};

    /// The search of a small space by the default settings.
    fn search(space: Space) -> Search {
        let settings = toml::from_str::<Spec>(crate::spec::defaults_toml()).unwrap().search;
        let start = space.start();
        let budget = Budget::units(&space.centre);
        let mutations = Mutations { space, budget, max_flips: 1, increases: None };
        Search::new(mutations, start, settings, 0, 1).unwrap()
    }

    fn space() -> Space {
        let attention = UnitSpec { units: 4, width: 4, parameters: 64 };
        let shape = Shape { layers: 2, attention, mlp: UnitSpec { units: 16, width: 1, parameters: 24 } };
        Space::around(shape, uniform(&shape, Request::Total(0.5)).unwrap(), [1, 2], 3).unwrap()
    }

    fn generation(number: usize, parent: Candidate, winner: Candidate) -> GenerationRecord {
        let fitness = Some(0.1 / number as f64);
        GenerationRecord {
            generation: number,
            parent,
            winner,
            parent_fitness: fitness,
            fitness,
            gain: None,
            offspring: 1,
            stages: vec![],
        }
    }

    #[test]
    fn rounds_are_read_back_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SENSITIVITIES);
        let around = space().start();
        let increases = vec![vec![Some(0.25), Some(0.0), None]];
        let round = Round { around, fitness: Some(0.5), tokens: 8, increases, outcome: None };
        write_rounds(&path, std::slice::from_ref(&round)).unwrap();
        assert_eq!(read_rounds(&path).unwrap(), [round]);
        let text = std::fs::read_to_string(&path).unwrap();
        for damage in [text.replace("0.25", "0.35"), text[..text.len() / 2].into(), String::new()] {
            std::fs::write(&path, damage).unwrap();
            assert!(read_rounds(&path).is_err());
        }
    }

    #[test]
    fn what_is_damaged_out_of_order_or_outside_of_the_space_is_left_out_with_all_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = GenerationLog::at(dir.path());
        let space = space();
        let start = space.start();
        let moved: Candidate = vec![1, 0, -1, 0];
        let good = [generation(1, start.clone(), moved.clone()), generation(2, moved.clone(), start.clone())];
        let read = || {
            let watched = Watched::new(&Silent, "t", None);
            (log.read(&search(space.clone()), &watched).unwrap(), watched.take_notes())
        };
        assert_eq!(read(), (vec![], vec![]));
        log.write(&good).unwrap();
        assert_eq!(read(), (good.to_vec(), vec![]));
        let text = std::fs::read_to_string(&log.path).unwrap();
        let first = text.lines().next().unwrap().to_string() + "\n";
        let damaged =
            [text.replace("[1,0,-1,0]", "[0,1,-1,0]"), text[..text.len() / 2].into(), "\u{fffd}".into()];
        for (damage, left) in damaged.into_iter().zip([0, usize::from(text.len() / 2 >= first.len()), 0]) {
            std::fs::write(&log.path, damage).unwrap();
            let (records, notes) = read();
            assert_eq!((records.as_slice(), notes.len()), (&good[..left], 1), "{notes:?}");
        }
        let wrong = [
            generation(2, moved.clone(), vec![9, 0, -9, 0]),
            generation(2, moved.clone(), vec![1, 0, 0, 0]),
            generation(3, moved.clone(), start.clone()),
            generation(2, start.clone(), moved.clone()),
        ];
        for last in wrong {
            log.write(&[good[0].clone(), last]).unwrap();
            assert_eq!(read().0, good[..1]);
        }
    }
}
