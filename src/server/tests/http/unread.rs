//! Responses that their clients do not read: they take little memory, and are discarded after a while.

use std::sync::Arc;

use serde_json::{Value, json};
use surprisal_api::{LogprobsResponse, NDJSON};
use surprisal_engine::Scorer;
use surprisal_server::{ApiKeys, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{BOS, LetterScorer, MAX_LENGTH, Server, until};

/// Returns a request whose response is several megabytes long.
fn large() -> Value {
    json!({"contexts": ["a"], "targets": vec!["x".repeat(60); 500], "detail": "tokens", "top": 64})
}

/// Returns limits with which the server closes a connection whose client reads nothing for a second.
fn impatience() -> ServerConfig {
    ServerConfig { stall_seconds: 1, min_bytes_per_second: 128 << 10, ..ServerConfig::default() }
}

async fn impatient() -> Server {
    Server::with_config(impatience(), Some(BOS)).await
}

/// Sends a request over a connection with small buffers, and reads nothing.
async fn send_unread(server: &Server, path: &str, accept: &str, body: &Value) -> TcpStream {
    send_times_unread(server, path, accept, body, 1).await
}

/// Sends a request several times over a connection with small buffers, and reads nothing.
async fn send_times_unread(server: &Server, path: &str, accept: &str, body: &Value, times: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.url.strip_prefix("http://").unwrap().parse().unwrap()).await.unwrap();
    let body = body.to_string();
    let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\naccept: {accept}\r\ncontent-type: application/json");
    let end = format!("content-length: {}\r\n\r\n{body}", body.len());
    let last = format!("{head}\r\nconnection: close\r\n{end}");
    let requests = format!("{head}\r\n{end}").repeat(times - 1) + &last;
    stream.write_all(requests.as_bytes()).await.unwrap();
    stream
}

/// Waits until the server holds nothing for any request.
async fn until_released(server: &Server) {
    for name in ["admitted_tokens", "admitted_response_bytes", "admitted_requests", "admitted_body_bytes"] {
        until(async || server.metric(&format!("surprisal_{name}")).await == 0.0).await;
    }
}

#[tokio::test]
async fn a_large_response_is_complete() {
    let server = Server::start().await;
    let reply = server.post("/logprobs", &large()).await;
    assert!(reply.text.len() > 10_000_000, "{}", reply.text.len());
    let whole: LogprobsResponse = serde_json::from_str(&reply.text).unwrap();
    assert_eq!((whole.results.len(), whole.usage.scored_tokens), (500, 500 * 60));
    assert!(whole.results.windows(2).all(|pair| pair[0].top_texts == pair[1].top_texts));
    // The JSON is the same as that of the parsed response, so nothing is missing between two parts.
    assert_eq!(reply.text, serde_json::to_string(&whole).unwrap());
    let prompts = json!({"prompt": vec!["x".repeat(60); 100], "echo": true, "max_tokens": 0, "logprobs": 20});
    let completions = server.post("/v1/completions", &prompts).await.json();
    assert_eq!(
        (completions["choices"].as_array().unwrap().len(), &completions["usage"]["prompt_tokens"]),
        (100, &json!(6100))
    );
    let prompts = json!({"text": vec!["x".repeat(60); 100], "return_logprob": true, "logprob_start_len": 0,
        "top_logprobs_num": 20, "sampling_params": {"max_new_tokens": 1}});
    let results = server.post("/generate", &prompts).await.json();
    assert_eq!(results.as_array().unwrap().len(), 100);
    assert_eq!(results[99]["meta_info"]["input_top_logprobs"].as_array().unwrap().len(), 61);
    until_released(&server).await;
}

#[tokio::test]
async fn an_unread_response_is_counted_and_discarded() {
    let server = impatient().await;
    let timed_out = r#"surprisal_closed_connections_total{reason="write-timeout"}"#;
    for (accept, count) in [("application/json", 1.0), (NDJSON, 2.0)] {
        let mut unread = send_unread(&server, "/logprobs", accept, &large()).await;
        until(async || server.metric("surprisal_admitted_response_bytes").await > 0.0).await;
        // The response has more than 10 MB. The server has made only what fits into buffers.
        let held = server.metric("surprisal_admitted_response_bytes").await;
        assert!(held < 1_000_000.0, "{held}");
        assert!(server.metric("surprisal_admitted_tokens").await >= f64::from(500 * 60));
        until_released(&server).await;
        assert_eq!(server.metric(timed_out).await, count);
        // The client sees that the response is incomplete.
        let mut text = Vec::new();
        let _ = unread.read_to_end(&mut text).await;
        assert!(text.starts_with(b"HTTP/1.1 200 OK") && !text.ends_with(b"0\r\n\r\n"), "{}", text.len());
    }
}

/// A response whose client reads nothing ends soon after the deadline, even if its connection has not timed out.
#[tokio::test]
async fn an_unread_response_ends_after_its_deadline() {
    // At this rate, the kernel's next step may take 17 minutes.
    let config =
        ServerConfig { max_request_seconds: 1, stall_seconds: 1, min_bytes_per_second: 128, ..ServerConfig::default() };
    let server = Server::with_config(config, Some(BOS)).await;
    let requests = async || server.metric("surprisal_admitted_requests").await;
    for accept in ["application/json", NDJSON] {
        let unread = send_unread(&server, "/logprobs", accept, &large()).await;
        until(async || requests().await == 1.0).await;
        until(async || requests().await == 0.0).await;
        drop(unread);
    }
}

#[tokio::test]
async fn an_unread_stream_of_tokens_is_discarded() {
    let server = impatient().await;
    let body =
        json!({"prompt": vec!["x".repeat(40); 500], "max_tokens": MAX_LENGTH - 41, "stream": true, "logprobs": 20});
    let unread = send_unread(&server, "/v1/completions", "text/event-stream", &body).await;
    until(async || server.metric("surprisal_admitted_tokens").await > 0.0).await;
    until_released(&server).await;
    server.until_running(0).await;
    assert!(server.scorer.stats().cancelled_queries > 0);
    drop(unread);
}

/// A token of this text takes two bytes in the request and six in the response.
#[tokio::test]
async fn an_unread_list_of_tokens_is_counted_and_discarded() {
    let config = ServerConfig { max_waiting_response_bytes: 8 << 20, ..impatience() };
    let server = Server::with_config(config, Some(BOS)).await;
    let body = json!({"prompt": "xy".repeat(200_000), "return_token_strs": true});
    let unread = send_unread(&server, "/tokenize", "application/json", &body).await;
    until(async || server.metric("surprisal_admitted_response_bytes").await > 0.0).await;
    // The client may not have another response of this size, but other clients may.
    let send = |client: &str| {
        let request = server.client.post(format!("{}/tokenize", server.url)).json(&body);
        let request = request.header("x-client-id", client);
        async move { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(send("other").await, 200);
    until_released(&server).await;
    drop(unread);
}

/// While the server shuts down, a client that does not read delays it only until its connection
/// times out.
#[tokio::test]
async fn unread_responses_do_not_delay_shutdown() {
    let server = impatient().await;
    let mut unread = Vec::new();
    for accept in ["application/json", NDJSON] {
        unread.push(send_unread(&server, "/logprobs", accept, &large()).await);
    }
    until(async || server.metric("surprisal_admitted_response_bytes").await > 0.0).await;
    let drained = server.client.clone();
    let url = server.url.clone();
    let stopped = server.stop();
    // Once no request is in flight, the listener closes.
    until(async || drained.get(format!("{url}/health")).send().await.is_err()).await;
    drop(unread);
    stopped.await.unwrap().unwrap();
}

/// Responses that are sent at once count too. The kernel takes the first one or two.
#[tokio::test]
async fn unread_small_responses_are_counted_and_discarded() {
    let config = ServerConfig { max_waiting_response_bytes: 1 << 20, ..impatience() };
    let server = Server::with_config(config, Some(BOS)).await;
    let small = json!({"contexts": ["a"], "targets": vec!["x".repeat(60); 7], "detail": "tokens", "top": 8});
    let length = server.post("/logprobs", &small).await.text.len();
    assert!((50_000..200_000).contains(&length), "{length}");
    for (path, body) in [("/logprobs", small), ("/tokenize", json!({"prompt": "x".repeat(10_000)}))] {
        let held = async || server.metric("surprisal_admitted_response_bytes").await;
        let mut unread = Vec::new();
        for _ in 0..24 {
            unread.push(send_times_unread(&server, path, "application/json", &body, 40).await);
        }
        until(async || held().await > 0.0).await;
        assert!(held().await <= f64::from(1 << 20), "{path}");
        until_released(&server).await;
        drop(unread);
    }
}

/// A result that is larger than a quarter of the limit counts as a quarter, so that it does not stop other responses.
#[tokio::test]
async fn a_large_result_counts_as_a_quarter() {
    let config = ServerConfig { max_waiting_response_bytes: 1 << 20, ..impatience() };
    let scorer = Arc::new(LetterScorer::with_max_length(4096));
    let server = Server::with_scorer(scorer, config, Some(BOS), ApiKeys::default()).await;
    let large = json!({"queries": [{"target": "x".repeat(4000)}], "detail": "tokens", "top": 64});
    let unread = send_unread(&server, "/logprobs", "application/json", &large).await;
    until(async || server.metric("surprisal_admitted_response_bytes").await == f64::from(1 << 18)).await;
    assert_eq!(server.post("/logprobs", &json!({"queries": [{"target": "x"}]})).await.status, 200);
    until_released(&server).await;
    drop(unread);
    assert!(server.post("/logprobs", &large).await.text.len() > 4 << 20);
    until_released(&server).await;
}

/// A response whose client reads nothing ends even if it waits for memory that another response holds.
#[tokio::test]
async fn unread_responses_that_wait_for_memory_are_discarded() {
    let config = ServerConfig { max_waiting_response_bytes: 1 << 20, ..impatience() };
    let server = Server::with_config(config, Some(BOS)).await;
    let mut unread = Vec::new();
    for _ in 0..12 {
        unread.push(send_unread(&server, "/logprobs", "application/json", &large()).await);
    }
    until(async || server.metric("surprisal_admitted_tokens").await >= f64::from(12 * 500 * 60)).await;
    until_released(&server).await;
    drop(unread);
}

/// Compression of a response that is sent in parts takes memory until it ends.
#[tokio::test]
async fn the_memory_of_a_compressor_counts() {
    let server = Server::start().await;
    server.scorer.set_open(false);
    let accept = format!("{NDJSON}\r\naccept-encoding: zstd");
    let waiting = send_unread(&server, "/logprobs", &accept, &json!({"queries": [{"target": "a"}]})).await;
    server.until_running(1).await;
    assert_eq!(server.metric("surprisal_admitted_response_bytes").await, f64::from(4 << 20));
    drop(waiting);
    until_released(&server).await;
}
