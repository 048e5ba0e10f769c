//! Streamed responses, deadlines, and compressed bodies of requests and responses.

use std::convert::Infallible;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use futures_util::stream::once;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use surprisal_api::{LogprobsResponse, StreamLine};
use surprisal_engine::Scorer;
use surprisal_server::{App, ServerConfig, router};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep};

use crate::support::{BOS, ByteCodec, FAILS, LetterScorer, PANICS, Reply, Server, until};

async fn lines(server: &Server, body: &Value) -> Vec<StreamLine> {
    let request = server.client.post(format!("{}/logprobs", server.url)).json(body);
    let reply = Reply::read(request.header("accept", "application/x-ndjson").send().await.unwrap()).await;
    assert_eq!((reply.status, reply.content_type.as_str()), (200, "application/x-ndjson"), "{reply:?}");
    assert!(reply.text.ends_with('\n'));
    reply.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_stream_matches_the_json_response() {
    let server = Server::start().await;
    let body = json!({"contexts": ["ab", "c"], "targets": ["x", "yz", [1, 2]], "detail": "tokens"});
    let whole: LogprobsResponse = serde_json::from_str(&server.post("/logprobs", &body).await.text).unwrap();
    let mut lines = lines(&server, &body).await;
    let LogprobsResponse { model, fingerprint, results, usage } = whole;
    assert_eq!(lines.pop(), Some(StreamLine::End { model, fingerprint, usage }));
    lines.sort_by_key(|line| if let StreamLine::Result { index, .. } = line { *index } else { usize::MAX });
    let expected: Vec<_> =
        results.into_iter().enumerate().map(|(index, result)| StreamLine::Result { index, result }).collect();
    assert_eq!(lines, expected);
    assert_eq!(server.metric("surprisal_request_success_total").await, 2.0);
}

#[tokio::test]
async fn a_failure_after_the_first_byte_is_the_last_line() {
    let server = Server::start().await;
    let lines = lines(&server, &json!({"queries": [{"target": [FAILS]}]})).await;
    let [StreamLine::Problem(problem)] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((problem.status, problem.kind.as_str()), (500, "urn:surprisal:problem:backend-failed"));
    assert_eq!(server.metric(r#"surprisal_problems_total{type="backend-failed"}"#).await, 1.0);
}

/// A panic ends the stream early, so that the client does not wait forever.
#[tokio::test]
async fn a_panic_ends_a_stream() {
    let server = Server::start().await;
    let request = server.client.post(format!("{}/logprobs", server.url)).header("accept", "application/x-ndjson");
    let reply = request.json(&json!({"queries": [{"target": [PANICS]}]})).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    assert!(reply.text().await.is_err_and(|error| !error.is_timeout()));
    until(async || server.metric("surprisal_admitted_tokens").await == 0.0).await;
    until(async || server.metric("surprisal_admitted_requests").await == 0.0).await;
}

#[tokio::test]
async fn a_disconnected_reader_frees_its_capacity() {
    let server = Server::start().await;
    server.scorer.set_open(false);
    let request = server.client.post(format!("{}/logprobs", server.url)).header("accept", "application/x-ndjson");
    let reading = request.json(&json!({"queries": [{"target": "a"}, {"target": "b"}]})).send().await.unwrap();
    server.until_running(2).await;
    drop(reading);
    server.until_running(0).await;
    assert_eq!(server.scorer.stats().cancelled_queries, 2);
    until(async || server.metric("surprisal_admitted_tokens").await == 0.0).await;
    assert_eq!(server.metric("surprisal_streams_abandoned_total").await, 1.0);
}

/// A client that reads nothing until the deadline loses its capacity then, and receives the last line when it continues
/// to read.
#[tokio::test]
async fn a_stalled_reader_receives_the_last_line_after_the_deadline() {
    let patient = ServerConfig { stall_seconds: 3600, idle_seconds: 3600, ..ServerConfig::default() };
    let config = ServerConfig { max_request_seconds: 1, ..patient };
    let server = Server::with_config(config, Some(BOS)).await;
    let body =
        json!({"contexts": ["a"], "targets": vec!["x".repeat(60); 500], "detail": "tokens", "top": 64}).to_string();
    let socket = TcpSocket::new_v4().unwrap();
    // Only a little of the response's 20 MB fits into the socket's buffer.
    socket.set_recv_buffer_size(4096).unwrap();
    let address = server.url.strip_prefix("http://").unwrap().parse().unwrap();
    let mut stalled = socket.connect(address).await.unwrap();
    let head = "POST /logprobs HTTP/1.1\r\nhost: a\r\naccept: application/x-ndjson\r\ncontent-type: application/json";
    let request = format!("{head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stalled.write_all(request.as_bytes()).await.unwrap();
    until(async || server.metric("surprisal_admitted_tokens").await > 0.0).await;
    until(async || server.metric("surprisal_admitted_tokens").await == 0.0).await;
    assert_eq!(server.metric("surprisal_admitted_requests").await, 1.0);

    let mut answer = String::new();
    stalled.read_to_string(&mut answer).await.unwrap();
    let last = answer.lines().rfind(|line| line.starts_with('{')).unwrap();
    let last: StreamLine = serde_json::from_str(last).unwrap();
    assert!(matches!(&last, StreamLine::Problem(problem) if problem.status == 504), "{last:?}");
    until(async || server.metric("surprisal_admitted_requests").await == 0.0).await;
}

/// The deadline counts from the head of the request, even if its body arrives late. The time is virtual.
#[tokio::test(start_paused = true)]
async fn a_stream_has_the_deadline_of_its_request() {
    let scorer = Arc::new(LetterScorer::new());
    scorer.set_open(false);
    let config = ServerConfig { max_request_seconds: 10, ..ServerConfig::default() };
    let service = TowerToHyperService::new(router(App::new(scorer, Arc::new(ByteCodec(Some(BOS))), config)));
    let late = once(async {
        sleep(Duration::from_secs(7)).await;
        Ok::<_, Infallible>(r#"{"queries": [{"target": "a"}]}"#)
    });
    let request = Request::post("/logprobs").header("host", "a").header("accept", "application/x-ndjson");
    let request = request.header("content-type", "application/json").body(Body::from_stream(late)).unwrap();
    let start = Instant::now();
    let response = service.call(request).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 7);
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains("deadline-exceeded"), "{bytes:?}");
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn a_request_past_its_deadline_times_out() {
    let config = ServerConfig { max_request_seconds: 1, ..ServerConfig::default() };
    let server = Server::with_config(config, Some(BOS)).await;
    server.scorer.set_open(false);
    let (status, name, problem) = server.post("/logprobs", &json!({"queries": [{"target": "a"}]})).await.problem();
    assert_eq!((status, name.as_str(), &problem["limit"]), (504, "deadline-exceeded", &json!(1)));
    server.until_running(0).await;
    let late = lines(&server, &json!({"queries": [{"target": "a"}]})).await;
    assert!(matches!(late.as_slice(), [StreamLine::Problem(problem)] if problem.status == 504), "{late:?}");
    assert_eq!(server.scorer.stats().cancelled_queries, 2);
}

#[tokio::test]
async fn requests_and_responses_may_be_compressed() {
    let server = Server::start().await;
    let body = json!({"queries": [{"context": "It was", "target": " a dark night"}]}).to_string();
    let plain = server.post_as("application/json", "/logprobs", body.as_str()).await.text;
    let send = async |name: &str, bytes: Vec<u8>| {
        let request = server.client.post(format!("{}/logprobs", server.url)).header("content-type", "application/json");
        request.header("content-encoding", name).body(bytes).send().await.unwrap()
    };
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(Reply::read(send("gzip", gzip(&body)).await).await.text, plain);
    assert_eq!(Reply::read(send("zstd", zstd::encode_all(body.as_bytes(), 1).unwrap()).await).await.text, plain);
    let reply = Reply::read(send("br", body.clone().into_bytes()).await).await;
    assert_eq!(reply.problem().1, "unsupported-encoding");
    assert_eq!(Reply::read(send("gzip", body.clone().into_bytes()).await).await.problem().1, "body-unreadable");

    // A response that fits into a packet is not compressed.
    for (queries, encoding) in [(1, None), (40, Some("zstd"))] {
        let body = json!({"queries": vec![json!({"context": "It was", "target": " a dark night"}); queries]});
        let plain = server.post("/logprobs", &body).await.text;
        let request = server.client.post(format!("{}/logprobs", server.url)).header("accept-encoding", "zstd");
        let reply = request.json(&body).send().await.unwrap();
        let found = reply.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(found.as_deref(), encoding);
        let bytes = reply.bytes().await.unwrap();
        let text = if encoding.is_some() { zstd::decode_all(&*bytes).unwrap() } else { bytes.to_vec() };
        assert_eq!(text, plain.as_bytes());
    }
}

/// A compressor reads a response that is written in parts.
#[tokio::test]
async fn a_response_in_parts_may_be_compressed() {
    let server = Server::start().await;
    let query = json!({"context": "It was", "target": " a dark night"});
    let body = json!({"queries": vec![query; 2000], "detail": "tokens"});
    let send = async |accept: &str, encoding: &str| {
        let request = server.client.post(format!("{}/logprobs", server.url)).json(&body).header("accept", accept);
        let reply = request.header("accept-encoding", encoding).send().await.unwrap();
        let found = reply.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(found.as_deref().unwrap_or("identity"), encoding, "{accept}");
        reply.bytes().await.unwrap()
    };
    for accept in ["application/json", "application/x-ndjson"] {
        let plain = send(accept, "identity").await;
        assert!(plain.len() > 64 * 1024, "{accept}: {} bytes", plain.len());
        let mut gzip = Vec::new();
        let encoded = send(accept, "gzip").await;
        flate2::read::GzDecoder::new(&*encoded).read_to_end(&mut gzip).unwrap();
        let zstd = zstd::decode_all(&*send(accept, "zstd").await).unwrap();
        // The lines of a stream come in the order in which the results are ready.
        let lines = |bytes: &[u8]| {
            let mut lines: Vec<_> = bytes.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
            lines.sort_unstable();
            lines
        };
        assert!(lines(&gzip) == lines(&plain) && lines(&zstd) == lines(&plain), "{accept}");
    }
}

/// A small compressed body must not expand beyond the limit.
#[tokio::test]
async fn the_decompressed_body_is_limited() {
    let config = ServerConfig { max_body_bytes: 1000, ..ServerConfig::default() };
    let server = Server::with_config(config, Some(BOS)).await;
    let bytes = zstd::encode_all(vec![b' '; 10_000_000].as_slice(), 1).unwrap();
    assert!(bytes.len() < 1000 * 2);
    let request = server.client.post(format!("{}/logprobs", server.url)).header("content-type", "application/json");
    let reply = request.header("content-encoding", "zstd").body(bytes).send().await.unwrap();
    assert_eq!(Reply::read(reply).await.problem().1, "body-too-large");
}
