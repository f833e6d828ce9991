//! The steps of a trial in the order in which a run takes them, each with its key, its place in the store,
//! and what it takes.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::{Value, json};

use super::building::Building;
use super::keys::{self, MANIFEST, Manifest, Roots};
use super::planner::Planner;
use super::searching::Searching;
use super::subject::{Subject, bytes_of};
use super::texts::Texts;
use super::trial::{self, Spread, Tasks, TrialPlan, pruned, uniform};
use super::{Estimate, FOUND, Found, Key, Rates, Standing, Step, evaluating};
use crate::base::Work;
use crate::base::{Result, files};
use crate::model::cost::{self, Tokens};
use crate::model::{Config, Source};
use crate::schedule::{Iteration, schedule};
use crate::space::{Distribution, Shape, Space};
use crate::spec::{Accumulation, AttentionUnit, Spec, Trial};

/// Memory of the process itself: the program, its tokenizer, the token sets.
const PROCESS: f64 = 30e6;
/// Bytes that tokenising takes per byte of text that is tokenised at once; they stay resident until something else is large enough to
/// take them over.
const TOKENISING: f64 = 160.0;
/// Bytes of these that stay in pieces for good.
const TOKENISED: f64 = 22.0;
/// Bytes of the records that every stored result has beside it: key, manifest, cost, figures.
const RECORD: f64 = 1500.0;
/// A distribution that a step starts from: known, or what stands for it until another step has found it.
#[derive(Clone)]
struct Centre {
    /// For estimates: the uniform one while it is not known.
    distribution: Distribution,
    /// What stands for it in keys, and the step that finds it.
    pending: Option<(Value, String)>,
}

/// A planned step's place.
struct Placed {
    address: String,
    /// Its folder, if its result is there.
    folder: Option<PathBuf>,
}

/// A supernet to be planned: the iteration or `refit`, its levels and what it passes on.
struct Build {
    name: String,
    levels: usize,
    accumulation: Accumulation,
}

/// A planned supernet.
struct Net<'s> {
    placed: Placed,
    space: &'s Space,
    bytes: f64,
}

/// What a step takes, before rates make it an estimate.
#[derive(Default)]
struct Cost {
    work: Work,
    memory: f64,
    mapped: f64,
    disk: f64,
}

/// A model that is evaluated.
struct Judged<'c> {
    name: &'c str,
    /// Its hash, or what stands for it.
    hash: &'c str,
    /// What must be there before the hash is known.
    waits: Option<String>,
    config: &'c Config,
    /// Bytes of its own file, when it is a pruned one.
    file: f64,
}

/// A step that evaluates.
struct Evaluation {
    what: String,
    key: Value,
    cost: Cost,
    waits: Option<String>,
}

/// One trial being walked through.
pub(super) struct Chain<'p, 'a> {
    pub(super) planner: &'p mut Planner<'a>,
    pub(super) spec: &'p Spec,
    pub(super) subject: Rc<Subject>,
    pub(super) texts: Texts,
    pub(super) roots: Roots,
    pub(super) rates: Option<Rates>,
    pub(super) missing: Option<&'static str>,
    pub(super) shape: Shape,
    pub(super) tasks: Tasks,
    /// Dense hidden states that the searches so far keep, bytes.
    pub(super) carried: f64,
    /// Memory of the last evaluation, on top of which the next large step comes: the allocator gives back
    /// late what it freed.
    pub(super) rest: f64,
    pub(super) steps: Vec<Step>,
    pub(super) notes: Vec<String>,
}

impl Chain<'_, '_> {
    pub(super) fn walk(mut self, trial: &Trial) -> Result<TrialPlan> {
        let spec = self.spec;
        let subject = self.subject.clone();
        let start = uniform(spec, &subject.config)?;
        let iterations = schedule(&self.shape, &spec.supernet.intervals)?;
        let spaces = iterations
            .iter()
            .map(|i| i.space(self.shape, start.clone(), spec.supernet.levels))
            .collect::<Result<Vec<_>>>()?;
        self.tokenise();
        let hash = self.roots.model.clone();
        let waits = self.missing.map(String::from);
        self.evaluations(&Judged { name: "dense", hash: &hash, waits, config: &subject.config, file: 0.0 })?;
        let mut centre = Centre { distribution: start.clone(), pending: None };
        for iteration in &iterations {
            let Some(next) = self.iteration(iteration, &centre)? else { break };
            centre = next;
        }
        if spec.supernet.refit {
            self.refit(&centre)?;
        }
        self.tell(&iterations);
        self.finish(trial, &start, &iterations, &spaces)
    }

    /// Supernet, search and models of one iteration; gives what the next one starts from, unless nothing is
    /// searched.
    fn iteration(&mut self, iteration: &Iteration, centre: &Centre) -> Result<Option<Centre>> {
        let space = iteration.space(self.shape, centre.distribution.clone(), self.spec.supernet.levels)?;
        let build = Build {
            name: iteration.number.to_string(),
            levels: self.spec.supernet.levels,
            accumulation: self.spec.supernet.accumulation,
        };
        let net = self.supernet(&build, &space, centre)?;
        if iteration.number == 1 {
            self.model("uniform", &net, centre)?;
        }
        if self.spec.search.generations == 0 {
            return Ok(None);
        }
        let found = self.search(iteration, &net, centre)?;
        self.model(&format!("iteration-{}", iteration.number), &net, &found)?;
        Ok(Some(found))
    }

    /// The supernet of one level around what was found, and its model.
    fn refit(&mut self, centre: &Centre) -> Result<()> {
        let space = Space::around(self.shape, centre.distribution.clone(), [1, 1], 1)?;
        let build = Build { name: "refit".into(), levels: 1, accumulation: Accumulation::Single };
        let net = self.supernet(&build, &space, centre)?;
        self.model("refit", &net, centre)
    }

    /// Reading the texts and the model, which is done whatever is cached.
    fn tokenise(&mut self) {
        let work = Work { text: self.texts.bytes, read: self.subject.weight_bytes(), ..Work::default() };
        let estimate = self.estimate(Cost { work, ..Cost::default() });
        self.steps.push(Step {
            name: "tokenise".into(),
            model: None,
            key: Key::None,
            standing: Standing::Miss,
            estimate,
        });
    }

    fn supernet<'s>(&mut self, build: &Build, space: &'s Space, centre: &Centre) -> Result<Net<'s>> {
        let subject = self.subject.clone();
        let spec = self.spec;
        let dtype = subject.storage(spec.model.dtype);
        let building = Building { config: &subject.config, space, spec, stored: bytes_of(dtype) };
        let bytes = building.disk();
        let cost = Cost {
            work: building.work(),
            memory: self.rest.max(self.resident()) + building.memory(),
            mapped: self.checkpoint() + bytes,
            disk: bytes,
        };
        let around = match &centre.pending {
            None => keys::value(space)?,
            Some((pending, _)) => json!({ "around": pending, "steps": space.steps, "levels": build.levels }),
        };
        let key = keys::supernet(&self.roots, &around, dtype, spec, build.accumulation, &build.name)?;
        let placed = self.place(
            &format!("supernet-{}", build.name),
            "supernet",
            None,
            &key,
            self.waits(centre),
            cost,
        )?;
        Ok(Net { placed, space, bytes })
    }

    fn search(&mut self, iteration: &Iteration, net: &Net, centre: &Centre) -> Result<Centre> {
        let subject = self.subject.clone();
        let spec = self.spec;
        let searching = Searching::new(&subject.config, net.space, spec)?;
        let before = self.carried;
        let after = searching.teacher_bytes(iteration.number);
        let cost = Cost {
            work: searching.work(iteration.number),
            memory: self.rest.max(self.resident()) + searching.memory() + (after - before).max(0.0),
            mapped: self.checkpoint() + net.bytes,
            disk: searching.disk(),
        };
        self.carried = after;
        let key = keys::search(&self.roots, &net.placed.address, spec, iteration.number);
        let name = format!("search-{}", iteration.number);
        let placed = self.place(&name, "search", None, &key, self.waits(centre), cost)?;
        let found = placed.folder.and_then(|folder| files::read_json::<Found>(&folder.join(FOUND)).ok());
        Ok(match found {
            Some(found) => Centre { distribution: found.distribution, pending: None },
            None => Centre {
                distribution: centre.distribution.clone(),
                pending: Some((json!(placed.address), name)),
            },
        })
    }

    /// Compaction and evaluation of a distribution.
    fn model(&mut self, name: &str, net: &Net, of: &Centre) -> Result<()> {
        let subject = self.subject.clone();
        let spec = self.spec;
        let small = pruned(&subject.config, spec.prune.unit.attention, &of.distribution, Spread::Wide);
        let stored = bytes_of(subject.storage(spec.model.dtype));
        let bytes = small.parameters().total() as f64 * stored;
        let cost = Cost {
            work: evaluating::compaction(&small, &subject.config, stored),
            memory: self.resident() + evaluating::compaction_memory(&subject.config, stored),
            mapped: self.checkpoint() + net.bytes,
            disk: bytes + self.copied(),
        };
        let distribution = of
            .pending
            .as_ref()
            .map_or_else(|| keys::value(&of.distribution), |(pending, _)| Ok(pending.clone()))?;
        let key = keys::compact(&net.placed.address, &distribution)?;
        let step = format!("compact-{name}");
        let placed = self.place(&step, "model", Some(name), &key, self.waits(of), cost)?;
        let (hash, waits) = match &placed.folder {
            Some(folder) if self.missing.is_none() => (Source::folder(folder)?.hash()?, None),
            _ => (
                format!("model of {}", placed.address),
                Some(self.missing.map_or(format!("after {step}"), String::from)),
            ),
        };
        self.evaluations(&Judged { name, hash: &hash, waits, config: &small, file: bytes })
    }

    /// What a step that needs a distribution waits for.
    fn waits(&self, centre: &Centre) -> Option<String> {
        self.missing.map(String::from).or_else(|| Some(format!("after {}", centre.pending.as_ref()?.1)))
    }

    /// Perplexities, divergence, tasks and harness of a model.
    fn evaluations(&mut self, of: &Judged) -> Result<()> {
        let mut planned = self.perplexities(of);
        planned.extend(self.divergence(of));
        planned.extend(self.on_tasks(of));
        planned.extend(self.on_harness(of));
        for Evaluation { what, key, cost, waits } in planned {
            self.rest = cost.memory;
            self.place(&format!("{what}-{}", of.name), "evaluate", Some(of.name), &key, waits, cost)?;
        }
        Ok(())
    }

    /// What running so many tokens costs, the logits of `rows` at once.
    fn judging(&self, of: &Judged, work: Work, tokens: Tokens, rows: usize) -> Cost {
        let beside = if of.name == "dense" { 0.0 } else { self.resident() };
        let memory = beside + evaluating::memory(of.config, tokens, rows);
        Cost { work, memory, mapped: self.checkpoint() + of.file, disk: 0.0 }
    }

    fn perplexities(&self, of: &Judged) -> Vec<Evaluation> {
        let length = self.spec.evaluate.sequence_length;
        let on = |(corpus, (text, tokens)): (&String, &(String, usize))| {
            let tokens = Tokens::new(*tokens, length);
            let cost = self.judging(
                of,
                evaluating::perplexity(of.config, tokens),
                tokens,
                of.config.logit_rows().min(length),
            );
            let what = format!("perplexity-{}", corpus.replace('/', "-"));
            Evaluation { what, key: keys::perplexity(of.hash, corpus, text), cost, waits: of.waits.clone() }
        };
        self.texts.evaluation.iter().map(on).collect()
    }

    fn divergence(&self, of: &Judged) -> Option<Evaluation> {
        let (spec, length) = (self.spec, self.spec.evaluate.sequence_length);
        let first = spec.evaluate.perplexity.first().and_then(|corpus| self.texts.evaluation.get(corpus));
        let (text, tokens) = first.filter(|_| spec.evaluate.kl_tokens > 0 && of.name != "dense")?;
        let tokens = Tokens::new(
            (spec.evaluate.kl_tokens / length).clamp(1, (tokens / length).max(1)) * length,
            length,
        );
        let work = evaluating::divergence(of.config, &self.subject.config, tokens);
        let cost = self.judging(of, work, tokens, 3 * of.config.logit_rows().min(length));
        Some(Evaluation {
            what: "kl".into(),
            key: keys::kl(of.hash, &self.roots.model, text, spec),
            cost,
            waits: of.waits.clone(),
        })
    }

    fn on_tasks(&self, of: &Judged) -> Option<Evaluation> {
        if self.spec.evaluate.tasks.is_empty() {
            return None;
        }
        let (tokens, windows) = (self.tasks.tokens, self.tasks.tokens.windows());
        let rows = of.config.logit_rows().min(evaluating::batch(windows));
        let cost = Cost {
            disk: tokens.record(),
            ..self.judging(of, evaluating::tasks(of.config, tokens), windows, rows)
        };
        let waits =
            of.waits.clone().or_else(|| self.roots.tasks.is_none().then(|| "needs the task files".into()));
        Some(Evaluation {
            what: "tasks".into(),
            key: keys::tasks(&self.roots, of.hash, self.spec),
            cost,
            waits,
        })
    }

    fn on_harness(&self, of: &Judged) -> Option<Evaluation> {
        let key = keys::harness(of.hash, self.spec)?;
        let rows = of.config.logit_rows().min(self.spec.evaluate.sequence_length);
        let cost = self.judging(of, self.harness(of.config), self.tasks.tokens.windows(), rows);
        Some(Evaluation { what: "lm_eval".into(), key, cost, waits: of.waits.clone() })
    }

    /// The harness's tasks as far as they are those that are built in.
    fn harness(&self, config: &Config) -> Work {
        let names = self.spec.evaluate.lm_eval.iter().flat_map(|settings| &settings.tasks);
        let sized = names.filter_map(|name| evaluating::task_tokens(name, self.spec.evaluate.limit));
        sized.map(|tokens| evaluating::tasks(config, tokens)).sum()
    }

    /// Adds a step and looks it up.
    fn place(
        &mut self,
        name: &str,
        kind: &str,
        model: Option<&str>,
        key: &Value,
        waits: Option<String>,
        cost: Cost,
    ) -> Result<Placed> {
        let address = keys::address(kind, key)?;
        let folder = self.planner.store.join(&address);
        let hit = waits.is_none() && is_finished(&folder);
        let first = self.planner.planned.insert(address.clone());
        let standing = match (hit, first) {
            (true, _) => Standing::Hit,
            (false, true) => Standing::Miss,
            (false, false) => Standing::Shared,
        };
        let key = waits.map_or_else(|| Key::Known(address.clone()), Key::Waits);
        let estimate = self.estimate(Cost { disk: cost.disk + RECORD, ..cost });
        self.steps.push(Step { name: name.into(), model: model.map(Into::into), key, standing, estimate });
        Ok(Placed { address, folder: hit.then_some(folder) })
    }

    fn estimate(&self, cost: Cost) -> Estimate {
        let own = self.texts.at_once * TOKENISED + self.texts.sets + cost.memory + cost.mapped;
        let fresh = !self.steps.iter().any(|step| step.name.starts_with("supernet"));
        let tokenising = if fresh { self.texts.at_once * TOKENISING + self.texts.sets } else { 0.0 };
        Estimate {
            memory: PROCESS + own.max(tokenising),
            mapped: cost.mapped,
            disk: cost.disk,
            flops: cost.work.flops(),
            seconds: self.rates.map(|rates| rates.seconds(&cost.work)),
        }
    }

    /// Mapped bytes of the checkpoint.
    fn checkpoint(&self) -> f64 {
        self.subject.weight_bytes()
    }

    /// Memory that the dense model and its hidden states hold beside another step's own.
    fn resident(&self) -> f64 {
        self.carried
            + if cost::is_resident(&self.subject.config) {
                evaluating::weights(&self.subject.config)
            } else {
                0.0
            }
    }

    /// Bytes of the files that a smaller model takes over.
    fn copied(&self) -> f64 {
        let tokenizer =
            self.subject.source.as_ref().and_then(|source| source.optional("tokenizer.json").ok().flatten());
        tokenizer.map_or(2e6, |bytes| bytes.len() as f64)
    }

    /// What the reader should know beside the numbers.
    fn tell(&mut self, iterations: &[Iteration]) {
        let mut notes: Vec<String> = iterations.iter().flat_map(|i| i.notes.clone()).collect();
        if let [first, more @ ..] = &self.texts.missing[..] {
            let others = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
            notes.push(format!("not there yet: {}{others}; sizes are taken from the spec", first.display()));
        }
        if !self.tasks.unsized_names.is_empty() {
            notes.push(format!("of unknown size and not counted: {}", self.tasks.unsized_names.join(", ")));
        }
        if self.spec.prune.unit.attention == AttentionUnit::Head && self.subject.config.group() > 1 {
            notes.push(
                "key/value heads leave only with the last of their query heads: k_proj and v_proj are given as most and least".into(),
            );
        }
        if self.missing == Some("not looked up") {
            notes.push("keys take reading the model and the texts: --keys always".into());
        }
        self.notes = notes;
    }

    fn finish(
        self,
        trial: &Trial,
        start: &Distribution,
        iterations: &[Iteration],
        spaces: &[Space],
    ) -> Result<TrialPlan> {
        let spec = self.spec;
        let config = &self.subject.config;
        let of = |spread| pruned(config, spec.prune.unit.attention, start, spread);
        let parameters = trial::parameters(config, &of(Spread::Wide), &of(Spread::Narrow));
        let first = spaces.first().map(|space| Searching::new(config, space, spec)).transpose()?;
        Ok(TrialPlan {
            label: trial.label.clone(),
            model: spec.model.source.clone(),
            origin: self.subject.origin.clone(),
            asked: spec.sparsity.target,
            reached: trial::reached(spec, &self.shape, start, &parameters),
            basis: spec.sparsity.basis,
            iterations: iterations.iter().zip(spaces).map(|(i, s)| trial::iteration(i, s)).collect(),
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
