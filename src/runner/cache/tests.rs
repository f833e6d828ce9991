use super::*;
use crate::base::Kind;
use crate::base::meter::Cost;
use crate::report::Log;
use crate::report::event::Cache;
use crate::trial::Key;

/// A run of one trial `t` whose log says what `events` say of the keys of [`address`].
fn run(events: &[Event]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let log = |path: PathBuf, events: &[Event]| {
        files::create_dir(path.parent().unwrap()).unwrap();
        let mut log = Log::open(&path).unwrap();
        events.iter().for_each(|e| log.append(e).unwrap());
    };
    log(
        folder::run_log(dir.path()),
        &[Event::RunStarted { run: "r".into(), trials: vec!["t".into()], origin: None }],
    );
    log(folder::trial_log(dir.path(), "t"), events);
    dir
}

/// Makes the entry of a key, finished or begun, and gives its address.
fn entry(run: &Path, key: &str, finished: bool) -> String {
    let key = Key::example(key);
    let entry = Store::at(&run.join("store")).entry(&key).unwrap();
    files::write(&entry.folder.join("x"), &[0; 1000]).unwrap();
    if finished {
        entry.finish(&key, &["x".into()], Cost { seconds: 1.0, peak_bytes: None }).unwrap();
    }
    entry.address
}

/// The address of a key, in a store that is thrown away.
fn address(key: &str) -> String {
    entry(tempfile::tempdir().unwrap().path(), key, false)
}

fn begins() -> Event {
    Event::TrialStarted { trial: "t".into(), identity: None }
}

fn ends() -> Event {
    Event::TrialFinished { trial: "t".into() }
}

fn step(key: &str) -> Event {
    Event::StepStarted { trial: "t".into(), step: format!("step-{key}"), key: address(key) }
}

fn done(key: &str) -> Event {
    let step = format!("step-{key}");
    let key = address(key);
    Event::StepFinished {
        trial: "t".into(),
        model: None,
        step,
        key,
        cache: Cache::Miss,
        seconds: 1.0,
        peak_bytes: None,
    }
}

/// Keys whose entries remain when what is `selected` is pruned.
fn left(run: &Path, keys: &[&str], selection: &Selection) -> Vec<String> {
    prune(run, selection).unwrap();
    let there = |key: &&&str| run.join("store").join(address(key)).exists();
    keys.iter().filter(there).map(|k| k.to_string()).collect()
}

#[test]
fn entries_are_listed_with_their_state_size_and_users() {
    let dir = run(&[begins(), step("a"), done("a"), step("b")]);
    let a = entry(dir.path(), "a", true);
    let b = entry(dir.path(), "b", false);
    let c = entry(dir.path(), "c", true);
    files::write(&dir.path().join("store").join(&c).join("x"), b"other").unwrap();
    let listing = list(dir.path()).unwrap();
    let of = |address: &str| listing.items.iter().find(|i| i.address == address).unwrap();
    assert_eq!(
        (&of(&a).condition, &of(&b).condition, &of(&c).condition),
        (&Condition::Finished, &Condition::Begun, &Condition::Damaged)
    );
    assert_eq!(
        (of(&a).used_by.as_slice(), of(&b).used_by.as_slice(), of(&c).used_by.len()),
        (&["t".to_string()][..], &["t".to_string()][..], 0)
    );
    assert_eq!(
        (of(&a).step.as_deref(), of(&c).step.as_deref(), of(&a).kind()),
        (Some("step-a"), None, Some(StepKind::Supernet))
    );
    assert!(of(&a).bytes > 1000 && of(&a).bytes == of(&a).own_bytes);
    assert!(listing.items.is_sorted_by_key(|i| i.address.clone()));
}

#[test]
fn an_entry_is_as_old_as_its_newest_file() {
    let dir = run(&[begins(), step("a"), done("a")]);
    let folder = dir.path().join("store").join(entry(dir.path(), "a", true));
    let hours = |n: u64| Duration::from_secs(n * 3600);
    let begun = SystemTime::now();
    for file in std::fs::read_dir(&folder).unwrap().flatten() {
        let age = hours(if file.file_name() == "x" { 2 } else { 5 });
        std::fs::File::open(file.path()).unwrap().set_modified(begun - age).unwrap();
    }
    let age = list(dir.path()).unwrap().items[0].age;
    let least = hours(2);
    // Some file systems keep whole seconds.
    let most = least + SystemTime::now().duration_since(begun).unwrap() + Duration::from_secs(1);
    assert!((least..=most).contains(&age), "{age:?}");
}

#[test]
fn pruning_keeps_what_the_trial_uses_or_would_go_on_in() {
    let dir = run(&[begins(), step("a"), done("a"), step("b")]);
    ["a", "c"].iter().for_each(|k| drop(entry(dir.path(), k, true)));
    ["b", "d"].iter().for_each(|k| drop(entry(dir.path(), k, false)));
    assert_eq!(left(dir.path(), &["a", "b", "c", "d"], &Selection::Unused), ["a", "b"]);
    assert_eq!(left(dir.path(), &["a", "b"], &Selection::Unfinished), ["a"]);
}

#[test]
fn what_an_earlier_spec_of_a_finished_trial_left_is_unused() {
    let dir =
        run(&[begins(), done("old"), ends(), begins(), done("a"), done("b"), ends(), begins(), done("a")]);
    ["old", "a", "b"].iter().for_each(|k| drop(entry(dir.path(), k, true)));
    assert_eq!(left(dir.path(), &["old", "a", "b"], &Selection::Unused), ["a", "b"]);
}

#[test]
fn a_kind_or_an_age_selects_used_entries_too() {
    let dir = run(&[begins(), done("a"), ends()]);
    entry(dir.path(), "a", true);
    let matching = |kind, seconds| Selection::Matching {
        kind: Some(kind),
        older_than: Some(Duration::from_secs(seconds)),
    };
    assert_eq!(left(dir.path(), &["a"], &matching(StepKind::Supernet, 3600)), ["a"]);
    assert_eq!(left(dir.path(), &["a"], &matching(StepKind::Search, 0)), ["a"]);
    assert!(left(dir.path(), &["a"], &matching(StepKind::Supernet, 0)).is_empty());
}

/// The log of the trial of [`run`].
fn log(run: &Path) -> PathBuf {
    folder::trial_log(run, "t")
}

/// What is left of a text.
type Damage = fn(String) -> String;

#[test]
fn a_log_that_lacks_lines_makes_no_used_entry_an_unused_one() {
    let whole = [begins(), step("a"), done("a"), step("b"), done("b"), ends()];
    let damages: [(&str, Damage); 5] = [
        ("cut inside a line", |text| text[..text.len() - 10].into()),
        ("cut after a line", |text| text.lines().take(3).map(|line| format!("{line}\n")).collect()),
        ("a damaged line", |text| {
            text.replacen("step-b", "step-\u{1}", 2).replace("\"step\":\"step-\u{1}\"", "")
        }),
        ("empty", |_| String::new()),
        ("another run's", |_| "{\"version\":1,\"event\":{}}\n".into()),
    ];
    for (what, damage) in damages {
        let dir = run(&whole);
        let mut run_log = Log::open(&folder::run_log(dir.path())).unwrap();
        run_log.append(&Event::RunFinished { run: "r".into(), failed: 0 }).unwrap();
        ["a", "b", "c"].iter().for_each(|k| drop(entry(dir.path(), k, true)));
        let text = damage(std::fs::read_to_string(log(dir.path())).unwrap());
        std::fs::write(log(dir.path()), text).unwrap();
        assert_eq!(list(dir.path()).unwrap().unclear, ["t"], "{what}");
        assert_eq!(left(dir.path(), &["a", "b", "c"], &Selection::Unused), ["a", "b", "c"], "{what}");
        // The next session tells everything again.
        let mut again = Log::open(&log(dir.path())).unwrap();
        [begins(), done("a"), done("b"), ends()].iter().for_each(|e| again.append(e).unwrap());
        assert_eq!(left(dir.path(), &["a", "b", "c"], &Selection::Unused), ["a", "b"], "{what}");
    }
    let dir = run(&whole);
    ["a", "b"].iter().for_each(|k| drop(entry(dir.path(), k, true)));
    std::fs::remove_file(log(dir.path())).unwrap();
    assert_eq!(left(dir.path(), &["a", "b"], &Selection::Unused), ["a", "b"]);
    std::fs::remove_dir_all(dir.path().join("trials/t")).unwrap();
    assert!(left(dir.path(), &["a", "b"], &Selection::Unused).is_empty(), "a trial that was given up");
}

#[test]
fn behind_a_damaged_log_of_the_run_nothing_counts_as_unused() {
    let dir = run(&[begins(), done("a"), ends()]);
    ["a", "c"].iter().for_each(|k| drop(entry(dir.path(), k, true)));
    std::fs::write(folder::run_log(dir.path()), "").unwrap();
    assert_eq!(list(dir.path()).unwrap().unclear, ["t"]);
    assert_eq!(left(dir.path(), &["a", "c"], &Selection::Unused), ["a", "c"]);
}

/// A trial of an experiment.
fn identity(own: &str) -> Identity {
    Identity { base: "b".into(), own: own.into(), ..Identity::default() }
}

/// The start of a session at a time; its trials are of the experiment `own`.
fn session(at: u64, labels: &[&str], own: &str) -> Stamped {
    let trials: Vec<String> = labels.iter().map(ToString::to_string).collect();
    let identities = labels.iter().map(|_| identity(own)).collect();
    let origin = Origin { file: "s".into(), profile: None, base: "b".into(), trials: identities };
    Stamped { at: Some(at), event: Event::RunStarted { run: "r".into(), trials, origin: Some(origin) } }
}

#[test]
fn only_what_surely_has_all_lines_is_clear() {
    let over = |at, failed| Stamped { at: Some(at), event: Event::RunFinished { run: "r".into(), failed } };
    let trial = |label: &str, at, own: &str, end| {
        let start = Some(Start { at: Some(at), identity: Some(identity(own)) });
        (label.to_string(), Trial { start, end, ..Trial::default() })
    };
    let finished = Some(End::Finished);
    let failed = Some(End::Failed);
    let twice = |own: &str| vec![session(1, &["t", "u"], "x"), over(4, 0), session(5, &["t", "u"], own)];
    // Interrupted in `t`: another experiment may have come to `u`, whose lines are lost then.
    assert_eq!(unclear(&twice("x"), &[trial("t", 6, "x", None), trial("u", 2, "x", finished)]), [""; 0]);
    assert_eq!(unclear(&twice("y"), &[trial("t", 6, "y", None), trial("u", 2, "x", finished)]), ["u"]);
    assert_eq!(unclear(&twice("x"), &[trial("t", 6, "x", None), trial("u", 2, "x", failed)]), ["u"]);
    // A later trial began, so this one ended.
    assert_eq!(unclear(&twice("x"), &[trial("t", 6, "x", None), trial("u", 7, "x", None)]), ["t"]);
    assert_eq!(unclear(&twice("x"), &[trial("t", 6, "x", failed), trial("u", 7, "x", None)]), [""; 0]);
    // The run is over, with failures or without.
    for failures in [0, 1] {
        let run = [twice("x"), vec![over(9, failures)]].concat();
        assert_eq!(unclear(&run, &[trial("t", 6, "x", failed), trial("u", 7, "x", None)]), ["u"]);
        assert_eq!(unclear(&run, &[trial("t", 6, "x", failed), trial("u", 7, "x", finished)]), [""; 0]);
    }
    // One that the sweep no longer has.
    let shrunk = [session(1, &["t", "u"], "x"), over(4, 0), session(5, &["t"], "y"), over(9, 0)];
    assert_eq!(unclear(&shrunk, &[trial("t", 6, "y", finished), trial("u", 2, "x", finished)]), [""; 0]);
    assert_eq!(unclear(&shrunk, &[trial("t", 1, "x", finished), trial("u", 2, "w", finished)]), ["t", "u"]);
}

#[test]
fn folders_that_were_not_finished_are_removed_whole() {
    let dir = run(&[begins(), ends()]);
    let stray = dir.path().join("trials/t/model.17.partial");
    files::create_dir(&stray).unwrap();
    ["a", "b"].iter().for_each(|name| files::write(&stray.join(name), b"xx").unwrap());
    assert_eq!(prune(dir.path(), &Selection::Unused).unwrap().partial, [(stray.clone(), 4)]);
    assert!(!stray.exists());
}

#[test]
fn files_with_another_name_free_nothing_and_partial_ones_are_removed() {
    let dir = run(&[begins(), ends()]);
    let a = entry(dir.path(), "a", true);
    std::fs::hard_link(dir.path().join("store").join(&a).join("x"), dir.path().join("kept")).unwrap();
    let stray = dir.path().join("trials/t/model.safetensors.17.partial");
    files::write_with(&stray, |_| Ok(())).unwrap();
    let removed = prune(dir.path(), &Selection::Unused).unwrap();
    assert_eq!(removed.items[0].bytes - removed.items[0].own_bytes, 1000);
    assert!(dir.path().join("kept").exists() && !stray.exists());
    assert_eq!(removed.partial, [(stray, 0)]);
}

#[test]
fn a_run_that_goes_on_is_not_pruned() {
    let dir = run(&[begins(), ends()]);
    entry(dir.path(), "a", true);
    let _held = Lock::take(dir.path()).unwrap();
    assert_eq!(prune(dir.path(), &Selection::Unused).unwrap_err().kind, Kind::Busy);
    assert_eq!(list(dir.path()).unwrap().items.len(), 1);
}

#[test]
fn a_run_without_a_store_has_no_entries_and_no_run_is_an_error() {
    let dir = run(&[begins(), ends()]);
    assert_eq!(list(dir.path()).unwrap(), Listing { items: vec![], partial: vec![], unclear: vec![] });
    let none = tempfile::tempdir().unwrap();
    assert_eq!(prune(none.path(), &Selection::Unused).unwrap_err().kind, Kind::Usage);
    assert!(!none.path().join("lock").exists());
}
