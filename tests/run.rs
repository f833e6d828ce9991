//! `tyr run` from the outside: what it leaves, that it resumes, that it repeats, and what it says when
//! something is wrong.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use common::{Tiny, failure};
use tyr::model::pico::Pico;
use tyr::model::save::{save, with_layers};
use tyr::model::{Config, LayerShape, Model, Source};

/// Final artefacts, which must be equal byte for byte.
const ARTEFACTS: [&str; 7] = [
    "results.csv",
    "results.md",
    "results.json",
    "trials/main/distribution.json",
    "trials/main/model/config.json",
    "trials/main/model/model.safetensors",
    "trials/main/model/README.md",
];

fn artefacts(tiny: &Tiny) -> Vec<Vec<u8>> {
    ARTEFACTS.iter().map(|name| tiny.read(&format!("runs/tiny/{name}"))).collect()
}

#[track_caller]
fn assert_same(a: &[Vec<u8>], b: &[Vec<u8>]) {
    for ((name, a), b) in ARTEFACTS.iter().zip(a).zip(b) {
        let text = |bytes: &[u8]| {
            if name.contains("safetensors") {
                String::new()
            } else {
                String::from_utf8_lossy(bytes).into_owned()
            }
        };
        assert!(a == b, "{name} differs:\n{}\n{}", text(a), text(b));
    }
}

/// What every layer of a model of a run keeps: query heads of each key/value head, and neurons.
fn kept(tiny: &Tiny) -> Vec<(Vec<usize>, usize)> {
    let source = Source::folder(&tiny.path("runs/tiny/trials/main/model")).unwrap();
    let model = Model::open(&source, &Device::Cpu).unwrap();
    let layers = model.config().layers.iter();
    layers.map(|layer| (layer.query_heads_per_kv.clone(), layer.intermediate_size)).collect()
}

#[test]
fn layers_that_stay_alike_are_the_same_in_the_model_that_is_written() {
    let tiny = Tiny::new();
    let set =
        ["sparsity.shape=uniform", "sparsity.target=0.4", "prune.align.neurons=16", "evaluate.tasks=[]"];
    tiny.run(&set.map(|set| ["--set", set]).concat()).success();
    // 1.6 of 4 query heads are one of each key/value head, 19.2 of 48 neurons one multiple.
    assert_eq!(kept(&tiny), vec![(vec![1, 1], 32); 2]);
    let csv = String::from_utf8(tiny.read("runs/tiny/results.csv")).unwrap();
    assert!(csv.contains("main,refit,sparsity,") && csv.contains("main,uniform,kl,"), "{csv}");
    assert!(!csv.contains("iteration-1"), "{csv}");
}

#[test]
fn what_a_search_finds_keeps_to_the_bounds() {
    let tiny = Tiny::new();
    let bounds = [
        "prune.align={ neurons = 8, heads = 'equal' }",
        "prune.keep_at_least={ heads = 2, neurons = 16 }",
        "supernet.intervals=[0.125]",
        "evaluate.tasks=[]",
    ];
    tiny.run(&bounds.map(|set| ["--set", set]).concat()).success();
    let kept = kept(&tiny);
    for (heads, neurons) in &kept {
        assert!(heads.len() == 2 && heads[0] == heads[1] && heads[0] > 0, "{kept:?}");
        assert!(neurons % 8 == 0 && *neurons >= 16, "{kept:?}");
    }
    assert_eq!(kept.iter().map(|(_, neurons)| neurons).sum::<usize>(), 48);
    let csv = String::from_utf8(tiny.read("runs/tiny/results.csv")).unwrap();
    assert!(csv.contains("main,iteration-1,sparsity,0.5"), "{csv}");
}

#[test]
fn a_run_leaves_tidy_results_and_a_model_that_loads() {
    let tiny = Tiny::new();
    tiny.run(&[]).success();
    let csv = String::from_utf8(tiny.read("runs/tiny/results.csv")).unwrap();
    assert!(csv.starts_with("trial,model,metric,value,stderr,n\n"), "{csv}");
    for model in ["dense", "uniform", "iteration-1", "iteration-2", "refit"] {
        for metric in [
            "parameters",
            "sparsity",
            "perplexity/text",
            "acc/quickstart/yesno",
            "acc_norm/quickstart/counting",
            "acc_mean",
        ] {
            assert!(
                csv.contains(&format!("main,{model},{metric},")),
                "{model} {metric} is missing in\n{csv}"
            );
        }
    }
    assert!(csv.contains("main,uniform,kl,") && !csv.contains("main,dense,kl,"));
    assert!(!csv.contains("seconds/"), "timings have a file of their own");
    let arguments = [
        "eval",
        "runs/tiny/trials/main/model",
        "--text",
        "test.txt",
        "--sequence-length",
        "32",
        "--tokens",
        "1024",
        "--csv",
    ];
    let measured = tiny.tyr().args(arguments).assert().success();
    let printed = String::from_utf8_lossy(&measured.get_output().stdout).into_owned();
    assert!(printed.contains(&perplexity_of(&csv, "refit")), "{printed}\n{csv}");
    let card = String::from_utf8(tiny.read("runs/tiny/trials/main/model/README.md")).unwrap();
    let perplexity: f64 = perplexity_of(&csv, "refit").parse().unwrap();
    for words in
        ["# tiny, main: refit", "`model` pruned by tyr", "| perplexity/text", &format!("{perplexity:.2} ±")]
    {
        assert!(card.contains(words), "{words}\n{card}");
    }
    assert!(
        card.contains("source = \"model\"") && !card.contains(tiny.dir.path().to_str().unwrap()),
        "{card}"
    );
}

/// The perplexity that a run found for a model, as its CSV prints it.
fn perplexity_of(csv: &str, model: &str) -> String {
    let line = csv.lines().find(|l| l.starts_with(&format!("main,{model},perplexity/text,"))).unwrap();
    line.split(',').nth(3).unwrap().to_string()
}

/// Parameters of a model in a run's table.
fn parameters(tiny: &Tiny, model: &str) -> f64 {
    let csv = String::from_utf8(tiny.read("runs/tiny/results.csv")).unwrap();
    let line = csv.lines().find(|l| l.starts_with(&format!("main,{model},parameters,"))).unwrap();
    line.split(',').nth(3).unwrap().parse().unwrap()
}

#[test]
fn uniform_and_searched_models_have_the_same_size() {
    let tiny = Tiny::new();
    tiny.run(&["--set", "prune.unit.attention=\"kv_group\""]).success();
    let [dense, uniform, searched] = ["dense", "uniform", "refit"].map(|model| parameters(&tiny, model));
    assert!(dense > uniform);
    assert!((uniform - searched).abs() < 0.005 * uniform, "{uniform} and {searched}");
}

#[test]
fn models_of_pruned_heads_differ_in_size_by_whole_key_value_heads() {
    let tiny = Tiny::new();
    tiny.run(&[]).success();
    let [uniform, searched] = ["uniform", "refit"].map(|model| parameters(&tiny, model));
    let config = Pico { layers: 2, ..Pico::default() }.config().unwrap();
    // A key/value head, which leaves with its last query head: its rows of k and of v.
    let own = (2 * config.head_width * config.hidden) as f64;
    let heads = (uniform - searched) / own;
    assert_eq!(heads.fract(), 0.0, "{uniform} and {searched}");
    assert!(heads.abs() <= (config.layers.len() * config.kv_heads) as f64);
}

#[test]
fn the_same_spec_and_seed_give_the_same_bytes_and_another_seed_others() {
    let a = Tiny::new();
    let b = Tiny::new();
    a.run(&[]).success();
    b.run(&[]).success();
    assert_same(&artefacts(&a), &artefacts(&b));
    b.run(&["--set", "seed=7", "--runs", "other"]).success();
    assert_ne!(
        a.read("runs/tiny/trials/main/model/model.safetensors"),
        b.read("other/tiny/trials/main/model/model.safetensors")
    );
}

#[test]
fn a_second_run_takes_everything_from_the_store() {
    let tiny = Tiny::new();
    tiny.run(&[]).success();
    let before = artefacts(&tiny);
    tiny.run(&[]).success();
    assert_same(&artefacts(&tiny), &before);
    let events = String::from_utf8(tiny.read("runs/tiny/trials/main/events.jsonl")).unwrap();
    let again = &events[events.rfind("trial_started").unwrap()..];
    assert!(again.contains("\"cache\":\"hit\"") && !again.contains("\"cache\":\"miss\""));
}

#[test]
fn a_damaged_store_entry_is_found_and_recomputed() {
    let tiny = Tiny::new();
    tiny.run(&[]).success();
    let before = artefacts(&tiny);
    let store = tiny.path("runs/tiny/store");
    for entry in std::fs::read_dir(&store).unwrap().flatten() {
        let file = entry.path().join("layer-000-mlp.safetensors");
        if file.exists() {
            std::fs::write(&file, b"not what was written").unwrap();
        }
    }
    tiny.run(&[]).success();
    // The tables tell of the damage; the numbers, the distribution and the model are as before.
    let numbers = |all: &[Vec<u8>]| [&all[..1], &all[3..]].concat();
    assert!(numbers(&artefacts(&tiny)) == numbers(&before));
    assert!(String::from_utf8(tiny.read("runs/tiny/results.md")).unwrap().contains("is rebuilt"));
}

/// Kills a run after each of some delays and runs it to the end.
fn kill_and_resume(kills: u32) {
    let whole = Tiny::new();
    let began = Instant::now();
    whole.run(&[]).success();
    let want = artefacts(&whole);
    let lasted = began.elapsed();
    let killed = Tiny::new();
    for i in 0..kills {
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("tyr"))
            .args(["run", "spec.toml"])
            .current_dir(killed.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Moments spread over the whole run by the golden ratio.
        std::thread::sleep(
            lasted.mul_f64((f64::from(i) * 0.618_033_988) % 1.0).max(Duration::from_millis(5)),
        );
        child.kill().unwrap();
        child.wait().unwrap();
        if i % 10 == 9 {
            std::fs::remove_dir_all(killed.path("runs")).ok();
        }
    }
    killed.run(&[]).success();
    assert_same(&artefacts(&killed), &want);
}

#[test]
fn a_run_killed_now_and_then_ends_with_the_same_bytes() {
    kill_and_resume(6);
}

#[test]
#[ignore = "slow: part of the slow checks"]
fn a_run_killed_fifty_times_ends_with_the_same_bytes() {
    kill_and_resume(50);
}

#[test]
fn one_trial_that_fails_does_not_hide_the_others() {
    let tiny = Tiny::new();
    let spec = format!("{}\n[[sweep]]\nkey = \"sparsity.target\"\nvalues = [0.001, 0.5]\n", common::SPEC);
    std::fs::write(tiny.path("spec.toml"), spec).unwrap();
    let (code, printed) = failure(tiny.run(&[]));
    assert_eq!(code, 10, "{printed}");
    assert!(printed.contains("1 of 2 trials failed"), "{printed}");
    assert!(
        String::from_utf8(tiny.read("runs/tiny/results.csv"))
            .unwrap()
            .contains("target=0.5,iteration-2,perplexity/text,")
    );
}

#[test]
fn what_cannot_work_is_one_clear_error_with_its_exit_code() {
    let tiny = Tiny::new();
    let prints = |arguments: &[&str], code: i32, words: &[&str]| {
        let (got, printed) = failure(tiny.run(arguments));
        assert_eq!(got, code, "{arguments:?}: {printed}");
        words
            .iter()
            .for_each(|w| assert!(printed.contains(w), "{arguments:?} does not say {w:?}:\n{printed}"));
        assert!(!printed.contains("panicked"), "{printed}");
    };
    prints(&["--set", "prune.dampnig=0.1"], 3, &["dampnig", "damping"]);
    prints(&["--set", "sparsity.target=1.5"], 3, &["sparsity.target"]);
    prints(&["--set", "sparsity.target=0.001"], 6, &["less than one unit"]);
    prints(
        &["--set", "calibration.tokens=1048576"],
        5,
        &["corpus `text`", "1049600", "calibration and search"],
    );
    prints(&["--set", "model.source=nowhere"], 3, &["nowhere"]);
    prints(&["--profile", "none"], 3, &["none"]);
    std::fs::write(tiny.path("model/model.safetensors"), b"short").unwrap();
    prints(&[], 4, &["model.safetensors"]);
    std::fs::remove_file(tiny.path("model/model.safetensors")).unwrap();
    prints(&[], 4, &["model.safetensors is missing"]);
    std::fs::remove_file(tiny.path("model/tokenizer.json")).unwrap();
    Pico { layers: 2, vocabulary: 68, ..Pico::default() }.write(&tiny.path("fresh"), 4).unwrap();
    std::fs::copy(tiny.path("fresh/model.safetensors"), tiny.path("model/model.safetensors")).unwrap();
    prints(&[], 4, &["tokenizer.json is missing"]);
}

/// Changes one tensor of the tiny model.
fn change_tensor(tiny: &Tiny, name: &str, change: impl Fn(&Tensor) -> Tensor) {
    let path = tiny.path("model/model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let changed = change(&tensors[name]);
    tensors.insert(name.into(), changed);
    candle_core::safetensors::save(&tensors, &path).unwrap();
}

#[test]
fn weights_that_are_no_numbers_or_too_large_for_their_dtype_end_with_exit_code_9() {
    let tiny = Tiny::new();
    let says = |failed: assert_cmd::assert::Assert, words: &[&str]| {
        let (code, printed) = failure(failed);
        assert!(code == 9 && words.iter().all(|w| printed.contains(w)), "{code}: {printed}");
    };
    let queries = "model.layers.0.self_attn.q_proj.weight";
    change_tensor(&tiny, queries, |weight| (weight * 1e6).unwrap());
    let narrow = [
        "--set",
        "model.dtype=f16",
        "--set",
        "evaluate.tasks=[]",
        "--set",
        "search.start=uniform",
        "--set",
        "search.generations=0",
    ];
    says(tiny.run(&narrow), &[queries, "too large for f16"]);
    let down = "model.layers.1.mlp.down_proj.weight";
    change_tensor(&tiny, down, |weight| (weight * f64::NAN).unwrap());
    says(tiny.run(&[]), &[down, "NaN"]);
    let tasks = ["eval", "model", "--tasks", "quickstart/yesno", "--limit", "2"];
    says(tiny.tyr().args(tasks).assert(), &[down]);
    let text = ["eval", "model", "--text", "test.txt", "--sequence-length", "32", "--csv"];
    says(tiny.tyr().args(text).assert(), &[down]);
    says(tiny.tyr().args(["generate", "model", "--prompt", "a"]).assert(), &[down]);
}

#[test]
fn a_pruned_model_is_refused_as_the_model_to_prune_and_can_be_evaluated() {
    let tiny = Tiny::new();
    let source = Source::folder(&tiny.path("model")).unwrap();
    let dense = Config::parse(&source.text("config.json").unwrap()).unwrap();
    let fewer = |neurons| LayerShape { intermediate_size: neurons, ..dense.dense_layer() };
    let pruned = with_layers(&dense, vec![fewer(48), fewer(7)]).unwrap();
    save(&tiny.path("pruned"), &pruned, &source, safetensors::Dtype::F32, |tensor| {
        Ok(vec![0.1; tensor.shape.iter().product()])
    })
    .unwrap();
    for (verb, expected) in [("run", 4), ("plan", 4), ("check", 3)] {
        let arguments = [verb, "spec.toml", "--set", "model.source=pruned"];
        let (code, printed) = failure(tiny.tyr().args(arguments).assert());
        let told = ["the model is a pruned one", "name the dense model in model.source"];
        assert!(code == expected && told.iter().all(|words| printed.contains(words)), "{verb}: {printed}");
    }
    let text = ["eval", "pruned", "--text", "test.txt", "--sequence-length", "32", "--tokens", "256"];
    tiny.tyr().args(text).assert().success();
}

#[test]
fn a_space_without_a_legal_move_says_so() {
    let tiny = Tiny::of(Pico { layers: 1, vocabulary: 68, ..Pico::default() });
    let (code, printed) = failure(tiny.run(&[]));
    assert_eq!(code, 6, "{printed}");
    assert!(printed.contains("no legal flip"), "{printed}");
    tiny.run(&["--set", "search.generations=0"]).success();
}

#[test]
fn pruned_models_are_compared_with_the_dense_one_on_the_same_documents() {
    let tiny = Tiny::new();
    let limit = ["--set", "evaluate.limit=40"];
    tiny.run(&limit).success();
    let csv = String::from_utf8(tiny.read("runs/tiny/results.csv")).unwrap();
    let fields = |model: &str, metric: &str| -> Vec<String> {
        let line = csv.lines().find(|l| l.starts_with(&format!("main,{model},{metric},")));
        line.unwrap_or_else(|| panic!("{model} {metric} is missing in\n{csv}"))
            .split(',')
            .skip(3)
            .map(String::from)
            .collect()
    };
    let value = |model: &str, metric: &str| -> f64 { fields(model, metric)[0].parse().unwrap() };
    for model in ["uniform", "iteration-2", "refit"] {
        for task in ["quickstart/yesno", "quickstart/counting"] {
            let difference = value(model, &format!("acc/{task}")) - value("dense", &format!("acc/{task}"));
            assert!((value(model, &format!("acc_diff/{task}")) - difference).abs() < 1e-12, "{model} {task}");
            assert_eq!(fields(model, &format!("acc_diff/{task}"))[2], "40");
        }
        let pruned = value(model, "acc_mean");
        let dense = value("dense", "acc_mean");
        assert!((value(model, "acc_diff_mean") - (pruned - dense)).abs() < 1e-12);
        assert!((value(model, "acc_retained") - pruned / dense).abs() < 1e-12);
    }
    assert!(!csv.contains("main,dense,acc_diff") && !csv.contains("main,dense,acc_retained"));
    let markdown = String::from_utf8(tiny.read("runs/tiny/results.md")).unwrap();
    assert!(
        markdown.contains("gainst dense on the same documents") && !markdown.contains("tokens asked"),
        "{markdown}"
    );
    let events = String::from_utf8(tiny.read("runs/tiny/trials/main/events.jsonl")).unwrap();
    assert!(events.contains("dense: native tasks: ") && events.contains(" tokens asked, "), "{events}");
    let arguments = [
        "eval",
        "runs/tiny/trials/main/model",
        "--baseline",
        "model",
        "--tasks",
        "quickstart/yesno,quickstart/counting",
    ];
    let measured = tiny
        .tyr()
        .args(arguments)
        .args(["--limit", "40", "--csv", "--samples", "samples.json"])
        .assert()
        .success();
    let printed = String::from_utf8_lossy(&measured.get_output().stdout).into_owned();
    for metric in
        ["acc_diff/quickstart/yesno", "acc_norm_diff/quickstart/counting", "acc_diff_mean", "acc_retained"]
    {
        assert!(
            printed.contains(&format!("model,{metric},{}\n", fields("refit", metric).join(","))),
            "{metric}: {printed}"
        );
    }
    assert!(String::from_utf8(tiny.read("samples.json")).unwrap().contains("loglikelihoods"));
    failure(tiny.tyr().args(["eval", "model", "--text", "test.txt", "--samples", "samples.json"]).assert());
}

const WITHOUT_SEARCH: [&str; 4] = ["--set", "search.start=uniform", "--set", "search.generations=0"];

#[test]
fn a_damaged_log_of_samples_is_recomputed() {
    let tiny = Tiny::new();
    tiny.run(&WITHOUT_SEARCH).success();
    let before = tiny.read("runs/tiny/results.csv");
    let entries = std::fs::read_dir(tiny.path("runs/tiny/store"))
        .unwrap()
        .flatten()
        .map(|e| e.path().join("samples.json"));
    let logs: Vec<_> = entries.filter(|path| path.exists()).collect();
    assert_eq!(logs.len(), 3, "of the dense model, of the uniform one and of its refit");
    logs.iter().for_each(|log| std::fs::write(log, b"{}").unwrap());
    tiny.run(&WITHOUT_SEARCH).success();
    assert_eq!(tiny.read("runs/tiny/results.csv"), before);
    assert!(String::from_utf8(tiny.read("runs/tiny/results.md")).unwrap().contains("is rebuilt"));
}
