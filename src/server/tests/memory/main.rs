//! The memory of the server while it is attacked, as an allocator counts it.
//!
//! All measurements are in one test, because the allocator counts the whole process.

#![allow(clippy::unwrap_used)]

mod allocator;
#[allow(dead_code, unused_imports, reason = "shared with other tests")]
#[path = "../http/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use surprisal_model::{TextTokenizer, Vocabulary};
use surprisal_server::{ApiKeys, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use self::support::{BOS, LetterScorer, Reply, Server, until};

const MIB: usize = 1 << 20;

/// Parts of texts that are repeated: one long word, usual words, spaces, and tokens of one character.
const PARTS: [&str; 16] = [
    "a",
    "the ",
    " ",
    "\u{e9}",
    "\u{4e2d}",
    "0",
    ".\n",
    "\u{1f600}",
    "a.",
    ".a",
    "a1",
    ". ",
    "\t.\n ",
    "a ",
    "\u{1d160}",
    "\u{958}",
];

/// The memory that the server assumes for decoding a token.
const DECODING_BYTES: usize = 128;

#[tokio::test]
async fn memory_is_bounded() {
    one_long_text(&tokenizers()[0].1).await;
    many_long_texts(&tokenizers()[0].1).await;
    stalled_bodies().await;
    unread_responses().await;
    unread_small_responses().await;
    waiting_pairs().await;
    let tokenizers = tokenizers();
    let worst = tokenizers.iter().map(|(name, tokenizer)| worst_memory(name, tokenizer));
    let worst: Vec<(usize, usize)> = worst.collect();
    for ((name, tokenizer), (encoding, decoding)) in tokenizers.iter().zip(worst) {
        assert!(encoding <= tokenizer.encoding_bytes() && decoding <= DECODING_BYTES, "{name}: {encoding}, {decoding}");
    }
}

/// Returns tokenizers of each kind: byte-level BPE, BPE with byte fallback, and unigram.
fn tokenizers() -> Vec<(&'static str, TextTokenizer)> {
    // The printable characters of Latin-1 stand for themselves in byte-level BPE, and the others come after them.
    let printable = (0x21..=0x7e).chain(0xa1..=0xac).chain(0xae..=0xff);
    let chars = printable.chain(0x100..0x100 + 68).map(|code| char::from_u32(code).unwrap().to_string());
    let mut level: BTreeMap<String, usize> = chars.enumerate().map(|(id, name)| (name, id)).collect();
    let merges = [["a", "a"], ["aa", "aa"], ["t", "h"], ["th", "e"], ["\u{120}", "the"], ["\u{120}", "\u{120}"]];
    for [left, right] in merges {
        level.insert(format!("{left}{right}"), level.len());
    }
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let fallback: BTreeMap<String, usize> = bytes
        .clone()
        .chain(["a", "aa", "▁", "▁a"].map(str::to_owned))
        .enumerate()
        .map(|(id, name)| (name, id))
        .collect();
    let pieces: Vec<Value> =
        bytes.map(|name| json!([name, 0.0])).chain([json!(["a", -1.0]), json!(["▁a", -2.0])]).collect();
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    [
        (
            "byte-level BPE",
            json!({"type": "NFC"}),
            byte_level,
            json!({"type": "BPE", "vocab": level, "merges": merges}),
        ),
        (
            "BPE with byte fallback",
            spaces,
            Value::Null,
            json!({"type": "BPE", "vocab": fallback, "merges": [["a", "a"], ["▁", "a"]], "byte_fallback": true}),
        ),
        (
            "unigram",
            Value::Null,
            metaspace,
            json!({"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": true}),
        ),
        (
            "words",
            Value::Null,
            json!({"type": "WhitespaceSplit"}),
            json!({"type": "WordLevel", "vocab": {"a": 0, "?": 1}, "unk_token": "?"}),
        ),
    ]
    .map(|(name, normalizer, pre_tokenizer, model)| (name, open(&normalizer, &pre_tokenizer, &model)))
    .into()
}

fn open(normalizer: &Value, pre_tokenizer: &Value, model: &Value) -> TextTokenizer {
    let decoder =
        if pre_tokenizer["type"] == "ByteLevel" { pre_tokenizer.clone() } else { json!({"type": "ByteFallback"}) };
    let json = json!({"version": "1.0", "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "model": model,
        "decoder": decoder, "added_tokens": [], "post_processor": null, "truncation": null, "padding": null});
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    TextTokenizer::open(dir.path(), Vocabulary { size: 600, bos: None, eos: None }).unwrap()
}

/// Returns the greatest memory for tokenizing a byte of a text, and for decoding a token.
fn worst_memory(name: &str, tokenizer: &TextTokenizer) -> (usize, usize) {
    let mut worst = (0, 0);
    for part in PARTS {
        let text = part.repeat(MIB / 4 / part.len());
        let before = allocator::begin();
        let tokens = tokenizer.encode(&text).unwrap();
        let without_offsets = allocator::peak(before) / text.len();
        drop(tokens);
        let before = allocator::begin();
        let (tokens, offsets) = tokenizer.encode_with_offsets(&text).unwrap();
        drop(offsets);
        let with_offsets = allocator::peak(before) / text.len();
        let before = allocator::begin();
        let _decoded = tokenizer.decode(&tokens).unwrap();
        // A single token has fixed costs.
        let decoding = allocator::peak(before) / tokens.len().max(1000);
        println!("{name}, {part:?}: {without_offsets} and {with_offsets} bytes per byte, {decoding} bytes per token");

        worst = (worst.0.max(without_offsets).max(with_offsets), worst.1.max(decoding));
    }
    worst
}

async fn start(tokenizer: &TextTokenizer, config: ServerConfig) -> Server {
    let scorer = Arc::new(LetterScorer::with_max_length(2048));
    Server::with_codec(scorer, Arc::new(tokenizer.clone()), config, ApiKeys::default()).await
}

/// Prints the memory that an attack took, and checks that it is at most `limit` bytes.
fn check(attack: &str, before: usize, limit: usize) {
    let peak = allocator::peak(before);
    println!("{attack}: {:.1} MiB of {} MiB", peak as f64 / MIB as f64, limit / MIB);
    assert!(peak <= limit, "{attack}: {peak} bytes");
}

/// A few hundred bytes expand to a text of 8 MiB.
async fn one_long_text(tokenizer: &TextTokenizer) {
    let server = start(tokenizer, ServerConfig::default()).await;
    let body = json!({"queries": [{"context": "It", "target": "a".repeat(8 * MIB)}]}).to_string();
    let body = zstd::encode_all(body.as_bytes(), 1).unwrap();
    assert!(body.len() < 2000);
    let before = allocator::begin();
    let request = server.client.post(format!("{}/logprobs", server.url)).header("content-type", "application/json");
    let reply = Reply::read(request.header("content-encoding", "zstd").body(body).send().await.unwrap()).await;
    check("one long text", before, 64 * MIB);
    assert_eq!(reply.problem().1, "sequence-too-long");
}

/// Many texts of 1 MiB, each of which may be tokenized.
async fn many_long_texts(tokenizer: &TextTokenizer) {
    let config = ServerConfig { max_working_bytes: 1024 * MIB, ..ServerConfig::default() };
    let server = start(tokenizer, config).await;
    let body = json!({"prompt": "a".repeat(MIB)}).to_string();
    let before = allocator::begin();
    let send = || {
        let request = server.client.post(format!("{}/tokenize", server.url)).header("content-type", "application/json");
        let request = request.body(body.clone());
        tokio::spawn(async move { Reply::read(request.send().await.unwrap()).await.status })
    };
    let replies: Vec<_> = (0..8).map(|_| send()).collect();
    for reply in replies {
        assert_eq!(reply.await.unwrap(), 200);
    }
    check("many long texts", before, 320 * MIB);
}

async fn send_head(server: &Server, head: &str, length: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.url.strip_prefix("http://").unwrap().parse().unwrap()).await.unwrap();
    let head = format!("POST /logprobs HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{head}");
    stream.write_all(format!("{head}content-length: {length}\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

/// Bodies that expand beyond the limit, whose clients then stall.
async fn stalled_bodies() {
    let config = ServerConfig { max_body_bytes: 16 * MIB, ..ServerConfig::default() };
    let server = Server::with_config(config, Some(BOS)).await;
    let body = zstd::encode_all(vec![b' '; 32 * MIB].as_slice(), 1).unwrap();
    let before = allocator::begin();
    let mut stalled = Vec::new();
    for _ in 0..16 {
        let mut stream = send_head(&server, "content-encoding: zstd\r\n", body.len() + 1).await;
        stream.write_all(&body).await.unwrap();
        stalled.push(stream);
        until(async || server.metric("surprisal_admitted_body_bytes").await == 0.0).await;
    }
    until(async || server.metric("surprisal_admitted_requests").await == 16.0).await;
    check("stalled bodies", before, 80 * MIB);
}

/// Requests with equal pairs, whose responses nobody reads.
async fn unread_responses() {
    let server = Server::with_config(ServerConfig::default(), Some(BOS)).await;
    let body =
        json!({"contexts": ["a"], "targets": ["x".repeat(60)], "pairs": vec![[0, 0]; 20_000], "detail": "tokens"});
    let body = body.to_string();
    let before = allocator::begin();
    let mut unread = Vec::new();
    for count in 1..=3 {
        let mut stream = send_head(&server, "", body.len()).await;
        stream.write_all(body.as_bytes()).await.unwrap();
        unread.push(stream);
        until(async || server.metric("surprisal_admitted_tokens").await == f64::from(count * 62 * 20_000)).await;
        until(async || server.metric("surprisal_num_requests_running").await == 0.0).await;
    }
    until(async || server.metric("surprisal_admitted_response_bytes").await > 0.0).await;
    check("unread responses", before, 128 * MIB);
}

/// Requests whose responses are small, so that they are sent at once, and which nobody reads.
async fn unread_small_responses() {
    let config = ServerConfig { max_waiting_response_bytes: 2 * MIB as u32, ..ServerConfig::default() };
    let server = Server::with_config(config, Some(BOS)).await;
    let body = json!({"contexts": ["a"], "targets": ["x".repeat(60)], "pairs": vec![[0, 0]; 20], "detail": "tokens"});
    assert!(server.post("/logprobs", &body).await.text.len() > 30_000);
    let body = body.to_string();
    let before = allocator::begin();
    let mut unread = Vec::new();
    for _ in 0..200 {
        let mut stream = send_head(&server, "", body.len()).await;
        stream.write_all(body.as_bytes()).await.unwrap();
        // The kernel takes the first responses.
        for _ in 0..20 {
            let head = "POST /logprobs HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
            let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(request.as_bytes()).await.unwrap();
        }
        unread.push(stream);
    }
    until(async || server.metric("surprisal_admitted_response_bytes").await > MIB as f64).await;
    until(async || server.metric("surprisal_admitted_requests").await >= 150.0).await;
    assert!(server.metric("surprisal_admitted_response_bytes").await <= 2.0 * MIB as f64);
    check("unread small responses", before, 20 * MIB);
}

/// Requests of 65,536 pairs each, whose queries wait for the engine.
async fn waiting_pairs() {
    const REQUESTS: usize = 3;
    let server = Server::with_config(ServerConfig::default(), Some(BOS)).await;
    server.scorer.set_open(false);
    let letters: Vec<String> = (0..256).map(|number| format!("{number:03}")).collect();
    let body = json!({"contexts": letters, "targets": letters}).to_string();
    let before = allocator::begin();
    let mut waiting = Vec::new();
    for count in 1..=REQUESTS {
        let mut stream = send_head(&server, &format!("x-client-id: {count}\r\n"), body.len()).await;
        stream.write_all(body.as_bytes()).await.unwrap();
        waiting.push(stream);
        until(async || server.metric("surprisal_admitted_queries").await == (count * 65_536) as f64).await;
    }
    server.until_running(REQUESTS as u64 * 2048).await;
    // The limit includes the queries that are in the engine, and the preparation of a request.
    check("waiting pairs", before, REQUESTS * 65_536 * 64);
}
