//! TOML values that know where they were written, whatever layer they come from.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::Finding;
use super::key::{KeyPath, Step};

/// The text that a layer was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Which layer.
    pub layer: Layer,
    /// What a reader knows the text by: the file's path, a variable, `--set`.
    pub name: String,
    /// The text itself; spans count its bytes.
    pub text: String,
    /// The profile whose table this is, for a file's.
    pub profile: Option<String>,
}

/// The layers of an experiment, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// `defaults.toml` inside the binary.
    Defaults,
    /// The experiment file.
    File,
    /// The command line's choice of a profile (its tables are in the file).
    Profile,
    /// A variable `TYR_…`.
    Environment,
    /// An argument `--set`.
    Set,
    /// A script that the experiment names: no layer of values, but a text that findings are in.
    Script,
}

/// A place in an origin's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// The text.
    pub origin: Arc<Origin>,
    /// Bytes of the text.
    pub span: Range<usize>,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// The value.
    pub value: Value,
    /// Where it is written.
    pub at: At,
}

/// A TOML value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// `true`, `false`
    Bool(bool),
    /// A whole number of 64 bits.
    Integer(i64),
    /// A float; may be NaN or infinite until checked.
    Float(f64),
    /// A string.
    Text(String),
    /// A date or a time, which no key takes.
    Datetime,
    /// An array.
    Array(Vec<Node>),
    /// A table.
    Table(BTreeMap<String, Entry>),
}

/// A key's place and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// Where the key is written.
    pub key: At,
    /// What it holds.
    pub node: Node,
}

impl Node {
    /// The value's type in words.
    pub(crate) fn type_name(&self) -> &'static str {
        match &self.value {
            Value::Bool(_) => "a boolean",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Text(_) => "a string",
            Value::Datetime => "a date",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }

    /// The value at `steps` below this one.
    pub(crate) fn get(&self, steps: &[Step]) -> Option<&Node> {
        let Some((first, rest)) = steps.split_first() else { return Some(self) };
        self.child(first)?.get(rest)
    }

    /// How many of `steps` exist below this value, and the place of the last that does (the key's where it is
    /// one).
    pub(crate) fn deepest(&self, steps: &[Step]) -> (usize, At) {
        let mut node = self;
        let mut at = self.at.clone();
        for (depth, step) in steps.iter().enumerate() {
            let Some(child) = node.child(step) else { return (depth, at) };
            at = child.at.clone();
            node = child;
        }
        (steps.len(), at)
    }

    fn child(&self, step: &Step) -> Option<&Node> {
        match (&self.value, step) {
            (Value::Table(table), Step::Key(key)) => table.get(key).map(|e| &e.node),
            (Value::Array(items), Step::Index(index)) => items.get(*index),
            _ => None,
        }
    }

    /// This value under a path of tables, all at the value's place.
    pub(crate) fn under(self, path: &KeyPath) -> Node {
        path.steps().iter().rev().fold(self, |node, step| match step {
            Step::Key(key) => Node::table_of(key, node),
            Step::Index(_) => node,
        })
    }

    fn table_of(key: &str, node: Node) -> Node {
        let at = node.at.clone();
        let entry = Entry { key: at.clone(), node };
        Node { value: Value::Table(BTreeMap::from([(key.to_owned(), entry)])), at }
    }

    /// This table without some of its keys; other values stay as they are.
    pub(crate) fn without(&self, keys: &[&str]) -> Node {
        let Value::Table(table) = &self.value else { return self.clone() };
        let kept = table.iter().filter(|(key, _)| !keys.contains(&key.as_str()));
        let kept = kept.map(|(key, entry)| (key.clone(), entry.clone())).collect();
        Node { value: Value::Table(kept), at: self.at.clone() }
    }

    /// Drops the value at `steps`; arrays are dropped whole, as they are merged.
    pub(crate) fn drop_at(&mut self, steps: &[Step]) {
        let (Value::Table(table), Some((Step::Key(key), rest))) = (&mut self.value, steps.split_first())
        else {
            return;
        };
        match table.get_mut(key) {
            Some(entry) if !rest.is_empty() && matches!(entry.node.value, Value::Table(_)) => {
                entry.node.drop_at(rest);
            }
            _ => drop(table.remove(key)),
        }
    }

    /// This value, all of it placed in another origin with the same text.
    pub(crate) fn moved(&self, origin: &Arc<Origin>) -> Node {
        let at = |at: &At| At { origin: origin.clone(), span: at.span.clone() };
        let entry = |entry: &Entry| Entry { key: at(&entry.key), node: entry.node.moved(origin) };
        let value = match &self.value {
            Value::Array(items) => Value::Array(items.iter().map(|item| item.moved(origin)).collect()),
            Value::Table(table) => {
                Value::Table(table.iter().map(|(key, e)| (key.clone(), entry(e))).collect())
            }
            scalar => scalar.clone(),
        };
        Node { value, at: at(&self.at) }
    }
}

/// Reads a document. Syntax errors become findings; what could be read comes back with them.
pub(crate) fn document(origin: &Arc<Origin>, found: &mut Vec<Finding>) -> Node {
    let (table, errors) = DeTable::parse_recoverable(&origin.text);
    found.extend(errors.iter().map(|e| syntax_error(origin, e)));
    let span = table.span();
    let reader = Reader { origin, offset: 0 };
    reader.table(table.get_ref(), span, found)
}

/// Reads one value that starts at `offset` of the origin's text and ends with it.
pub(crate) fn value(origin: &Arc<Origin>, offset: usize) -> Result<Node, Finding> {
    let text = &origin.text[offset..];
    let parsed = DeValue::parse(text).map_err(|e| syntax_error_at(origin, &e, offset))?;
    let mut found = Vec::new();
    let node = Reader { origin, offset }.node(&parsed, &mut found);
    found.pop().map_or(Ok(node), Err)
}

/// Whether a text has the form of a value.
pub(crate) fn is_value(text: &str) -> bool {
    DeValue::parse(text).is_ok()
}

fn syntax_error(origin: &Arc<Origin>, error: &toml::de::Error) -> Finding {
    syntax_error_at(origin, error, 0)
}

fn syntax_error_at(origin: &Arc<Origin>, error: &toml::de::Error, offset: usize) -> Finding {
    let span = error.span().unwrap_or(0..0);
    let at = At { origin: origin.clone(), span: span.start + offset..span.end + offset };
    Finding::error(KeyPath::default(), format!("not TOML: {}", error.message())).at(at)
}

struct Reader<'a> {
    origin: &'a Arc<Origin>,
    offset: usize,
}

impl Reader<'_> {
    fn at(&self, span: Range<usize>) -> At {
        At { origin: self.origin.clone(), span: span.start + self.offset..span.end + self.offset }
    }

    fn table(&self, table: &DeTable<'_>, span: Range<usize>, found: &mut Vec<Finding>) -> Node {
        let entries = table.iter().map(|(key, value)| {
            let entry = Entry { key: self.at(key.span()), node: self.node(value, found) };
            (key.get_ref().to_string(), entry)
        });
        Node { value: Value::Table(entries.collect()), at: self.at(span) }
    }

    fn node(&self, value: &Spanned<DeValue<'_>>, found: &mut Vec<Finding>) -> Node {
        let at = self.at(value.span());
        let value = match value.get_ref() {
            DeValue::Boolean(b) => Value::Bool(*b),
            DeValue::Integer(i) => self.integer(i.as_str(), i.radix(), &at, found),
            DeValue::Float(x) => self.float(x.as_str(), &at, found),
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(items) => Value::Array(items.iter().map(|item| self.node(item, found)).collect()),
            DeValue::Table(table) => return self.table(table, value.span(), found),
        };
        Node { value, at }
    }

    fn integer(&self, digits: &str, radix: u32, at: &At, found: &mut Vec<Finding>) -> Value {
        Value::Integer(i64::from_str_radix(digits, radix).unwrap_or_else(|_| {
            let message = format!("{digits} is not an integer of 64 bits");
            found.push(
                Finding::error(KeyPath::default(), message)
                    .at(at.clone())
                    .hint(format!("the largest is {}", i64::MAX)),
            );
            0
        }))
    }

    fn float(&self, digits: &str, at: &At, found: &mut Vec<Finding>) -> Value {
        Value::Float(digits.parse().unwrap_or_else(|_| {
            found
                .push(Finding::error(KeyPath::default(), format!("{digits} is not a number")).at(at.clone()));
            0.0
        }))
    }
}

/// A whole float as an integer: `tokens = 1e6` is meant as one.
pub(crate) fn whole(x: f64) -> Option<i64> {
    let limit = 9_007_199_254_740_992.0; // 2^53: beyond it, a float does not name one integer
    (x.fract() == 0.0 && x.abs() <= limit).then_some(x as i64)
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Bool(b) => serializer.serialize_bool(*b),
            Value::Integer(i) => serializer.serialize_i64(*i),
            Value::Float(x) => match whole(*x) {
                Some(i) => serializer.serialize_i64(i),
                None => serializer.serialize_f64(*x),
            },
            Value::Text(text) => serializer.serialize_str(text),
            Value::Datetime => Err(serde::ser::Error::custom("a date is not allowed here")),
            Value::Array(items) => serializer.collect_seq(items),
            Value::Table(table) => {
                serializer.collect_map(table.iter().map(|(key, entry)| (key, &entry.node)))
            }
        }
    }
}
