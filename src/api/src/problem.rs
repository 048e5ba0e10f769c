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
    /// The text of `detail`, for clients that look for this name.
    #[serde(default)]
    pub message: String,
    /// The problem in OpenAI's format, for clients of OpenAI, vLLM and SGLang.
    #[serde(default)]
    pub error: ErrorObject,
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

/// An error in OpenAI's format.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemas", derive(utoipa::ToSchema))]
pub struct ErrorObject {
    /// Explanation of this occurrence.
    pub message: String,
    /// Class of the error: `"invalid_request_error"`, `"rate_limit_error"` or `"server_error"`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Path of the offending field, if there is one.
    pub param: Option<String>,
    /// Cause of the error: the end of the problem's type in snake case, or OpenAI's name for it, such as
    /// `"context_length_exceeded"`.
    pub code: String,
}

/// OpenAI's codes for causes that have another name here.
const OPENAI_CODES: [(&str, &str); 2] =
    [("sequence-too-long", "context_length_exceeded"), ("unauthorized", "invalid_api_key")];

impl ErrorObject {
    fn new(status: u16, name: &str, message: &str) -> Self {
        let kind = match status {
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        let code = OPENAI_CODES.iter().find(|code| code.0 == name).map(|code| code.1.to_owned());
        Self {
            message: message.to_owned(),
            kind: kind.to_owned(),
            param: None,
            code: code.unwrap_or_else(|| name.replace('-', "_")),
        }
    }
}

impl Problem {
    /// Creates a problem of the type `urn:surprisal:problem:{name}`.
    pub fn new(status: u16, name: &str, title: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self {
            kind: format!("urn:surprisal:problem:{name}"),
            title: title.to_owned(),
            status,
            message: detail.clone(),
            error: ErrorObject::new(status, name, &detail),
            detail,
            query: None,
            field: None,
            value: None,
            limit: None,
        }
    }

    /// Sets the path of the offending field.
    pub fn set_field(&mut self, path: String) {
        self.error.param = Some(path.clone());
        self.field = Some(path);
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.title, self.status, self.detail)
    }
}

impl std::error::Error for Problem {}
