//! Estimates against measurements: an experiment is planned, run, and compared with its own records of memory
//! and disk, and with the numbers of tokens that it scored. Times are not asserted, since they depend on what
//! else the machine does: `scripts/planned_against_measured` reports them.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod common;
#[path = "../src/base/testing.rs"]
mod testing;

use std::collections::BTreeMap;
use std::path::Path;

use common::Tiny;
use testing::shared;
use tyr::model::pico::Pico;

/// A step's numbers, planned and measured.
#[derive(Debug, Clone, Copy)]
struct Pair {
    planned: f64,
    measured: f64,
}

impl Pair {
    fn ratio(self) -> f64 {
        self.planned / self.measured
    }
}

/// Memory, disk and counts of an experiment by step.
struct Compared {
    memory: BTreeMap<String, Pair>,
    disk: BTreeMap<String, Pair>,
    counts: BTreeMap<String, Pair>,
}

fn tyr(folder: &Path, arguments: &[&str]) -> String {
    let mut command = assert_cmd::Command::cargo_bin("tyr").unwrap();
    let done = command.current_dir(folder).args(arguments).assert().success();
    String::from_utf8(done.get_output().stdout.clone()).unwrap()
}

/// Plans and runs `spec.toml` of a folder.
fn compare(folder: &Path) -> Compared {
    let plan: serde_json::Value =
        serde_json::from_str(&tyr(folder, &["plan", "spec.toml", "--json", "--no-calibration"])).unwrap();
    tyr(folder, &["run", "spec.toml"]);
    let home = folder.join("runs").join(plan["name"].as_str().unwrap());
    let timings = std::fs::read_to_string(home.join("timings.csv")).unwrap();
    let measured = |metric: &str| {
        timings
            .lines()
            .find(|l| l.split(',').nth(2) == Some(metric))
            .map(|l| l.split(',').nth(3).unwrap().parse::<f64>().unwrap())
    };
    let mut compared =
        Compared { memory: BTreeMap::new(), disk: BTreeMap::new(), counts: counts(&plan, &home) };
    for step in plan["trials"][0]["steps"].as_array().unwrap().iter().filter(|s| s["key"] != "none") {
        let name = step["name"].as_str().unwrap().to_string();
        let estimate = &step["estimate"];
        let pair = |what: &str, measured: f64| Pair { planned: estimate[what].as_f64().unwrap(), measured };
        compared
            .memory
            .insert(name.clone(), pair("memory", measured(&format!("peak_bytes/{name}")).unwrap()));
        let entry = step["key"]["known"].as_str().map(|key| size_of(&home.join("store").join(key)));
        compared.disk.extend(entry.map(|size| (name.clone(), pair("disk", size))));
    }
    let disk: f64 = plan["trials"][0]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["estimate"]["disk"].as_f64().unwrap())
        .sum();
    compared.disk.insert("all".into(), Pair { planned: disk, measured: size_of(&home.join("store")) });
    compared
}

/// What is counted rather than measured: parameters, and the tokens that candidates and the pruned model are
/// compared on. Every experiment here has one iteration.
fn counts(plan: &serde_json::Value, home: &Path) -> BTreeMap<String, Pair> {
    let trial = &plan["trials"][0];
    let results = std::fs::read_to_string(home.join("results.csv")).unwrap();
    let figure = |model: &str, metric: &str, column: usize| {
        let line = results.lines().find(|l| l.split(',').skip(1).take(2).eq([model, metric])).unwrap();
        line.split(',').nth(column).unwrap().parse::<f64>().unwrap()
    };
    let parameters = trial["parameters"].as_array().unwrap().last().unwrap();
    let pair =
        |planned: &serde_json::Value, measured: f64| Pair { planned: planned.as_f64().unwrap(), measured };
    BTreeMap::from([
        ("parameters".into(), pair(&parameters["before"], figure("dense", "parameters", 3))),
        ("tokens of the divergence".into(), pair(&trial["tokens"]["kl"], figure("uniform", "kl", 5))),
        ("tokens of candidates".into(), pair(&trial["tokens"]["candidates"], candidate_tokens(home))),
    ])
}

/// Tokens that candidates were scored on, summed over candidates, by the search's own log.
fn candidate_tokens(home: &Path) -> f64 {
    let entries = std::fs::read_dir(home.join("store")).unwrap().flatten();
    let logs: Vec<String> =
        entries.filter_map(|e| std::fs::read_to_string(e.path().join("generations.jsonl")).ok()).collect();
    assert_eq!(logs.len(), 1, "one search");
    let generations = logs[0].lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let tokens = generations.map(|generation| {
        let stages = generation["record"]["stages"].as_array().unwrap().iter();
        stages.map(|s| s["tokens"].as_f64().unwrap() * s["candidates"].as_f64().unwrap()).sum::<f64>()
    });
    tokens.sum()
}

fn size_of(folder: &Path) -> f64 {
    let sizes = std::fs::read_dir(folder).unwrap().flatten().map(|e| match e.path() {
        path if path.is_dir() => size_of(&path),
        path => path.metadata().unwrap().len() as f64,
    });
    sizes.sum()
}

/// Memory and disk within 25%, of the whole run and of each supernet and search; counts exactly.
fn assert_within(what: &str, compared: &Compared) {
    let show = |kind: &str, pairs: &BTreeMap<String, Pair>| {
        pairs.iter().map(|(n, p)| format!("{what} {kind} {n}: {p:?} {:.2}\n", p.ratio())).collect::<String>()
    };
    eprintln!(
        "{}{}{}",
        show("memory", &compared.memory),
        show("disk", &compared.disk),
        show("count", &compared.counts)
    );
    let peak = |f: fn(&Pair) -> f64| compared.memory.values().map(f).fold(0.0, f64::max);
    let mut wrong = Vec::new();
    let mut check = |name: &str, pair: Pair, factor: f64| {
        if !(1.0 / factor..=factor).contains(&pair.ratio()) {
            wrong.push(format!("{what} {name}: {pair:?} {:.2}", pair.ratio()));
        }
    };
    check("peak memory", Pair { planned: peak(|p| p.planned), measured: peak(|p| p.measured) }, 1.25);
    check("disk", compared.disk["all"], 1.25);
    for (name, pair) in &compared.counts {
        check(name, *pair, 1.0);
    }
    for (name, pair) in compared.memory.iter().filter(|(name, _)| is_main(name)) {
        check(&format!("memory of {name}"), *pair, 1.25);
    }
    for (name, pair) in
        compared.disk.iter().filter(|(name, _)| name.starts_with("supernet") || name.starts_with("compact"))
    {
        check(&format!("disk of {name}"), *pair, 1.25);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn is_main(name: &str) -> bool {
    name.starts_with("supernet") || name.starts_with("search")
}

/// A folder with this spec.
fn folder(spec: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("spec.toml"), spec).unwrap();
    dir
}

const BUILT_IN: &str = r#"
name = "built-in"
[calibration]
corpus = "quickstart"
tokens = 12_288
sequence_length = 256
[supernet]
intervals = [0.125]
[search]
generations = 2
patience = 0
offspring = 16
stages = [{ tokens = 512, survivors = 4 }, { tokens = 4096, survivors = 1 }]
tokens = 8192
[evaluate]
tokens = 8192
kl_tokens = 2048
tasks = ["quickstart"]
limit = 20
"#;

#[test]
#[ignore = "slow: part of the slow checks"]
fn the_built_in_model_takes_what_was_planned() {
    assert_within("built-in", &compare(folder(BUILT_IN).path()));
}

#[test]
#[ignore = "slow: part of the slow checks"]
fn a_model_of_wikitext_takes_what_was_planned() {
    let (Some(model), Some(text)) = (shared("models/wt2-llama"), shared("data/wikitext2/test.txt")) else {
        return;
    };
    let names = format!(
        "name = \"wikitext\"\n[model]\nsource = {model:?}\n[corpora.text]\ntrain = [{text:?}]\ntest = [{:?}]\n",
        text.with_file_name("valid.txt")
    );
    let spec = BUILT_IN
        .replace("name = \"built-in\"", &names)
        .replace("corpus = \"quickstart\"", "corpus = \"text\"");
    let spec = spec
        .replace("[evaluate]", "[evaluate]\nperplexity = [\"text\"]")
        .replace("tasks = [\"quickstart\"]\nlimit = 20\n", "");
    assert_within("wikitext", &compare(folder(&spec).path()));
}

#[test]
#[ignore = "slow: part of the slow checks"]
fn a_random_model_of_other_sizes_takes_what_was_planned() {
    let pico = Pico {
        layers: 2,
        hidden: 512,
        heads: 8,
        kv_heads: 8,
        neurons: 1280,
        vocabulary: 68,
        ..Pico::default()
    };
    let tiny = Tiny::of(pico);
    let text = |split| tyr::builtin::text(split, 60_000);
    std::fs::write(tiny.path("train.txt"), text(tyr::builtin::Split::Calibration)).unwrap();
    let spec = crate::common::SPEC
        .replace("tokens = 1024\nsequence_length = 32", "tokens = 8192\nsequence_length = 64")
        .replace("intervals = [0.25, 0.125]", "intervals = [0.25]");
    let spec = spec
        .replace("[search]\ngenerations = 3", "[search]\ngenerations = 2\npatience = 0")
        .replace("tokens = 64,", "tokens = 512,")
        .replace("tokens = 256,", "tokens = 4096,");
    std::fs::write(
        tiny.path("spec.toml"),
        spec.replace("]\ntokens = 1024\n\n[evaluate]", "]\ntokens = 8192\n\n[evaluate]"),
    )
    .unwrap();
    assert_within("random", &compare(tiny.dir.path()));
}
