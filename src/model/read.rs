//! Values of a JSON object by key, each of the type that is wanted; a wrong one is named.

use serde_json::{Map, Value};

use super::config::error;
use super::keys::short;
use crate::base::Result;

/// The keys of an object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Keys<'a>(pub &'a Map<String, Value>);

impl<'a> Keys<'a> {
    /// Whether a key has a value other than null.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Every key with its value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.0.iter()
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A value as `read` takes it; none for null and for a key that is not there.
    fn value<T>(&self, key: &str, what: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(error(format!("`{key}` is {}, not {what}", short(value)))),
        }
    }

    /// A whole number of at most `most`.
    pub(super) fn size(&self, key: &str, most: usize) -> Result<Option<usize>> {
        let whole = self.value(key, "a whole number", |v| v.as_u64().or(v.as_f64().and_then(whole)))?;
        match whole {
            Some(size) if size > most as u64 => {
                Err(error(format!("`{key}` is {size}, and more than {most} is no model's")))
            }
            size => Ok(size.map(|size| size as usize)),
        }
    }

    /// A size that must be there.
    pub(super) fn required(&self, key: &str, most: usize) -> Result<usize> {
        self.size(key, most)?.ok_or_else(|| error(format!("`{key}` is missing")))
    }

    /// A finite number.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.value(key, "a finite number", |v| v.as_f64().filter(|v| v.is_finite()))
    }

    /// True or false.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.value(key, "true or false", Value::as_bool)
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.value(key, "a text", Value::as_str)
    }

    /// An object.
    pub(super) fn table(&self, key: &str) -> Result<Option<Keys<'a>>> {
        self.value(key, "an object", |v| v.as_object().map(Keys))
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        self.value(key, "a list of texts", |v| v.as_array()?.iter().map(Value::as_str).collect())
    }

    /// A token or a list of them. One below 0 stands for none, as some files have it.
    pub(super) fn tokens(&self, key: &str) -> Result<Option<Vec<u32>>> {
        self.value(key, "a token or a list of tokens", |value| match value {
            Value::Array(all) => Some(all.iter().map(token).collect::<Option<Vec<_>>>()?.concat()),
            one => token(one),
        })
    }
}

/// A number without a fraction, such as 4096.0.
fn whole(value: f64) -> Option<u64> {
    (value.fract() == 0.0 && (0.0..9e15).contains(&value)).then_some(value as u64)
}

fn token(value: &Value) -> Option<Vec<u32>> {
    match value.as_i64()? {
        ..0 => Some(vec![]),
        token => Some(vec![u32::try_from(token).ok()?]),
    }
}
