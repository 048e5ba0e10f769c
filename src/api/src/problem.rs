//! Errors on the wire, as RFC 9457 problem details.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An RFC 9457 problem: a stable `type` for each cause, and the query, field, value and limit involved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Stable identifier of the cause, such as `urn:surprisal:problem:body-too-large`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The cause in a few words, the same for every problem of this `type`.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Explanation of this occurrence, and what to do about it.
    pub detail: String,
    /// Index of the offending query, pair or prompt in the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<usize>,
    /// Path of the offending field, such as `queries[3].target[7]`, or the name of the offending header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Offending value, or the amount in use if the server is overloaded. A long string is truncated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Limit that applies to the value or the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Value>,
}

impl Problem {
    /// Creates a problem of the type `urn:surprisal:problem:{name}`.
    pub fn new(status: u16, name: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:surprisal:problem:{name}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            query: None,
            field: None,
            value: None,
            limit: None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.title, self.status, self.detail)
    }
}

impl std::error::Error for Problem {}
