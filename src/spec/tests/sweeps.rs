//! Sweeps: what trials there are, in what order, under what names.

use super::*;

fn labels(text: &str) -> Vec<String> {
    let loaded = parse(text, "x.toml", &KNOWN).unwrap();
    loaded.trials.into_iter().map(|trial| trial.label).collect()
}

const SWEEP: &str = "
exclude = [{ 'sparsity.target' = 0.25, ablation = 'without Hessian' }, { seed = 1, ablation = 'default' }]
[[sweep]]
key = 'sparsity.target'
values = [0.25, 0.5]
[[sweep]]
name = 'ablation'
cases = [{ label = 'default' }, { label = 'without Hessian', set = { 'prune.saliency.second_order' = false, prune.saliency.first_order = true } }]
[[sweep]]
seeds = 2
[profile.mini]
exclude = []
[[profile.mini.sweep]]
key = 'prune.unit.attention'
values = ['head', 'kv_group']
[profile.none]
sweep = []
exclude = []
";

#[test]
fn axes_multiply_the_first_slowest_and_exclusions_leave_out() {
    let expected = [
        "target=0.25,ablation=default,seed=0",
        "target=0.5,ablation=default,seed=0",
        "target=0.5,ablation=without-Hessian,seed=0",
        "target=0.5,ablation=without-Hessian,seed=1",
    ];
    assert_eq!(labels(SWEEP), expected);
}

#[test]
fn trials_hold_what_their_labels_say() {
    let loaded = parse(SWEEP, "x.toml", &KNOWN).unwrap();
    let last = &loaded.trials[3];
    assert_eq!((last.spec.sparsity.target, last.spec.seed), (0.5, 1));
    assert_eq!(last.spec.prune.saliency, Saliency { first_order: true, second_order: false });
    assert_eq!(last.axes[1], ("ablation".to_owned(), "without-Hessian".to_owned()));
    assert_eq!(loaded.spec.prune.saliency, Saliency { first_order: false, second_order: true });
}

#[test]
fn a_profile_replaces_or_drops_the_sweep() {
    let of = |name: &str| {
        let checked = inspect_with(SWEEP, |s| s.profile = Some(name.into()));
        checked.into_loaded().unwrap().trials.into_iter().map(|t| t.label).collect::<Vec<_>>()
    };
    assert_eq!(of("mini"), ["attention=head", "attention=kv_group"]);
    assert_eq!(of("none"), ["main"]);
}

#[test]
fn labels_are_unique_and_safe() {
    let text = "[[sweep]]\nkey='calibration.tokens'\nvalues=[256, 512]\n[[sweep]]\nkey='search.tokens'\nvalues=[32768, 65536]\n\
                [[sweep]]\nname='a/b'\ncases=[{label='../x'}, {label='.. x'}, {label='α'}]\n[[sweep]]\nkey='supernet.intervals'\nvalues=[[0.5, 0.25], [0.1]]\n";
    let all = labels(text);
    assert_eq!(all[0], "calibration.tokens=256,search.tokens=32768,a-b=..-x,intervals=0.5+0.25");
    assert!(
        all.iter().all(|l| l.chars().all(|c| c.is_ascii_alphanumeric() || "._+-=,".contains(c))),
        "{all:?}"
    );
    assert!(all[2 * 2].contains("a-b=3"), "{all:?}");
    let unique: std::collections::BTreeSet<String> = all.iter().map(|l| l.to_lowercase()).collect();
    assert_eq!((all.len(), unique.len()), (24, 24));
}

#[test]
fn a_label_too_long_for_a_folder_is_cut_and_stays_unique() {
    let long = "x".repeat(300);
    let all = labels(&format!("[[sweep]]\nname='n'\ncases=[{{label='{long}1'}}, {{label='{long}2'}}]\n"));
    assert!(all.iter().all(|l| l.len() == 180) && all[0] != all[1]);
}

#[test]
fn an_exclusion_of_everything_is_an_error_and_of_nothing_a_warning() {
    let sweep = "[[sweep]]\nkey='seed'\nvalues=[1, 2]\n";
    let none = inspect_with(&format!("exclude=[{{ name = 'experiment' }}]\n{sweep}"), |_| {});
    assert_eq!(none.findings[0].message, "no trial is left");
    let idle = inspect_with(&format!("exclude=[{{ seed = 3 }}]\n{sweep}"), |_| {});
    assert_eq!(idle.findings[0].message, "this excludes no trial");
    assert_eq!(idle.loaded.unwrap().trials.len(), 2);
}

#[test]
fn seeds_count_from_the_seed_whatever_layer_sets_it() {
    let checked = inspect_with("[[sweep]]\nseeds = 2\n", |s| s.set = vec!["seed=7".into()]);
    let trials = checked.into_loaded().unwrap().trials;
    assert_eq!(
        trials.iter().map(|t| (t.label.as_str(), t.spec.seed)).collect::<Vec<_>>(),
        [("seed=7", 7), ("seed=8", 8)]
    );
}

#[test]
fn too_many_trials_are_refused() {
    let text = "[[sweep]]\nseeds = 5000\n[[sweep]]\nkey='supernet.levels'\nvalues=[3, 5, 7]\n";
    assert!(inspect_with(text, |_| {}).findings[0].message.contains("more than 10000 trials"));
}
