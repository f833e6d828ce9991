//! The schema in the form that checking needs, and the check of one layer against it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value as Json;

use super::key::{KeyPath, Step};
use super::schema::schema;

/// What a key takes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    /// The description.
    pub doc: String,
    /// The default, where there is one.
    pub default: Option<Json>,
    /// Unit of the value, where it has one.
    pub unit: Option<String>,
    /// The paper's name, where it has one.
    pub paper: Option<String>,
    /// The type.
    pub form: Form,
}

/// A type with its limits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Form {
    /// Anything: values of a sweep, which are checked against the key they are for.
    Any,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer(Range),
    /// A finite number.
    Number(Range),
    /// A string.
    Text,
    /// One of some names, with what each means.
    Choice(Vec<(String, String)>),
    /// An array of at least this many elements.
    Array(Box<Shape>, usize),
    /// A table.
    Table(Table),
}

/// A table: its keys, those that must be there, and what any other key takes.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Table {
    /// Known keys.
    pub fields: BTreeMap<String, Shape>,
    /// Keys that must be there in each layer that has the table.
    pub required: Vec<String>,
    /// Keys that must be there once all layers are merged.
    pub needed: Vec<String>,
    /// What keys of the user's choice take; `None` allows none.
    pub others: Option<Box<Shape>>,
}

/// Limits of a number.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Range {
    /// At least.
    pub min: Option<f64>,
    /// At most.
    pub max: Option<f64>,
    /// Less than.
    pub below: Option<f64>,
}

impl Range {
    /// Whether the number lies in the range. NaN lies in none.
    pub(crate) fn holds(&self, x: f64) -> bool {
        x.is_finite()
            && self.min.is_none_or(|m| x >= m)
            && self.max.is_none_or(|m| x <= m)
            && self.below.is_none_or(|m| x < m)
    }

    /// The range in words; empty without limits.
    pub(crate) fn words(&self) -> String {
        let limits = [("at least", self.min), ("at most", self.max), ("below", self.below)];
        let words = limits.iter().filter_map(|(word, limit)| limit.map(|x| format!("{word} {x}")));
        words.collect::<Vec<_>>().join(" and ")
    }
}

impl Shape {
    /// The shape of an experiment file.
    pub(crate) fn root() -> &'static Shape {
        static ROOT: LazyLock<Shape> = LazyLock::new(|| Shape::read(schema(), schema()));
        &ROOT
    }

    /// The shape of the key at `path`.
    pub(crate) fn at(&self, path: &KeyPath) -> Option<&Shape> {
        path.steps().iter().try_fold(self, |shape, step| shape.child(step))
    }

    fn child(&self, step: &Step) -> Option<&Shape> {
        match (&self.form, step) {
            (Form::Table(table), Step::Key(key)) => table.fields.get(key).or(table.others.as_deref()),
            (Form::Array(item, _), Step::Index(_)) => Some(item),
            _ => None,
        }
    }

    /// Paths of all keys below this one that hold a value, `NAME` standing for names of the user's choice.
    pub(crate) fn leaves(&self) -> Vec<(KeyPath, &Shape)> {
        let mut out = Vec::new();
        self.add_leaves(&KeyPath::default(), &mut out);
        out
    }

    fn add_leaves<'a>(&'a self, path: &KeyPath, out: &mut Vec<(KeyPath, &'a Shape)>) {
        let Form::Table(table) = &self.form else { return out.push((path.clone(), self)) };
        for (key, shape) in &table.fields {
            shape.add_leaves(&path.key(key), out);
        }
        if let Some(others) = &table.others {
            others.add_leaves(&path.key("NAME"), out);
        }
    }

    /// The type in words.
    pub(crate) fn words(&self) -> String {
        match &self.form {
            Form::Any => "any value".into(),
            Form::Bool => "true or false".into(),
            Form::Integer(range) => with_range("an integer", range),
            Form::Number(range) => with_range("a number", range),
            Form::Text => "a string".into(),
            Form::Choice(names) => format!("one of {}", quoted_list(names.iter().map(|(name, _)| name))),
            Form::Array(item, 0) => format!("an array, each element {}", item.words()),
            Form::Array(item, _) => format!("an array that is not empty, each element {}", item.words()),
            Form::Table(_) => "a table".into(),
        }
    }

    /// Reads one schema, following references into `root`.
    fn read(schema: &Json, root: &Json) -> Shape {
        let target = resolve(schema, root);
        let text =
            |key: &str| schema.get(key).or_else(|| target.get(key)).and_then(Json::as_str).map(str::to_owned);
        Shape {
            doc: text("description").unwrap_or_default(),
            default: schema.get("default").or_else(|| target.get("default")).cloned(),
            unit: text("x-unit"),
            paper: text("x-paper"),
            form: read_form(target, root),
        }
    }
}

fn with_range(name: &str, range: &Range) -> String {
    let words = range.words();
    if words.is_empty() { name.to_owned() } else { format!("{name}, {words}") }
}

/// Names in quotes, separated by commas.
pub(crate) fn quoted_list<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    names.into_iter().map(|name| format!("\"{}\"", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// The schema that a reference leads to; others lead to themselves.
fn resolve<'a>(schema: &'a Json, root: &'a Json) -> &'a Json {
    let reference = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref")).and_then(Json::as_str);
    match reference.and_then(|r| root.pointer(r.trim_start_matches('#'))) {
        Some(target) => resolve(target, root),
        None => schema,
    }
}

fn read_form(schema: &Json, root: &Json) -> Form {
    if let Some(choices) = choices(schema) {
        return Form::Choice(choices);
    }
    match schema.get("type").and_then(Json::as_str) {
        Some("boolean") => Form::Bool,
        Some("integer") => Form::Integer(read_range(schema)),
        Some("number") => Form::Number(read_range(schema)),
        Some("string") => Form::Text,
        Some("array") => {
            let at_least = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0) as usize;
            Form::Array(Box::new(Shape::read(&schema["items"], root)), at_least)
        }
        Some("object") => Form::Table(read_table(schema, root)),
        _ => Form::Any,
    }
}

/// Names and meanings of an enum: `enum` for variants without a description, `oneOf` for those with one.
fn choices(schema: &Json) -> Option<Vec<(String, String)>> {
    let plain = |s: &Json| s.get("enum").and_then(Json::as_array).cloned().unwrap_or_default();
    let text = |v: &Json| v.as_str().unwrap_or_default().to_owned();
    let mut names: Vec<_> = plain(schema).iter().map(|name| (text(name), String::new())).collect();
    for variant in schema.get("oneOf").and_then(Json::as_array).into_iter().flatten() {
        names.extend(plain(variant).iter().map(|name| (text(name), String::new())));
        names.extend(variant.get("const").map(|name| (text(name), text(&variant["description"]))));
    }
    (!names.is_empty()).then_some(names)
}

fn read_range(schema: &Json) -> Range {
    let number = |key: &str| schema.get(key).and_then(Json::as_f64);
    Range { min: number("minimum"), max: number("maximum"), below: number("exclusiveMaximum") }
}

fn read_table(schema: &Json, root: &Json) -> Table {
    let properties = schema.get("properties").and_then(Json::as_object);
    let fields = properties.into_iter().flatten().map(|(key, s)| (key.clone(), Shape::read(s, root)));
    let any = Json::Bool(true);
    let others = match schema.get("additionalProperties") {
        Some(Json::Bool(false)) => None,
        Some(s) => Some(Shape::read(s, root)),
        None => Some(Shape::read(&any, root)),
    };
    Table {
        fields: fields.collect(),
        required: names(schema, "required"),
        needed: names(schema, "x-required"),
        others: others.map(Box::new),
    }
}

fn names(schema: &Json, key: &str) -> Vec<String> {
    let names = schema.get(key).and_then(Json::as_array).into_iter().flatten();
    names.filter_map(Json::as_str).map(str::to_owned).collect()
}
