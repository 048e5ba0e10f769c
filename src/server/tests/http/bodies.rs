//! Compressed bodies: windows, memory, and discarded input.

use std::io::Write;

use serde_json::json;
use surprisal_server::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zstd::zstd_safe::CParameter;

use crate::support::{BOS, Reply, Server, until};

/// Compresses a text to a zstd frame with this window, which does not state its content's size.
fn zstd_frame(text: &[u8], window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.set_parameter(CParameter::WindowLog(window_log)).unwrap();
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

async fn send(server: &Server, encoding: &str, body: Vec<u8>) -> Reply {
    let request = server.client.post(format!("{}/logprobs", server.url)).header("content-type", "application/json");
    Reply::read(request.header("content-encoding", encoding).body(body).send().await.unwrap()).await
}

/// Begins a request and sends a part of its body.
async fn begin(server: &Server, encoding: &str, part: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap();
    let head = "POST /logprobs HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9000000\r\n";
    stream.write_all(format!("{head}content-encoding: {encoding}\r\n\r\n").as_bytes()).await.unwrap();
    stream.write_all(part).await.unwrap();
    stream
}

#[tokio::test]
async fn a_zstd_window_may_have_eight_mebibytes() {
    let server = Server::start().await;
    let body = json!({"queries": [{"context": "It was", "target": " a dark night"}]}).to_string();
    let expected = server.post_as("application/json", "/logprobs", body.as_str()).await.text;
    assert_eq!(send(&server, "zstd", zstd_frame(body.as_bytes(), 23)).await.text, expected);
    let (status, name, problem) = send(&server, "zstd", zstd_frame(body.as_bytes(), 24)).await.problem();
    assert_eq!((status, name.as_str(), &problem["limit"]), (400, "body-unreadable", &json!(8 << 20)), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("window"), "{problem}");
}

#[tokio::test]
async fn several_frames_are_one_body_and_a_missing_end_is_an_error() {
    let server = Server::start().await;
    let body = json!({"queries": [{"context": "It was", "target": " a dark night"}]}).to_string();
    let expected = server.post_as("application/json", "/logprobs", body.as_str()).await.text;
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 1).unwrap();
    let (first, second) = body.split_at(20);
    assert_eq!(send(&server, "gzip", [gzip(first), gzip(second)].concat()).await.text, expected);
    assert_eq!(send(&server, "ZSTD", [zstd(first), zstd(second)].concat()).await.text, expected);
    for (encoding, whole) in [("gzip", gzip(&body)), ("zstd", zstd(&body))] {
        let problem = send(&server, encoding, whole[..whole.len() - 5].to_vec()).await.problem();
        assert_eq!((problem.0, problem.1.as_str()), (400, "body-unreadable"), "{encoding}: {problem:?}");
        assert_eq!(send(&server, encoding, Vec::new()).await.problem().1, "invalid-json", "{encoding}");
    }
}

/// A small part of a body may make its decoder allocate a large window.
#[tokio::test]
async fn the_memory_of_a_decoder_counts_while_its_body_is_read() {
    let server = Server::start().await;
    let frame = zstd_frame(&vec![b' '; 9 << 20], 23);
    assert!(frame.len() < 4096, "{}", frame.len());
    let held = async || server.metric("surprisal_admitted_body_bytes").await;
    let stalled = begin(&server, "zstd", &frame[..16]).await;
    until(async || held().await >= f64::from(8 << 20)).await;
    drop(stalled);
    until(async || held().await == 0.0).await;
}

/// The body expands beyond its limit while the client is still sending, and the client does not close the connection.
#[tokio::test]
async fn nothing_is_held_or_decoded_after_a_failure() {
    let config = ServerConfig { max_body_bytes: 1 << 20, ..ServerConfig::default() };
    let server = Server::with_config(config, Some(BOS)).await;
    let fits = zstd_frame(&vec![b' '; 1 << 20], 20);
    let mut failed = begin(&server, "zstd", &fits).await;
    let held = async || server.metric("surprisal_admitted_body_bytes").await;
    until(async || held().await > f64::from(1 << 20)).await;
    failed.write_all(&fits).await.unwrap();
    until(async || held().await == 0.0).await;
    assert_eq!(server.metric("surprisal_admitted_requests").await, 1.0, "the server still reads the body");
    // The problem is that of the first failure, although these bytes are no zstd frame. The server responds once it has
    // read twice the limit.
    failed.write_all(&vec![b' '; 2 << 20]).await.unwrap();
    let mut answer = vec![0; 8192];
    let length = failed.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body-too-large"), "{answer}");
    assert_eq!(held().await, 0.0);
}
