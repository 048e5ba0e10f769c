//! The document at `/openapi.json`, generated from the types of `surprisal-api` and this server's limits.

use serde_json::{Map, Value, json};
use surprisal_api::{
    ARROW_STREAM, CompletionsRequest, CompletionsResponse, DetokenizeRequest, DetokenizeResponse, GenerateRequest,
    GenerateResponses, LogprobsRequest, LogprobsResponse, ModelList, NDJSON, Neutral, NeutralField, PROBLEM_JSON,
    Problem, ServerLoad, SglangModelInfo, SglangServerInfo, StreamLine, TokenizeRequest, TokenizeResponse,
    TokenizerInfo, VersionInfo, neutral_fields,
};
use surprisal_engine::MAX_TOP;
use utoipa::ToSchema;

use crate::app::App;
use crate::generation::params::{MAX_STOP_TOKENS, MAX_STOPS};

const DESCRIPTION: &str = "Log-probabilities of texts under a Llama-class model, in nats. The result of a query is \
    always bit-identical, regardless of batching, chunking and the state of the cache. Every error is an RFC 9457 \
    problem that names the query, the field, the value and the limit involved. As in vLLM, a number may be a \
    string, an integer may be a whole float, and a flag may be 0, 1 or a word such as \"true\", except in arrays.";

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

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
        "paths": paths(app),
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
        "max_working_bytes": config.working_bytes_limit(),
        "max_text_bytes": app.text_limits.tokenizing_bytes,
        "max_waiting_response_bytes": config.response_bytes_limit(),
        "max_queries": config.max_queries,
        "max_waiting_requests": config.max_waiting_requests,
        "max_waiting_tokens": config.max_waiting_tokens,
        "max_waiting_queries": config.queries_limit(),
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
    add::<VersionInfo>(&mut schemas);
    add::<ServerLoad>(&mut schemas);
    add::<SglangModelInfo>(&mut schemas);
    add::<SglangServerInfo>(&mut schemas);
    add::<Problem>(&mut schemas);
    for (name, schema) in &mut schemas {
        // Requests are the only types that reject unknown fields.
        if schema["additionalProperties"] == false {
            complete_request(name, schema);
        }
    }
    add_limits(&mut schemas, app);
    schemas
}

/// Adds to a request's schema the rules that the parser applies to every request: an optional field may be null, and
/// some fields that are not implemented may have a value that changes nothing.
fn complete_request(name: &str, schema: &mut Value) {
    let required: Vec<String> = serde_json::from_value(schema["required"].take()).unwrap_or_default();
    let Some(properties) = schema["properties"].as_object_mut() else { return };
    for (field, property) in properties.iter_mut() {
        if !required.contains(field) {
            allow_null(property);
        }
    }
    for field in neutral_fields(name) {
        let mut schema = neutral_schema(field);
        // Tools can tell these fields from those that do something.
        schema["x-compatibility"] = true.into();
        properties.insert(field.name.to_owned(), schema);
    }
    if required.is_empty() {
        schema.as_object_mut().map(|schema| schema.remove("required"));
    } else {
        schema["required"] = required.into();
    }
}

fn allow_null(schema: &mut Value) {
    let Some(members) = schema.as_object_mut() else { return };
    if let Some(reference) = members.remove("$ref") {
        members.insert("oneOf".to_owned(), json!([{"type": "null"}, {"$ref": reference}]));
    } else if let Some(Value::String(name)) = members.get("type").cloned() {
        members.insert("type".to_owned(), json!([name, "null"]));
    }
}

fn neutral_schema(field: &NeutralField) -> Value {
    let reason = field.reason;
    if field.values == [Neutral::Any] {
        return json!({"description": format!("{reason}.")});
    }
    let one = |value: &Neutral| match *value {
        Neutral::Any => json!({}),
        Neutral::Flag(flag) => json!({"enum": [flag]}),
        // All neutral numbers are whole.
        Neutral::Number(number) => json!({"enum": [number as i64]}),
        Neutral::Word(word) => json!({"enum": [word]}),
        Neutral::Empty => json!({"type": ["array", "object"], "maxItems": 0, "maxProperties": 0}),
        Neutral::TextFormat => {
            let kind = json!({"enum": ["text"]});
            json!({"type": "object", "properties": {"type": kind}, "required": ["type"], "additionalProperties": false})
        }
    };
    let mut alternatives: Vec<Value> = field.values.iter().map(one).collect();
    let description = format!("Must be {} if present: {reason}.", field.expected());
    if alternatives.is_empty() {
        return json!({"description": description, "type": "null"});
    }
    alternatives.push(json!({"type": "null"}));
    json!({"description": description, "oneOf": alternatives})
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

fn paths(app: &App) -> Map<String, Value> {
    let mut paths = work_paths(!app.keys.is_empty());
    paths.extend(description_paths());
    paths
}

/// Returns the routes that do work.
fn work_paths(needs_key: bool) -> Map<String, Value> {
    let post = |summary, request, answers: &[(&str, Value)]| json!({"post": work_operation(needs_key, summary, request, answers)});
    let event = json!({"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]});
    let mut logprobs = vec![(JSON, reference("LogprobsResponse")), (NDJSON, json!({"type": "string"}))];
    if cfg!(feature = "arrow") {
        logprobs.push((ARROW_STREAM, json!({"type": "string", "format": "binary"})));
    }
    let answers = |schema| [(JSON, reference(schema)), (EVENTS, event.clone())];
    Map::from_iter([
        (
            "/logprobs".to_owned(),
            post("Score texts: how probable is each target, given its context?", "LogprobsRequest", &logprobs),
        ),
        (
            "/v1/completions".to_owned(),
            post(
                "Score or continue prompts, in the format of OpenAI and vLLM.",
                "CompletionsRequest",
                &answers("CompletionsResponse"),
            ),
        ),
        (
            "/generate".to_owned(),
            post("Score or continue prompts, in SGLang's format.", "GenerateRequest", &answers("GenerateResponses")),
        ),
        (
            "/lm-eval/v1/completions".to_owned(),
            post("The same as `/v1/completions`.", "CompletionsRequest", &answers("CompletionsResponse")),
        ),
        (
            "/lm-eval/tokenize".to_owned(),
            post(
                "Tokenize a text for lm-evaluation-harness: add the tokenizer's special tokens even if the request \
                 says otherwise, unless the text begins with them or is the name of one.",
                "TokenizeRequest",
                &[(JSON, reference("TokenizeResponse"))],
            ),
        ),
        (
            "/lm-eval/detokenize".to_owned(),
            post("The same as `/detokenize`.", "DetokenizeRequest", &[(JSON, reference("DetokenizeResponse"))]),
        ),
        ("/tokenize".to_owned(), post("Tokenize a text.", "TokenizeRequest", &[(JSON, reference("TokenizeResponse"))])),
        (
            "/detokenize".to_owned(),
            post("Decode token ids.", "DetokenizeRequest", &[(JSON, reference("DetokenizeResponse"))]),
        ),
    ])
}

/// Returns the routes that describe the model and the server, which need no key.
fn description_paths() -> impl Iterator<Item = (String, Value)> {
    let get = |path, summary, media, schema, problems: &[u16]| {
        (path, json!({"get": operation(summary, &[(media, schema)], problems)}))
    };
    let describe = |path, summary, schema| get(path, summary, JSON, reference(schema), &[]);
    let text = |path, summary, problems| get(path, summary, "text/plain", json!({"type": "string"}), problems);
    let mut retrieve = get("/v1/models/{model}", "Describe one model.", JSON, reference("ModelInfo"), &[404]);
    retrieve.1["parameters"] = json!([{"name": "model", "in": "path", "required": true,
        "description": "Name of the model, which may contain slashes.", "schema": {"type": "string"}}]);
    let mut ping = text("/ping", "Check that the engine is alive, as in vLLM and SageMaker.", &[503]);
    ping.1["post"] = ping.1["get"].clone();
    let routes = [
        describe("/v1/models", "Describe the served model.", "ModelList"),
        retrieve,
        describe("/tokenizer_info", "Describe the tokenizer.", "TokenizerInfo"),
        describe("/lm-eval/tokenizer_info", "The same as `/tokenizer_info`.", "TokenizerInfo"),
        describe("/model_info", "Describe the served model, in SGLang's format.", "SglangModelInfo"),
        describe("/get_model_info", "The same as `/model_info`.", "SglangModelInfo"),
        describe("/server_info", "Describe the server, in SGLang's format.", "SglangServerInfo"),
        describe("/get_server_info", "The same as `/server_info`.", "SglangServerInfo"),
        describe("/version", "Get the server's version, in vLLM's format.", "VersionInfo"),
        describe("/load", "Get the number of requests in flight, in vLLM's format.", "ServerLoad"),
        text("/health", "Check that the engine is alive.", &[503]),
        text("/health_generate", "The same as `/health`; generates nothing.", &[503]),
        ping,
        text("/ready", "Check that the server accepts new work.", &[503]),
        text("/metrics", "Get metrics in Prometheus text format.", &[500]),
        get("/openapi.json", "Get the OpenAPI document.", JSON, json!({"type": "object"}), &[]),
        get("/", "Show the live dashboard.", "text/html", json!({"type": "string"}), &[]),
    ];
    routes.into_iter().map(|(path, item)| (path.to_owned(), item))
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
