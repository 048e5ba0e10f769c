//! The engine on random Llamas: log-probabilities match float64, and are bit-identical whatever the batch, the chunks
//! and the state of the cache.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use futures_util::future::join_all;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use surprisal_engine::{
    CpuBackend, CpuConfig, Engine, GeneratedToken, Generation, PositionOptions, Query, QueryEvent, Sampling,
    SchedulerConfig, ScoreError, Scorer, Scores, Subset,
};
use surprisal_model::Checkpoint;
use surprisal_tests::reference;
use surprisal_tests::tiny::{TinyLlama, random_queries, random_tokens};

fn engine(dir: &std::path::Path, cache_bytes: usize, scheduler: SchedulerConfig) -> Engine {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let backend = CpuBackend::load(&checkpoint, CpuConfig { cache_bytes, ..CpuConfig::default() }).unwrap();
    let fingerprint = backend.fingerprint().to_owned();
    Engine::start("tiny".into(), fingerprint, backend.device(), backend, scheduler).unwrap()
}

#[tokio::main]
async fn score_all(engine: &Engine, queries: &[Query]) -> Vec<Scores> {
    let answers = join_all(queries.iter().map(|query| engine.score(query.clone()))).await;
    answers.into_iter().map(Result::unwrap).collect()
}

fn worst_error(model: &TinyLlama, tokens: usize, seed: u64) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let tensors = model.write(dir.path(), seed);
    let engine = engine(dir.path(), 64 << 20, SchedulerConfig { token_budget: 100, max_running: 4 });
    let tokens = random_tokens(&mut ChaCha8Rng::seed_from_u64(seed), model.vocab, tokens);
    let want = reference::logprobs(model, &tensors, &tokens);
    let got = score_all(&engine, &[Query::new(tokens, 1)]);
    assert_eq!(got[0].logprobs.len(), want.len());
    got[0].logprobs.iter().zip(&want).map(|(&got, want)| (f64::from(got) - want).abs()).fold(0.0, f64::max)
}

#[test]
fn a_random_llama_matches_float64() {
    let error = worst_error(&TinyLlama::default(), 512, 1);
    assert!(error < 2e-5, "maximal log-probability error {error:e}");
}

/// Covers head sizes that do not fill a panel, grouped heads of every ratio, tied embeddings and odd widths.
#[test]
fn every_shape_matches_float64() {
    let base = TinyLlama { layers: 2, ..TinyLlama::default() };
    let shapes = [
        TinyLlama { heads: 3, kv_heads: 3, head_dim: 20, hidden: 60, intermediate: 77, vocab: 100, ..base },
        TinyLlama { heads: 8, kv_heads: 1, head_dim: 16, hidden: 128, tied: true, ..base },
        TinyLlama { heads: 2, kv_heads: 1, head_dim: 64, hidden: 96, vocab: 1031, ..base },
        TinyLlama { heads: 2, kv_heads: 2, head_dim: 128, hidden: 64, tied: true, ..base },
    ];
    for (seed, shape) in shapes.iter().enumerate() {
        let error = worst_error(shape, 150, seed as u64);
        assert!(error < 2e-5, "{shape:?}: maximal log-probability error {error:e}");
    }
}

fn bits(scores: &Scores) -> Vec<u32> {
    scores.logprobs.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A query's result is bit-identical whether the query runs alone with a cold cache, in any batch, in any chunks,
    /// with a warm cache, or with a cache that has evicted blocks in between.
    #[test]
    fn same_query_same_bits(seed in any::<u64>(), count in 2usize..16, token_budget in 1usize..150, blocks in 8usize..40) {
        let model = TinyLlama { vocab: 300, layers: 2, ..TinyLlama::default() };
        let dir = tempfile::tempdir().unwrap();
        model.write(dir.path(), seed);
        let queries = random_queries(seed, count, 200);
        let alone: Vec<Vec<u32>> = queries
            .iter()
            .map(|query| {
                let cold = engine(dir.path(), 8 << 20, SchedulerConfig { token_budget: 1 << 20, max_running: 1 });
                bits(&score_all(&cold, std::slice::from_ref(query))[0])
            })
            .collect();
        // The cache is small: blocks are evicted while other queries run, and a second round finds only some of them.
        let block = (2 * 2 * 2 * 32 * 32 + 96) * 4;
        let busy = engine(dir.path(), blocks * block, SchedulerConfig { token_budget, max_running: 5 });
        for round in 0..2 {
            for (i, scores) in score_all(&busy, &queries).iter().enumerate() {
                prop_assert_eq!(&bits(scores), &alone[i], "round {}, query {}", round, i);
            }
        }
        for i in (0..queries.len()).rev() {
            let scores = score_all(&busy, &queries[i..=i]);
            prop_assert_eq!(&bits(&scores[0]), &alone[i], "once more, query {}", i);
        }
    }
}

#[test]
fn a_repeated_query_computes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    TinyLlama { vocab: 300, ..TinyLlama::default() }.write(dir.path(), 3);
    let engine = engine(dir.path(), 64 << 20, SchedulerConfig::default());
    let queries = random_queries(3, 40, 200);
    let first = score_all(&engine, &queries);
    let computed = engine.stats().computed_tokens;
    let second = score_all(&engine, &queries);
    assert!(computed > 0);
    assert_eq!(engine.stats().computed_tokens, computed);
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(bits(first), bits(second));
        assert_eq!(second.computed_tokens, 0);
    }
}

/// The most probable tokens, ranks, entropies and a subset's probability match float64. Requesting them does not change
/// the bits of the log-probabilities, with a cold cache or with a warm cache of which only the context is reused.
#[test]
fn position_details_match_float64() {
    let model = TinyLlama { vocab: 300, layers: 2, ..TinyLlama::default() };
    let dir = tempfile::tempdir().unwrap();
    let tensors = model.write(dir.path(), 5);
    let engine = engine(dir.path(), 64 << 20, SchedulerConfig { token_budget: 50, max_running: 4 });
    let tokens = random_tokens(&mut ChaCha8Rng::seed_from_u64(5), model.vocab, 150);
    let some: Vec<u32> = (0..300).filter(|id| id % 7 == 3).collect();
    let subset = Some(Arc::new(Subset::new(&some)));
    let query = Query {
        options: PositionOptions { top: 3, rank: true, entropy: true, subset },
        ..Query::new(tokens.clone(), 100)
    };
    let cold = score_all(&engine, std::slice::from_ref(&query)).remove(0);
    let plain = score_all(&engine, &[Query::new(tokens.clone(), 100)]).remove(0);
    let warm = score_all(&engine, std::slice::from_ref(&query)).remove(0);
    assert_eq!((bits(&cold), &cold.positions), (bits(&warm), &warm.positions));
    assert_eq!(bits(&cold), bits(&plain));
    assert_eq!((plain.computed_tokens, plain.positions.len()), (0, 0));
    // The context except its last token comes from the cache. The rest is recomputed, because the cache does not have
    // the details.
    assert_eq!((warm.cached_tokens, warm.computed_tokens, warm.recomputed_tokens), (99, 50, 50));
    assert_eq!((cold.recomputed_tokens, engine.stats().recomputed_tokens), (0, 50));
    let want = reference::distributions(&model, &tensors, &tokens);
    for ((position, want), &token) in cold.positions.iter().zip(&want[99..]).zip(&tokens[100..]) {
        let mut order: Vec<usize> = (0..model.vocab).collect();
        order.sort_by(|&a, &b| want[b].total_cmp(&want[a]));
        let rank = 1 + order.iter().position(|&id| id == token as usize).unwrap();
        assert_eq!(position.rank, Some(rank as u32));
        let entropy: f64 = -want.iter().map(|l| l.exp() * l).sum::<f64>();
        assert!((f64::from(position.entropy.unwrap()) - entropy).abs() < 2e-5);
        let mass = some.iter().map(|&id| want[id as usize].exp()).sum::<f64>().ln();
        assert!((f64::from(position.subset.unwrap()) - mass).abs() < 2e-5);
        for (&(id, logprob), &best) in position.top.iter().zip(&order) {
            assert_eq!(id as usize, best);
            assert!((f64::from(logprob) - want[best]).abs() < 2e-5);
        }
    }
}

/// The subset of all tokens has probability 1. The log-probability of a subset of one token is bit-identical to that of
/// the token.
#[test]
fn subsets_of_all_tokens_and_of_one_token_are_exact() {
    let model = TinyLlama { vocab: 300, layers: 1, ..TinyLlama::default() };
    let dir = tempfile::tempdir().unwrap();
    model.write(dir.path(), 7);
    let engine = engine(dir.path(), 64 << 20, SchedulerConfig::default());
    let mut tokens = random_tokens(&mut ChaCha8Rng::seed_from_u64(7), model.vocab, 60);
    let token = tokens[59];
    tokens[20] = token;
    let score_subset = |ids: &[u32]| {
        let options = PositionOptions { subset: Some(Arc::new(Subset::new(ids))), ..PositionOptions::default() };
        score_all(&engine, &[Query { options, ..Query::new(tokens.clone(), 1) }]).remove(0)
    };
    let all = score_subset(&(0..300).collect::<Vec<_>>());
    assert!(all.positions.iter().all(|position| (-1e-6..=0.0).contains(&position.subset.unwrap())), "{all:?}");
    let one = score_subset(&[token]);
    for at in [20, 59] {
        assert_eq!(one.positions[at - 1].subset.unwrap().to_bits(), one.logprobs[at - 1].to_bits());
    }
    assert_eq!(bits(&one), bits(&all));
    for (ids, largest) in [(vec![], None), (vec![3, 300], Some(300))] {
        let options = PositionOptions { subset: Some(Arc::new(Subset::new(&ids))), ..PositionOptions::default() };
        let error = score_error(&engine, Query { options, ..Query::new(vec![1, 2], 1) });
        assert_eq!(error, ScoreError::Subset { largest, limit: 300 });
    }
}

#[tokio::main]
async fn score_error(engine: &Engine, query: Query) -> ScoreError {
    engine.score(query).await.unwrap_err()
}

#[tokio::main]
async fn generate(engine: &Engine, query: &Query, generation: &Generation) -> (Scores, Vec<GeneratedToken>) {
    let mut events = engine.generate(query.clone(), generation.clone());
    let (mut scores, mut tokens) = (Scores::default(), Vec::new());
    while let Some(event) = events.recv().await {
        match event.unwrap() {
            QueryEvent::Scores(known) => scores = known,
            QueryEvent::Token(token) => tokens.push(token),
        }
    }
    (scores, tokens)
}

/// Greedy generation matches float64, a sampled token's log-probability has the same bits as when the token is scored,
/// and the seed determines the sampled tokens.
#[test]
fn generated_tokens_have_the_bits_of_scored_ones() {
    let model = TinyLlama { vocab: 300, layers: 2, ..TinyLlama::default() };
    let dir = tempfile::tempdir().unwrap();
    let tensors = model.write(dir.path(), 6);
    let prompt = random_tokens(&mut ChaCha8Rng::seed_from_u64(6), model.vocab, 40);
    let sampled = Sampling { temperature: 1.0, top_p: 0.9, top_k: 0, seed: 3 };
    for (sampling, chunks) in [(Sampling::GREEDY, 512), (sampled, 7)] {
        let scheduler = SchedulerConfig { token_budget: chunks, max_running: 4 };
        let fresh = || engine(dir.path(), 64 << 20, scheduler);
        let options = PositionOptions { top: 1, ..PositionOptions::default() };
        let generation = Generation { max_tokens: 60, sampling, stop: Vec::new(), options };
        let (first, query) = (fresh(), Query::new(prompt.clone(), 1));
        let (scores, tokens) = generate(&first, &query, &generation);
        assert_eq!((scores.logprobs.len(), tokens.len()), (39, 60));
        assert_eq!(generate(&first, &query, &generation).1, tokens, "from a warm cache");
        let whole: Vec<u32> = prompt.iter().copied().chain(tokens.iter().map(|token| token.id)).collect();
        let scored = score_all(&fresh(), &[Query::new(whole.clone(), 1)]).remove(0);
        let generated: Vec<u32> =
            scores.logprobs.iter().copied().chain(tokens.iter().map(|token| token.logprob)).map(f32::to_bits).collect();
        assert_eq!(bits(&scored), generated);
        if sampling == Sampling::GREEDY {
            for (want, token) in reference::distributions(&model, &tensors, &whole)[39..].iter().zip(&tokens) {
                let best = (0..model.vocab).max_by(|&a, &b| want[a].total_cmp(&want[b])).unwrap();
                assert_eq!((token.id as usize, token.position.top[0].0 as usize), (best, best));
            }
        } else {
            let other = Generation { sampling: Sampling { seed: 4, ..sampling }, ..generation };
            assert_ne!(generate(&first, &query, &other).1, tokens);
        }
    }
}

#[test]
fn a_dropped_future_cancels_its_query() {
    let dir = tempfile::tempdir().unwrap();
    TinyLlama::default().write(dir.path(), 4);
    let engine = engine(dir.path(), 64 << 20, SchedulerConfig { token_budget: 8, max_running: 1 });
    let queries = random_queries(4, 30, 200);
    for query in &queries {
        drop(engine.score(query.clone()));
    }
    score_all(&engine, &queries[..1]);
    let stats = engine.stats();
    assert!(stats.cancelled_queries > 0, "{stats:?}");
    assert_eq!((stats.waiting_queries, stats.running_queries, stats.active_blocks), (0, 0, 0));
}

/// Histograms count each query once, and each forward pass with its tokens and queries.
#[test]
fn histograms_count_queries_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    TinyLlama { vocab: 300, ..TinyLlama::default() }.write(dir.path(), 8);
    let engine = engine(dir.path(), 64 << 20, SchedulerConfig { token_budget: 64, max_running: 4 });
    score_all(&engine, &random_queries(8, 30, 200));
    let stats = engine.stats();
    assert_eq!((stats.queue_seconds.count(), stats.prefill_seconds.count()), (30, 30));
    assert_eq!((stats.pass_tokens.count(), stats.pass_queries.count()), (stats.forward_passes, stats.forward_passes));
    assert_eq!(stats.pass_tokens.sum(), stats.computed_tokens as f64);
    assert_eq!(stats.pass_seconds.count(), stats.forward_passes);
    let (_, at_most_64) = stats.pass_tokens.cumulative().find(|bucket| bucket.0 == 64.0).unwrap();
    assert_eq!(at_most_64, stats.forward_passes);
}
