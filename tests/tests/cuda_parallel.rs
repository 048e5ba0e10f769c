//! Tensor parallelism of the CUDA backend, on the CPU shim: several ranks match one rank up to rounding to bf16, bits
//! do not depend on the batch, a rank reads only its own weights, and pending queries fail instead of waiting forever
//! when a rank is lost.
//!
//! With `SURPRISAL_TEST_GPUS=N`, groups of up to N ranks run on GPUs instead, except in tests that load shims
//! themselves.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_engine::cuda::{CudaBackend, CudaConfig, Gpu, Precision, Shim};
use surprisal_engine::{
    Backend, BackendError, Communicator, Engine, Generation, PositionOptions, Query, QueryEvent, Sampling,
    SchedulerConfig, ScoreError, Scorer, Scores, Subset, TensorParallelGroup, ThreadCommunicator,
};
use surprisal_kernels::cpu::Order;
use surprisal_model::Checkpoint;
use surprisal_tests::faulty::Fault;
use surprisal_tests::golden::{case, fixtures};
use surprisal_tests::reference;
use surprisal_tests::tiny::{TinyLlama, random_tokens};

const ALL: PositionOptions = PositionOptions { top: 5, rank: true, entropy: true, subset: None };

const WHOLE: SchedulerConfig = SchedulerConfig { token_budget: 1 << 10, max_running: 1 };

fn config(scheduler: SchedulerConfig) -> CudaConfig {
    CudaConfig {
        weights: Precision::Bf16,
        cache: Precision::Bf16,
        cache_bytes: Some(16 << 20),
        max_length: Some(1024),
        batch_tokens: scheduler.token_budget,
        batch_sequences: scheduler.max_running,
    }
}

fn shim(order: Order) -> Shim {
    Shim::new(256 << 20, order)
}

/// Returns one shim per communicator of a group, each of which runs its threads in a different order.
fn shims(ranks: impl IntoIterator<Item = Box<dyn Communicator>>) -> Vec<Shim> {
    let orders = [Order::Forward, Order::Reverse, Order::Random(5)];
    ranks.into_iter().zip(orders.into_iter().cycle()).map(|(rank, order)| shim(order).with_communicator(rank)).collect()
}

fn threads(ranks: usize) -> impl Iterator<Item = Box<dyn Communicator>> {
    ThreadCommunicator::group(ranks).into_iter().map(|rank| Box::new(rank) as _)
}

fn load(dir: &Path, ranks: usize, scheduler: SchedulerConfig) -> TensorParallelGroup {
    let (checkpoint, config) = (Checkpoint::open(dir).unwrap(), config(scheduler));
    let gpus = std::env::var("SURPRISAL_TEST_GPUS").map_or(0, |count| count.parse().unwrap());
    if ranks <= gpus {
        let kernels = std::env::temp_dir().join("surprisal-test-kernels");
        return CudaBackend::load_group(Gpu::open_group(0, ranks, Some(&kernels)).unwrap(), &checkpoint, config)
            .unwrap();
    }
    CudaBackend::load_group(shims(threads(ranks)), &checkpoint, config).unwrap()
}

fn group(dir: &Path, ranks: usize, scheduler: SchedulerConfig) -> Engine {
    let backend = load(dir, ranks, scheduler);
    let (fingerprint, device) = (backend.fingerprint().to_owned(), backend.device());
    Engine::start("group".into(), fingerprint, device, backend, scheduler).unwrap()
}

fn alone(dir: &Path) -> Engine {
    alone_with(dir, config(WHOLE))
}

fn alone_with(dir: &Path, config: CudaConfig) -> Engine {
    let backend = CudaBackend::load(shim(Order::Forward), &Checkpoint::open(dir).unwrap(), config).unwrap();
    let (fingerprint, device) = (backend.fingerprint().to_owned(), backend.device());
    Engine::start("alone".into(), fingerprint, device, backend, WHOLE).unwrap()
}

#[tokio::main]
async fn try_all(engine: &Engine, queries: &[Query]) -> Vec<Result<Scores, ScoreError>> {
    join_all(queries.iter().map(|query| engine.score(query.clone()))).await
}

fn ask(engine: &Engine, queries: &[Query]) -> Vec<Scores> {
    try_all(engine, queries).into_iter().map(Result::unwrap).collect()
}

fn bits(scores: &Scores) -> Vec<u32> {
    scores.logprobs.iter().map(|x| x.to_bits()).collect()
}

/// Returns the mean and the largest difference between two lists.
fn differences<T: Copy + Into<f64>>(got: &[f32], want: &[T]) -> (f64, f64) {
    assert_eq!(got.len(), want.len());
    let all: Vec<f64> = got.iter().zip(want).map(|(&got, &want)| (f64::from(got) - want.into()).abs()).collect();
    assert!(all.iter().all(|difference| difference.is_finite()));
    (all.iter().sum::<f64>() / all.len() as f64, all.iter().copied().fold(0.0, f64::max))
}

/// Covers every architecture and option, and more ranks than KV heads or query heads. Each rank's part of a sum is
/// rounded to bf16 before the parts are added. A group must differ little from one rank, and be about as accurate.
#[test]
fn every_fixture_has_close_scores_on_2_and_4_ranks() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 15, "{} fixtures", fixtures.len());
    for dir in fixtures {
        let (mut tokens, mut expected) = case(&dir);
        tokens.truncate(160);
        expected.truncate(159);
        let subset = Some(Arc::new(Subset::new(&[1, 5, 32, 40, 63, 64, 71])));
        let query = Query { options: PositionOptions { subset, ..ALL }, ..Query::new(tokens, 1) };
        let one = ask(&alone(&dir), std::slice::from_ref(&query)).remove(0);
        let alone = differences(&one.logprobs, &expected);
        for ranks in [2, 4] {
            let got = ask(&group(&dir, ranks, WHOLE), std::slice::from_ref(&query)).remove(0);
            let (mean, worst) = differences(&got.logprobs, &one.logprobs);
            let error = differences(&got.logprobs, &expected);
            let what = format!("{} on {ranks} ranks", dir.file_name().unwrap().display());
            println!(
                "{what:<32} differs by {mean:.1e}, {worst:.1e} at most; from float64 by {:.1e}, {:.1e}; one rank by {:.1e}, {:.1e}",
                error.0, error.1, alone.0, alone.1
            );
            assert!(mean < 0.02 && worst < 0.12, "{what}: {mean:e}, {worst:e} at most, from one rank");
            assert!(
                error.0 < 1.4 * alone.0 && error.1 < 0.2,
                "{what}: {:e}, {:e} at most, from float64",
                error.0,
                error.1
            );
            assert_eq!(got.positions.len(), one.positions.len());
            for ((got, one), (&logprob, row)) in
                got.positions.iter().zip(&one.positions).zip(got.logprobs.iter().zip(0..))
            {
                assert!((got.entropy.unwrap() - one.entropy.unwrap()).abs() < 0.1, "{what}, row {row}");
                assert!((got.subset.unwrap() - one.subset.unwrap()).abs() < 0.15, "{what}, row {row}");
                assert_eq!(got.top.len(), one.top.len());
                assert!(got.top.is_sorted_by(|a, b| a.1 >= b.1), "{what}, row {row}: {:?}", got.top);
                // The target's log-probability is in the list at its rank.
                match got.rank.unwrap() as usize {
                    rank if rank <= got.top.len() => assert_eq!(got.top[rank - 1].1.to_bits(), logprob.to_bits()),
                    _ => assert!(logprob <= got.top[got.top.len() - 1].1, "{what}, row {row}"),
                }
            }
        }
    }
}

/// In FP8 each rank quantizes its slice of the activations with its own scale. The group must be about as accurate as
/// one rank.
#[test]
fn fp8_is_as_accurate_on_several_ranks() {
    for name in ["llama-fp8-fbgemm", "llama-fp8-block", "llama-bf16", "llama-headdim-256"] {
        let dir = Path::new("golden").join(name);
        let config = CudaConfig { weights: Precision::Fp8, cache: Precision::Fp8, ..config(WHOLE) };
        let (mut tokens, mut expected) = case(&dir);
        tokens.truncate(100);
        expected.truncate(99);
        let query = Query::new(tokens, 1);
        let one = ask(&alone_with(&dir, config), std::slice::from_ref(&query)).remove(0);
        let checkpoint = Checkpoint::open(&dir).unwrap();
        for ranks in [2, 4] {
            let backend = CudaBackend::load_group(shims(threads(ranks)), &checkpoint, config).unwrap();
            let fingerprint = backend.fingerprint().to_owned();
            assert!(fingerprint.contains("-fp8-kv-fp8-") && fingerprint.ends_with(&format!("-tp{ranks}")));
            let engine = Engine::start("group".into(), fingerprint, String::new(), backend, WHOLE).unwrap();
            let got = ask(&engine, std::slice::from_ref(&query)).remove(0);
            let (got, one) = (differences(&got.logprobs, &expected), differences(&one.logprobs, &expected));
            println!(
                "{name} on {ranks} ranks: {:.1e}, {:.1e} at most; one rank {:.1e}, {:.1e}",
                got.0, got.1, one.0, one.1
            );
            assert!(got.0 < 1.5 * one.0 && got.1 < 2.0 * one.1, "{name} on {ranks} ranks: {got:?}, one rank {one:?}");
        }
    }
}

/// Compares uneven and empty slices of heads, columns and tokens with float64, for every way in which ranks can share
/// KV heads.
#[test]
fn uneven_slices_match_float64() {
    let base = TinyLlama { layers: 2, ..TinyLlama::default() };
    let shapes = [
        (TinyLlama { heads: 8, kv_heads: 2, ..base }, 8),
        (TinyLlama { heads: 9, kv_heads: 3, head_dim: 20, hidden: 64, vocab: 101, ..base }, 5),
        (TinyLlama { heads: 2, kv_heads: 1, head_dim: 96, tied: true, vocab: 5000, ..base }, 3),
        (TinyLlama { heads: 34, kv_heads: 2, head_dim: 16, ..base }, 4),
    ];
    for (seed, (model, ranks)) in shapes.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut tensors = model.write(dir.path(), seed as u64);
        for value in tensors.values_mut().flat_map(|(_, values)| values) {
            *value = half_precision(*value);
        }
        let tokens = random_tokens(&mut ChaCha8Rng::seed_from_u64(seed as u64), model.vocab, 90);
        let want = reference::logprobs(&model, &tensors, &tokens);
        let scheduler = SchedulerConfig { token_budget: 64, max_running: 2 };
        let got = ask(&group(dir.path(), ranks, scheduler), &[Query::new(tokens, 1)]).remove(0);
        let (mean, worst) = differences(&got.logprobs, &want);
        println!("{ranks} ranks of {model:?}: mean error {mean:.1e}, maximal {worst:.1e}");
        assert!(mean < 0.02 && worst < 0.1, "{ranks} ranks of {model:?}: mean error {mean:e}, maximal {worst:e}");
    }
}

/// Rounds a value to the nearest bf16, as weights are rounded.
fn half_precision(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    /// Results are bit-identical whether a query runs alone or in a batch, whole or in chunks, with a cold or warm
    /// cache, and in different groups of the same size.
    #[test]
    fn same_query_same_bits(seed in any::<u64>(), ranks in 2usize..5, token_budget in 1usize..150, max_running in 1usize..6) {
        let model = TinyLlama { vocab: 300, layers: 2, ..TinyLlama::default() };
        let dir = tempfile::tempdir().unwrap();
        model.write(dir.path(), seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shared = random_tokens(&mut rng, model.vocab, 70);
        let queries: Vec<Query> = (0..4).map(|_| {
            let mut tokens = shared[..rng.random_range(1..70)].to_vec();
            let more = rng.random_range(1..60);
            tokens.extend(random_tokens(&mut rng, model.vocab, more));
            Query::new(tokens, 1)
        }).collect();
        let apart = |query: &Query| bits(&ask(&group(dir.path(), ranks, WHOLE), std::slice::from_ref(query))[0]);
        let apart: Vec<_> = queries.iter().map(apart).collect();
        let cut = group(dir.path(), ranks, SchedulerConfig { token_budget, max_running });
        for state in ["cold", "warm"] {
            prop_assert_eq!(&ask(&cut, &queries).iter().map(bits).collect::<Vec<_>>(), &apart, "{}", state);
        }
    }
}

/// A sampled token's log-probability has the same bits as when the token is scored. More rows are sampled at once than
/// the eight rows that are gathered at a time.
#[test]
fn generated_tokens_have_the_bits_of_scored_ones() {
    let model = TinyLlama { vocab: 300, layers: 2, ..TinyLlama::default() };
    let dir = tempfile::tempdir().unwrap();
    model.write(dir.path(), 6);
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let prompts: Vec<Vec<u32>> = (0..11).map(|_| random_tokens(&mut rng, model.vocab, 20)).collect();
    let scheduler = SchedulerConfig { token_budget: 512, max_running: 11 };
    let sampling = Sampling { temperature: 1.0, top_p: 0.9, seed: 3, ..Sampling::GREEDY };
    let generation = Generation { max_tokens: 6, sampling, stop: Vec::new(), options: PositionOptions::default() };
    let written = write_all(&group(dir.path(), 3, scheduler), &prompts, &generation);
    let queries: Vec<Query> = prompts
        .iter()
        .zip(&written)
        .map(|(prompt, tokens)| Query::new(prompt.iter().copied().chain(tokens.iter().map(|t| t.0)).collect(), 20))
        .collect();
    for (scored, written) in ask(&group(dir.path(), 3, scheduler), &queries).iter().zip(&written) {
        assert_eq!(written.len(), 6);
        assert_eq!(bits(scored), written.iter().map(|token| token.1.to_bits()).collect::<Vec<_>>());
    }
}

#[tokio::main]
async fn write_all(engine: &Engine, prompts: &[Vec<u32>], generation: &Generation) -> Vec<Vec<(u32, f32)>> {
    let write = |prompt: &Vec<u32>| {
        let mut events = engine.generate(Query::new(prompt.clone(), 1), generation.clone());
        async move {
            let mut tokens = Vec::new();
            while let Some(event) = events.recv().await {
                if let QueryEvent::Token(token) = event.unwrap() {
                    tokens.push((token.id, token.logprob));
                }
            }
            tokens
        }
    };
    join_all(prompts.iter().map(write)).await
}

/// Number of exchanges and gathers of a rank while it loads a model of two layers. Loading runs a pass of two tokens
/// and three of one. A pass has an exchange and a gather for the embedding and for each of a layer's two sums, and
/// two gathers for the head.
const LOADING: usize = 4 * (2 + 2 * 4 + 2);

/// If a rank panics, or only its device fails, pending queries fail with an error that names the rank. Then the model
/// is reloaded, and results have the same bits as before.
#[test]
fn a_lost_rank_fails_pending_queries_and_the_model_is_reloaded() {
    let model = TinyLlama { vocab: 300, layers: 2, ..TinyLlama::default() };
    let dir = tempfile::tempdir().unwrap();
    model.write(dir.path(), 5);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let queries: Vec<Query> = (0..3).map(|_| Query::new(random_tokens(&mut rng, model.vocab, 40), 1)).collect();
    let scheduler = SchedulerConfig { token_budget: 64, max_running: 2 };
    let want: Vec<_> = ask(&group(dir.path(), 3, scheduler), &queries).iter().map(bits).collect();
    for (exchanges, panics) in [(1, true), (7, false), (12, true)] {
        let (path, fault) = (dir.path().to_owned(), Fault::new(LOADING + exchanges, panics));
        let load = move || {
            CudaBackend::load_group(shims(fault.group(3)), &Checkpoint::open(&path).unwrap(), config(scheduler))
                .map_err(|error| BackendError(error.to_string()))
        };
        let backend = load().unwrap();
        let (name, fingerprint) = ("group".to_owned(), backend.fingerprint().to_owned());
        let engine =
            Engine::start_supervised(name, fingerprint, String::new(), backend, scheduler, Some(Box::new(load)))
                .unwrap();
        let outcomes = try_all(&engine, &queries);
        let lost = if panics { "rank 1 of 3 died" } else { "rank 1 of 3: rank 1 of 3 is lost" };
        let lost = ScoreError::BackendLost(format!("{lost}; reloading the model"));
        let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        assert!(failed.contains(&&lost), "{failed:?}");
        assert!(
            failed.iter().all(|error| matches!(error, ScoreError::BackendLost(_) | ScoreError::Stopped)),
            "{failed:?}"
        );
        while !engine.is_alive() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(ask(&engine, &queries).iter().map(bits).collect::<Vec<_>>(), want);
        assert_eq!(engine.stats().restarts, 1);
    }
}

/// With a NaN in the slice of rank 1, loading the group fails, but the slice of rank 0 is unaffected. The group has as
/// many blocks as the rank with the fewest.
#[test]
fn a_rank_reads_only_its_own_weights() {
    let model = TinyLlama { heads: 4, kv_heads: 4, layers: 1, ..TinyLlama::default() };
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = model.write(dir.path(), 5);
    let whole = load(dir.path(), 2, WHOLE).limits().blocks;
    assert_eq!(whole, (8 << 20) / (2 * 32 * 2 * 64 * 2 + 96 * 2));
    // Rank 1 of 2 has the second half of every divided matrix, embeddings included.
    for (name, row, column) in [
        ("model.embed_tokens.weight", 514, 3),
        ("model.layers.0.self_attn.k_proj.weight", 127, 0),
        ("model.layers.0.self_attn.o_proj.weight", 2, 127),
        ("model.layers.0.mlp.up_proj.weight", 199, 5),
        ("model.layers.0.mlp.down_proj.weight", 7, 199),
    ] {
        let tensor = tensors.get_mut(name).unwrap();
        let columns = tensor.0[1];
        let kept = std::mem::replace(&mut tensor.1[row * columns + column], f32::NAN);
        surprisal_tests::tiny::write_tensors(dir.path(), &tensors);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let error = CudaBackend::load_group(shims(threads(2)), &checkpoint, config(WHOLE)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(&format!("NaN at index {}", row * columns + column)), "{error}");
        let shape = tensors[name].0.clone();
        let own = if column < columns / 2 { [0..shape[0] / 2, 0..columns] } else { [0..shape[0], 0..columns / 2] };
        let bytes = checkpoint.bf16_slice(name, &shape, own.clone()).unwrap();
        let want: Vec<u8> = tensors[name]
            .1
            .chunks(columns)
            .take(own[0].end)
            .flat_map(|row| &row[own[1].clone()])
            .flat_map(|&x| (half_precision(x).to_bits() >> 16).to_le_bytes().into_iter().take(2))
            .collect();
        assert_eq!(bytes, want, "{name}");
        tensors.get_mut(name).unwrap().1[row * columns + column] = kept;
    }
}
