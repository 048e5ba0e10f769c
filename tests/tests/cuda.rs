//! The CUDA backend on the CPU shim: right to float64, and the same bits whatever the batch, the chunks and the cache.
//!
//! With `SURPRISAL_TEST_GPU=N` its engines run on that GPU instead, all tests as they are.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use surprisal_engine::cuda::{Accelerator, CudaBackend, CudaConfig, Gpu, Precision, Product, ROW_TILE, Shim};
use surprisal_engine::{
    Engine, GeneratedToken, Generation, LoadError, PositionOptions, Query, QueryEvent, Sampling, SchedulerConfig,
    Scorer, Scores, Subset,
};
use surprisal_kernels::cpu::Order;
use surprisal_model::Checkpoint;
use surprisal_tests::reference;
use surprisal_tests::tiny::{Tensors, TinyLlama, random_tokens};

const MEMORY: usize = 256 << 20;

fn config(cache_bytes: usize, scheduler: SchedulerConfig) -> CudaConfig {
    CudaConfig {
        weights: Precision::Bf16,
        cache: Precision::Bf16,
        cache_bytes: Some(cache_bytes),
        max_length: Some(1024),
        batch_tokens: scheduler.token_budget,
        batch_sequences: scheduler.max_running,
    }
}

fn load(
    dir: &Path,
    order: Order,
    cache_bytes: usize,
    scheduler: SchedulerConfig,
) -> Result<CudaBackend<Shim>, LoadError> {
    CudaBackend::load(Shim::new(MEMORY, order), &Checkpoint::open(dir).unwrap(), config(cache_bytes, scheduler))
}

fn engine(dir: &Path, order: Order, cache_bytes: usize, scheduler: SchedulerConfig) -> Engine {
    engine_with(dir, order, config(cache_bytes, scheduler))
}

fn engine_with(dir: &Path, order: Order, config: CudaConfig) -> Engine {
    let scheduler = SchedulerConfig { token_budget: config.batch_tokens, max_running: config.batch_sequences };
    let checkpoint = Checkpoint::open(dir).unwrap();
    match gpu() {
        Some(gpu) => start(CudaBackend::load(gpu, &checkpoint, config).unwrap(), scheduler),
        None => start(CudaBackend::load(Shim::new(MEMORY, order), &checkpoint, config).unwrap(), scheduler),
    }
}

/// The one that the tests were told to run on.
fn gpu() -> Option<Gpu> {
    let index = std::env::var("SURPRISAL_TEST_GPU").ok()?;
    let kernels = std::env::temp_dir().join("surprisal-test-kernels");
    Some(Gpu::open(index.parse().unwrap(), Some(&kernels)).unwrap())
}

fn start<A: Accelerator>(backend: CudaBackend<A>, scheduler: SchedulerConfig) -> Engine {
    Engine::start("tiny".into(), backend.fingerprint().to_owned(), backend.device(), backend, scheduler).unwrap()
}

#[tokio::main]
async fn ask(engine: &Engine, queries: &[Query]) -> Vec<Scores> {
    let answers = join_all(queries.iter().map(|query| engine.score(query.clone()))).await;
    answers.into_iter().map(Result::unwrap).collect()
}

fn bits(scores: &Scores) -> Vec<u32> {
    scores.logprobs.iter().map(|x| x.to_bits()).collect()
}

/// The values that bf16 weights have.
fn rounded(mut tensors: Tensors) -> Tensors {
    for value in tensors.values_mut().flat_map(|(_, values)| values) {
        let bits = value.to_bits();
        *value = f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000);
    }
    tensors
}

/// The mean and the largest error of log-probabilities.
fn errors(got: &[f32], want: &[f64]) -> (f64, f64) {
    assert_eq!(got.len(), want.len());
    let errors: Vec<f64> = got.iter().zip(want).map(|(&got, want)| (f64::from(got) - want).abs()).collect();
    assert!(errors.iter().all(|error| error.is_finite()));
    (errors.iter().sum::<f64>() / errors.len() as f64, errors.into_iter().fold(0.0, f64::max))
}

/// Every head size of the kernels and padded ones, groups of every kind, tied embeddings; against float64 on the same
/// bf16 weights, so what is left is the rounding of activations.
#[test]
fn every_shape_matches_float64() {
    let base = TinyLlama { layers: 2, intermediate: 200, ..TinyLlama::default() };
    let shapes = [
        TinyLlama { heads: 4, kv_heads: 2, head_dim: 64, ..base },
        TinyLlama { heads: 3, kv_heads: 3, head_dim: 20, hidden: 64, vocab: 101, ..base },
        TinyLlama { heads: 2, kv_heads: 1, head_dim: 96, tied: true, ..base },
        TinyLlama { heads: 2, kv_heads: 2, head_dim: 128, vocab: 5000, ..base },
        TinyLlama { heads: 1, kv_heads: 1, head_dim: 256, ..base },
        TinyLlama { heads: 34, kv_heads: 2, head_dim: 16, ..base },
    ];
    for (seed, model) in shapes.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let tensors = rounded(model.write(dir.path(), seed as u64));
        let scheduler = SchedulerConfig { token_budget: 100, max_running: 4 };
        let engine = engine(dir.path(), Order::Forward, 16 << 20, scheduler);
        let tokens = random_tokens(&mut ChaCha8Rng::seed_from_u64(seed as u64), model.vocab, 140);
        let want = reference::logprobs(model, &tensors, &tokens);
        let (mean, worst) = errors(&ask(&engine, &[Query::new(tokens, 1)])[0].logprobs, &want);
        println!("{model:?}: mean error {mean:.1e}, maximal {worst:.1e}");
        assert!(mean < 0.02 && worst < 0.1, "{model:?}: mean error {mean:e}, maximal {worst:e}");
    }
}

fn fixtures() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("golden").unwrap().map(|entry| entry.unwrap().path());
    let mut fixtures: Vec<_> = entries.filter(|path| path.join("expected.json").exists()).collect();
    fixtures.sort();
    fixtures
}

/// Tokens and log-probabilities of a fixture's first case: 512 tokens, by transformers in float64.
fn golden(dir: &Path) -> (Vec<u32>, Vec<f64>) {
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(dir.join("expected.json")).unwrap()).unwrap();
    let case = &expected["cases"][0];
    let numbers = |field: &str| case[field].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
    (numbers("tokens").into_iter().map(|token| token as u32).collect(), numbers("logprobs"))
}

/// Every architecture and option: as near to transformers as bf16 is, and the same bits whole or in odd chunks, alone or
/// in company, cold or warm, whatever the order of a GPU's threads.
#[test]
fn every_fixture_matches_transformers_however_it_is_cut() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 15, "{} fixtures", fixtures.len());
    for dir in fixtures {
        matches_however_it_is_cut(&dir, Precision::Bf16, Precision::Bf16, (0.03, 0.2));
    }
}

/// Weights in FP8 as checkpoints have them, or quantised on load, and a cache in FP8: less exact, and the same promise.
#[test]
fn fp8_keeps_its_bits_however_it_is_cut() {
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
    let (tokens, want) = golden(dir);
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

/// Quantised on load, with padded heads and without: as near to float64 on the same quantised weights as a float64 model is
/// whose activations are quantised token by token. (Not to that model itself: bf16 tips some bytes over.)
#[test]
fn fp8_products_match_float64() {
    let base = TinyLlama { layers: 2, intermediate: 208, ..TinyLlama::default() };
    let shapes = [
        TinyLlama { heads: 4, kv_heads: 2, head_dim: 64, ..base },
        TinyLlama { heads: 3, kv_heads: 3, head_dim: 20, hidden: 64, vocab: 101, ..base },
    ];
    for (seed, model) in shapes.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut tensors = rounded(model.write(dir.path(), seed as u64));
        for (name, (shape, values)) in tensors.iter_mut().filter(|(name, _)| name.contains("_proj")) {
            // The checkpoint is f32, so that it is quantised without another rounding before.
            let original = Checkpoint::open(dir.path()).unwrap().tensor_f32(name, shape).unwrap();
            let scales = original.chunks(shape[1]).map(|row| row.iter().fold(0f32, |a, x| a.max(x.abs())) / 448.0);
            let (bytes, given) = surprisal_model::quantise_rows(&original, shape[1]);
            assert_eq!(given, scales.collect::<Vec<_>>());
            for (i, value) in values.iter_mut().enumerate() {
                let (exponent, mantissa) = (i32::from(bytes[i] >> 3 & 15), f32::from(bytes[i] & 7) / 8.0);
                let size = if exponent == 0 { mantissa / 64.0 } else { (1.0 + mantissa) * 2f32.powi(exponent - 7) };
                *value = if bytes[i] & 0x80 == 0 { size } else { -size } * given[i / shape[1]];
            }
        }
        let scheduler = SchedulerConfig { token_budget: 100, max_running: 4 };
        let engine = engine_with(
            dir.path(),
            Order::Forward,
            CudaConfig { weights: Precision::Fp8, ..config(16 << 20, scheduler) },
        );
        let tokens = random_tokens(&mut ChaCha8Rng::seed_from_u64(seed as u64), model.vocab, 140);
        let got = &ask(&engine, &[Query::new(tokens.clone(), 1)])[0].logprobs;
        let exact = reference::logprobs(model, &tensors, &tokens);
        let ideal: Vec<f32> =
            reference::fp8_logprobs(model, &tensors, &tokens).iter().map(|&logprob| logprob as f32).collect();
        let ((mean, _), (least, _)) = (errors(got, &exact), errors(&ideal, &exact));
        println!("{model:?} in FP8: mean error {mean:.1e}, of roundings alone {least:.1e}");
        assert!(mean < 1.3 * least, "{model:?}: mean error {mean:e}, but {least:e} is what roundings make");
    }
}

/// Queries on one small vocabulary whose beginnings are often shared.
fn random_queries(seed: u64, count: usize) -> Vec<Query> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let texts: Vec<Vec<u32>> = (0..3).map(|_| random_tokens(&mut rng, 300, 150)).collect();
    (0..count)
        .map(|_| {
            let mut tokens = texts[rng.random_range(0..texts.len())][..rng.random_range(2..150)].to_vec();
            let tail = rng.random_range(0..30);
            tokens.extend(random_tokens(&mut rng, 300, tail + 1).into_iter().skip(1));
            let score_from = rng.random_range(1..tokens.len());
            Query::new(tokens, score_from)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    /// The promise, on a cache so small that blocks are evicted while others run; batches of one token take the kernel for
    /// single tokens.
    #[test]
    fn same_query_same_bits(seed in any::<u64>(), count in 2usize..7, token_budget in 1usize..150, blocks in 7usize..20) {
        let model = TinyLlama { vocab: 300, layers: 2, ..TinyLlama::default() };
        let dir = tempfile::tempdir().unwrap();
        model.write(dir.path(), seed);
        let queries = random_queries(seed, count);
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

#[tokio::main]
async fn write(engine: &Engine, query: &Query, generation: &Generation) -> Vec<GeneratedToken> {
    written(engine, query.clone(), generation.clone()).await
}

async fn written(engine: &Engine, query: Query, generation: Generation) -> Vec<GeneratedToken> {
    let mut events = engine.generate(query, generation);
    let mut tokens = Vec::new();
    while let Some(event) = events.recv().await {
        if let QueryEvent::Token(token) = event.unwrap() {
            tokens.push(token);
        }
    }
    tokens
}

/// Ranks, entropies, lists and subsets are those of float64, as near as bf16 is, and asking for them changes no bit.
#[test]
fn more_of_each_position_is_right_and_changes_no_bits() {
    let model = TinyLlama { vocab: 5000, layers: 2, ..TinyLlama::default() };
    let dir = tempfile::tempdir().unwrap();
    let tensors = rounded(model.write(dir.path(), 5));
    let tokens = random_tokens(&mut ChaCha8Rng::seed_from_u64(5), model.vocab, 40);
    let fresh = || engine(dir.path(), Order::Forward, 16 << 20, SchedulerConfig { token_budget: 64, max_running: 2 });
    let plain = Query::new(tokens.clone(), 1);
    let some: Vec<u32> = (0..5000).filter(|id| id % 9 == 4).collect();
    let subset = Some(Arc::new(Subset::new(&some)));
    let more = Query { options: PositionOptions { top: 7, rank: true, entropy: true, subset }, ..plain.clone() };
    let (plain, more) = (ask(&fresh(), &[plain]).remove(0), ask(&fresh(), &[more]).remove(0));
    assert_eq!(bits(&more), bits(&plain));
    assert!(plain.positions.is_empty() && more.positions.len() == 39);
    let distributions = reference::distributions(&model, &tensors, &tokens);
    for (row, (position, want)) in more.positions.iter().zip(&distributions).enumerate() {
        let entropy: f64 = want.iter().map(|logprob| -logprob * logprob.exp()).sum();
        assert!((f64::from(position.entropy.unwrap()) - entropy).abs() < 0.05, "row {row}");
        let mass = some.iter().map(|&id| want[id as usize].exp()).sum::<f64>().ln();
        assert!((f64::from(position.subset.unwrap()) - mass).abs() < 0.05, "row {row}");
        assert_eq!(position.top.len(), 7);
        assert!(position.top.is_sorted_by(|a, b| a.1 >= b.1), "row {row}: {:?}", position.top);
        for &(token, logprob) in &position.top {
            assert!((f64::from(logprob) - want[token as usize]).abs() < 0.1, "row {row}, token {token}");
        }
        // Its own logarithm is as far down the list as its rank says.
        let rank = position.rank.unwrap() as usize;
        if rank <= 7 {
            assert_eq!(position.top[rank - 1].1.to_bits(), more.logprobs[row].to_bits(), "row {row}");
        } else {
            assert!(more.logprobs[row] <= position.top[6].1, "row {row}");
        }
    }
}

/// Each drawn token has the bits it has when it is scored, from a cold cache or a warm one, and seeds differ.
#[test]
fn what_is_written_is_what_would_be_scored() {
    let model = TinyLlama { vocab: 300, layers: 2, ..TinyLlama::default() };
    let dir = tempfile::tempdir().unwrap();
    model.write(dir.path(), 6);
    let prompt = random_tokens(&mut ChaCha8Rng::seed_from_u64(6), model.vocab, 40);
    let sampled = Sampling { temperature: 1.0, top_p: 0.9, top_k: 0, seed: 3 };
    for (sampling, token_budget) in [(Sampling::GREEDY, 512), (sampled, 7)] {
        let fresh = || engine(dir.path(), Order::Forward, 16 << 20, SchedulerConfig { token_budget, max_running: 4 });
        let options = PositionOptions { top: 1, rank: true, ..PositionOptions::default() };
        let generation = Generation { max_tokens: 30, sampling, stop: Vec::new(), options };
        let (first, query) = (fresh(), Query::new(prompt.clone(), 1));
        let tokens = write(&first, &query, &generation);
        assert_eq!(tokens.len(), 30);
        assert_eq!(write(&first, &query, &generation), tokens, "from a warm cache");
        let whole = prompt.iter().copied().chain(tokens.iter().map(|token| token.id)).collect();
        let scored = ask(&fresh(), &[Query::new(whole, 40)]).remove(0);
        assert_eq!(bits(&scored), tokens.iter().map(|token| token.logprob.to_bits()).collect::<Vec<_>>());
        if sampling == Sampling::GREEDY {
            let best = |token: &GeneratedToken| token.position.rank == Some(1) && token.position.top[0].0 == token.id;
            assert!(tokens.iter().all(best));
        } else {
            let other = Generation { sampling: Sampling { seed: 4, ..sampling }, ..generation };
            assert_ne!(write(&first, &query, &other), tokens);
        }
    }
}

/// A recording, of a product and a copy, is queued when it is made, and again on what is then in the same places.
#[test]
fn what_is_recorded_is_replayed_on_new_values() {
    match gpu() {
        Some(gpu) => replays_on_new_values(gpu),
        None => replays_on_new_values(Shim::new(MEMORY, Order::Forward)),
    }
}

fn replays_on_new_values(mut device: impl Accelerator) {
    const N: usize = 24;
    const K: usize = 40;
    let all = |value: f32, count: usize| ((value.to_bits() >> 16) as u16).to_le_bytes().repeat(count);
    let [x, weights, out, copied] =
        [ROW_TILE * K, N * K, ROW_TILE * N, N].map(|count| device.allocate(2 * count).unwrap());
    device.write(weights, &all(1.0, N * K)).unwrap();
    device.write(x, &all(1.0, ROW_TILE * K)).unwrap();
    let product = Product { out, x, weights, bias: None, rows: 1, n: N, k: K, wide: false, scales: None };
    // The product's algorithm is chosen before it is recorded, as in passes.
    device.multiply(&product).unwrap();
    let recording = device.record(|device| device.multiply(&product).and_then(|()| device.copy(out, copied))).unwrap();
    let mut got = vec![0; 2 * N];
    device.read(copied, &mut got).unwrap();
    assert_eq!(got, all(40.0, N));
    device.write(x, &all(2.0, ROW_TILE * K)).unwrap();
    device.replay(&recording).unwrap();
    device.read(copied, &mut got).unwrap();
    assert_eq!(got, all(80.0, N));
}

/// Passes of single tokens are recorded when they come again. What is replayed has the bits of what is scored, also when sequences have
/// grown, and when others have joined in or ended.
#[test]
fn passes_that_come_again_are_replayed() {
    let model = TinyLlama { vocab: 300, layers: 2, ..TinyLlama::default() };
    let dir = tempfile::tempdir().unwrap();
    model.write(dir.path(), 6);
    let scheduler = SchedulerConfig { token_budget: 64, max_running: 4 };
    let shim = Shim::new(MEMORY, Order::Random(3));
    let replays = shim.replays();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let engine = start(CudaBackend::load(shim, &checkpoint, config(16 << 20, scheduler)).unwrap(), scheduler);
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let prompts: Vec<Vec<u32>> = [5, 20, 40].map(|length| random_tokens(&mut rng, model.vocab, length)).into();
    let written = write_all(&engine, &prompts, &[70, 20, 50]);
    assert!(replays.load(Ordering::Relaxed) > 40, "{replays:?}");
    for (prompt, tokens) in prompts.iter().zip(&written) {
        let whole = prompt.iter().copied().chain(tokens.iter().map(|token| token.id)).collect();
        let fresh = start(load(dir.path(), Order::Forward, 16 << 20, scheduler).unwrap(), scheduler);
        let scored = ask(&fresh, &[Query::new(whole, prompt.len())]).remove(0);
        assert_eq!(bits(&scored), tokens.iter().map(|token| token.logprob.to_bits()).collect::<Vec<_>>());
    }
}

#[tokio::main]
async fn write_all(engine: &Engine, prompts: &[Vec<u32>], lengths: &[usize]) -> Vec<Vec<GeneratedToken>> {
    let write = |(prompt, &max_tokens): (&Vec<u32>, &usize)| {
        let generation = Generation {
            max_tokens,
            sampling: Sampling::GREEDY,
            stop: Vec::new(),
            options: PositionOptions::default(),
        };
        written(engine, Query::new(prompt.clone(), 1), generation)
    };
    join_all(prompts.iter().zip(lengths).map(write)).await
}
