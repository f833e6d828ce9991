//! The reference page: every key with its type, default, unit and meaning, and the paper's name for it.
//! Generated from the schema.

use std::fmt::Write;

use super::key::{KeyPath, Step};
use super::layers;
use super::node::Node;
use super::shape::{Form, Shape, Table};

const INTRODUCTION: &str = "\
# Reference of the experiment file

Generated from the schema; `tyr schema` prints the schema itself. Every key has a default, so a file names only what differs.

Layers, each stronger than the one before: the defaults below, the file, the profile chosen with `--profile NAME`, the environment
(`TYR_PRUNE__DAMPING=0.05`: upper case, two underscores between tables), and `--set prune.damping=0.05`. Tables merge key by key; arrays
are replaced whole. In the environment and in `--set`, values are TOML, and a bare word is a string.

Relative paths in the file count from the file's folder, those in the environment and in `--set` from the current folder.

A sweep multiplies its axes into trials. A trial is called after the values of its axes (`target=0.5,ablation=without-Hessian`), and `main`
without a sweep. A profile may replace the sweep (`[[profile.NAME.sweep]]`) or drop it (`sweep = []` in `[profile.NAME]`).
";

/// The page as Markdown with a final newline: `docs/reference.md` holds it.
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    let (defaults, _) = layers::defaults();
    if let Form::Table(root) = &Shape::root().form {
        let scalars = root.fields.iter().filter(|(_, shape)| !matches!(shape.form, Form::Table(_)));
        let top = Table {
            fields: scalars.map(|(key, shape)| (key.clone(), shape.clone())).collect(),
            ..Table::default()
        };
        section(&mut page, "Top level", "", &top, &KeyPath::default(), &defaults);
        for (key, shape) in ordered(root, &KeyPath::default(), &defaults) {
            tables(&mut page, shape, &KeyPath::of(key), &defaults);
        }
    }
    page
}

/// The section of a table and of the tables in it that have names of the user's choice or stand in arrays.
fn tables(page: &mut String, shape: &Shape, path: &KeyPath, defaults: &Node) {
    match &shape.form {
        Form::Table(table) => {
            if !table.fields.is_empty() {
                section(page, &format!("`[{path}]`"), &shape.doc, table, path, defaults);
            }
            match &table.others {
                // A profile holds the keys of the experiment once more.
                Some(_) if path == &KeyPath::of("profile") => note(page, "`[profile.NAME]`", &shape.doc),
                Some(others) => tables(page, others, &path.key("NAME"), defaults),
                None => ordered(table, path, defaults)
                    .iter()
                    .for_each(|(key, inner)| arrays(page, inner, &path.key(key), defaults)),
            }
        }
        _ => arrays(page, shape, path, defaults),
    }
}

/// The section of the elements of an array of tables.
fn arrays(page: &mut String, shape: &Shape, path: &KeyPath, defaults: &Node) {
    let Form::Array(item, _) = &shape.form else { return };
    if let Form::Table(table) = &item.form
        && !table.fields.is_empty()
    {
        section(page, &format!("`[[{path}]]`"), &item.doc, table, path, defaults);
        ordered(table, path, defaults)
            .iter()
            .for_each(|(key, inner)| arrays(page, inner, &path.key(key), defaults));
    }
}

fn note(page: &mut String, title: &str, doc: &str) {
    // Writing to a string cannot fail.
    let _ = write!(page, "\n## {title}\n\n{doc}\n");
}

fn section(page: &mut String, title: &str, doc: &str, table: &Table, path: &KeyPath, defaults: &Node) {
    let _ = write!(page, "\n## {title}\n");
    if !doc.is_empty() {
        let _ = write!(page, "\n{}\n", sentence(without_title(doc)));
    }
    page.push_str("\n| key | type | default | unit | meaning | in the paper |\n|---|---|---|---|---|---|\n");
    rows(page, "", table, path, defaults);
}

/// A table's description without its name at the start, which the title says already.
fn without_title(doc: &str) -> &str {
    let rest = doc.strip_prefix("`[").and_then(|rest| rest.split_once("]`: "));
    rest.map_or(doc, |(_, rest)| rest)
}

/// One row per key; keys of inner tables are dotted.
fn rows(page: &mut String, prefix: &str, table: &Table, path: &KeyPath, defaults: &Node) {
    for (key, shape) in ordered(table, path, defaults) {
        match &shape.form {
            Form::Table(inner) if !inner.fields.is_empty() => {
                rows(page, &format!("{prefix}{key}."), inner, &path.key(key), defaults)
            }
            Form::Table(inner) if inner.others.as_ref().is_some_and(|o| matches!(o.form, Form::Table(_))) => {
            }
            _ => row(page, &format!("{prefix}{key}"), shape, is_required(table, key)),
        }
    }
}

fn is_required(table: &Table, key: &str) -> bool {
    table.required.iter().chain(&table.needed).any(|k| k == key)
}

fn row(page: &mut String, name: &str, shape: &Shape, required: bool) {
    let default = match &shape.default {
        Some(value) => format!("`{}`", toml_of(value)),
        None if required => "required".into(),
        None => "absent".into(),
    };
    let unit = shape.unit.as_deref().unwrap_or_default();
    let paper = shape.paper.as_deref().unwrap_or_default();
    let cells =
        [format!("`{name}`"), type_of(shape), default, unit.to_owned(), meaning(shape), paper.to_owned()];
    let cells = cells.map(|cell| cell.replace('|', "\\|").replace('\n', " "));
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

fn type_of(shape: &Shape) -> String {
    match &shape.form {
        Form::Choice(names) => {
            names.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        }
        Form::Array(item, _) => match &item.form {
            Form::Table(table) if !table.fields.is_empty() => "tables, see below".into(),
            _ => format!("array of: {}", type_of(item)),
        },
        _ => shape.words(),
    }
}

/// The description, and what each value of a choice means.
fn meaning(shape: &Shape) -> String {
    let mut text = sentence(&shape.doc);
    if let Form::Choice(names) = &shape.form {
        let values = names.iter().filter(|(_, doc)| !doc.is_empty());
        values.for_each(|(name, doc)| text.push_str(&format!("<br>`{name}`: {doc}")));
    }
    text
}

/// A description on one line, from a capital letter to a full stop. Symbols such as λ stay as they are.
fn sentence(doc: &str) -> String {
    let text = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut characters = text.chars();
    let Some(first) = characters.next() else { return text };
    let end = if text.ends_with(['.', ':', '…']) { "" } else { "." };
    format!("{}{}{end}", first.to_ascii_uppercase(), characters.as_str())
}

/// A default as TOML writes it.
fn toml_of(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Object(object) => {
            let pairs: Vec<String> =
                object.iter().map(|(key, value)| format!("{key} = {}", toml_of(value))).collect();
            if pairs.is_empty() { "{}".into() } else { format!("{{ {} }}", pairs.join(", ")) }
        }
        serde_json::Value::Array(items) => {
            format!("[{}]", items.iter().map(toml_of).collect::<Vec<_>>().join(", "))
        }
        scalar => scalar.to_string(),
    }
}

/// The table's keys in the order of the defaults, those without one after them.
fn ordered<'a>(table: &'a Table, path: &KeyPath, defaults: &Node) -> Vec<(&'a str, &'a Shape)> {
    let place = |key: &str| {
        let mut steps = path.steps().to_vec();
        steps.push(Step::Key(key.to_owned()));
        defaults.get(&steps).map_or(usize::MAX, |node| node.at.span.start)
    };
    let mut keys: Vec<(&str, &Shape)> =
        table.fields.iter().map(|(key, shape)| (key.as_str(), shape)).collect();
    keys.sort_by_key(|(key, _)| place(key));
    keys
}
