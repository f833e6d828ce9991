use super::*;
use crate::report::figure::tests::figure;

/// Events a second apart from second 100 on.
fn stamped(events: Vec<Event>) -> Vec<Stamped> {
    events
        .into_iter()
        .enumerate()
        .map(|(i, event)| Stamped { at: Some(100_000 + 1000 * i as u64), event })
        .collect()
}

fn t(label: &str) -> String {
    label.to_string()
}

fn started(trials: &[&str]) -> Event {
    Event::RunStarted { run: t("r"), trials: trials.iter().map(|l| t(l)).collect(), origin: None }
}

fn begun(trial: &str, step: &str) -> Event {
    Event::StepStarted { trial: t(trial), step: t(step), key: t("k") }
}

fn progress(trial: &str, what: &str, done: u64, units: u64) -> Event {
    Event::Progress { trial: t(trial), what: t(what), done, units }
}

/// A sweep with a trial in every state: `a` done, `b` failed, `c` unfinished, `d` waiting.
fn run() -> Vec<Stamped> {
    stamped(vec![
        started(&["a", "b", "c", "d"]),
        Event::TrialStarted { trial: t("a"), identity: None },
        Event::FigureMeasured { figure: figure("a", "dense", "perplexity/text", 3.5714) },
        Event::FigureMeasured { figure: figure("a", "iteration-1", "perplexity/text", 4.25) },
        Event::TrialFinished { trial: t("a") },
        Event::TrialStarted { trial: t("b"), identity: None },
        Event::TrialFailed { trial: t("b"), error: t("no legal flip\n  hint: raise supernet.levels") },
        Event::TrialStarted { trial: t("c"), identity: None },
        Event::FigureMeasured { figure: figure("c", "dense", "perplexity/text", f64::NAN) },
        begun("c", "search-1"),
        progress("c", "search 1", 3, 10),
    ])
}

#[test]
fn a_running_sweep_shows_every_state() {
    let expected = "r: running, process 7, 1 of 4 trials done, 1 failed

trial  state    took  models
a      done      3 s       2
b      failed    1 \
s
c      running  13 s       1
d      waiting

b failed:
  no legal flip
    hint: raise supernet.levels
c \
is in search-1, 3 of 10 generations, for 11 s

perplexity text
┌───────┬───────┬─────────────┐
│ trial ┆ \
dense ┆ iteration-1 │
╞═══════╪═══════╪═════════════╡
│ a     ┆  3.57 ┆        4.25 │
│ c     ┆       ┆             │
└───────┴───────┴─────────────┘
";
    assert_eq!(status(&run(), Some("7"), Some(120_000)), expected);
}

#[test]
fn a_killed_run_is_shown_as_stopped_with_what_is_left_to_do() {
    let text = status(&run(), None, Some(999_000_000));
    assert!(
        text.starts_with("r: stopped, 1 of 4 trials done, 1 failed; run the same command again to resume\n"),
        "{text}"
    );
    assert!(
        text.contains("c      stopped   3 s")
            && text.contains("c stopped in search-1, 3 of 10 generations\n"),
        "{text}"
    );
}

#[test]
fn only_the_trial_that_was_begun_last_runs() {
    let mut events = run();
    events.extend(
        stamped(vec![started(&["d", "c"]), Event::TrialStarted { trial: t("d"), identity: None }])
            .into_iter()
            .map(|s| Stamped { at: s.at.map(|at| at + 50_000), ..s }),
    );
    let text = status(&events, Some("7"), Some(160_000));
    assert!(text.contains("d      running") && text.contains("c      stopped"), "{text}");
    assert!(!text.contains("\na ") && text.contains("d is between two steps\n"), "{text}");
}

#[test]
fn a_trial_that_goes_on_adds_its_sessions_up() {
    let mut events = run();
    let more = [Event::TrialStarted { trial: t("c"), identity: None }, progress("c", "tokenise", 0, 2)];
    events.extend(more.map(|event| Stamped { at: Some(500_000), event }));
    let text = status(&events, Some("7"), Some(502_000));
    assert!(text.contains("c      running   5 s") && text.contains("c is in tokenise, 0 of 2\n"), "{text}");
}

#[test]
fn a_log_without_times_counts_its_steps() {
    let cost = |cache, seconds| Event::StepFinished {
        trial: t("a"),
        model: None,
        step: t("s"),
        key: t("k"),
        cache,
        seconds,
        peak_bytes: None,
    };
    let events = [
        started(&["a"]),
        Event::TrialStarted { trial: t("a"), identity: None },
        cost(Cache::Miss, 61.0),
        cost(Cache::Hit, 9.0),
    ];
    let events: Vec<Stamped> = events.into_iter().map(|event| Stamped { at: None, event }).collect();
    assert!(status(&events, None, Some(1)).contains("1 min 01 s"));
}

#[test]
fn a_run_that_is_over_says_so() {
    let over = stamped(vec![
        started(&["a"]),
        Event::TrialStarted { trial: t("a"), identity: None },
        Event::TrialFinished { trial: t("a") },
    ]);
    assert!(status(&over, None, None).starts_with("r: done, 1 of 1 trial done\n"));
    let failed = stamped(vec![started(&["a"]), Event::TrialFailed { trial: t("a"), error: t("e") }]);
    assert!(status(&failed, None, None).starts_with("r: over, 0 of 1 trial done, 1 failed; fix the cause"));
}

#[test]
fn no_line_is_wider_than_a_terminal() {
    let long = "target=0.25,ablation=without-the-second-order-term,seed=12345".to_string();
    let events = stamped(vec![
        started(&[&long]),
        Event::TrialStarted { trial: long.clone(), identity: None },
        begun(&long, "perplexity-wikitext2-iteration-2"),
        progress(&long, "perplexity wikitext2", 120, 400),
    ]);
    let text = status(&events, Some("12345"), Some(900_000));
    assert!(
        text.lines().all(|l| l.chars().count() <= WIDTH) && text.contains("120 of 400 sequences"),
        "{text}"
    );
}

#[test]
fn a_run_without_trials_is_still_told() {
    assert_eq!(
        status(&stamped(vec![started(&[])]), None, None),
        "r: done, 0 of 0 trials done\n\ntrial  state  took  models\n"
    );
}
