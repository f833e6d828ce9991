//! The JSON schema of an experiment file: generated from the types, with the defaults of `defaults.toml`. It
//! is the only source of names, types, ranges and legal values: `check` walks it, the reference page prints
//! it, editors read the committed copy.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};

use super::node::Node;
use super::sweep::{Axis, Case};
use super::types::{LayerWeight, Spec, Stage};
use super::{DEFAULTS, layers};

/// The schema as a JSON value (draft 7, which the editors' TOML plugins read).
pub fn schema() -> &'static Json {
    static SCHEMA: LazyLock<Json> = LazyLock::new(generate);
    &SCHEMA
}

/// The schema as a text with a final newline: `tyr schema` prints it, `schemas/experiment.schema.json` holds
/// it.
pub fn schema_json() -> String {
    format!("{:#}\n", schema())
}

fn generate() -> Json {
    let mut generator = SchemaSettings::draft07().into_generator();
    let axis = generator.subschema_for::<Axis>();
    let mut root = Json::from(generator.into_root_schema_for::<Spec>());
    drop_nulls(&mut root);
    keep_required_in_elements(&mut root);
    let (defaults, _) = layers::defaults();
    add_defaults(&mut root, &defaults);
    keep_needed_without_default(&mut root);
    add_document_keys(&mut root, Json::from(axis));
    root
}

/// TOML has no null: an optional key is left out.
fn drop_nulls(schema: &mut Json) {
    match schema {
        Json::Object(object) => {
            drop_null_type(object);
            drop_null_choice(object);
            object.values_mut().for_each(drop_nulls);
        }
        Json::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// `"type": ["string", "null"]` becomes `"type": "string"`.
fn drop_null_type(object: &mut Map<String, Json>) {
    let Some(Json::Array(types)) = object.get("type") else { return };
    if let Some(kept) = types.iter().find(|t| *t != "null").cloned() {
        object.insert("type".into(), kept);
    }
    if object.get("default") == Some(&Json::Null) {
        object.remove("default");
    }
}

/// `"anyOf": [X, null]` becomes `"allOf": [X]`.
fn drop_null_choice(object: &mut Map<String, Json>) {
    let Some(Json::Array(choices)) = object.get("anyOf") else { return };
    let kept: Vec<Json> = choices.iter().filter(|c| c["type"] != "null").cloned().collect();
    object.remove("anyOf");
    object.insert("allOf".into(), kept.into());
    if object.get("default") == Some(&Json::Null) {
        object.remove("default");
    }
}

/// Every table's key may come from another layer, so only elements of arrays, which are replaced whole,
/// require theirs in a file. What the merged experiment needs is kept as `x-required`.
fn keep_required_in_elements(root: &mut Json) {
    let elements = [name_of::<Stage>(), name_of::<LayerWeight>(), name_of::<Case>()];
    require_when_merged(root);
    let Some(Json::Object(definitions)) = root.get_mut("definitions") else { return };
    for (_, definition) in definitions.iter_mut().filter(|(name, _)| !elements.contains(name)) {
        require_when_merged(definition);
    }
}

fn name_of<T: schemars::JsonSchema>() -> String {
    T::schema_name().into_owned()
}

fn require_when_merged(schema: &mut Json) {
    if let Some((object, required)) =
        schema.as_object_mut().and_then(|o| o.remove("required").map(|r| (o, r)))
    {
        object.insert("x-required".into(), required);
    }
}

/// Writes each default of `defaults.toml` at its key.
fn add_defaults(root: &mut Json, defaults: &Node) {
    let values = serde_json::to_value(defaults).unwrap_or_default();
    add_table_defaults(root, "", &values);
}

/// `pointer` is the JSON pointer of the table's schema in `root`.
fn add_table_defaults(root: &mut Json, pointer: &str, values: &Json) {
    for (key, value) in values.as_object().into_iter().flatten() {
        let property = format!("{pointer}/properties/{key}");
        match reference(root, &property) {
            Some(table) if value.is_object() => add_table_defaults(root, &table, value),
            _ => set_default(root, &property, value),
        }
    }
}

fn set_default(root: &mut Json, pointer: &str, value: &Json) {
    if let Some(Json::Object(property)) = root.pointer_mut(pointer) {
        property.insert("default".into(), value.clone());
    }
}

/// What has a default is never missing.
fn keep_needed_without_default(root: &mut Json) {
    forget_defaulted(root);
    root["definitions"]
        .as_object_mut()
        .into_iter()
        .flat_map(|all| all.values_mut())
        .for_each(forget_defaulted);
}

fn forget_defaulted(table: &mut Json) {
    let properties = table["properties"].clone();
    let is_plain = |key: &Json| properties[key.as_str().unwrap_or_default()].get("default").is_none();
    let is_leaf = |key: &Json| properties[key.as_str().unwrap_or_default()].get("type").is_some();
    let Some(Json::Array(needed)) = table.get("x-required") else { return };
    let kept: Vec<Json> = needed.iter().filter(|key| is_plain(key) && is_leaf(key)).cloned().collect();
    if let Some(object) = table.as_object_mut() {
        object.remove("x-required");
        if !kept.is_empty() {
            object.insert("x-required".into(), kept.into());
        }
    }
}

/// The JSON pointer that a property refers to.
fn reference(root: &Json, pointer: &str) -> Option<String> {
    let property = root.pointer(pointer)?;
    let target = property.get("$ref").or_else(|| property.pointer("/allOf/0/$ref"))?;
    Some(target.as_str()?.trim_start_matches('#').to_owned())
}

/// Adds what a file has and a resolved experiment has not: sweeps, exclusions and profiles.
fn add_document_keys(root: &mut Json, axis: Json) {
    root["title"] = json!("tyr experiment");
    root["description"] =
        json!("An experiment of tyr. Every key has a default; a file names only what differs.");
    root["properties"]["sweep"] = json!({ "type": "array", "items": axis, "default": [],
        "description": "Axes of a sweep. They multiply: every combination is a trial." });
    root["properties"]["exclude"] = json!({ "type": "array", "items": { "type": "object" }, "default": [],
        "description": "Combinations to leave out. Each names keys (or axes) with values; a trial that has them all is dropped." });
    let profile = json!({ "type": "object", "additionalProperties": false, "properties": root["properties"],
        "description": "Values that replace the file's when the profile is chosen with `--profile NAME`." });
    root["definitions"]["Profile"] = profile;
    root["properties"]["profile"] = json!({ "type": "object", "default": {},
        "additionalProperties": { "$ref": "#/definitions/Profile" },
        "description": "Profiles by name: the same experiment with other values, for example on a small model." });
}

/// The embedded defaults, comments included.
pub fn defaults_toml() -> &'static str {
    DEFAULTS
}
