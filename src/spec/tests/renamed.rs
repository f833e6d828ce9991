//! Keys under their earlier names: read as the present ones wherever a key may be written, and said so.

use super::*;

const EARLIER: &str = "
exclude = [{ 'prune.shrink' = 'halves', 'prune.blend' = 0.5 }]
[calibration]
starts = 8
[prune]
shrink = 'none'
[[sweep]]
key = 'prune.shrink'
values = ['halves', 'none']
[[sweep]]
cases = [{ label = 'a' }, { label = 'b', set = { 'prune.blend' = 0.5 } }, { label = 'c', set = { calibration = { starts = 4 } } }]
[profile.mini]
prune.shrink = 'halves'
sweep = []
exclude = []
";

/// The same text in the present names.
fn present() -> String {
    let names =
        [("starts", "sink_tokens"), ("blend", "target_interpolation"), ("shrink", "target_shrinkage")];
    let text = names.iter().fold(EARLIER.to_owned(), |text, (earlier, now)| text.replace(earlier, now));
    text.replace("halves", "split_half")
}

fn messages(checked: &Checked) -> Vec<&str> {
    checked.findings.iter().map(|f| f.message.as_str()).collect()
}

#[test]
fn a_file_in_earlier_names_is_the_same_experiment_with_a_warning_for_each() {
    for profile in [None, Some("mini".to_owned())] {
        let with = |text: &str| inspect_with(text, |source| source.profile = profile.clone());
        let (earlier, present) = (with(EARLIER), with(&present()));
        assert_eq!(present.findings, []);
        let said = messages(&earlier);
        for expected in [
            "`calibration.starts` is read as `calibration.sink_tokens`",
            "`prune.shrink` is read as `prune.target_shrinkage`",
            "`prune.target_shrinkage` reads \"halves\" as \"split_half\"",
            "`prune.blend` is read as `prune.target_interpolation`",
        ] {
            assert!(said.contains(&expected), "{expected}: {said:?}");
        }
        let (earlier, present) = (earlier.into_loaded().unwrap(), present.into_loaded().unwrap());
        assert_eq!((earlier.spec, earlier.trials), (present.spec, present.trials));
    }
}

#[test]
fn earlier_names_in_the_environment_and_on_the_command_line_are_read_too() {
    let checked = inspect_with("", |source| {
        source.set = vec![
            "calibration.starts=8".into(),
            "sweep=[{ key = 'prune.blend', values = [0.5, 0.75] }]".into(),
        ];
        source.env = vec![("TYR_PRUNE__SHRINK".into(), "halves".into())];
    });
    assert_eq!(
        messages(&checked),
        [
            "`prune.shrink` is read as `prune.target_shrinkage`",
            "`prune.target_shrinkage` reads \"halves\" as \"split_half\"",
            "`calibration.starts` is read as `calibration.sink_tokens`",
            "`prune.blend` is read as `prune.target_interpolation`",
        ]
    );
    let trials = checked.into_loaded().unwrap().trials;
    let last = &trials[1].spec;
    assert_eq!((last.calibration.sink_tokens, last.prune.target_interpolation), (8, 0.75));
    assert_eq!(last.prune.target_shrinkage, TargetShrinkage::SplitHalf);
}

#[test]
fn a_stronger_layer_wins_whichever_name_it_uses() {
    let checked =
        inspect_with("prune.target_interpolation = 0.5\n[profile.mini.prune]\nblend = 0.25\n", |source| {
            source.profile = Some("mini".into());
        });
    assert_eq!(checked.into_loaded().unwrap().spec.prune.target_interpolation, 0.25);
}

#[test]
fn both_names_of_a_key_in_one_place_are_an_error() {
    let refused = |text: &str, set: &[&str], env: &[(&str, &str)]| {
        let checked = inspect_with(text, |source| {
            source.set = set.iter().map(|s| (*s).to_owned()).collect();
            source.env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        });
        assert!(checked.loaded.is_none());
        assert!(checked.findings[0].message.contains("are the same key"), "{:?}", messages(&checked));
    };
    refused("[prune]\nblend = 0.5\ntarget_interpolation = 0.5\n", &[], &[]);
    refused("", &["prune.target_interpolation=0.5", "prune.blend=0.5"], &[]);
    refused("", &[], &[("TYR_PRUNE__BLEND", "1"), ("TYR_PRUNE__TARGET_INTERPOLATION", "1")]);
    let case = "[[sweep]]\ncases = [{ label = 'a', set = { 'prune.blend' = 0.5, 'prune.target_interpolation' = 1 } }]\n";
    refused(case, &[], &[]);
    // Repeating one name is how a later argument overrides an earlier one.
    let repeated = inspect_with("", |s| s.set = vec!["prune.damping=1".into(), "prune.damping=2".into()]);
    assert_eq!(repeated.into_loaded().unwrap().spec.prune.damping, 2.0);
}
