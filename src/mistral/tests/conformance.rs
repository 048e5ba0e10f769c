//! Tests that compare mistralrs' log-probabilities with those of transformers in float64 and of the native engine, and
//! check that no query is lost.
//!
//! The bound is 5e-4 nats in f32 up to 2048 tokens, because mistralrs' rotary angles are f32.

#![cfg(feature = "mistralrs")]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use surprisal_engine::{CpuBackend, CpuConfig, Engine, PositionOptions, Query, SchedulerConfig, ScoreError, Scorer};
use surprisal_mistral::{LoadError, MistralScorer, Source};
use surprisal_model::Checkpoint;
use surprisal_tests::tiny::{TinyLlama, decode_bytes, random_tokens};
use tempfile::TempDir;

const BOUND: f64 = 5e-4;

const VOCABULARY: usize = 128;

/// The golden checkpoints that mistralrs does not load, and the reason in its error. The native engine serves them.
const REFUSED: [(&str, &str); 15] = [
    ("llama-bf16", OWN_HEAD_DIM),
    ("llama-bias", OWN_HEAD_DIM),
    ("llama-default", OWN_HEAD_DIM),
    ("llama-dynamic", "unknown variant `dynamic`"),
    ("llama-f16", OWN_HEAD_DIM),
    ("llama-fp8-block", OWN_HEAD_DIM),
    ("llama-fp8-compressed", "Unknown quantization method: compressed-tensors"),
    ("llama-fp8-fbgemm", "Unknown quantization method: fbgemm_fp8"),
    ("llama-fp8-tensor", "Unknown quantization method: compressed-tensors"),
    ("llama-headdim-256", OWN_HEAD_DIM),
    ("llama-linear", OWN_HEAD_DIM),
    ("llama-llama3", OWN_HEAD_DIM),
    ("llama-sharded", OWN_HEAD_DIM),
    ("llama-tied", OWN_HEAD_DIM),
    ("llama-yarn", "unknown variant `yarn`"),
];

/// The reason mistralrs does not load a Llama whose head_dim is not hidden_size / num_attention_heads.
const OWN_HEAD_DIM: &str = "shape mismatch for model.layers.0.self_attn.q_proj.weight";

/// A shape that mistralrs' Llama supports.
const LLAMA: TinyLlama = TinyLlama {
    vocab: 128,
    hidden: 64,
    intermediate: 96,
    layers: 2,
    heads: 4,
    kv_heads: 2,
    head_dim: 16,
    tied: false,
    max_positions: 4096,
};

/// Copies a checkpoint and prepares it for mistralrs, with a tokenizer and the older form of the rope settings.
fn prepared(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = to.path().join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let rope = config["rope_parameters"].take();
    if rope.is_object() {
        config["rope_theta"] = rope["rope_theta"].clone();
        if rope["rope_type"] != "default" {
            config["rope_scaling"] = rope;
        }
    }
    std::fs::write(&path, config.to_string()).unwrap();
    let size = config["vocab_size"].as_u64().unwrap();
    let vocabulary: serde_json::Map<String, Value> = (0..size).map(|id| (format!("t{id}"), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": {"type": "ByteFallback"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t2"},
    });
    std::fs::write(to.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    to
}

async fn scorer(dir: &Path, isq: Option<&str>) -> Result<MistralScorer, LoadError> {
    let source = Source { path: dir.to_owned(), isq: isq.map(str::to_owned) };
    MistralScorer::load("golden".into(), &source, None).await
}

fn native(dir: &Path) -> Engine {
    let backend = CpuBackend::load(&Checkpoint::open(dir).unwrap(), CpuConfig::default()).unwrap();
    let (fingerprint, device) = (backend.fingerprint().to_owned(), backend.device());
    Engine::start("native".into(), fingerprint, device, backend, SchedulerConfig::default()).unwrap()
}

fn largest_difference(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(&got, want)| (f64::from(got) - want).abs()).fold(0.0, f64::max)
}

fn fixtures() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("../../tests/golden").unwrap().map(|entry| entry.unwrap().path());
    let mut fixtures: Vec<_> = entries.filter(|path| path.join("expected.json").exists()).collect();
    fixtures.sort();
    fixtures
}

/// Writes a random Llama with extra settings in its config.json, and returns its folder.
fn llama(model: TinyLlama, settings: Value) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    model.write(dir.path(), 3);
    decode_bytes(dir.path());
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    std::fs::write(&path, config.to_string()).unwrap();
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_checkpoints_match_transformers_or_are_rejected_for_a_known_reason() {
    let mut matched = Vec::new();
    for dir in fixtures() {
        let name = dir.file_name().unwrap().to_str().unwrap();
        let copy = prepared(&dir);
        let loaded = scorer(copy.path(), None).await;
        if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            let error = loaded
                .err()
                .unwrap_or_else(|| panic!("mistralrs now loads {name}; remove it from REFUSED"))
                .to_string();
            assert!(error.contains(reason) && !error.contains('\n'), "{name}: {error}");
            continue;
        }
        let scorer = loaded.unwrap();
        let text = std::fs::read_to_string(dir.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        for case in expected["cases"].as_array().unwrap() {
            let tokens = case["tokens"].as_array().unwrap().iter().map(|token| token.as_u64().unwrap() as u32);
            let tokens: Vec<u32> = tokens.take(scorer.describe().max_length).collect();
            let want: Vec<f64> = case["logprobs"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
            let length = tokens.len();
            let got = scorer.score(Query::new(tokens, 1)).await.unwrap();
            let error = largest_difference(&got.logprobs, &want[..length - 1]);
            println!("{name:<16} {length:>5} tokens, largest error {error:.1e}");
            assert!(error < BOUND, "{name}: {error:e}");
        }
        matched.push(name.to_owned());
    }
    assert_eq!(matched, ["mistral-plain", "mistral-window", "qwen2", "qwen3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn llamas_of_every_supported_rope_type_match_the_native_engine() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256});
    for (name, settings) in [
        ("default", json!({})),
        ("linear", json!({"rope_scaling": {"rope_type": "linear", "factor": 4.0}})),
        ("llama3", json!({"rope_scaling": llama3})),
    ] {
        let dir = llama(LLAMA, settings);
        let (scorer, native) = (scorer(dir.path(), None).await.unwrap(), native(dir.path()));
        for length in [512, 2048] {
            let tokens = random_tokens(&mut ChaCha8Rng::seed_from_u64(4), VOCABULARY, length);
            let query = Query::new(tokens, 1);
            let want = native.score(query.clone()).await.unwrap();
            let want: Vec<f64> = want.logprobs.iter().map(|&x| f64::from(x)).collect();
            let error = largest_difference(&scorer.score(query).await.unwrap().logprobs, &want);
            println!("llama {name:<10} {length:>5} tokens, largest difference {error:.1e}");
            assert!(error < BOUND, "{name}: {error:e}");
        }
    }
}

/// Checks that sequences are limited to the sliding window, because mistralrs' log-probabilities are wrong beyond it.
#[tokio::test(flavor = "multi_thread")]
async fn no_sequence_is_longer_than_a_sliding_window() {
    let dir = prepared(Path::new("../../tests/golden/mistral-window"));
    let scorer = scorer(dir.path(), None).await.unwrap();
    let query = Query::new(vec![0; 97], 1);
    assert_eq!(scorer.score(query).await, Err(ScoreError::TooLong { len: 97, limit: 96 }));
}

/// Scores 500 queries at once, with mixed lengths of query and context. Each answer matches the native engine's.
#[tokio::test(flavor = "multi_thread")]
async fn no_query_is_lost_and_all_agree_with_the_native_engine() {
    let dir = llama(LLAMA, json!({}));
    let (scorer, native) = (scorer(dir.path(), None).await.unwrap(), native(dir.path()));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let queries: Vec<Query> = (0..500)
        .map(|call| {
            let length = if call % 100 == 99 { 2048 } else { rng.random_range(2..120) };
            let tokens = random_tokens(&mut rng, VOCABULARY, length);
            Query::new(tokens, rng.random_range(1..length))
        })
        .collect();
    let got = join_all(queries.iter().map(|query| scorer.score(query.clone()))).await;
    let want = join_all(queries.iter().map(|query| native.score(query.clone()))).await;
    let mut worst = 0.0f64;
    for ((got, want), query) in got.into_iter().zip(want).zip(&queries) {
        let (got, want) = (got.unwrap(), want.unwrap());
        assert_eq!(got.computed_tokens, query.tokens.len());
        let want: Vec<f64> = want.logprobs.iter().map(|&x| f64::from(x)).collect();
        worst = worst.max(largest_difference(&got.logprobs, &want));
    }
    println!("500 queries, largest difference {worst:.1e}");
    assert!(worst < BOUND, "{worst:e}");
    assert_eq!(scorer.stats().finished_queries, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_queries_do_not_affect_others_and_invalid_ones_are_rejected() {
    let dir = llama(LLAMA, json!({}));
    let scorer = scorer(dir.path(), None).await.unwrap();
    let query = |length| Query::new(random_tokens(&mut ChaCha8Rng::seed_from_u64(7), VOCABULARY, length), 1);
    let want = scorer.score(query(40)).await.unwrap();
    for wait in [0, 1, 5, 20] {
        let gone = join_all((0..3).map(|_| scorer.score(query(700))));
        let _ = tokio::time::timeout(std::time::Duration::from_millis(wait), gone).await;
        assert_eq!(scorer.score(query(40)).await.unwrap(), want);
    }
    let stats = scorer.stats();
    assert_eq!((stats.waiting_queries, stats.running_queries), (0, 0));
    for (query, error) in [
        (Query::new(vec![1, 2], 0), ScoreError::NoContext(0)),
        (Query::new(vec![1, 2], 2), ScoreError::NothingToScore { score_from: 2, len: 2 }),
        (
            Query { options: PositionOptions { rank: true, ..PositionOptions::default() }, ..query(9) },
            ScoreError::Unsupported("return alternatives, ranks, entropies or subsets"),
        ),
        (query(5000), ScoreError::TooLong { len: 5000, limit: 4096 }),
        (Query::new(vec![1, 128], 1), ScoreError::TokenOutOfRange { token: 128, position: 1, limit: 128 }),
    ] {
        assert_eq!(scorer.score(query).await, Err(error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_quantized_on_load() {
    let model = TinyLlama { vocab: 512, hidden: 128, intermediate: 256, head_dim: 32, ..LLAMA };
    let dir = llama(model, json!({}));
    let query = Query::new(random_tokens(&mut ChaCha8Rng::seed_from_u64(2), 512, 200), 1);
    let want: Vec<f64> =
        native(dir.path()).score(query.clone()).await.unwrap().logprobs.iter().map(|&x| f64::from(x)).collect();
    let exact = scorer(dir.path(), None).await.unwrap();
    let quantized = scorer(dir.path(), Some("q8_0")).await.unwrap();
    assert_ne!(exact.describe().fingerprint, quantized.describe().fingerprint);
    let error = largest_difference(&exact.score(query.clone()).await.unwrap().logprobs, &want);
    assert!(error < BOUND, "{error:e}");
    let error = largest_difference(&quantized.score(query).await.unwrap().logprobs, &want);
    println!("q8_0: largest difference {error:.1e}");
    assert!(error > BOUND && error < 0.5, "{error:e}");
    let unknown = scorer(dir.path(), Some("q99")).await.err().unwrap().to_string();
    assert!(unknown.contains("q99"), "{unknown}");
}
