//! The fields of a JSON object, each read with its type and bounds; an error names the field, its value and what would do.

use serde_json::{Map, Value};

use crate::Error;

/// Greatest value a size may have: large enough for every model, small enough that no product of them overflows.
const MAX_SIZE: u64 = 1 << 20;

/// The same for the number of layers and of heads, of which there are fewer.
const MAX_COUNT: u64 = 1 << 12;

/// An object's fields; null counts as absent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a Map<String, Value>);

impl Fields<'_> {
    /// The field, unless it is absent or null.
    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    pub(crate) fn size(&self, field: &str, default: Option<usize>) -> Result<usize, Error> {
        self.whole(field, default, MAX_SIZE)
    }

    pub(crate) fn count(&self, field: &str, default: Option<usize>) -> Result<usize, Error> {
        self.whole(field, default, MAX_COUNT)
    }

    fn whole(&self, field: &str, default: Option<usize>, limit: u64) -> Result<usize, Error> {
        let expected = || format!("it must be a whole number from 1 to {limit}");
        match (self.get(field), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(refuse(field, "missing", &expected())),
            (Some(value), _) => match value.as_u64() {
                Some(size) if (1..=limit).contains(&size) => Ok(size as usize),
                _ => Err(refuse(field, value, &expected())),
            },
        }
    }

    pub(crate) fn positive(&self, field: &str, default: f64) -> Result<f64, Error> {
        let Some(value) = self.get(field) else { return Ok(default) };
        match value.as_f64() {
            Some(number) if number > 0.0 && number.is_finite() => Ok(number),
            _ => Err(refuse(field, value, "it must be a positive number")),
        }
    }

    pub(crate) fn flag(&self, field: &str) -> Result<bool, Error> {
        let Some(value) = self.get(field) else { return Ok(false) };
        value.as_bool().ok_or_else(|| refuse(field, value, "it must be true or false"))
    }

    /// A token id, or the first of a list of them.
    pub(crate) fn token(&self, field: &str) -> Result<Option<u32>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let first = value.as_array().and_then(|ids| ids.first()).unwrap_or(value);
        match first.as_u64().and_then(|id| u32::try_from(id).ok()) {
            Some(id) => Ok(Some(id)),
            None => Err(refuse(field, value, "it must be a token id or a list of them")),
        }
    }

    pub(crate) fn required(&self, field: &str) -> Result<f64, Error> {
        match self.get(field) {
            Some(_) => self.positive(field, 1.0),
            None => Err(refuse(field, "missing", "it must be a positive number")),
        }
    }
}

pub(crate) fn refuse(field: &str, found: impl ToString, expected: &str) -> Error {
    let mut found = found.to_string();
    if let Some((cut, _)) = found.char_indices().nth(200) {
        found.truncate(cut);
        found.push_str("...");
    }
    Error::Config { field: field.to_owned(), found, expected: expected.to_owned() }
}

pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
