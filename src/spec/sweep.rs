//! Sweeps: axes that multiply into trials, with labels that read well and are safe as names of folders.

use std::collections::BTreeMap;

use figment::Figment;
use figment::providers::Serialized;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::base::hash;

use super::check::{check, unknown_path};
use super::finding::Finding;
use super::key::KeyPath;
use super::layers::Layers;
use super::node::{Node, Value};
use super::repeated::{number_repeats, repeated};
use super::shape::Shape;

/// More axes than this are taken for a mistake, even where they do not multiply to more trials.
const MOST_AXES: usize = 100;
/// More trials than this are taken for a mistake.
const MOST_TRIALS: usize = 10_000;
/// Longest label; file systems take names of 255 bytes.
const LONGEST_LABEL: usize = 180;
/// Keys that no axis may set: they are about the file, not about a trial.
const NOT_SWEPT: [&str; 4] = ["name", "sweep", "exclude", "profile"];

/// `[[sweep]]`: one axis. It has `key` with `values`, or `cases`, or `seeds`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// The key that takes the values: `sparsity.target`.
    pub key: Option<String>,
    /// The values of `key`, one trial each.
    #[schemars(length(min = 1))]
    pub values: Option<Vec<Json>>,
    /// What labels call the axis; absent, the last part of `key`, or `case`.
    pub name: Option<String>,
    /// Named cases, each setting keys of its own: for ablations.
    #[schemars(length(min = 1))]
    pub cases: Option<Vec<Case>>,
    /// This many trials that differ in the seed only: `seed`, `seed` + 1, …
    #[schemars(range(min = 1, max = 10_000))]
    pub seeds: Option<u32>,
}

/// One case of an axis.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What labels call the case.
    pub label: String,
    /// Keys with their values: `{ "prune.saliency.second_order" = false }`. Nothing set is the experiment as
    /// it is.
    #[serde(default)]
    pub set: BTreeMap<String, Json>,
}

/// One combination of all axes.
#[derive(Debug, Clone)]
pub(crate) struct Combination {
    /// Name of the trial.
    pub label: String,
    /// Name and value of each axis, in the order of the axes.
    pub axes: Vec<(String, String)>,
    /// What the combination sets, as layers above all others.
    pub overrides: Vec<Node>,
}

/// An axis as read: its name and what it can be.
struct Choices {
    name: String,
    paths: Vec<KeyPath>,
    choices: Vec<Choice>,
}

/// One value of an axis.
struct Choice {
    label: String,
    overrides: Vec<Node>,
}

/// Reads the axes of the layers and multiplies them, the first axis slowest. Without axes there is one
/// combination, `main`.
pub(crate) fn expand(layers: &Layers, seed: u64, found: &mut Vec<Finding>) -> Vec<Combination> {
    let root = KeyPath::of("sweep");
    let Some(node) = layers.get(&root) else { return vec![main()] };
    let axes: Vec<Axis> = read(node, &root, found).unwrap_or_default();
    if axes.len() > MOST_AXES {
        let message = format!("a sweep of {} axes, which is more than {MOST_AXES}", axes.len());
        found.push(Finding::error(root, message).at(node.at.clone()).hint("merge axes into one of `cases`"));
        return Vec::new();
    }
    let before = found.len();
    let read =
        axes.iter().enumerate().filter_map(|(i, axis)| read_axis(axis, node, &root.index(i), seed, found));
    let mut choices: Vec<Choices> = read.collect();
    choices.iter_mut().for_each(distinct_labels);
    check_overlaps(&choices, layers, found);
    check_size(&choices, node, found);
    if found.len() > before { Vec::new() } else { multiply(&choices) }
}

fn main() -> Combination {
    Combination { label: "main".into(), axes: Vec::new(), overrides: Vec::new() }
}

/// A checked part of a layer as a value.
fn read<T: DeserializeOwned>(node: &Node, path: &KeyPath, found: &mut Vec<Finding>) -> Option<T> {
    let value = Figment::from(Serialized::default("value", node)).extract_inner("value");
    value.map_err(|e| found.push(Finding::error(path.clone(), e.to_string()).at(node.at.clone()))).ok()
}

fn read_axis(
    axis: &Axis,
    sweep: &Node,
    path: &KeyPath,
    seed: u64,
    found: &mut Vec<Finding>,
) -> Option<Choices> {
    let node = sweep.get(&path.steps()[1..])?;
    match (&axis.key, &axis.values, &axis.cases, axis.seeds) {
        (Some(key), Some(values), None, None) => read_values(axis, key, values, node, path, found),
        (None, None, Some(cases), None) => read_cases(axis, cases, node, path, found),
        (None, None, None, Some(seeds)) => read_seeds(axis, seeds, seed, node, path, found),
        _ => {
            let finding =
                Finding::error(path.clone(), "this axis is none of the three kinds").at(node.at.clone());
            found.push(finding.hint("an axis has `key` and `values`, or `cases`, or `seeds`"));
            None
        }
    }
}

fn read_values(
    axis: &Axis,
    key: &str,
    values: &[Json],
    node: &Node,
    path: &KeyPath,
    found: &mut Vec<Finding>,
) -> Option<Choices> {
    let place = node.get(KeyPath::of("key").steps())?;
    let target = swept_key(key, place, path, found)?;
    let shape = Shape::root().at(&target)?;
    let mut choices = Vec::new();
    for (i, value) in values.iter().enumerate() {
        let at = node.get(KeyPath::of("values").index(i).steps())?;
        check(at, shape, &target, found);
        choices.push(Choice { label: value_label(value, i), overrides: vec![at.clone().under(&target)] });
    }
    for i in repeated(values.iter().map(Json::to_string)) {
        let at = node.get(KeyPath::of("values").index(i).steps())?;
        let finding = Finding::error(path.key("values").index(i), format!("{} appears twice", values[i]));
        found.push(finding.at(at.at.clone()));
    }
    let name = named(axis.name.as_deref().unwrap_or_default(), target.last());
    Some(Choices { name, paths: vec![target], choices })
}

fn read_cases(
    axis: &Axis,
    cases: &[Case],
    node: &Node,
    path: &KeyPath,
    found: &mut Vec<Finding>,
) -> Option<Choices> {
    let mut all = Choices {
        name: named(axis.name.as_deref().unwrap_or_default(), "case"),
        paths: Vec::new(),
        choices: Vec::new(),
    };
    for (i, case) in cases.iter().enumerate() {
        let path = path.key("cases").index(i);
        let place = node.get(KeyPath::of("cases").index(i).steps())?;
        let overrides = case_overrides(place, &path, &mut all.paths, found);
        all.choices.push(Choice { label: named(&case.label, &(i + 1).to_string()), overrides });
    }
    for i in repeated(cases.iter().map(|case| &case.label)) {
        let path = path.key("cases").index(i);
        let place = node.get(&path.steps()[2..])?;
        let message = format!("two cases are called \"{}\"", cases[i].label);
        found.push(Finding::error(path.key("label"), message).at(place.at.clone()));
    }
    Some(all)
}

/// The layers of `set = { "a.b" = 1 }`, each value checked as its key's.
fn case_overrides(
    case: &Node,
    path: &KeyPath,
    paths: &mut Vec<KeyPath>,
    found: &mut Vec<Finding>,
) -> Vec<Node> {
    let Some(Node { value: Value::Table(entries), .. }) = case.get(KeyPath::of("set").steps()) else {
        return Vec::new();
    };
    let mut overrides = Vec::new();
    for (key, entry) in entries {
        let place = Node { value: Value::Text(key.clone()), at: entry.key.clone() };
        let Some(target) = swept_key(key, &place, &path.key("set"), found) else { continue };
        if let Some(shape) = Shape::root().at(&target) {
            check(&entry.node, shape, &target, found);
        }
        overrides.push(entry.node.clone().under(&target));
        paths.push(target);
    }
    overrides
}

fn read_seeds(
    axis: &Axis,
    seeds: u32,
    seed: u64,
    node: &Node,
    path: &KeyPath,
    found: &mut Vec<Finding>,
) -> Option<Choices> {
    let place = node.get(KeyPath::of("seeds").steps())?;
    let last = i64::try_from(seed).ok().and_then(|first| first.checked_add(i64::from(seeds) - 1));
    let Some(last) = last else {
        found.push(
            Finding::error(path.key("seeds"), "the last seed does not fit into 63 bits").at(place.at.clone()),
        );
        return None;
    };
    let target = KeyPath::of("seed");
    let choice = |value: i64| {
        let node = Node { value: Value::Integer(value), at: place.at.clone() };
        Choice { label: value.to_string(), overrides: vec![node.under(&target)] }
    };
    let choices = (last + 1 - i64::from(seeds)..=last).map(choice).collect();
    Some(Choices {
        name: named(axis.name.as_deref().unwrap_or_default(), "seed"),
        paths: vec![target.clone()],
        choices,
    })
}

/// The path of a key that an axis sets.
fn swept_key(key: &str, place: &Node, path: &KeyPath, found: &mut Vec<Finding>) -> Option<KeyPath> {
    let target = KeyPath::parse(key).filter(|target| Shape::root().at(target).is_some());
    let Some(target) = target else {
        let finding = unknown_path(&KeyPath::parse(key).unwrap_or_else(|| KeyPath::of(key)));
        found.push(Finding { key: path.clone(), ..finding }.at(place.at.clone()));
        return None;
    };
    if NOT_SWEPT.iter().any(|name| target.overlaps(&KeyPath::of(name))) {
        let finding = Finding::error(path.clone(), format!("`{target}` cannot differ between trials"))
            .at(place.at.clone());
        found.push(finding.hint("sweep a key of one of the experiment's tables, or `seed`"));
        return None;
    }
    Some(target)
}

/// Two axes that set the same key would make labels lie.
fn check_overlaps(axes: &[Choices], layers: &Layers, found: &mut Vec<Finding>) {
    for (i, axis) in axes.iter().enumerate() {
        let earlier = || axes[..i].iter().flat_map(|a| &a.paths);
        for path in axis.paths.iter().filter(|p| earlier().any(|other| other.overlaps(p))) {
            let place = KeyPath::of("sweep").index(i);
            let finding = Finding::error(
                place.clone(),
                format!("two axes set `{path}`, and only the later one would count"),
            );
            let finding = finding.hint("put the values of both into one axis of `cases`");
            found.push(Finding { at: layers.get(&place).map(|n| n.at.clone()), ..finding });
        }
    }
}

fn check_size(axes: &[Choices], node: &Node, found: &mut Vec<Finding>) {
    let size = axes.iter().try_fold(1_usize, |size, axis| size.checked_mul(axis.choices.len()));
    if size.is_none_or(|size| size > MOST_TRIALS) {
        let message = format!("the axes multiply to more than {MOST_TRIALS} trials");
        found.push(
            Finding::error(KeyPath::of("sweep"), message)
                .at(node.at.clone())
                .hint("split the experiment into several files"),
        );
    }
}

fn multiply(axes: &[Choices]) -> Vec<Combination> {
    let names = axis_names(axes);
    let start = vec![Combination { label: String::new(), ..main() }];
    let all = axes.iter().zip(&names).fold(start, |combinations, (axis, name)| {
        combinations
            .iter()
            .flat_map(|c| axis.choices.iter().map(move |choice| with(c, name, choice)))
            .collect()
    });
    if axes.is_empty() { vec![main()] } else { all.into_iter().map(shortened).collect() }
}

fn with(combination: &Combination, name: &str, choice: &Choice) -> Combination {
    let mut all = combination.clone();
    let comma = if all.label.is_empty() { "" } else { "," };
    all.label = format!("{}{comma}{name}={}", all.label, choice.label);
    all.axes.push((name.to_owned(), choice.label.clone()));
    all.overrides.extend(choice.overrides.iter().cloned());
    all
}

/// Names of the axes; those that two share are made distinct by the full key or a number.
fn axis_names(axes: &[Choices]) -> Vec<String> {
    let shared = |name: &str| axes.iter().filter(|a| a.name == name).count() > 1;
    let full = |axis: &Choices| match &axis.paths[..] {
        [path] if shared(&axis.name) => slug(&path.to_string()),
        _ => axis.name.clone(),
    };
    let mut names = axes.iter().map(full).collect::<Vec<_>>();
    number_repeats(&mut names);
    names
}

fn distinct_labels(axis: &mut Choices) {
    let mut labels: Vec<String> = axis.choices.iter().map(|c| c.label.clone()).collect();
    number_repeats(&mut labels);
    axis.choices.iter_mut().zip(labels).for_each(|(choice, label)| choice.label = label);
}

/// A label that is too long for a folder keeps its start and gets a hash of the whole.
fn shortened(combination: Combination) -> Combination {
    if combination.label.len() <= LONGEST_LABEL {
        return combination;
    }
    let digest = hash::of_bytes(combination.label.as_bytes());
    let label = format!("{}-{}", &combination.label[..LONGEST_LABEL - 9], &digest[..8]);
    Combination { label, ..combination }
}

/// How a label writes a value.
fn value_label(value: &Json, index: usize) -> String {
    let label = match value {
        Json::Array(items) if items.iter().all(|i| !i.is_object() && !i.is_array()) => {
            items.iter().map(|item| value_label(item, index)).collect::<Vec<_>>().join("+")
        }
        Json::Array(_) | Json::Object(_) => String::new(),
        Json::String(text) => slug(text),
        scalar => slug(&scalar.to_string()),
    };
    named(&label, &(index + 1).to_string())
}

/// ASCII letters, digits and `._+-` of a text, everything else as single dashes.
fn slug(text: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    let words: Vec<String> = text.split(|c| !keep(c)).filter(|w| !w.is_empty()).map(str::to_owned).collect();
    words.join("-")
}

/// The slug of a text, or another one where nothing of the text is left.
fn named(text: &str, otherwise: &str) -> String {
    let name = slug(text);
    if name.is_empty() { slug(otherwise) } else { name }
}

/// Whether a trial has all values that an exclusion names; a key may be one of the axes or a path of the
/// experiment.
pub(crate) fn excluded(rule: &[Condition], combination: &Combination, values: &Json) -> bool {
    rule.iter().all(|condition| {
        let axis = combination.axes.iter().find(|(name, _)| *name == condition.name);
        match axis {
            Some((_, label)) => *label == condition.label,
            None => same(lookup(values, condition.path.as_ref()), &condition.value),
        }
    })
}

/// One key of an exclusion: that an axis or a key of the experiment has a value.
pub(crate) struct Condition {
    name: String,
    path: Option<KeyPath>,
    value: Json,
    /// The value as labels write it.
    label: String,
}

impl Condition {
    fn new((name, value): (String, Json)) -> Self {
        let (path, label) = (KeyPath::parse(&name), value_label(&value, 0));
        Self { name, path, value, label }
    }
}

/// Reads the exclusions and checks that each key is an axis or a key of the experiment.
pub(crate) fn exclusions(
    layers: &Layers,
    axes: &[(String, String)],
    found: &mut Vec<Finding>,
) -> Vec<Vec<Condition>> {
    let root = KeyPath::of("exclude");
    let Some(node) = layers.get(&root) else { return Vec::new() };
    let rules: Vec<BTreeMap<String, Json>> = read(node, &root, found).unwrap_or_default();
    let rules: Vec<Vec<Condition>> =
        rules.into_iter().map(|rule| rule.into_iter().map(Condition::new).collect()).collect();
    for (i, rule) in rules.iter().enumerate() {
        for Condition { name, path, .. } in
            rule.iter().filter(|c| !axes.iter().any(|(name, _)| *name == c.name))
        {
            let known = path.as_ref().and_then(|path| Shape::root().at(path));
            let place = layers.get(&root.index(i)).unwrap_or(node);
            if known.is_none() {
                let finding = unknown_path(&path.clone().unwrap_or_else(|| KeyPath::of(name)));
                found.push(Finding { key: root.index(i), ..finding }.at(place.at.clone()));
            }
        }
    }
    rules
}

fn lookup<'a>(values: &'a Json, path: Option<&KeyPath>) -> Option<&'a Json> {
    path?.steps().iter().try_fold(values, |value, step| match step {
        super::key::Step::Key(key) => value.get(key),
        super::key::Step::Index(index) => value.get(index),
    })
}

/// Equal values; numbers by value, so that 1 equals 1.0.
fn same(value: Option<&Json>, wanted: &Json) -> bool {
    match (value, wanted) {
        (Some(Json::Number(a)), Json::Number(b)) => a.as_f64() == b.as_f64(),
        (Some(Json::Object(a)), Json::Object(b)) => b.iter().all(|(key, wanted)| same(a.get(key), wanted)),
        (value, wanted) => value == Some(wanted),
    }
}
