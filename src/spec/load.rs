//! From a source to trials: read the layers, merge, expand, resolve, check. Findings are gathered; nothing
//! stops at the first.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use crate::base::{Error, Kind, Result, ResultExt, files};

use super::check::missing;
use super::finding::{Finding, Severity, Style, render};
use super::key::KeyPath;
use super::layers::{self, Layers};
use super::node::{At, Layer};
use super::paths::{Bases, absolute};
use super::rules::{self, Inputs, Known};
use super::script::Scripts;
use super::shape::{Form, Shape};
use super::sweep::{self, Combination, Condition};
use super::types::Spec;

/// Where an experiment comes from. Nothing is read from the process's environment but what is given here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// The experiment file.
    pub path: PathBuf,
    /// `--profile NAME`
    pub profile: Option<String>,
    /// Environment variables, name and value; those that do not start with `TYR_` are ignored.
    pub env: Vec<(OsString, OsString)>,
    /// `--set KEY=VALUE`, without the flag; later ones win.
    pub set: Vec<String>,
    /// Whether text and task files must be there.
    pub files: Files,
}

/// Whether the text and task files that an experiment names must be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Files {
    /// For running.
    #[default]
    MustExist,
    /// For planning, which can do without.
    MayCome,
}

/// An experiment that can run.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The experiment without its sweep.
    pub spec: Spec,
    /// The trials, in the order of the sweep; one called `main` without one.
    pub trials: Vec<Trial>,
    /// What is doubtful.
    pub warnings: Vec<Finding>,
    /// The file, as given.
    pub path: PathBuf,
    /// The profile that was applied.
    pub profile: Option<String>,
    /// The file's folder, absolute: its relative paths count from here.
    pub folder: PathBuf,
    /// The file's text.
    pub text: String,
}

/// One trial: an experiment with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Unique, and safe as the name of a folder.
    pub label: String,
    /// Name and value of each axis of the sweep.
    pub axes: Vec<(String, String)>,
    /// The resolved experiment.
    pub spec: Spec,
}

/// A checked experiment: all findings, and the experiment if none is an error.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The file, as given.
    pub path: PathBuf,
    /// Errors first, then warnings, each in the order of the file.
    pub findings: Vec<Finding>,
    /// The experiment, unless there are errors.
    pub loaded: Option<Loaded>,
}

/// Loads an experiment for running.
///
/// # Errors
/// `Kind::Spec` with all findings as text; `Kind::Spec` too where the file cannot be read.
pub fn load(source: &Source, known: &Known) -> Result<Loaded> {
    inspect(source, known)?.into_loaded()
}

/// Loads an experiment from a text that stands in the current folder under a name.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, name: &str, known: &Known) -> Result<Loaded> {
    let source = Source { path: name.into(), ..Source::default() };
    inspect_text(&source, text, known)?.into_loaded()
}

/// Checks an experiment; what is wrong with it is in the value, not in the error.
///
/// # Errors
/// Only where the file cannot be read.
pub fn inspect(source: &Source, known: &Known) -> Result<Checked> {
    let text = files::read_text(&source.path).map_err(|e| Error { kind: Kind::Spec, ..e })?;
    inspect_text(source, &text, known)
}

pub(super) fn inspect_text(source: &Source, text: &str, known: &Known) -> Result<Checked> {
    let bases = bases(&source.path)?;
    let (layers, mut found) = layers::read(source, text);
    let layers = layers.without(&found);
    let base = if found.iter().any(stops) { None } else { base(&layers, &bases, &mut found) };
    let trials = base
        .as_ref()
        .map(|spec| trials(&layers, spec, &bases, &Rules { known, files: source.files }, &mut found))
        .unwrap_or_default();
    found.sort_by_cached_key(position);
    found.dedup();
    let (errors, warnings): (Vec<_>, Vec<_>) =
        found.iter().cloned().partition(|f| f.severity == Severity::Error);
    let spec = base.filter(|_| errors.is_empty());
    let loaded = |spec| Loaded {
        spec,
        trials,
        warnings,
        path: source.path.clone(),
        profile: source.profile.clone(),
        folder: bases.file,
        text: text.to_owned(),
    };
    Ok(Checked { path: source.path.clone(), findings: found, loaded: spec.map(loaded) })
}

/// Whether nothing can be said about the rest: the text is no TOML, or the profile is not there.
fn stops(finding: &Finding) -> bool {
    match finding.at.as_ref().map(|at| at.origin.layer) {
        Some(Layer::File) => finding.key.steps().is_empty(),
        layer => layer == Some(Layer::Profile),
    }
}

/// Errors before warnings, weaker layers before stronger ones, then the order of the text.
fn position(finding: &Finding) -> Position {
    let place = finding.at.as_ref().map(|at| (at.origin.layer, at.span.start));
    (finding.severity, place, finding.key.to_string())
}

type Position = (Severity, Option<(Layer, usize)>, String);

fn bases(path: &Path) -> Result<Bases> {
    let current = std::env::current_dir().or_error(Kind::Disk, "the current folder cannot be named")?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let file = if folder.as_os_str().is_empty() { current.clone() } else { current.join(folder) };
    Ok(Bases { file, current })
}

/// The experiment without its sweep, paths absolute.
fn base(layers: &Layers, bases: &Bases, found: &mut Vec<Finding>) -> Option<Spec> {
    merge(layers, found).map(|spec| absolute(spec, layers, bases, found))
}

/// The layers as one experiment; keys that no layer gives are findings.
fn merge(layers: &Layers, found: &mut Vec<Finding>) -> Option<Spec> {
    let values: Json = layers.merge().unwrap_or_default();
    let before = found.len();
    check_needed(&values, Shape::root(), &KeyPath::default(), layers, found);
    if found.len() > before {
        return None;
    }
    let merged = layers.merge().map_err(|e| found.push(Finding::error(KeyPath::default(), e)));
    merged.ok()
}

/// Keys without a default that the merged experiment lacks: those of tables with a name of the user's choice.
fn check_needed(values: &Json, shape: &Shape, path: &KeyPath, layers: &Layers, found: &mut Vec<Finding>) {
    let (Form::Table(table), Some(object)) = (&shape.form, values.as_object()) else { return };
    for key in table.needed.iter().filter(|key| !object.contains_key(*key)) {
        let finding = missing(path, key, table);
        found.push(Finding { at: layers.locate(path), ..finding });
    }
    for (key, value) in object {
        if let Some(shape) = table.fields.get(key).or(table.others.as_deref()) {
            check_needed(value, shape, &path.key(key), layers, found);
        }
    }
}

/// What the rules between keys take as given.
struct Rules<'a> {
    known: &'a Known<'a>,
    files: Files,
}

fn trials(
    layers: &Layers,
    base: &Spec,
    bases: &Bases,
    given: &Rules,
    found: &mut Vec<Finding>,
) -> Vec<Trial> {
    let combinations = sweep::expand(layers, base.seed, found);
    let axes = combinations.first().map(|c| c.axes.clone()).unwrap_or_default();
    let exclusions = sweep::exclusions(layers, &axes, found);
    let mut used = vec![false; exclusions.len()];
    let mut issues = Gathered::default();
    // A trial's own layers are many: they must not hold a sweep each.
    let plain = layers.of_a_trial();
    let trials: Vec<Trial> = combinations
        .into_iter()
        .filter_map(|combination| {
            let layers = plain.under(&combination.overrides);
            let spec = merge(&layers, found)?;
            (!is_excluded(&exclusions, &combination, &spec, &mut used)).then(|| {
                let spec = absolute(spec, &layers, bases, found);
                issues.add(&combination.label, &spec, &layers, given);
                Trial { label: combination.label, axes: combination.axes, spec }
            })
        })
        .collect();
    report_exclusions(layers, &used, &trials, found);
    found.extend(issues.findings(trials.len()));
    trials
}

fn is_excluded(rules: &[Vec<Condition>], combination: &Combination, spec: &Spec, used: &mut [bool]) -> bool {
    // A spec that cannot be written as JSON has no value to match.
    let values = serde_json::to_value(spec).unwrap_or_default();
    let hits: Vec<bool> = rules.iter().map(|rule| sweep::excluded(rule, combination, &values)).collect();
    used.iter_mut().zip(&hits).for_each(|(used, hit)| *used |= hit);
    hits.contains(&true)
}

fn report_exclusions(layers: &Layers, used: &[bool], trials: &[Trial], found: &mut Vec<Finding>) {
    let root = KeyPath::of("exclude");
    let place = |path: &KeyPath| layers.get(path).map(|node| node.at.clone());
    let any_error = found.iter().any(|f| f.severity == Severity::Error);
    if any_error {
        return;
    }
    if trials.is_empty() {
        let finding = Finding::error(root.clone(), "no trial is left").hint("exclude less");
        found.push(Finding { at: place(&root), ..finding });
    }
    for (i, _) in used.iter().enumerate().filter(|(_, used)| !**used) {
        let finding = Finding::warning(root.index(i), "this excludes no trial")
            .hint("check its values against the axes' values");
        found.push(Finding { at: place(&root.index(i)), ..finding });
    }
}

/// A finding with the labels of the trials that have it.
struct Told {
    finding: Finding,
    labels: Vec<String>,
    /// Whether it is that a key has no effect: it has one if any trial that has the value reads it.
    unused: bool,
}

/// A key and where it is written.
type Place = (KeyPath, Option<(Layer, usize)>);

fn place(key: &KeyPath, at: &Option<At>) -> Place {
    (key.clone(), at.as_ref().map(|at| (at.origin.layer, at.span.start)))
}

/// Findings of the rules and of scripts with the labels of the trials that have them.
#[derive(Default)]
struct Gathered {
    found: Vec<Told>,
    /// How many trials have the value of a key that may have no effect, by its place.
    written: BTreeMap<Place, usize>,
    /// Where in `found` findings of a position and message are.
    places: BTreeMap<(Position, String), Vec<usize>>,
    scripts: Scripts,
    /// By what they depend on: trials of a sweep share them.
    inputs: BTreeMap<String, Inputs>,
}

impl Gathered {
    fn add(&mut self, label: &str, spec: &Spec, layers: &Layers, given: &Rules) {
        let Spec { model, evaluate, tasks, sparsity, prune, export, .. } = spec;
        let shapes = (&prune.unit, &prune.align, &prune.keep_at_least);
        let asked =
            json!([model, evaluate.tasks, evaluate.data, tasks, sparsity, shapes, export]).to_string();
        let inputs = self.inputs.entry(asked).or_insert_with(|| (given.known.inputs)(spec));
        let issues = rules::check(spec, given.known, given.files, inputs);
        for key in rules::unused::keys(spec).filter(|key| layers.writes(key)) {
            *self.written.entry(place(&key, &layers.locate(&key))).or_default() += 1;
        }
        // A profile may name other texts than the file's, whose tables stay.
        let tables = if layers.has_profile() { vec![] } else { rules::unused::unused_tables(spec) };
        for issue in issues
            .into_iter()
            .chain(tables)
            .filter(|i| !i.if_written || i.keys.iter().any(|k| layers.writes(k)))
        {
            let placed = issue.keys.iter().find_map(|key| layers.locate(key).map(|at| (key.clone(), at)));
            let finding = placed
                .into_iter()
                .fold(issue.finding, |finding, (key, at)| Finding { key, ..finding }.at(at));
            self.add_one(label, finding, issue.if_written);
        }
        if let Some(finding) = self.scripts.finding(spec, given.known.script) {
            let at = finding.at.clone().or_else(|| layers.locate(&finding.key));
            self.add_one(label, Finding { at, ..finding }, false);
        }
    }

    fn add_one(&mut self, label: &str, finding: Finding, unused: bool) {
        let places = self.places.entry((position(&finding), finding.message.clone())).or_default();
        match places.iter().find(|&&i| self.found[i].finding == finding) {
            Some(&i) => self.found[i].labels.push(label.to_owned()),
            None => {
                places.push(self.found.len());
                self.found.push(Told { finding, labels: vec![label.to_owned()], unused });
            }
        }
    }

    /// The findings; those that not all trials have name theirs.
    fn findings(self, trials: usize) -> impl Iterator<Item = Finding> {
        let written = self.written;
        let counts = move |told: &Told| {
            let all = written.get(&place(&told.finding.key, &told.finding.at));
            told.unused && all.is_some_and(|all| told.labels.len() < *all)
        };
        let told = self.found.into_iter().filter(move |told| !counts(told));
        told.map(move |Told { finding, labels, .. }| match &labels[..] {
            all if all.len() == trials => finding,
            [one] => Finding { message: format!("{} (trial {one})", finding.message), ..finding },
            [first, ..] => {
                let message =
                    format!("{} ({} of {trials} trials, first {first})", finding.message, labels.len());
                Finding { message, ..finding }
            }
            [] => finding,
        })
    }
}

impl Checked {
    /// All findings as text; empty where there are none.
    pub fn render(&self, style: Style) -> String {
        if self.findings.is_empty() {
            String::new()
        } else {
            render(&self.findings, &self.path.display().to_string(), style)
        }
    }

    /// The experiment.
    ///
    /// # Errors
    /// `Kind::Spec` with all findings as text.
    pub fn into_loaded(self) -> Result<Loaded> {
        let text = self.render(Style::Plain);
        self.loaded.ok_or_else(|| Error::new(Kind::Spec, text.trim_end()))
    }
}

impl Loaded {
    /// The warnings as text; empty where there are none.
    pub fn render_warnings(&self, style: Style) -> String {
        if self.warnings.is_empty() {
            String::new()
        } else {
            render(&self.warnings, &self.path.display().to_string(), style)
        }
    }
}

impl Spec {
    /// The experiment as TOML, every key written: loaded again, it is the same experiment.
    ///
    /// # Errors
    /// `Kind::Internal` where a value has no TOML form (a path that is no UTF-8).
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).or_error(Kind::Internal, "the experiment cannot be written as TOML")
    }
}
