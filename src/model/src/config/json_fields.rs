//! Typed, bounds-checked reads of a JSON object's fields. An error names the field, its value and the expected values.

use serde_json::{Map, Value};

use crate::error::Error;

/// Upper bound on a size: large enough for every model, small enough that no product of sizes overflows.
const MAX_SIZE: u64 = 1 << 20;

/// Upper bound on the number of layers and on the number of heads.
const MAX_COUNT: u64 = 1 << 12;

/// The fields of a JSON object. A null field counts as absent.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonFields<'a>(pub(super) &'a Map<String, Value>);

impl JsonFields<'_> {
    /// Returns a field's value; `None` if it is absent or null.
    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    /// Rejects a field that is null, which is not the same as absent to transformers.
    pub(super) fn reject_null(&self, field: &str) -> Result<(), Error> {
        match self.0.get(field) {
            Some(Value::Null) => Err(invalid(field, "null", "set a value, or omit the field to use the default")),
            _ => Ok(()),
        }
    }

    /// Reads a size from 1 to [`MAX_SIZE`], or returns the default if the field is absent. If there is no default, an
    /// absent field is an error.
    pub(super) fn size(&self, field: &str, default: Option<usize>) -> Result<usize, Error> {
        self.whole_number(field, default, MAX_SIZE)
    }

    /// Reads a number of layers or heads from 1 to [`MAX_COUNT`], or returns the default if the field is absent. If
    /// there is no default, an absent field is an error.
    pub(super) fn count(&self, field: &str, default: Option<usize>) -> Result<usize, Error> {
        self.whole_number(field, default, MAX_COUNT)
    }

    fn whole_number(&self, field: &str, default: Option<usize>, limit: u64) -> Result<usize, Error> {
        let expected = || format!("it must be a whole number from 1 to {limit}");
        match (self.get(field), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(invalid(field, "missing", &expected())),
            (Some(value), _) => match value.as_u64() {
                Some(size) if (1..=limit).contains(&size) => Ok(size as usize),
                _ => Err(invalid(field, value, &expected())),
            },
        }
    }

    /// Reads a whole number from 0 to [`MAX_SIZE`], or returns the default if the field is absent.
    pub(super) fn index_or(&self, field: &str, default: usize) -> Result<usize, Error> {
        match self.get(field) {
            Some(value) if value.as_u64() == Some(0) => Ok(0),
            _ => self.size(field, Some(default)),
        }
    }

    /// Reads a positive number, or returns the default if the field is absent.
    pub(super) fn positive_or(&self, field: &str, default: f64) -> Result<f64, Error> {
        let Some(value) = self.get(field) else { return Ok(default) };
        match value.as_f64() {
            Some(number) if number > 0.0 && number.is_finite() => Ok(number),
            _ => Err(invalid(field, value, "it must be a positive number")),
        }
    }

    /// Reads a finite number, or returns the default if the field is absent.
    pub(super) fn number_or(&self, field: &str, default: f64) -> Result<f64, Error> {
        let Some(value) = self.get(field) else { return Ok(default) };
        let number = value.as_f64().filter(|number| number.is_finite());
        number.ok_or_else(|| invalid(field, value, "it must be a number"))
    }

    /// Reads a boolean, or returns `false` if the field is absent.
    pub(super) fn flag(&self, field: &str) -> Result<bool, Error> {
        let Some(value) = self.get(field) else { return Ok(false) };
        value.as_bool().ok_or_else(|| invalid(field, value, "it must be true or false"))
    }

    /// Reads a token id, or the first of a list of token ids; `None` if the field is absent.
    pub(super) fn token_id(&self, field: &str) -> Result<Option<u32>, Error> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let first = value.as_array().and_then(|ids| ids.first()).unwrap_or(value);
        match first.as_u64().and_then(|id| u32::try_from(id).ok()) {
            Some(id) => Ok(Some(id)),
            None => Err(invalid(field, value, "it must be a token id or a list of token ids")),
        }
    }

    /// Reads a positive number; an absent field is an error.
    pub(super) fn required_positive(&self, field: &str) -> Result<f64, Error> {
        match self.get(field) {
            Some(_) => self.positive_or(field, 1.0),
            None => Err(invalid(field, "missing", "it must be a positive number")),
        }
    }
}

/// Returns the error for a field whose value is malformed or not supported. Truncates a long value.
pub(super) fn invalid(field: &str, found: impl ToString, expected: &str) -> Error {
    let mut found = found.to_string();
    if let Some((cut, _)) = found.char_indices().nth(200) {
        found.truncate(cut);
        found.push_str("...");
    }
    Error::Config { field: field.to_owned(), found, expected: expected.to_owned() }
}

/// Returns the error for a field of an object that is itself a field.
pub(super) fn inside(object: &str, error: Error) -> Error {
    match error {
        Error::Config { field, found, expected } => {
            Error::Config { field: format!("{object}.{field}"), found, expected }
        }
        other => other,
    }
}

/// Returns the name of a JSON value's type, with its article.
pub(super) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
