//! Shutdown: requests in flight are finished, and idle connections do not delay it.

use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{Server, until};

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
