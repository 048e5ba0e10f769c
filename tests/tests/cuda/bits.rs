//! A query's result is bit-identical whatever the batch, the chunks, the state of the cache and the order of threads.

use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use surprisal_engine::cuda::{CudaConfig, Precision};
use surprisal_engine::{Query, SchedulerConfig};
use surprisal_kernels::cpu::Order;
use surprisal_tests::golden::{case, fixtures};
use surprisal_tests::tiny::{TinyLlama, random_queries};

use super::{ask, bits, config, engine, engine_with, errors};

/// Every architecture and option matches transformers within the error of bf16. Results are bit-identical whether a
/// query runs whole or in uneven chunks, alone or in a batch, with a cold or warm cache, and in different thread
/// orders.
#[test]
fn every_fixture_matches_transformers_in_any_chunks() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 15, "{} fixtures", fixtures.len());
    for dir in fixtures {
        matches_however_it_is_cut(&dir, Precision::Bf16, Precision::Bf16, (0.03, 0.2));
    }
}

/// Weights in FP8, from the checkpoint or quantized on load, and a cache in FP8 are less accurate, but results are
/// still bit-identical.
#[test]
fn fp8_has_the_same_bits_in_any_chunks() {
    let fixtures = fixtures();
    let named = |name: &str| fixtures.iter().find(|dir| dir.ends_with(name)).unwrap();
    for name in ["llama-fp8-block", "llama-fp8-fbgemm", "llama-fp8-tensor", "llama-bias"] {
        matches_however_it_is_cut(named(name), Precision::Fp8, Precision::Bf16, (0.3, 2.0));
    }
    for name in ["mistral-window", "qwen3"] {
        matches_however_it_is_cut(named(name), Precision::Bf16, Precision::Fp8, (0.2, 1.5));
    }
    matches_however_it_is_cut(named("llama-fp8-fbgemm"), Precision::Fp8, Precision::Fp8, (0.3, 2.0));
}

fn matches_however_it_is_cut(dir: &Path, weights: Precision, cache: Precision, limits: (f64, f64)) {
    let (tokens, want) = case(dir);
    let with = |token_budget: usize, max_running: usize| CudaConfig {
        weights,
        cache,
        ..config(16 << 20, SchedulerConfig { token_budget, max_running })
    };
    let query = Query::new(tokens, 1);
    let alone = &ask(&engine_with(dir, Order::Forward, with(1 << 10, 1)), std::slice::from_ref(&query))[0];
    let (mean, worst) = errors(&alone.logprobs, &want);
    let kind = match (weights, cache) {
        (Precision::Bf16, Precision::Bf16) => "bf16",
        (Precision::Fp8, Precision::Bf16) => "fp8",
        (Precision::Bf16, Precision::Fp8) => "bf16, cache fp8",
        (Precision::Fp8, Precision::Fp8) => "fp8, cache fp8",
    };
    println!("{:<20} {kind}: mean error {mean:.1e}, maximal {worst:.1e}", dir.file_name().unwrap().display());
    assert!(mean < limits.0 && worst < limits.1, "{}, {kind}: mean error {mean:e}, maximal {worst:e}", dir.display());
    let shorter = Query::new(query.tokens[..200].to_vec(), 5);
    let later = Query { score_from: 384, ..query.clone() };
    let busy = engine_with(dir, Order::Random(3), with(77, 3));
    for state in ["cold", "warm"] {
        let answers = ask(&busy, &[shorter.clone(), later.clone(), query.clone()]);
        let alone = bits(alone);
        assert_eq!(bits(&answers[0]), alone[4..199], "{}, {kind}, {state}", dir.display());
        assert_eq!(bits(&answers[1]), alone[383..], "{}, {kind}, {state}", dir.display());
        assert_eq!(bits(&answers[2]), alone, "{}, {kind}, {state}", dir.display());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    /// The cache is so small that blocks are evicted while other queries run. Chunks of one token use the decode
    /// kernel.
    #[test]
    fn same_query_same_bits(seed in any::<u64>(), count in 2usize..7, token_budget in 1usize..150, blocks in 7usize..20) {
        let model = TinyLlama { vocab: 300, layers: 2, ..TinyLlama::default() };
        let dir = tempfile::tempdir().unwrap();
        model.write(dir.path(), seed);
        let queries = random_queries(seed, count, 150);
        let alone: Vec<Vec<u32>> = queries
            .iter()
            .map(|query| {
                let whole = SchedulerConfig { token_budget: 1 << 10, max_running: 1 };
                bits(&ask(&engine(dir.path(), Order::Forward, 16 << 20, whole), std::slice::from_ref(query))[0])
            })
            .collect();
        let block = 2 * 2 * 32 * 2 * 64 * 2 + 96 * 2;
        let busy = engine(dir.path(), Order::Reverse, blocks * block, SchedulerConfig { token_budget, max_running: 5 });
        for round in 0..2 {
            for (i, scores) in ask(&busy, &queries).iter().enumerate() {
                prop_assert_eq!(&bits(scores), &alone[i], "round {}, query {}", round, i);
            }
        }
    }
}
