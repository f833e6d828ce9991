//! One trial from the dense model to the table: every step that [`walk`] calls is executed, or its result
//! taken from the store.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::engine::Engine;
use super::evaluate::Measured;
use super::exporting::{self, Exporting};

use super::measure::{self, OpenedModel, Recorder};
use super::prepare::Prepared;
use super::recount::recount;
use super::searching::{self, GenerationLog, Job};
use super::store::Entry;
use super::winner;
use crate::base::{Result, Watch, files};
use crate::bench::Latencies;
use crate::bench::modules::Timed;
use crate::data::EvaluationSet;
use crate::eval;
use crate::export;
use crate::fitness::DenseStates;
use crate::model::provenance::Provenance;
use crate::model::{Config, Model, Source};
use crate::prune;
use crate::report::event::{Event, GenerationSummary};
use crate::report::{Card, Figure, Metric};
use crate::schedule::Iteration;
use crate::search::Round;
use crate::space::{Budget, Space, SparsityDistribution};
use crate::spec::{self, Form, Spec};
use crate::supernet::{self, Supernet, compact::compact, storage_dtype};
use crate::trial::{
    self, Build, Evaluation, FOUND, Found, InputHashes, LATENCIES, ModelName, Outcome, SENSITIVITIES,
    Searched, Sizing, StepName, Steps, keys, walk,
};

/// Files of a measurement: its figures, and what the model made of each document.
const FIGURES: &str = "figures.json";
const SAMPLES: &str = "samples.json";

/// The folder inside a step's own that timed models lie in meanwhile.
const TIMED: &str = "timed";

/// File of an export: what is not as in the model.
const NOTES: &str = "notes.json";

/// A trial that is being run.
pub(crate) struct Pipeline<'a> {
    engine: Engine<'a>,
    spec: &'a Spec,
    /// The folder of the experiment's file.
    place: &'a Path,
    /// The trial's own folder.
    home: &'a Path,
    prepared: &'a Prepared,
    /// What modules take by their sizes, where sparsity is a share of time and they were timed.
    latencies: Option<Latencies>,
    /// The dense model's hidden states, which all searches of the trial share.
    states: DenseStates,
    /// What the dense model made of each document, with which pruned models are compared.
    dense: Option<eval::Report>,
}

/// A supernet on disk with the address that names it in later keys.
pub(crate) struct Built {
    folder: PathBuf,
    address: String,
    space: Space,
}

/// What single changes in a supernet cost, with the address that names it in later keys.
pub struct Sensed {
    address: String,
    /// Where it is stored.
    pub file: PathBuf,
    /// The levels of every module.
    pub space: Space,
    /// What was measured.
    pub rounds: Vec<Round>,
}

/// A model on disk; without an entry of the store it is the dense one.
pub(crate) struct ModelOnDisk {
    name: ModelName,
    entry: Option<Entry>,
    /// Of its files.
    hash: String,
}

impl Built {
    fn open<'m>(&self, model: &'m Model) -> Supernet<'m> {
        Supernet::at(model, &self.folder, self.space.clone())
    }
}

impl Steps for Pipeline<'_> {
    type Distribution = SparsityDistribution;
    type Supernet = Built;
    type Sensitivities = Sensed;
    type Model = ModelOnDisk;

    fn latencies(&mut self) -> Result<Latencies> {
        let prepared = self.prepared;
        let dtype = storage_dtype(self.spec.model.dtype, &prepared.model)?;
        let key = keys::latencies(&prepared.input_hashes, dtype, self.spec);
        let unit = self.spec.prune.unit.attention;
        let timed = Timed { model: &prepared.model, unit, dtype, pass: self.spec.sparsity.latency };
        let entry = self.engine.step(&StepName::Latencies, &key, |entry, watch| {
            let latencies = timed.measure(&entry.folder.join(TIMED), watch)?;
            files::write_json(&entry.folder.join(LATENCIES), &latencies)?;
            Ok(vec![LATENCIES.into()])
        })?;
        let latencies: Latencies = files::read_json(&entry.folder.join(LATENCIES))?;
        self.engine.note(latencies.summary(&prepared.shape))?;
        latencies.foreign().map_or(Ok(()), |warning| self.engine.warn(warning))?;
        self.latencies = Some(latencies.clone());
        Ok(latencies)
    }

    fn dense(&mut self) -> Result<ModelOnDisk> {
        let name = ModelName::Dense;
        let parameters = self.prepared.model.checkpoint().parameters() as f64;
        self.engine.figure(name, Figure::exact(Metric::Parameters, parameters))?;
        self.engine.figure(name, Figure::exact(Metric::Sparsity, 0.0))?;
        Ok(ModelOnDisk { name, entry: None, hash: self.prepared.input_hashes.model.clone() })
    }

    fn start(&mut self, uniform: SparsityDistribution) -> Result<SparsityDistribution> {
        Ok(uniform)
    }

    /// Reports the schedule's notes.
    fn begin(&mut self, iteration: &Iteration) -> Result<()> {
        iteration.notes.iter().try_for_each(|note| self.engine.note(note.clone()))
    }

    fn supernet(&mut self, build: &Build, centre: &SparsityDistribution) -> Result<Built> {
        let prepared = self.prepared;
        let space = build.space(prepared.shape, centre.clone())?;
        let dtype = storage_dtype(self.spec.model.dtype, &prepared.model)?;
        let accumulation = build.accumulation;
        let options = supernet::Options {
            method: prune::method(&self.spec.prune),
            supernet: spec::Supernet { accumulation, ..self.spec.supernet.clone() },
            dtype,
            seed: self.spec.seed,
            name: build.name.to_string(),
            head_groups: build.head_groups(),
        };
        let key = keys::supernet(&prepared.input_hashes, &space, dtype, self.spec, build)?;
        let entry = self.engine.step(&StepName::Supernet(build.name), &key, |entry, watch| {
            let net = Supernet::at(&prepared.model, &entry.folder, space.clone());
            supernet::build(&prepared.model, &net, &prepared.sets.calibration, &options, watch)?;
            Ok(net.files())
        })?;
        Ok(Built { folder: entry.folder, address: entry.address, space })
    }

    /// What is measured is stored every few modules.
    fn sensitivities(&mut self, iteration: &Searched<Built, SparsityDistribution>) -> Result<Sensed> {
        let prepared = self.prepared;
        let &Searched { number, supernet: built, budget, .. } = iteration;
        let key = keys::sensitivities(&prepared.input_hashes, &built.address, budget, self.spec, number)?;
        let net = built.open(&prepared.model);
        let job = self.job(prepared, &net, budget, number);
        let entry = self.engine.step(&StepName::Sensitivities(number), &key, |entry, watch| {
            job.sensitivities(&entry.folder, watch)?;
            Ok(vec![SENSITIVITIES.into()])
        })?;
        let file = entry.folder.join(SENSITIVITIES);
        let rounds = searching::read_rounds(&file)?;
        Ok(Sensed { address: entry.address, file, space: built.space.clone(), rounds })
    }

    /// Every generation is stored as it ends.
    fn search(
        &mut self,
        iteration: &Searched<Built, SparsityDistribution>,
        start: Option<&Sensed>,
    ) -> Result<SparsityDistribution> {
        let prepared = self.prepared;
        let hashes = &prepared.input_hashes;
        let &Searched { number, supernet: built, budget, .. } = iteration;
        let from = start.map(|sensed| sensed.address.as_str());
        let key = keys::search(hashes, &built.address, from, budget, self.spec, number)?;
        let net = built.open(&prepared.model);
        let job = self.job(prepared, &net, budget, number);
        let mut records = Vec::new();
        let entry = self.engine.step(&StepName::Search(number), &key, |entry, watch| {
            records = job.run(start.map(|sensed| sensed.rounds.as_slice()), &entry.folder, watch)?;
            Ok(vec![GenerationLog::NAME.into(), FOUND.into()])
        })?;
        for summary in records.iter().map(GenerationSummary::from) {
            self.engine.emit(|trial| Event::Generation { trial, iteration: number, summary })?;
        }
        let found: Found = files::read_json(&entry.folder.join(FOUND))?;
        Ok(found.distribution)
    }

    /// Makes the model and recounts it.
    fn compact(&mut self, name: ModelName, built: &Built, of: &SparsityDistribution) -> Result<ModelOnDisk> {
        let prepared = self.prepared;
        let key = keys::compact(&prepared.input_hashes, &built.address, of)?;
        let dtype = storage_dtype(self.spec.model.dtype, &prepared.model)?;
        let entry = self.engine.step(&StepName::Compact(name), &key, |entry, _| {
            let net = built.open(&prepared.model);
            compact(&prepared.model, &prepared.source, &net, of, dtype, &entry.folder)
        })?;
        let source = Source::folder(&entry.folder)?;
        let model = Model::open(&source, prepared.model.device())?;
        recount(&model, prepared, of)?;
        self.describe(name, &model, of)?;
        Ok(ModelOnDisk { name, entry: Some(entry), hash: source.hash()? })
    }

    fn evaluate(&mut self, of: &ModelOnDisk, evaluations: &[Evaluation]) -> Result<()> {
        match &of.entry {
            None => {
                let prepared = self.prepared;
                let model = prepared.model.clone();
                self.dense = self.measure(of.name, &prepared.source, model, of.hash.clone(), evaluations)?;
            }
            Some(entry) => {
                let source = Source::folder(&entry.folder)?;
                let model = Arc::new(Model::open(&source, self.prepared.model.device())?);
                self.measure(of.name, &source, model, of.hash.clone(), evaluations)?;
            }
        }
        Ok(())
    }

    /// Puts it where users look for it, before anything else can fail.
    fn keep(&mut self, of: &ModelOnDisk, distribution: &SparsityDistribution) -> Result<()> {
        if let Some(entry) = &of.entry {
            let source = Source::folder(&entry.folder)?;
            let config = Config::parse(&source.text("config.json")?)?;
            let names = entry.names()?;
            let card = self.card(of.name, Form::Hf, &config, &names, &[])?;
            winner::publish(&self.home.join(winner::MODEL), entry, &names, &card)?;
        }
        winner::keep(self.home, distribution)
    }

    /// Without pruning, the dense model is exported.
    fn export(&mut self, of: &ModelOnDisk, form: Form) -> Result<()> {
        let prepared = self.prepared;
        let source = match &of.entry {
            None => prepared.source.clone(),
            Some(entry) => Source::folder(&entry.folder)?,
        };
        let key = keys::export(&prepared.input_hashes, &of.hash, form, self.spec);
        let spec = self.spec;
        let options = export::Options::of(self.spec);
        let entry = self.engine.step(&StepName::Export(form, of.name), &key, |entry, watch| {
            let model = Model::open(&source, prepared.model.device())?;
            let text = held_out(spec, prepared)?;
            let exporting = Exporting { model: &model, source: &source, text: &text };
            let compared = exporting.export(form, &options, &entry.folder, watch)?;
            compared.exported.notes.iter().for_each(|note| watch.note(&format!("export to {form}: {note}")));
            files::write_json(&entry.folder.join(FIGURES), &compared.figures(form))?;
            files::write_json(&entry.folder.join(NOTES), &compared.exported.notes)?;
            Ok([compared.exported.files, vec![FIGURES.into(), NOTES.into()]].concat())
        })?;
        let figures: Vec<Figure> = files::read_json(&entry.folder.join(FIGURES))?;
        figures.into_iter().try_for_each(|figure| self.engine.figure(of.name, figure))?;
        let own = [FIGURES, NOTES];
        let files: Vec<String> =
            entry.names()?.into_iter().filter(|name| !own.contains(&name.as_str())).collect();
        let notes: Vec<String> = files::read_json(&entry.folder.join(NOTES))?;
        let written = export::written(&Config::parse(&source.text("config.json")?)?, form, &options)?;
        let card = self.card(of.name, form, &written, &files, &notes)?;
        winner::publish(&self.home.join(winner::EXPORTS).join(form.name()), &entry, &files, &card)
    }
}

impl<'a> Pipeline<'a> {
    /// Of a trial of an experiment that lies in `place`; the trial's own files go to `home`.
    pub(crate) fn new(
        engine: Engine<'a>,
        spec: &'a Spec,
        place: &'a Path,
        home: &'a Path,
        prepared: &'a Prepared,
    ) -> Result<Self> {
        let states = DenseStates::default();
        Ok(Self { engine, spec, place, home, prepared, latencies: None, states, dense: None })
    }

    /// Runs the trial to its end.
    ///
    /// # Errors
    /// Those of its steps.
    pub(crate) fn run(&mut self) -> Result<()> {
        let Outcome { model, distribution } = walk(self.spec, self.prepared.model.config(), self)?;
        // Once more: its card tells all figures now.
        self.keep(&model, &distribution)
    }

    /// Measures what single changes cost in the first supernet, whatever the search starts from.
    ///
    /// # Errors
    /// Those of the steps.
    pub(crate) fn sense(&mut self) -> Result<Sensed> {
        trial::sensitivities(self.spec, self.prepared.model.config(), self)
    }

    fn job<'j>(
        &self,
        prepared: &'a Prepared,
        net: &'j Supernet<'j>,
        budget: &Budget,
        number: usize,
    ) -> Job<'j>
    where
        'a: 'j,
    {
        Job { spec: self.spec, prepared, net, budget: budget.clone(), number, states: self.states.clone() }
    }

    /// The card of a stored model in a form, in which paths count from the experiment's folder; `config` has the
    /// sizes that lie in `files`.
    fn card(
        &self,
        name: ModelName,
        form: Form,
        config: &Config,
        files: &[String],
        notes: &[String],
    ) -> Result<String> {
        let spec = self.spec.relative_to(self.place);
        let dense = &spec.model.source;
        let card = Card {
            title: format!("{}: {name}", self.engine.title()),
            source: dense,
            provenance: &Provenance::of(&self.prepared.source, dense)?,
            form,
            notes,
            config,
            files,
            dense: Some(self.prepared.model.config()),
            rows: self.engine.rows(&[ModelName::Dense, name]),
            compared_on: Some(format!("the start of {}", exporting::text_name(&spec))),
            spec: Some(&spec.to_toml()?),
        };
        Ok(card.text())
    }

    /// Tells the size of a smaller model and what it keeps.
    fn describe(
        &mut self,
        name: ModelName,
        model: &Model,
        distribution: &SparsityDistribution,
    ) -> Result<()> {
        let sparsity = &self.spec.sparsity;
        let parameters = [&self.prepared.model, model].map(|model| model.checkpoint().parameters());
        let sizing = Sizing::new(self.spec, self.prepared.model.config(), self.latencies.as_ref());
        let reached = sizing.reached(model.config(), distribution, parameters)?;
        let figures = [
            (Metric::Parameters, model.checkpoint().parameters() as f64),
            (Metric::AskedSparsity, sparsity.target),
            (Metric::Sparsity, reached),
        ];
        for (metric, value) in figures {
            self.engine.figure(name, Figure::exact(metric, value))?;
        }
        let model = name.to_string();
        let shape = self.prepared.shape;
        let distribution = distribution.clone();
        self.engine.emit(|trial| Event::DistributionFound { trial, model, shape, distribution })
    }

    /// Measures a model, whose files have a hash, and keeps the measurements; gives what it made of each
    /// document of the tasks.
    fn measure(
        &mut self,
        name: ModelName,
        source: &Source,
        model: Arc<Model>,
        hash: String,
        evaluations: &[Evaluation],
    ) -> Result<Option<eval::Report>> {
        let prepared = self.prepared;
        let opened = OpenedModel {
            source,
            model,
            tokenizer: &prepared.tokenizer,
            texts: &prepared.sets.evaluation,
            dense: Some((&prepared.source, &prepared.model)),
            dense_report: self.dense.as_ref(),
        };
        let engine = &mut self.engine;
        let mut kept = Kept { engine, spec: self.spec, input_hashes: &prepared.input_hashes, name, hash };
        measure::measure(&opened, self.spec, evaluations, &mut kept)
    }
}

/// The text that exports are compared on.
fn held_out<'a>(spec: &Spec, prepared: &'a Prepared) -> Result<Cow<'a, EvaluationSet>> {
    let read = spec.evaluate.perplexity.first().and_then(|corpus| prepared.sets.evaluation.get(corpus));
    match read {
        Some(set) => Ok(Cow::Borrowed(set)),
        None => exporting::held_out(spec, &prepared.tokenizer).map(Cow::Owned),
    }
}

/// Keeps the measurements of one model in the store.
struct Kept<'p, 'a> {
    engine: &'p mut Engine<'a>,
    spec: &'p Spec,
    input_hashes: &'p InputHashes,
    name: ModelName,
    /// Of the model's files.
    hash: String,
}

impl Recorder for Kept<'_, '_> {
    fn keep(
        &mut self,
        evaluation: &Evaluation,
        work: impl FnOnce(&dyn Watch) -> Result<Measured>,
    ) -> Result<Measured> {
        let key = keys::evaluation(self.input_hashes, &self.hash, evaluation, self.spec);
        let step = StepName::Evaluate(evaluation.clone(), self.name);
        let mut effort = None;
        let entry = self.engine.step(&step, &key, |entry, watch| {
            let measured = work(watch)?;
            effort = measured.effort;
            files::write_json(&entry.folder.join(FIGURES), &measured.figures)?;
            let Some(report) = measured.report else { return Ok(vec![FIGURES.into()]) };
            files::write_json(&entry.folder.join(SAMPLES), &report)?;
            Ok(vec![FIGURES.into(), SAMPLES.into()])
        })?;
        if let Some(effort) = effort {
            let message = format!("{}: {effort}", self.name);
            self.engine.show(&message);
            self.engine.note(message)?;
        }
        let has_samples = entry.names()?.iter().any(|name| name == SAMPLES);
        let report = has_samples.then(|| files::read_json(&entry.folder.join(SAMPLES))).transpose()?;
        let figures = files::read_json(&entry.folder.join(FIGURES))?;
        Ok(Measured { figures, report, effort: None })
    }

    fn figures(&mut self, figures: &[Figure]) -> Result<()> {
        figures.iter().try_for_each(|figure| self.engine.figure(self.name, figure.clone()))?;
        self.engine.publish()
    }

    fn warn(&mut self, message: String) -> Result<()> {
        self.engine.show(&message);
        self.engine.warn(message)
    }
}
