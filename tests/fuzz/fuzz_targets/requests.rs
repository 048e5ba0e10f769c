//! Fuzzing of the whole router: the response to a hostile request must be a result or a problem document, never a 5xx
//! status. The first byte of an input selects the route, the encoding of the body and the format of the response. The
//! other bytes are the body.

#![no_main]

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use libfuzzer_sys::{Corpus, fuzz_target};
use surprisal_api::{Problem, TokenizerInfo};
use surprisal_engine::{Backend, BackendError, Engine, ForwardBatch, Limits, SchedulerConfig, TokenChoice, TokenScore};
use surprisal_model::Piece;
use surprisal_server::{App, ServerConfig, TextCodec, router};
use tokio::runtime::Runtime;
use tower::ServiceExt;

const ROUTES: [&str; 5] = ["/logprobs", "/v1/completions", "/generate", "/tokenize", "/detokenize"];
const ENCODINGS: [&str; 3] = ["identity", "gzip", "zstd"];

/// A model that gives every token the same log-probability. The engine that runs the model is real.
struct Flat;

impl Backend for Flat {
    fn limits(&self) -> Limits {
        Limits { vocab_size: 257, max_length: 64, blocks: 16 }
    }

    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError> {
        let token = |choice| if let TokenChoice::Given(token) = choice { token } else { 97 };
        let score = |choice, options: &surprisal_engine::PositionOptions| {
            let position = (!options.is_empty()).then(Box::default);
            TokenScore { token: token(choice), logprob: -5.5, position }
        };
        Ok(batch.scores.iter().map(|row| score(row.choice, &row.options)).collect())
    }
}

/// A tokenizer with one token per byte; 256 is BOS.
struct Bytes;

impl TextCodec for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<[usize; 2]>), String> {
        Ok((self.encode(text)?, (0..text.len()).map(|at| [at, at + 1]).collect()))
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        let bytes: Vec<u8> = tokens.iter().filter_map(|&token| u8::try_from(token).ok()).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn piece(&self, token: u32) -> Piece {
        Piece { bytes: u8::try_from(token).into_iter().collect(), is_special: token >= 256 }
    }

    fn prefix(&self) -> &[u32] {
        &[256]
    }

    fn info(&self) -> TokenizerInfo {
        TokenizerInfo::default()
    }
}

static SERVER: LazyLock<(Runtime, Router)> = LazyLock::new(|| {
    let words = || "flat".to_owned();
    let engine = Engine::start(words(), words(), words(), Flat, SchedulerConfig::default()).expect("a thread starts");
    let config =
        ServerConfig { max_body_bytes: 1 << 20, max_queries: 64, max_waiting_tokens: 4096, ..ServerConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    (runtime, router(App::new(Arc::new(engine), Arc::new(Bytes), config)))
});

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((&first, body)) = input.split_first() else { return Corpus::Reject };
    let first = usize::from(first);
    let request = Request::post(ROUTES[first % ROUTES.len()])
        .header("content-type", "application/json")
        .header("content-encoding", ENCODINGS[first / ROUTES.len() % ENCODINGS.len()])
        .header("accept", if first >= 128 { "application/x-ndjson" } else { "*/*" })
        .body(Body::from(body.to_vec()))
        .expect("the request is well-formed");
    let (runtime, router) = &*SERVER;
    runtime.block_on(async {
        let answer = router.clone().oneshot(request).await.expect("a router always answers");
        let status = answer.status();
        let body = to_bytes(answer.into_body(), usize::MAX).await.expect("the response is read");
        assert!(!status.is_server_error(), "{status}: {}", String::from_utf8_lossy(&body));
        if !status.is_success() {
            let problem: Problem = serde_json::from_slice(&body).expect("a problem is JSON");
            assert_eq!(problem.status, status.as_u16());
        }
    });
    Corpus::Keep
});
