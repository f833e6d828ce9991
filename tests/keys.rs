//! Every key of a spec does something: for each there is a pair of specs that differ in it and have different
//! steps, keys of steps, or outcomes.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;

use common::Tiny;
use serde_json::Value;

/// In what the two specs of a row differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    /// The addresses that steps are stored under.
    Keys,
    /// The plan as a whole: what steps there are, and what they cost.
    Plan,
    /// What a check says.
    Check,
    /// What a run says.
    Run,
}

/// A key, what both specs set, and what each sets.
type Row = (&'static str, In, &'static [&'static str], &'static [&'static str], &'static [&'static str]);

const SIMILARITY: &[&str] = &["fitness.kind=similarity"];
const HARNESS: &[&str] = &["evaluate.lm_eval.python=./python", "evaluate.lm_eval.tasks=['boolq']"];
const BENCH: &[&str] = &["evaluate.bench.prompt=[8]"];
const TIMED: &[&str] = &["sparsity.basis=latency", "sparsity.target=0.2"];
const OWN_TASK: &[&str] = &[
    "evaluate.tasks=['mine']",
    "tasks.mine={ file = 'own.jsonl', context = 'q', choices = 'c', gold = 'g' }",
];
const LINES: &[&str] = &["corpora.lines.train=['lines.jsonl']", "calibration.corpus=lines"];

#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("calibration.corpus", In::Keys, &[], &[], &["calibration.corpus=quickstart"]),
    ("calibration.sequence_length", In::Keys, &[], &[], &["calibration.sequence_length=64"]),
    ("calibration.sink_tokens", In::Keys, &[], &[], &["calibration.sink_tokens=8"]),
    ("calibration.tokens", In::Keys, &[], &[], &["calibration.tokens=512"]),
    ("corpora.NAME.column", In::Keys, LINES, &[], &["corpora.lines.column=other"]),
    ("corpora.NAME.separator", In::Keys, LINES, &[], &["corpora.lines.separator=x"]),
    ("corpora.NAME.test", In::Keys, &[], &[], &["corpora.text.test=['other.txt']"]),
    ("corpora.NAME.train", In::Keys, &[], &[], &["corpora.text.train=['other.txt']"]),
    ("defaults", In::Keys, &[], &[], &["defaults=paper"]),
    ("evaluate.bench.batch", In::Plan, BENCH, &[], &["evaluate.bench.batch=[2]"]),
    ("evaluate.bench.output", In::Plan, BENCH, &[], &["evaluate.bench.output=[9]"]),
    ("evaluate.bench.prompt", In::Plan, BENCH, &[], &["evaluate.bench.prompt=[9]"]),
    ("evaluate.bench.repeats", In::Plan, BENCH, &[], &["evaluate.bench.repeats=2"]),
    ("evaluate.bos", In::Keys, &[], &[], &["evaluate.bos=true"]),
    ("evaluate.data", In::Keys, &["evaluate.tasks=['rte']"], &["evaluate.data=hub"], &["evaluate.data=other_hub"]),
    ("evaluate.kl_tokens", In::Plan, &[], &[], &["evaluate.kl_tokens=128"]),
    ("evaluate.limit", In::Keys, &[], &[], &["evaluate.limit=2"]),
    ("evaluate.lm_eval.num_fewshot", In::Keys, HARNESS, &[], &["evaluate.lm_eval.num_fewshot=2"]),
    ("evaluate.lm_eval.python", In::Run, HARNESS, &["evaluate.lm_eval.python=/no/a"], &["evaluate.lm_eval.python=/no/b"]),
    ("evaluate.lm_eval.tasks", In::Keys, HARNESS, &[], &["evaluate.lm_eval.tasks=['rte']"]),
    ("evaluate.lm_eval.url", In::Run, HARNESS, &["evaluate.lm_eval.url=http://a"], &["evaluate.lm_eval.python=/no/b"]),
    ("evaluate.perplexity", In::Keys, &[], &[], &["evaluate.perplexity=['quickstart']"]),
    ("evaluate.sequence_length", In::Keys, &[], &[], &["evaluate.sequence_length=16"]),
    ("evaluate.tasks", In::Keys, &[], &[], &["evaluate.tasks=['quickstart/yesno']"]),
    ("evaluate.tokens", In::Keys, &[], &[], &["evaluate.tokens=512"]),
    ("export.gguf", In::Plan, &["export.to=['gguf']"], &["export.gguf=f32"], &["export.gguf=f16"]),
    ("export.gguf_base", In::Check, &["export.to=['gguf']"], &["export.gguf_base=/no/a"], &["export.gguf_base=/no/b"]),
    ("export.to[0]", In::Plan, &[], &[], &["export.to=['hf']"]),
    ("fitness.corpora", In::Keys, &["fitness.kind=perplexity"], &["fitness.corpora=['text']"], &["fitness.corpora=['quickstart']"]),
    ("fitness.kind", In::Keys, &["fitness.corpora=['text']"], &[], &["fitness.kind=perplexity"]),
    ("fitness.layers[0].layer", In::Keys, SIMILARITY, &["fitness.layers=[{ layer = 0, weight = 1 }]"], &["fitness.layers=[{ layer = 1, weight = 1 }]"]),
    ("fitness.layers[0].weight", In::Keys, SIMILARITY, &["fitness.layers=[{ layer = 0, weight = 1 }]"], &["fitness.layers=[{ layer = 0, weight = 2 }]"]),
    ("fitness.logits_weight", In::Keys, &["fitness.kind=similarity", "fitness.layers=[{ layer = 0, weight = 1 }]"], &[], &["fitness.logits_weight=2"]),
    ("fitness.script", In::Keys, &["fitness.kind=script"], &["fitness.script=a.rhai"], &["fitness.script=b.rhai"]),
    ("fitness.top_k", In::Keys, &[], &[], &["fitness.top_k=8"]),
    ("model.device", In::Check, &[], &[], &["model.device=metal"]),
    ("model.dtype", In::Keys, &[], &[], &["model.dtype=f16"]),
    ("model.source", In::Keys, &["calibration.corpus=quickstart", "evaluate.perplexity=['quickstart']"], &[], &["model.source=builtin:quickstart"]),
    ("name", In::Plan, &[], &[], &["name=other"]),
    ("prune.align.heads", In::Keys, &[], &[], &["prune.align.heads=equal"]),
    ("prune.align.neurons", In::Keys, &["sparsity.target=0.4"], &[], &["prune.align.neurons=16"]),
    ("prune.damping", In::Keys, &[], &[], &["prune.damping=0.1"]),
    ("prune.damping_mean", In::Keys, &[], &[], &["prune.damping_mean=arithmetic"]),
    ("prune.keep_at_least.heads", In::Keys, &[], &[], &["prune.keep_at_least.heads=2"]),
    ("prune.keep_at_least.neurons", In::Keys, &[], &[], &["prune.keep_at_least.neurons=16"]),
    ("prune.method", In::Keys, &[], &[], &["prune.method=magnitude"]),
    ("prune.ranking", In::Keys, &[], &[], &["prune.ranking=one_shot"]),
    ("prune.saliency.first_order", In::Keys, &[], &[], &["prune.saliency.first_order=true"]),
    ("prune.saliency.second_order", In::Keys, &["prune.saliency.first_order=true"], &[], &["prune.saliency.second_order=false"]),
    ("prune.step.heads", In::Keys, &[], &[], &["prune.step.heads=2"]),
    ("prune.step.neurons", In::Keys, &[], &[], &["prune.step.neurons=8"]),
    ("prune.target", In::Keys, &[], &[], &["prune.target=dense"]),
    ("prune.target_interpolation", In::Keys, &[], &[], &["prune.target_interpolation=0.5"]),
    ("prune.target_shrinkage", In::Keys, &[], &[], &["prune.target_shrinkage=none"]),
    ("prune.unit.attention", In::Keys, &[], &[], &["prune.unit.attention=kv_group"]),
    ("search.generations", In::Keys, &[], &[], &["search.generations=2"]),
    ("search.guided", In::Keys, &["search.start=sensitivity"], &[], &["search.guided=false"]),
    ("search.racing", In::Keys, &[], &[], &["search.racing=false"]),
    ("search.patience", In::Keys, &[], &[], &["search.patience=2"]),
    ("search.sensitivity.rounds", In::Keys, &["search.start=sensitivity"], &[], &["search.sensitivity.rounds=2"]),
    ("search.sensitivity.tokens", In::Keys, &["search.start=sensitivity"], &["search.sensitivity.tokens=64"], &["search.sensitivity.tokens=128"]),
    ("search.start", In::Keys, &["search.sensitivity.tokens=64"], &["search.start=sensitivity"], &["search.start=uniform"]),
    ("search.max_flips", In::Keys, &[], &[], &["search.max_flips=2"]),
    ("search.offspring", In::Keys, &[], &[], &["search.offspring=5"]),
    ("search.stages[0].survivors", In::Keys, &[], &[], &["search.stages=[{ tokens = 64, survivors = 2 }, { tokens = 256, survivors = 1 }]"]),
    ("search.stages[0].tokens", In::Keys, &[], &[], &["search.stages=[{ tokens = 96, survivors = 3 }, { tokens = 256, survivors = 1 }]"]),
    ("search.text", In::Keys, &[], &[], &["search.text=calibration"]),
    ("search.tokens", In::Keys, &[], &[], &["search.tokens=512"]),
    ("seed", In::Keys, &[], &[], &["seed=1"]),
    ("sparsity.basis", In::Keys, &[], &[], &["sparsity.basis=total"]),
    ("sparsity.latency.context", In::Keys, TIMED, &["sparsity.latency.context=8"], &["sparsity.latency.context=9"]),
    ("sparsity.latency.tokens", In::Keys, TIMED, &["sparsity.latency.context=8"], &["sparsity.latency={ tokens = 2, context = 8 }"]),
    ("sparsity.rounding", In::Keys, &["sparsity.target=0.35"], &[], &["sparsity.rounding=layer"]),
    ("sparsity.shape", In::Keys, &["sparsity.target=0.35"], &[], &["sparsity.shape=uniform"]),
    ("sparsity.trade", In::Keys, &[], &["sparsity.trade=false"], &["sparsity.trade=true"]),
    ("sparsity.target", In::Keys, &[], &[], &["sparsity.target=0.25"]),
    ("supernet.accumulation", In::Keys, &[], &[], &["supernet.accumulation=none"]),
    ("supernet.intervals", In::Keys, &[], &[], &["supernet.intervals=[0.125]"]),
    ("supernet.levels", In::Keys, &[], &[], &["supernet.levels=3"]),
    ("supernet.refit", In::Plan, &[], &[], &["supernet.refit=false"]),
    ("supernet.sequential", In::Keys, &[], &[], &["supernet.sequential=layer"]),
    ("tasks.NAME.choices", In::Keys, OWN_TASK, &[], &["tasks.mine.choices=d"]),
    ("tasks.NAME.context", In::Keys, OWN_TASK, &[], &["tasks.mine.context=p"]),
    ("tasks.NAME.file", In::Keys, OWN_TASK, &[], &["tasks.mine.file=other.jsonl"]),
    ("tasks.NAME.gold", In::Keys, OWN_TASK, &[], &["tasks.mine.gold=h"]),
];

/// Keys that have one value only, so that no two specs can differ in them.
const ONE_VALUE: [&str; 1] = ["prune.unit.mlp"];

/// Paths of all keys below a schema that hold a value.
fn leaves(schema: &Value, path: &str, out: &mut BTreeSet<String>) {
    let root = tyr::spec::schema();
    let target = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref")).and_then(Value::as_str);
    if let Some(target) = target {
        return leaves(root.pointer(target.trim_start_matches('#')).unwrap(), path, out);
    }
    let items = &schema["items"];
    let of_tables = items.get("$ref").is_some();
    match schema["type"].as_str() {
        Some("object") => {
            for (key, value) in schema["properties"].as_object().into_iter().flatten() {
                if !["sweep", "exclude", "profile"].contains(&key.as_str()) {
                    leaves(value, format!("{path}.{key}").trim_start_matches('.'), out);
                }
            }
            if schema["additionalProperties"].is_object() {
                leaves(&schema["additionalProperties"], &format!("{path}.NAME"), out);
            }
        }
        Some("array") if of_tables => leaves(items, &format!("{path}[0]"), out),
        _ => drop(out.insert(path.to_owned())),
    }
}

fn folder() -> Tiny {
    let tiny = Tiny::new();
    let write = |name: &str, text: &str| std::fs::write(tiny.path(name), text).unwrap();
    let text = String::from_utf8(tiny.read("train.txt")).unwrap();
    let (half, rest) = text.split_at(text.len() / 2);
    write("other.txt", half);
    let line = |a: &str, b: &str| format!("{}\n", serde_json::json!({ "text": a, "other": b }));
    write("lines.jsonl", &format!("{}{}", line(half, rest), line(rest, half)));
    let task = r#"{"q": "the cook", "p": "a cook", "c": [" a", " b"], "d": [" b", " c"], "g": 0, "h": 1}"#;
    write("own.jsonl", &format!("{task}\n"));
    write("other.jsonl", &format!("{task}\n{task}\n"));
    let row = |label: u8| format!("{{\"sentence1\": \"a\", \"sentence2\": \"b\", \"label\": {label}}}\n");
    for (label, hub) in [(0, "hub"), (1, "other_hub")] {
        std::fs::create_dir_all(tiny.path(&format!("{hub}/nyu-mll/glue/rte"))).unwrap();
        write(&format!("{hub}/nyu-mll/glue/rte/validation-0.jsonl"), &row(label));
    }
    // Says the version of a harness and nothing else.
    write("python", "#!/bin/sh\necho 0.4.13\n");
    std::fs::set_permissions(tiny.path("python"), std::fs::Permissions::from_mode(0o755)).unwrap();
    write("a.rhai", "fn fitness(m) { m.kl }");
    write("b.rhai", "fn fitness(m) { 2.0 * m.kl }");
    tiny
}

/// Begins the outcome of a spec that cannot be planned.
const FAILED: &str = "failed:";

/// What a spec comes to, as far as `what` tells.
fn outcome(tiny: &Tiny, what: In, set: &[&str]) -> String {
    let verb: &[&str] = match what {
        In::Keys | In::Plan => &["plan", "spec.toml", "--no-calibration", "--keys", "always", "--json"],
        In::Check => &["check", "spec.toml"],
        In::Run => &["run", "spec.toml", "--set", "search.generations=0", "--set", "supernet.levels=1"],
    };
    let mut command = tiny.tyr();
    command.args(verb);
    command.args(set.iter().flat_map(|set| ["--set", set]));
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (said, errors) = (text(output.stdout), text(output.stderr));
    match what {
        In::Check => format!("{:?} {errors}", output.status.code()),
        // The error and its place; the rest has times.
        In::Run => errors.lines().filter(|line| line.contains("/no/") || line.contains("//a")).collect(),
        In::Plan | In::Keys => {
            if !output.status.success() {
                return format!("{FAILED} {errors}");
            }
            let plan: Value = serde_json::from_str(&said).unwrap();
            if what == In::Plan { plan.to_string() } else { addresses(&plan) }
        }
    }
}

/// The addresses of the steps that have one before a run.
fn addresses(plan: &Value) -> String {
    let steps = plan["trials"][0]["steps"].as_array().unwrap();
    let known = steps.iter().filter_map(|step| step["key"]["known"].as_str());
    known.collect::<Vec<_>>().join(" ")
}

#[test]
fn every_key_makes_a_difference() {
    let mut keys = BTreeSet::new();
    leaves(tyr::spec::schema(), "", &mut keys);
    let rows = TABLE.iter().map(|(key, ..)| *key).chain(ONE_VALUE);
    assert_eq!(rows.map(str::to_owned).collect::<BTreeSet<_>>(), keys, "a row for every key of the schema");
    let tiny = folder();
    let mut known: BTreeMap<Vec<&str>, String> = BTreeMap::new();
    let mut idle = Vec::new();
    for (key, what, both, one, other) in TABLE {
        let mut of = |own: &[&'static str]| {
            let set = [*both, own].concat();
            let make = |set: &[&str]| outcome(&tiny, *what, set);
            if *what != In::Keys {
                return make(&set);
            }
            known.entry(set.clone()).or_insert_with(|| make(&set)).clone()
        };
        let (one, other) = (of(one), of(other));
        let failed = |outcome: &String| outcome.is_empty() || outcome.starts_with(FAILED);
        if one == other || failed(&one) || failed(&other) {
            idle.push(format!("{key}: {one} and {other}"));
        }
    }
    assert!(idle.is_empty(), "without effect:\n{}", idle.join("\n"));
}
