//! The verbs around a run, from the outside: status, report, cache, and Ctrl-C.
// Helpers beside the test functions are tests, too.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod common;
#[path = "common/signals.rs"]
mod signals;

use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use common::{SPEC, Tiny, failure};

const TABLES: [&str; 5] = ["results.csv", "timings.csv", "results.json", "results.md", "results.tex"];

/// A tiny experiment with more lines at the end of its spec.
fn tiny(more: &str) -> Tiny {
    let tiny = Tiny::new();
    std::fs::write(tiny.path("spec.toml"), format!("{SPEC}\n{more}\n")).unwrap();
    tiny
}

/// A verb that succeeds: what it prints.
fn prints(tiny: &Tiny, arguments: &[&str]) -> String {
    let done = tiny.tyr().args(arguments).assert().success();
    String::from_utf8(done.get_output().stdout.clone()).unwrap()
}

/// `tyr run spec.toml`, going on by itself.
fn start(tiny: &Tiny) -> Child {
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("tyr"));
    signals::heed_interrupts(&mut command);
    let command = command.args(["run", "spec.toml"]).current_dir(tiny.dir.path());
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until the trial's log has some words; fails when they do not come.
fn wait_for(tiny: &Tiny, words: &str) {
    let began = Instant::now();
    let log = tiny.path("runs/tiny/trials/main/events.jsonl");
    while !std::fs::read_to_string(&log).unwrap_or_default().contains(words) {
        assert!(began.elapsed() < Duration::from_secs(600), "{words} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn files(tiny: &Tiny, run: &str, names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| tiny.read(&format!("{run}/{name}"))).collect()
}

#[test]
fn tables_made_from_the_events_alone_have_the_bytes_of_the_live_ones() {
    let tiny = tiny("[[sweep]]\nkey = \"sparsity.target\"\nvalues = [0.001, 0.5]");
    assert_eq!(failure(tiny.run(&[])).0, 10);
    let live = files(&tiny, "runs/tiny", &TABLES);
    TABLES.iter().for_each(|name| std::fs::remove_file(tiny.path(&format!("runs/tiny/{name}"))).unwrap());
    let shown = prints(&tiny, &["report", "runs/tiny"]);
    assert!(shown.contains("target=0.5") && shown.contains("failed: "), "{shown}");
    for (name, (live, rebuilt)) in TABLES.iter().zip(live.iter().zip(files(&tiny, "runs/tiny", &TABLES))) {
        assert!(
            *live == rebuilt,
            "{name}:\n{}\n{}",
            String::from_utf8_lossy(live),
            String::from_utf8_lossy(&rebuilt)
        );
    }
    for (format, name) in [("csv", 0), ("json", 2), ("markdown", 3), ("latex", 4)] {
        assert_eq!(
            prints(&tiny, &["report", "runs/tiny", "--format", format]).as_bytes(),
            live[name],
            "{format}"
        );
    }
    let status = prints(&tiny, &["status", "runs/tiny"]);
    assert!(status.starts_with("tiny: over, 1 of 2 trials done, 1 failed"), "{status}");
    assert!(status.contains("target=0.001 failed:\n  ") && status.contains("less than one unit"), "{status}");
    assert!(status.contains("perplexity text") && status.contains(" iteration-2 "), "{status}");
    assert!(status.lines().all(|l| l.chars().count() <= 100), "{status}");
}

#[test]
fn several_runs_make_one_table() {
    let tiny = tiny("");
    let short =
        ["--set", "search.start=uniform", "--set", "search.generations=0", "--set", "evaluate.tasks=[]"];
    tiny.run(&short).success();
    tiny.run(&[&short[..], &["--set", "name=other"]].concat()).success();
    tiny.run(&[&short[..], &["--runs", "elsewhere"]].concat()).success();
    let named = prints(&tiny, &["report", "runs/tiny", "runs/other", "--format", "csv"]);
    assert!(named.contains("\ntiny/main,dense,") && named.contains("\nother/main,dense,"), "{named}");
    let alike = prints(&tiny, &["report", "runs/tiny", "elsewhere/tiny", "--format", "csv"]);
    assert!(
        alike.contains("\nruns/tiny/main,dense,") && alike.contains("\nelsewhere/tiny/main,dense,"),
        "{alike}"
    );
    let lines = |name: &str| String::from_utf8(tiny.read(name)).unwrap().lines().count();
    assert_eq!(named.lines().count(), lines("runs/tiny/results.csv") + lines("runs/other/results.csv") - 1);
    assert!(prints(&tiny, &["report", "runs/tiny", "runs/other"]).contains("other/main\n"));
}

#[test]
fn a_run_is_seen_while_it_goes_on_and_after_it_is_killed() {
    let tiny = tiny("");
    std::fs::write(
        tiny.path("spec.toml"),
        SPEC.replace("generations = 3", "generations = 3000\npatience = 0"),
    )
    .unwrap();
    let mut child = start(&tiny);
    wait_for(&tiny, "\"what\":\"search 1\"");
    let running = prints(&tiny, &["status", "runs/tiny"]);
    let refused = failure(tiny.tyr().args(["cache", "runs/tiny", "--prune"]).assert());
    child.kill().unwrap();
    child.wait().unwrap();
    let process = format!("tiny: running, process {}, 0 of 1 trial done\n", child.id());
    assert!(
        running.starts_with(&process)
            && running.contains("main is in search-1, ")
            && running.contains(" of 3000 generations"),
        "{running}"
    );
    assert!(refused.0 == 11 && refused.1.contains(&child.id().to_string()), "{refused:?}");
    let stopped = prints(&tiny, &["status", "runs/tiny"]);
    assert!(
        stopped.starts_with("tiny: stopped, 0 of 1 trial done; run the same command again to resume\n"),
        "{stopped}"
    );
    assert!(stopped.contains("main stopped in search-1, "), "{stopped}");
    tiny.run(&["--set", "search.generations=1"]).success();
    let done = prints(&tiny, &["status", "runs/tiny"]);
    assert!(done.starts_with("tiny: done, 1 of 1 trial done\n"), "{done}");
}

#[test]
fn what_no_trial_uses_is_pruned_and_the_rest_is_still_found() {
    let tiny = tiny("");
    let entries = || std::fs::read_dir(tiny.path("runs/tiny/store")).unwrap().count();
    tiny.run(&["--set", "seed=5"]).success();
    let before = entries();
    assert!(!prints(&tiny, &["cache", "runs/tiny"]).contains("--prune"));
    tiny.run(&[]).success();
    let both = entries();
    let listed = prints(&tiny, &["cache", "runs/tiny"]);
    assert!(
        listed.contains("used by") && listed.contains("no trial") && listed.contains("--prune frees"),
        "{listed}"
    );
    let planned = prints(&tiny, &["cache", "runs/tiny", "--dry-run"]);
    assert_eq!(entries(), both);
    let removed = prints(&tiny, &["cache", "runs/tiny", "--prune"]);
    assert_eq!(removed.replace("removed", "would remove"), planned);
    assert!(entries() < both && entries() <= before, "{removed}");
    let sizes = files(&tiny, "runs/tiny", &TABLES);
    tiny.run(&[]).success();
    let events = String::from_utf8(tiny.read("runs/tiny/trials/main/events.jsonl")).unwrap();
    assert!(!events[events.rfind("trial_started").unwrap()..].contains("\"cache\":\"miss\""));
    assert!(files(&tiny, "runs/tiny", &TABLES) == sizes);
    prints(&tiny, &["cache", "runs/tiny", "--prune", "--step", "supernet"]);
    assert!(!prints(&tiny, &["cache", "runs/tiny"]).contains("supernet-"));
    tiny.run(&[]).success();
    assert!(files(&tiny, "runs/tiny", &TABLES[..1]) == sizes[..1]);
}

/// Presses Ctrl-C once a run's log has some words, and gives what came of it. Where another program has the
/// processor for so long that the run ends before the keys are pressed, it is begun again.
fn interrupt(tiny: &Tiny, words: &str) -> Output {
    for _ in 0..50 {
        let child = start(tiny);
        wait_for(tiny, words);
        // SAFETY: the child has not been waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) }, 0);
        let output = child.wait_with_output().unwrap();
        if !output.status.success() {
            return output;
        }
        std::fs::remove_dir_all(tiny.path("runs")).unwrap();
    }
    panic!("no run was still going on when it was interrupted");
}

#[test]
fn ctrl_c_ends_after_the_current_unit_says_how_to_go_on_and_loses_nothing() {
    let whole = tiny("");
    whole.run(&[]).success();
    let names = [
        "results.csv",
        "results.json",
        "results.md",
        "trials/main/distribution.json",
        "trials/main/model/model.safetensors",
    ];
    let stopped = tiny("");
    for words in ["\"step\":\"supernet-1\"", "\"step\":\"search-1\"", "\"step\":\"tasks-iteration-1\""] {
        let output = interrupt(&stopped, words);
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{printed}");
        assert!(printed.contains("stopping after the current unit of work"), "{printed}");
        assert!(printed.contains("run the same command again to resume from here"), "{printed}");
        let status = prints(&stopped, &["status", "runs/tiny"]);
        assert!(
            status.starts_with("tiny: stopped, 0 of 1 trial done; run the same command again"),
            "{status}"
        );
    }
    stopped.run(&[]).success();
    for (name, (a, b)) in
        names.iter().zip(files(&whole, "runs/tiny", &names).iter().zip(files(&stopped, "runs/tiny", &names)))
    {
        assert!(*a == b, "{name} differs");
    }
}

#[test]
#[ignore = "slow: part of the slow checks"]
fn the_number_of_threads_does_not_change_what_is_chosen() {
    let chosen = |threads: &str| {
        let tiny = tiny("");
        let more = ["--set", "search.generations=8", "--set", "search.offspring=16"];
        tiny.tyr().env("RAYON_NUM_THREADS", threads).args(["run", "spec.toml"]).args(more).assert().success();
        tiny.read("runs/tiny/trials/main/distribution.json")
    };
    let one = chosen("1");
    ["2", "3"].iter().for_each(|threads| assert_eq!(chosen(threads), one, "{threads} threads"));
}

#[test]
fn a_folder_without_a_run_is_a_wrong_command_line() {
    let tiny = tiny("");
    for verb in ["status", "report", "cache"] {
        let (code, printed) = failure(tiny.tyr().args([verb, "nowhere"]).assert());
        assert!(
            code == 2 && printed.contains("nowhere") && printed.contains("runs/NAME"),
            "{verb}: {printed}"
        );
    }
}

#[test]
fn a_sequence_of_less_than_two_tokens_is_a_wrong_argument() {
    let tiny = Tiny::new();
    for length in ["0", "1", "x"] {
        let failed =
            tiny.tyr().args(["eval", "model", "--text", "test.txt", "--sequence-length", length]).assert();
        let (code, said) = failure(failed);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("--sequence-length"), "{said}");
    }
}

#[test]
fn models_are_timed_in_turn_and_the_tables_are_left_in_a_folder() {
    let tiny = tiny("");
    let dense = tiny.path("model");
    tyr::model::pico::Pico { layers: 1, vocabulary: 68, ..Default::default() }
        .write(&tiny.path("small"), 4)
        .unwrap();
    let sizes = ["--prompt", "20,5", "--output", "3", "--batch", "1,2", "--repeats", "2", "--out", "new/out"];
    let shown = prints(&tiny, &[&["bench", dense.to_str().unwrap(), "small"], &sizes[..]].concat());
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    for words in
        ["timed in turn 2 times", "prompts of 20 tokens, 3 written, 2 texts at once", " model ", " small "]
    {
        assert!(shown.contains(words), "{words} in\n{shown}");
    }
    let csv = String::from_utf8(tiny.read("new/out/bench.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 2 * 4, "{csv}");
    let begins = |row: usize, with: &str| csv.lines().nth(row + 1).unwrap().starts_with(with);
    assert!(begins(0, "model,20,3,1,") && begins(1, "small,20,3,1,") && begins(2, "model,20,3,2,"), "{csv}");
    let markdown = String::from_utf8(tiny.read("new/out/bench.md")).unwrap();
    assert!(markdown.contains("### prompts of 5 tokens, 3 written, 1 text\n\n| model "), "{markdown}");
}

#[test]
fn a_bench_of_nothing_or_of_more_than_a_context_is_a_wrong_argument() {
    let tiny = tiny("");
    for (more, said) in [
        (&["model", "--prompt", "2040", "--output", "10"][..], "2040 + 10 tokens are more than the context"),
        (&["no/model", "--prompt", "8,0"], "'0' for '--prompt <TOKENS>': it takes 1 at least"),
        (&["no/model", "--output", "1"], "'1' for '--output <TOKENS>': it takes 2 at least"),
        (&["no/model", "--batch", "0"], "'0' for '--batch <TEXTS>': it takes 1 at least"),
        (&["no/model", "--repeats", "0"], "'0' for '--repeats <REPEATS>': it takes 1 at least"),
        (&["no/model", "--prompt", "8,9,8"], "8 is given twice"),
        (&["no/model", "--batch", "2,2"], "at: --batch"),
        (&["model", "./model"], "named twice"),
        (&[], "MODEL"),
    ] {
        let (code, printed) = failure(tiny.tyr().arg("bench").args(more).assert());
        assert!(code == 2 && printed.contains(said), "{more:?}: {code} {printed}");
    }
    // Where the system tells what it has.
    if std::path::Path::new("/proc/meminfo").exists() {
        let (code, printed) = failure(tiny.tyr().args(["bench", "model", "--batch", "9000000000"]).assert());
        assert!(code == 2 && printed.contains("512+64x9000000000 takes about"), "{code} {printed}");
        assert!(printed.contains("keys and values") && printed.contains("fewer texts"), "{printed}");
    }
}

#[test]
fn a_bench_that_cannot_be_written_is_refused_before_a_weight_is_read() {
    let tiny = tiny("");
    std::fs::write(tiny.path("taken"), "kept").unwrap();
    std::fs::create_dir_all(tiny.path("odd/bench.md")).unwrap();
    // Weights that cannot be read would be told of, if they were.
    std::fs::write(tiny.path("model/model.safetensors"), "damaged").unwrap();
    for (out, said) in [("taken", "this is a file"), ("taken/in", "cannot create"), ("odd", "odd/bench.md")] {
        let (code, printed) = failure(tiny.tyr().args(["bench", "model", "--out", out]).assert());
        assert!(code == 7 && printed.contains(said) && printed.contains("--out"), "{out}: {code} {printed}");
    }
    assert_eq!(tiny.read("taken"), b"kept");
    let refused = ["bench", "model", "--out", "new", "--prompt", "4000"];
    assert!(failure(tiny.tyr().args(refused).assert()).1.contains("than the context"));
    assert!(!tiny.path("new").exists(), "what is refused leaves no folder");
    assert_eq!(failure(tiny.tyr().args(["bench", "model", "--out", "new"]).assert()).0, 4);
}

#[test]
fn a_trial_times_its_last_model_beside_the_dense_one_and_no_result_depends_on_the_clock() {
    let tiny = tiny("[evaluate.bench]\nprompt = [8]\noutput = [3]\nbatch = [1, 2]\nrepeats = 1");
    let short =
        ["--set", "search.start=uniform", "--set", "search.generations=0", "--set", "evaluate.tasks=[]"];
    tiny.run(&short).success();
    let table = |name: &str| String::from_utf8(tiny.read(&format!("runs/tiny/{name}"))).unwrap();
    let (results, timings) = (table("results.csv"), table("timings.csv"));
    assert!(!results.contains("bench") && results.contains(",kl,"), "{results}");
    for metric in [
        "first_token_s",
        "tokens_per_s",
        "dense_tokens_per_s",
        "dense_read_share",
        "decode_ratio",
        "bytes_ratio",
        "kv_bytes",
    ] {
        for workload in ["8+3x1", "8+3x2"] {
            let row = format!("main,refit,bench_{metric}/{workload},");
            assert!(timings.contains(&row), "{row} in\n{timings}");
        }
    }
    assert!(timings.contains("main,refit,bench_weight_bytes/8+3x2,"), "{timings}");
    assert!(!timings.contains("_low/"), "one round has no spread\n{timings}");
    // The tables of the verb, in the report and in the model's card.
    let card = String::from_utf8(tiny.read("runs/tiny/trials/main/model/README.md")).unwrap();
    for text in [table("results.md"), card] {
        for words in [
            "Speed of models timed in turn 1 time:",
            "Speed with prompts of 8 tokens, 3 written, 2 texts at once:",
            "±- ",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
        assert!(!text.contains("bench_"), "{text}");
    }
    assert!(prints(&tiny, &["report", "runs/tiny"]).contains("tokens/s"));
    tiny.run(&short).success();
    assert_eq!((table("results.csv"), table("timings.csv")), (results, timings), "what was measured is kept");
    let mut wider = short.to_vec();
    wider.extend(["--set", "evaluate.bench.repeats=2"]);
    tiny.run(&wider).success();
    assert!(table("timings.csv").contains("main,refit,bench_decode_ratio_high/8+3x1,"));
}
