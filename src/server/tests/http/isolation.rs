//! Separation of the prefix cache by API key and salt: no client learns from its responses what others asked.

use std::sync::Arc;

use serde_json::{Value, json};
use surprisal_engine::Engine;
use surprisal_server::{ApiKeys, ServerConfig};

use crate::support::stepped::stepped_engine;
use crate::support::{BOS, Reply, Server};

/// A text that one client sends, of more than one block of tokens.
const SECRET: &str = "My PIN is 7391, and do not tell anyone else";

/// Starts a server that requires the keys `alice` and `bob`, or none.
async fn server(with_keys: bool, share_cache: bool) -> Server<Engine> {
    let (engine, step, _) = stepped_engine();
    drop(step);
    let keys = if with_keys { ApiKeys::parse("alice\nbob") } else { ApiKeys::default() };
    let config = ServerConfig { share_cache, ..ServerConfig::default() };
    Server::with_scorer(Arc::new(engine), config, Some(BOS), keys).await
}

/// Sends a request and returns the response without its identifiers.
async fn send(server: &Server<Engine>, client: &str, path: &str, mut body: Value, salt: Option<&str>) -> Value {
    if let Some(salt) = salt {
        body["cache_salt"] = salt.into();
    }
    let request = server.client.post(format!("{}{path}", server.url)).bearer_auth(client);
    let reply = Reply::read(request.header("x-client-id", client).json(&body).send().await.unwrap()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// A route, a request for the log-probabilities of a text, and the paths of these and of the number of cached tokens.
type Route = (&'static str, fn(&str) -> Value, &'static str, &'static str);

const ROUTES: [Route; 3] = [
    (
        "/logprobs",
        |text| json!({"queries": [{"target": text}], "detail": "tokens"}),
        "/results/0/logprobs",
        "/results/0/cached_tokens",
    ),
    (
        "/v1/completions",
        |text| json!({"prompt": text, "max_tokens": 0, "echo": true, "logprobs": 0}),
        "/choices/0/logprobs/token_logprobs",
        "/usage/prompt_tokens_details/cached_tokens",
    ),
    (
        "/generate",
        |text| json!({"text": text, "return_logprob": true, "logprob_start_len": 0, "sampling_params": {"max_new_tokens": 0}}),
        "/meta_info/input_token_logprobs",
        "/meta_info/cached_tokens",
    ),
];

/// Asks for the secret as one client, then as another. Returns whether the second one found any tokens in the cache.
/// The log-probabilities must be the same.
async fn is_found(
    server: &Server<Engine>,
    route: Route,
    first: (&str, Option<&str>),
    then: (&str, Option<&str>),
) -> bool {
    let (path, body, logprobs, cached) = route;
    let one = send(server, first.0, path, body(SECRET), first.1).await;
    let other = send(server, then.0, path, body(SECRET), then.1).await;
    assert!(one.pointer(logprobs).is_some_and(|logprobs| logprobs.as_array().unwrap().len() >= SECRET.len()), "{one}");
    assert_eq!(one.pointer(logprobs), other.pointer(logprobs), "{path}");
    other.pointer(cached).unwrap().as_u64().unwrap() > 0
}

#[tokio::test]
async fn keys_share_the_cache_only_if_the_server_says_so() {
    for route in ROUTES {
        let separate = server(true, false).await;
        assert!(!is_found(&separate, route, ("alice", None), ("bob", None)).await, "{}", route.0);
        assert!(is_found(&separate, route, ("alice", None), ("alice", None)).await, "{}", route.0);
        let shared = server(true, true).await;
        assert!(is_found(&shared, route, ("alice", None), ("bob", None)).await, "{}", route.0);
        // Without keys, a client's name is no secret.
        let open = server(false, false).await;
        assert!(is_found(&open, route, ("alice", None), ("bob", None)).await, "{}", route.0);
    }
}

#[tokio::test]
async fn a_salt_separates_the_cache() {
    for route in ROUTES {
        for share_cache in [false, true] {
            let open = server(false, share_cache).await;
            assert!(!is_found(&open, route, ("alice", None), ("alice", Some("salt"))).await, "{}", route.0);
            assert!(!is_found(&open, route, ("alice", Some("one")), ("alice", Some("two"))).await, "{}", route.0);
            assert!(is_found(&open, route, ("alice", Some("one")), ("bob", Some("one"))).await, "{}", route.0);
        }
        let keyed = server(true, false).await;
        assert!(!is_found(&keyed, route, ("alice", Some("one")), ("bob", Some("one"))).await, "{}", route.0);
    }
}

/// Completes another client's text by guesses, as a shared cache would permit: returns the number of cached tokens of
/// each guess.
async fn guess_pin(server: &Server<Engine>) -> Vec<u64> {
    let mut cached = Vec::new();
    for digit in '0'..='9' {
        let body = json!({"prompt": format!("My PIN is {digit}"), "max_tokens": 0, "echo": true, "logprobs": 0});
        let reply = send(server, "bob", "/v1/completions", body, None).await;
        cached.push(reply["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap());
    }
    cached
}

#[tokio::test]
async fn no_guess_of_anothers_text_is_confirmed() {
    let unused = server(true, false).await;
    let used = server(true, false).await;
    for route in ROUTES {
        send(&used, "alice", route.0, route.1(SECRET), None).await;
    }
    assert_eq!(guess_pin(&used).await, guess_pin(&unused).await);
    // This is what the attack would find.
    let shared = server(true, true).await;
    send(&shared, "alice", "/logprobs", ROUTES[0].1(SECRET), None).await;
    assert_ne!(guess_pin(&shared).await, guess_pin(&unused).await);
}

#[tokio::test]
async fn a_salt_out_of_range_is_rejected_and_not_repeated() {
    let server = Server::start().await;
    let long = "s".repeat(129);
    for (path, body) in [
        ("/logprobs", json!({"queries": [{"target": "a"}]})),
        ("/v1/completions", json!({"prompt": "a", "max_tokens": 1})),
        ("/generate", json!({"text": "a"})),
    ] {
        let with = |salt: Value| {
            let mut body = body.clone();
            body["cache_salt"] = salt;
            body
        };
        for salt in [json!(long), json!(["s"]), json!("")] {
            let reply = server.post(path, &with(salt.clone())).await;
            // SGLang's clients send an empty salt for none.
            if path == "/generate" && salt == "" {
                assert_eq!(reply.status, 200);
                continue;
            }
            let (status, _, problem) = reply.problem();
            assert_eq!((status, &problem["field"]), (400, &json!("cache_salt")), "{path}: {problem}");
            assert!(!problem.to_string().contains("sss"), "{problem}");
        }
        for salt in [json!(null), json!("é".repeat(128)), json!("a/b@c")] {
            assert_eq!(server.post(path, &with(salt)).await.status, 200, "{path}");
        }
    }
}
