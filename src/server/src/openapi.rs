//! The document at `/openapi.json`, generated from the types of `surprisal-api` and this server's limits.

use serde_json::{Map, Value, json};
use surprisal_api::{
    ARROW_STREAM, CompletionsRequest, CompletionsResponse, DetokenizeRequest, DetokenizeResponse, GenerateRequest,
    GenerateResponses, LogprobsRequest, LogprobsResponse, ModelList, NDJSON, PROBLEM_JSON, Problem, StreamLine,
    TokenizeRequest, TokenizeResponse, TokenizerInfo,
};
use surprisal_engine::MAX_TOP;
use utoipa::ToSchema;

use crate::app::App;
use crate::generation::params::{MAX_STOP_TOKENS, MAX_STOPS};

const DESCRIPTION: &str = "Log-probabilities of texts under a Llama-class model, in nats. The result of a query is \
    always bit-identical, regardless of batching, chunking and the state of the cache. Every error is an RFC 9457 \
    problem that names the query, the field, the value and the limit involved.";

/// The problems that a route may return, by status.
const PROBLEMS: [(u16, &str); 10] = [
    (400, "The request is invalid. The problem names the field, the value and the limit involved."),
    (401, "The API key is missing or unknown. Send the header `Authorization: Bearer KEY`."),
    (404, "The request names a model that this server does not serve."),
    (408, "The client stopped sending the request body."),
    (413, "The request exceeds this server's limit on bytes, queries or tokens."),
    (415, "The body is not JSON, or its content encoding is neither gzip nor zstd."),
    (429, "The server is overloaded. Retry after `Retry-After` seconds."),
    (500, "The server failed to answer a valid request."),
    (503, "The engine failed and the model is being reloaded, or the server is shutting down."),
    (504, "The request took longer than the server's deadline."),
];

/// Returns this server's OpenAPI document.
pub(crate) fn document(app: &App) -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "surprisal",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "x-limits": limits(app),
        "paths": paths(!app.keys.is_empty()),
        "components": {
            "schemas": schemas(app),
            "responses": Map::from_iter(PROBLEMS.map(problem)),
            "parameters": {"client": header("X-Client-Id", "Name of the client, for fair scheduling and client limits. \
                Ignored if the server requires API keys, which then identify clients."),
                "traceparent": header("traceparent", "W3C trace context. Responses and logs contain its trace id.")},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    })
}

/// Returns this server's limits.
fn limits(app: &App) -> Value {
    let (card, config) = (app.model(), &app.config);
    json!({
        "max_body_bytes": config.max_body_bytes,
        "max_waiting_body_bytes": config.body_bytes_limit(),
        "max_queries": config.max_queries,
        "max_waiting_requests": config.max_waiting_requests,
        "max_waiting_tokens": config.max_waiting_tokens,
        "max_request_seconds": config.max_request_seconds,
        "max_model_len": card.max_length,
        "vocab_size": card.vocab_size,
        "max_top": MAX_TOP,
    })
}

/// Returns the schemas of all types, with this server's limits.
fn schemas(app: &App) -> Map<String, Value> {
    let mut schemas = Map::new();
    add::<LogprobsRequest>(&mut schemas);
    add::<LogprobsResponse>(&mut schemas);
    add::<StreamLine>(&mut schemas);
    add::<CompletionsRequest>(&mut schemas);
    add::<CompletionsResponse>(&mut schemas);
    add::<GenerateRequest>(&mut schemas);
    add::<GenerateResponses>(&mut schemas);
    add::<TokenizeRequest>(&mut schemas);
    add::<TokenizeResponse>(&mut schemas);
    add::<DetokenizeRequest>(&mut schemas);
    add::<DetokenizeResponse>(&mut schemas);
    add::<ModelList>(&mut schemas);
    add::<TokenizerInfo>(&mut schemas);
    add::<Problem>(&mut schemas);
    add_limits(&mut schemas, app);
    schemas
}

/// Adds the limits that depend on the model and the configuration.
fn add_limits(schemas: &mut Map<String, Value>, app: &App) {
    let (vocab_size, max_queries) = (app.model().vocab_size, app.config.max_queries);
    for list in ["queries", "contexts", "targets"] {
        schemas["LogprobsRequest"]["properties"][list]["minItems"] = 1.into();
    }
    schemas["LogprobsRequest"]["properties"]["queries"]["maxItems"] = max_queries.into();
    schemas["CompletionsRequest"]["properties"]["n"]["maximum"] = max_queries.into();
    schemas["Stops"]["oneOf"][1]["maxItems"] = MAX_STOPS.into();
    for request in ["CompletionsRequest", "SamplingParams"] {
        schemas[request]["properties"]["stop_token_ids"]["maxItems"] = MAX_STOP_TOKENS.into();
    }
    let subset = &mut schemas["LogprobsRequest"]["properties"]["subset"];
    subset["maxItems"] = vocab_size.into();
    subset["items"]["maximum"] = (vocab_size - 1).into();
    schemas["Text"]["oneOf"][1]["items"]["maximum"] = (vocab_size - 1).into();
}

/// Adds a type's schema and the schemas of the types that it contains.
fn add<T: ToSchema>(schemas: &mut Map<String, Value>) {
    let mut types = Vec::new();
    T::schemas(&mut types);
    types.push((T::name().into_owned(), T::schema()));
    for (name, schema) in types {
        // A schema is plain data, so it can always be written as JSON.
        schemas.insert(name, serde_json::to_value(schema).unwrap_or_default());
    }
}

fn header(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "header", "description": description, "schema": {"type": "string"}})
}

fn problem((status, description): (u16, &str)) -> (String, Value) {
    let schema = json!({"$ref": "#/components/schemas/Problem"});
    let mut response = json!({"description": description, "content": {PROBLEM_JSON: {"schema": schema}}});
    if [429, 503].contains(&status) {
        response["headers"] = json!({"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string"}}});
    }
    (status.to_string(), response)
}

fn paths(needs_key: bool) -> Value {
    let post = |summary, request, answers: &[(&str, Value)]| json!({"post": work_operation(needs_key, summary, request, answers)});
    let get = |summary, media, schema: Value, problems: &[u16]| json!({"get": operation(summary, &[(media, schema)], problems)});
    let event = json!({"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]});
    let (json, plain) = ("application/json", json!({"type": "string"}));
    let mut logprobs = vec![(json, reference("LogprobsResponse")), (NDJSON, plain.clone())];
    if cfg!(feature = "arrow") {
        logprobs.push((ARROW_STREAM, json!({"type": "string", "format": "binary"})));
    }
    json!({
        "/logprobs": post("Score texts: how probable is each target, given its context?", "LogprobsRequest", &logprobs),
        "/v1/completions": post("Score or continue prompts, in the format of OpenAI and vLLM.", "CompletionsRequest", &[
            (json, reference("CompletionsResponse")), ("text/event-stream", event)]),
        "/generate": post("Score or continue prompts, in SGLang's format.", "GenerateRequest", &[
            (json, reference("GenerateResponses"))]),
        "/tokenize": post("Tokenize a text.", "TokenizeRequest", &[(json, reference("TokenizeResponse"))]),
        "/detokenize": post("Decode token ids.", "DetokenizeRequest", &[(json, reference("DetokenizeResponse"))]),
        "/v1/models": get("Describe the served model.", json, reference("ModelList"), &[]),
        "/tokenizer_info": get("Describe the tokenizer.", json, reference("TokenizerInfo"), &[]),
        "/health": get("Check that the engine is alive.", "text/plain", plain.clone(), &[503]),
        "/ready": get("Check that the server accepts new work.", "text/plain", plain.clone(), &[503]),
        "/metrics": get("Get metrics in Prometheus text format.", "text/plain", plain.clone(), &[500]),
        "/openapi.json": get("Get the OpenAPI document.", json, json!({"type": "object"}), &[]),
        "/": get("Show the live dashboard.", "text/html", plain, &[]),
    })
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

/// Returns the operation of a route that does work, which may need a key and may return any problem.
fn work_operation(needs_key: bool, summary: &str, request: &str, answers: &[(&str, Value)]) -> Value {
    let mut operation = operation(summary, answers, &[400, 401, 404, 408, 413, 415, 429, 500, 503, 504]);
    operation["parameters"] =
        json!([{"$ref": "#/components/parameters/client"}, {"$ref": "#/components/parameters/traceparent"}]);
    operation["requestBody"] =
        json!({"required": true, "content": {"application/json": {"schema": reference(request)}}});
    if needs_key {
        operation["security"] = json!([{"key": []}]);
    }
    operation
}

fn operation(summary: &str, answers: &[(&str, Value)], problems: &[u16]) -> Value {
    let content: Map<_, _> =
        answers.iter().map(|(media, schema)| (media.to_string(), json!({"schema": schema}))).collect();
    let mut responses = Map::from_iter([("200".to_owned(), json!({"description": "Success.", "content": content}))]);
    for status in problems {
        responses.insert(status.to_string(), json!({"$ref": format!("#/components/responses/{status}")}));
    }
    json!({"summary": summary, "responses": responses})
}
