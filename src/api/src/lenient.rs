//! Deserialization of optional request fields, for which null means absent.
//!
//! A field of type `Option` needs nothing else. A field with another type uses one of these functions.

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer};

/// Deserializes a value; null means the type's default.
pub(crate) fn or_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Deserializes a flag; null means `true`.
pub(crate) fn or_true<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(true))
}

/// Deserializes the number of alternatives to list; null means absent.
pub(crate) fn top<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(deserializer)? else { return Ok(None) };
    let is_whole = number.fract() == 0.0;
    // A larger number that fits is rejected where the limit is known.
    if is_whole && (0.0..=f64::from(u16::MAX)).contains(&number) {
        return Ok(Some(number as u16));
    }
    let found = if is_whole { Unexpected::Signed(number as i64) } else { Unexpected::Float(number) };
    Err(D::Error::invalid_value(found, &"an integer from 0 to 64"))
}

/// Deserializes the number of alternatives to list; null means 0.
pub(crate) fn top_or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    Ok(top(deserializer)?.unwrap_or(0))
}
