//! API keys: the clients that are accepted, and the routes that stay open.

use serde_json::json;
use surprisal_server::{ApiKeys, KeyRing};

use crate::support::Server;

#[tokio::test]
async fn work_needs_a_key_and_probes_do_not() {
    let server = Server::with_keys(ApiKeys::parse("# people\nfirst\n\n  second \n")).await;
    let body = json!({"queries": [{"target": "a"}], "prompt": "a"});
    for path in
        ["/logprobs", "/v1/completions", "/tokenize", "/detokenize", "/lm-eval/v1/completions", "/lm-eval/tokenize"]
    {
        for header in [None, Some("Bearer third"), Some("Bearer "), Some("Bearer"), Some("Basic first"), Some("first")]
        {
            let request = server.client.post(format!("{}{path}", server.url)).json(&body);
            let request = header.into_iter().fold(request, |request, value| request.header("authorization", value));
            let response = request.send().await.unwrap();
            assert_eq!((response.status().as_u16(), &response.headers()["www-authenticate"] == "Bearer"), (401, true));
            let text = response.text().await.unwrap();
            assert!(text.contains("urn:surprisal:problem:unauthorized"), "{text}");
            assert!(!text.contains("third"), "the response must not repeat the key: {text}");
        }
    }
    for header in ["Bearer first", "Bearer second", "bearer second"] {
        let request = server.client.post(format!("{}/logprobs", server.url)).header("authorization", header);
        let status = request.json(&json!({"queries": [{"target": "a"}]})).send().await.unwrap().status();
        assert_eq!(status, 200, "{header}");
    }
    // The problem also reaches a client that sends much more than fits into buffers.
    let (status, answer) = server.send_whole("application/json", "/logprobs", &"x".repeat(8 << 20)).await;
    assert!(status == 401 && answer.contains("urn:surprisal:problem:unauthorized"), "{answer}");
    for path in ["/health", "/ready", "/metrics", "/v1/models"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
}

#[test]
fn an_invalid_line_is_found() {
    for (lines, wrong) in [
        ("# two people\nfirst\n\n  second \t\r\n", None),
        ("first\n# alice\nsecond  # alice", Some(3)),
        ("fi\trst\nsec ond", Some(1)),
        ("\u{feff}first\r\nsecond\r\n", None),
        ("first\n\u{feff}second", None),
        ("first\n\0", Some(2)),
        ("first\nsec\u{feff}ond", Some(2)),
        ("first min_priority=-5\nsecond\tmin_priority=7\nthird min_priority=x", Some(3)),
        ("first min_priority=-5 second", Some(1)),
    ] {
        assert_eq!(ApiKeys::invalid_line(lines), wrong, "{lines:?}");
    }
}

#[test]
fn keys_are_not_printed() {
    assert_eq!(format!("{:?}", ApiKeys::parse("first\nsecond")), "ApiKeys(2)");
}

#[tokio::test]
async fn a_byte_order_mark_is_no_part_of_a_key() {
    let server = Server::with_keys(ApiKeys::parse("\u{feff}first\r\n")).await;
    assert_eq!(status(&server, "first").await, 200);
}

#[tokio::test]
async fn keys_are_replaced_while_the_server_runs() {
    let keys = KeyRing::from(ApiKeys::parse("old"));
    let server = Server::with_keys(keys.clone()).await;
    assert_eq!((status(&server, "old").await, status(&server, "new").await), (200, 401));
    keys.replace(ApiKeys::parse("new"));
    assert_eq!((status(&server, "old").await, status(&server, "new").await), (401, 200));
}

/// Returns the status of a request with this key.
async fn status(server: &Server, key: &str) -> u16 {
    let request = server.client.post(format!("{}/logprobs", server.url)).bearer_auth(key);
    request.json(&json!({"queries": [{"target": "a"}]})).send().await.unwrap().status().as_u16()
}
