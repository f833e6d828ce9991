//! Keys and values that had another name in an earlier version, so that a finding can give the present one.

use super::key::KeyPath;

/// Keys by their earlier path, with their present path.
const KEYS: [(&str, &str); 3] = [
    ("calibration.starts", "calibration.sink_tokens"),
    ("prune.blend", "prune.target_interpolation"),
    ("prune.shrink", "prune.target_shrinkage"),
];

/// Values by the present path of their key: the earlier value and the present one.
const VALUES: [(&str, &str, &str); 1] = [("prune.target_shrinkage", "halves", "split_half")];

/// The present path of the key that had the path `earlier`; a key of a profile stays in its profile.
pub(super) fn key(earlier: &KeyPath) -> Option<KeyPath> {
    let (profile, own) = parted(earlier);
    let (_, present) = KEYS.iter().find(|(name, _)| KeyPath::of(name) == own)?;
    Some(profile.join(&KeyPath::of(present)))
}

/// The present name of the value `earlier` of the key at `path`.
pub(super) fn value(path: &KeyPath, earlier: &str) -> Option<&'static str> {
    let (_, own) = parted(path);
    let same = |(key, name, _): &&(&str, &str, &'static str)| KeyPath::of(key) == own && *name == earlier;
    VALUES.iter().find(same).map(|(_, _, present)| *present)
}

/// A path as the profile that it lies in, empty outside of profiles, and the rest.
fn parted(path: &KeyPath) -> (KeyPath, KeyPath) {
    let whole = || (KeyPath::default(), path.clone());
    let Some(below) = path.below(&KeyPath::of("profile")) else { return whole() };
    let Some(name) = below.steps().first() else { return whole() };
    let profile = KeyPath::of("profile").join(&KeyPath::from(name.clone()));
    path.below(&profile).map_or_else(whole, |own| (profile, own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::shape::{Form, Shape};

    #[test]
    fn what_is_renamed_is_no_key_any_more_and_its_new_name_is_one() {
        for (earlier, present) in KEYS {
            assert!(Shape::root().at(&KeyPath::of(earlier)).is_none(), "{earlier}");
            assert!(Shape::root().at(&KeyPath::of(present)).is_some(), "{present}");
        }
        for (path, earlier, present) in VALUES {
            let shape = Shape::root().at(&KeyPath::of(path)).unwrap();
            let Form::Choice(names) = &shape.form else { panic!("{path} is no choice") };
            assert!(names.iter().all(|(name, _)| name != earlier), "{path} = {earlier}");
            assert!(names.iter().any(|(name, _)| name == present), "{path} = {present}");
        }
    }

    #[test]
    fn a_key_of_a_profile_stays_in_its_profile() {
        let renamed = |path: &str| key(&KeyPath::of(path)).map(|k| k.to_string());
        assert_eq!(renamed("prune.blend").unwrap(), "prune.target_interpolation");
        assert_eq!(renamed("profile.mini.prune.blend").unwrap(), "profile.mini.prune.target_interpolation");
        assert_eq!(renamed("prune.damping"), None);
        assert_eq!(renamed("profile"), None);
        assert_eq!(value(&KeyPath::of("profile.x.prune.target_shrinkage"), "halves"), Some("split_half"));
        assert_eq!(value(&KeyPath::of("prune.target"), "halves"), None);
    }
}
