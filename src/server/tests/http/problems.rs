//! Problems, each of which names the query, the field, the value and the limit.

use serde_json::{Value, json};
use surprisal_server::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{BOS, FAILS, INFINITE, MAX_LENGTH, PANICS, STOPS, Server, VOCABULARY};

/// Asserts that a body is rejected with this status and type, and with exactly these members in addition to the texts.
async fn assert_rejected(server: &Server, path: &str, body: &str, status: u16, name: &str, members: Value) -> Value {
    let (found, kind, problem) = server.post_as("application/json", path, body).await.problem();
    assert_eq!((found, kind.as_str()), (status, name), "{body}: {problem}");
    for member in ["query", "field", "value", "limit"] {
        assert_eq!(problem.get(member), members.get(member), "{member} of {body}: {problem}");
    }
    problem
}

#[tokio::test]
async fn invalid_json_reports_its_position() {
    let server = Server::start().await;
    for (body, place) in [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("{\"queries\":[{\"target\":\n\"a\"}", "line 2 column 4"),
        ("nonsense", "line 1 column 2"),
        ("{\"queries\":[{\"target\":\"a\"}]} more", "line 1 column 30"),
    ] {
        let problem = assert_rejected(&server, "/logprobs", body, 400, "invalid-json", json!({})).await;
        assert!(problem["detail"].as_str().unwrap().contains(place), "{body}: {problem}");
    }
    for path in ["/tokenize", "/detokenize"] {
        assert_rejected(&server, path, "nonsense", 400, "invalid-json", json!({})).await;
    }
}

#[tokio::test]
async fn unknown_fields_and_wrong_types_are_named() {
    let server = Server::start().await;
    let limit = u32::MAX;
    for (body, members) in [
        (r#"{"querys":[]}"#, json!({"field": "querys"})),
        (
            r#"{"queries":[{"target":"a"},{"target":"b","contxt":""}]}"#,
            json!({"field": "queries[1].contxt", "query": 1}),
        ),
        (
            r#"{"queries":[{"target":[1,"x"]}]}"#,
            json!({"field": "queries[0].target[1]", "query": 0, "value": "x", "limit": limit}),
        ),
        (
            r#"{"queries":[{"target":[1,-2]}]}"#,
            json!({"field": "queries[0].target[1]", "query": 0, "value": -2, "limit": limit}),
        ),
        (r#"{"queries":[{"context":"a"}]}"#, json!({"field": "queries[0].target", "query": 0})),
        (r#"{"queries":[["a","b"]]}"#, json!({"field": "queries[0]", "query": 0})),
        (r#"{"queries":[],"detail":"all"}"#, json!({"field": "detail", "value": "all"})),
        (r#"{"queries":[],"bos":true}"#, json!({"field": "bos", "value": true})),
        (r#"{"queries":[],"top":70000}"#, json!({"field": "top", "value": 70000, "limit": 64})),
        (r#"{"contexts":["a"],"targets":["b"],"pairs":"some"}"#, json!({"field": "pairs", "value": "some"})),
        (r#"{"contexts":["a"],"targets":["b"],"pairs":[[0,0],[0,0,0]]}"#, json!({"field": "pairs[1]", "query": 1})),
        (r#"{"contexts":["a",{}],"targets":["b"]}"#, json!({"field": "contexts[1]"})),
        (r#"["a"]"#, json!({})),
    ] {
        assert_rejected(&server, "/logprobs", body, 400, "invalid-field", members).await;
    }
    let members = json!({"field": "prompt", "value": 7});
    assert_rejected(&server, "/tokenize", r#"{"prompt":7}"#, 400, "invalid-field", members).await;
    for path in ["/tokenize", "/v1/completions"] {
        assert_rejected(&server, path, "{}", 400, "invalid-field", json!({"field": "prompt"})).await;
        assert_rejected(&server, path, "7", 400, "invalid-field", json!({"value": 7})).await;
    }
    let members = json!({"field": "tokens[1]", "value": "b", "limit": limit});
    assert_rejected(&server, "/detokenize", r#"{"tokens":[1,"b"]}"#, 400, "invalid-field", members).await;
}

#[tokio::test]
async fn a_request_has_exactly_one_form_and_at_least_one_query() {
    let server = Server::start().await;
    let a = json!(["a"]);
    for (body, name, field) in [
        (json!({}), "missing-form", "queries"),
        (json!({"detail": "tokens"}), "missing-form", "queries"),
        (json!({"queries": [{"target": "a"}], "contexts": a}), "mixed-forms", "contexts"),
        (json!({"queries": [{"target": "a"}], "targets": a}), "mixed-forms", "targets"),
        (json!({"queries": [{"target": "a"}], "pairs": "all"}), "mixed-forms", "pairs"),
        (json!({"pairs": [[0, 0]]}), "incomplete-pairs", "contexts"),
        (json!({"targets": a, "pairs": "all"}), "incomplete-pairs", "contexts"),
        (json!({"contexts": a}), "incomplete-pairs", "targets"),
        (json!({"queries": []}), "no-queries", "queries"),
        (json!({"contexts": [], "targets": a}), "no-queries", "contexts"),
        (json!({"contexts": a, "targets": []}), "no-queries", "targets"),
        (json!({"contexts": a, "targets": a, "pairs": []}), "no-queries", "pairs"),
    ] {
        assert_rejected(&server, "/logprobs", &body.to_string(), 400, name, json!({"field": field})).await;
    }
}

#[tokio::test]
async fn each_invalid_text_is_named() {
    let server = Server::start().await;
    let query = |target: Value| json!({"queries": [{"target": "a"}, {"target": target}]});
    let matrix = |targets: Value| json!({"contexts": ["a"], "targets": targets});
    let wrong = vec![0, 0, 0, 0, 0, 0, 0, VOCABULARY];
    let ids = |field| json!({"field": field, "value": VOCABULARY, "limit": VOCABULARY});
    let ids_of = |query, field| json!({"query": query, "field": field, "value": VOCABULARY, "limit": VOCABULARY});
    for (body, name, members) in [
        (query(json!("")), "empty-target", json!({"query": 1, "field": "queries[1].target"})),
        (query(json!([])), "empty-target", json!({"query": 1, "field": "queries[1].target"})),
        (matrix(json!(["a", ""])), "empty-target", json!({"field": "targets[1]"})),
        (query(json!("a\0")), "text-not-encodable", json!({"query": 1, "field": "queries[1].target"})),
        (matrix(json!(["a\0"])), "text-not-encodable", json!({"field": "targets[0]"})),
        (json!({"contexts": ["a\0"], "targets": ["a"]}), "text-not-encodable", json!({"field": "contexts[0]"})),
        (query(json!(wrong)), "token-out-of-range", ids_of(1, "queries[1].target[7]")),
        (
            json!({"queries": [{"context": wrong, "target": "a"}]}),
            "token-out-of-range",
            ids_of(0, "queries[0].context[7]"),
        ),
        (matrix(json!(["a", "b", wrong])), "token-out-of-range", ids("targets[2][7]")),
    ] {
        assert_rejected(&server, "/logprobs", &body.to_string(), 400, name, members).await;
    }
    let members = json!({"field": "prompt"});
    assert_rejected(&server, "/tokenize", r#"{"prompt":"\u0000"}"#, 400, "text-not-encodable", members).await;
    let body = json!({"tokens": [1, VOCABULARY]}).to_string();
    assert_rejected(&server, "/detokenize", &body, 400, "token-out-of-range", ids("tokens[1]")).await;
    let body = json!({"tokens": [BOS]}).to_string();
    assert_rejected(&server, "/detokenize", &body, 400, "tokens-not-decodable", json!({"field": "tokens"})).await;
}

#[tokio::test]
async fn pairs_out_of_range_are_rejected() {
    let server = Server::start().await;
    for (pair, field, value, limit) in [([2, 0], "pairs[1][0]", 2, 2), ([0, 9], "pairs[1][1]", 9, 1)] {
        let body = json!({"contexts": ["a", "b"], "targets": ["c"], "pairs": [[1, 0], pair]}).to_string();
        let members = json!({"query": 1, "field": field, "value": value, "limit": limit});
        assert_rejected(&server, "/logprobs", &body, 400, "pair-out-of-range", members).await;
    }
}

#[tokio::test]
async fn too_long_sequences_are_rejected_not_truncated() {
    let server = Server::start().await;
    let long = vec![1_u32; MAX_LENGTH - 1];
    let body = json!({"queries": [{"target": "a"}, {"context": [1], "target": long}]}).to_string();
    let members = json!({"query": 1, "field": "queries[1]", "value": MAX_LENGTH + 1, "limit": MAX_LENGTH});
    assert_rejected(&server, "/logprobs", &body, 400, "sequence-too-long", members).await;
    let body = json!({"contexts": ["", "a"], "targets": [long]}).to_string();
    let members = json!({"query": 1, "field": "pairs[1]", "value": MAX_LENGTH + 1, "limit": MAX_LENGTH});
    assert_rejected(&server, "/logprobs", &body, 400, "sequence-too-long", members).await;
}

#[tokio::test]
async fn a_target_needs_a_token_before_it() {
    let (with, without) = (Server::start().await, Server::with_config(ServerConfig::default(), None).await);
    for (server, bos) in [(&with, "none"), (&without, "auto"), (&without, "none")] {
        let body = json!({"queries": [{"context": "", "target": "a"}], "bos": bos}).to_string();
        let members = json!({"query": 0, "field": "queries[0].context"});
        assert_rejected(server, "/logprobs", &body, 400, "nothing-given", members).await;
        let body = json!({"contexts": ["a", ""], "targets": ["a", "b"], "bos": bos}).to_string();
        let members = json!({"query": 2, "field": "contexts[1]"});
        let problem = assert_rejected(server, "/logprobs", &body, 400, "nothing-given", members).await;
        assert!(problem["detail"].as_str().unwrap().contains("give a context of at least one token"), "{problem}");
    }
}

#[tokio::test]
async fn required_bos_is_rejected_if_the_tokenizer_adds_none() {
    let server = Server::with_config(ServerConfig::default(), None).await;
    for context in ["", "a"] {
        let body = json!({"queries": [{"context": context, "target": "b"}], "bos": "always"}).to_string();
        let members = json!({"field": "bos", "value": "always"});
        let problem = assert_rejected(&server, "/logprobs", &body, 400, "no-bos", members).await;
        assert!(problem["detail"].as_str().unwrap().contains("this model's tokenizer adds no BOS"), "{problem}");
    }
}

#[tokio::test]
async fn an_unsupported_value_reports_the_supported_one() {
    let server = Server::start().await;
    for (path, body, detail) in [
        ("/v1/completions", json!({"prompt": "a", "best_of": 3}), "`best_of` is 3; it must be equal to `n`"),
        (
            "/v1/completions",
            json!({"prompt": "a", "presence_penalty": 0.1}),
            "`presence_penalty` is 0.1; it must be 0: penalties are not supported",
        ),
    ] {
        let (status, name, problem) = server.post(path, &body).await.problem();
        assert_eq!((status, name.as_str(), &problem["detail"]), (400, "not-offered", &json!(detail)));
    }
}

#[tokio::test]
async fn other_models_are_rejected() {
    let server = Server::start().await;
    for (path, body) in [
        ("/logprobs", json!({"model": "other", "queries": [{"target": "a"}]})),
        ("/tokenize", json!({"model": "other", "prompt": "a"})),
        ("/detokenize", json!({"model": "other", "tokens": [1]})),
    ] {
        let members = json!({"field": "model", "value": "other"});
        let problem = assert_rejected(&server, path, &body.to_string(), 404, "model-not-found", members).await;
        assert!(problem["detail"].as_str().unwrap().contains("letters"));
    }
}

#[tokio::test]
async fn an_oversized_request_reports_the_limit() {
    let config =
        ServerConfig { max_body_bytes: 1000, max_queries: 4, max_waiting_tokens: 100, ..ServerConfig::default() };
    let server = Server::with_config(config, Some(BOS)).await;
    let too_many = |field, value| json!({"field": field, "value": value, "limit": 4});
    let five = json!({"queries": vec![json!({"target": "a"}); 5]}).to_string();
    assert_rejected(&server, "/logprobs", &five, 413, "too-many-queries", too_many("queries", 5)).await;
    let six = json!({"contexts": ["a", "b"], "targets": ["c", "d", "e"]}).to_string();
    assert_rejected(&server, "/logprobs", &six, 413, "too-many-queries", too_many("pairs", 6)).await;
    let completions = json!({"prompt": ["a", "b"], "n": 3}).to_string();
    let members = json!({"field": "n", "value": 3, "limit": 2});
    assert_rejected(&server, "/v1/completions", &completions, 413, "too-many-queries", members).await;
    let tokens = json!({"contexts": ["", "a"], "targets": ["b".repeat(50)]}).to_string();
    assert_rejected(&server, "/logprobs", &tokens, 413, "request-too-large", json!({"value": 103, "limit": 94})).await;
    for length in [1000, 1500, 5000] {
        let body = json!({"queries": [{"target": "b".repeat(length)}]}).to_string();
        assert_rejected(&server, "/logprobs", &body, 413, "body-too-large", json!({"limit": 1000})).await;
    }
    let fits = json!({"queries": [{"target": "a"}]}).to_string();
    let padded = format!("{fits}{}", " ".repeat(1000 - fits.len()));
    assert_eq!(server.post_as("application/json", "/logprobs", padded).await.status, 200);
}

#[tokio::test]
async fn an_oversized_body_is_rejected_before_100_continue() {
    let server = Server::with_config(ServerConfig { max_body_bytes: 10, ..ServerConfig::default() }, Some(BOS)).await;
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap();
    let head = "POST /logprobs HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\
                expect: 100-continue\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn media_types_routes_and_methods_are_checked() {
    let server = Server::start().await;
    for found in ["text/plain", "application/json5", ""] {
        let (status, name, problem) = server.post_as(found, "/logprobs", "{}").await.problem();
        assert_eq!((status, name.as_str()), (415, "unsupported-media-type"));
        assert_eq!((&problem["field"], &problem["value"]), (&json!("Content-Type"), &json!(found)));
    }
    for path in ["/nothing", "/logprob", "/logprobs/", "/v1"] {
        let (status, name, _) = server.get(path).await.problem();
        assert_eq!((status, name.as_str()), (404, "route-not-found"), "{path}");
    }
    let wrong = server.get("/logprobs").await;
    assert_eq!(wrong.allow.as_deref(), Some("POST"));
    let (status, name, _) = wrong.problem();
    assert_eq!((status, name.as_str()), (405, "method-not-allowed"));
    let (status, name, _) = server.post("/health", &json!({})).await.problem();
    assert_eq!((status, name.as_str()), (405, "method-not-allowed"));
}

#[tokio::test]
async fn engine_failures_name_the_query() {
    let server = Server::start().await;
    let body = |token| json!({"queries": [{"target": "a"}, {"target": [token]}, {"target": [FAILS]}]}).to_string();
    let at = json!({"query": 1, "field": "queries[1]"});
    let problem = assert_rejected(&server, "/logprobs", &body(FAILS), 500, "backend-failed", at.clone()).await;
    assert!(problem["detail"].as_str().unwrap().contains("out of memory"));
    let problem = assert_rejected(&server, "/logprobs", &body(STOPS), 503, "engine-stopped", at).await;
    assert!(problem["detail"].as_str().unwrap().contains("until the model is reloaded"), "{problem}");
    assert_rejected(&server, "/logprobs", &body(PANICS), 500, "internal", json!({})).await;
    let infinite = json!({"queries": [{"target": [1, INFINITE]}]}).to_string();
    assert_rejected(&server, "/logprobs", &infinite, 500, "not-finite", json!({"query": 0, "value": "-inf"})).await;
    // A panic fails one request; the server continues.
    assert_eq!(server.post("/logprobs", &json!({"queries": [{"target": "a"}]})).await.status, 200);
    assert_eq!(server.metric("surprisal_admitted_tokens").await, 0.0);
}
