//! What the trials of an experiment have in common and the plan looks up once: models, their hashes, texts,
//! rates, what is planned already.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

use serde_json::json;

use super::estimator::Estimator;
use super::known_model::KnownModel;
use super::texts::{self, Texts};
use super::trial::{Tasks, TrialPlan};
use super::{KeysWanted, Missing, Options, Rates, Speed};
use crate::base::Result;
use crate::data::Tokenizer;
use crate::model::Source;
use crate::model::save::companions_hash;
use crate::spec::{Loaded, Spec, Trial};
use crate::trial::keys::HarnessInputs;
use crate::trial::{InputHashes, keys};

/// Weights that are hashed and texts that are tokenised without being asked to, at most: a second's worth.
const SMALL_WEIGHTS: f64 = 4e9;
const SMALL_TEXT: f64 = 32e6;

/// Plans trials one after the other; what they have in common is looked up once.
pub(crate) struct Planner<'a> {
    options: &'a Options,
    /// Where results would be.
    pub(super) store: PathBuf,
    models: BTreeMap<String, Rc<KnownModel>>,
    hashes: BTreeMap<String, String>,
    texts: BTreeMap<String, Texts>,
    rates: BTreeMap<String, Rates>,
    harnesses: BTreeMap<String, Option<HarnessInputs>>,
    /// Addresses of the steps so far.
    pub(super) planned: BTreeSet<String>,
}

impl<'a> Planner<'a> {
    /// For an experiment.
    pub(crate) fn new(loaded: &Loaded, options: &'a Options) -> Self {
        let store = options.runs.join(&loaded.spec.name).join("store");
        let (models, hashes, texts, rates, harnesses, planned) = Default::default();
        Self { options, store, models, hashes, texts, rates, harnesses, planned }
    }

    /// The rates of the first model.
    pub(crate) fn rates(&self) -> Option<Rates> {
        self.rates.values().next().copied()
    }

    /// One trial's plan.
    pub(crate) fn trial(&mut self, trial: &Trial) -> Result<TrialPlan> {
        let spec = &trial.spec;
        let model = self.model(&spec.model.source)?;
        let wanted = self.wants_keys(spec, &model);
        let texts = self.texts(spec, &model, wanted)?;
        let input_hashes = InputHashes {
            harness: if wanted { self.harness(spec) } else { None },
            ..self.input_hashes(spec, &model, &texts)?
        };
        let rates = self.rates_for(spec, &model)?;
        let missing = missing(&model, &texts, wanted);
        let shape = model.config.shape(spec.prune.unit.attention);
        let tasks = Tasks::of(&spec.evaluate.tasks, spec)?;
        Estimator {
            planner: self,
            spec,
            model,
            texts,
            input_hashes,
            rates,
            missing,
            shape,
            tasks,
            latencies: None,
            untimed: None,
            carried: 0.0,
            rest: 0.0,
            steps: vec![],
            notes: vec![],
        }
        .plan(trial)
    }

    fn model(&mut self, source: &str) -> Result<Rc<KnownModel>> {
        if let Some(model) = self.models.get(source) {
            return Ok(model.clone());
        }
        let model = Rc::new(KnownModel::find(source)?);
        self.models.insert(source.into(), model.clone());
        Ok(model)
    }

    fn wants_keys(&self, spec: &Spec, model: &KnownModel) -> bool {
        match self.options.keys {
            KeysWanted::Never => false,
            KeysWanted::Always => true,
            KeysWanted::Auto => model.weight_bytes() <= SMALL_WEIGHTS && texts::bytes(spec) <= SMALL_TEXT,
        }
    }

    /// A trial's texts; trials with the same texts read them once.
    fn texts(&mut self, spec: &Spec, model: &KnownModel, wanted: bool) -> Result<Texts> {
        let there = texts::files_of(spec).iter().all(|file| file.is_file());
        let Some(source) = model.source.as_ref().filter(|_| wanted && there) else {
            return Texts::assume(spec);
        };
        let e = &spec.evaluate;
        let asked = json!([
            spec.model.source,
            spec.calibration,
            spec.search.tokens,
            spec.search.text,
            spec.seed,
            spec.corpora,
            spec.fitness.corpora,
            e.perplexity,
            e.tokens,
            e.sequence_length,
        ]);
        let name = asked.to_string();
        if !self.texts.contains_key(&name) {
            self.texts.insert(name.clone(), Texts::read(spec, &Tokenizer::open(source)?)?);
        }
        Ok(self.texts[&name].clone())
    }

    /// Hashes of a trial's inputs; stand-ins, which only distinguish inputs, where these are not there.
    fn input_hashes(&mut self, spec: &Spec, model: &KnownModel, texts: &Texts) -> Result<InputHashes> {
        let hash = match model.source.as_ref().filter(|_| texts.real) {
            Some(source) => self.hash(&spec.model.source, source)?,
            None => format!("not read: {}", spec.model.source),
        };
        let calibration = texts.calibration.clone();
        let search = texts.search.clone();
        let corpora = texts.corpora.clone();
        // Without the task files there is none; the steps that need them report it.
        let tasks = keys::task_files(spec).ok().flatten();
        let evaluation = texts.evaluation.iter().map(|(name, (hash, _))| (name.clone(), hash.clone()));
        Ok(InputHashes {
            model: hash,
            calibration,
            search,
            corpora,
            evaluation: evaluation.collect(),
            script: keys::script(spec)?,
            tasks,
            companions: model.source.as_ref().map(companions_hash).transpose()?.unwrap_or_default(),
            harness: None,
            gguf_base: keys::gguf_base(spec).ok().flatten(),
        })
    }

    /// What the harness is and reads. Where it is not there, there is none; the steps that need it report it.
    fn harness(&mut self, spec: &Spec) -> Option<HarnessInputs> {
        let name = json!([spec.evaluate.lm_eval, spec.evaluate.data]).to_string();
        self.harnesses.entry(name).or_insert_with(|| keys::harness(spec).ok().flatten()).clone()
    }

    fn hash(&mut self, name: &str, source: &Source) -> Result<String> {
        if !self.hashes.contains_key(name) {
            self.hashes.insert(name.into(), source.hash()?);
        }
        Ok(self.hashes[name].clone())
    }

    fn rates_for(&mut self, spec: &Spec, model: &KnownModel) -> Result<Option<Rates>> {
        let name = &spec.model.source;
        let rates = match (self.options.speed, self.rates.get(name)) {
            (_, Some(rates)) => *rates,
            (Speed::Unknown, _) => return Ok(None),
            (Speed::Given(products), _) => Rates::of_products(products),
            (Speed::Measured, _) => {
                Rates::measure(&model.config, spec.calibration.sequence_length, &std::env::temp_dir())?
            }
        };
        self.rates.insert(name.clone(), rates);
        Ok(Some(rates))
    }
}

/// The reason why keys are not computed, if there is one.
fn missing(model: &KnownModel, texts: &Texts, wanted: bool) -> Option<Missing> {
    if model.source.is_none() {
        Some(Missing::Model)
    } else if !texts.missing.is_empty() {
        Some(Missing::Texts)
    } else {
        (!wanted).then_some(Missing::NotLookedUp)
    }
}
