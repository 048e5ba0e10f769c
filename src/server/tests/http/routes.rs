//! The routes that clients of OpenAI and vLLM use besides completions: models, health, load, tokens, and advice for the
//! routes that the server does not have.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use reqwest::Method;
use serde_json::{Value, json};
use surprisal_engine::ModelCard;
use surprisal_server::{ApiKeys, ServerConfig};

use crate::support::{BOS, LetterScorer, Server, until};

#[tokio::test]
async fn a_model_is_retrieved_by_its_name() {
    let list = async |server: &Server| server.get("/v1/models").await.json()["data"][0].clone();
    let server = Server::start().await;
    let model = server.get("/v1/models/letters").await;
    assert_eq!((model.status, model.json()), (200, list(&server).await));
    // vLLM's and SGLang's benchmarks take the tokenizer's name from `root`.
    assert_eq!((&model.json()["root"], &model.json()["parent"]), (&json!("letters"), &Value::Null));
    let (status, name, problem) = server.get("/v1/models/other/model").await.problem();
    assert_eq!((status, name.as_str(), &problem["value"]), (404, "model-not-found", &json!("other/model")));

    let hub = |card| ModelCard { id: "owner/letters-1.5".to_owned(), ..card };
    let scorer = Arc::new(LetterScorer::with_card(hub));
    let server = Server::with_scorer(scorer, ServerConfig::default(), Some(BOS), ApiKeys::default()).await;
    for path in ["/v1/models/owner/letters-1.5", "/v1/models/owner%2Fletters-1.5"] {
        assert_eq!(server.get(path).await.json(), list(&server).await, "{path}");
    }
}

#[tokio::test]
async fn probes_report_whether_the_engine_is_alive() {
    let server = Server::with_keys(ApiKeys::parse("key")).await;
    let probe = async |method: Method, path: &str| {
        server.client.request(method, format!("{}{path}", server.url)).send().await.unwrap().status().as_u16()
    };
    for (alive, status) in [(true, 200), (false, 503)] {
        server.scorer.alive.store(alive, Ordering::SeqCst);
        for path in ["/health", "/health_generate", "/ping"] {
            assert_eq!(probe(Method::GET, path).await, status, "{path}");
            assert_eq!(probe(Method::HEAD, path).await, status, "{path}");
        }
        assert_eq!(probe(Method::POST, "/ping").await, status);
    }
    assert_eq!(server.get("/version").await.json(), json!({"version": env!("CARGO_PKG_VERSION")}));
}

#[tokio::test]
async fn the_load_is_the_number_of_requests_in_flight() {
    let server = Server::start().await;
    let load = async || server.get("/load").await.json();
    assert_eq!(load().await, json!({"server_load": 0}));
    server.scorer.set_open(false);
    let waiting = [0, 1].map(|_| server.spawn_logprobs(&json!({"queries": [{"target": "a"}]})));
    until(async || load().await == json!({"server_load": 2})).await;
    server.scorer.set_open(true);
    for reply in waiting {
        assert_eq!(reply.await.unwrap().status, 200);
    }
    until(async || load().await == json!({"server_load": 0})).await;
}

#[tokio::test]
async fn tokens_are_spelled_as_in_the_vocabulary() {
    let server = Server::start().await;
    let body = json!({"prompt": "ab", "return_token_strs": true});
    let reply = server.post("/tokenize", &body).await.json();
    assert_eq!((&reply["tokens"], &reply["count"]), (&json!([BOS, 97, 98]), &json!(3)));
    assert_eq!(reply["token_strs"], json!(["<s>", "a", "b"]));
    for without in [json!({"prompt": "ab"}), json!({"prompt": "ab", "return_token_strs": null})] {
        assert_eq!(server.post("/tokenize", &without).await.json().get("token_strs"), None);
    }
    let null = json!({"prompt": "ab", "add_special_tokens": null});
    assert_eq!(server.post("/tokenize", &null).await.json()["count"], 3);
    let without_bos = json!({"prompt": "ab", "add_special_tokens": false, "messages": null});
    assert_eq!(server.post("/tokenize", &without_bos).await.json()["count"], 2);
}

#[tokio::test]
async fn tokens_have_offsets_on_request() {
    let server = Server::start().await;
    for (route, special, offsets) in [
        ("/tokenize", true, json!([[0, 0], [0, 1], [1, 2]])),
        ("/tokenize", false, json!([[0, 1], [1, 2]])),
        ("/lm-eval/tokenize", false, json!([[0, 0], [0, 1], [1, 2]])),
    ] {
        let mut body = json!({"prompt": "ab", "add_special_tokens": special});
        assert_eq!(server.post(route, &body).await.json().get("offsets"), None);
        body["return_offsets"] = json!(true);
        assert_eq!(server.post(route, &body).await.json()["offsets"], offsets, "{route}");
    }
}

#[tokio::test]
async fn the_routes_for_the_harness_add_special_tokens_once() {
    let server = Server::start().await;
    let tokens = async |prompt: &str| {
        let body = json!({"prompt": prompt, "add_special_tokens": false});
        server.post("/lm-eval/tokenize", &body).await.json()["tokens"].clone()
    };
    assert_eq!(tokens("ab").await, json!([BOS, 97, 98]));
    assert_eq!(tokens("").await, json!([BOS]));
    let info = async |path: &str| server.get(path).await.json();
    assert_eq!(info("/lm-eval/tokenizer_info").await, info("/tokenizer_info").await);
    let body = json!({"prompt": [BOS, 97, 98], "echo": true, "logprobs": 1, "max_tokens": 1});
    let choices = async |path: &str| server.post(path, &body).await.json()["choices"].clone();
    assert_eq!(choices("/lm-eval/v1/completions").await, choices("/v1/completions").await);
}

#[tokio::test]
async fn messages_are_rejected_with_the_reason() {
    let server = Server::start().await;
    for body in [json!({"messages": [{"role": "user", "content": "Hi"}]}), json!({"prompt": "a", "messages": []})] {
        let (status, name, problem) = server.post("/tokenize", &body).await.problem();
        assert_eq!((status, name.as_str(), &problem["field"]), (400, "invalid-field", &json!("messages")), "{body}");
        assert!(problem["detail"].as_str().unwrap().contains("apply the model's chat template"), "{problem}");
    }
    let (_, _, problem) = server.post("/tokenize", &json!({"add_special_tokens": true})).await.problem();
    assert_eq!(problem["field"], "prompt", "{problem}");
}

#[tokio::test]
async fn unknown_routes_of_other_servers_name_an_alternative() {
    let server = Server::start().await;
    for (path, alternative) in [
        ("/v1/chat/completions", "/v1/completions"),
        ("/v1/responses", "chat template"),
        ("/v1/messages", "chat template"),
        ("/v1/embeddings", "/logprobs"),
        ("/v1/score", "/logprobs"),
        ("/generative_scoring", "/logprobs"),
        ("/rerank", "/logprobs"),
        ("/completions", "use /v1/completions"),
        ("/generate_stream", "\"stream\": true"),
        ("/v1/tokenize", "/tokenize"),
        ("/api/generate", "/generate"),
        ("/flush_cache", "it changes no result"),
        ("/nowhere", "/openapi.json"),
    ] {
        let (status, name, problem) = server.post(path, &json!({"messages": []})).await.problem();
        assert_eq!((status, name.as_str()), (404, "route-not-found"), "{path}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.starts_with(&format!("unknown route POST {path}; ")) && detail.contains(alternative),
            "{detail}"
        );
    }
}

#[tokio::test]
async fn a_method_that_a_route_does_not_have_is_rejected_with_those_it_has() {
    let server = Server::start().await;
    for (method, path, allowed) in [
        (Method::OPTIONS, "/v1/models", "GET,HEAD"),
        (Method::DELETE, "/v1/models/letters", "GET,HEAD"),
        (Method::GET, "/generate", "POST"),
        (Method::PUT, "/ping", "GET,HEAD,POST"),
    ] {
        let response = server.client.request(method, format!("{}{path}", server.url)).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["allow"].to_str().unwrap()), (405, allowed));
    }
}
