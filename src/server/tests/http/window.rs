//! Requests with many queries: how many of them the engine gets at once, in which order their results return, and the
//! thread that prepares them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use serde_json::{Value, json};
use surprisal_api::{LogprobsResponse, StreamLine, TokenizerInfo};
use surprisal_engine::Scorer;
use surprisal_model::{Piece, TokensAndOffsets};
use surprisal_server::{ApiKeys, ServerConfig, TextCodec};

use crate::support::{BOS, ByteCodec, LetterScorer, Reply, Server, until};

/// The maximum number of queries of one request that the engine gets at once.
const WINDOW: u64 = 2048;

/// Number of contexts and of targets of a request.
const SIDE: usize = 48;

const PAIRS: u64 = (SIDE * SIDE) as u64;

/// Returns a request with all pairs of some contexts and targets, which are different letters.
fn all_pairs() -> Value {
    let letters: Vec<String> = (0..SIDE).map(|number| char::from(b'A' + number as u8).to_string()).collect();
    json!({"contexts": letters, "targets": letters})
}

/// Checks that the engine has a full window of the server's queries, and stays at it. Then lets it answer all.
async fn check_window(server: &Server, admitted: u64) {
    until(async || server.metric("surprisal_admitted_queries").await == admitted as f64).await;
    server.until_running(WINDOW).await;
    // The server answers other requests, but submits no more queries.
    for _ in 0..5 {
        assert_eq!(server.get("/health").await.status, 200);
    }
    assert_eq!(server.scorer.stats().running_queries, WINDOW);
    server.scorer.set_open(true);
}

#[tokio::test]
async fn the_engine_gets_a_window_of_the_queries_of_a_request() {
    let server = Server::start().await;
    server.scorer.set_open(false);
    let waiting = server.spawn_logprobs(&all_pairs());
    check_window(&server, PAIRS).await;
    let reply = waiting.await.unwrap();
    let results = reply.json()["results"].as_array().unwrap().clone();
    assert_eq!(results.len(), SIDE * SIDE);
    for (index, result) in results.iter().enumerate() {
        let pair = [index / SIDE, index % SIDE];
        assert_eq!(result["pair"], json!(pair), "results are in the order of the request");
        let [before, token] = pair.map(|number| number as u32 + u32::from(b'A'));
        assert_eq!(result["sum"], json!(-f64::from(before + 2 * token + 1) / 1024.0));
    }
    assert_eq!(server.scorer.stats().finished_queries, PAIRS);
}

#[tokio::test]
async fn other_forms_of_requests_have_the_same_window() {
    let server = Server::start().await;
    for (path, accept, body, queries) in [
        ("/logprobs", "application/x-ndjson", all_pairs(), PAIRS),
        ("/v1/completions", "application/json", json!({"prompt": "a", "n": 2500, "max_tokens": 1}), 2500),
        ("/v1/completions", "*/*", json!({"prompt": "a", "n": 2500, "max_tokens": 1, "stream": true}), 2500),
        (
            "/generate",
            "application/json",
            json!({"text": vec!["a"; 2500], "sampling_params": {"max_new_tokens": 1}}),
            2500,
        ),
        (
            "/generate",
            "*/*",
            json!({"text": vec!["a"; 2500], "sampling_params": {"max_new_tokens": 1}, "stream": true}),
            2500,
        ),
    ] {
        server.scorer.set_open(false);
        let request = server.client.post(format!("{}{path}", server.url)).header("accept", accept).json(&body);
        let waiting = tokio::spawn(async move { Reply::read(request.send().await.unwrap()).await });
        check_window(&server, queries).await;
        let reply = waiting.await.unwrap();
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert!(!reply.text.contains("urn:surprisal:problem"), "{path}: {reply:?}");
        until(async || server.metric("surprisal_admitted_queries").await == 0.0).await;
    }
}

#[tokio::test]
async fn a_disconnected_client_cancels_a_window_of_queries() {
    let server = Server::start().await;
    server.scorer.set_open(false);
    let gone = server.spawn_logprobs(&all_pairs());
    server.until_running(WINDOW).await;
    gone.abort();
    server.until_running(0).await;
    assert_eq!(server.scorer.stats().cancelled_queries, WINDOW);
    until(async || server.metric("surprisal_admitted_queries").await == 0.0).await;
}

/// Pairs are submitted context by context, but their results are in the order of the request.
#[tokio::test]
async fn listed_pairs_keep_their_order() {
    let server = Server::start().await;
    let pairs: Vec<[usize; 2]> = (0..30).map(|number| [number % 3, number / 3]).collect();
    let body = json!({"contexts": ["A", "B", "C"], "targets": ["D", "E", "F", "G", "H", "I", "J", "K", "L", "M"],
        "pairs": pairs, "detail": "tokens"});
    let whole: LogprobsResponse = serde_json::from_str(&server.post("/logprobs", &body).await.text).unwrap();
    let request = server.client.post(format!("{}/logprobs", server.url)).json(&body);
    let lines = Reply::read(request.header("accept", "application/x-ndjson").send().await.unwrap()).await.text;
    let lines: Vec<StreamLine> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (index, (result, pair)) in whole.results.iter().zip(pairs).enumerate() {
        assert_eq!((result.pair, result.token_ids.as_deref()), (Some(pair), Some(&[68 + pair[1] as u32][..])));
        assert!(lines.contains(&StreamLine::Result { index, result: result.clone() }), "{index}");
    }
}

/// A codec that records the threads on which it encodes.
struct RecordingCodec(ByteCodec, Mutex<HashSet<ThreadId>>);

impl TextCodec for RecordingCodec {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        self.1.lock().unwrap().insert(thread::current().id());
        self.0.encode(text)
    }

    fn encode_with_offsets(&self, text: &str) -> Result<TokensAndOffsets, String> {
        self.0.encode_with_offsets(text)
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        self.0.decode(tokens)
    }

    fn piece(&self, token: u32) -> Piece {
        self.0.piece(token)
    }

    fn prefix(&self) -> &[u32] {
        self.0.prefix()
    }

    fn info(&self) -> TokenizerInfo {
        self.0.info()
    }
}

/// The server of a test runs on the test's thread.
#[tokio::test]
async fn a_small_body_with_many_pairs_is_prepared_on_another_thread() {
    let codec = Arc::new(RecordingCodec(ByteCodec(Some(BOS)), Mutex::default()));
    let scorer = Arc::new(LetterScorer::new());
    let server =
        Server::with_codec(scorer, Arc::<RecordingCodec>::clone(&codec), ServerConfig::default(), ApiKeys::default())
            .await;
    let here = HashSet::from([thread::current().id()]);
    assert_eq!(server.post("/logprobs", &json!({"contexts": ["a"], "targets": ["b"]})).await.status, 200);
    assert_eq!(std::mem::take(&mut *codec.1.lock().unwrap()), here);
    assert_eq!(server.post("/logprobs", &all_pairs()).await.status, 200);
    assert!(codec.1.lock().unwrap().is_disjoint(&here));
}
