//! Shutdown: requests in flight are finished, and clients that are idle, slow or silent do not delay it.

use std::time::Duration;

use serde_json::json;
use surprisal_server::ServerConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{BOS, Server, until};

#[tokio::test]
async fn shutdown_finishes_requests_in_flight() {
    let server = Server::start().await;
    server.scorer.set_open(false);
    let begun = server.spawn_logprobs(&json!({"queries": [{"target": "abc"}]}));
    server.until_running(1).await;
    assert_eq!(server.get("/ready").await.status, 200);

    let (scorer, client, url) = (server.scorer.clone(), server.client.clone(), server.url.clone());
    let address = url.strip_prefix("http://").unwrap().to_owned();
    let stopped = server.stop();
    until(async || client.get(format!("{url}/ready")).send().await.unwrap().status() == 503).await;
    assert_eq!(client.get(format!("{url}/health")).send().await.unwrap().status(), 200);
    let late =
        client.post(format!("{url}/logprobs")).json(&json!({"queries": [{"target": "a"}]})).send().await.unwrap();
    assert_eq!(late.headers()["retry-after"], "1");
    assert_eq!(late.status(), 503);
    assert!(late.text().await.unwrap().contains("urn:surprisal:problem:shutting-down"));
    assert!(!stopped.is_finished());

    scorer.set_open(true);
    let answer = begun.await.unwrap();
    assert_eq!((answer.status, &answer.json()["results"][0]["tokens"]), (200, &json!(3)));
    stopped.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn idle_connections_do_not_delay_shutdown() {
    let server = Server::start().await;
    let _silent = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap();
    assert_eq!(server.get("/health").await.status, 200);
    let keeps_alive = server.client.clone();
    server.stop().await.unwrap().unwrap();
    drop(keeps_alive);
}

/// Waits for a server to stop, for less than any of the default timeouts that a client could exploit.
async fn stopped(server: Server) {
    tokio::time::timeout(Duration::from_secs(9), server.stop())
        .await
        .expect("the server stops in time")
        .unwrap()
        .unwrap();
}

/// Without a request in flight, there is nothing to wait for.
#[tokio::test]
async fn half_sent_heads_do_not_delay_shutdown() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for sent in ["", "GET /hea", "GET /health HTTP/1.1\r\nhost: a\r\n\r\nGET /"] {
        let mut client = server.connect().await;
        client.write_all(sent.as_bytes()).await.unwrap();
        clients.push(client);
    }
    until(async || server.metric("surprisal_connections").await == 4.0).await;
    stopped(server).await;
}

#[tokio::test]
async fn shutdown_ends_with_the_drain_whatever_clients_do() {
    let config = ServerConfig { drain_seconds: 1, ..ServerConfig::default() };
    let server = Server::with_config(config, Some(BOS)).await;
    let head = "POST /logprobs HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    let query = r#"{"queries": [{"target": "abc"}]}"#;
    server.scorer.set_open(false);
    let mut clients = Vec::new();
    for sent in [
        // A body that never ends, an unanswered request, a stream without results, and responses that nobody reads.
        format!("{head}content-length: 100\r\n\r\n{{"),
        format!("{head}content-length: {}\r\n\r\n{query}", query.len()),
        format!("{head}accept: application/x-ndjson\r\ncontent-length: {}\r\n\r\n{query}", query.len()),
        "GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000),
    ] {
        let mut client = server.connect().await;
        let _ = tokio::time::timeout(Duration::from_millis(200), client.write_all(sent.as_bytes())).await;
        clients.push(client);
    }
    until(async || server.metric("surprisal_admitted_requests").await == 3.0).await;
    server.until_running(2).await;
    stopped(server).await;
}
