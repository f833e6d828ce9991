//! The schema and the page made from it: complete, in step with the types and the defaults, and committed.

use std::path::Path;

use super::*;
use crate::spec::shape::{Form, Shape};

fn committed(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default()
}

/// Compares a committed file with what is generated; with `WRITE_GENERATED` set, writes it instead.
fn compare(path: &str, generated: &str, how: &str) {
    if std::env::var_os("WRITE_GENERATED").is_some() {
        crate::base::files::write(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path), generated.as_bytes())
            .unwrap();
    }
    assert!(committed(path) == generated, "{path} is stale: {how}");
}

#[test]
fn the_committed_schema_is_the_generated_one() {
    compare(
        "schemas/experiment.schema.json",
        &schema_json(),
        "run `tyr schema > schemas/experiment.schema.json`",
    );
}

#[test]
fn the_committed_reference_is_the_generated_one() {
    compare(
        "docs/reference.md",
        &reference(),
        "run `WRITE_GENERATED=1 cargo test --lib spec::tests::schema`",
    );
}

#[test]
fn every_key_has_a_description_and_a_default_unless_it_is_optional_or_required() {
    let absent =
        ["script", "data", "gguf_base", "url", "num_fewshot", "key", "values", "name", "cases", "seeds"];
    let required = ["file", "context", "choices", "gold", "tasks"];
    for (path, shape) in Shape::root().leaves() {
        assert!(!shape.doc.is_empty(), "{path} has no description");
        let optional = absent.contains(&path.last()) || required.contains(&path.last());
        assert!(shape.default.is_some() || optional, "{path} has no default");
    }
}

#[test]
fn every_serialized_key_of_the_defaults_is_in_the_schema_with_that_default() {
    let spec: Spec = toml::from_str(defaults_toml()).unwrap();
    let written: toml::Table = toml::from_str(&spec.to_toml().unwrap()).unwrap();
    compare_defaults(&serde_json::to_value(written).unwrap(), Shape::root(), "");
}

fn compare_defaults(value: &serde_json::Value, shape: &Shape, path: &str) {
    match (&shape.form, value) {
        (Form::Table(table), serde_json::Value::Object(object)) if !table.fields.is_empty() => {
            object.iter().for_each(|(key, value)| {
                compare_defaults(value, &table.fields[key], &format!("{path}.{key}"))
            });
        }
        (Form::Number(_), _) => {
            assert_eq!(shape.default.as_ref().unwrap().as_f64(), value.as_f64(), "{path}")
        }
        (Form::Array(item, _), _) if matches!(item.form, Form::Number(_)) => {
            let numbers =
                |v: &serde_json::Value| v.as_array().unwrap().iter().map(|x| x.as_f64()).collect::<Vec<_>>();
            assert_eq!(numbers(shape.default.as_ref().unwrap()), numbers(value), "{path}");
        }
        (Form::Table(_), serde_json::Value::Object(object)) => assert!(object.is_empty(), "{path}"),
        _ => assert_eq!(shape.default.as_ref(), Some(value), "{path}"),
    }
}

#[test]
fn the_defaults_validate_against_the_schema() {
    let validator = jsonschema::validator_for(schema()).unwrap();
    let defaults: toml::Table = toml::from_str(defaults_toml()).unwrap();
    assert!(validator.is_valid(&serde_json::to_value(defaults).unwrap()));
}

#[test]
fn the_schema_uses_only_what_the_check_understands() {
    let known = [
        "$ref",
        "$schema",
        "additionalProperties",
        "allOf",
        "const",
        "default",
        "definitions",
        "description",
        "enum",
        "exclusiveMaximum",
        "format",
        "items",
        "maximum",
        "minItems",
        "minimum",
        "oneOf",
        "properties",
        "required",
        "title",
        "type",
        "x-paper",
        "x-required",
        "x-unit",
    ];
    fn walk(schema: &serde_json::Value, known: &[&str]) {
        for (key, value) in schema.as_object().into_iter().flatten() {
            assert!(known.contains(&key.as_str()), "the check does not read `{key}`");
            match key.as_str() {
                "properties" | "definitions" => {
                    value.as_object().unwrap().values().for_each(|s| walk(s, known))
                }
                "items" | "additionalProperties" => walk(value, known),
                "allOf" => value.as_array().unwrap().iter().for_each(|s| walk(s, known)),
                _ => {}
            }
        }
    }
    walk(schema(), &known);
}

/// All keys that take whole numbers, in elements of arrays too, with the largest of each; of profiles only
/// the experiment's own.
pub(crate) fn largest_integers() -> Vec<(KeyPath, Option<f64>)> {
    fn add(path: &KeyPath, shape: &Shape, found: &mut Vec<(KeyPath, Option<f64>)>) {
        match &shape.form {
            Form::Integer(range) => found.push((path.clone(), range.max)),
            Form::Array(item, _) => add(&path.index(0), item, found),
            Form::Table(table) => {
                table.fields.iter().for_each(|(key, shape)| add(&path.key(key), shape, found));
                table.others.iter().for_each(|shape| add(&path.key("NAME"), shape, found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    add(&KeyPath::default(), Shape::root(), &mut found);
    found.retain(|(path, _)| !path.overlaps(&KeyPath::of("profile")));
    found
}

#[test]
fn every_count_has_a_maximum_so_that_none_costs_without_bound() {
    let all = largest_integers();
    assert!(all.len() > 20, "{all:?}");
    // A seed costs nothing; its largest is that of a TOML integer.
    for (path, most) in all.iter().filter(|(path, _)| path.to_string() != "seed") {
        let most = most.unwrap_or_else(|| panic!("`{path}` has no maximum"));
        assert!(most <= 2f64.powi(40), "{path}: {most}");
    }
}
