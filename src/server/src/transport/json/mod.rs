//! Parsing of JSON bodies into requests. Serde's derived implementations define the fields and their types; this module
//! adds the rules that hold for every request.
//!
//! - Scalars may have another JSON type, as in pydantic's lax mode: see [`coerce`]. Elements of arrays may not.
//! - An object never comes as an array of its fields' values.
//! - A field that another server knows may have a value that changes nothing: see [`neutral`].
//! - An error names the field, its value and the expected type: see [`fault`].
//!
//! Start with [`parse`]. `lax` wraps the deserializer of `serde_json`. Nothing is buffered: a token of an array takes
//! four bytes from the beginning.

mod coerce;
mod fault;
mod lax;
mod neutral;

use serde::de::DeserializeOwned;

use self::fault::{Cause, Fault, Segment, State};
use self::lax::Lax;
use crate::problem::{self, Failure};

/// The byte-order mark of UTF-8, which some clients send before JSON.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Parses a body. Skips a byte-order mark, as vLLM does.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(problem::invalid_json("it is empty"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let state = State::default();
    let value = T::deserialize(Lax::new(&mut json, &state)).map_err(into_failure)?;
    json.end().map_err(|error| problem::invalid_json(&error.to_string()))?;
    Ok(value)
}

fn into_failure(fault: Fault) -> Failure {
    let (path, cause) = fault.into_parts();
    let query = query_index(&path);
    let field = fault::join(&path);
    match cause {
        Cause::Syntax(message) => problem::invalid_json(&message),
        Cause::WrongType { found, expected } => {
            let limit = fault::maximum(&expected);
            problem::wrong_type(&field, query, &found.describe(), found.into_value(), &expected, limit)
        }
        Cause::NotNeutral { found, expected, reason } => {
            problem::not_neutral(&field, &found.describe(), found.into_value(), &expected, reason)
        }
        Cause::Unknown(known) => {
            let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
            let reason = format!("is not a field of this request; the fields are {}", known.join(", "));
            problem::invalid_field(&field, query, &reason)
        }
        Cause::Missing => problem::invalid_field(&field, query, "is missing"),
        Cause::Duplicate => problem::invalid_field(&field, query, "is present twice; send it once"),
        Cause::Other(message) => problem::invalid_field(&field, query, &format!("is invalid: {message}")),
    }
}

/// Returns the index of the query or pair that a path leads into, if any.
fn query_index(path: &[Segment]) -> Option<usize> {
    match path {
        [Segment::Key(key), Segment::Index(index), ..] if key == "queries" || key == "pairs" => Some(*index),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
