//! All request failures. Each cause has one function, one stable `type` and one status.

use std::fmt::Display;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use surprisal_api::{Bos, PROBLEM_JSON, Problem};
use surprisal_engine::ScoreError;

/// The default value of `Retry-After`, in seconds.
const DEFAULT_RETRY_AFTER: u64 = 1;

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
    fn new(status: u16, name: &'static str, title: &str, detail: impl Into<String>) -> Self {
        Self { name, problem: Box::new(Problem::new(status, name, title, detail)), retry_after: None }
    }

    fn query(mut self, index: impl Into<Option<usize>>) -> Self {
        self.problem.query = index.into();
        self
    }

    fn field(mut self, path: impl Into<String>) -> Self {
        self.problem.field = Some(path.into());
        self
    }

    fn value(mut self, value: impl Into<Value>) -> Self {
        self.problem.value = Some(match value.into() {
            Value::String(text) => truncate(&text).into(),
            other => other,
        });
        self
    }

    fn limit(mut self, limit: impl Into<Value>) -> Self {
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
    fn retry_after(mut self, seconds: u64) -> Self {
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
fn truncate(text: &str) -> String {
    text.chars().take(MAX_VALUE_CHARS).collect()
}

// HTTP requests.

pub(crate) fn route_not_found(method: &str, path: &str) -> Failure {
    Failure::new(404, "route-not-found", "Route not found", format!("unknown route {method} {path}; see /openapi.json"))
}

pub(crate) fn method_not_allowed(method: &str, path: &str) -> Failure {
    let detail = format!("{path} does not support {method}; the Allow header lists the supported methods");
    Failure::new(405, "method-not-allowed", "Method not allowed", detail)
}

pub(crate) fn unauthorized(detail: &str) -> Failure {
    Failure::new(401, "unauthorized", "Unauthorized", detail).field("Authorization")
}

pub(crate) fn unsupported_media_type(found: &str) -> Failure {
    let detail = "the body must be JSON, with the header `Content-Type: application/json`";
    let failure = Failure::new(415, "unsupported-media-type", "Unsupported media type", detail);
    failure.field("Content-Type").value(found)
}

pub(crate) fn unsupported_encoding(found: &str) -> Failure {
    let detail = "the body must be uncompressed, or compressed with gzip or zstd";
    let failure = Failure::new(415, "unsupported-encoding", "Unsupported content encoding", detail);
    failure.field("Content-Encoding").value(found)
}

pub(crate) fn body_too_large(limit: usize) -> Failure {
    let detail = format!("the body exceeds the limit of {limit} bytes; split the request into several");
    Failure::new(413, "body-too-large", "Body too large", detail).limit(limit)
}

pub(crate) fn body_stalled(seconds: u64) -> Failure {
    let detail = format!("received no more of the body for {seconds} s; send the body without pauses");
    Failure::new(408, "body-stalled", "Body stalled", detail)
}

pub(crate) fn body_unreadable(reason: &str) -> Failure {
    let detail = format!("reading the body failed: {reason}; send the request again");
    Failure::new(400, "body-unreadable", "Body unreadable", detail)
}

// JSON bodies.

pub(crate) fn invalid_json(error: &serde_json::Error) -> Failure {
    Failure::new(400, "invalid-json", "Invalid JSON", format!("the body is not valid JSON: {error}"))
}

pub(crate) fn invalid_field(path: &str, query: Option<usize>, error: &serde_json::Error) -> Failure {
    let message = error.to_string();
    // The body as a whole has no path, but serde names a missing field.
    let (field, detail) = match path {
        "." => (missing_field(&message), message.clone()),
        path => (Some(path), format!("{path}: {message}")),
    };
    let failure = Failure::new(400, "invalid-field", "Unknown field, missing field or wrong type", detail);
    let failure = failure.query(query);
    match field {
        Some(field) => failure.field(field),
        None => failure,
    }
}

/// Returns the field that serde's message names as missing.
fn missing_field(message: &str) -> Option<&str> {
    Some(message.strip_prefix("missing field `")?.split_once('`')?.0)
}

pub(crate) fn model_not_found(requested: &str, served: &str) -> Failure {
    let unknown = truncate(requested);
    let detail = format!("unknown model `{unknown}`; this server serves `{served}`: send that name, or omit `model`");
    Failure::new(404, "model-not-found", "Model not found", detail).field("model").value(requested)
}

// Requests of /logprobs.

pub(crate) fn missing_form() -> Failure {
    let detail = "nothing to score; send `queries`, or `contexts` and `targets`";
    Failure::new(400, "missing-form", "Neither form given", detail).field("queries")
}

pub(crate) fn mixed_forms(other: &str) -> Failure {
    let detail = format!("`queries` and `{other}` belong to different forms of a request; send only one of them");
    Failure::new(400, "mixed-forms", "Both forms given", detail).field(other)
}

pub(crate) fn incomplete_pairs(given: &str, missing: &str) -> Failure {
    let detail = format!("`{given}` is present but `{missing}` is missing; pairs need both `contexts` and `targets`");
    Failure::new(400, "incomplete-pairs", "Incomplete pairs", detail).field(missing)
}

pub(crate) fn no_queries(field: &str) -> Failure {
    Failure::new(400, "no-queries", "No queries", format!("`{field}` must not be empty")).field(field)
}

pub(crate) fn too_many_queries(field: &str, count: usize, limit: usize) -> Failure {
    let detail = format!("the request has {count} queries; the limit is {limit}: split the request into several");
    Failure::new(413, "too-many-queries", "Too many queries", detail).field(field).value(count).limit(limit)
}

/// Returns the problem for an index that is not below `length`, the length of `list`.
pub(crate) fn pair_out_of_range(pair: usize, part: usize, list: &str, index: usize, length: usize) -> Failure {
    let detail = format!("pair {pair} refers to index {index} of `{list}`, whose length is {length}");
    let failure = Failure::new(400, "pair-out-of-range", "Pair out of range", detail);
    failure.query(pair).field(format!("pairs[{pair}][{part}]")).value(index).limit(length)
}

pub(crate) fn text_not_encodable(field: &str, query: Option<usize>, reason: &str) -> Failure {
    Failure::new(400, "text-not-encodable", "Text cannot be encoded", reason).query(query).field(field)
}

pub(crate) fn tokens_not_decodable(field: &str, reason: &str) -> Failure {
    Failure::new(400, "tokens-not-decodable", "Tokens cannot be decoded", reason).field(field)
}

/// Returns the problem for a token id that is not below `limit`, the vocabulary size.
pub(crate) fn token_out_of_range(field: String, query: Option<usize>, token: u32, limit: usize) -> Failure {
    let detail = format!("token id {token} is out of range; it must be below {limit}, the size of the vocabulary");
    let failure = Failure::new(400, "token-out-of-range", "Token out of range", detail);
    failure.query(query).field(field).value(token).limit(limit)
}

pub(crate) fn empty_target(field: String, query: Option<usize>) -> Failure {
    let detail = "a target must have at least one token";
    Failure::new(400, "empty-target", "Empty target", detail).query(query).field(field)
}

pub(crate) fn empty_prompt(query: usize, field: String) -> Failure {
    let detail = "a prompt must have at least one token";
    Failure::new(400, "empty-prompt", "Empty prompt", detail).query(query).field(field)
}

pub(crate) fn text_or_ids() -> Failure {
    let detail = "send either `text` or `input_ids`, but not both";
    Failure::new(400, "text-or-ids", "Either text or token ids required", detail).field("input_ids")
}

/// Returns the problem for a number or a length above its limit.
pub(crate) fn not_offered(field: &str, value: usize, limit: usize) -> Failure {
    let detail = format!("`{field}`: {value} exceeds the limit of {limit}");
    Failure::new(400, "not-offered", "Not supported", detail).field(field).value(value).limit(limit)
}

/// Returns the problem for a field that exists for compatibility with another server and has only one supported value.
pub(crate) fn unsupported_value(field: &str, value: impl Display + Into<Value>, supported: &str) -> Failure {
    let detail = format!("`{field}` is {value}; it must be {supported}");
    Failure::new(400, "not-offered", "Not supported", detail).field(field).value(value)
}

/// Returns the problem for a number outside its range.
pub(crate) fn out_of_range(field: &str, value: &str, rule: &str) -> Failure {
    let detail = format!("`{field}` is {value}; it must be {rule}");
    Failure::new(400, "out-of-range", "Number out of range", detail).field(field).value(value)
}

pub(crate) fn needs_tokens(field: &str) -> Failure {
    let detail = format!("`{field}` requires \"detail\": \"tokens\"");
    Failure::new(400, "needs-tokens", "Token detail required", detail).field(field)
}

/// Returns the problem for a subset that is empty, or longer than `limit`, the vocabulary size.
pub(crate) fn subset_size(length: usize, limit: usize) -> Failure {
    let detail = format!("`subset` has {length} token ids; it must have between 1 and {limit}");
    Failure::new(400, "subset-size", "Subset empty or too long", detail).field("subset").value(length).limit(limit)
}

pub(crate) fn empty_stop(field: String) -> Failure {
    let detail = "a stop string must not be empty: an empty string would end every completion at once";
    Failure::new(400, "empty-stop", "Empty stop string", detail).field(field)
}

pub(crate) fn no_bos() -> Failure {
    let detail = "`bos` is \"always\", but this model's tokenizer adds no BOS; omit `bos`";
    Failure::new(400, "no-bos", "No BOS", detail).field("bos").value("always")
}

pub(crate) fn nothing_given(query: usize, field: String, rule: Bos) -> Failure {
    let why = match rule {
        Bos::Auto | Bos::Always => "this model's tokenizer adds no BOS",
        Bos::None => "`bos` is \"none\"",
    };
    let detail = format!(
        "the first target token has no token before it: the context is empty, and {why}; give a context of at least \
         one token"
    );
    Failure::new(400, "nothing-given", "No token before the target", detail).query(query).field(field)
}

pub(crate) fn sequence_too_long(query: usize, field: String, length: usize, limit: usize) -> Failure {
    let detail = format!("the sequence needs {length} tokens; the limit is {limit}");
    let failure = Failure::new(400, "sequence-too-long", "Sequence too long", detail);
    failure.query(query).field(field).value(length).limit(limit)
}

// Limits and load.

pub(crate) fn request_too_large(tokens: usize, limit: u32) -> Failure {
    let detail = format!(
        "the request counts as {tokens} tokens; the limit on all requests in flight is {limit}: split the request \
         into several"
    );
    Failure::new(413, "request-too-large", "Request too large", detail).value(tokens).limit(limit)
}

/// Returns the problem for a request that exceeds the free capacity. The request may not have been read yet.
pub(crate) fn overloaded(held: u32, limit: u32, unit: &str, retry_after: u64) -> Failure {
    let detail = format!("{held} of {limit} {unit} are in flight, and this request does not fit; retry later");
    overload(detail, held, limit, retry_after)
}

/// Returns the problem for a client that itself holds too much capacity. The request may not have been read yet.
pub(crate) fn overloaded_by_client(held: u32, limit: u32, unit: &str, retry_after: u64) -> Failure {
    let detail = format!(
        "this client has {held} of {limit} {unit} in flight, and the rest is reserved for other clients; retry \
         later. Requests without an API key or `X-Client-Id` count as one client"
    );
    overload(detail, held, limit, retry_after)
}

fn overload(detail: String, held: u32, limit: u32, retry_after: u64) -> Failure {
    Failure::new(429, "overloaded", "Overloaded", detail).value(held).limit(limit).retry_after(retry_after)
}

pub(crate) fn deadline_exceeded(seconds: u64) -> Failure {
    let detail = format!("the request took longer than {seconds} s; split it into several");
    Failure::new(504, "deadline-exceeded", "Deadline exceeded", detail).limit(seconds)
}

pub(crate) fn shutting_down() -> Failure {
    Failure::new(
        503,
        "shutting-down",
        "Shutting down",
        "the server accepts no new requests; retry later or on another server",
    )
    .retry_after(DEFAULT_RETRY_AFTER)
}

// Failures inside the server.

pub(crate) fn not_finite(query: usize, position: usize, logprob: f32) -> Failure {
    let detail = format!("the log-probability of target token {position} is {logprob}, which JSON cannot represent");
    Failure::new(500, "not-finite", "Log-probability not finite", detail).query(query).value(logprob.to_string())
}

pub(crate) fn serialization_failed(error: impl Display) -> Failure {
    tracing::error!(%error, "writing a response failed");
    internal()
}

pub(crate) fn internal() -> Failure {
    let detail = "the request failed because of a defect in the server; the server's log has details";
    Failure::new(500, "internal", "Internal error", detail)
}

/// Returns the problem for a failed engine: requests fail until the model is reloaded.
pub(crate) fn engine_stopped(detail: &str) -> Failure {
    Failure::new(503, "engine-stopped", "Engine stopped", detail).retry_after(DEFAULT_RETRY_AFTER)
}

/// Returns the problem for a query that failed in the engine. Requests are checked before they reach the engine, so a
/// query that the engine rejects reveals a defect in the server.
pub(crate) fn engine_failed(query: usize, field: String, error: &ScoreError) -> Failure {
    let detail = error.to_string();
    let failure = match error {
        ScoreError::Backend(_) => Failure::new(500, "backend-failed", "Backend failed", detail),
        ScoreError::Unsupported(_) => Failure::new(400, "not-offered", "Not supported", detail),
        ScoreError::BackendLost(_) => engine_stopped(&detail),
        // At shutdown, the server answers every request before it drops the engine, so a stopped engine has failed.
        ScoreError::Stopped => engine_stopped("the engine failed; requests fail until the model is reloaded"),
        &ScoreError::TooLong { len, limit } => return sequence_too_long(query, field, len, limit),
        ScoreError::NoContext(_)
        | ScoreError::NothingToScore { .. }
        | ScoreError::TokenOutOfRange { .. }
        | ScoreError::TooManyAlternatives { .. }
        | ScoreError::Subset { .. }
        | ScoreError::Sampling { .. } => Failure::new(500, "query-refused", "Query rejected by the engine", detail),
    };
    failure.query(query).field(field)
}
