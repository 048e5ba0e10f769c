//! Guarantees to clients, tested over a real socket with a real model.

#![allow(clippy::unwrap_used)]

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use surprisal_engine::SchedulerConfig;
use surprisal_server::ServerConfig;
use surprisal_tests::reference;
use surprisal_tests::server::{TestServer, bits};
use surprisal_tests::tiny::{Tensors, TinyLlama, random_tokens};

const MODEL: TinyLlama = TinyLlama {
    vocab: 300,
    hidden: 64,
    intermediate: 96,
    layers: 2,
    heads: 4,
    kv_heads: 2,
    head_dim: 32,
    tied: true,
    max_positions: 200,
};

async fn serve() -> (tempfile::TempDir, Tensors, TestServer) {
    let dir = tempfile::tempdir().unwrap();
    let tensors = MODEL.write(dir.path(), 1);
    let server = TestServer::start(dir.path(), SchedulerConfig::default(), ServerConfig::default()).await;
    (dir, tensors, server)
}

fn words(tokens: &[u32]) -> String {
    tokens.iter().map(|token| format!("t{token} ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_and_token_ids_give_the_same_bits() {
    let (_dir, tensors, server) = serve().await;
    let tokens = random_tokens(&mut ChaCha8Rng::seed_from_u64(1), MODEL.vocab, 40);
    let (context, target) = (&tokens[1..30], &tokens[30..]);
    let queries = json!({
        "queries": [
            {"id": "text", "context": words(context), "target": words(target)},
            {"id": "ids", "context": context, "target": target},
            {"id": "bos", "context": &tokens[..30], "target": target},
        ],
        "detail": "tokens",
    });
    let answer = server.logprobs(&queries).await;
    let want = reference::logprobs(&MODEL, &tensors, &tokens);
    for (result, id) in answer["results"].as_array().unwrap().iter().zip(["text", "ids", "bos"]) {
        assert_eq!(result["id"], id);
        assert_eq!(result["token_ids"], json!(target));
        assert_eq!(bits(result), bits(&answer["results"][0]));
        for (got, want) in bits(result).into_iter().map(f32::from_bits).zip(&want[29..]) {
            assert!((f64::from(got) - want).abs() < 2e-5, "{got} {want}");
        }
        let sum: f64 = bits(result).into_iter().map(|bits| f64::from(f32::from_bits(bits))).sum();
        assert_eq!(result["sum"].as_f64().unwrap(), sum);
    }
    assert_eq!(answer["usage"]["scored_tokens"], 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_equal_separate_queries() {
    let (_dir, _, server) = serve().await;
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut texts = |count, length| -> Vec<Vec<u32>> {
        (0..count).map(|_| random_tokens(&mut rng, MODEL.vocab, length)[1..].to_vec()).collect()
    };
    let (contexts, targets) = (texts(3, 70), texts(5, 9));
    let all = server.logprobs(&json!({"contexts": contexts, "targets": targets, "detail": "tokens"})).await;
    let some = json!({"contexts": contexts, "targets": targets, "pairs": [[2, 4], [0, 1]], "detail": "tokens"});
    let some = server.logprobs(&some).await;
    let queries: Vec<Value> =
        contexts.iter().flat_map(|c| targets.iter().map(move |t| json!({"context": c, "target": t}))).collect();
    let apart = server.logprobs(&json!({"queries": queries, "detail": "tokens"})).await;
    for (at, (pair, query)) in
        all["results"].as_array().unwrap().iter().zip(apart["results"].as_array().unwrap()).enumerate()
    {
        assert_eq!(pair["pair"], json!([at / 5, at % 5]));
        assert_eq!(bits(pair), bits(query));
    }
    assert_eq!(some["results"][0]["pair"], json!([2, 4]));
    assert_eq!(bits(&some["results"][0]), bits(&all["results"][14]));
    assert_eq!(bits(&some["results"][1]), bits(&all["results"][1]));
    // Each of the 3 contexts, with its BOS, was computed once. For each of the 15 targets, the last token of the
    // context was computed again, and all tokens of the target except the last.
    let computed = all["usage"]["computed_tokens"].as_u64().unwrap();
    assert!(computed <= 3 * 70 + 15 * 8, "{computed} tokens were computed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_identical_request_recomputes_nothing() {
    let (_dir, _, server) = serve().await;
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let query = |rng: &mut ChaCha8Rng| {
        let length = rng.random_range(2..150);
        json!({"context": random_tokens(rng, MODEL.vocab, length), "target": random_tokens(rng, MODEL.vocab, 7)[1..]})
    };
    let queries: Vec<Value> = (0..30).map(|_| query(&mut rng)).collect();
    let request = json!({"queries": queries, "detail": "tokens"});
    let first = server.logprobs(&request).await;
    let computed = server.metric("surprisal_computed_tokens_total").await;
    let second = server.logprobs(&request).await;
    assert!(computed > 0.0);
    assert_eq!(server.metric("surprisal_computed_tokens_total").await, computed);
    assert_eq!(second["usage"]["computed_tokens"], 0);
    for (first, second) in first["results"].as_array().unwrap().iter().zip(second["results"].as_array().unwrap()) {
        assert_eq!(bits(first), bits(second));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_clients_get_correct_results() {
    let (_dir, tensors, server) = serve().await;
    let texts: Vec<Vec<u32>> =
        (0..8).map(|seed| random_tokens(&mut ChaCha8Rng::seed_from_u64(seed), MODEL.vocab, 120)).collect();
    let want: Vec<Vec<f64>> = texts.iter().map(|text| reference::logprobs(&MODEL, &tensors, text)).collect();
    let client = async |client: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(100 + client as u64);
        for _ in 0..4 {
            let text = rng.random_range(0..texts.len());
            let end = rng.random_range(3..=120);
            let start = rng.random_range(1..end);
            let query = json!({"context": texts[text][..start], "target": texts[text][start..end]});
            let answer = server.logprobs(&json!({"queries": [query], "detail": "tokens"})).await;
            let got = bits(&answer["results"][0]);
            assert_eq!(got.len(), end - start);
            for (got, want) in got.into_iter().map(f32::from_bits).zip(&want[text][start - 1..]) {
                assert!((f64::from(got) - want).abs() < 2e-5, "client {client}: {got} {want}");
            }
        }
    };
    join_all((0..64).map(client)).await;
}

/// Each kind of bad input, including input beyond the engine's limits, gets a problem document that names the cause.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_a_clear_problem() {
    let (_dir, _, server) = serve().await;
    let long: Vec<u32> = vec![5; 200];
    for (body, status, kind, field) in [
        (json!({"queries": [{"target": "t1", "taget": "t2"}]}), 400, "invalid-field", Some("queries[0]")),
        (json!({"queries": [{"target": "t1"}, {"target": ""}]}), 400, "empty-target", Some("queries[1].target")),
        (json!({"queries": [{"target": [1, 300]}]}), 400, "token-out-of-range", Some("queries[0].target[1]")),
        (json!({"queries": [{"target": long}]}), 400, "sequence-too-long", None),
        (json!({"contexts": [""], "targets": ["t1"], "pairs": [[0, 1]]}), 400, "pair-out-of-range", Some("pairs[0]")),
        (json!({"queries": [{"target": "t1"}], "bos": "none"}), 400, "", None),
        (json!({"model": "other", "queries": [{"target": "t1"}]}), 404, "model-not-found", Some("model")),
    ] {
        let (found, problem) = server.post("/logprobs", &body).await;
        assert_eq!(found.as_u16(), status, "{body}: {problem}");
        assert!(problem["type"].as_str().unwrap().contains(kind), "{body}: {problem}");
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        if let Some(field) = field {
            assert!(problem["field"].as_str().unwrap().starts_with(field), "{body}: {problem}");
        }
    }
    // The server still works.
    server.logprobs(&json!({"queries": [{"target": "t1 t2"}]})).await;
    server.stop().await;
}
