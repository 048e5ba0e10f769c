//! All request failures. Each cause has one function, one stable `type` and one status.

mod size;

use std::fmt::Display;

use serde_json::Value;
use surprisal_api::Bos;
use surprisal_engine::ScoreError;

use crate::failure::truncate;

pub(crate) use self::size::{
    body_too_complex, max_tokens_too_large, overloaded, overloaded_by_client, request_too_large, sequence_too_long,
    text_too_large, text_too_long,
};
pub(crate) use crate::failure::{Failure, ProblemName};

/// The default value of `Retry-After`, in seconds.
const DEFAULT_RETRY_AFTER: u64 = 1;

// HTTP requests.

/// Returns the problem for a head that is ambiguous or incomplete, but that the HTTP parser accepts.
pub(crate) fn invalid_head(reason: &str) -> Failure {
    Failure::new(400, "invalid-head", "Invalid request head", reason)
}

/// Returns the problem for an unknown route, with advice on what to use instead.
pub(crate) fn route_not_found(method: &str, path: &str, advice: &str) -> Failure {
    Failure::new(404, "route-not-found", "Route not found", format!("unknown route {method} {path}; {advice}"))
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

/// Returns the problem for a body of which fewer than `bytes` bytes arrived in this time.
pub(crate) fn body_stalled(bytes: u64, seconds: u64) -> Failure {
    let detail =
        format!("fewer than {bytes} bytes of the body arrived in {seconds} s; send the body faster and without pauses");
    Failure::new(408, "body-stalled", "Body stalled", detail).limit(bytes)
}

pub(crate) fn body_unreadable(reason: &str) -> Failure {
    let detail = format!("reading the body failed: {reason}; send the request again");
    Failure::new(400, "body-unreadable", "Body unreadable", detail)
}

/// Returns the problem for a zstd body whose window is larger than `limit` bytes.
pub(crate) fn window_too_large(limit: usize) -> Failure {
    let detail = format!(
        "the window of the zstd frame exceeds {limit} bytes, the limit of RFC 9659; compress with a window of at most \
         8 MiB (`zstd --long=23`)"
    );
    Failure::new(400, "body-unreadable", "Body unreadable", detail).field("Content-Encoding").limit(limit)
}

// JSON bodies.

pub(crate) fn invalid_json(reason: &str) -> Failure {
    Failure::new(400, "invalid-json", "Invalid JSON", format!("the body is not valid JSON: {reason}"))
}

/// Returns the problem for valid JSON that is not a valid request. The path of the body itself is empty.
pub(crate) fn invalid_field(path: &str, query: Option<usize>, reason: &str) -> Failure {
    let subject = if path.is_empty() { "the body".to_owned() } else { format!("`{path}`") };
    let detail = format!("{subject} {reason}");
    let failure = Failure::new(400, "invalid-field", "Unknown field, missing field or wrong type", detail).query(query);
    if path.is_empty() { failure } else { failure.field(path) }
}

/// Returns the problem for a value of the wrong type, or outside the range of its type. `found` describes the value.
pub(crate) fn wrong_type(
    path: &str,
    query: Option<usize>,
    found: &str,
    value: Option<Value>,
    expected: &str,
    limit: Option<u64>,
) -> Failure {
    let mut failure = invalid_field(path, query, &format!("is {found}; it must be {expected}"));
    failure = value.into_iter().fold(failure, Failure::value);
    limit.into_iter().fold(failure, Failure::limit)
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

/// Returns the problem for `n` completions per prompt, where all prompts together may have `limit` completions.
pub(crate) fn too_many_completions(n: usize, prompts: usize, limit: usize) -> Failure {
    let most = limit / prompts.max(1);
    let detail = format!("`n` is {n}; for {prompts} prompts it can be at most {most}: split the request into several");
    Failure::new(413, "too-many-queries", "Too many queries", detail).field("n").value(n).limit(most)
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
    let detail = "send exactly one of `text` and `input_ids`";
    Failure::new(400, "text-or-ids", "Either text or token ids required", detail).field("input_ids")
}

/// Returns the problem for a number or a length above its limit.
pub(crate) fn not_offered(field: &str, value: usize, limit: usize) -> Failure {
    let detail = format!("`{field}`: {value} exceeds the limit of {limit}");
    Failure::new(400, "not-offered", "Not supported", detail).field(field).value(value).limit(limit)
}

/// Returns the problem for a value other than `supported`.
pub(crate) fn unsupported_value(field: &str, value: impl Display + Into<Value>, supported: &str) -> Failure {
    let detail = format!("`{field}` is {value}; it must be {supported}");
    Failure::new(400, "not-offered", "Not supported", detail).field(field).value(value)
}

/// Returns the problem for a field that is not implemented, with a value that would change something.
pub(crate) fn not_neutral(path: &str, found: &str, value: Option<Value>, expected: &str, reason: &str) -> Failure {
    let detail = format!("`{path}` is {found}; it must be {expected}: {reason}");
    let failure = Failure::new(400, "not-offered", "Not supported", detail).field(path);
    value.into_iter().fold(failure, Failure::value)
}

/// Returns the problem for a number outside its range.
pub(crate) fn out_of_range(field: &str, value: &str, rule: &str) -> Failure {
    let detail = format!("`{field}` is {value}; it must be {rule}");
    Failure::new(400, "out-of-range", "Number out of range", detail).field(field).value(value)
}

/// Returns the problem for a priority more urgent than `limit`, the client's most urgent one.
pub(crate) fn priority_not_permitted(priority: i32, bound: &str, limit: i32) -> Failure {
    let detail = format!(
        "`priority` is {priority}; it must be {bound} {limit} for this client: omit it, or ask the operator to \
         permit more urgent requests"
    );
    Failure::new(400, "out-of-range", "Number out of range", detail).field("priority").value(priority).limit(limit)
}

pub(crate) fn needs_tokens(field: &str) -> Failure {
    let detail = format!("`{field}` requires \"detail\": \"tokens\"");
    Failure::new(400, "needs-tokens", "Token detail required", detail).field(field)
}

pub(crate) fn needs_stream(field: &str) -> Failure {
    let detail = format!("`{field}` requires \"stream\": true");
    Failure::new(400, "not-offered", "Not supported", detail).field(field)
}

/// Returns the problem for a subset that is empty, or longer than `limit`, the vocabulary size.
pub(crate) fn subset_size(length: usize, limit: usize) -> Failure {
    let detail = format!("`subset` has {length} token ids; it must have between 1 and {limit}");
    Failure::new(400, "subset-size", "Subset empty or too long", detail).field("subset").value(length).limit(limit)
}

/// Returns the problem for an empty salt; at most `limit` characters are possible.
pub(crate) fn empty_cache_salt(limit: usize) -> Failure {
    invalid_field("cache_salt", None, &format!("is empty; it must have 1 to {limit} characters, or be absent"))
}

pub(crate) fn empty_stop(field: String) -> Failure {
    let detail = "a stop string must not be empty: an empty string would end every completion at once";
    Failure::new(400, "empty-stop", "Empty stop string", detail).field(field)
}

pub(crate) fn no_bos() -> Failure {
    let detail = "`bos` is \"always\", but this model's tokenizer adds no BOS; omit `bos`";
    Failure::new(400, "no-bos", "No BOS", detail).field("bos").value("always")
}

/// Returns the problem for a target at the beginning of a sequence. `is_joined` states that the target's first token
/// contains the whole context.
pub(crate) fn nothing_given(query: usize, field: String, rule: Bos, is_joined: bool) -> Failure {
    let context = if is_joined { "it contains the whole context" } else { "the context is empty" };
    let why = match rule {
        Bos::Auto | Bos::Always => "this model's tokenizer adds no BOS",
        Bos::None => "`bos` is \"none\"",
    };
    let detail = format!(
        "the first target token has no token before it: {context}, and {why}; give a context of at least one token"
    );
    Failure::new(400, "nothing-given", "No token before the target", detail).query(query).field(field)
}

/// Returns the problem for token ids in a request with `"boundary": "joint"`.
pub(crate) fn joint_tokens(query: usize, field: String) -> Failure {
    let detail = "\"boundary\": \"joint\" tokenizes context and target as one text, so both must be strings";
    Failure::new(400, "not-offered", "Not supported", detail).query(query).field(field)
}

pub(crate) fn joint_pairs() -> Failure {
    let detail = "\"boundary\": \"joint\" requires `queries`: the tokens of a text depend on both parts of a pair";
    Failure::new(400, "not-offered", "Not supported", detail).field("boundary").value("joint")
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
