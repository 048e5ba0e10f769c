//! Long texts, which are rejected before they are encoded, and the turns of clients whose texts are encoded.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::available_parallelism;

use serde_json::{Value, json};
use surprisal_api::TokenizerInfo;
use surprisal_model::{Piece, TokensAndOffsets};
use surprisal_server::{ApiKeys, ServerConfig, TextCodec};

use crate::support::{BOS, ByteCodec, LetterScorer, MAX_LENGTH, Reply, Server, until};

/// A codec whose tokens are bytes, which records the lengths of the texts that it encodes, and encodes while it is
/// open.
struct RecordingCodec {
    max_token_bytes: Option<usize>,
    lengths: Mutex<Vec<usize>>,
    is_open: (Mutex<bool>, Condvar),
}

impl RecordingCodec {
    fn new(max_token_bytes: Option<usize>, is_open: bool) -> Self {
        Self { max_token_bytes, lengths: Mutex::default(), is_open: (Mutex::new(is_open), Condvar::new()) }
    }

    fn open(&self) {
        *self.is_open.0.lock().unwrap() = true;
        self.is_open.1.notify_all();
    }

    fn lengths(&self) -> Vec<usize> {
        self.lengths.lock().unwrap().clone()
    }
}

impl TextCodec for RecordingCodec {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        self.lengths.lock().unwrap().push(text.len());
        let closed = self.is_open.0.lock().unwrap();
        drop(self.is_open.1.wait_while(closed, |is_open| !*is_open).unwrap());
        ByteCodec(Some(BOS)).encode(text)
    }

    fn encode_with_offsets(&self, text: &str) -> Result<TokensAndOffsets, String> {
        Ok((self.encode(text)?, (0..text.len()).map(|at| [at, at + 1]).collect()))
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        ByteCodec(Some(BOS)).decode(tokens)
    }

    fn piece(&self, token: u32) -> Piece {
        ByteCodec(Some(BOS)).piece(token)
    }

    fn max_token_bytes(&self) -> Option<usize> {
        self.max_token_bytes
    }

    fn prefix(&self) -> &[u32] {
        &[BOS]
    }

    fn info(&self) -> TokenizerInfo {
        TokenizerInfo::default()
    }
}

async fn start(codec: &Arc<RecordingCodec>, config: ServerConfig) -> Server {
    Server::with_codec(Arc::new(LetterScorer::new()), codec.clone(), config, ApiKeys::default()).await
}

/// Asserts that a body is rejected, with this length of a text and this limit.
async fn assert_rejected(server: &Server, path: &str, body: &Value, expected: (u16, &str), members: Value) {
    let (status, name, problem) = server.post(path, body).await.problem();
    assert_eq!((status, name.as_str()), expected, "{path}: {problem}");
    for member in ["query", "field", "value", "limit"] {
        assert_eq!(problem.get(member), members.get(member), "{member} of {path}: {problem}");
    }
    let words =
        if status == 400 { "this model's maximum context length is 64 tokens" } else { "(`server.max_working_bytes`)" };
    assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
}

#[tokio::test]
async fn a_text_that_cannot_fit_is_rejected_before_it_is_encoded() {
    for (max_token_bytes, limit) in [(Some(3), 3 * MAX_LENGTH), (None, 256 * MAX_LENGTH)] {
        let codec = Arc::new(RecordingCodec::new(max_token_bytes, true));
        let server = start(&codec, ServerConfig::default()).await;
        let text = "x".repeat(limit + 1);
        let rejected = |query: Value, field: &str| {
            let members = json!({"field": field, "value": limit + 1, "limit": limit});
            let mut members = members.as_object().unwrap().clone();
            members.extend((!query.is_null()).then(|| ("query".to_owned(), query)));
            Value::Object(members)
        };
        for (path, body, members) in [
            (
                "/logprobs",
                json!({"queries": [{"target": "a"}, {"target": text}]}),
                rejected(json!(1), "queries[1].target"),
            ),
            (
                "/logprobs",
                json!({"queries": [{"context": text, "target": "a"}]}),
                rejected(json!(0), "queries[0].context"),
            ),
            ("/logprobs", json!({"contexts": ["a", text], "targets": ["a"]}), rejected(json!(null), "contexts[1]")),
            (
                "/logprobs",
                json!({"queries": [{"context": &text[1..], "target": "a"}], "boundary": "joint"}),
                rejected(json!(0), "queries[0]"),
            ),
            ("/v1/completions", json!({"prompt": ["a", text]}), rejected(json!(1), "prompt[1]")),
            ("/generate", json!({"text": text}), rejected(json!(0), "text")),
        ] {
            assert_rejected(&server, path, &body, (400, "sequence-too-long"), members).await;
        }
        assert!(codec.lengths().iter().all(|&length| length == 1), "{:?}", codec.lengths());
        // Token ids of any number of bytes, and a text without a limit on its tokens.
        assert_eq!(server.post("/tokenize", &json!({"prompt": text})).await.status, 200);
    }
}

/// With 16 MiB for tokenization, a text may have 65,536 bytes, however long the model's sequences may be.
#[tokio::test]
async fn a_text_that_takes_too_much_memory_is_rejected() {
    let codec = Arc::new(RecordingCodec::new(Some(1 << 20), true));
    let server = start(&codec, ServerConfig { max_working_bytes: 0, ..ServerConfig::default() }).await;
    let limit = (16 << 20) / 256;
    let (text, fits) = ("x".repeat(limit + 1), "x".repeat(limit));
    for (path, body, field, query) in [
        ("/tokenize", json!({"prompt": text}), "prompt", None),
        ("/logprobs", json!({"contexts": ["a"], "targets": [text]}), "targets[0]", None),
        ("/v1/completions", json!({"prompt": text}), "prompt", Some(0)),
    ] {
        let mut members = json!({"field": field, "value": limit + 1, "limit": limit});
        if let Some(query) = query {
            members["query"] = json!(query);
        }
        assert_rejected(&server, path, &body, (413, "text-too-large"), members).await;
    }
    assert!(codec.lengths().iter().all(|&length| length == 1), "{:?}", codec.lengths());
    let tokens = server.post("/tokenize", &json!({"prompt": fits, "add_special_tokens": false})).await.json();
    assert_eq!(tokens["count"], limit);

    let limit = (16 << 20) / 128;
    let members = json!({"field": "tokens", "value": limit + 1, "limit": limit});
    let body = json!({"tokens": vec![97; limit + 1]});
    assert_rejected(&server, "/detokenize", &body, (413, "text-too-large"), members).await;
    let text = server.post("/detokenize", &json!({"tokens": vec![97; limit]})).await.json();
    assert_eq!(text["prompt"].as_str().unwrap().len(), limit);
}

/// Each of these lists takes much more memory than its brackets.
#[tokio::test]
async fn a_body_of_too_many_parts_is_rejected_before_it_is_parsed() {
    let server = Server::with_config(ServerConfig { max_working_bytes: 0, ..ServerConfig::default() }, Some(BOS)).await;
    for part in ["[],", "[1],", "\"\",", "{},"] {
        let body = format!(r#"{{"contexts": [{}[]], "targets": ["a"]}}"#, part.repeat(140_000));
        let (status, name, problem) = server.post_as("application/json", "/logprobs", body).await.problem();
        assert_eq!(
            (status, name.as_str(), &problem["limit"]),
            (413, "request-too-large", &json!(16 << 20)),
            "{problem}"
        );
    }
}

/// One client sends many texts, and then another client sends one. They are encoded in turn.
#[tokio::test]
async fn clients_take_turns_at_encoding() {
    let codec = Arc::new(RecordingCodec::new(None, false));
    let server = start(&codec, ServerConfig::default()).await;
    let threads = available_parallelism().map_or(2, |count| count.get().max(2));
    let send = |client: &str, length: usize| {
        let body = json!({"prompt": "x".repeat(length)}).to_string();
        let request = server.client.post(format!("{}/tokenize", server.url)).header("x-client-id", client);
        let request = request.header("content-type", "application/json").body(body.clone());
        (body.len(), tokio::spawn(async move { Reply::read(request.send().await.unwrap()).await }))
    };
    let held = async |bytes: usize| {
        until(async || server.metric("surprisal_admitted_body_bytes").await == bytes as f64).await;
    };
    let mut bytes = 0;
    let mut replies = Vec::new();
    for _ in 0..3 * threads {
        let (length, reply) = send("many", 5000);
        bytes += length;
        held(bytes).await;
        replies.push(reply);
    }
    let (length, one) = send("one", 5001);
    held(bytes + length).await;
    until(async || codec.lengths().len() == threads).await;
    codec.open();
    assert_eq!(one.await.unwrap().status, 200);
    for reply in replies {
        assert_eq!(reply.await.unwrap().status, 200);
    }
    let lengths = codec.lengths();
    let place = lengths.iter().position(|&length| length == 5001).unwrap();
    assert!(lengths.len() == 3 * threads + 1 && place < 2 * threads, "{place} of {lengths:?}");
}
