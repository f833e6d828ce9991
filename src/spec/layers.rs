//! The layers of an experiment: embedded defaults (and over them the paper's, if wanted) < file < profile <
//! environment < `--set`. Each is read and checked where it is written; figment merges them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use figment::Figment;
use figment::providers::Serialized;
use serde::de::DeserializeOwned;

use super::check::{check, nearest, unknown_path};
use super::finding::{Finding, Severity};
use super::key::KeyPath;
use super::node::{self, At, Layer, Node, Origin, Value};
use super::renamed;
use super::shape::{Form, Shape};
use super::{DEFAULTS, PAPER, Source};

/// Prefix of the variables that set keys.
const PREFIX: &str = "TYR_";
/// Keys of a file that no resolved experiment has.
const DOCUMENT_KEYS: [&str; 3] = ["sweep", "exclude", "profile"];

/// The layers, the weakest first. Later ones win.
#[derive(Debug, Clone)]
pub(crate) struct Layers(Vec<Node>);

/// The embedded defaults, with what is wrong in them (nothing, as a test holds).
pub(crate) fn defaults() -> (Node, Vec<Finding>) {
    embedded("defaults.toml", DEFAULTS)
}

/// The paper's choice, a layer above the defaults, with what is wrong in it (nothing, as a test holds).
pub(crate) fn paper() -> (Node, Vec<Finding>) {
    embedded("paper.toml", PAPER)
}

fn embedded(name: &str, text: &str) -> (Node, Vec<Finding>) {
    let origin = origin(Layer::Defaults, name, text.to_owned());
    let mut found = Vec::new();
    (node::document(&origin, &mut found), found)
}

/// Reads all layers of a source whose file holds `text`, and what is wrong in each.
pub(crate) fn read(source: &Source, text: &str) -> (Layers, Vec<Finding>) {
    let (defaults, mut found) = defaults();
    let file = read_file(&source.path, text, &mut found);
    let mut stack = vec![defaults, file.without(&["profile"])];
    if let Some(name) = &source.profile {
        stack.extend(profile(&file, name, &mut found));
    }
    let variables =
        source.env.iter().filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    let variables: Vec<Assigned> =
        variables.filter_map(|(name, value)| variable(name, value, &mut found)).collect();
    let set: Vec<Assigned> = source.set.iter().filter_map(|argument| set(argument, &mut found)).collect();
    for assigned in [variables, set] {
        under_one_name(&assigned, &mut found);
        stack.extend(assigned.into_iter().map(|one| one.layer));
    }
    (Layers(stack), found)
}

/// What a variable or `--set` sets.
struct Assigned {
    /// The key as it is written.
    name: String,
    /// The key's place.
    at: At,
    /// The key.
    path: KeyPath,
    /// The value under it.
    layer: Node,
}

/// A key that is set twice must be set under one name: among two, nobody means the last one to win.
fn under_one_name(assigned: &[Assigned], found: &mut Vec<Finding>) {
    let mut names = BTreeMap::new();
    for one in assigned {
        let first = names.entry(&one.path).or_insert(&one.name);
        if **first != one.name {
            found.push(renamed::both(&one.name, first, &one.path).at(one.at.clone()));
        }
    }
}

fn origin(layer: Layer, name: impl Into<String>, text: String) -> Arc<Origin> {
    Arc::new(Origin { layer, name: name.into(), text, profile: None })
}

fn read_file(path: &Path, text: &str, found: &mut Vec<Finding>) -> Node {
    let origin = origin(Layer::File, path.display().to_string(), text.to_owned());
    let before = found.len();
    let mut file = node::document(&origin, found);
    if found.len() == before {
        renamed::document(&mut file, found);
        check(&file, Shape::root(), &KeyPath::default(), found);
    }
    file
}

/// The table of a profile, placed as such.
fn profile(file: &Node, name: &str, found: &mut Vec<Finding>) -> Option<Node> {
    let path = KeyPath::of("profile").key(name);
    match file.get(path.steps()) {
        Some(table) => {
            let mut origin = (*table.at.origin).clone();
            origin.profile = Some(name.to_owned());
            Some(table.moved(&Arc::new(origin)))
        }
        None => {
            found.push(unknown_profile(file, name));
            None
        }
    }
}

fn unknown_profile(file: &Node, name: &str) -> Finding {
    let profiles = match file.get(KeyPath::of("profile").steps()).map(|n| &n.value) {
        Some(Value::Table(table)) => table.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    let text = format!("--profile {name}");
    let at = At { span: 10..text.len(), origin: origin(Layer::Profile, "command line", text) };
    let hint = match nearest(name, profiles.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if profiles.is_empty() => "the file has no `[profile.NAME]` table".into(),
        None => format!("the file's profiles are {}", profiles.join(", ")),
    };
    Finding::error(KeyPath::of("profile").key(name), format!("unknown profile `{name}`")).at(at).hint(hint)
}

/// `TYR_PRUNE__DAMPING=0.05`. A variable that is no key may hold anything, a secret too: its value is not
/// shown.
fn variable(name: &OsStr, value: &OsStr, found: &mut Vec<Finding>) -> Option<Assigned> {
    let name = &*name.to_string_lossy();
    let keys = name.trim_start_matches(PREFIX).to_lowercase();
    let path = keys.split("__").fold(KeyPath::default(), |path, key| path.key(key));
    let shown = value.to_str().filter(|_| settable(&renamed::present(&path)).is_some());
    let text = shown.map_or_else(|| name.to_owned(), |value| format!("{name}={value}"));
    let origin = origin(Layer::Environment, name, text);
    let key = At { origin, span: 0..name.len() };
    if value.to_str().is_none() {
        found.push(Finding::error(path, format!("the variable {name} is not UTF-8")).at(key));
        return None;
    }
    assignment(name, key, name.len() + 1, &path, found)
}

/// `--set prune.damping=0.05`
fn set(argument: &str, found: &mut Vec<Finding>) -> Option<Assigned> {
    let start = "--set ".len();
    let origin = origin(Layer::Set, "command line", format!("--set {argument}"));
    let at = |span| At { origin: origin.clone(), span };
    let parts = argument.split_once('=').and_then(|(key, _)| Some((key.len(), KeyPath::parse(key)?)));
    match parts {
        Some((length, path)) => {
            assignment(&path.to_string(), at(start..start + length), start + length + 1, &path, found)
        }
        None => {
            let finding = Finding::error(KeyPath::default(), format!("`{argument}` sets no key"))
                .at(at(start..start + argument.len()));
            found.push(finding.hint("write KEY=VALUE, as in --set prune.damping=0.05"));
            None
        }
    }
}

/// One key, called `name` at `at`, and its value, whose text starts at `offset` of the origin. `None` where
/// something is wrong.
fn assignment(
    name: &str,
    at: At,
    offset: usize,
    path: &KeyPath,
    found: &mut Vec<Finding>,
) -> Option<Assigned> {
    let path = renamed::path(path, &at, found);
    let Some(shape) = settable(&path) else {
        found.push(unknown_path(&path).at(at));
        return None;
    };
    match typed_value(&at.origin, offset, shape) {
        Ok(mut value) => {
            renamed::values(&mut value, &path, &path, found);
            let before = found.len();
            check(&value, shape, &path, found);
            let layer = (found.len() == before).then(|| value.under(&path))?;
            Some(Assigned { name: name.to_owned(), at, path, layer })
        }
        Err(finding) => {
            found.push(Finding { key: path, ..finding });
            None
        }
    }
}

/// What a key takes that a variable or `--set` may set.
fn settable(path: &KeyPath) -> Option<&'static Shape> {
    let inside = !path.overlaps(&KeyPath::of("profile")) && !path.steps().is_empty();
    Shape::root().at(path).filter(|_| inside)
}

/// Reads a value as TOML; a bare word is a string, and where the key takes a string, so is anything without
/// quotes.
fn typed_value(origin: &Arc<Origin>, offset: usize, shape: &Shape) -> Result<Node, Finding> {
    let raw = origin.text.get(offset..).unwrap_or_default();
    let text = || Node {
        value: Value::Text(raw.to_owned()),
        at: At { origin: origin.clone(), span: offset..origin.text.len() },
    };
    let structured = raw.trim_start().starts_with(['"', '\'', '[', '{']);
    // What has the form of a value is none that can be read: an integer of more than 64 bits.
    let meant = || structured || node::is_value(raw);
    match &shape.form {
        Form::Text | Form::Choice(_) if !structured => Ok(text()),
        _ => node::value(origin, offset).or_else(|finding| if meant() { Err(finding) } else { Ok(text()) }),
    }
}

fn without_findings(layer: &Node, found: &[Finding]) -> Node {
    if layer.at.origin.layer != Layer::File {
        return layer.clone();
    }
    let start =
        layer.at.origin.profile.as_ref().map_or(KeyPath::default(), |name| KeyPath::of("profile").key(name));
    let errors = found.iter().filter(|finding| finding.severity == Severity::Error);
    let mut layer = layer.clone();
    errors.filter_map(|finding| finding.key.below(&start)).for_each(|path| layer.drop_at(path.steps()));
    layer
}

impl Layers {
    /// These layers without what concerns the file and no trial: sweep, exclusions and profiles.
    pub(crate) fn of_a_trial(&self) -> Layers {
        Layers(self.0.iter().map(|layer| layer.without(&DOCUMENT_KEYS)).collect())
    }

    /// These layers under more of them.
    pub(crate) fn under(&self, stronger: &[Node]) -> Layers {
        Layers(self.0.iter().chain(stronger).cloned().collect())
    }

    /// These layers without the file's values that are wrong, so that the rest can be checked further.
    pub(crate) fn without(&self, found: &[Finding]) -> Layers {
        Layers(self.0.iter().map(|layer| without_findings(layer, found)).collect())
    }

    /// Merges the layers: tables key by key, everything else whole.
    pub(crate) fn merge<T: DeserializeOwned>(&self) -> Result<T, String> {
        let paper = self.wants_paper().then(|| paper().0);
        let (defaults, others) = self.0.split_at(1.min(self.0.len()));
        let layers = defaults.iter().chain(&paper).chain(others).map(|layer| layer.without(&DOCUMENT_KEYS));
        layers
            .fold(Figment::new(), |all, layer| all.merge(Serialized::defaults(layer)))
            .extract()
            .map_err(|e| e.to_string())
    }

    /// Whether the strongest layer that says which defaults count names the paper's.
    fn wants_paper(&self) -> bool {
        self.get(&KeyPath::of("defaults"))
            .is_some_and(|node| matches!(&node.value, Value::Text(name) if name == "paper"))
    }

    /// The strongest layer's value of a key that no merging goes into, such as `sweep`.
    pub(crate) fn get(&self, path: &KeyPath) -> Option<&Node> {
        self.0.iter().rev().find_map(|layer| layer.get(path.steps()))
    }

    /// Whether a profile was chosen.
    pub(crate) fn has_profile(&self) -> bool {
        self.0.iter().any(|layer| layer.at.origin.profile.is_some())
    }

    /// Whether a layer above the embedded defaults gives a key.
    pub(crate) fn writes(&self, path: &KeyPath) -> bool {
        self.get(path).is_some_and(|node| node.at.origin.layer != Layer::Defaults)
    }

    /// Where the value of a key comes from; for a key that no layer has, the place of the nearest table above
    /// it. `None` where only the defaults have it.
    pub(crate) fn locate(&self, path: &KeyPath) -> Option<At> {
        let deepest =
            self.0.iter().map(|layer| layer.deepest(path.steps())).max_by_key(|(depth, _)| *depth)?;
        let (depth, at) = deepest;
        (depth > 0 && at.origin.layer != Layer::Defaults).then_some(at)
    }
}
