//! Benchmarks the server with a model that responds immediately: tokenization, parsing, validation and serialization.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use surprisal_api::{ARROW_STREAM, Detail, LogprobsRequest, LogprobsResponse, NDJSON, QuerySpec, Text};
use surprisal_engine::{Generation, ModelCard, Query, QueryEvents, ScoreFuture, Scorer, Scores, Stats};
use surprisal_model::{TextTokenizer, Vocabulary};
use surprisal_server::{App, ServerConfig, router};
use tower::ServiceExt;

/// Queries per request.
const QUERIES: usize = 64;

/// Tokens per context.
const CONTEXT: usize = 256;

/// Tokens per target.
const TARGET: usize = 64;

/// A model that responds immediately.
struct Uniform(ModelCard);

impl Scorer for Uniform {
    fn score(&self, query: Query) -> ScoreFuture<'_> {
        let computed_tokens = query.tokens.len();
        // Values with about eight digits in JSON, like real log-probabilities.
        let logprobs = query.tokens[query.score_from..].iter().map(|&token| -(token as f32 + 1.1).ln()).collect();
        Box::pin(async move { Ok(Scores { logprobs, computed_tokens, ..Scores::default() }) })
    }

    fn generate(&self, _: Query, _: Generation) -> QueryEvents {
        QueryEvents::from(tokio::sync::mpsc::channel(1).1)
    }

    fn is_alive(&self) -> bool {
        true
    }

    fn describe(&self) -> &ModelCard {
        &self.0
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }
}

/// Writes a byte-level BPE tokenizer of lower-case letters, with a merge for each pair of letters and for each space
/// before a letter. Returns the size of its vocabulary.
fn write_tokenizer(dir: &Path) -> usize {
    let letters = || ('a'..='z').map(String::from);
    let merges: Vec<(String, String)> =
        letters().chain(["\u{120}".to_owned()]).flat_map(|a| letters().map(move |b| (a.clone(), b))).collect();
    let words = letters().chain(["\u{120}".to_owned()]).chain(merges.iter().map(|(a, b)| format!("{a}{b}")));
    let vocabulary: serde_json::Map<_, _> = words.enumerate().map(|(id, word)| (word, json!(id))).collect();
    let size = vocabulary.len();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    });
    std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).expect("the tokenizer is written");
    size
}

/// Returns random words of one to nine letters, at least `bytes` long in total.
fn prose(rng: &mut ChaCha8Rng, bytes: usize) -> String {
    let mut text = String::new();
    while text.len() < bytes {
        let word = (0..rng.random_range(1..10)).map(|_| char::from(rng.random_range(b'a'..=b'z')));
        text.extend(word);
        text.push(' ');
    }
    text
}

fn request(text: impl Fn(usize) -> Text) -> LogprobsRequest {
    let queries = (0..QUERIES).map(|_| QuerySpec::new(text(CONTEXT), text(TARGET))).collect();
    LogprobsRequest { queries: Some(queries), detail: Detail::Tokens, ..LogprobsRequest::default() }
}

/// Returns the body of the server's response, whose status must be 200.
fn post(runtime: &tokio::runtime::Runtime, router: &Router, body: &[u8], accept: &str) -> Vec<u8> {
    let request = Request::post("/logprobs").header(header::CONTENT_TYPE, "application/json");
    let request = request.header(header::ACCEPT, accept).body(Body::from(body.to_vec())).expect("a request");
    runtime.block_on(async {
        let answer = router.clone().oneshot(request).await.expect("a router always answers");
        assert_eq!(answer.status(), StatusCode::OK);
        to_bytes(answer.into_body(), usize::MAX).await.expect("a whole answer").into()
    })
}

/// Times the tokenizer on a text.
fn bench_tokenizer(criterion: &mut Criterion, tokenizer: &TextTokenizer, text: &str) {
    let mut group = criterion.benchmark_group("tokenizer");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("encode 64 KiB", |bencher| bencher.iter(|| tokenizer.encode(black_box(text))));
    let with_offsets = |bencher: &mut criterion::Bencher<'_>| {
        bencher.iter(|| tokenizer.encode_with_offsets(black_box(text)));
    };
    group.bench_function("encode 64 KiB, with offsets", with_offsets);
    group.finish();
}

/// Times requests of token ids and of texts, in each response format.
fn bench_logprobs(criterion: &mut Criterion, router: &Router, ids: &[u8], words: &[u8]) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("logprobs");
    group.throughput(Throughput::Elements((QUERIES * TARGET) as u64));
    group.bench_function("parse a request of token ids", |bencher| {
        bencher.iter(|| serde_json::from_slice::<LogprobsRequest>(black_box(ids)));
    });
    let answer: LogprobsResponse =
        serde_json::from_slice(&post(&runtime, router, ids, "application/json")).expect("an answer");
    group.bench_function("write an answer", |bencher| bencher.iter(|| serde_json::to_vec(black_box(&answer))));
    group.bench_function("token ids, answered in JSON", |bencher| {
        bencher.iter(|| post(&runtime, router, ids, "application/json"));
    });
    group.bench_function("texts, answered in JSON", |bencher| {
        bencher.iter(|| post(&runtime, router, words, "application/json"));
    });
    group.bench_function("token ids, answered in NDJSON", |bencher| {
        bencher.iter(|| post(&runtime, router, ids, NDJSON));
    });
    if cfg!(feature = "arrow") {
        group.bench_function("token ids, answered in Arrow", |bencher| {
            bencher.iter(|| post(&runtime, router, ids, ARROW_STREAM));
        });
    }
    group.finish();
}

fn benches(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let size = write_tokenizer(dir.path());
    let open_tokenizer = || {
        let vocabulary = Vocabulary::read(dir.path(), size).expect("the vocabulary is read");
        TextTokenizer::open(dir.path(), vocabulary).expect("the tokenizer opens")
    };
    let text = prose(&mut ChaCha8Rng::seed_from_u64(1), 64 * 1024);
    bench_tokenizer(criterion, &open_tokenizer(), &text);

    let card = ModelCard {
        id: "uniform".to_owned(),
        fingerprint: "uniform".to_owned(),
        vocab_size: size,
        max_length: 8192,
        device: "none".to_owned(),
    };
    let router = router(App::new(Arc::new(Uniform(card)), Arc::new(open_tokenizer()), ServerConfig::default()));
    let ids = |length: usize| Text::from((0..length as u32).map(|id| id * id % size as u32).collect::<Vec<_>>());
    let words = |length: usize| Text::from(text[..2 * length].trim());
    bench_logprobs(criterion, &router, &json_of(&request(ids)), &json_of(&request(words)));
}

fn json_of(request: &LogprobsRequest) -> Vec<u8> {
    serde_json::to_vec(request).expect("a request is JSON")
}

criterion_group!(all, benches);
criterion_main!(all);
