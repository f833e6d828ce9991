//! One layer against the schema: unknown keys, wrong types, numbers out of range, unknown names, missing
//! keys. All at once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::finding::Finding;
use super::key::KeyPath;
use super::node::{Entry, Node, Value, whole};
use super::shape::{Form, Range, Shape, Table, quoted_list};

/// Adds what is wrong with `node`, which stands at `path`, to `found`.
pub(crate) fn check(node: &Node, shape: &Shape, path: &KeyPath, found: &mut Vec<Finding>) {
    match (&shape.form, &node.value) {
        (Form::Any, _) => check_no_date(node, path, found),
        (Form::Bool, Value::Bool(_)) | (Form::Text, Value::Text(_)) => {}
        (Form::Integer(range), Value::Integer(i)) => check_range(node, *i as f64, range, shape, path, found),
        (Form::Integer(range), Value::Float(x)) if whole(*x).is_some() => {
            check_range(node, *x, range, shape, path, found)
        }
        (Form::Number(range), Value::Integer(i)) => check_range(node, *i as f64, range, shape, path, found),
        (Form::Number(range), Value::Float(x)) => check_range(node, *x, range, shape, path, found),
        (Form::Choice(names), Value::Text(text)) => check_choice(node, text, names, path, found),
        (Form::Array(item, at_least), Value::Array(items)) => {
            check_array(node, items, item, *at_least, path, found)
        }
        (Form::Table(table), Value::Table(entries)) => {
            entries.iter().for_each(|(key, entry)| check_entry(key, entry, table, path, found));
            check_required(node, table, path, found);
        }
        _ => found.push(wrong_type(node, shape, path)),
    }
}

fn wrong_type(node: &Node, shape: &Shape, path: &KeyPath) -> Finding {
    let message = format!("{} takes {}, not {}", called(path), shape.words(), node.type_name());
    let finding = Finding::error(path.clone(), message).at(node.at.clone());
    match &shape.default {
        Some(default) => finding.hint(format!("the default is {default}")),
        None => finding,
    }
}

/// The key as a message names it.
fn called(path: &KeyPath) -> String {
    let name = path.to_string();
    if name.is_empty() { "this".into() } else { format!("`{name}`") }
}

fn check_range(node: &Node, x: f64, range: &Range, shape: &Shape, path: &KeyPath, found: &mut Vec<Finding>) {
    if !range.holds(x) {
        let message = format!("{x} is out of range for {}", called(path));
        found.push(
            Finding::error(path.clone(), message)
                .at(node.at.clone())
                .hint(format!("it takes {}", shape.words())),
        );
    }
}

/// No key takes a date, wherever it stands in a value.
fn check_no_date(node: &Node, path: &KeyPath, found: &mut Vec<Finding>) {
    match &node.value {
        Value::Datetime => {
            let finding = Finding::error(path.clone(), "a date or a time, which no key takes");
            found.push(finding.at(node.at.clone()).hint("write it in quotes if it is meant as a string"));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| check_no_date(item, &path.index(i), found));
        }
        Value::Table(entries) => {
            entries.iter().for_each(|(key, entry)| check_no_date(&entry.node, &path.key(key), found));
        }
        _ => {}
    }
}

fn check_choice(
    node: &Node,
    text: &str,
    names: &[(String, String)],
    path: &KeyPath,
    found: &mut Vec<Finding>,
) {
    if names.iter().any(|(name, _)| name == text) {
        return;
    }
    let known = || names.iter().map(|(name, _)| name.as_str());
    let hint = match nearest(text, known()) {
        Some(name) => format!("did you mean \"{name}\"? It takes {}", quoted_list(known())),
        None => format!("it takes {}", quoted_list(known())),
    };
    let message = format!("{} has no value \"{text}\"", called(path));
    found.push(Finding::error(path.clone(), message).at(node.at.clone()).hint(hint));
}

fn check_array(
    node: &Node,
    items: &[Node],
    item: &Shape,
    at_least: usize,
    path: &KeyPath,
    found: &mut Vec<Finding>,
) {
    if items.len() < at_least {
        let message = format!("{} is empty", called(path));
        found.push(
            Finding::error(path.clone(), message).at(node.at.clone()).hint("give it at least one element"),
        );
    }
    items.iter().enumerate().for_each(|(i, element)| check(element, item, &path.index(i), found));
}

fn check_entry(key: &str, entry: &Entry, table: &Table, path: &KeyPath, found: &mut Vec<Finding>) {
    match table.fields.get(key).or(table.others.as_deref()) {
        Some(shape) => check(&entry.node, shape, &path.key(key), found),
        None => found.push(unknown(key, table, path).at(entry.key.clone())),
    }
}

/// The finding for a key that the table does not have: names the nearest key, the table where it belongs, or
/// the table's keys.
fn unknown(key: &str, table: &Table, path: &KeyPath) -> Finding {
    let place = if path.steps().is_empty() { "an experiment".to_owned() } else { format!("`{path}`") };
    let finding = Finding::error(path.key(key), format!("unknown key `{key}` in {place}"));
    let keys = || table.fields.keys().map(String::as_str);
    let home = elsewhere(key);
    match nearest(key, keys()) {
        Some(near) => finding.hint(format!("did you mean `{near}`?")),
        None if home.len() == 1 => finding.hint(format!("did you mean `{}`?", home[0])),
        None => finding.hint(format!("the keys here are {}", keys().collect::<Vec<_>>().join(", "))),
    }
}

/// Paths of the keys that have this very name.
fn elsewhere(key: &str) -> &'static [String] {
    static BY_NAME: LazyLock<BTreeMap<String, Vec<String>>> = LazyLock::new(|| {
        let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (path, _) in Shape::root().leaves() {
            by_name.entry(path.last().to_owned()).or_default().push(path.to_string());
        }
        by_name.values_mut().for_each(|paths| paths.retain(|path| !path.starts_with("profile")));
        by_name
    });
    BY_NAME.get(key).map_or(&[], Vec::as_slice)
}

/// Paths of all keys of an experiment.
fn all_paths() -> &'static [String] {
    static ALL: LazyLock<Vec<String>> = LazyLock::new(|| {
        let paths = Shape::root().leaves().into_iter().map(|(path, _)| path.to_string());
        paths.filter(|path| !path.starts_with("profile")).collect()
    });
    &ALL
}

/// The finding for a path of keys that leads nowhere, as `--set`, variables and sweeps write them.
pub(crate) fn unknown_path(path: &KeyPath) -> Finding {
    let name = path.to_string();
    let finding = Finding::error(path.clone(), format!("unknown key `{name}`"));
    let home = elsewhere(path.last());
    match nearest(&name, all_paths().iter().map(String::as_str)) {
        _ if home.len() == 1 => finding.hint(format!("did you mean `{}`?", home[0])),
        Some(near) => finding.hint(format!("did you mean `{near}`?")),
        None => {
            finding.hint("write the tables too, as in `prune.damping`; the reference page lists all keys")
        }
    }
}

fn check_required(node: &Node, table: &Table, path: &KeyPath, found: &mut Vec<Finding>) {
    let Value::Table(entries) = &node.value else { return };
    for key in table.required.iter().filter(|key| !entries.contains_key(*key)) {
        found.push(missing(path, key, table).at(node.at.clone()));
    }
}

/// The finding for a key that has no default and is not there.
pub(crate) fn missing(path: &KeyPath, key: &str, table: &Table) -> Finding {
    let takes = table.fields.get(key).map(Shape::words).unwrap_or_default();
    Finding::error(path.key(key), format!("{} lacks `{key}`", called(path)))
        .hint(format!("add `{key}`: {takes}"))
}

/// Bytes of the longest name that others are compared with: the work grows with the product of both.
const LONGEST_NAME: usize = 256;

/// The nearest of some names, if one is near enough to be meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST_NAME {
        return None;
    }
    let scored = known.into_iter().map(|k| (strsim::damerau_levenshtein(&name.to_lowercase(), k), k));
    let (distance, best) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= (name.chars().count() / 3).max(1)).then_some(best)
}
