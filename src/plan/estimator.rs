//! Estimates the steps of a trial as [`walk`] calls them: each with its key, its place in the store, and what
//! it takes.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::{Value, json};

use super::known_model::{KnownModel, bytes_of};
use super::planner::Planner;
use super::shapes;
use super::texts::Texts;
use super::trial::{self, Spread, Tasks, TrialPlan, pruned};
use super::{Missing, Rates, Standing, Step, StepCost, StepKey};
use crate::base::{Result, Work, files};
use crate::bench::Latencies;
use crate::eval::cost as evaluating;
use crate::export::{self, COMPARED_TOKENS};
use crate::fitness::cost::Searching;
use crate::model::cost::{self, Tokens};
use crate::model::{Config, Source};
use crate::schedule::{Iteration, schedule};
use crate::space::{ModuleKind, Shape, Space, SparsityDistribution};
use crate::spec::{AttentionUnit, Form, SparsityShape, Spec, Trial};
use crate::supernet::cost::{self as supernet, Building};
use crate::trial::{
    Build, Evaluation, FOUND, Found, InputHashes, Key, MANIFEST, Manifest, ModelName, Searched, Sizing,
    StepName, Steps, bounds, keys, walk,
};

/// Memory of the process itself: the program, its tokenizer, the token sets, and what the allocator holds for a second.
const PROCESS: f64 = 55e6;
/// Bytes that tokenising takes per byte of text that is tokenised at once; they stay resident until something
/// else is large enough to take them over.
const TOKENISING: f64 = 210.0;
/// Bytes of these that stay in pieces for good.
const TOKENISED: f64 = 22.0;
/// Bytes of the records that every stored result has beside it: key, manifest, cost, figures.
const RECORD: f64 = 1500.0;

/// A distribution as far as it is known.
#[derive(Clone)]
pub(super) struct Expected {
    /// For estimates: the uniform one while it is not known.
    distribution: SparsityDistribution,
    /// Its stand-in in keys, and the step that finds it.
    pending: Option<(Value, StepName)>,
}

/// A planned step's place.
pub(super) struct StepPlace {
    pub(super) address: String,
    /// Its folder, if its result is there.
    pub(super) folder: Option<PathBuf>,
}

/// A planned supernet.
pub(super) struct PlannedSupernet {
    placed: StepPlace,
    space: Space,
    bytes: f64,
}

/// A planned model.
pub(super) struct PlannedModel {
    pub(super) name: ModelName,
    /// Its hash, or what stands for it.
    pub(super) hash: String,
    /// What must be there before the hash is known.
    pub(super) missing: Option<Missing>,
    pub(super) config: Config,
    /// Bytes of its own file, when it is a pruned one.
    pub(super) file: f64,
}

/// What a step takes, before rates make it an estimate.
#[derive(Default)]
pub(super) struct Cost {
    pub(super) work: Work,
    pub(super) memory: f64,
    pub(super) mapped: f64,
    pub(super) disk: f64,
    /// On disk while it is done.
    pub(super) meanwhile: f64,
}

/// Estimates one trial.
pub(super) struct Estimator<'p, 'a> {
    pub(super) planner: &'p mut Planner<'a>,
    pub(super) spec: &'p Spec,
    pub(super) model: Rc<KnownModel>,
    pub(super) texts: Texts,
    pub(super) input_hashes: InputHashes,
    pub(super) rates: Option<Rates>,
    /// The reason why keys are not computed, if there is one.
    pub(super) missing: Option<Missing>,
    pub(super) shape: Shape,
    pub(super) tasks: Tasks,
    /// What modules take by their sizes, where sparsity is a share of time: measured, or estimated.
    pub(super) latencies: Option<Latencies>,
    /// Address of the step that measures them, while it is to be done.
    pub(super) untimed: Option<String>,
    /// Dense hidden states that the searches so far keep, bytes.
    pub(super) carried: f64,
    /// What the last step leaves taken, on top of which the next large one comes: the allocator returns freed memory
    /// late.
    pub(super) rest: f64,
    pub(super) steps: Vec<Step>,
    pub(super) notes: Vec<String>,
}

impl Steps for Estimator<'_, '_> {
    type Distribution = Expected;
    type Supernet = PlannedSupernet;
    /// Their address.
    type Sensitivities = String;
    type Model = PlannedModel;

    fn latencies(&mut self) -> Result<Latencies> {
        self.timing()
    }

    fn dense(&mut self) -> Result<PlannedModel> {
        Ok(PlannedModel {
            name: ModelName::Dense,
            hash: self.input_hashes.model.clone(),
            missing: self.missing.clone(),
            config: self.model.config.clone(),
            file: 0.0,
        })
    }

    fn start(&mut self, uniform: SparsityDistribution) -> Result<Expected> {
        let of = |address: &String| (json!([address, uniform]), StepName::Latencies);
        let pending = self.untimed.as_ref().map(of);
        Ok(Expected { distribution: uniform, pending })
    }

    fn begin(&mut self, iteration: &Iteration) -> Result<()> {
        self.notes.extend(iteration.notes.iter().cloned());
        Ok(())
    }

    fn supernet(&mut self, build: &Build, centre: &Expected) -> Result<PlannedSupernet> {
        let model = self.model.clone();
        let spec = self.spec;
        let space = build.space(self.shape, centre.distribution.clone())?;
        let dtype = model.storage(spec.model.dtype);
        let building = Building { config: &model.config, space: &space, spec, stored: bytes_of(dtype) };
        let bytes = building.disk();
        let cost = Cost {
            work: building.work(),
            memory: self.rest.max(self.resident()) + building.memory(),
            mapped: self.checkpoint() + bytes,
            disk: bytes,
            ..Cost::default()
        };
        let around = match &centre.pending {
            None => keys::value(&space)?,
            Some((pending, _)) => {
                let bounds = [build.bounds.multiples, build.bounds.at_least];
                json!({ "around": pending, "steps": space.spacings, "levels": build.levels, "bounds": bounds })
            }
        };
        let key = keys::supernet(&self.input_hashes, &around, dtype, spec, build)?;
        let placed = self.place(StepName::Supernet(build.name), &key, self.waits(centre), cost)?;
        Ok(PlannedSupernet { placed, space, bytes })
    }

    fn sensitivities(&mut self, iteration: &Searched<PlannedSupernet, Expected>) -> Result<String> {
        let spec = self.spec;
        let &Searched { number, supernet: net, centre, budget } = iteration;
        let searching = Searching::new(&self.model.config, &net.space, spec)?;
        let cost = Cost {
            work: searching.sensitivities(),
            memory: self.rest.max(self.resident()) + searching.sensitivities_memory(),
            mapped: self.checkpoint() + net.bytes,
            disk: searching.sensitivities_disk(),
            ..Cost::default()
        };
        self.rest = self.rest.max(self.held(cost.memory));
        let key = keys::sensitivities(&self.input_hashes, &net.placed.address, budget, spec, number)?;
        let placed = self.place(StepName::Sensitivities(number), &key, self.waits(centre), cost)?;
        Ok(placed.address)
    }

    fn search(
        &mut self,
        iteration: &Searched<PlannedSupernet, Expected>,
        start: Option<&String>,
    ) -> Result<Expected> {
        let model = self.model.clone();
        let spec = self.spec;
        let &Searched { number, supernet: net, centre, budget } = iteration;
        let searching = Searching::new(&model.config, &net.space, spec)?;
        let before = self.carried;
        let after = searching.dense_state_bytes(number);
        let cost = Cost {
            work: searching.work(number),
            memory: self.rest.max(self.resident()) + searching.memory() + (after - before).max(0.0),
            mapped: self.checkpoint() + net.bytes,
            disk: searching.disk(),
            ..Cost::default()
        };
        self.carried = after;
        let from = start.map(String::as_str);
        let key = keys::search(&self.input_hashes, &net.placed.address, from, budget, spec, number)?;
        let name = StepName::Search(number);
        let placed = self.place(name.clone(), &key, self.waits(centre), cost)?;
        let found = placed.folder.and_then(|folder| files::read_json::<Found>(&folder.join(FOUND)).ok());
        Ok(match found {
            Some(found) => Expected { distribution: found.distribution, pending: None },
            None => Expected {
                distribution: centre.distribution.clone(),
                pending: Some((json!(placed.address), name)),
            },
        })
    }

    fn compact(&mut self, name: ModelName, net: &PlannedSupernet, of: &Expected) -> Result<PlannedModel> {
        let dense = self.model.clone();
        let spec = self.spec;
        let small = pruned(&dense.config, spec.prune.unit.attention, &of.distribution, Spread::Wide);
        let stored = bytes_of(dense.storage(spec.model.dtype));
        let bytes = small.parameters().total() as f64 * stored;
        let cost = Cost {
            work: supernet::compaction(&small, &dense.config, stored),
            memory: self.resident() + supernet::compaction_memory(&dense.config, stored),
            mapped: self.checkpoint() + net.bytes,
            disk: bytes + self.copied(),
            ..Cost::default()
        };
        let distribution = match &of.pending {
            None => keys::value(&of.distribution)?,
            Some((pending, _)) => pending.clone(),
        };
        let key = keys::compact(&self.input_hashes, &net.placed.address, &distribution)?;
        let step = StepName::Compact(name);
        let placed = self.place(step.clone(), &key, self.waits(of), cost)?;
        let (hash, missing) = match &placed.folder {
            Some(folder) if self.missing.is_none() => (Source::folder(folder)?.hash()?, None),
            _ => {
                let missing = self.missing.clone().unwrap_or(Missing::After(step));
                (format!("model of {}", placed.address), Some(missing))
            }
        };
        Ok(PlannedModel { name, hash, missing, config: small, file: bytes })
    }

    fn evaluate(&mut self, model: &PlannedModel, evaluations: &[Evaluation]) -> Result<()> {
        for evaluation in evaluations {
            let cost = self.evaluation(model, evaluation);
            let key = keys::evaluation(&self.input_hashes, &model.hash, evaluation, self.spec);
            let missing = model.missing.clone().or_else(|| self.missing_for(evaluation));
            self.rest = self.held(cost.memory);
            self.place(StepName::Evaluate(evaluation.clone(), model.name), &key, missing, cost)?;
        }
        Ok(())
    }

    /// Takes links only.
    fn keep(&mut self, _: &PlannedModel, _: &Expected) -> Result<()> {
        Ok(())
    }

    fn export(&mut self, model: &PlannedModel, form: Form) -> Result<()> {
        let stored = Some(self.model.storage(self.spec.model.dtype));
        let options = export::Options { stored, ..export::Options::of(self.spec) };
        // What cannot be carried at the uniform distribution may be at the one that is found: the run says so.
        let looked = export::look(&model.config, form, &options);
        let bytes = match &looked {
            Ok(exported) => exported.bytes as f64,
            Err(_) => 0.0,
        };
        self.notes.extend(match looked {
            Ok(exported) => exported.notes.iter().map(|note| format!("export to {form}: {note}")).collect(),
            Err(e) => vec![format!("export to {form} at the uniform distribution: {}", e.what)],
        });
        let length = self.spec.evaluate.sequence_length;
        let tokens = Tokens::new(COMPARED_TOKENS.max(length), length);
        let compared = evaluating::perplexity(&model.config, tokens) * 2.0;
        let weights = evaluating::weights(&model.config);
        // What is read back is another copy where our readers do not read the form as it is.
        let copy = export::read_back_bytes(&model.config, form, &options).unwrap_or_default() as f64;
        let work = compared + Work { read: bytes + weights, written: bytes + copy, ..Work::default() };
        let rows = model.config.logit_rows().min(length);
        let forward = self.forward(model, work, tokens, rows);
        let cost = Cost { memory: forward.memory + weights, disk: bytes, meanwhile: copy, ..forward };
        let key = keys::export(&self.input_hashes, &model.hash, form, self.spec);
        self.place(StepName::Export(form, model.name), &key, model.missing.clone(), cost)?;
        Ok(())
    }
}

impl Estimator<'_, '_> {
    /// The plan of the trial.
    pub(super) fn plan(mut self, trial: &Trial) -> Result<TrialPlan> {
        let model = self.model.clone();
        self.tokenise();
        walk(self.spec, &model.config, &mut self)?;
        self.add_notes()?;
        self.finish(trial)
    }

    /// Reading the texts and the model, which is done whatever is cached.
    fn tokenise(&mut self) {
        let work = Work { text: self.texts.bytes, read: self.model.weight_bytes(), ..Work::default() };
        let estimate = self.estimate(Cost { work, ..Cost::default() });
        self.steps.push(Step {
            model: None,
            name: StepName::Tokenise,
            key: StepKey::None,
            standing: Standing::Miss,
            estimate,
        });
    }

    /// What is not there that a measurement reads.
    fn missing_for(&self, evaluation: &Evaluation) -> Option<Missing> {
        match evaluation {
            Evaluation::Tasks if self.input_hashes.tasks.is_none() => Some(Missing::TaskFiles),
            Evaluation::Harness if self.input_hashes.harness.is_none() => Some(Missing::Harness),
            _ => None,
        }
    }

    /// What a step that needs a distribution waits for.
    fn waits(&self, centre: &Expected) -> Option<Missing> {
        let finder = centre.pending.as_ref().map(|(_, step)| Missing::After(step.clone()));
        self.missing.clone().or(finder)
    }

    /// Adds a step and looks it up.
    pub(super) fn place(
        &mut self,
        name: StepName,
        key: &Key,
        missing: Option<Missing>,
        cost: Cost,
    ) -> Result<StepPlace> {
        let address = key.address()?;
        let folder = self.planner.store.join(&address);
        let hit = missing.is_none() && is_finished(&folder);
        let first = self.planner.planned.insert(address.clone());
        let standing = match (hit, first) {
            (true, _) => Standing::Hit,
            (false, true) => Standing::Miss,
            (false, false) => Standing::Shared,
        };
        let key = missing.map_or_else(|| StepKey::Known(address.clone()), StepKey::Waits);
        let estimate = self.estimate(Cost { disk: cost.disk + RECORD, ..cost });
        self.steps.push(Step { model: name.model(), name, key, standing, estimate });
        Ok(StepPlace { address, folder: hit.then_some(folder) })
    }

    fn estimate(&self, cost: Cost) -> StepCost {
        let own = self.texts.at_once * TOKENISED + self.texts.sets + cost.memory + cost.mapped;
        let fresh = !self.steps.iter().any(|step| matches!(step.name, StepName::Supernet(_)));
        let tokenising = if fresh { self.texts.at_once * TOKENISING + self.texts.sets } else { 0.0 };
        StepCost {
            memory: PROCESS + own.max(tokenising),
            mapped: cost.mapped,
            disk: cost.disk,
            meanwhile: cost.meanwhile,
            flops: cost.work.flops(),
            seconds: self.rates.map(|rates| rates.seconds(&cost.work)),
        }
    }

    /// Mapped bytes of the checkpoint.
    pub(super) fn checkpoint(&self) -> f64 {
        self.model.weight_bytes()
    }

    /// Memory that is taken when the step after one of so much begins: about half of what that freed is held by the
    /// threads that had it.
    fn held(&self, memory: f64) -> f64 {
        let resident = self.resident();
        resident + 0.5 * (memory - resident).max(0.0)
    }

    /// Memory that the dense model and its hidden states hold beside another step's own.
    pub(super) fn resident(&self) -> f64 {
        self.carried
            + if cost::is_resident(&self.model.config) {
                evaluating::weights(&self.model.config)
            } else {
                0.0
            }
    }

    /// Bytes of the files that a smaller model takes over.
    fn copied(&self) -> f64 {
        let tokenizer =
            self.model.source.as_ref().and_then(|source| source.optional("tokenizer.json").ok().flatten());
        tokenizer.map_or(2e6, |bytes| bytes.len() as f64)
    }

    /// Notes for the reader.
    fn add_notes(&mut self) -> Result<()> {
        let sizing = Sizing::new(self.spec, &self.model.config, self.latencies.as_ref());
        let shapes = shapes::notes(self.spec, &self.model.config, &sizing)?;
        let notes = &mut self.notes;
        notes.extend(shapes);
        if let [first, more @ ..] = &self.texts.missing[..] {
            let others = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
            notes.push(format!("not there yet: {}{others}; sizes are taken from the spec", first.display()));
        }
        if !self.tasks.unsized_names.is_empty() {
            notes.push(format!("of unknown size and not counted: {}", self.tasks.unsized_names.join(", ")));
        }
        let single = self.spec.prune.unit.attention == AttentionUnit::Head && !self.spec.keeps_equal_heads();
        if single && self.model.config.group() > 1 {
            notes.push(
                "key/value heads are removed only with the last of their query heads: k_proj and v_proj are \
                 given as a range"
                    .into(),
            );
        }
        if self.spec.searches() && !self.spec.export.to.is_empty() {
            notes.push(
                "exports are judged at the uniform distribution; what a search finds may need more repeated heads and \
                 zeros, or fit: the run tells it of each export"
                    .into(),
            );
        }
        if self.missing == Some(Missing::NotLookedUp) {
            notes.push("keys take reading the model and the texts: --keys always".into());
        }
        Ok(())
    }

    /// The steps with what the trial is about; spaces are those around the uniform start.
    fn finish(self, trial: &Trial) -> Result<TrialPlan> {
        let spec = self.spec;
        let config = &self.model.config;
        let sizing = Sizing::new(spec, config, self.latencies.as_ref());
        let start = sizing.uniform()?;
        let bounds = bounds(spec, config);
        let mut iterations = schedule(&self.shape, &bounds, &spec.supernet.intervals)?;
        if spec.sparsity.shape == SparsityShape::Uniform {
            iterations.truncate(1);
        }
        let space = |i: &Iteration| Build::iteration(i, spec, bounds).space(self.shape, start.clone());
        let spaces = iterations.iter().map(space).collect::<Result<Vec<_>>>()?;
        let of = |spread| pruned(config, spec.prune.unit.attention, &start, spread);
        let narrow = if bounds.multiple(ModuleKind::Attention) > 1 { Spread::Wide } else { Spread::Narrow };
        let parameters = trial::parameters(config, &of(Spread::Wide), &of(narrow));
        let wide = of(Spread::Wide);
        let totals = [config, &wide].map(|config| config.parameters().total());
        let first = spaces.first().map(|space| Searching::new(config, space, spec)).transpose()?;
        Ok(TrialPlan {
            label: trial.label.clone(),
            model: spec.model.source.clone(),
            origin: self.model.origin.clone(),
            asked: spec.sparsity.target,
            reached: sizing.reached(&wide, &start, totals)?,
            basis: spec.sparsity.basis,
            iterations: iterations.iter().zip(&spaces).map(|(i, s)| trial::iteration(i, s, spec)).collect(),
            tokens: trial::tokens(spec, &self.texts, first.as_ref(), &self.tasks),
            parameters,
            steps: self.steps,
            notes: self.notes,
        })
    }
}

/// Whether a folder holds a finished result. A run also checks the files' hashes when it uses them.
fn is_finished(folder: &Path) -> bool {
    let manifest = files::read_json::<Manifest>(&folder.join(MANIFEST));
    manifest.is_ok_and(|m| m.files.keys().all(|name| folder.join(name).is_file()))
}
