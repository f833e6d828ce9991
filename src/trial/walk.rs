//! A trial's steps in the order in which they are taken: coarse to fine over the intervals, a supernet and a
//! search each, then the refit.

use super::{Evaluation, ModelName, Sizing, SupernetName, bounds, evaluations};
use crate::base::{Error, Kind, Result};
use crate::bench::{Latencies, Workload, modules};
use crate::model::Config;
use crate::schedule::{Iteration, schedule};
use crate::space::{Bounds, Budget, ModuleKind, Shape, Space, SparsityDistribution};
use crate::spec::{Accumulation, Basis, Form, SearchStart, Spec};

/// Who goes through a trial: executes its steps, or estimates them.
pub trait Steps {
    /// A distribution as this walker has it: known, or still to be found.
    type Distribution;
    /// A supernet that was built.
    type Supernet;
    /// What single changes around a distribution cost.
    type Sensitivities;
    /// A model that can be evaluated.
    type Model;

    /// Times modules of several sizes, where sparsity is a share of time.
    fn latencies(&mut self) -> Result<Latencies>;

    /// The dense model.
    fn dense(&mut self) -> Result<Self::Model>;

    /// The uniform distribution, from which the first iteration starts.
    fn start(&mut self, uniform: SparsityDistribution) -> Result<Self::Distribution>;

    /// An iteration begins.
    fn begin(&mut self, iteration: &Iteration) -> Result<()>;

    /// Builds a supernet around a distribution.
    fn supernet(&mut self, build: &Build, centre: &Self::Distribution) -> Result<Self::Supernet>;

    /// Measures what single changes cost in the supernet of an iteration.
    fn sensitivities(
        &mut self,
        iteration: &Searched<Self::Supernet, Self::Distribution>,
    ) -> Result<Self::Sensitivities>;

    /// Searches the supernet of an iteration, from its centre or from what sensitivities give.
    fn search(
        &mut self,
        iteration: &Searched<Self::Supernet, Self::Distribution>,
        start: Option<&Self::Sensitivities>,
    ) -> Result<Self::Distribution>;

    /// Makes the model that a distribution picks from a supernet.
    fn compact(
        &mut self,
        name: ModelName,
        supernet: &Self::Supernet,
        of: &Self::Distribution,
    ) -> Result<Self::Model>;

    /// Evaluates a model.
    fn evaluate(&mut self, model: &Self::Model, evaluations: &[Evaluation]) -> Result<()>;

    /// The last model is made; what follows only measures or rewrites it.
    fn keep(&mut self, model: &Self::Model, distribution: &Self::Distribution) -> Result<()>;

    /// Writes a model in another form.
    fn export(&mut self, model: &Self::Model, form: Form) -> Result<()>;
}

/// What is searched in an iteration.
pub struct Searched<'a, S, D> {
    /// Number of the iteration, from 1.
    pub number: usize,
    /// Its supernet.
    pub supernet: &'a S,
    /// The distribution that the supernet lies around.
    pub centre: &'a D,
    /// What every candidate keeps to.
    pub budget: &'a Budget,
}

/// A supernet to be built around some distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct Build {
    /// What it is called.
    pub name: SupernetName,
    /// Units between neighbouring levels: attention, MLP.
    pub spacings: [usize; 2],
    /// Levels of a module, at most.
    pub levels: usize,
    /// What a module passes on to the next ones.
    pub accumulation: Accumulation,
    /// What every level keeps.
    pub bounds: Bounds,
}

impl Build {
    /// The supernet of an iteration.
    pub fn iteration(iteration: &Iteration, spec: &Spec, bounds: Bounds) -> Self {
        Self {
            name: SupernetName::Iteration(iteration.number),
            spacings: iteration.spacings,
            levels: spec.supernet.levels,
            accumulation: spec.supernet.accumulation,
            bounds,
        }
    }

    /// One level per module: each is fitted to what the modules before it really became, no longer to what
    /// the search's accumulation needed.
    pub fn refit(bounds: Bounds) -> Self {
        let accumulation = Accumulation::Single;
        Self { name: SupernetName::Refit, spacings: [1, 1], levels: 1, accumulation, bounds }
    }

    /// Groups of an attention module's units that have to lose equally many: one unless query heads have to stay
    /// equal in number for all key/value heads.
    pub fn head_groups(&self) -> usize {
        self.bounds.multiple(ModuleKind::Attention)
    }

    /// Its space around a distribution.
    ///
    /// # Errors
    /// As [`Space::around`] and [`Space::within`].
    pub fn space(&self, shape: Shape, centre: SparsityDistribution) -> Result<Space> {
        let space = Space::around(shape, centre, self.spacings, self.levels);
        space.and_then(|space| space.within(&self.bounds)).map_err(|e| match self.name {
            SupernetName::Iteration(number) => e.at(format!("iteration {number}")),
            SupernetName::Refit => e,
        })
    }
}

/// What a trial came to.
pub struct Outcome<S: Steps> {
    /// The last distribution.
    pub distribution: S::Distribution,
    /// The last model.
    pub model: S::Model,
}

/// Goes through the trial of a spec and a dense model's configuration: evaluates the dense model, then per
/// interval builds a supernet, measures what single changes cost where the search starts from that, searches it and makes the model found. The first supernet also gives the
/// uniform model; where nothing is searched, nothing comes after that. With `supernet.refit` what was found
/// last is pruned once more. With `evaluate.bench` the last model is timed beside the dense one; it is exported to
/// the forms that `export.to` names.
///
/// # Errors
/// A sparsity out of reach, a schedule without a space, texts of a bench that are longer than the model's context,
/// and those of the steps.
pub fn walk<S: Steps>(spec: &Spec, config: &Config, steps: &mut S) -> Result<Outcome<S>> {
    let bounds = bounds(spec, config);
    let iterations = schedule(&config.shape(spec.prune.unit.attention), &bounds, &spec.supernet.intervals)?;
    let workloads = spec.evaluate.bench.as_ref().map(Workload::all).unwrap_or_default();
    let fits = |w: &Workload| w.check(config.context).map_err(|e| Error { kind: Kind::Spec, ..e });
    workloads.iter().try_for_each(fits).map_err(|e| e.at("evaluate.bench"))?;
    let (start, budget) = start(spec, config, steps)?;
    let dense = steps.dense()?;
    steps.evaluate(&dense, &evaluations(spec, ModelName::Dense))?;
    let distribution = steps.start(start)?;
    let mut walk = Walk { spec, bounds, budget, steps, last: Outcome { distribution, model: dense } };
    for iteration in &iterations {
        walk.iteration(iteration)?;
        if !spec.searches() {
            break;
        }
    }
    if spec.supernet.refit {
        walk.refit()?;
    }
    let Walk { last, steps, .. } = walk;
    steps.keep(&last.model, &last.distribution)?;
    if spec.evaluate.bench.is_some() {
        steps.evaluate(&last.model, &[Evaluation::Bench])?;
    }
    spec.export.to.iter().try_for_each(|&form| steps.export(&last.model, form))?;
    Ok(last)
}

/// Goes no further than what single changes of the uniform distribution cost, in the first supernet.
///
/// # Errors
/// As [`walk`], of the steps that are taken; [`Kind::Spec`] where nothing can be searched.
pub fn sensitivities<S: Steps>(spec: &Spec, config: &Config, steps: &mut S) -> Result<S::Sensitivities> {
    let (start, budget) = start(spec, config, steps)?;
    let centre = steps.start(start)?;
    let bounds = bounds(spec, config);
    let iterations = schedule(&config.shape(spec.prune.unit.attention), &bounds, &spec.supernet.intervals)?;
    let nothing = || Error::new(Kind::Spec, "there is no interval to measure at").at("supernet.intervals");
    let first = iterations.first().ok_or_else(nothing)?;
    steps.begin(first)?;
    let supernet = steps.supernet(&Build::iteration(first, spec, bounds), &centre)?;
    let searched = Searched { number: first.number, supernet: &supernet, centre: &centre, budget: &budget };
    steps.sensitivities(&searched)
}

/// The uniform distribution, and what all searches of the trial keep to.
fn start<S: Steps>(spec: &Spec, config: &Config, steps: &mut S) -> Result<(SparsityDistribution, Budget)> {
    let latencies = match spec.sparsity.basis {
        Basis::Latency => {
            modules::check(spec.sparsity.latency, config.context)?;
            Some(steps.latencies()?)
        }
        Basis::Prunable | Basis::Total | Basis::Flops | Basis::KvBytes => None,
    };
    let sizing = Sizing::new(spec, config, latencies.as_ref());
    Ok((sizing.uniform()?, sizing.budget()?))
}

/// A trial on its way.
struct Walk<'a, S: Steps> {
    spec: &'a Spec,
    bounds: Bounds,
    budget: Budget,
    steps: &'a mut S,
    /// What it has come to.
    last: Outcome<S>,
}

impl<S: Steps> Walk<'_, S> {
    fn iteration(&mut self, iteration: &Iteration) -> Result<()> {
        self.steps.begin(iteration)?;
        let build = Build::iteration(iteration, self.spec, self.bounds);
        let supernet = self.steps.supernet(&build, &self.last.distribution)?;
        if iteration.number == 1 {
            self.model(ModelName::Uniform, &supernet)?;
        }
        if !self.spec.searches() {
            return Ok(());
        }
        let searched = Searched {
            number: iteration.number,
            supernet: &supernet,
            centre: &self.last.distribution,
            budget: &self.budget,
        };
        let start = match self.spec.search.start {
            SearchStart::Uniform => None,
            SearchStart::Sensitivity => Some(self.steps.sensitivities(&searched)?),
        };
        self.last.distribution = self.steps.search(&searched, start.as_ref())?;
        self.model(ModelName::Iteration(iteration.number), &supernet)
    }

    fn refit(&mut self) -> Result<()> {
        let supernet = self.steps.supernet(&Build::refit(self.bounds), &self.last.distribution)?;
        self.model(ModelName::Refit, &supernet)
    }

    /// The model of the last distribution, evaluated.
    fn model(&mut self, name: ModelName, supernet: &S::Supernet) -> Result<()> {
        self.last.model = self.steps.compact(name, supernet, &self.last.distribution)?;
        self.steps.evaluate(&self.last.model, &evaluations(self.spec, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pico::Pico;
    use crate::spec::{self, AttentionUnit, Known};

    const KNOWN: Known = Known {
        corpora: &["quickstart"],
        tasks: &[],
        script: |_, _| Ok(()),
        inputs: |_| crate::spec::Inputs::default(),
    };

    /// Writes down what it is requested; a distribution, a supernet and a model are their names.
    #[derive(Debug, Default, PartialEq)]
    struct Recorder(Vec<String>);

    impl Recorder {
        fn note(&mut self, text: String) {
            self.0.push(text);
        }
    }

    impl Steps for Recorder {
        type Distribution = String;
        type Supernet = String;
        type Sensitivities = String;
        type Model = String;

        fn latencies(&mut self) -> Result<Latencies> {
            self.note("latencies".into());
            let config = Pico::default().config()?;
            Ok(Latencies::estimated(&config, AttentionUnit::Head, spec::Latency { tokens: 1, context: 8 }))
        }

        fn dense(&mut self) -> Result<String> {
            Ok(ModelName::Dense.to_string())
        }

        fn start(&mut self, _: SparsityDistribution) -> Result<String> {
            Ok("start".into())
        }

        fn begin(&mut self, iteration: &Iteration) -> Result<()> {
            self.note(format!("iteration {}", iteration.number));
            Ok(())
        }

        fn supernet(&mut self, build: &Build, centre: &String) -> Result<String> {
            let Build { name, spacings: steps, levels, accumulation, bounds } = build;
            self.note(format!(
                "supernet {name} around {centre}: {levels} levels of {steps:?}, {accumulation:?}{}",
                if *bounds == Bounds::NONE { String::new() } else { format!(", {bounds:?}") }
            ));
            Ok(format!("supernet {name}"))
        }

        fn sensitivities(&mut self, iteration: &Searched<String, String>) -> Result<String> {
            let Searched { number, supernet, centre, .. } = iteration;
            self.note(format!("sensitivities {number} of {supernet} around {centre}"));
            Ok(format!("sensitivities {number}"))
        }

        fn search(&mut self, iteration: &Searched<String, String>, start: Option<&String>) -> Result<String> {
            let Searched { number, supernet, centre, .. } = iteration;
            let start = start.map_or(String::new(), |start| format!(" from {start}"));
            self.note(format!("search {number} of {supernet} around {centre}{start}"));
            Ok(format!("found {number}"))
        }

        fn compact(&mut self, name: ModelName, supernet: &String, of: &String) -> Result<String> {
            self.note(format!("{name} from {supernet} at {of}"));
            Ok(name.to_string())
        }

        fn evaluate(&mut self, model: &String, evaluations: &[Evaluation]) -> Result<()> {
            let all: Vec<String> = evaluations.iter().map(ToString::to_string).collect();
            self.note(format!("evaluate {model}: {}", all.join(", ")));
            Ok(())
        }

        fn keep(&mut self, model: &String, distribution: &String) -> Result<()> {
            self.note(format!("keep {model} at {distribution}"));
            Ok(())
        }

        fn export(&mut self, model: &String, form: Form) -> Result<()> {
            self.note(format!("export {model} to {form}"));
            Ok(())
        }
    }

    /// The calls of a walk, and the last distribution and model.
    fn calls(text: &str) -> (Vec<String>, String, String) {
        let text = format!("[evaluate]\nperplexity = [\"quickstart\"]\nkl_tokens = 64\n{text}");
        let spec = spec::parse(&text, "spec.toml", &KNOWN).unwrap().spec;
        let config = Pico::default().config().unwrap();
        let mut recorder = Recorder::default();
        let outcome = walk(&spec, &config, &mut recorder).unwrap();
        (recorder.0, outcome.distribution, outcome.model)
    }

    #[test]
    fn one_interval_is_built_searched_and_not_refitted_where_the_spec_does_not_ask() {
        let (calls, distribution, model) =
            calls("[supernet]\nintervals = [0.5]\nlevels = 3\nrefit = false\naccumulation = \"uniform\"");
        let expected = [
            "evaluate dense: perplexity-quickstart",
            "iteration 1",
            "supernet 1 around start: 3 levels of [2, 24], Uniform",
            "uniform from supernet 1 at start",
            "evaluate uniform: perplexity-quickstart, kl",
            "sensitivities 1 of supernet 1 around start",
            "search 1 of supernet 1 around start from sensitivities 1",
            "iteration-1 from supernet 1 at found 1",
            "evaluate iteration-1: perplexity-quickstart, kl",
            "keep iteration-1 at found 1",
        ];
        assert_eq!(calls, expected);
        assert_eq!((distribution.as_str(), model.as_str()), ("found 1", "iteration-1"));
    }

    #[test]
    fn modules_are_timed_first_where_sparsity_is_a_share_of_time_and_never_elsewhere() {
        let of = |sparsity: &str| {
            calls(&format!(
                "[sparsity]\n{sparsity}\n[supernet]\nintervals = [0.5]\nlevels = 3\nrefit = false"
            ))
            .0
        };
        let counted = of("basis = \"flops\"\ntarget = 0.3");
        let timed = of("basis = \"latency\"\ntarget = 0.3\nlatency = { tokens = 1, context = 8 }");
        assert_eq!((timed[0].as_str(), &timed[1..]), ("latencies", &counted[..]));
    }

    #[test]
    fn a_search_from_the_uniform_distribution_measures_no_single_changes_first() {
        let text = |start: &str| {
            format!("[search]\nstart = \"{start}\"\n[supernet]\nintervals = [0.5]\nlevels = 3\nrefit = false")
        };
        let (uniform, ..) = calls(&text("uniform"));
        let (sensed, ..) = calls(&text("sensitivity"));
        let left: Vec<String> = sensed.iter().filter(|c| !c.starts_with("sensitivities")).cloned().collect();
        assert_eq!((left.len(), sensed.len()), (uniform.len(), uniform.len() + 1));
        assert!(uniform.contains(&"search 1 of supernet 1 around start".to_string()), "{uniform:?}");
    }

    #[test]
    fn each_interval_starts_from_what_was_found_and_the_refit_comes_last() {
        let (calls, distribution, model) =
            calls("[supernet]\nintervals = [0.5, 0.25]\nlevels = 3\nrefit = true");
        let made: Vec<&str> =
            calls.iter().map(String::as_str).filter(|call| !call.starts_with("evaluate")).collect();
        let expected = [
            "iteration 1",
            "supernet 1 around start: 3 levels of [2, 24], Expectation",
            "uniform from supernet 1 at start",
            "sensitivities 1 of supernet 1 around start",
            "search 1 of supernet 1 around start from sensitivities 1",
            "iteration-1 from supernet 1 at found 1",
            "iteration 2",
            "supernet 2 around found 1: 3 levels of [1, 12], Expectation",
            "sensitivities 2 of supernet 2 around found 1",
            "search 2 of supernet 2 around found 1 from sensitivities 2",
            "iteration-2 from supernet 2 at found 2",
            "supernet refit around found 2: 1 levels of [1, 1], Single",
            "refit from supernet refit at found 2",
            "keep refit at found 2",
        ];
        assert_eq!(made, expected);
        assert_eq!(calls.len() - made.len(), 5);
        assert_eq!((distribution.as_str(), model.as_str()), ("found 2", "refit"));
    }

    #[test]
    fn the_last_model_is_exported_in_the_end() {
        let (calls, ..) = calls("[supernet]\nintervals = [0.5]\n[export]\nto = [\"mlx\", \"gguf\"]");
        assert_eq!(calls[calls.len() - 2..], ["export refit to mlx", "export refit to gguf"]);
        assert_eq!(calls.iter().filter(|call| call.starts_with("export")).count(), 2);
    }

    #[test]
    fn layers_that_stay_alike_are_not_searched() {
        let text = |set: &str| format!("{set}\n[supernet]\nintervals = [0.5, 0.25]\nlevels = 3");
        let uniform = text("[sparsity]\nshape = \"uniform\"");
        // Four query heads share two key/value heads.
        let bounds = Bounds { multiples: [2, 1], at_least: [0, 0] };
        let (found, distribution, model) = calls(&uniform);
        assert!(found.iter().all(|call| !call.starts_with("search")), "{found:?}");
        assert!(found[2].ends_with(&format!("3 levels of [2, 24], Expectation, {bounds:?}")), "{found:?}");
        assert!(found[5].starts_with("supernet refit around start"), "{found:?}");
        assert_eq!((distribution.as_str(), model.as_str()), ("start", "refit"));
        let whole = text("[sparsity]\nshape = \"uniform\"\n[prune]\nunit.attention = \"kv_group\"");
        assert!(!calls(&whole).0[2].contains("Bounds"));
    }

    #[test]
    fn every_supernet_has_the_bounds_of_the_spec() {
        let align = "align = { neurons = 16, heads = \"equal\" }\nkeep_at_least = { heads = 1, neurons = 8 }";
        let (found, ..) = calls(&format!("[prune]\n{align}\n[supernet]\nintervals = [0.25, 0.125]"));
        let bounds = Bounds { multiples: [2, 16], at_least: [1, 8] };
        let built: Vec<&String> = found.iter().filter(|call| call.starts_with("supernet")).collect();
        assert!(
            built.len() == 3 && built.iter().all(|call| call.ends_with(&format!("{bounds:?}"))),
            "{built:?}"
        );
        assert!(
            built[0].contains("levels of [2, 16]") && built[1].contains("levels of [2, 16]"),
            "{built:?}"
        );
    }

    #[test]
    fn the_last_model_is_timed_once_where_the_spec_asks_and_its_texts_fit_the_context() {
        let (calls, ..) =
            calls("[supernet]\nintervals = [0.5]\nrefit = true\n[evaluate.bench]\nprompt = [8]");
        let timed: Vec<usize> = (0..calls.len()).filter(|&i| calls[i].ends_with(": bench")).collect();
        assert_eq!(timed, [calls.len() - 1]);
        assert_eq!(calls[timed[0]], "evaluate refit: bench");
        let spec = spec::parse("[evaluate.bench]\nprompt = [8, 250]", "spec.toml", &KNOWN).unwrap().spec;
        let refused =
            walk(&spec, &Pico::default().config().unwrap(), &mut Recorder::default()).err().unwrap();
        assert_eq!(refused.kind, Kind::Spec);
        assert!(refused.to_string().contains("250 + 64 tokens"), "{refused}");
    }

    #[test]
    fn without_generations_the_uniform_model_is_the_end_or_is_refitted() {
        let one = |refit: bool| {
            calls(&format!(
                "[search]\nstart = \"uniform\"\ngenerations = 0\n[supernet]\nintervals = [0.5, 0.25]\nrefit = {refit}"
            ))
        };
        let (calls, distribution, model) = one(false);
        assert!(calls[3].starts_with("uniform from") && calls.len() == 6, "{calls:?}");
        assert_eq!((distribution.as_str(), model.as_str()), ("start", "uniform"));
        let (calls, distribution, model) = one(true);
        assert!(calls[5].starts_with("supernet refit around start") && calls.len() == 9, "{calls:?}");
        assert_eq!((distribution.as_str(), model.as_str()), ("start", "refit"));
    }
}
