use super::*;
use crate::report::figure::tests::{figure, mean};
use crate::report::log::{self, Log};
use crate::space::UnitSpec;

const TASKS: [&str; 8] =
    ["arc_challenge", "arc_easy", "boolq", "hellaswag", "mmlu", "openbookqa", "rte", "winogrande"];
const NORMALISED: [&str; 4] = ["arc_challenge", "arc_easy", "hellaswag", "openbookqa"];

fn measured(figure: ResultRow) -> Event {
    Event::FigureMeasured { figure }
}

fn shape() -> Shape {
    let attention = UnitSpec { units: 9, width: 64, parameters: 100 };
    Shape { layers: 3, attention, mlp: UnitSpec { units: 1536, width: 1, parameters: 30 } }
}

/// One model's figures: the better, the more it keeps.
fn model(trial: &str, model: &str, keeps: f64) -> Vec<Event> {
    let mut figures = vec![
        figure(trial, model, "parameters", 134_515_008.0 * keeps),
        figure(trial, model, "sparsity", 1.0 - keeps),
        figure(trial, model, "perplexity/wikitext2", 17.0 / keeps.powi(4)),
        figure(trial, model, "kl", 1.0 - keeps),
        figure(trial, model, "acc_mean", 0.5 * keeps),
    ];
    figures.extend(TASKS.iter().map(|t| figure(trial, model, &format!("acc/{t}"), 0.6 * keeps)));
    figures.extend(NORMALISED.iter().map(|t| figure(trial, model, &format!("acc_norm/{t}"), 0.65 * keeps)));
    figures.into_iter().map(measured).collect()
}

fn step(trial: &str, step: &str, cache: Cache, seconds: f64) -> Event {
    let trial = trial.to_string();
    let step = step.to_string();
    Event::StepFinished {
        trial,
        model: Some("iteration-1".into()),
        step,
        key: "0a".into(),
        cache,
        seconds,
        peak_bytes: Some(1 << 30),
    }
}

/// A run of two seeds with everything in it.
fn run() -> Vec<Event> {
    let trials = ["target=0.5,seed=0", "target=0.5,seed=1"];
    let mut events = vec![Event::RunStarted {
        run: "smollm2".into(),
        trials: trials.map(String::from).to_vec(),
        origin: None,
    }];
    for (i, trial) in trials.into_iter().enumerate() {
        events.push(Event::TrialStarted { trial: trial.into(), identity: None });
        events.extend(model(trial, "dense", 1.0));
        events.extend(model(trial, "iteration-1", 0.9 - 0.1 * i as f64));
        events.extend(model(trial, "uniform", 0.7));
        events.push(step(trial, "supernet", Cache::Miss, 12.5 + i as f64));
        let distribution = SparsityDistribution { removed: vec![0, 0, 4, 700, 9, 1536] };
        events.push(Event::DistributionFound {
            trial: trial.into(),
            model: "iteration-1".into(),
            shape: shape(),
            distribution,
        });
        events.push(Event::TrialFinished { trial: trial.into() });
    }
    events.push(Event::RunFinished { run: "smollm2".into(), failed: 0 });
    events
}

/// A trial `t` of a few figures.
fn small() -> Vec<Event> {
    vec![
        Event::TrialStarted { trial: "t".into(), identity: None },
        measured(figure("t", "iteration-1", "perplexity/wikitext2", 24.816)),
        measured(figure("t", "iteration-1", "acc_mean", 0.4512)),
        measured(figure("t", "dense", "acc_mean", 0.5)),
        measured(figure("t", "dense", "parameters", 134_515_008.0)),
        Event::TrialFinished { trial: "t".into() },
    ]
}

#[test]
fn the_markdown_of_a_trial_is_a_plain_table() {
    let expected = "\
## t

| model       | parameters | perplexity wikitext2 | mean % | retained % |
| :---------- | ---------: | -------------------: | -----: | ---------: |
| dense       |     134.5M |                      |  50.00 |      100.0 |
| iteration-1 |            |                24.82 |  45.12 |       90.2 |
";
    assert_eq!(Tables::from_events(&small()).markdown(), expected);
}

#[test]
fn the_latex_of_a_trial_is_a_booktabs_table() {
    let latex = Tables::from_events(&small()).latex();
    let body = "    \\toprule
    model & parameters & perplexity wikitext2 & mean \\% & retained \\% \\\\
    \\midrule
    dense & 134.5M &  & 50.00 & 100.0 \\\\
    iteration-1 &  & 24.82 & 45.12 & 90.2 \\\\
    \\bottomrule
";
    assert!(latex.contains(body), "{latex}");
    assert!(latex.starts_with("% Needs \\usepackage{booktabs}.\n"));
}

#[test]
fn the_terminal_table_of_a_trial_has_numbers_to_the_right() {
    let expected = "\
t
┌─────────────┬────────────┬────────────┬───────┬──────────┐
│ model       ┆ parameters ┆ perplexity ┆  mean ┆ retained │
│             ┆            ┆  wikitext2 ┆     % ┆        % │
╞═════════════╪════════════╪════════════╪═══════╪══════════╡
│ dense       ┆     134.5M ┆            ┆ 50.00 ┆    100.0 │
│ iteration-1 ┆            ┆      24.82 ┆ 45.12 ┆     90.2 │
└─────────────┴────────────┴────────────┴───────┴──────────┘
";
    assert_eq!(Tables::from_events(&small()).terminal(), expected);
}

#[test]
fn tables_rebuilt_from_the_log_have_the_bytes_of_the_live_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let mut log = Log::open(&path).unwrap();
    let mut live = Tables::default();
    let mut events = run();
    events.push(measured(figure("target=0.5,seed=0", "iteration-1", "kl", f64::NAN)));
    events.push(measured(figure("target=0.5,seed=0", "dense", "kl", 0.1 + 0.2)));
    for event in &events {
        log.append(event).unwrap();
        live.add(event);
    }
    let rebuilt = Tables::from_events(&log::read(&path).unwrap());
    assert_eq!(rebuilt.csv().unwrap(), live.csv().unwrap());
    assert_eq!(rebuilt.timings_csv().unwrap(), live.timings_csv().unwrap());
    assert_eq!(rebuilt.json().unwrap(), live.json().unwrap());
    assert_eq!(
        (rebuilt.markdown(), rebuilt.latex(), rebuilt.terminal()),
        (live.markdown(), live.latex(), live.terminal())
    );
    assert!(live.csv().unwrap().contains("kl,0.30000000000000004,,"));
}

#[test]
fn the_order_in_which_figures_come_does_not_matter() {
    let mut backwards = run();
    backwards[1..].reverse();
    // But for the start of each session, which forgets what was told before.
    backwards[1..].sort_by_key(|event| !matches!(event, Event::TrialStarted { .. }));
    let a = Tables::from_events(&run());
    let b = Tables::from_events(&backwards);
    assert_eq!(
        (a.csv().unwrap(), a.terminal_distributions()),
        (b.csv().unwrap(), b.terminal_distributions())
    );
}

#[test]
fn costs_are_kept_apart_from_results() {
    let tables = Tables::from_events(&run());
    assert!(!tables.csv().unwrap().contains("seconds/"));
    let expected = "\
trial,model,metric,value,stderr,n
\"target=0.5,seed=0\",iteration-1,seconds/supernet,12.5,,
\"target=0.5,seed=0\",iteration-1,peak_bytes/supernet,1073741824,,
\"target=0.5,seed=1\",iteration-1,seconds/supernet,13.5,,
\"target=0.5,seed=1\",iteration-1,peak_bytes/supernet,1073741824,,
";
    assert_eq!(tables.timings_csv().unwrap(), expected);
}

#[test]
fn reading_a_stored_result_does_not_replace_what_it_cost() {
    let tables =
        Tables::from_events(&[step("t", "search", Cache::Miss, 60.0), step("t", "search", Cache::Hit, 0.01)]);
    assert!(tables.timings_csv().unwrap().contains("seconds/search,60,,"));
    assert!(!tables.timings_csv().unwrap().contains("0.01"));
}

#[test]
fn seeds_are_aggregated_with_their_deviation() {
    let terminal = Tables::from_events(&run()).terminal();
    let block = terminal.split("target=0.5: mean ± standard deviation over 2 seeds").nth(1).unwrap();
    assert!(block.contains(" 42.50 ± 3.54 ") && block.contains(" 85.0 ± 7.1 "), "{block}");
    let parameters = block.lines().find(|l| l.contains("parameters")).unwrap();
    assert!(parameters.contains(" 134.5M ") && parameters.contains(" 114.3M ± 9.5M "), "{parameters}");
    let json: serde_json::Value = serde_json::from_str(&Tables::from_events(&run()).json().unwrap()).unwrap();
    assert_eq!(json["seeds"][0]["count"], 2);
}

#[test]
fn trials_that_differ_in_more_than_the_seed_are_not_aggregated() {
    let events: Vec<Event> =
        ["a/seed=0", "b/seed=0", "a"].iter().flat_map(|t| model(t, "dense", 1.0)).collect();
    assert!(!Tables::from_events(&events).terminal().contains("seeds"));
}

#[test]
fn terminal_tables_fit_and_show_every_task() {
    let terminal = Tables::from_events(&run()).terminal();
    assert!(terminal.lines().all(|l| l.chars().count() <= 100));
    assert!(TASKS.iter().all(|t| terminal.contains(&format!(" {t} "))), "{terminal}");
}

#[test]
fn a_value_that_is_no_number_is_empty_and_flagged() {
    let mut events = small();
    events.push(measured(figure("t", "iteration-1", "perplexity/wikitext2", f64::INFINITY)));
    events.push(measured(figure("t", "dense", "acc_mean", f64::NAN)));
    let tables = Tables::from_events(&events);
    assert!(tables.csv().unwrap().contains("t,iteration-1,perplexity/wikitext2,,,\n"));
    for text in [tables.markdown(), tables.terminal()] {
        assert!(
            text.contains("perplexity/wikitext2 of iteration-1 is infinite")
                && text.contains("acc_mean of dense is not a number")
        );
        assert!(!text.contains("NaN") && !text.contains("retained") && text.contains("perplexity"), "{text}");
    }
    assert!(tables.json().unwrap().contains("\"value\": \"NaN\""));
}

#[test]
fn every_view_has_the_paired_differences_and_the_retained_share() {
    let mut events = run();
    for (metric, value, stderr) in
        [("acc_diff/rte", -0.06, 0.021), ("acc_diff_mean", -0.05, 0.004), ("acc_retained", 0.9, 0.008)]
    {
        for model in ["uniform", "iteration-1", "iteration-2", "iteration-3", "iteration-4"] {
            events.push(measured(mean("target=0.5/seed=0", model, metric, value, stderr, 277)));
        }
    }
    let tables = Tables::from_events(&events);
    for text in [tables.markdown(), tables.terminal(), tables.latex()] {
        assert_eq!(text.to_lowercase().matches("difference in points").count(), 1, "{text}");
        assert!(
            ["-6.00", "2.10", "-5.00", "0.40", "90.0", "0.8"].iter().all(|number| text.contains(number)),
            "{text}"
        );
    }
    assert!(tables.terminal().lines().all(|l| l.chars().count() <= 100), "{}", tables.terminal());
    assert!(tables.csv().unwrap().contains("target=0.5/seed=0,uniform,acc_diff/rte,-0.06,0.021,277\n"));
    assert!(tables.latex().contains("-6.00 $\\pm$ 2.10"));
}

#[test]
fn subtasks_stay_out_of_the_wide_view_but_not_of_the_csv() {
    let mut events = small();
    events.push(measured(figure("t", "dense", "acc/mmlu", 0.4)));
    events.push(measured(figure("t", "dense", "acc/mmlu_anatomy", 0.3)));
    let tables = Tables::from_events(&events);
    assert!(tables.csv().unwrap().contains("acc/mmlu_anatomy,0.3"));
    assert!(tables.markdown().contains(" mmlu % ") && !tables.markdown().contains("anatomy"));
}

#[test]
fn trials_follow_the_newest_sweep_and_say_where_they_stand() {
    let start = |trials: &[&str]| Event::RunStarted {
        run: "r".into(),
        trials: trials.iter().map(|t| t.to_string()).collect(),
        origin: None,
    };
    let label = |t: &str| t.to_string();
    let mut events = vec![
        start(&["old", "b"]),
        Event::TrialStarted { trial: label("b"), identity: None },
        start(&["a", "b", "c"]),
    ];
    events.push(Event::TrialFailed { trial: label("b"), error: "no\nluck".into() });
    events.push(Event::TrialStarted { trial: label("a"), identity: None });
    events.push(Event::StepStarted { trial: label("a"), step: "search".into(), key: "00".into() });
    let tables = Tables::from_events(&events);
    assert_eq!(tables.trials().iter().map(|t| t.label.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "old"]);
    assert_eq!(tables.trials()[0].step.as_deref(), Some("search"));
    assert_eq!(tables.trials()[2].status, Status::Waiting);
    assert!(tables.markdown().contains("- failed: no luck\n"));
}

#[test]
fn a_trial_that_failed_and_was_run_again_is_finished() {
    let trial = || "t".to_string();
    let events = [
        Event::TrialFailed { trial: trial(), error: "e".into() },
        Event::TrialStarted { trial: trial(), identity: None },
        Event::TrialFinished { trial: trial() },
    ];
    assert_eq!(Tables::from_events(&events).trials()[0].status, Status::Finished);
}

#[test]
fn warnings_are_shown_once_with_their_trial() {
    let warning =
        |trial: Option<&str>| Event::Warning { trial: trial.map(String::from), message: "few tokens".into() };
    let tables = Tables::from_events(&[warning(Some("t")), warning(Some("t")), warning(None)]);
    assert_eq!(tables.markdown().matches("few tokens").count(), 2);
}

#[test]
fn a_distribution_that_does_not_fit_its_shape_is_a_warning() {
    let distribution = SparsityDistribution { removed: vec![10; 6] };
    let events =
        [Event::DistributionFound { trial: "t".into(), model: "m".into(), shape: shape(), distribution }];
    let tables = Tables::from_events(&events);
    assert_eq!(tables.terminal_distributions(), "");
    assert!(tables.terminal().contains("does not fit"));
}

#[test]
fn runs_are_joined_under_their_names() {
    let joined = Tables::joined(vec![
        ("smollm2".into(), Tables::from_events(&run())),
        ("b".into(), Tables::from_events(&small())),
    ]);
    assert!(joined.csv().unwrap().contains("\n\"smollm2/target=0.5,seed=0\",dense,parameters,"));
    assert!(
        joined.csv().unwrap().contains("\nb/t,dense,parameters,")
            && joined.markdown().starts_with("# smollm2, b\n")
    );
    assert_eq!(joined.trials().len(), 3);
}

#[test]
fn no_events_make_empty_tables() {
    let tables = Tables::from_events(&[]);
    assert_eq!(tables.csv().unwrap(), "trial,model,metric,value,stderr,n\n");
    assert_eq!(
        (tables.markdown(), tables.terminal(), tables.terminal_distributions()),
        (String::new(), String::new(), String::new())
    );
}

#[test]
fn every_event_of_a_run_survives_its_line() {
    let text: String = run().iter().map(|e| log::line(e, None).unwrap()).collect();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("e"), text).unwrap();
    assert_eq!(log::read(&dir.path().join("e")).unwrap(), run());
}

/// A trial of a base experiment; its text file holds `text`.
fn identity(base: &str, own: &str, text: &str) -> Identity {
    let contents = [("file x".to_string(), text.to_string())].into();
    Identity { base: base.into(), own: format!("{base}/{own}"), contents }
}

/// The start of a session of trials that are of a base experiment.
fn session(base: &str, trials: &[&str]) -> Event {
    let identity = |own: &&str| identity(base, own, "");
    let identities = trials.iter().map(identity).collect();
    let origin = Origin { file: "s".into(), profile: None, base: base.into(), trials: identities };
    let trials = trials.iter().map(ToString::to_string).collect();
    Event::RunStarted { run: "r".into(), trials, origin: Some(origin) }
}

fn begins(base: &str, trial: &str) -> Event {
    let identity = Some(identity(base, trial, ""));
    Event::TrialStarted { trial: trial.into(), identity }
}

#[test]
fn a_new_session_of_a_trial_replaces_what_was_told_of_it() {
    let figures = |model: &str, value| measured(figure("t", model, "kl", value));
    let mut events = vec![session("a", &["t"]), begins("a", "t"), figures("iteration-1", 1.0)];
    events.extend([figures("iteration-2", 2.0), begins("a", "t"), figures("iteration-1", 3.0)]);
    let csv = Tables::from_events(&events).csv().unwrap();
    assert_eq!(csv, "trial,model,metric,value,stderr,n\nt,iteration-1,kl,3,,\n");
}

#[test]
fn what_is_of_another_experiment_is_not_shown_whatever_the_order_of_the_logs() {
    let kl = |trial: &str, value| measured(figure(trial, "dense", "kl", value));
    let runs = [session("a", &["x", "y"]), session("b", &["y", "z"])];
    let trials = [begins("a", "x"), kl("x", 1.0), begins("a", "y"), kl("y", 2.0)];
    let live: Vec<Event> = [&runs[..1], &trials, &runs[1..]].concat();
    let read: Vec<Event> = [&runs[..], &trials].concat();
    for events in [live, read] {
        let tables = Tables::from_events(&events);
        assert_eq!(tables.csv().unwrap(), "trial,model,metric,value,stderr,n\n");
        let waiting = |trial: &Trial| trial.status == Status::Waiting;
        let shown: Vec<_> = tables.trials().iter().map(|t| (t.label.clone(), waiting(t))).collect();
        assert_eq!(shown, [("y".to_string(), true), ("z".to_string(), true)]);
        let more = [events, vec![begins("b", "y"), kl("y", 3.0)]].concat();
        assert!(Tables::from_events(&more).csv().unwrap().ends_with("value,stderr,n\ny,dense,kl,3,,\n"));
        let back = [more, vec![session("a", &["x"])]].concat();
        let csv = Tables::from_events(&back).csv().unwrap();
        assert_eq!(csv, "trial,model,metric,value,stderr,n\nx,dense,kl,1,,\n", "y was last run as part of b");
    }
}

#[test]
fn a_result_from_the_store_tells_what_making_it_told() {
    let begun =
        |key: &str| Event::StepStarted { trial: "t".into(), step: "supernet-1".into(), key: key.into() };
    let warning = |message: &str| Event::Warning { trial: Some("t".into()), message: message.into() };
    let done = |key: &str, cache, seconds| Event::StepFinished {
        trial: "t".into(),
        model: None,
        step: "supernet-1".into(),
        key: key.into(),
        cache,
        seconds,
        peak_bytes: None,
    };
    let first = [begins("a", "t"), warning("of texts"), begun("k"), warning("damping raised")];
    let first = [&first[..], &[done("k", Cache::Miss, 7.0)]].concat();
    let again = [begins("a", "t"), warning("of texts"), done("k", Cache::Hit, 0.1)];
    let shown = |events: &[Event]| {
        let tables = Tables::from_events(&[&[session("a", &["t"])], events].concat());
        (tables.trials()[0].warnings.clone(), tables.timings_csv().unwrap())
    };
    let (warnings, timings) = shown(&first);
    assert_eq!(warnings, ["of texts", "damping raised"]);
    assert!(timings.contains("seconds/supernet-1,7,"), "{timings}");
    assert_eq!(shown(&[&first[..], &again].concat()), (warnings, timings));
    let other = [begins("a", "t"), begun("other"), done("other", Cache::Miss, 2.0)];
    let (warnings, timings) = shown(&[&first[..], &other].concat());
    assert!(warnings.is_empty() && timings.contains("seconds/supernet-1,2,"), "{warnings:?} {timings}");
}

#[test]
fn what_a_stored_result_cost_stands_at_the_step_and_the_model_that_take_it() {
    let done = |step: &str, model: &str, cache, seconds| Event::StepFinished {
        trial: "t".into(),
        model: Some(model.into()),
        step: step.into(),
        key: "k".into(),
        cache,
        seconds,
        peak_bytes: None,
    };
    let events = [
        begins("a", "t"),
        done("compact-iteration-1", "iteration-1", Cache::Miss, 7.0),
        begins("a", "t"),
        done("compact-iteration-2", "iteration-2", Cache::Hit, 0.1),
    ];
    let timings =
        Tables::from_events(&[&[session("a", &["t"])], &events[..]].concat()).timings_csv().unwrap();
    let row = "t,iteration-2,seconds/compact-iteration-2,7,,\n";
    assert_eq!(timings, format!("trial,model,metric,value,stderr,n\n{row}"));
}

#[test]
fn figures_of_other_contents_are_not_shown() {
    let kl = |trial: &str| measured(figure(trial, "dense", "kl", 1.0));
    let start = |trials: &[&str], text: &str| {
        let Event::RunStarted { run, trials, origin: Some(mut origin) } = session("a", trials) else {
            unreachable!()
        };
        origin.trials.iter_mut().for_each(|one| *one = identity("a", &one.own[2..], text));
        Event::RunStarted { run, trials, origin: Some(origin) }
    };
    let begin = |trial: &str, text: &str| {
        let identity = Some(identity("a", trial, text));
        Event::TrialStarted { trial: trial.into(), identity }
    };
    let shown = |events: &[Event]| {
        let tables = Tables::from_events(events);
        let trials = tables.trials();
        trials.iter().filter(|t| t.figures().count() > 0).map(|t| t.label.clone()).collect::<Vec<_>>()
    };
    let first = [begin("x", "old"), kl("x"), begin("y", "old"), kl("y")];
    let first = [&[start(&["x", "y"], "old")], &first[..]].concat();
    let again = [&first[..], &[start(&["x", "y"], "new"), begin("x", "new"), kl("x")]].concat();
    assert_eq!((shown(&first), shown(&again)), (vec!["x".into(), "y".into()], vec!["x".to_string()]));
    // Of an earlier sweep.
    assert_eq!(shown(&[&first[..], &[start(&["x"], "old")]].concat()), ["x", "y"]);
    assert_eq!(shown(&[&first[..], &[start(&["x"], "new"), begin("x", "new"), kl("x")]].concat()), ["x"]);
    // Two of earlier sweeps, of which none is newer than the other as far as the logs tell.
    let third = [start(&["z"], "new"), begin("z", "new"), kl("z"), start(&[], "new")];
    assert!(shown(&[&first[..], &third].concat()).is_empty());
}
