//! Which layer wins, and where values come from.

use super::*;

const FILE: &str = "seed = 1\n[prune]\ndamping = 0.1\n[profile.mini]\nseed = 2\nprune.damping = 0.2\n";

fn with(change: impl FnOnce(&mut Source)) -> Spec {
    let checked = inspect_with(FILE, change);
    checked.into_loaded().unwrap().spec
}

#[test]
fn each_layer_wins_over_those_before_it() {
    assert_eq!(with(|_| {}).prune.damping, 0.1);
    let mini = |s: &mut Source| s.profile = Some("mini".into());
    assert_eq!((with(mini).seed, with(mini).prune.damping), (2, 0.2));
    let env = |s: &mut Source| s.env = vec![("TYR_SEED".into(), "3".into())];
    assert_eq!(with(|s| (mini(s), env(s)).0).seed, 3);
    let set = |s: &mut Source| s.set = vec!["seed=4".into(), "seed=5".into()];
    assert_eq!(with(|s| (mini(s), env(s), set(s)).0).seed, 5);
    assert_eq!(with(|s| (mini(s), env(s), set(s)).0).prune.damping, 0.2);
}

#[test]
fn the_papers_choice_is_one_line_away_and_yields_to_what_is_set() {
    let choice = |spec: Spec| (spec.prune.saliency.first_order, spec.prune.target, spec.supernet.refit);
    assert_eq!(choice(with(|_| {})), (false, Target::Residual, true));
    assert_eq!(choice(with(|s| s.set = vec!["defaults=paper".into()])), (true, Target::Layer, false));
    assert_eq!(
        choice(with(|s| s.set = vec!["prune.target=dense".into(), "defaults=paper".into()])),
        (true, Target::Dense, false)
    );
    assert!(super::super::layers::paper().1.is_empty());
    let again = with(|s| s.set = vec!["defaults=paper".into(), "supernet.refit=true".into()]);
    let text = again.to_toml().unwrap();
    assert_eq!(inspect_with(&text, |_| {}).into_loaded().unwrap().spec, again);
}

#[test]
fn tables_merge_and_arrays_are_replaced() {
    let spec = with(|s| {
        s.set = vec!["prune.unit={ attention = \"kv_group\" }".into(), "supernet.intervals=[0.5]".into()]
    });
    assert_eq!((spec.prune.unit.attention, spec.prune.unit.mlp), (AttentionUnit::KvGroup, MlpUnit::Neuron));
    assert_eq!(spec.supernet.intervals, [0.5]);
}

#[test]
fn bare_words_are_strings_and_whole_floats_are_integers() {
    let spec = with(|s| {
        s.set = vec!["name=2024".into(), "model.source=hf:a/b".into(), "calibration.tokens=1.024e6".into()]
    });
    assert_eq!(
        (spec.name.as_str(), spec.model.source.as_str(), spec.calibration.tokens),
        ("2024", "hf:a/b", 1_024_000)
    );
}

#[test]
fn findings_know_their_layer() {
    let provenance =
        |text: &str, change: fn(&mut Source)| inspect_with(text, change).findings[0].provenance();
    let file = |profile: Option<&str>, line, column| Provenance::File {
        path: "x.toml".into(),
        line,
        column,
        profile: profile.map(str::to_owned),
    };
    assert_eq!(provenance("# ä\nname = 'ä' # x\nseed = true\n", |_| {}), file(None, 3, 8));
    assert_eq!(provenance("x = 1", |_| {}), file(None, 1, 1));
    assert_eq!(provenance("[profile.mini]\nseed = true\n", |_| {}), file(Some("mini"), 2, 8));
    let mini = |s: &mut Source| s.profile = Some("mini".into());
    assert_eq!(provenance("[profile.mini.supernet]\nlevels = 4\n", mini), file(Some("mini"), 2, 10));
    let env = |s: &mut Source| s.env = vec![("TYR_SUPERNET__LEVELS".into(), "4".into())];
    assert_eq!(provenance("", env), Provenance::Environment { variable: "TYR_SUPERNET__LEVELS".into() });
    let set = |s: &mut Source| s.set = vec!["supernet.levels=4".into()];
    assert_eq!(provenance("", set), Provenance::Set { argument: "supernet.levels=4".into() });
    assert_eq!(provenance("", |s| s.profile = Some("no".into())), Provenance::Profile { name: "no".into() });
}

#[test]
fn relative_paths_count_from_the_file_or_from_the_current_folder() {
    let dir = tempfile::tempdir().unwrap();
    let here = std::env::current_dir().unwrap();
    std::fs::write(dir.path().join("a.txt"), "text").unwrap();
    let text = "[corpora.mine]\ntrain = ['a.txt']\ntest = ['b.txt']\n[calibration]\ncorpus = 'mine'\n[evaluate]\ndata = '.'\n";
    let checked = inspect_with(text, |s| {
        s.path = dir.path().join("x.toml");
        s.set = vec!["evaluate.data=src".into()];
    });
    let spec = checked.into_loaded().unwrap().spec;
    assert_eq!(spec.corpora["mine"].train, [dir.path().join("a.txt")]);
    assert_eq!(spec.evaluate.data, Some(here.join("src")));
}

#[test]
fn evaluating_on_what_was_fitted_is_an_error_whatever_the_file_is_called() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), "text").unwrap();
    let text = "[corpora.mine]\ntrain = ['a.txt']\n[corpora.other]\ntest = ['../NAME/a.txt']\n[calibration]\ncorpus = 'mine'\n[evaluate]\nperplexity = ['other']\n";
    let name = dir.path().file_name().unwrap().to_string_lossy().into_owned();
    let checked = inspect_with(&text.replace("NAME", &name), |s| s.path = dir.path().join("x.toml"));
    assert_eq!(checked.findings.len(), 1);
    assert!(checked.findings[0].message.contains("is fitted to"), "{:?}", checked.findings);
    assert_eq!(checked.findings[0].key.to_string(), "evaluate.perplexity[0]");
}

#[test]
fn a_file_that_is_not_there_is_an_error_of_the_spec() {
    let error = load(&Source { path: "nowhere/x.toml".into(), ..Source::default() }, &KNOWN).unwrap_err();
    assert_eq!(error.kind, crate::base::Kind::Spec);
    assert!(error.to_string().contains("nowhere/x.toml"));
}
