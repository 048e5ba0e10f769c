//! A full server: the requests that it admits, those that it rejects unread, and its recovery.

use serde_json::json;
use surprisal_engine::Scorer;
use surprisal_server::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{BOS, Reply, Server, until};

/// Starts a server that admits at most ten tokens.
async fn small() -> Server {
    Server::with_config(ServerConfig { max_waiting_tokens: 10, ..ServerConfig::default() }, Some(BOS)).await
}

#[tokio::test]
async fn a_full_server_sends_retry_after_and_recovers() {
    let server = small().await;
    server.scorer.set_open(false);
    let request = json!({"queries": [{"target": "abc"}, {"target": "d"}]});
    let first = server.spawn_logprobs(&request);
    server.until_running(2).await;
    assert_eq!(server.metric("surprisal_admitted_tokens").await, 6.0);

    let rejected = server.post("/logprobs", &request).await;
    assert_eq!(rejected.retry_after.as_deref(), Some("1"));
    let (status, name, problem) = rejected.problem();
    assert_eq!((status, name.as_str()), (429, "overloaded"));
    assert_eq!((&problem["value"], &problem["limit"]), (&json!(6), &json!(10)));

    // A client may hold at most twice the tokens that it leaves free, so this one may take no more.
    let small = json!({"queries": [{"target": "efg"}]});
    let rejected = server.post("/logprobs", &small).await;
    assert!(rejected.problem().2["detail"].as_str().unwrap().contains("for other clients"), "{rejected:?}");
    let smaller = json!({"queries": [{"target": "ef"}]});
    let other = server.client.post(format!("{}/logprobs", server.url)).header("x-client-id", "other").json(&smaller);
    let second = tokio::spawn(async move { Reply::read(other.send().await.unwrap()).await });
    server.until_running(3).await;
    server.scorer.set_open(true);
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(second.await.unwrap().status, 200);
    assert_eq!(server.post("/logprobs", &request).await.status, 200);
    assert_eq!(server.metric("surprisal_admitted_tokens").await, 0.0);
}

/// A client that may not take a single token is rejected before its request is read; other routes still respond.
#[tokio::test]
async fn a_full_server_rejects_requests_unread() {
    let server = small().await;
    server.scorer.set_open(false);
    let first = server.spawn_logprobs(&json!({"queries": [{"target": "abcdefghi"}]}));
    server.until_running(1).await;
    for path in ["/logprobs", "/v1/completions", "/generate"] {
        let (status, name, problem) = server.post_as("text/plain", path, "no JSON").await.problem();
        assert_eq!((status, name.as_str(), &problem["value"]), (429, "overloaded", &json!(10)), "{path}");
    }
    // A client that sends much more than fits into buffers also sees the problem, and may send another request over the
    // same connection.
    let much = "x".repeat(8 << 20);
    assert_eq!(server.post_as("application/json", "/logprobs", much.clone()).await.problem().0, 429);
    assert_eq!(server.post("/tokenize", &json!({"prompt": "ab"})).await.status, 200, "needs no token capacity");
    server.scorer.set_open(true);
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(server.send_whole("text/plain", "/logprobs", &much).await.0, 415);
}

#[tokio::test]
async fn requests_in_flight_are_limited_before_they_are_read() {
    let server =
        Server::with_config(ServerConfig { max_waiting_requests: 3, ..ServerConfig::default() }, Some(BOS)).await;
    server.scorer.set_open(false);
    let request = json!({"queries": [{"target": "a"}]});
    let mut waiting = Vec::new();
    for count in 1..=2 {
        waiting.push(server.spawn_logprobs(&request));
        server.until_running(count).await;
    }
    assert_eq!(server.metric("surprisal_admitted_requests").await, 2.0);
    let rejected = server.post_as("text/plain", "/logprobs", "no JSON").await;
    assert!(rejected.problem().2["detail"].as_str().unwrap().contains("2 of 3 requests"), "{rejected:?}");
    let other = |body: &serde_json::Value| {
        server.client.post(format!("{}/logprobs", server.url)).header("x-client-id", "other").json(body)
    };
    let last = tokio::spawn({
        let last = other(&request);
        async move { Reply::read(last.send().await.unwrap()).await }
    });
    server.until_running(3).await;
    let rejected = Reply::read(other(&request).send().await.unwrap()).await;
    assert_eq!((rejected.status, &rejected.problem().2["limit"]), (429, &json!(3)));
    server.scorer.set_open(true);
    for waiting in waiting.into_iter().chain([last]) {
        assert_eq!(waiting.await.unwrap().status, 200);
    }
    until(async || server.metric("surprisal_admitted_requests").await == 0.0).await;
}

/// Many small queries take memory although they have few tokens, so their number is limited, too.
#[tokio::test]
async fn queries_in_flight_are_limited() {
    let config = ServerConfig { max_queries: 4, max_waiting_queries: 6, ..ServerConfig::default() };
    let server = Server::with_config(config, Some(BOS)).await;
    server.scorer.set_open(false);
    let pairs = json!({"contexts": ["a", "b"], "targets": ["c", "d"]});
    let first = server.spawn_logprobs(&pairs);
    server.until_running(4).await;
    assert_eq!(server.metric("surprisal_admitted_queries").await, 4.0);
    for (path, body) in [
        ("/logprobs", pairs.clone()),
        ("/v1/completions", json!({"prompt": "a", "n": 2})),
        ("/generate", json!({"text": ["a", "b"]})),
    ] {
        let (status, name, problem) = server.post(path, &body).await.problem();
        assert_eq!((status, name.as_str(), &problem["limit"]), (429, "overloaded", &json!(6)), "{path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("4 of 6 queries"), "{path}: {problem}");
    }
    let other = server.client.post(format!("{}/logprobs", server.url)).header("x-client-id", "other");
    let other = other.json(&json!({"queries": [{"target": "a"}, {"target": "b"}]}));
    let second = tokio::spawn(async move { Reply::read(other.send().await.unwrap()).await });
    server.until_running(6).await;
    // The limit leaves nothing, so requests are rejected before they are read.
    assert_eq!(server.post_as("text/plain", "/logprobs", "no JSON").await.problem().0, 429);
    server.scorer.set_open(true);
    assert_eq!((first.await.unwrap().status, second.await.unwrap().status), (200, 200));
    until(async || server.metric("surprisal_admitted_queries").await == 0.0).await;
}

/// Bodies count toward the limit while the server reads them. A body that does not fit is rejected, and none of it is
/// kept.
#[tokio::test]
async fn body_bytes_are_limited_in_total() {
    let config = ServerConfig { max_body_bytes: 1000, max_waiting_body_bytes: 10, ..ServerConfig::default() };
    let server = Server::with_config(config, Some(BOS)).await;
    let held = async || server.metric("surprisal_admitted_body_bytes").await;
    let body = format!("{:<1000}", r#"{"queries": [{"target": "a"}]}"#);
    let begin = async |client: &str| {
        let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap();
        let head = "POST /logprobs HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n";
        let head = format!("{head}x-client-id: {client}\r\ncontent-length: 1000\r\n\r\n");
        stream.write_all(format!("{head}{}", &body[..900]).as_bytes()).await.unwrap();
        stream
    };
    let slow = [begin("one").await, begin("two").await, begin("three").await];
    until(async || held().await == 2700.0).await;

    let whole = |length: usize| {
        let request = server.client.post(format!("{}/logprobs", server.url)).header("x-client-id", "four");
        request.header("content-type", "application/json").body(body[..length].to_owned())
    };
    let (status, name, problem) = Reply::read(whole(900).send().await.unwrap()).await.problem();
    assert_eq!((status, name.as_str()), (429, "overloaded"));
    assert_eq!((&problem["value"], &problem["limit"]), (&json!(2700), &json!(4000)), "four bodies of the maximum size");
    assert!(problem["detail"].as_str().unwrap().contains("body bytes"), "{problem}");
    assert_eq!(Reply::read(whole(100).send().await.unwrap()).await.status, 200);

    for mut stream in slow {
        stream.write_all(&body.as_bytes()[900..]).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    until(async || held().await == 0.0).await;
}

#[tokio::test]
async fn a_disconnected_client_frees_its_capacity() {
    let server = small().await;
    server.scorer.set_open(false);
    let request = json!({"queries": [{"target": "abcd"}, {"target": "efgh"}]});
    let gone = server.spawn_logprobs(&request);
    server.until_running(2).await;
    gone.abort();
    server.until_running(0).await;
    assert_eq!(server.scorer.stats().cancelled_queries, 2);
    until(async || server.metric("surprisal_admitted_tokens").await == 0.0).await;
    let counted = r#"surprisal_http_requests_total{route="/logprobs",status="499"}"#;
    assert_eq!(server.metric(counted).await, 1.0);

    let next = server.spawn_logprobs(&request);
    server.until_running(2).await;
    server.scorer.set_open(true);
    assert_eq!(next.await.unwrap().status, 200);
}

#[tokio::test]
async fn the_first_failure_cancels_the_rest() {
    let server = small().await;
    server.scorer.set_open(false);
    let failing = server
        .spawn_logprobs(&json!({"queries": [{"target": [crate::support::FAILS]}, {"target": "a"}, {"target": "b"}]}));
    server.until_running(3).await;
    server.scorer.open_for_failures();
    assert_eq!(failing.await.unwrap().problem().1, "backend-failed");
    server.until_running(0).await;
    let stats = server.scorer.stats();
    assert_eq!((stats.finished_queries, stats.cancelled_queries), (1, 2));
}
