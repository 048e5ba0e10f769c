//! A small server that responds like the oracle, rejects requests or fails on cue.
#![allow(dead_code, reason = "no test file uses all of it")]

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use surprisal_api::{LogprobsRequest, LogprobsResponse, ModelInfo, ModelList, QueryResult, QuerySpec, Text, Usage};
use surprisal_estimator::{HttpOptions, RetryPolicy, SantaFe, ScoreQuery};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A time that is longer than any test.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The server's reaction to a request.
pub(crate) enum Reply {
    /// A response; `header` is an additional header line or empty.
    Response { status: u16, header: &'static str, content_type: &'static str, body: String },
    /// The connection breaks within the body.
    BrokenBody,
    /// A response with this status whose body is far longer than any answer.
    Flood(u16),
    /// No response, ever.
    Silence,
}

impl Reply {
    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self::Response { status, header: "", content_type: "text/plain", body: body.to_owned() }
    }

    pub(crate) fn json(body: &impl Serialize) -> Self {
        let body = serde_json::to_string(body).unwrap();
        Self::Response { status: 200, header: "", content_type: "application/json", body }
    }
}

/// Serves `answer(path, body)` on a free port until the test ends, and returns the URL.
pub(crate) async fn serve(answer: impl Fn(&str, &str) -> Reply + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move { exchange(stream, &*answer).await });
        }
    });
    url
}

/// Reads one request and replies to it.
async fn exchange(stream: TcpStream, answer: &(impl Fn(&str, &str) -> Reply + Sync)) {
    let mut stream = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).await.unwrap();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        match line.trim().to_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let path = first.split(' ').nth(1).unwrap_or_default();
    match answer(path, std::str::from_utf8(&body).unwrap()) {
        Reply::Response { status, header, content_type, body } => {
            let head = format!(
                "HTTP/1.1 {status} x\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n{header}\r\n",
                body.len()
            );
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
        Reply::BrokenBody => {
            stream.write_all(b"HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\nhalf").await.unwrap();
        }
        Reply::Flood(status) => {
            stream.write_all(format!("HTTP/1.1 {status} x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
            let chunk = vec![b' '; 1 << 20];
            // The client closes the connection early.
            for _ in 0..256 {
                if stream.write_all(&chunk).await.is_err() {
                    break;
                }
            }
        }
        Reply::Silence => std::future::pending().await,
    }
}

pub(crate) fn process() -> SantaFe {
    SantaFe::new(50, 1.3, 1e-3).unwrap()
}

/// Returns the response to `/v1/models`.
pub(crate) fn models() -> Reply {
    let info = ModelInfo {
        id: "oracle".to_owned(),
        object: "model".to_owned(),
        created: 0,
        owned_by: "surprisal".to_owned(),
        root: "oracle".to_owned(),
        parent: None,
        max_model_len: 512,
        vocab_size: 101,
        fingerprint: "f1".to_owned(),
    };
    Reply::json(&ModelList { object: "list".to_owned(), data: vec![info] })
}

pub(crate) fn ids(text: &Text) -> &[u32] {
    match text {
        Text::Tokens(tokens) => tokens,
        Text::String(_) => panic!("expected token ids"),
    }
}

/// Returns the oracle's response to `/logprobs`.
pub(crate) fn score(body: &str) -> LogprobsResponse {
    let request: LogprobsRequest = serde_json::from_str(body).unwrap();
    let result = |query: &QuerySpec| {
        let exact = process().logprobs(ids(&query.context), ids(&query.target)).unwrap();
        QueryResult {
            sum: exact.iter().sum(),
            tokens: exact.len(),
            logprobs: Some(exact.iter().map(|&logprob| logprob as f32).collect()),
            ..QueryResult::default()
        }
    };
    LogprobsResponse {
        model: "oracle".to_owned(),
        fingerprint: "f1".to_owned(),
        results: request.queries.unwrap().iter().map(result).collect(),
        usage: Usage::default(),
    }
}

pub(crate) fn options(give_up_after: Duration) -> HttpOptions {
    let (initial_wait, max_wait) = (Duration::from_millis(1), Duration::from_millis(20));
    HttpOptions { retry: RetryPolicy { initial_wait, max_wait, give_up_after }, ..HttpOptions::default() }
}

pub(crate) fn query() -> Vec<ScoreQuery> {
    vec![ScoreQuery { context: vec![1, 2], target: vec![3, 4] }]
}
