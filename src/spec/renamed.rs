//! Keys and values that had another name in an earlier version. A document is read under the present names,
//! with a warning for each earlier one, so that nothing else knows of them.

use std::collections::BTreeMap;

use super::finding::Finding;
use super::key::{KeyPath, Step};
use super::node::{At, Entry, Node, Value};

/// Keys by their earlier path, with their present path, which lies in the same table.
const KEYS: [(&str, &str); 3] = [
    ("calibration.starts", "calibration.sink_tokens"),
    ("prune.blend", "prune.target_interpolation"),
    ("prune.shrink", "prune.target_shrinkage"),
];

/// Values by the present path of their key: the earlier value and the present one.
const VALUES: [(&str, &str, &str); 1] = [("prune.target_shrinkage", "halves", "split_half")];

type Entries = BTreeMap<String, Entry>;

/// Gives a whole document the present names: its keys, those of its profiles, and those that its sweep and its
/// exclusions name.
pub(super) fn document(file: &mut Node, found: &mut Vec<Finding>) {
    tables(file, &KeyPath::default(), &KeyPath::default(), found);
}

/// The present path of the key at `path`, which is written at `at`.
pub(super) fn path(path: &KeyPath, at: &At, found: &mut Vec<Finding>) -> KeyPath {
    found.extend(key(path).map(|present| renamed_key(path, path, &present, at)));
    present(path)
}

/// The present path of a key, which may have its earlier one.
pub(super) fn present(path: &KeyPath) -> KeyPath {
    key(path).unwrap_or_else(|| path.clone())
}

/// Gives the values in `node`, which belongs to the key at the present path `own` and stands at `written`,
/// their present names.
pub(super) fn values(node: &mut Node, own: &KeyPath, written: &KeyPath, found: &mut Vec<Finding>) {
    let Value::Text(text) = &mut node.value else { return tables(node, own, written, found) };
    let Some(present) = value(own, text) else { return };
    let finding = Finding::warning(written.clone(), format!("`{own}` reads \"{text}\" as \"{present}\""));
    found.push(
        finding.hint(format!("write \"{present}\": the value has another name now")).at(node.at.clone()),
    );
    *text = present.to_owned();
}

/// Goes into tables and arrays. `own` is the path in the experiment, `written` the one in the document.
fn tables(node: &mut Node, own: &KeyPath, written: &KeyPath, found: &mut Vec<Finding>) {
    match &mut node.value {
        Value::Table(entries) => match own.steps() {
            [Step::Key(profile), Step::Key(_)] if profile == "profile" => {
                table(entries, &KeyPath::default(), written, found);
            }
            [Step::Key(sweep), Step::Index(_)] if sweep == "sweep" => axis(entries, written, found),
            [Step::Key(exclude), Step::Index(_)] if exclude == "exclude" => settings(entries, written, found),
            _ => table(entries, own, written, found),
        },
        Value::Array(items) => {
            items.iter_mut().enumerate().for_each(|(i, item)| {
                values(item, &own.index(i), &written.index(i), found);
            });
        }
        _ => {}
    }
}

/// A table whose keys are single names.
fn table(entries: &mut Entries, own: &KeyPath, written: &KeyPath, found: &mut Vec<Finding>) {
    for name in entries.keys().cloned().collect::<Vec<_>>() {
        let earlier = own.key(&name);
        let present = present(&earlier);
        let written = written.key(&name);
        if let Some(entry) = moved(entries, &name, present.last(), (&earlier, &written), found) {
            values(&mut entry.node, &present, &written, found);
        }
    }
}

/// A table whose keys are paths of the experiment's keys: `{ "prune.damping" = 0.1 }`.
fn settings(entries: &mut Entries, written: &KeyPath, found: &mut Vec<Finding>) {
    for name in entries.keys().cloned().collect::<Vec<_>>() {
        let Some(earlier) = KeyPath::parse(&name) else { continue };
        let present = present(&earlier);
        let now = if present == earlier { name.clone() } else { present.to_string() };
        if let Some(entry) = moved(entries, &name, &now, (&earlier, written), found) {
            values(&mut entry.node, &present, written, found);
        }
    }
}

/// An axis of a sweep: the key that it names with its values, and what its cases set.
fn axis(entries: &mut Entries, written: &KeyPath, found: &mut Vec<Finding>) {
    let named = entries.get_mut("key").and_then(|entry| match &mut entry.node.value {
        Value::Text(text) => Some((text, &entry.node.at)),
        _ => None,
    });
    if let Some((text, at)) = named
        && let Some(earlier) = KeyPath::parse(text)
    {
        let present = path(&earlier, at, found);
        if present != earlier {
            *text = present.to_string();
        }
        if let Some(Entry { node: Node { value: Value::Array(items), .. }, .. }) = entries.get_mut("values") {
            items.iter_mut().for_each(|item| values(item, &present, written, found));
        }
    }
    let Some(Entry { node: Node { value: Value::Array(cases), .. }, .. }) = entries.get_mut("cases") else {
        return;
    };
    for case in cases {
        let Value::Table(case) = &mut case.value else { continue };
        if let Some(Entry { node: Node { value: Value::Table(set), .. }, .. }) = case.get_mut("set") {
            settings(set, written, found);
        }
    }
}

/// The entry called `name` under the name that it has now. An earlier name beside the present one is an error.
fn moved<'a>(
    entries: &'a mut Entries,
    name: &str,
    now: &str,
    (earlier, written): (&KeyPath, &KeyPath),
    found: &mut Vec<Finding>,
) -> Option<&'a mut Entry> {
    if name == now {
        return entries.get_mut(name);
    }
    let entry = entries.remove(name)?;
    if entries.contains_key(now) {
        found.push(both(name, now, written).at(entry.key));
        return None;
    }
    found.extend(key(earlier).map(|present| renamed_key(earlier, written, &present, &entry.key)));
    Some(entries.entry(now.to_owned()).or_insert(entry))
}

/// The finding for a key that is given under two names.
pub(super) fn both(one: &str, other: &str, written: &KeyPath) -> Finding {
    Finding::error(written.clone(), format!("`{one}` and `{other}` are the same key"))
        .hint(format!("leave `{one}` out"))
}

fn renamed_key(earlier: &KeyPath, written: &KeyPath, present: &KeyPath, at: &At) -> Finding {
    Finding::warning(written.clone(), format!("`{earlier}` is read as `{present}`"))
        .hint(format!("write `{}`: the key has another name and the same meaning", present.last()))
        .at(at.clone())
}

/// The present path of the key that had the path `earlier`.
fn key(earlier: &KeyPath) -> Option<KeyPath> {
    KEYS.iter().find(|(name, _)| KeyPath::of(name) == *earlier).map(|(_, present)| KeyPath::of(present))
}

/// The present name of the value `earlier` of the key at `path`.
fn value(path: &KeyPath, earlier: &str) -> Option<&'static str> {
    let same = |(key, name, _): &&(&str, &str, &'static str)| *name == earlier && KeyPath::of(key) == *path;
    VALUES.iter().find(same).map(|(_, _, present)| *present)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::shape::{Form, Shape};

    #[test]
    fn what_is_renamed_is_no_key_any_more_and_its_new_name_is_one_of_the_same_table() {
        let table = |path: &KeyPath| path.steps().split_last().unwrap().1.to_vec();
        for (earlier, present) in KEYS.map(|(a, b)| (KeyPath::of(a), KeyPath::of(b))) {
            assert!(Shape::root().at(&earlier).is_none(), "{earlier}");
            assert!(Shape::root().at(&present).is_some(), "{present}");
            assert_eq!(table(&earlier), table(&present));
        }
        for (path, earlier, present) in VALUES {
            let shape = Shape::root().at(&KeyPath::of(path)).unwrap();
            let Form::Choice(names) = &shape.form else { panic!("{path} is no choice") };
            assert!(names.iter().all(|(name, _)| name != earlier), "{path} = {earlier}");
            assert!(names.iter().any(|(name, _)| name == present), "{path} = {present}");
        }
    }
}
