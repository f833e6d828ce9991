//! One trial from the dense model to the table: coarse to fine over the intervals, a supernet and a search
//! each.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::evaluate::{self, Measure, Measured};
use super::journal::Journal;
use super::prepare::Prepared;
use super::searching::{GenerationLog, Job, TeacherStates};
use super::store::{Entry, State, Store};
use super::watched::Watched;
use crate::base::meter::Meter;
use crate::base::{Error, Kind, Result, Watch, files};
use crate::eval;
use crate::model::{Model, Source};
use crate::plan::keys::{self, MANIFEST};
use crate::plan::{FOUND, Found};
use crate::prune;
use crate::report::Figure;
use crate::report::event::{Cache, Event, GenerationSummary};
use crate::schedule::{Iteration, schedule};
use crate::space::{Distribution, Space};
use crate::spec::{self, Accumulation, Spec, Trial};
use crate::supernet::{self, Supernet, compact::compact, storage_dtype};

/// Files of a measurement: its figures, and what the model made of each document.
const FIGURES: &str = "figures.json";
const SAMPLES: &str = "samples.json";

/// Runs one trial.
pub struct Pipeline<'a> {
    label: &'a str,
    spec: &'a Spec,
    home: &'a Path,
    store: &'a Store,
    journal: &'a mut Journal,
    watch: Watched<'a>,
    /// What the dense model made of each document, with which pruned models are compared.
    dense: Option<eval::Report>,
}

/// A supernet on disk with the address that names it in later keys.
struct Built {
    folder: PathBuf,
    address: String,
    space: Space,
}

impl<'a> Pipeline<'a> {
    /// Of `trial`, whose own files go to `home`.
    pub fn new(
        trial: &'a Trial,
        home: &'a Path,
        store: &'a Store,
        journal: &'a mut Journal,
        watch: &'a dyn Watch,
    ) -> Self {
        let watch = Watched::new(watch, &trial.label, journal.trial_log());
        Self { label: &trial.label, spec: &trial.spec, home, store, journal, watch, dense: None }
    }

    /// Dense, uniform, then iteration by iteration, and the refit of what was found.
    pub fn run(&mut self) -> Result<()> {
        let prepared = Prepared::new(self.spec, &self.watch)?;
        let mut distribution = prepared.uniform(self.spec)?;
        let iterations = schedule(&prepared.shape, &self.spec.supernet.intervals)?;
        self.measure_dense(&prepared)?;
        let mut teacher = TeacherStates::new();
        let mut last = None;
        for iteration in &iterations {
            self.announce(iteration)?;
            let built = self.supernet(&prepared, iteration, distribution.clone())?;
            if iteration.number == 1 {
                last = Some(self.measure("uniform", &prepared, &built, &distribution)?);
            }
            if self.spec.search.generations == 0 {
                break;
            }
            distribution = self.search(&prepared, iteration, &built, &mut teacher)?;
            last = Some(self.measure(
                &format!("iteration-{}", iteration.number),
                &prepared,
                &built,
                &distribution,
            )?);
        }
        if self.spec.supernet.refit {
            last = Some(self.refit(&prepared, &distribution)?);
        }
        self.keep(last, &distribution)
    }

    /// Tells what the schedule wants known.
    fn announce(&mut self, iteration: &Iteration) -> Result<()> {
        iteration.notes.iter().try_for_each(|note| {
            self.journal.emit(Event::Note { trial: Some(self.label.into()), message: note.clone() })
        })
    }

    /// Builds the supernet of an iteration around a distribution.
    fn supernet(
        &mut self,
        prepared: &Prepared,
        iteration: &Iteration,
        centre: Distribution,
    ) -> Result<Built> {
        let space = iteration.space(prepared.shape, centre, self.spec.supernet.levels)?;
        self.build(prepared, &iteration.number.to_string(), space, self.spec.supernet.accumulation)
    }

    /// Prunes once more at the distribution found, one level per module: each is fitted to what the modules
    /// before it really became, no longer to the mean over levels that the search needed.
    fn refit(&mut self, prepared: &Prepared, found: &Distribution) -> Result<PathBuf> {
        let space = Space::around(prepared.shape, found.clone(), [1, 1], 1)?;
        let built = self.build(prepared, "refit", space, Accumulation::Single)?;
        self.measure("refit", prepared, &built, found)
    }

    /// Builds the supernet of a space.
    fn build(
        &mut self,
        prepared: &Prepared,
        name: &str,
        space: Space,
        accumulation: Accumulation,
    ) -> Result<Built> {
        let dtype = storage_dtype(self.spec.model.dtype, &prepared.model)?;
        let options = supernet::Options {
            method: prune::method(&self.spec.prune),
            supernet: spec::Supernet { accumulation, ..self.spec.supernet.clone() },
            dtype,
            seed: self.spec.seed,
            name: name.to_string(),
        };
        let key = keys::supernet(&prepared.roots, &space, dtype, self.spec, accumulation, name)?;
        let entry = self.step(&format!("supernet-{name}"), "supernet", None, &key, |entry, watch| {
            let net = Supernet::at(&prepared.model, &entry.folder, space.clone());
            supernet::build(&prepared.model, &net, &prepared.sets.calibration, &options, watch)?;
            Ok(net.files())
        })?;
        Ok(Built { folder: entry.folder, address: entry.address, space })
    }

    /// Searches a supernet; every generation is stored as it ends.
    fn search(
        &mut self,
        prepared: &Prepared,
        iteration: &Iteration,
        built: &Built,
        teacher: &mut TeacherStates,
    ) -> Result<Distribution> {
        let key = keys::search(&prepared.roots, &built.address, self.spec, iteration.number);
        let net = Supernet::at(&prepared.model, &built.folder, built.space.clone());
        let job = Job { spec: self.spec, prepared, net: &net, number: iteration.number };
        let mut records = Vec::new();
        let entry =
            self.step(&format!("search-{}", iteration.number), "search", None, &key, |entry, watch| {
                records = job.run(teacher, &entry.folder, watch)?;
                Ok(vec![GenerationLog::NAME.into(), FOUND.into()])
            })?;
        for summary in records.iter().map(GenerationSummary::from) {
            self.journal.emit(Event::Generation {
                trial: self.label.into(),
                iteration: iteration.number,
                summary,
            })?;
        }
        let found: Found = files::read_json(&entry.folder.join(FOUND))?;
        Ok(found.distribution)
    }

    /// Makes the model of a distribution, recounts it and measures it; gives its folder.
    fn measure(
        &mut self,
        name: &str,
        prepared: &Prepared,
        built: &Built,
        distribution: &Distribution,
    ) -> Result<PathBuf> {
        let key = keys::compact(&built.address, distribution)?;
        let dtype = storage_dtype(self.spec.model.dtype, &prepared.model)?;
        let entry = self.step(&format!("compact-{name}"), "model", Some(name), &key, |entry, _| {
            let net = Supernet::at(&prepared.model, &built.folder, built.space.clone());
            compact(&prepared.model, &prepared.source, &net, distribution, dtype, &entry.folder)?;
            Ok(vec!["config.json".into(), "model.safetensors".into()])
        })?;
        let source = Source::folder(&entry.folder)?;
        let model = Model::open(&source, prepared.model.device())?;
        self.recount(&model, prepared, distribution)?;
        self.figure(name, &Measure::exact("parameters", model.checkpoint().parameters() as f64))?;
        self.figure(name, &Measure::exact("sparsity/asked", self.spec.sparsity.target))?;
        self.figure(name, &Measure::exact("sparsity", self.reached(&model, prepared, distribution)))?;
        let found = Event::DistributionFound {
            trial: self.label.into(),
            model: name.into(),
            shape: prepared.shape,
            distribution: distribution.clone(),
        };
        self.journal.emit(found)?;
        self.evaluations(name, &source.hash()?, &model, prepared)?;
        self.harness(name, &source, prepared)?;
        Ok(entry.folder)
    }

    /// The share that is really gone, of what the spec's target is a share of.
    fn reached(&self, model: &Model, prepared: &Prepared, distribution: &Distribution) -> f64 {
        match self.spec.sparsity.basis {
            crate::spec::Basis::Prunable => distribution.sparsity(&prepared.shape),
            crate::spec::Basis::Total => {
                1.0 - model.checkpoint().parameters() as f64 / prepared.model.checkpoint().parameters() as f64
            }
        }
    }

    /// Counts what the file holds against what the distribution says.
    fn recount(&self, model: &Model, prepared: &Prepared, distribution: &Distribution) -> Result<()> {
        let dense = prepared.model.config();
        let small = model.config();
        for (l, layer) in small.layers.iter().enumerate() {
            let lost = [
                (dense.heads - layer.heads()) * dense.head_width / prepared.shape.attention.width,
                dense.neurons - layer.intermediate_size,
            ];
            if lost != distribution.removed[2 * l..2 * l + 2] {
                return Err(Error::new(
                    Kind::Internal,
                    format!(
                        "layer {l} of the smaller model lost {lost:?} units, the distribution says otherwise"
                    ),
                ));
            }
        }
        if model.checkpoint().parameters() != small.parameters().total() {
            return Err(Error::new(
                Kind::Internal,
                "the smaller model's file does not hold the parameters that its shapes say",
            ));
        }
        Ok(())
    }

    fn measure_dense(&mut self, prepared: &Prepared) -> Result<()> {
        self.figure("dense", &Measure::exact("parameters", prepared.model.checkpoint().parameters() as f64))?;
        self.figure("dense", &Measure::exact("sparsity", 0.0))?;
        let measures = self.evaluations("dense", &prepared.roots.model, &prepared.model, prepared)?;
        for warning in evaluate::against_published(&prepared.model, self.spec, &measures)? {
            self.watch.say(&warning);
            self.warn(warning)?;
        }
        self.harness("dense", &prepared.source, prepared)
    }

    /// The harness's view of a model, where the spec asks for it.
    fn harness(&mut self, name: &str, source: &Source, prepared: &Prepared) -> Result<()> {
        let spec = self.spec;
        let Some(settings) = &spec.evaluate.lm_eval else { return Ok(()) };
        let Some(key) = keys::harness(&source.hash()?, spec) else { return Ok(()) };
        self.evaluation("lm_eval", name, &key, |watch| {
            let model = Arc::new(Model::open(source, prepared.model.device())?);
            evaluate::on_harness(source, model, settings, spec, watch)
        })?;
        self.journal.publish()
    }

    /// Perplexities, divergence and tasks of a model; gives their figures.
    fn evaluations(
        &mut self,
        name: &str,
        hash: &str,
        model: &Model,
        prepared: &Prepared,
    ) -> Result<Vec<Measure>> {
        let spec = self.spec;
        let mut all = Vec::new();
        for (corpus, set) in &prepared.sets.evaluation {
            let what = format!("perplexity/{corpus}");
            let key = keys::perplexity(hash, corpus, &set.0.hash());
            all.extend(
                self.evaluation(&what, name, &key, |watch| {
                    Ok(evaluate::on_corpus(model, corpus, set, watch)?.into())
                })?
                .0,
            );
        }
        let first = spec.evaluate.perplexity.first().and_then(|c| prepared.sets.evaluation.get(c));
        if let Some(set) = first.filter(|_| spec.evaluate.kl_tokens > 0 && name != "dense") {
            let tokens = spec.evaluate.kl_tokens;
            let key = keys::kl(hash, &prepared.roots.model, &set.0.hash(), spec);
            self.evaluation("kl", name, &key, |watch| {
                Ok(evaluate::from_dense(model, &prepared.model, set, tokens, watch)?.into())
            })?;
        }
        if !spec.evaluate.tasks.is_empty() {
            all.extend(self.tasks(name, hash, model, prepared)?);
        }
        self.journal.publish()?;
        Ok(all)
    }

    /// Tasks of a model, and for a pruned one the paired differences to the dense one, which was evaluated
    /// first.
    fn tasks(&mut self, name: &str, hash: &str, model: &Model, prepared: &Prepared) -> Result<Vec<Measure>> {
        let spec = self.spec;
        let key = keys::tasks(&prepared.roots, hash, spec);
        let (measures, entry) = self.evaluation("tasks", name, &key, |watch| {
            evaluate::on_tasks(model, &prepared.tokenizer, spec, watch)
        })?;
        let report: eval::Report = files::read_json(&entry.folder.join(SAMPLES))?;
        match &self.dense {
            Some(dense) if name != "dense" => {
                evaluate::beside_dense(dense, &report)?.iter().try_for_each(|m| self.figure(name, m))?;
            }
            _ => self.dense = Some(report),
        }
        Ok(measures)
    }

    /// One stored measurement.
    fn evaluation(
        &mut self,
        what: &str,
        model: &str,
        key: &serde_json::Value,
        measure: impl FnOnce(&dyn Watch) -> Result<Measured>,
    ) -> Result<(Vec<Measure>, Entry)> {
        let step = format!("{}-{model}", what.replace('/', "-"));
        let mut effort = None;
        let entry = self.step(&step, "evaluate", Some(model), key, |entry, watch| {
            let measured = measure(watch)?;
            effort = measured.effort;
            files::write_json(&entry.folder.join(FIGURES), &measured.measures)?;
            let Some(report) = measured.report else { return Ok(vec![FIGURES.into()]) };
            files::write_json(&entry.folder.join(SAMPLES), &report)?;
            Ok(vec![FIGURES.into(), SAMPLES.into()])
        })?;
        if let Some(effort) = effort {
            self.tell(format!("{model}: {effort}"))?;
        }
        let measures: Vec<Measure> = files::read_json(&entry.folder.join(FIGURES))?;
        measures.iter().try_for_each(|m| self.figure(model, m))?;
        Ok((measures, entry))
    }

    fn figure(&mut self, model: &str, m: &Measure) -> Result<()> {
        let figure = Figure {
            trial: self.label.into(),
            model: model.into(),
            metric: m.metric.clone(),
            value: m.value,
            stderr: m.stderr,
            n: m.n,
        };
        self.journal.emit(Event::FigureMeasured { figure })
    }

    /// Gives a step's result from the store, or makes it: `work` fills the entry and names its files.
    fn step(
        &mut self,
        step: &str,
        kind: &str,
        model: Option<&str>,
        key: &serde_json::Value,
        work: impl FnOnce(&Entry, &dyn Watch) -> Result<Vec<String>>,
    ) -> Result<Entry> {
        self.watch.checkpoint()?;
        let entry = self.store.entry(kind, key)?;
        let cache = if self.is_finished(&entry)? { Cache::Hit } else { Cache::Miss };
        let meter = Meter::start();
        if cache == Cache::Miss {
            self.journal.emit(Event::StepStarted {
                trial: self.label.into(),
                step: step.into(),
                key: entry.address.clone(),
            })?;
            let made = work(&entry, &self.watch);
            self.watch.take_notes().into_iter().try_for_each(|note| self.warn(note))?;
            entry.finish(kind, &made?, meter.so_far())?;
        }
        let cost = meter.stop();
        self.journal.emit(Event::StepFinished {
            trial: self.label.into(),
            model: model.map(Into::into),
            step: step.into(),
            key: entry.address.clone(),
            cache,
            seconds: cost.seconds,
            peak_bytes: cost.peak_bytes,
        })?;
        Ok(entry)
    }

    /// Whether an entry can be used; a damaged one is opened again, with a warning.
    fn is_finished(&mut self, entry: &Entry) -> Result<bool> {
        let state = entry.state();
        if let State::Damaged(e) = &state {
            self.warn(format!("{e}; it is made anew"))?;
            entry.reopen()?;
        }
        Ok(matches!(state, State::Finished))
    }

    /// Shows and logs something that changes nothing: it stays out of the tables.
    fn tell(&mut self, message: String) -> Result<()> {
        self.watch.say(&message);
        self.journal.emit(Event::Note { trial: Some(self.label.into()), message })
    }

    fn warn(&mut self, message: String) -> Result<()> {
        self.journal.emit(Event::Warning { trial: Some(self.label.into()), message })
    }

    /// Puts the last model and its distribution where users look for them.
    fn keep(&mut self, folder: Option<PathBuf>, distribution: &Distribution) -> Result<()> {
        files::write_json(&self.home.join("distribution.json"), distribution)?;
        match folder {
            Some(folder) => link_model(&folder, &self.home.join("model")),
            None => Ok(()),
        }
    }
}

/// The same files under another name: linked where the file system can, else copied. The configuration comes
/// last.
fn link_model(from: &Path, to: &Path) -> Result<()> {
    files::create_dir(to)?;
    let mut names: Vec<_> = std::fs::read_dir(from)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| files::io_error(from, "list", &e))?;
    names
        .retain(|n| ![MANIFEST, "key.json", "cost.json"].contains(&n.file_name().to_string_lossy().as_ref()));
    names.sort_by_key(|n| (n.file_name() == "config.json", n.file_name()));
    for name in names {
        let target = to.join(name.file_name());
        place(&name.path(), &target).map_err(|e| files::io_error(&target, "place", &e))?;
    }
    Ok(())
}

/// Links or copies a file to a name, whole. A rename between two names of one file does nothing, so the
/// temporary name is removed both before, lest a copy write through an old link, and after.
fn place(from: &Path, to: &Path) -> std::io::Result<()> {
    let partial = to.with_extension(format!("{}.partial", std::process::id()));
    let remove = || match std::fs::remove_file(&partial) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    };
    remove()?;
    std::fs::hard_link(from, &partial).or_else(|_| std::fs::copy(from, &partial).map(drop))?;
    std::fs::rename(&partial, to)?;
    remove()
}
