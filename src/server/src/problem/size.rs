//! Problems of requests that are too large, by themselves or beside others.

use super::Failure;

/// Returns the problem for a sequence longer than `limit`, the model's maximum length. Clients such as litellm
/// recognize the words "maximum context length is".
pub(crate) fn sequence_too_long(query: usize, field: String, length: usize, limit: usize) -> Failure {
    let detail =
        format!("this model's maximum context length is {limit} tokens, but the sequence needs {length} tokens");
    let failure = Failure::new(400, "sequence-too-long", "Sequence too long", detail);
    failure.query(query).field(field).value(length).limit(limit)
}

/// Returns the problem for a body that would take too much memory to parse.
pub(crate) fn body_too_complex(memory: usize, limit: usize) -> Failure {
    let detail = format!(
        "parsing the body takes about {memory} bytes of memory; the limit is {limit} (`server.max_working_bytes`): \
         split the request into several"
    );
    Failure::new(413, "request-too-large", "Request too large", detail).value(memory).limit(limit)
}

/// Returns the problem for a text of more bytes than `limit`, the greatest length of a text that fits `max_length`, the
/// model's maximum length. Clients such as litellm recognize the words "maximum context length is".
pub(crate) fn text_too_long(
    query: Option<usize>,
    field: &str,
    bytes: usize,
    limit: usize,
    max_length: usize,
) -> Failure {
    let detail = format!(
        "this model's maximum context length is {max_length} tokens, or {limit} bytes of text, but the text has \
         {bytes} bytes; shorten the text"
    );
    let failure = Failure::new(400, "sequence-too-long", "Sequence too long", detail);
    failure.query(query).field(field).value(bytes).limit(limit)
}

/// Returns the problem for a text or a list of token ids that would take too much memory to convert. `unit` names its
/// parts, of which it has `size`.
pub(crate) fn text_too_large(query: Option<usize>, field: &str, size: usize, unit: &str, limit: usize) -> Failure {
    let action = if unit == "bytes" { "tokenize" } else { "decode" };
    let detail = format!(
        "`{field}` has {size} {unit}; the server can {action} at most {limit} (`server.max_working_bytes`): split it"
    );
    let failure = Failure::new(413, "text-too-large", "Text too large", detail);
    failure.query(query).field(field).value(size).limit(limit)
}

/// Returns the problem for a number of tokens to generate that does not fit after a prompt of `prompt` tokens.
pub(crate) fn max_tokens_too_large(
    query: usize,
    field: String,
    max_tokens: usize,
    prompt: usize,
    limit: usize,
) -> Failure {
    let room = limit - prompt;
    let detail = format!(
        "this model's maximum context length is {limit} tokens, and the prompt has {prompt}, so `{field}` can be at \
         most {room}; it is {max_tokens}"
    );
    let failure = Failure::new(400, "sequence-too-long", "Sequence too long", detail);
    failure.query(query).field(field).value(max_tokens).limit(room)
}

// Limits and load.

/// Returns the problem for a request with more than `limit` tokens, which is the part of `total` that a single request
/// may take.
pub(crate) fn request_too_large(tokens: usize, limit: u32, total: u32) -> Failure {
    let detail = format!(
        "the request counts as {tokens} tokens; a single request may have at most {limit} of the {total} tokens of all \
         requests in flight: split the request into several"
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
        "this client has {held} of {limit} {unit} in flight, and this request would leave too little for other \
         clients; retry later. Requests without an API key or `X-Client-Id` count as one client"
    );
    overload(detail, held, limit, retry_after)
}

fn overload(detail: String, held: u32, limit: u32, retry_after: u64) -> Failure {
    Failure::new(429, "overloaded", "Overloaded", detail).value(held).limit(limit).retry_after(retry_after)
}
