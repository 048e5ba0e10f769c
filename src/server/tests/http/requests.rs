//! Requests on the wire: heads that are rejected, early responses, and clients that stop sending.

use serde_json::json;
use surprisal_server::ApiKeys;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Server, until};

const BODY: &str = r#"{"queries": [{"target": "abc"}]}"#;

/// Returns a request to `/logprobs` with this body.
fn post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /logprobs HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn ambiguous_heads_are_rejected() {
    let server = Server::start().await;
    for head in [
        "GET /health HTTP/1.1\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET /health HTTP/1.1\nhost: a\n\n",
        "GET /health HTTP/1.1\r\nhost: a\nx: b\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: a\r\n\n",
    ] {
        // The same head as the second request on a connection, after a body that contains line feeds.
        let second = format!("{}{head}", post("{\"queries\":\n[{\"target\": \"abc\"}]}\n"));
        for (sent, before) in [(head.to_owned(), 0), (second, 1)] {
            let answer = server.exchange(&sent).await;
            assert_eq!(answer.matches("HTTP/1.1 200").count(), before, "{sent:?}: {answer}");
            let rejection = answer.find("HTTP/1.1 400").map(|start| &answer[start..]).unwrap_or_default();
            assert!(rejection.contains("urn:surprisal:problem:invalid-head"), "{sent:?}: {answer}");
            assert!(rejection.contains("connection: close"), "{answer}");
        }
    }
    let counted = r#"surprisal_problems_total{type="invalid-head"}"#;
    assert_eq!(server.metric(counted).await, 10.0);
    for head in ["GET /health HTTP/1.0\r\n\r\n", "\r\nGET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"] {
        let answer = server.exchange(head).await;
        assert!(answer.ends_with("\r\n\r\nok\n"), "{head:?}: {answer}");
    }
}

#[tokio::test]
async fn a_large_head_is_rejected() {
    let server = Server::start().await;
    let head =
        |length| format!("GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: {}\r\n\r\n", "x".repeat(length));
    let small = server.exchange(&head(30_000)).await;
    assert!(small.ends_with("ok\n"), "{small}");
    let large = server.exchange(&head(40_000)).await;
    assert!(large.starts_with("HTTP/1.1 431"), "{large}");
    // Nor does the server buffer one that has no end.
    let endless = server.exchange(&head(40_000).replace("\r\n\r\n", "")).await;
    assert!(endless.starts_with("HTTP/1.1 431"), "{endless}");
}

/// Pipelined requests are answered in order, whether their heads arrive with the previous body or after it.
#[tokio::test]
async fn pipelined_requests_are_answered() {
    let server = Server::start().await;
    let last = "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = server.exchange(&format!("{}{}{last}", post(BODY), post(BODY))).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 3, "{answer}");
    assert!(answer.ends_with("ok\n"), "{answer}");
}

#[tokio::test]
async fn a_wrong_key_is_answered_before_its_body() {
    let server = Server::with_keys(ApiKeys::parse("right")).await;
    let head =
        "POST /logprobs HTTP/1.1\r\nhost: a\r\nauthorization: Bearer wrong\r\ncontent-type: application/json\r\n";
    // The rest of the body never comes.
    for length in ["content-length: 1000000", "transfer-encoding: chunked"] {
        let answer = server.exchange(&format!("{head}{length}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("connection: close"), "{length}: {answer}");
    }
    // A body that has arrived with its head costs nothing, so the connection stays open.
    let next = "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = server.exchange(&format!("{head}content-length: 2\r\n\r\n{{}}{next}")).await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.ends_with("ok\n"), "{answer}");
}

/// A client that closes its side of the connection after the request, as `nc -N` does, gets the response, even if that
/// takes a while.
#[tokio::test]
async fn a_client_that_stops_sending_gets_its_response() {
    let server = Server::start().await;
    for request in
        [post(BODY), "GET /health HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "GET /ping HTTP/1.0\r\n\r\n".into()]
    {
        let mut stream = server.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains(" 200 OK\r\n"), "{request:?}: {answer}");
    }

    server.scorer.set_open(false);
    let mut stream = server.connect().await;
    stream.write_all(post(BODY).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut probe = [0; 25];
    stream.read_exact(&mut probe).await.unwrap();
    assert_eq!(&probe, b"HTTP/1.1 100 Continue\r\n\r\n");
    server.scorer.set_open(true);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("HTTP/1.1 200 OK\r\n") && answer.contains(r#""tokens":3"#), "{answer}");

    // One that stops sending and then disconnects is noticed.
    server.scorer.set_open(false);
    let mut stream = server.connect().await;
    stream.write_all(post(BODY).as_bytes()).await.unwrap();
    check_disconnect_after_fin(&server, stream).await;
}

/// Ends the client's side of a connection, then the connection. The server must notice this and drop the request.
async fn check_disconnect_after_fin(server: &Server, mut stream: TcpStream) {
    stream.shutdown().await.unwrap();
    server.until_running(1).await;
    drop(stream);
    server.until_running(0).await;
    until(async || server.metric("surprisal_admitted_requests").await == 0.0).await;
}

/// A client that stops sending while its response is streamed gets all of it. The server finds out whether the client
/// is still there by leading zeros of a chunk's size.
#[tokio::test]
async fn a_client_that_stops_sending_gets_its_stream() {
    let server = Server::start().await;
    server.scorer.set_open(false);
    let request = post(BODY).replace("host: a", "host: a\r\naccept: application/x-ndjson\r\nconnection: close");
    let mut stream = server.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_buf(&mut answer).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    let mut zeros = [0; 2];
    stream.read_exact(&mut zeros).await.unwrap();
    assert_eq!(&zeros, b"00");
    server.scorer.set_open(true);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    let lines: Vec<&str> = rest.split("\r\n").collect();
    assert!(usize::from_str_radix(lines[0], 16).unwrap() == lines[1].len(), "{rest:?}");
    assert!(lines[1].contains(r#""tokens":3"#) && rest.ends_with("0\r\n\r\n"), "{rest:?}");

    // HTTP/1.0 has no chunks.
    let mut stream = server.connect().await;
    stream.write_all(request.replace("HTTP/1.1", "HTTP/1.0").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains(r#""tokens":3"#) && rest.ends_with("}\n"), "{rest:?}");

    // One that stops sending in a stream and then disconnects is noticed.
    server.scorer.set_open(false);
    let mut stream = server.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_exact(&mut zeros).await.unwrap();
    check_disconnect_after_fin(&server, stream).await;
}

/// Serde's derived implementations accept the values of an object in the order of its fields; requests must name them.
#[tokio::test]
async fn positional_arrays_are_not_requests() {
    let server = Server::start().await;
    for (path, body, problem) in [
        ("/logprobs", json!([[{"target": "a"}]]), "the body is an array; it must be an object"),
        ("/logprobs", json!({"queries": [["a", "b"]]}), "`queries[0]` is an array; it must be an object"),
        ("/v1/completions", json!(["a"]), "the body is an array; it must be an object"),
        ("/v1/completions", json!({"prompt": "a", "stream_options": [true]}), "`stream_options` is an array"),
        ("/generate", json!(["a"]), "the body is an array; it must be an object"),
        ("/generate", json!({"text": "a", "sampling_params": [1]}), "`sampling_params` is an array"),
        ("/tokenize", json!(["a"]), "the body is an array; it must be an object"),
        ("/detokenize", json!([[1]]), "the body is an array; it must be an object"),
    ] {
        let (status, name, found) = server.post(path, &body).await.problem();
        assert_eq!((status, name.as_str()), (400, "invalid-field"), "{path} {body}");
        assert!(found["detail"].as_str().unwrap().contains(problem), "{path} {body}: {found}");
    }
}
