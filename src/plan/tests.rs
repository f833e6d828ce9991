use super::*;
use crate::model::pico::Pico;
use crate::spec::{self, Known};

const KNOWN: Known = Known {
    corpora: &["quickstart"],
    tasks: &["quickstart", "rte"],
    script: |_, _| Ok(()),
    inputs: |_| crate::spec::Inputs::default(),
};

fn planned(text: &str) -> Plan {
    plan(&spec::parse(text, "spec.toml", &KNOWN).unwrap(), &options(Speed::Given(1e12))).unwrap()
}

fn options(speed: Speed) -> Options {
    Options { runs: "no/such/runs".into(), speed, keys: KeysWanted::Never }
}

fn llama(more: &str) -> Plan {
    planned(&format!("name = \"big\"\n[model]\nsource = \"hf:meta-llama/Llama-2-70b-hf\"\n{more}"))
}

fn step<'a>(plan: &'a Plan, name: &str) -> &'a Step {
    plan.trials[0].steps.iter().find(|s| s.name.to_string() == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn a_model_known_by_its_facts_is_planned_step_by_step() {
    let plan = llama("[supernet]\nintervals = [0.125, 0.0625]");
    let names: Vec<String> = plan.trials[0].steps.iter().map(|s| s.name.to_string()).collect();
    let expected = [
        "tokenise",
        "perplexity-quickstart-dense",
        "supernet-1",
        "compact-uniform",
        "perplexity-quickstart-uniform",
        "kl-uniform",
        "sensitivities-1",
        "search-1",
        "compact-iteration-1",
        "perplexity-quickstart-iteration-1",
        "kl-iteration-1",
        "supernet-2",
        "sensitivities-2",
        "search-2",
        "compact-iteration-2",
        "perplexity-quickstart-iteration-2",
        "kl-iteration-2",
        "supernet-refit",
        "compact-refit",
        "perplexity-quickstart-refit",
        "kl-refit",
    ];
    assert_eq!(names, expected);
    assert!(
        plan.trials[0].steps[1..]
            .iter()
            .all(|s| s.key == StepKey::Waits(Missing::Model) && s.standing == Standing::Miss)
    );
}

#[test]
fn parameters_before_are_the_models_and_after_those_of_the_uniform_distribution() {
    let trial = llama("").trials.remove(0);
    let of = |kind: &str| trial.parameters.iter().find(|c| c.kind == kind).unwrap();
    assert_eq!(of("all").before, 68_976_648_192);
    assert_eq!((of("q_proj").before, of("q_proj").after), (80 * 8192 * 8192, 80 * 8192 * 8192 / 2));
    assert_eq!((of("down_proj").before, of("down_proj").after), (80 * 8192 * 28672, 80 * 8192 * 28672 / 2));
    // 32 of 64 heads may leave all 8 key/value heads in use, or only 4.
    assert_eq!((of("k_proj").after, of("k_proj").least), (of("k_proj").before, of("k_proj").before / 2));
    assert_eq!(
        (of("embed_tokens").after, of("norms").after),
        (of("embed_tokens").before, of("norms").before)
    );
    let sum: usize = trial.parameters.iter().filter(|c| c.kind != "all").map(|c| c.after).sum();
    assert_eq!(sum, of("all").after);
    assert_eq!((trial.asked, trial.reached), (0.5, 0.5));
}

#[test]
fn whole_groups_take_their_key_value_heads_along() {
    let trial = llama("[prune]\nunit = { attention = \"kv_group\", mlp = \"neuron\" }").trials.remove(0);
    let k = trial.parameters.iter().find(|c| c.kind == "k_proj").unwrap();
    assert_eq!((k.after, k.least), (k.before / 2, k.before / 2));
}

#[test]
fn a_share_of_all_parameters_is_reached_with_more_units() {
    let trial = llama("[sparsity]\ntarget = 0.5\nbasis = \"total\"").trials.remove(0);
    let all = trial.parameters.last().unwrap();
    assert!((trial.reached - (1.0 - all.after as f64 / all.before as f64)).abs() < 1e-12);
    assert!((trial.reached - 0.5).abs() < 0.01, "{}", trial.reached);
}

#[test]
fn the_schedule_and_its_spaces_are_told() {
    let trial = llama("[supernet]\nintervals = [0.125, 0.015625]").trials.remove(0);
    let [first, second] = &trial.iterations[..] else { panic!() };
    assert_eq!((first.spacings, second.spacings), ([8, 3584], [1, 448]));
    assert_eq!(first.levels, [(9, 9), (9, 9)]);
    // Not more than 9 levels of 160 modules, and not much fewer.
    assert!(
        first.log10_distributions < 160.0 * 9f64.log10() && first.log10_distributions > 145.0,
        "{}",
        first.log10_distributions
    );
}

#[test]
fn only_a_measured_or_given_rate_gives_times() {
    let text = "[model]\nsource = \"hf:meta-llama/Llama-3.1-8B\"\n";
    let loaded = spec::parse(text, "spec.toml", &KNOWN).unwrap();
    let with = |speed| plan(&loaded, &options(speed)).unwrap();
    assert_eq!(with(Speed::Unknown).total().seconds, None);
    let slow = with(Speed::Given(1e11)).total().seconds.unwrap();
    let fast = with(Speed::Given(1e14)).total().seconds.unwrap();
    assert!(slow > fast && fast > 0.0);
    assert_eq!(with(Speed::Given(1e11)), with(Speed::Given(1e11)));
}

#[test]
fn more_tokens_offspring_and_levels_cost_more() {
    let cost = |more: &str, name: &str| step(&llama(more), name).estimate;
    let few = cost("[calibration]\ntokens = 131072", "supernet-1");
    let many = cost("[calibration]\ntokens = 262144", "supernet-1");
    assert!(many.flops > 1.2 * few.flops && many.memory > few.memory && many.disk == few.disk);
    let few = cost("[search]\noffspring = 32", "search-1");
    let many = cost("[search]\noffspring = 128", "search-1");
    assert!(many.flops > 1.2 * few.flops);
    let few = cost("[supernet]\nlevels = 5", "supernet-1");
    let many = cost("[supernet]\nlevels = 9", "supernet-1");
    assert!(many.disk > few.disk);
}

#[test]
fn reading_an_export_back_takes_room_on_disk_and_exports_are_judged_at_the_uniform_distribution() {
    let plan = llama("[export]\nto = [\"gguf\", \"mlx\"]");
    let gguf = step(&plan, "export-gguf-refit").estimate;
    let mlx = step(&plan, "export-mlx-refit").estimate;
    // A copy in 32-bit floats of what lies there in 16 bits.
    assert!((gguf.meanwhile / gguf.disk - 2.0).abs() < 0.01, "{gguf:?}");
    assert_eq!((mlx.meanwhile, plan.total().meanwhile), (0.0, gguf.meanwhile));
    let judged = |plan: &Plan| plan.trials[0].notes.iter().any(|note| note.contains("judged at the uniform"));
    assert!(text(&plan).contains("more meanwhile") && judged(&plan), "{}", text(&plan));
    let alike = llama("[sparsity]\nshape = \"uniform\"\n[export]\nto = [\"mlx\"]");
    assert!(!text(&alike).contains("meanwhile") && !judged(&alike), "{}", text(&alike));
}

#[test]
fn the_layer_target_takes_less_than_the_residual_one() {
    let flops =
        |target: &str| step(&llama(&format!("[prune]\ntarget = \"{target}\"")), "supernet-1").estimate.flops;
    assert!(flops("layer") < 0.7 * flops("residual"));
}

#[test]
fn trials_that_share_a_supernet_say_so() {
    let plan = llama(
        "[[sweep]]\nkey = \"search.offspring\"\nvalues = [32, 64]\n[[sweep]]\nkey = \"fitness.top_k\"\nvalues = [0, 64]",
    );
    let standing = |i: usize, name: &str| {
        plan.trials[i].steps.iter().find(|s| s.name.to_string() == name).unwrap().standing.clone()
    };
    assert_eq!(standing(0, "supernet-1"), Standing::Miss);
    for i in 1..4 {
        assert_eq!((standing(i, "supernet-1"), standing(i, "search-1")), (Standing::Shared, Standing::Miss));
        assert_eq!(standing(i, "kl-uniform"), Standing::Shared);
    }
    assert!(plan.total().flops < plan.trials.iter().flat_map(|t| &t.steps).map(|s| s.estimate.flops).sum());
}

#[test]
fn nothing_is_searched_without_generations() {
    let plan = llama("[search]\nstart = \"uniform\"\ngenerations = 0");
    let found =
        |s: &Step| matches!(s.name, StepName::Search(_)) || matches!(s.model, Some(ModelName::Iteration(_)));
    assert!(!plan.trials[0].steps.iter().any(found));
}

#[test]
fn layers_that_stay_alike_are_told_and_not_searched() {
    let plan = planned(
        "model.source = \"hf:HuggingFaceTB/SmolLM2-135M\"\nsparsity = { target = 0.3, shape = \"uniform\" }\n\
         prune.align.neurons = 256\n",
    );
    let trial = &plan.trials[0];
    assert!(!trial.steps.iter().any(|s| matches!(s.name, StepName::Search(_))));
    assert_eq!((trial.iterations.len(), trial.iterations[0].log10_distributions), (1, 0.0));
    assert_eq!((trial.tokens.generations, trial.tokens.candidates), (0, 0));
    // 9 query heads share 3 key/value heads; 460.8 of 1536 neurons are nearest to two multiples.
    let expected = [
        "all layers are alike and nothing is searched: each keeps 6 of 9 heads and 1024 of 1536 neurons",
        "every key/value head of a layer keeps as many query heads: 3 leave at a time; 30.00% becomes 33.33% of \
         them",
        "kept neurons are multiples of 256; 30.00% becomes 33.33% of them",
    ];
    expected.iter().for_each(|note| assert!(trial.notes.iter().any(|n| n == note), "{:?}", trial.notes));
    assert!(trial.reached > 0.33 && trial.reached < 0.34, "{}", trial.reached);
    let k = trial.parameters.iter().find(|c| c.kind == "k_proj").unwrap();
    assert_eq!((k.after, k.least), (k.before, k.before));
    assert!(text(&plan).contains("no search"));
}

#[test]
fn what_bounds_cost_is_told_and_levels_keep_to_them() {
    let bounded = "prune = { align = { neurons = 640 }, keep_at_least = { heads = 24, neurons = 9600 } }\n\
                   supernet.intervals = [0.125]\n";
    let trial =
        planned(&format!("model.source = \"hf:meta-llama/Llama-2-70b-hf\"\n{bounded}")).trials.remove(0);
    let expected = [
        "kept neurons are multiples of 640; 50.00% becomes 50.00% of them",
        "28672 neurons are no multiple of 640: every module loses 512 at least",
        "every layer keeps at least 24 heads and 9600 neurons",
    ];
    expected.iter().for_each(|note| assert!(trial.notes.iter().any(|n| n == note), "{:?}", trial.notes));
    // 3584 neurons are nearest to six multiples; of 32 heads one level of eight may go.
    assert_eq!((trial.iterations[0].spacings, trial.iterations[0].levels[0]), ([8, 3840], (6, 6)));
    assert!(trial.iterations[0].levels[1].1 < 9);
    let free = planned("model.source = \"hf:meta-llama/Llama-2-70b-hf\"\n").trials.remove(0);
    assert!(!free.notes.iter().any(|note| note.contains("multiple") || note.contains("at least")));
}

#[test]
fn one_layer_of_one_head_is_planned_without_a_move() {
    let dir = tempfile::tempdir().unwrap();
    Pico { layers: 1, heads: 1, kv_heads: 1, ..Pico::default() }.write(dir.path(), 1).unwrap();
    let plan = planned(&format!("[model]\nsource = {:?}", dir.path().to_str().unwrap()));
    let trial = &plan.trials[0];
    assert_eq!(trial.iterations[0].log10_distributions, 0.0);
    assert!(
        trial
            .steps
            .iter()
            .all(|s| s.estimate.memory.is_finite() && s.estimate.seconds.is_some_and(f64::is_finite))
    );
}

#[test]
fn everything_removed_is_planned_too() {
    let dir = tempfile::tempdir().unwrap();
    Pico::default().write(dir.path(), 1).unwrap();
    let plan =
        planned(&format!("[model]\nsource = {:?}\n[sparsity]\ntarget = 0.99", dir.path().to_str().unwrap()));
    let left = plan.trials[0].parameters.iter().find(|c| c.kind == "o_proj").unwrap();
    assert_eq!(left.after, 0);
    assert!(text(&plan).contains("o_proj"));
}

#[test]
fn a_plan_fits_a_hundred_columns() {
    let plan = llama(
        "[evaluate]\ntasks = [\"rte\"]\n[supernet]\nlevels = 9\nintervals = [0.125, 0.0625, 0.03125, 0.015625]",
    );
    let text = text(&plan);
    assert!(text.lines().all(|l| l.chars().count() <= 100), "{text}");
    for part in ["q_proj", "legal", "supernet-4", "needs the model", "68.98B", "TB", "mapped files"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

/// Keys of lists, whose elements go together, and those that are no part of a plan.
const NOT_SET_ALONE: [&str; 8] = [
    "evaluate.bench.batch[0]",
    "evaluate.bench.output[0]",
    "evaluate.bench.prompt[0]",
    "seed",
    "search.stages[0].tokens",
    "search.stages[0].survivors",
    "fitness.layers[0].layer",
    "sweep[0].seeds",
];

/// Keys of units that a module keeps, of which no model has as many.
const MORE_THAN_A_MODEL_HAS: [&str; 3] =
    ["prune.align.neurons", "prune.keep_at_least.heads", "prune.keep_at_least.neurons"];

/// What goes along with a key at its maximum.
fn along(key: &str, most: usize) -> String {
    match key {
        "calibration.sequence_length" => format!("calibration.tokens = {most}\nsearch.tokens = {most}\n"),
        "search.sensitivity.tokens" => format!("search.tokens = {most}\n"),
        "evaluate.lm_eval.num_fewshot" => "evaluate.lm_eval.tasks = ['rte']\n".into(),
        _ => String::new(),
    }
}

#[test]
fn every_count_at_its_maximum_is_planned() {
    let mut all = String::new();
    let model = "model.source = 'hf:HuggingFaceTB/SmolLM2-135M'\nsupernet.intervals = [0.125]\n";
    for (path, most) in spec::tests::schema::largest_integers() {
        let (key, most) = (path.to_string(), most.unwrap_or_default() as usize);
        if NOT_SET_ALONE.contains(&key.as_str()) {
            continue;
        }
        let line = format!("{key} = {most}\n");
        if MORE_THAN_A_MODEL_HAS.contains(&key.as_str()) {
            let loaded = spec::parse(&format!("{model}{line}"), "spec.toml", &KNOWN).unwrap();
            let place = plan(&loaded, &options(Speed::Unknown)).unwrap_err().place.unwrap();
            assert_eq!(place, key);
            continue;
        }
        let plan = planned(&format!("{model}{line}{}", along(&key, most)));
        let finite = |s: &Step| s.estimate.flops.is_finite() && s.estimate.memory.is_finite();
        assert!(plan.trials[0].steps.iter().all(finite), "{key}");
        all += &line;
    }
    all = all.replace("search.max_flips = 1000", "search.max_flips = 3");
    let stages = "search.stages = [{ tokens = 1099511627776, survivors = 1 }]\n";
    let large = "model.source = 'hf:meta-llama/Llama-2-70b-hf'\nsupernet.intervals = [0.125]\n";
    let plan = planned(&format!("{large}{all}{stages}{}", along("evaluate.lm_eval.num_fewshot", 0)));
    assert!(plan.total().seconds.is_some_and(f64::is_finite));
    assert!(!text(&plan).is_empty());
}

#[test]
fn the_plan_of_a_large_model_reads_like_this() {
    let set = "[supernet]\nintervals = [0.125, 0.0625]\n[evaluate]\ntasks = [\"rte\"]\n[prune]\ntarget = \"layer\"\n";
    insta::assert_snapshot!(text(&llama(set)));
}
