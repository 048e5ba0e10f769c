//! `Failure`: a failed request, and the response to it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use surprisal_api::{PROBLEM_JSON, Problem};

/// The maximum length of a client's string in a problem, in characters.
const MAX_VALUE_CHARS: usize = 100;

/// A failed request, with the problem to return.
#[derive(Debug)]
pub(crate) struct Failure {
    name: &'static str,
    problem: Box<Problem>,
    /// Seconds after which the client may retry; `None` if it should not.
    retry_after: Option<u64>,
}

/// The name of a response's problem, which the response carries as an extension, for the metrics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProblemName(pub(crate) &'static str);

impl Failure {
    pub(crate) fn new(status: u16, name: &'static str, title: &str, detail: impl Into<String>) -> Self {
        Self { name, problem: Box::new(Problem::new(status, name, title, detail)), retry_after: None }
    }

    pub(crate) fn query(mut self, index: impl Into<Option<usize>>) -> Self {
        self.problem.query = index.into();
        self
    }

    pub(crate) fn field(mut self, path: impl Into<String>) -> Self {
        self.problem.set_field(path.into());
        self
    }

    pub(crate) fn value(mut self, value: impl Into<Value>) -> Self {
        self.problem.value = Some(match value.into() {
            Value::String(text) => truncate(&text).into(),
            other => other,
        });
        self
    }

    pub(crate) fn limit(mut self, limit: impl Into<Value>) -> Self {
        self.problem.limit = Some(limit.into());
        self
    }

    /// Returns the name at the end of the problem's type.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the problem itself, for a stream whose status has already been sent.
    pub(crate) fn into_problem(self) -> Problem {
        *self.problem
    }

    /// Sets the number of seconds after which the client may retry.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self.problem)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(ProblemName(self.name));
        response
    }
}

/// Returns the first [`MAX_VALUE_CHARS`] characters of a client's string.
pub(crate) fn truncate(text: &str) -> String {
    text.chars().take(MAX_VALUE_CHARS).collect()
}
