//! Checks that `/openapi.json` describes the server correctly.

use serde_json::{Value, json};
use surprisal_server::{ApiKeys, ServerConfig};

use crate::support::{BOS, MAX_LENGTH, Server, VOCABULARY};

/// Returns all values of `$ref`.
fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => {
            let own = map.get("$ref").and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(map.values().flat_map(references)).collect()
        }
        Value::Array(list) => list.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn the_document_is_complete_and_lists_the_limits() {
    let config = ServerConfig { max_queries: 77, ..ServerConfig::default() };
    let server = Server::with_config(config, Some(BOS)).await;
    let document = server.get("/openapi.json").await.json();
    let found = references(&document);
    assert!(found.len() > 50, "{found:?}");
    for reference in found {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference} does not exist");
    }
    assert_eq!(document["x-limits"]["max_model_len"], MAX_LENGTH);
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["LogprobsRequest"]["properties"]["queries"]["maxItems"], 77);
    assert_eq!(schemas["LogprobsRequest"]["properties"]["top"]["maximum"], 64);
    assert_eq!(schemas["LogprobsRequest"]["additionalProperties"], false);
    assert_eq!(
        schemas["Stops"]["oneOf"][1],
        json!({"type": "array", "items": {"type": "string"}, "maxItems": 64, "description": "Several stop strings."})
    );
    for request in ["CompletionsRequest", "SamplingParams"] {
        assert_eq!(schemas[request]["properties"]["stop_token_ids"]["maxItems"], 256);
    }
    assert_eq!(schemas["Text"]["oneOf"][1]["items"]["maximum"], VOCABULARY - 1);
    assert!(document["paths"]["/logprobs"]["post"].get("security").is_none());
}

#[tokio::test]
async fn every_route_is_documented_and_responds_as_documented() {
    let server = Server::start().await;
    let document = server.get("/openapi.json").await.json();
    let bodies = json!({
        "/logprobs": {"queries": [{"target": "a"}]},
        "/v1/completions": {"prompt": "a", "max_tokens": 2},
        "/generate": {"text": "a", "sampling_params": {"max_new_tokens": 2}},
        "/tokenize": {"prompt": "a"},
        "/detokenize": {"tokens": [97]},
        "/lm-eval/v1/completions": {"prompt": "a", "max_tokens": 2},
        "/lm-eval/tokenize": {"prompt": "a"},
        "/lm-eval/detokenize": {"tokens": [97]},
    });
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 25);
    for (path, item) in paths {
        let url = path.replace("{model}", "letters");
        for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            let reply = if method == "post" { server.post(&url, &bodies[path]).await } else { server.get(&url).await };
            assert_eq!(reply.status, 200, "{path}: {reply:?}");
            let media = reply.content_type.split(';').next().unwrap();
            assert!(operation["responses"]["200"]["content"].get(media).is_some(), "{path}: {media}");
        }
    }
}

#[tokio::test]
async fn a_server_with_keys_documents_its_security() {
    let server = Server::with_keys(ApiKeys::parse("key")).await;
    let document = server.get("/openapi.json").await.json();
    assert_eq!(document["paths"]["/logprobs"]["post"]["security"], json!([{"key": []}]));
    assert!(document["paths"]["/health"]["get"].get("security").is_none());
}
