//! What the trials of an experiment share and the plan looks at once: models, their hashes, texts, rates,
//! what is planned already.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

use serde_json::json;

use super::chain::Chain;
use super::keys::{self, Roots};
use super::subject::Subject;
use super::texts::{self, Texts};
use super::trial::{Tasks, TrialPlan};
use super::{KeysWanted, Options, Rates, Speed};
use crate::base::Result;
use crate::data::Tokenizer;
use crate::model::Source;
use crate::spec::{Loaded, Spec, Trial};

/// Weights that are hashed and texts that are tokenised without being asked to, at most: a second's worth.
const SMALL_WEIGHTS: f64 = 4e9;
const SMALL_TEXT: f64 = 32e6;

/// Plans trials one after the other; what they share is looked at once.
pub struct Planner<'a> {
    options: &'a Options,
    /// Where results would be.
    pub(super) store: PathBuf,
    subjects: BTreeMap<String, Rc<Subject>>,
    hashes: BTreeMap<String, String>,
    texts: BTreeMap<String, Texts>,
    rates: BTreeMap<String, Rates>,
    /// Addresses of the steps so far.
    pub(super) planned: BTreeSet<String>,
}

impl<'a> Planner<'a> {
    /// For an experiment.
    pub fn new(loaded: &Loaded, options: &'a Options) -> Self {
        let store = options.runs.join(&loaded.spec.name).join("store");
        let (subjects, hashes, texts, rates, planned) = Default::default();
        Self { options, store, subjects, hashes, texts, rates, planned }
    }

    /// The rates of the first model.
    pub fn rates(&self) -> Option<Rates> {
        self.rates.values().next().copied()
    }

    /// One trial's plan.
    pub fn trial(&mut self, trial: &Trial) -> Result<TrialPlan> {
        let spec = &trial.spec;
        let subject = self.subject(&spec.model.source)?;
        let wanted = self.wants_keys(spec, &subject);
        let texts = self.texts(spec, &subject, wanted)?;
        let roots = self.roots(spec, &subject, &texts)?;
        let rates = self.rates_for(spec, &subject)?;
        let missing = missing(&subject, &texts, wanted);
        let shape = subject.config.shape(spec.prune.unit.attention);
        let tasks = Tasks::of(&spec.evaluate.tasks, spec)?;
        Chain {
            planner: self,
            spec,
            subject,
            texts,
            roots,
            rates,
            missing,
            shape,
            tasks,
            carried: 0.0,
            rest: 0.0,
            steps: vec![],
            notes: vec![],
        }
        .walk(trial)
    }

    fn subject(&mut self, source: &str) -> Result<Rc<Subject>> {
        if let Some(subject) = self.subjects.get(source) {
            return Ok(subject.clone());
        }
        let subject = Rc::new(Subject::find(source)?);
        self.subjects.insert(source.into(), subject.clone());
        Ok(subject)
    }

    fn wants_keys(&self, spec: &Spec, subject: &Subject) -> bool {
        match self.options.keys {
            KeysWanted::Never => false,
            KeysWanted::Always => true,
            KeysWanted::Auto => subject.weight_bytes() <= SMALL_WEIGHTS && texts::bytes(spec) <= SMALL_TEXT,
        }
    }

    /// A trial's texts; those of trials that ask for the same are read once.
    fn texts(&mut self, spec: &Spec, subject: &Subject, wanted: bool) -> Result<Texts> {
        let there = texts::files_of(spec).iter().all(|file| file.is_file());
        let Some(source) = subject.source.as_ref().filter(|_| wanted && there) else {
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

    /// Hashes of a trial's inputs; stand-ins, which only tell inputs apart, where they are not there.
    fn roots(&mut self, spec: &Spec, subject: &Subject, texts: &Texts) -> Result<Roots> {
        let model = match subject.source.as_ref().filter(|_| texts.real) {
            Some(source) => self.hash(&spec.model.source, source)?,
            None => format!("not read: {}", spec.model.source),
        };
        let calibration = texts.calibration.clone();
        let search = texts.search.clone();
        let corpora = texts.corpora.clone();
        // Task files that are not there leave none, which the steps that need them say.
        let tasks = keys::task_files(spec).ok().flatten();
        Ok(Roots { model, calibration, search, corpora, script: keys::script(spec)?, tasks })
    }

    fn hash(&mut self, name: &str, source: &Source) -> Result<String> {
        if !self.hashes.contains_key(name) {
            self.hashes.insert(name.into(), source.hash()?);
        }
        Ok(self.hashes[name].clone())
    }

    fn rates_for(&mut self, spec: &Spec, subject: &Subject) -> Result<Option<Rates>> {
        let name = &spec.model.source;
        let rates = match (self.options.speed, self.rates.get(name)) {
            (_, Some(rates)) => *rates,
            (Speed::Unknown, _) => return Ok(None),
            (Speed::Given(products), _) => Rates::of_products(products),
            (Speed::Measured, _) => {
                Rates::measure(&subject.config, spec.calibration.sequence_length, &std::env::temp_dir())?
            }
        };
        self.rates.insert(name.clone(), rates);
        Ok(Some(rates))
    }
}

/// Why no key can be told, if so.
fn missing(subject: &Subject, texts: &Texts, wanted: bool) -> Option<&'static str> {
    if subject.source.is_none() {
        Some("needs the model")
    } else if !texts.missing.is_empty() {
        Some("needs the texts")
    } else {
        (!wanted).then_some("not looked up")
    }
}
