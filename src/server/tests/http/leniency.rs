//! Rules that hold for every field of every request, checked against the schemas in `/openapi.json`.

use serde_json::{Map, Value, json};

use crate::support::Server;

/// Words of serde's messages that mean nothing to a client.
const RUST_WORDS: [&str; 11] =
    ["u16", "u32", "u64", "i32", "i64", "f32", "struct", "variant", "sequence", "unit", "newtype"];

/// Returns the schemas of all requests and of the objects in them: only these reject unknown fields.
async fn request_schemas(server: &Server) -> Map<String, Value> {
    let document = server.get("/openapi.json").await.json();
    let schemas = document["components"]["schemas"].as_object().unwrap().clone();
    let is_request = |schema: &Value| schema["additionalProperties"] == false;
    let requests: Map<_, _> = schemas.into_iter().filter(|(_, schema)| is_request(schema)).collect();
    assert!(requests.len() >= 8, "{:?}", requests.keys());
    requests
}

/// Returns the names of a schema's required fields.
fn required(schema: &Value) -> Vec<&str> {
    schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Returns the route of a request and a valid request in which a member of the named object has this value, and the
/// path of that object. A new type of request needs an entry here.
fn request_with(schema: &str, field: &str, value: &Value) -> (&'static str, Value, &'static str) {
    let member = json!({field: value});
    let with = |mut body: Value| {
        body.as_object_mut().unwrap().extend(member.as_object().unwrap().clone());
        body
    };
    match schema {
        "LogprobsRequest" if ["contexts", "targets", "pairs"].contains(&field) => {
            ("/logprobs", with(json!({"queries": [{"target": "a"}]})), "")
        }
        "LogprobsRequest" if field == "queries" => {
            ("/logprobs", with(json!({"contexts": ["a"], "targets": ["b"]})), "")
        }
        "LogprobsRequest" => ("/logprobs", with(json!({"queries": [{"target": "a"}]})), ""),
        "QuerySpec" => ("/logprobs", json!({"queries": [with(json!({"target": "a"}))]}), "queries[0]."),
        "CompletionsRequest" => ("/v1/completions", with(json!({"prompt": "a", "max_tokens": 1})), ""),
        "StreamOptions" => {
            ("/v1/completions", json!({"prompt": "a", "stream_options": with(json!({}))}), "stream_options.")
        }
        "GenerateRequest" if field == "text" => ("/generate", with(json!({"input_ids": [97]})), ""),
        "GenerateRequest" => ("/generate", with(json!({"text": "a"})), ""),
        "SamplingParams" => ("/generate", json!({"text": "a", "sampling_params": with(json!({}))}), "sampling_params."),
        "TokenizeRequest" => ("/tokenize", with(json!({"prompt": "a"})), ""),
        "DetokenizeRequest" => ("/detokenize", with(json!({"tokens": [97]})), ""),
        other => panic!("no request with {other}; add one"),
    }
}

#[tokio::test]
async fn null_is_absent_for_every_optional_field() {
    let server = Server::start().await;
    for (name, schema) in request_schemas(&server).await {
        for field in schema["properties"].as_object().unwrap().keys() {
            if required(&schema).contains(&field.as_str()) {
                continue;
            }
            let (path, body, _) = request_with(&name, field, &Value::Null);
            let reply = server.post(path, &body).await;
            assert_eq!(reply.status, 200, "{name}.{field}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn every_optional_field_is_documented_as_nullable() {
    let server = Server::start().await;
    for (name, schema) in request_schemas(&server).await {
        for (field, property) in schema["properties"].as_object().unwrap() {
            let alternatives = ["oneOf", "anyOf"].iter().filter_map(|key| property[key].as_array()).flatten();
            let mut types = alternatives.chain([property]).map(|schema| &schema["type"]);
            let is_any = ["type", "oneOf", "anyOf", "$ref"].iter().all(|key| property.get(key).is_none());
            let is_nullable = is_any || types.any(|kind| *kind == "null" || kind[1] == "null");
            assert_eq!(is_nullable, !required(&schema).contains(&field.as_str()), "{name}.{field}: {property}");
        }
    }
}

/// No field accepts an object with an unknown member, except those that the server ignores.
#[tokio::test]
async fn a_wrong_type_is_rejected_by_name_for_every_field() {
    let server = Server::start().await;
    for (name, schema) in request_schemas(&server).await {
        for (field, property) in schema["properties"].as_object().unwrap() {
            if ["type", "oneOf", "anyOf", "$ref"].iter().all(|key| property.get(key).is_none()) {
                continue;
            }
            let (path, body, prefix) = request_with(&name, field, &json!({"?": 0}));
            let (status, kind, problem) = server.post(path, &body).await.problem();
            assert_eq!(status, 400, "{name}.{field}: {problem}");
            assert!(["invalid-field", "not-offered"].contains(&kind.as_str()), "{name}.{field}: {problem}");
            let (found, expected) = (problem["field"].as_str().unwrap(), format!("{prefix}{field}"));
            assert!(found == expected || found == format!("{expected}.?"), "{name}.{field}: {problem}");
            let detail = problem["detail"].as_str().unwrap();
            for word in detail.split(|letter: char| !letter.is_alphanumeric() && letter != '_') {
                assert!(!RUST_WORDS.contains(&word), "{name}.{field}: {detail}");
            }
        }
    }
}

/// Requests as the load generators and evaluation clients of other servers send them.
#[tokio::test]
async fn neutral_fields_of_other_clients_pass() {
    let server = Server::start().await;
    for (path, body) in [
        (
            "/v1/completions",
            json!({"model": "letters", "prompt": "a", "repetition_penalty": 1.0, "max_tokens": 2, "logprobs": null,
                "stream": true, "stream_options": {"include_usage": true}, "temperature": 0.0, "ignore_eos": true}),
        ),
        (
            "/v1/completions",
            json!({"prompt": "a", "max_tokens": 2, "stream": true, "ignore_eos": true, "stop": null,
                "stream_options": {"include_usage": true, "continuous_usage_stats": true}}),
        ),
        (
            "/v1/completions",
            json!({"prompt": "a", "best_of": 1, "n": 1, "echo": null, "frequency_penalty": 0, "presence_penalty": 0.0,
                "logit_bias": {}, "suffix": "", "user": "u", "seed": null, "min_p": 0, "min_tokens": 0,
                "skip_special_tokens": true, "spaces_between_special_tokens": false, "use_beam_search": false,
                "length_penalty": 0.5, "include_stop_str_in_output": false, "truncate_prompt_tokens": null,
                "allowed_token_ids": null, "bad_words": [], "response_format": {"type": "text"},
                "structured_outputs": null, "guided_json": null, "logits_processors": null, "prompt_embeds": null,
                "cache_salt": null, "kv_transfer_params": null, "vllm_xargs": {}, "store": false,
                "metadata": {"run": "7"}, "service_tier": "auto", "max_tokens": "5", "top_k": -1}),
        ),
        (
            "/generate",
            json!({"text": "a", "sampling_params": {"temperature": 0.0, "max_new_tokens": 2, "ignore_eos": true,
                "min_new_tokens": 0, "frequency_penalty": 0, "n": 1, "regex": null, "skip_special_tokens": true},
                "lora_path": null, "return_logprob": false, "logprob_start_len": -1, "image_data": null,
                "return_hidden_states": false, "rid": "r1", "bootstrap_room": null, "log_metrics": true}),
        ),
    ] {
        let reply = server.post(path, &body).await;
        assert_eq!(reply.status, 200, "{body}: {reply:?}");
    }
}

#[tokio::test]
async fn other_values_of_unsupported_fields_are_rejected_by_name() {
    let server = Server::start().await;
    for (path, body, field, detail) in [
        (
            "/v1/completions",
            json!({"prompt": "a", "min_p": 0.1}),
            "min_p",
            "`min_p` is 0.1; it must be 0: constraints on sampled tokens are not supported",
        ),
        (
            "/v1/completions",
            json!({"prompt": "a", "bad_words": ["b"]}),
            "bad_words",
            "`bad_words` is an array; it must be null or empty: constraints on sampled tokens are not supported",
        ),
        (
            "/generate",
            json!({"text": "a", "lora_path": "x"}),
            "lora_path",
            "`lora_path` is \"x\"; it must be null or empty: adapters are not supported",
        ),
        (
            "/generate",
            json!({"text": "a", "sampling_params": {"n": 2}}),
            "sampling_params.n",
            "`sampling_params.n` is 2; it must be 1: several completions of a prompt are not supported on this route",
        ),
    ] {
        let (status, name, problem) = server.post(path, &body).await.problem();
        assert_eq!((status, name.as_str()), (400, "not-offered"), "{problem}");
        assert_eq!((&problem["field"], &problem["detail"]), (&json!(field), &json!(detail)));
    }
}
