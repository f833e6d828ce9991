//! Exports from the outside: as a step of a trial, kept, resumed and tabulated, and as a verb.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod common;
mod runtimes_support;

use std::collections::BTreeMap;

use common::{SPEC, Tiny, failure};
use tyr::model::pico::Pico;

fn tiny(more: &str) -> Tiny {
    // Its tokenizer is one that llama.cpp knows.
    let tiny = Tiny::of(Pico { layers: 2, ..Pico::of_bytes(2048) });
    std::fs::write(tiny.path("spec.toml"), format!("{SPEC}\n{more}\n")).unwrap();
    tiny
}

/// A verb that succeeds: what it prints.
fn prints(tiny: &Tiny, arguments: &[&str]) -> String {
    let done = tiny.tyr().args(arguments).assert().success();
    String::from_utf8(done.get_output().stdout.clone()).unwrap()
}

/// A verb that fails: its exit code and what it says.
fn fails(tiny: &Tiny, arguments: &[&str]) -> (i32, String) {
    failure(tiny.tyr().args(arguments).assert())
}

/// The values of `results.csv` by metric, of one model.
fn figures(tiny: &Tiny, model: &str) -> BTreeMap<String, f64> {
    let csv = String::from_utf8(tiny.read("runs/tiny/results.csv")).unwrap();
    let rows = csv.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
    let of_model = rows.filter(|cells| cells[1] == model);
    of_model.map(|cells| (cells[2].to_owned(), cells[3].parse().unwrap())).collect()
}

const ALL: &str = "[export]\nto = [\"gguf\", \"mlx\", \"hf\", \"stock\"]\ngguf = \"f32\"";

#[test]
fn a_trial_exports_its_last_model_compares_it_and_keeps_that() {
    let tiny = tiny(ALL);
    // Three generations make layers that differ.
    let spec = SPEC.replace("generations = 3", "generations = 3\npatience = 0");
    std::fs::write(tiny.path("spec.toml"), format!("{spec}\n{ALL}\n")).unwrap();
    let plan = prints(&tiny, &["plan", "spec.toml", "--no-calibration"]);
    tiny.run(&[]).success();
    let figures = figures(&tiny, "refit");
    let exports = tiny.path("runs/tiny/trials/main/exports");
    for form in ["gguf", "mlx", "hf", "stock"] {
        assert!(plan.contains(&format!("export-{form}-refit")), "{plan}");
        let files = std::fs::read_dir(exports.join(form)).unwrap().map(|e| e.unwrap());
        let mut sizes: BTreeMap<_, _> = files
            .map(|file| (file.file_name().into_string().unwrap(), file.metadata().unwrap().len()))
            .collect();
        assert!(sizes.remove("README.md").is_some(), "{form}: a card");
        let card = std::fs::read_to_string(exports.join(form).join("README.md")).unwrap();
        assert!(card.contains("## Against the model") && !card.contains("export_"), "{form}: {card}");
        assert!(!card.contains("FILE.gguf"), "{form}: {card}");
        let bytes = figures[&format!("export_bytes/{form}")];
        assert_eq!(sizes.values().sum::<u64>() as f64, bytes, "{form}: {sizes:?}");
        assert!(!sizes.contains_key("figures.json"), "{form}: {sizes:?}");
        let difference = figures[&format!("export_logit_difference/{form}")];
        assert!((0.0..1e-4).contains(&difference), "{form}: {difference}");
        let there = figures[&format!("export_perplexity/{form}")];
        let here = figures["perplexity/text"];
        assert!((there / here - 1.0).abs() < 1e-4, "{form}: {there} and {here}");
    }
    // A card has the sizes that are written.
    let mlx = |name: &str| std::fs::read_to_string(exports.join("mlx").join(name)).unwrap();
    let config: serde_json::Value = serde_json::from_str(&mlx("config.json")).unwrap();
    let card = mlx("README.md");
    assert!(card.contains("written with equal ones"), "its layers are not the model's: {card}");
    for (layer, heads) in config["num_query_heads"].as_array().unwrap().iter().enumerate() {
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let is_own =
            |row: &Vec<String>| row.len() > 2 && [layer.to_string(), "all 2".into()].contains(&row[1]);
        let row = card.lines().map(cells).find(is_own).unwrap_or_else(|| panic!("{card}"));
        assert!(row[2].starts_with(&format!("{heads}/")), "{heads} query heads: {row:?}");
    }
    let table = String::from_utf8(tiny.read("runs/tiny/results.md")).unwrap();
    assert!(
        table.contains("Exports, read back and compared with the model") && table.contains("| stock"),
        "{table}"
    );

    let before = tiny.read("runs/tiny/results.csv");
    std::fs::remove_dir_all(&exports).unwrap();
    tiny.run(&[]).success();
    assert!(exports.join("gguf").is_dir() && before == tiny.read("runs/tiny/results.csv"));
    let log = String::from_utf8(tiny.read("runs/tiny/trials/main/events.jsonl")).unwrap();
    let made = log.lines().filter(|line| line.contains("step_started") && line.contains("export-"));
    assert_eq!(made.count(), 4, "made once each");
}

#[test]
fn a_form_that_is_asked_for_later_is_all_that_is_made() {
    let tiny = tiny("");
    std::fs::write(
        tiny.path("spec.toml"),
        SPEC.replace("generations = 3", "start = \"uniform\"\ngenerations = 0"),
    )
    .unwrap();
    tiny.run(&[]).success();
    let dense_only =
        prints(&tiny, &["plan", "spec.toml", "--no-calibration", "--set", "export.to=['stock']"]);
    assert!(dense_only.contains("export-stock-refit"), "{dense_only}");
    tiny.run(&["--set", "export.to=['stock']"]).success();
    let log = String::from_utf8(tiny.read("runs/tiny/trials/main/events.jsonl")).unwrap();
    let last = log.rsplit("trial_started").next().unwrap();
    let made: Vec<&str> = last.lines().filter(|line| line.contains("step_started")).collect();
    assert!(made.len() == 1 && made[0].contains("export-stock-refit"), "{made:?}");
}

#[test]
fn the_verb_takes_a_model_or_a_run_and_says_what_came_of_it() {
    let tiny = tiny("");
    tiny.run(&["--set", "search.generations=1"]).success();
    let ended = prints(&tiny, &["run", "spec.toml", "--set", "search.generations=1"]);
    assert!(
        ended.contains("trials/main/model") && ended.contains("tyr export runs/tiny --to gguf"),
        "{ended}"
    );

    let of_run = prints(&tiny, &["export", "runs/tiny", "--to", "gguf,stock", "--gguf", "f32"]);
    assert!(of_run.contains("tiny-gguf") && of_run.contains("tiny-stock"), "{of_run}");
    assert!(of_run.contains("on 1024 tokens of the held-out text of corpus \"text\""), "{of_run}");
    assert!(tiny.path("tiny-stock/config.json").is_file());
    // Its card says what the trial's says, and how far the export is from the model.
    let card = |path: &str| String::from_utf8(tiny.read(path)).unwrap();
    let scores = |card: &str| card.split("## ").find(|part| part.starts_with("Scores")).unwrap().to_owned();
    let own = card("tiny-gguf/README.md");
    assert_eq!(scores(&own), scores(&card("runs/tiny/trials/main/model/README.md")));
    assert!(own.contains("## Against the model") && own.contains("of corpus \"text\""), "{own}");
    assert!(own.contains("-m model-f32.gguf") && !own.contains("FILE.gguf"), "{own}");
    let uniform = ["export", "runs/tiny", "--model", "uniform", "--to", "hf", "--out", "out/uniform"];
    assert!(prints(&tiny, &uniform).contains("out/uniform"));
    assert!(tiny.path("out/uniform/model.safetensors").is_file());
    // The folder of the trial is as good as that of the run.
    let of_trial = ["export", "runs/tiny/trials/main", "--to", "mlx"];
    assert!(prints(&tiny, &of_trial).contains("tiny-main-mlx"));
    let (code, said) = fails(&tiny, &["export", "runs/tiny/trials/main", "--trial", "other", "--to", "mlx"]);
    assert!(code == 2 && said.contains("leave --trial out"), "{said}");
    for run in ["runs/tiny", "runs/tiny/trials/main"] {
        for line in [&["bench", run][..], &["generate", run, "--prompt", "a"]] {
            let (code, said) = fails(&tiny, line);
            assert!(code == 2 && said.contains("its model: runs/tiny/trials/main/model"), "{line:?}: {said}");
        }
    }
    prints(&tiny, &["export", "model", "--to", "mlx"]);
    let config = String::from_utf8(tiny.read("model-mlx/config.json")).unwrap();
    assert!(config.contains("openelm"), "{config}");
    // What was exported is a model like any other.
    prints(&tiny, &["export", "tiny-stock", "--to", "gguf"]);
    // Without the run's own text, generated text does.
    std::fs::remove_file(tiny.path("test.txt")).unwrap();
    let done = tiny.tyr().args(["export", "runs/tiny", "--to", "hf", "--out", "later"]).assert().success();
    let said = String::from_utf8(done.get_output().stderr.clone()).unwrap();
    assert!(said.contains("compared on generated text") && said.contains("test.txt"), "{said}");
    assert!(card("later/README.md").contains("tokens of generated text"));
}

#[test]
fn an_export_appears_whole_and_the_same_one_is_known_again() {
    let tiny = tiny("");
    let all = ["export", "model", "--to", "gguf,stock", "--gguf", "f32", "--out", "out"];
    // What a killed export leaves does not stand in the way and goes.
    let left = tiny.path("out/gguf.4194303.partial");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("model-f32.gguf"), "half").unwrap();
    prints(&tiny, &all);
    let there = |name: &str| {
        let files = std::fs::read_dir(tiny.path(name)).unwrap();
        let mut names: Vec<_> = files.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(there("out"), ["gguf", "stock"]);
    assert_eq!(there("out/gguf"), ["README.md", "export.json", "model-f32.gguf"]);
    let file = tiny.path("out/gguf/model-f32.gguf");
    let made = std::fs::metadata(&file).unwrap().modified().unwrap();

    let done = tiny.tyr().args(all).assert().success();
    let (out, said) = (done.get_output().stdout.clone(), done.get_output().stderr.clone());
    assert_eq!(String::from_utf8(said).unwrap().matches("was there already").count(), 2);
    assert!(String::from_utf8(out).unwrap().contains("out/stock"));
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), made);
    assert_eq!(there("out/gguf"), ["README.md", "export.json", "model-f32.gguf"]);

    // Of other options, of another model, or damaged, it is in the way.
    let other = ["export", "model", "--to", "gguf", "--gguf", "q8_0", "--out", "out/gguf"];
    let same = ["export", "model", "--to", "gguf", "--gguf", "f32", "--out", "out/gguf"];
    let stock = ["export", "out/stock", "--to", "gguf", "--gguf", "f32", "--out", "out/gguf"];
    prints(&tiny, &same);
    let refuses = |line: &[&str]| {
        let (code, said) = fails(&tiny, line);
        assert!(code == 2 && said.contains("already"), "{line:?}: {said}");
    };
    refuses(&other);
    refuses(&stock);
    std::fs::write(&file, "short").unwrap();
    refuses(&same);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "short");
}

#[test]
fn layers_that_are_alike_and_keep_nothing_are_an_error_before_anything_is_pruned() {
    let tiny = tiny("");
    let set = ["--set", "sparsity.shape='uniform'", "--set", "sparsity.target=0.95"];
    for verb in ["check", "plan", "run"] {
        let (code, said) = fails(&tiny, &[&[verb, "spec.toml"], &set[..]].concat());
        assert!([3, 6, 10].contains(&code) && said.contains("query heads"), "{verb} {code} {said}");
        assert!(said.contains("sparsity.target") && said.contains("at most"), "{verb} {said}");
    }
    let made = tiny.path("runs/tiny/store").read_dir().is_ok_and(|mut all| all.any(|_| true));
    assert!(!made, "nothing was made");
}

const BUILTIN: &str = r#"
name = "tiny"

[calibration]
tokens = 1024
sequence_length = 128

[supernet]
levels = 1
refit = false

[search]
generations = 0
stages = [{ tokens = 256, survivors = 1 }]
tokens = 1024

[evaluate]
sequence_length = 128
tokens = 1024
kl_tokens = 0
"#;

#[test]
fn the_pruned_built_in_model_is_the_same_in_every_runtime() {
    let modules = ["xllamacpp", "mlx_lm", "transformers"];
    let Some(python) = modules.into_iter().map(runtimes_support::python).collect::<Option<Vec<_>>>() else {
        return;
    };
    let tiny = Tiny::new();
    std::fs::write(tiny.path("spec.toml"), BUILTIN).unwrap();
    tiny.run(&[]).success();
    let python = python[0].to_str().unwrap();
    let all =
        ["export", "runs/tiny", "--to", "gguf,mlx,hf,stock", "--gguf", "f32", "--verify", "--python", python];
    let said = prints(&tiny, &all);
    for (form, runtime) in
        [("gguf", "llama.cpp"), ("mlx", "mlx-lm"), ("hf", "transformers"), ("stock", "transformers")]
    {
        let line = said.lines().find(|line| line.starts_with(&format!("{form} in {runtime}"))).unwrap();
        let after =
            |word: &str| line.split(word).nth(1).unwrap().trim_start().split([',', ' ', ')']).next().unwrap();
        let apart: f64 = after("log-probability|").parse().unwrap();
        let perplexities: [f64; 2] = [after("perplexity"), after("here")].map(|text| text.parse().unwrap());
        assert!(apart < 2e-4, "{line}");
        assert!((perplexities[0] / perplexities[1] - 1.0).abs() < 1e-3, "{line}");
    }
    let (code, error) = fails(
        &tiny,
        &["export", "runs/tiny", "--to", "hf", "--out", "again", "--verify", "--python", "false"],
    );
    assert!(code == 2 && error.contains("does not have"), "{code} {error}");
}

#[test]
fn what_no_form_carries_is_told_before_anything_is_pruned() {
    let tiny = Tiny::new(); // a tokenizer that llama.cpp has no name for
    let set = ["--set", "export.to=['gguf']"];
    let (code, said) = failure(tiny.run(&set));
    assert!(code == 5 && said.contains("--gguf-base"), "{code} {said}");
    let made = tiny.path("runs/tiny/store").read_dir().is_ok_and(|mut all| all.any(|_| true));
    assert!(!made, "nothing was made");
    let (code, said) = fails(&tiny, &[&["check", "spec.toml"], &set[..]].concat());
    assert!(code == 3 && said.contains("export.to") && said.contains("pre_tokenizer"), "{code} {said}");
}

#[test]
fn what_cannot_be_exported_is_one_error() {
    let tiny = tiny("[[sweep]]\nkey = \"sparsity.target\"\nvalues = [0.25, 0.5]");
    tiny.run(&[
        "--set",
        "search.start=uniform",
        "--set",
        "search.generations=0",
        "--set",
        "supernet.refit=false",
    ])
    .success();
    let cases: [(&[&str], i32, &str); 8] = [
        (&["runs/tiny", "--to", "gguf"], 2, "--trial"),
        (&["runs/tiny", "--trial", "target=0.3", "--to", "gguf"], 2, "target=0.25"),
        (
            &["runs/tiny", "--trial", "target=0.25", "--model", "refit", "--to", "gguf"],
            2,
            "its models: uniform",
        ),
        (&["runs/tiny", "--trial", "target=0.25", "--model", "dense", "--to", "gguf"], 2, "the dense model"),
        (&["model", "--trial", "target=0.25", "--to", "gguf"], 2, "leave them out"),
        (&["model", "--to", "hf", "--out", "model"], 2, "already"),
        (&["model", "--to", "hf,hf"], 2, "twice"),
        (&["nowhere", "--to", "hf"], 4, "nowhere"),
    ];
    for (arguments, code, words) in cases {
        let (exit, said) = fails(&tiny, &[&["export"], arguments].concat());
        assert!(exit == code && said.contains(words), "{arguments:?}: {exit} {said}");
    }
    let of_trial = prints(&tiny, &["export", "runs/tiny", "--trial", "target=0.25", "--to", "hf"]);
    assert!(of_trial.contains("tiny-target=0.25-hf"), "{of_trial}");
}
