//! Errors on the wire: RFC 9457 problem details.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An RFC 9457 problem: one stable `type` a cause, and which query, field, value and limit it is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A stable name of the cause, `urn:surprisal:problem:...`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The cause in a few words, the same every time.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, and what to do.
    pub detail: String,
    /// Index of the offending query (or pair) in the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<usize>,
    /// The offending field, as a path: `queries[3].target[7]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The value found there, where it is short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// The limit it broke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Value>,
}

impl Problem {
    /// A problem of the given cause; `name` completes `urn:surprisal:problem:`.
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
