//! Limits on connections: their time, their rate and their number.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use surprisal_server::{App, Listeners, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::support::{BOS, ByteCodec, LetterScorer, Reply, Server, until};

/// Returns a server that closes connections after a second, whatever they wait for.
async fn impatient() -> Server {
    let heads = ServerConfig { head_seconds: 1, idle_seconds: 1, ..ServerConfig::default() };
    let config = ServerConfig { stall_seconds: 1, min_bytes_per_second: 128 << 10, ..heads };
    Server::with_config(config, Some(BOS)).await
}

fn closed(reason: &str) -> String {
    format!(r#"surprisal_closed_connections_total{{reason="{reason}"}}"#)
}

#[tokio::test]
async fn half_sent_heads_and_idle_connections_are_closed() {
    let server = impatient().await;
    for (sent, received, reason) in [
        ("GET /health HTTP/1.1\r\nhost", "", "head-timeout"),
        ("", "", "idle-timeout"),
        ("GET /health HTTP/1.1\r\nhost: a\r\n\r\n", "\r\n\r\nok\n", "idle-timeout"),
        ("GET /health HTTP/1.1\r\nhost: a\r\n\r\nGET /", "\r\n\r\nok\n", "head-timeout"),
    ] {
        let before = server.metric_or_zero(&closed(reason)).await;
        let answer = server.exchange(sent).await;
        assert!(answer.ends_with(received), "{sent:?}: {answer}");
        until(async || server.metric_or_zero(&closed(reason)).await > before).await;
    }
}

/// A request with a part of its head every 200 ms must end too.
#[tokio::test]
async fn a_trickling_head_is_closed() {
    let server = impatient().await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /health HTTP/1.1\r\n").await.unwrap();
    until(async || {
        server.metric_or_zero(&closed("head-timeout")).await == 1.0 || {
            let _ = stream.try_write(b"a: b\r\n");
            tokio::time::sleep(Duration::from_millis(200)).await;
            false
        }
    })
    .await;
}

#[tokio::test]
async fn a_trickling_body_is_rejected() {
    let server = impatient().await;
    let (mut reader, mut writer) = server.connect().await.into_split();
    let head = "POST /logprobs HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
    writer.write_all(head.as_bytes()).await.unwrap();
    let sender = tokio::spawn(async move {
        while writer.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let mut answer = vec![0; 8192];
    let length = tokio::time::timeout(Duration::from_secs(20), reader.read(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("urn:surprisal:problem:body-stalled"), "{answer}");
    assert!(answer.contains("fewer than 131072 bytes of the body arrived in 1 s"), "{answer}");
    sender.abort();
    until(async || server.metric("surprisal_admitted_requests").await == 0.0).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected() {
    let server = impatient().await;
    let mut stream = server.connect().await;
    // More responses than the buffers of both sides hold.
    let requests = "GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000);
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(requests.as_bytes())).await;
    until(async || server.metric_or_zero(&closed("write-timeout")).await == 1.0).await;
}

/// A response that nobody reads holds its request's capacity only for a while.
#[tokio::test]
async fn an_unread_response_frees_its_capacity() {
    let server = impatient().await;
    let queries: Vec<_> = (0..20_000).map(|number| json!({"target": format!("{number:05}")})).collect();
    let body = json!({"queries": queries, "detail": "tokens"}).to_string();
    let mut clients = Vec::new();
    for accept in ["application/json", "application/x-ndjson"] {
        let head = format!("POST /logprobs HTTP/1.1\r\nhost: a\r\nx-client-id: {accept}\r\naccept: {accept}\r\n");
        let length = body.len();
        let head = format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        let mut client = server.connect().await;
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(body.as_bytes()).await.unwrap();
        clients.push(client);
    }
    until(async || server.metric_or_zero(&closed("write-timeout")).await == 2.0).await;
    until(async || server.metric("surprisal_admitted_tokens").await == 0.0).await;
    assert_eq!(server.metric("surprisal_admitted_requests").await, 0.0);
}

#[tokio::test]
async fn silent_connections_make_room_and_requests_do_not() {
    let server = Server::with_config(ServerConfig { max_connections: 3, ..ServerConfig::default() }, Some(BOS)).await;
    let mut silent = [server.connect().await, server.connect().await, server.connect().await];
    // A displaced connection is closed; the others stay open.
    assert_eq!(server.get("/health").await.status, 200);
    assert_eq!(silent[0].read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(server.metric(&closed("displaced")).await, 1.0);
    assert_eq!(silent[1].try_read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);

    server.scorer.set_open(false);
    let requests: Vec<_> = (0..3).map(|_| server.spawn_logprobs(&json!({"queries": [{"target": "a"}]}))).collect();
    server.until_running(3).await;
    assert_eq!(server.exchange("GET /health HTTP/1.1\r\nhost: a\r\n\r\n").await, "", "at the connection limit");
    server.scorer.set_open(true);
    for request in requests {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(server.metric(&closed("rejected")).await, 1.0);
}

/// The admin listener responds even if requests use up the connection limit.
#[tokio::test]
async fn the_admin_listener_has_connections_of_its_own() {
    let scorer = Arc::new(LetterScorer::new());
    let config = ServerConfig { max_connections: 1, ..ServerConfig::default() };
    let app = App::new(scorer.clone(), Arc::new(ByteCodec(Some(BOS))), config);
    let [data, admin] =
        [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let [address, admin_url] = [&data, &admin].map(|listener| format!("http://{}", listener.local_addr().unwrap()));
    let (stop, stopped) = oneshot::channel();
    let listeners = Listeners::new(data).with_admin(admin);
    let running = tokio::spawn(listeners.serve(app, async move { stopped.await.unwrap_or_default() }));

    scorer.set_open(false);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("{address}/logprobs")).json(&json!({"queries": [{"target": "a"}]}));
    let request = tokio::spawn(async move { Reply::read(request.send().await.unwrap()).await });
    let get = async |path: &str| Reply::read(client.get(format!("{admin_url}{path}")).send().await.unwrap()).await;
    until(async || get("/metrics").await.text.contains("surprisal_connections 1")).await;
    for (path, status) in [("/health", 200), ("/ready", 200), ("/ping", 200), ("/v1/models", 404), ("/logprobs", 404)] {
        assert_eq!(get(path).await.status, status, "{path}");
    }
    scorer.set_open(true);
    assert_eq!(request.await.unwrap().status, 200);
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert!(TcpStream::connect(admin_url.strip_prefix("http://").unwrap()).await.is_err());
}
