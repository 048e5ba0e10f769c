//! Every way a request can fail: each cause has one function, one stable `type` and one status.

use std::fmt::Display;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use surprisal_api::{Bos, PROBLEM_JSON, Problem};
use surprisal_engine::ScoreError;

/// Seconds after which a client may retry, where nothing says more.
const DEFAULT_RETRY_AFTER: u64 = 1;

/// The longest string that a problem repeats in its `value`, in characters.
const MAX_VALUE_CHARS: usize = 100;

/// A failed request: the problem to return.
#[derive(Debug)]
pub(crate) struct Failure {
    name: &'static str,
    problem: Box<Problem>,
    /// Seconds after which the client may retry, if it may.
    retry_after: Option<u64>,
}

/// The name of the problem in a response; an extension of the response, for the metrics.
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
            Value::String(text) => text.chars().take(MAX_VALUE_CHARS).collect::<String>().into(),
            other => other,
        });
        self
    }

    fn limit(mut self, limit: impl Into<Value>) -> Self {
        self.problem.limit = Some(limit.into());
        self
    }

    /// Returns the name that completes the problem's type.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the problem as it goes on the wire, for a response whose status has been sent.
    pub(crate) fn into_problem(self) -> Problem {
        *self.problem
    }

    /// Tells the client to retry after so many seconds.
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

// The request as HTTP.

pub(crate) fn route_not_found(method: &str, path: &str) -> Failure {
    Failure::new(404, "route-not-found", "Route not found", format!("{method} {path}: there is no such route"))
}

pub(crate) fn method_not_allowed(method: &str, path: &str) -> Failure {
    let detail = format!("{path} does not answer {method}; the Allow header says what it answers");
    Failure::new(405, "method-not-allowed", "Method not allowed", detail)
}

pub(crate) fn unauthorized(detail: &str) -> Failure {
    Failure::new(401, "unauthorized", "Unauthorized", detail).field("Authorization")
}

pub(crate) fn unsupported_media_type(found: &str) -> Failure {
    let detail = "the body must be JSON, with the header Content-Type: application/json";
    let failure = Failure::new(415, "unsupported-media-type", "Unsupported media type", detail);
    failure.field("Content-Type").value(found)
}

pub(crate) fn unsupported_encoding(found: &str) -> Failure {
    let detail = "the body may be encoded with gzip or zstd, or not at all";
    let failure = Failure::new(415, "unsupported-encoding", "Unsupported content encoding", detail);
    failure.field("Content-Encoding").value(found)
}

pub(crate) fn body_too_large(limit: usize) -> Failure {
    let detail = format!("the body is longer than {limit} bytes; send the queries in several requests");
    Failure::new(413, "body-too-large", "Body too large", detail).limit(limit)
}

pub(crate) fn body_stalled(seconds: u64) -> Failure {
    Failure::new(408, "body-stalled", "Body stalled", format!("no more of the body came for {seconds} s"))
}

pub(crate) fn body_unreadable(reason: &str) -> Failure {
    Failure::new(400, "body-unreadable", "Body unreadable", format!("the body could not be read: {reason}"))
}

// The request as JSON.

pub(crate) fn invalid_json(error: &serde_json::Error) -> Failure {
    Failure::new(400, "invalid-json", "Invalid JSON", format!("the body is not JSON: {error}"))
}

pub(crate) fn invalid_field(path: &str, query: Option<usize>, error: &serde_json::Error) -> Failure {
    let message = error.to_string();
    // The body as a whole has no path, but a missing field has a name.
    let (field, detail) = match path {
        "." => (missing_field(&message), message.clone()),
        path => (Some(path), format!("{path}: {message}")),
    };
    let failure = Failure::new(400, "invalid-field", "Field unknown, missing or of the wrong type", detail);
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
    let detail = format!("the model that is served is {served}; leave `model` out to take it");
    Failure::new(404, "model-not-found", "Model not found", detail).field("model").value(requested)
}

// Requests of /logprobs.

pub(crate) fn missing_form() -> Failure {
    let detail = "there is nothing to score: give `queries`, or `contexts` and `targets`";
    Failure::new(400, "missing-form", "Neither form given", detail).field("queries")
}

pub(crate) fn mixed_forms(other: &str) -> Failure {
    let detail = format!("`queries` and `{other}` belong to two forms of asking: give one of them");
    Failure::new(400, "mixed-forms", "Both forms given", detail).field(other)
}

pub(crate) fn incomplete_pairs(given: &str, missing: &str) -> Failure {
    let detail = format!("`{given}` is given but `{missing}` is not: pairs need both `contexts` and `targets`");
    Failure::new(400, "incomplete-pairs", "Pairs incomplete", detail).field(missing)
}

pub(crate) fn no_queries(field: &str) -> Failure {
    Failure::new(400, "no-queries", "No queries", format!("`{field}` is empty: there is nothing to score")).field(field)
}

pub(crate) fn too_many_queries(field: &str, count: usize, limit: usize) -> Failure {
    let detail = format!("{count} queries; one request may have {limit}, send them in several");
    Failure::new(413, "too-many-queries", "Too many queries", detail).field(field).value(count).limit(limit)
}

/// `limit` is the list's length: the index must be below it.
pub(crate) fn pair_out_of_range(pair: usize, part: usize, list: &str, index: usize, length: usize) -> Failure {
    let detail = format!("pair {pair} names index {index} of `{list}`, which has {length}");
    let failure = Failure::new(400, "pair-out-of-range", "Pair out of range", detail);
    failure.query(pair).field(format!("pairs[{pair}][{part}]")).value(index).limit(length)
}

pub(crate) fn text_not_encodable(field: &str, query: Option<usize>, reason: &str) -> Failure {
    Failure::new(400, "text-not-encodable", "Text not encodable", reason).query(query).field(field)
}

pub(crate) fn tokens_not_decodable(field: &str, reason: &str) -> Failure {
    Failure::new(400, "tokens-not-decodable", "Tokens not decodable", reason).field(field)
}

/// `limit` is the vocabulary's size: the id must be below it.
pub(crate) fn token_out_of_range(field: String, query: Option<usize>, token: u32, limit: usize) -> Failure {
    let detail = format!("token id {token} is out of range: the model has {limit} ids, from 0");
    let failure = Failure::new(400, "token-out-of-range", "Token out of range", detail);
    failure.query(query).field(field).value(token).limit(limit)
}

pub(crate) fn empty_target(field: String, query: Option<usize>) -> Failure {
    let detail = "a target needs at least one token: there is nothing to score";
    Failure::new(400, "empty-target", "Empty target", detail).query(query).field(field)
}

pub(crate) fn empty_prompt(query: usize, field: String) -> Failure {
    let detail = "a prompt needs at least one token";
    Failure::new(400, "empty-prompt", "Empty prompt", detail).query(query).field(field)
}

pub(crate) fn text_or_ids() -> Failure {
    let detail = "give either `text` or `input_ids`";
    Failure::new(400, "text-or-ids", "Text or token ids", detail).field("input_ids")
}

/// More than is offered here.
pub(crate) fn not_offered(field: &str, value: usize, limit: usize) -> Failure {
    let detail = format!("`{field}` is {value}, and {limit} is the most that is offered");
    Failure::new(400, "not-offered", "Not offered", detail).field(field).value(value).limit(limit)
}

/// A field of another server's protocol that has only one supported value.
pub(crate) fn unsupported_value(field: &str, value: impl Display + Into<Value>, supported: &str) -> Failure {
    let detail = format!("`{field}` is {value}; it must be {supported}");
    Failure::new(400, "not-offered", "Not offered", detail).field(field).value(value)
}

/// A number outside its range.
pub(crate) fn out_of_range(field: &str, value: &str, rule: &str) -> Failure {
    let detail = format!("`{field}` is {value}; it must be {rule}");
    Failure::new(400, "out-of-range", "Number out of range", detail).field(field).value(value)
}

pub(crate) fn needs_tokens(field: &str) -> Failure {
    let detail = format!("`{field}` is told of each token: say \"detail\": \"tokens\" as well");
    Failure::new(400, "needs-tokens", "Needs tokens", detail).field(field)
}

/// `limit` is the vocabulary's size.
pub(crate) fn subset_size(length: usize, limit: usize) -> Failure {
    let detail = format!("`subset` has {length} token ids; it must have at least one, and at most {limit}");
    Failure::new(400, "subset-size", "Subset empty or too long", detail).field("subset").value(length).limit(limit)
}

pub(crate) fn empty_stop(field: String) -> Failure {
    let detail = "an empty text would end every completion at once";
    Failure::new(400, "empty-stop", "Empty stop", detail).field(field)
}

pub(crate) fn no_bos() -> Failure {
    let detail = "`bos` is \"always\", but this model has no BOS that its texts begin with: leave `bos` out";
    Failure::new(400, "no-bos", "No BOS", detail).field("bos").value("always")
}

pub(crate) fn nothing_given(query: usize, field: String, rule: Bos) -> Failure {
    let why = match rule {
        Bos::Auto | Bos::Always => "this model's texts do not begin with BOS",
        Bos::None => "`bos` is \"none\"",
    };
    let detail = format!(
        "nothing stands before the first target token: the context has no tokens, and {why}; give a context of at \
         least one token"
    );
    Failure::new(400, "nothing-given", "Nothing to condition on", detail).query(query).field(field)
}

pub(crate) fn sequence_too_long(query: usize, field: String, length: usize, limit: usize) -> Failure {
    let detail = format!("the sequence comes to {length} tokens; the longest sequence that fits has {limit}");
    let failure = Failure::new(400, "sequence-too-long", "Sequence too long", detail);
    failure.query(query).field(field).value(length).limit(limit)
}

// Limits and load.

pub(crate) fn request_too_large(tokens: usize, limit: u32) -> Failure {
    let detail = format!(
        "the sequences have {tokens} tokens together; the server never holds more than {limit}: send the queries in \
         several requests"
    );
    Failure::new(413, "request-too-large", "Request too large", detail).value(tokens).limit(limit)
}

/// All clients together hold too much. The request itself may not have been read.
pub(crate) fn overloaded(held: u32, limit: u32, unit: &str, retry_after: u64) -> Failure {
    let detail = format!("{held} of {limit} {unit} are in flight, and the request does not fit beside them: try again");
    overload(detail, held, limit, retry_after)
}

/// The client itself holds too much. The request itself may not have been read.
pub(crate) fn overloaded_by_client(held: u32, limit: u32, unit: &str, retry_after: u64) -> Failure {
    let detail =
        format!("the same client has {held} of {limit} {unit} in flight, and the rest is for other clients: try again");
    overload(detail, held, limit, retry_after)
}

fn overload(detail: String, held: u32, limit: u32, retry_after: u64) -> Failure {
    Failure::new(429, "overloaded", "Overloaded", detail).value(held).limit(limit).retry_after(retry_after)
}

pub(crate) fn deadline_exceeded(seconds: u64) -> Failure {
    let detail = format!("the request was not answered within {seconds} s: send its queries in several requests");
    Failure::new(504, "deadline-exceeded", "Deadline exceeded", detail).limit(seconds)
}

pub(crate) fn shutting_down() -> Failure {
    Failure::new(503, "shutting-down", "Shutting down", "the server takes no new work: ask another, or later")
        .retry_after(DEFAULT_RETRY_AFTER)
}

// Failures inside the server.

pub(crate) fn not_finite(query: usize, position: usize, logprob: f32) -> Failure {
    let detail = format!("the log-probability of target token {position} is {logprob}, which JSON cannot say");
    Failure::new(500, "not-finite", "Log-probability not finite", detail).query(query).value(logprob.to_string())
}

pub(crate) fn serialization_failed(error: impl Display) -> Failure {
    tracing::error!(%error, "an answer could not be written");
    internal()
}

pub(crate) fn internal() -> Failure {
    let detail = "a defect of the server, not of the request; its log has more";
    Failure::new(500, "internal", "Internal error", detail)
}

/// The engine died; it may be reloading.
pub(crate) fn engine_stopped(detail: &str) -> Failure {
    Failure::new(503, "engine-stopped", "Engine stopped", detail).retry_after(DEFAULT_RETRY_AFTER)
}

/// The engine failed at a query. Requests are checked before they reach the engine, so a query that it rejects is a defect of
/// the server.
pub(crate) fn engine_failed(query: usize, field: String, error: &ScoreError) -> Failure {
    let detail = error.to_string();
    let failure = match error {
        ScoreError::Backend(_) => Failure::new(500, "backend-failed", "Backend failed", detail),
        ScoreError::Unsupported(_) => Failure::new(400, "not-offered", "Not offered by this engine", detail),
        ScoreError::BackendLost(_) | ScoreError::Stopped => engine_stopped(&detail),
        &ScoreError::TooLong { len, limit } => return sequence_too_long(query, field, len, limit),
        ScoreError::NoContext(_)
        | ScoreError::NothingToScore { .. }
        | ScoreError::TokenOutOfRange { .. }
        | ScoreError::TooManyAlternatives { .. }
        | ScoreError::Subset { .. }
        | ScoreError::Sampling { .. } => Failure::new(500, "query-refused", "Query refused by the engine", detail),
    };
    failure.query(query).field(field)
}
