//! A run that is run again: with another spec, another profile, another file, elsewhere, or with parts of its
//! folder gone.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Tiny, failure};

/// Without a search: three models less.
const SHORT: [&str; 4] = ["--set", "search.start=uniform", "--set", "search.generations=0"];

/// The files of a folder with their contents.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_string();
    entries.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect()
}

/// The spec with other text in place of some of it.
fn edited(from: &str, to: &str) -> String {
    assert!(common::SPEC.contains(from), "{from}");
    common::SPEC.replacen(from, to, 1)
}

/// What the newest session of the trial `main` took from the store, and what it made.
fn hits_and_misses(tiny: &Tiny) -> (usize, usize) {
    let events = String::from_utf8(tiny.read("runs/tiny/trials/main/events.jsonl")).unwrap();
    let session = &events[events.rfind("trial_started").unwrap()..];
    (session.matches("\"cache\":\"hit\"").count(), session.matches("\"cache\":\"miss\"").count())
}

#[test]
fn a_changed_spec_leaves_no_figure_and_no_distribution_of_the_earlier_one() {
    const TABLES: [&str; 4] = ["results.csv", "results.json", "results.md", "results.tex"];
    let tables = |tiny: &Tiny| TABLES.map(|name| tiny.read(&format!("runs/tiny/{name}")));
    let tiny = Tiny::new();
    tiny.run(&[]).success();
    let before = (tables(&tiny), tiny.read("runs/tiny/timings.csv"));
    let changed = edited("intervals = [0.25, 0.125]", "intervals = [0.25]") + "\n[sparsity]\ntarget = 0.4\n";
    let fresh = Tiny::new();
    for tiny in [&tiny, &fresh] {
        std::fs::write(tiny.path("spec.toml"), &changed).unwrap();
        tiny.run(&[]).success();
    }
    let text = String::from_utf8(tiny.read("runs/tiny/results.csv")).unwrap();
    assert!(text.contains("main,iteration-1,") && !text.contains("iteration-2"), "{text}");
    assert!(String::from_utf8(tiny.read("runs/tiny/results.md")).unwrap().contains("kept by refit"));
    assert!(tables(&tiny) == tables(&fresh), "what is told of the earlier spec is left");
    let costs = |tiny: &Tiny| -> Vec<String> {
        let text = String::from_utf8(tiny.read("runs/tiny/timings.csv")).unwrap();
        text.lines().map(|line| line.split(',').take(3).collect()).collect()
    };
    assert_eq!(costs(&tiny), costs(&fresh));
    std::fs::write(tiny.path("spec.toml"), common::SPEC).unwrap();
    tiny.run(&[]).success();
    assert_eq!(hits_and_misses(&tiny).1, 0);
    assert!((tables(&tiny), tiny.read("runs/tiny/timings.csv")) == before);
}

#[test]
fn a_run_that_fails_leaves_no_model_of_an_earlier_spec() {
    let tiny = Tiny::new();
    let there = || {
        ["model", "distribution.json"]
            .map(|name| tiny.path(&format!("runs/tiny/trials/main/{name}")).exists())
    };
    tiny.run(&SHORT).success();
    assert_eq!(there(), [true; 2]);
    failure(tiny.run(&[&SHORT[..], &["--set", "sparsity.target=0.001"]].concat()));
    assert_eq!(there(), [false; 2]);
    let csv = String::from_utf8(tiny.read("runs/tiny/results.csv")).unwrap();
    assert!(!csv.contains("uniform"), "{csv}");
    tiny.run(&SHORT).success();
    assert_eq!((there(), hits_and_misses(&tiny).1), ([true; 2], 0));
}

#[test]
fn trials_of_an_earlier_sweep_stay_while_they_are_of_the_same_experiment() {
    let tiny = Tiny::new();
    let sweep = |values: &str| format!("\n[[sweep]]\nkey = \"sparsity.target\"\nvalues = {values}\n");
    let run = |spec: String| {
        std::fs::write(tiny.path("spec.toml"), spec).unwrap();
        tiny.run(&SHORT).success();
        let csv = String::from_utf8(tiny.read("runs/tiny/results.csv")).unwrap();
        let mut trials: Vec<String> =
            csv.lines().skip(1).map(|line| line.split(',').next().unwrap().to_string()).collect();
        trials.dedup();
        trials
    };
    assert_eq!(run(format!("{}{}", common::SPEC, sweep("[0.5, 0.25]"))), ["target=0.5", "target=0.25"]);
    assert_eq!(run(format!("{}{}", common::SPEC, sweep("[0.25]"))), ["target=0.25", "target=0.5"]);
    let text = std::fs::read_to_string(tiny.path("test.txt")).unwrap();
    std::fs::write(tiny.path("test.txt"), text.replacen(' ', "\n", 40)).unwrap();
    assert_eq!(run(format!("{}{}", common::SPEC, sweep("[0.25]"))), ["target=0.25"], "figures of other data");
    std::fs::write(tiny.path("test.txt"), &text).unwrap();
    assert_eq!(run(format!("{}{}", common::SPEC, sweep("[0.25]"))), ["target=0.25", "target=0.5"]);
    assert_eq!(run(format!("{}{}", edited("levels = 5", "levels = 3"), sweep("[0.25]"))), ["target=0.25"]);
}

#[test]
fn figures_of_other_data_never_stand_in_the_table_of_a_run_that_stopped_between_two_trials() {
    const LAST: &str = "runs/tiny/trials/target=0.25/events.jsonl";
    let tiny = Tiny::new();
    let sweep = "\n[[sweep]]\nkey = \"sparsity.target\"\nvalues = [0.5, 0.25]\n";
    std::fs::write(tiny.path("spec.toml"), format!("{}{sweep}", common::SPEC)).unwrap();
    let trials = || {
        let csv = String::from_utf8(tiny.read("runs/tiny/results.csv")).unwrap();
        let mut trials: Vec<String> =
            csv.lines().skip(1).map(|line| line.split(',').next().unwrap().to_string()).collect();
        trials.dedup();
        trials
    };
    // What a run leaves that is killed before the last trial begins.
    let stop_before_the_last = |before: &[u8]| {
        std::fs::write(tiny.path(LAST), before).unwrap();
        let log = tiny.path("runs/tiny/events.jsonl");
        let text = std::fs::read_to_string(&log).unwrap();
        std::fs::write(&log, &text[..text.trim_end().rfind('\n').unwrap() + 1]).unwrap();
        tiny.tyr().args(["report", "runs/tiny"]).assert().success();
    };
    tiny.run(&SHORT).success();
    let first = (tiny.read(LAST), tiny.read("runs/tiny/results.csv"));
    tiny.run(&SHORT).success();
    stop_before_the_last(&first.0);
    assert!(tiny.read("runs/tiny/results.csv") == first.1, "nothing changed, so that all may stay");
    let edits: [&dyn Fn(); 2] = [
        &|| {
            std::fs::write(tiny.path("test.txt"), tyr::builtin::text(tyr::builtin::Split::Evaluation, 7000))
                .unwrap()
        },
        &|| std::fs::write(tiny.path("model/generation_config.json"), "{\"a\":1}").unwrap(),
    ];
    for edit in edits {
        edit();
        let before = tiny.read(LAST);
        tiny.run(&SHORT).success();
        let whole = tiny.read("runs/tiny/results.csv");
        stop_before_the_last(&before);
        assert_eq!(trials(), ["target=0.5"]);
        tiny.run(&SHORT).success();
        assert!(tiny.read("runs/tiny/results.csv") == whole);
    }
}

#[test]
fn the_same_spec_beside_other_data_is_another_experiment() {
    let tiny = Tiny::new();
    tiny.run(&SHORT).success();
    let copy = tiny.path("copy");
    std::fs::create_dir_all(copy.join("model")).unwrap();
    for folder in ["", "model"] {
        for entry in std::fs::read_dir(tiny.path(folder)).unwrap().flatten().filter(|e| e.path().is_file()) {
            std::fs::copy(entry.path(), copy.join(folder).join(entry.file_name())).unwrap();
        }
    }
    let run = || tiny.tyr().args(["run", "copy/spec.toml"]).args(SHORT).assert();
    run().success();
    tiny.run(&SHORT).success();
    std::fs::write(copy.join("test.txt"), tyr::builtin::text(tyr::builtin::Split::Evaluation, 7000)).unwrap();
    let (code, printed) = failure(run());
    assert!(code == 3 && printed.contains("another `name`"), "{code} {printed}");
}

#[test]
fn another_spec_or_profile_of_the_same_name_is_refused_with_both_ways_out() {
    let tiny = Tiny::new();
    tiny.run(&SHORT).success();
    let results = files(&tiny.path("runs/tiny/trials/main/model"));
    let run = |arguments: &[&str]| tiny.tyr().arg("run").args(arguments).args(SHORT).assert();
    let refused = |arguments: &[&str], words: &[&str]| {
        let (code, printed) = failure(run(arguments));
        assert_eq!(code, 3, "{printed}");
        words.iter().for_each(|word| assert!(printed.contains(word), "no {word:?} in\n{printed}"));
        assert!(files(&tiny.path("runs/tiny/trials/main/model")) == results);
    };
    std::fs::write(tiny.path("other.toml"), edited("levels = 5", "levels = 3")).unwrap();
    refused(&["other.toml"], &["spec.toml", "another `name`", "--runs DIR", "remove"]);
    run(&["other.toml", "--set", "name=other"]).success();
    run(&["other.toml", "--runs", "elsewhere"]).success();
    // The same file edited, copied or moved is the same experiment.
    let profile = "\n[profile.small.evaluate]\ntokens = 64\n";
    std::fs::write(tiny.path("spec.toml"), edited("levels = 5", "levels = 3") + profile).unwrap();
    run(&["spec.toml"]).success();
    std::fs::copy(tiny.path("spec.toml"), tiny.path("copy.toml")).unwrap();
    run(&["copy.toml"]).success();
    std::fs::rename(tiny.path("copy.toml"), tiny.path("moved.toml")).unwrap();
    let moved = std::fs::read_to_string(tiny.path("moved.toml")).unwrap() + "# moved and edited\n";
    std::fs::write(tiny.path("moved.toml"), moved).unwrap();
    run(&["moved.toml"]).success();
    let results = files(&tiny.path("runs/tiny/trials/main/model"));
    let (code, printed) = failure(run(&["moved.toml", "--profile", "small"]));
    assert!(
        code == 3 && printed.contains("without a profile") && printed.contains("in the profile"),
        "{printed}"
    );
    assert!(files(&tiny.path("runs/tiny/trials/main/model")) == results);
    run(&["moved.toml", "--profile", "small", "--set", "name=small"]).success();
    let (code, printed) = failure(run(&["moved.toml", "--set", "name=small"]));
    assert!(code == 3 && printed.contains("with the profile \"small\""), "{printed}");
}

/// An experiment that names every kind of file.
fn with_all_files(tiny: &Tiny) {
    let rows = "{\"sentence1\":\"a\",\"sentence2\":\"b\",\"label\":1}\n".repeat(3);
    let own = "{\"context\":\"a\",\"choices\":[\"b\",\"c\"],\"gold\":1}\n".repeat(3);
    std::fs::create_dir_all(tiny.path("hub/nyu-mll/glue/rte")).unwrap();
    std::fs::write(tiny.path("hub/nyu-mll/glue/rte/validation-0.jsonl"), rows).unwrap();
    std::fs::write(tiny.path("own.jsonl"), own).unwrap();
    std::fs::write(tiny.path("fitness.rhai"), "fn fitness(m) { m.kl }\n").unwrap();
    let spec = edited("\"quickstart/counting\"]", "\"rte\", \"own\"]\ndata = \"hub\"")
        + "[fitness]\nkind = \"script\"\nscript = \"fitness.rhai\"\n"
        + "[tasks.own]\nfile = \"own.jsonl\"\ncontext = \"context\"\nchoices = \"choices\"\ngold = \"gold\"\n";
    std::fs::write(tiny.path("spec.toml"), spec).unwrap();
}

#[test]
fn an_experiment_that_moves_with_its_files_takes_everything_from_the_store() {
    let tiny = Tiny::new();
    with_all_files(&tiny);
    tiny.run(&[]).success();
    let before = tiny.read("runs/tiny/results.csv");
    let whole = files(&tiny.path("runs/tiny/trials/main/model"));
    let inside = tiny.path("moved/deeper");
    std::fs::create_dir_all(&inside).unwrap();
    for entry in std::fs::read_dir(tiny.dir.path()).unwrap().map(|entry| entry.unwrap()) {
        if !["moved", "runs"].contains(&entry.file_name().to_str().unwrap()) {
            std::fs::rename(entry.path(), inside.join(entry.file_name())).unwrap();
        }
    }
    tiny.tyr().args(["run", "moved/deeper/spec.toml"]).assert().success();
    let (hits, misses) = hits_and_misses(&tiny);
    assert!(hits > 10 && misses == 0, "{hits} hits, {misses} misses");
    assert_eq!(tiny.read("runs/tiny/results.csv"), before);
    assert!(files(&tiny.path("runs/tiny/trials/main/model")) == whole);
    // What they hold counts, wherever they lie.
    std::fs::write(inside.join("fitness.rhai"), "fn fitness(m) { 2.0 * m.kl }\n").unwrap();
    tiny.tyr().args(["run", "moved/deeper/spec.toml"]).assert().success();
    assert!(hits_and_misses(&tiny).1 > 0);
}

#[test]
fn files_that_a_smaller_model_takes_over_are_those_of_the_source_as_it_is_now() {
    let tiny = Tiny::new();
    let given = |name: &str, text: &str| std::fs::write(tiny.path(&format!("model/{name}")), text).unwrap();
    let kept = || files(&tiny.path("runs/tiny/trials/main/model"));
    given("generation_config.json", "{\"a\":1}");
    given("tokenizer_config.json", "{}");
    tiny.run(&SHORT).success();
    let first = kept();
    assert_eq!(first["generation_config.json"], b"{\"a\":1}");
    given("generation_config.json", "{\"a\":2}");
    tiny.run(&SHORT).success();
    assert_eq!(kept()["generation_config.json"], b"{\"a\":2}");
    std::fs::remove_file(tiny.path("model/generation_config.json")).unwrap();
    tiny.run(&SHORT).success();
    let third = kept();
    assert!(!third.contains_key("generation_config.json") && third.contains_key("tokenizer_config.json"));
    assert_eq!(third.len(), first.len() - 1);
    given("generation_config.json", "{\"a\":1}");
    tiny.run(&SHORT).success();
    assert!(kept() == first && hits_and_misses(&tiny).1 == 0);
}

#[test]
fn what_a_user_or_a_killed_run_left_in_the_folder_of_the_model_goes() {
    let tiny = Tiny::new();
    tiny.run(&SHORT).success();
    let model = tiny.path("runs/tiny/trials/main/model");
    let whole = files(&model);
    std::fs::write(model.join("pytorch_model.bin"), "of another model").unwrap();
    std::fs::write(model.join("model.safetensors.7.partial"), "half").unwrap();
    std::fs::remove_file(model.join("config.json")).unwrap();
    std::fs::create_dir(tiny.path("runs/tiny/trials/main/model.7.partial")).unwrap();
    tiny.run(&SHORT).success();
    assert!(files(&model) == whole);
    assert!(!tiny.path("runs/tiny/trials/main/model.7.partial").exists());
}

#[test]
fn a_second_process_is_refused_though_the_lock_file_is_gone() {
    let tiny = Tiny::new();
    let mut first = Command::new(assert_cmd::cargo::cargo_bin("tyr"))
        .args(["run", "spec.toml", "--set", "search.generations=2000", "--set", "search.patience=0"])
        .current_dir(tiny.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !tiny.path("runs/tiny/lock").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::remove_file(tiny.path("runs/tiny/lock")).unwrap();
    let (code, printed) = failure(tiny.run(&SHORT));
    let status = tiny.tyr().args(["status", "runs/tiny"]).assert();
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(code == 11 && printed.contains("another process runs this experiment"), "{code} {printed}");
    assert!(String::from_utf8_lossy(&status.get_output().stdout).contains("running"));
    tiny.run(&SHORT).success();
}

#[test]
fn damaged_keys_are_written_again_and_nothing_is_made_anew() {
    let tiny = Tiny::new();
    tiny.run(&SHORT).success();
    let keys = || {
        let entries = std::fs::read_dir(tiny.path("runs/tiny/store")).unwrap().flatten();
        entries.map(|entry| entry.path().join("key.json")).collect::<Vec<_>>()
    };
    let before: Vec<_> = keys().iter().map(|key| std::fs::read(key).unwrap()).collect();
    for damage in ["", "{\"what\":", "null\n"] {
        keys().iter().for_each(|key| std::fs::write(key, damage).unwrap());
        tiny.run(&SHORT).success();
        assert_eq!(keys().iter().map(|key| std::fs::read(key).unwrap()).collect::<Vec<_>>(), before);
        assert_eq!(hits_and_misses(&tiny).1, 0);
    }
}

#[test]
fn pruning_the_store_behind_a_truncated_log_removes_nothing_that_is_used() {
    let tiny = Tiny::new();
    tiny.run(&SHORT).success();
    tiny.run(&[&SHORT[..], &["--set", "sparsity.target=0.25"]].concat()).success();
    let log = tiny.path("runs/tiny/trials/main/events.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, &text[..text.len() * 2 / 3]).unwrap();
    let pruned = tiny.tyr().args(["cache", "runs/tiny", "--prune"]).assert().success();
    let printed = String::from_utf8_lossy(&pruned.get_output().stdout).into_owned();
    assert!(
        printed.contains("the event log of main lacks lines") && printed.contains("0 entries"),
        "{printed}"
    );
    tiny.run(&[&SHORT[..], &["--set", "sparsity.target=0.25"]].concat()).success();
    assert_eq!(hits_and_misses(&tiny).1, 0);
    let pruned = tiny.tyr().args(["cache", "runs/tiny", "--prune"]).assert().success();
    let printed = String::from_utf8_lossy(&pruned.get_output().stdout).into_owned();
    assert!(!printed.contains("lacks") && !printed.contains("removed 0"), "{printed}");
}

#[test]
fn pruning_behind_a_log_cut_after_any_line_keeps_what_is_used() {
    const LOGS: [&str; 2] = ["runs/tiny/events.jsonl", "runs/tiny/trials/main/events.jsonl"];
    let tiny = Tiny::new();
    let newest = [&SHORT[..], &["--set", "sparsity.target=0.25"]].concat();
    tiny.run(&SHORT).success();
    tiny.run(&newest).success();
    tiny.run(&newest).success();
    let stored = || files_of_store(&tiny);
    let all = stored();
    let logs = LOGS.map(|log| String::from_utf8(tiny.read(log)).unwrap());
    let ends: Vec<usize> = logs[1].match_indices('\n').map(|(i, _)| i + 1).collect();
    for (i, &end) in ends.iter().enumerate() {
        std::fs::write(tiny.path(LOGS[0]), &logs[0]).unwrap();
        std::fs::write(tiny.path(LOGS[1]), &logs[1][..end]).unwrap();
        let begins_session = logs[1][end..].lines().next().is_some_and(|line| line.contains("trial_started"));
        tiny.tyr().args(["cache", "runs/tiny", "--prune"]).assert().success();
        if i % 10 == 0 || begins_session || end == logs[1].len() {
            tiny.run(&newest).success();
            assert_eq!(hits_and_misses(&tiny).1, 0, "cut after line {}", i + 1);
        }
        let last = end == logs[1].len();
        assert!(last || stored() == all || logs[1][..end].matches("trial_finished").count() > 1, "{}", i + 1);
    }
    assert!(stored().len() < all.len(), "the whole log tells what is unused");
}

/// Names of the entries of the store.
fn files_of_store(tiny: &Tiny) -> Vec<String> {
    let entries = std::fs::read_dir(tiny.path("runs/tiny/store")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_that_names_it() {
    let tiny = Tiny::new();
    let tyr = assert_cmd::cargo::cargo_bin("tyr");
    let limited = format!("ulimit -f 40; exec {} run spec.toml", tyr.display());
    let output = Command::new("sh").args(["-c", &limited]).current_dir(tiny.dir.path()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(7), "{:?} {printed}", output.status);
    assert!(printed.contains("ulimit -f") && printed.contains("runs/tiny/"), "{printed}");
    tiny.run(&SHORT).success();
}

#[test]
fn a_name_that_no_file_system_takes_is_refused_by_check() {
    let tiny = Tiny::new();
    let check = |bytes: usize| {
        let name = format!("name={}", "n".repeat(bytes));
        tiny.tyr().args(["check", "spec.toml", "--set", &name]).assert()
    };
    check(255).success();
    let (code, printed) = failure(check(256));
    assert!(code == 3 && printed.contains("256 bytes") && printed.contains("255"), "{printed}");
    tiny.run(&[&SHORT[..], &["--set", &format!("name={}", "n".repeat(255))]].concat()).success();
}

#[test]
fn a_folder_whose_name_is_not_utf8_is_named_and_not_mangled() {
    use std::os::unix::ffi::OsStrExt as _;
    let tiny = Tiny::new();
    let folder = tiny.dir.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    std::fs::create_dir(&folder).unwrap();
    for name in ["spec.toml", "train.txt", "test.txt"] {
        std::fs::copy(tiny.path(name), folder.join(name)).unwrap();
    }
    let check = || tiny.tyr().arg("check").arg(folder.join("spec.toml")).assert();
    let (code, printed) = failure(check());
    assert!(code == 3 && printed.contains("not UTF-8") && printed.contains("rename the folder"), "{printed}");
    // What needs no file there works.
    let spec = "name = \"tiny\"\n[model]\nsource = \"builtin:quickstart\"\n";
    std::fs::write(folder.join("spec.toml"), spec).unwrap();
    check().success();
}
