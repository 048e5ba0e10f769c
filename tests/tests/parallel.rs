//! Tensor parallelism on the CPU: 2, 4 and 8 ranks give the same bits as one rank, bits do not depend on the batch, a
//! rank reads only its own weights, and pending queries fail instead of waiting forever when a rank dies.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_engine::{
    ActivationDtype, Backend, BackendError, CpuBackend, CpuConfig, Engine, Generation, PositionOptions, Query,
    QueryEvent, Sampling, SchedulerConfig, ScoreError, Scorer, Scores, Subset, WeightDtype,
};
use surprisal_model::Checkpoint;
use surprisal_tests::faulty::Fault;
use surprisal_tests::golden::{case, fixtures};
use surprisal_tests::large::{self, Layout};
use surprisal_tests::reference;
use surprisal_tests::tiny::{TinyLlama, random_tokens};

const ALL: PositionOptions = PositionOptions { top: 5, rank: true, entropy: true, subset: None };

fn config() -> CpuConfig {
    CpuConfig { cache_bytes: 64 << 20, threads: 2, ..CpuConfig::default() }
}

fn started(backend: impl Backend + 'static, scheduler: SchedulerConfig) -> Engine {
    Engine::start("model".into(), "fingerprint".into(), String::new(), backend, scheduler).unwrap()
}

fn group(dir: &Path, ranks: usize, scheduler: SchedulerConfig) -> Engine {
    started(CpuBackend::load_group(&Checkpoint::open(dir).unwrap(), config(), ranks).unwrap(), scheduler)
}

fn alone(dir: &Path) -> Engine {
    started(CpuBackend::load(&Checkpoint::open(dir).unwrap(), config()).unwrap(), SchedulerConfig::default())
}

#[tokio::main]
async fn ask(engine: &Engine, queries: &[Query]) -> Vec<Scores> {
    let answers = join_all(queries.iter().map(|query| engine.score(query.clone()))).await;
    answers.into_iter().map(Result::unwrap).collect()
}

fn largest_difference(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(&got, &want)| (f64::from(got) - want).abs()).fold(0.0, f64::max)
}

/// Covers every architecture and option, and more ranks than KV heads, query heads or panels of the vocabulary.
#[test]
fn every_fixture_has_the_same_bits_on_1_2_4_and_8_ranks() {
    for dir in fixtures() {
        let (tokens, expected) = case(&dir);
        let subset = Some(Arc::new(Subset::new(&[1, 5, 32, 40, 63, 64, 71])));
        let query = Query { options: PositionOptions { subset, ..ALL }, ..Query::new(tokens, 1) };
        let want = ask(&alone(&dir), std::slice::from_ref(&query)).remove(0);
        for ranks in [2, 4, 8] {
            let got = ask(&group(&dir, ranks, SchedulerConfig::default()), std::slice::from_ref(&query)).remove(0);
            let what = format!("{} on {ranks} ranks", dir.file_name().unwrap().display());
            let error = largest_difference(&got.logprobs, &expected);
            println!("{what:<32} maximal error {error:.2e}");
            assert!(error < 2e-5, "{what}: maximal error {error:e}");
            assert_eq!(bits(std::slice::from_ref(&got)), bits(std::slice::from_ref(&want)), "{what}");
            assert_eq!(got.positions, want.positions, "{what}");
        }
    }
}

/// Covers slices whose depth is not a multiple of the block size, ranks with several blocks, and all types of weights
/// and activations. If the bits differ from those of one rank, so does the fingerprint.
#[test]
fn every_type_has_the_bits_of_one_rank_or_a_different_fingerprint() {
    let model =
        TinyLlama { hidden: 300, intermediate: 4300, heads: 12, kv_heads: 6, head_dim: 48, ..TinyLlama::default() };
    let dir = tempfile::tempdir().unwrap();
    model.write(dir.path(), 3);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let query = [Query::new(random_tokens(&mut ChaCha8Rng::seed_from_u64(4), model.vocab, 200), 1)];
    for weights in [WeightDtype::F32, WeightDtype::Bf16, WeightDtype::Int8] {
        for activations in [ActivationDtype::F32, ActivationDtype::Bf16] {
            let config = CpuConfig { weights: Some(weights), activations, ..config() };
            let one = CpuBackend::load(&checkpoint, config).unwrap();
            let name = one.fingerprint().to_owned();
            let want = bits(&ask(&started(one, SchedulerConfig::default()), &query));
            for ranks in [2, 3, 4, 8] {
                let group = CpuBackend::load_group(&checkpoint, config, ranks).unwrap();
                let is_named_the_same = group.fingerprint() == name;
                let got = bits(&ask(&started(group, SchedulerConfig::default()), &query));
                assert_eq!(got == want, is_named_the_same, "{weights:?}, {activations:?}, {ranks} ranks");
                assert_eq!(is_named_the_same, weights != WeightDtype::Int8 && ranks != 3);
            }
        }
    }
}

fn bits(scores: &[Scores]) -> Vec<Vec<u32>> {
    scores.iter().map(|scores| scores.logprobs.iter().map(|x| x.to_bits()).collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Results are bit-identical whether a query runs alone or in a batch, whole or in chunks, with a cold or warm
    /// cache, and in different groups of the same size.
    #[test]
    fn same_query_same_bits(seed in any::<u64>(), ranks in 2usize..6, token_budget in 1usize..150, max_running in 1usize..9) {
        let model = TinyLlama { layers: 2, ..TinyLlama::default() };
        let dir = tempfile::tempdir().unwrap();
        model.write(dir.path(), 3);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shared = random_tokens(&mut rng, model.vocab, 70);
        let queries: Vec<Query> = (0..6).map(|_| {
            let mut tokens = shared[..rng.random_range(1..70)].to_vec();
            let more = rng.random_range(1..60);
            tokens.extend(random_tokens(&mut rng, model.vocab, more));
            Query::new(tokens, 1)
        }).collect();
        let whole = group(dir.path(), ranks, SchedulerConfig { token_budget: 1 << 20, max_running: 1 });
        let apart: Vec<Scores> = queries.iter().map(|query| ask(&whole, std::slice::from_ref(query)).remove(0)).collect();
        let cut = group(dir.path(), ranks, SchedulerConfig { token_budget, max_running });
        prop_assert_eq!(bits(&ask(&cut, &queries)), bits(&apart));
        prop_assert_eq!(bits(&ask(&cut, &queries)), bits(&apart), "warm");
        if ranks == 2 || ranks == 4 {
            prop_assert_eq!(bits(&ask(&alone(dir.path()), &queries)), bits(&apart), "one rank");
        }
    }
}

/// A group samples the same tokens as one rank. A sampled token's log-probability has the same bits as when the token
/// is scored.
#[test]
fn generated_tokens_have_the_bits_of_scored_ones() {
    let model = TinyLlama::default();
    let dir = tempfile::tempdir().unwrap();
    model.write(dir.path(), 5);
    let prompt = random_tokens(&mut ChaCha8Rng::seed_from_u64(2), model.vocab, 20);
    let sampling = Sampling { temperature: 1.0, top_p: 0.9, seed: 11, ..Sampling::GREEDY };
    let generation = Generation { max_tokens: 30, sampling, stop: Vec::new(), options: PositionOptions::default() };
    let written = |engine: &Engine| write(engine, &Query::new(prompt.clone(), 1), generation.clone());
    let (three, one) = (group(dir.path(), 3, SchedulerConfig::default()), alone(dir.path()));
    let (tokens, logprobs): (Vec<u32>, Vec<f32>) = written(&three).into_iter().unzip();
    assert_eq!(tokens.len(), 30);
    assert_eq!(tokens, written(&one).into_iter().map(|token| token.0).collect::<Vec<_>>());
    let from = prompt.len();
    let cold = group(dir.path(), 3, SchedulerConfig::default());
    let given = ask(&cold, &[Query::new([&prompt[..], &tokens].concat(), from)]);
    assert_eq!(bits(&given)[0], logprobs.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
}

#[tokio::main]
async fn write(engine: &Engine, query: &Query, generation: Generation) -> Vec<(u32, f32)> {
    let mut events = engine.generate(query.clone(), generation);
    let mut tokens = Vec::new();
    while let Some(event) = events.recv().await {
        if let QueryEvent::Token(token) = event.unwrap() {
            tokens.push((token.id, token.logprob));
        }
    }
    tokens
}

/// Pending queries fail with an error that names the dead rank. Then the model is reloaded, and results have the same
/// bits as before.
#[test]
fn a_dead_rank_fails_pending_queries_and_the_model_is_reloaded() {
    let model = TinyLlama::default();
    let dir = tempfile::tempdir().unwrap();
    model.write(dir.path(), 5);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let queries: Vec<Query> = (0..8).map(|_| Query::new(random_tokens(&mut rng, model.vocab, 40), 1)).collect();
    let want = bits(&ask(&group(dir.path(), 3, SchedulerConfig::default()), &queries));
    for sums in [1, 4, 30] {
        let (path, fault) = (dir.path().to_owned(), Fault::new(sums, true));
        let load = move || {
            CpuBackend::load_group_over(&Checkpoint::open(&path).unwrap(), config(), fault.group(3))
                .map_err(|error| BackendError(error.to_string()))
        };
        let backend = load().unwrap();
        let scheduler = SchedulerConfig { token_budget: 64, max_running: 2 };
        let (name, fingerprint) = ("group".to_owned(), backend.fingerprint().to_owned());
        let engine =
            Engine::start_supervised(name, fingerprint, String::new(), backend, scheduler, Some(Box::new(load)))
                .unwrap();
        let outcomes = try_all(&engine, &queries);
        let lost = ScoreError::BackendLost("rank 1 of 3 died; reloading the model".to_owned());
        let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        assert!(failed.contains(&&lost), "{failed:?}");
        assert!(
            failed.iter().all(|error| matches!(error, ScoreError::BackendLost(_) | ScoreError::Stopped)),
            "{failed:?}"
        );
        while !engine.is_alive() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(bits(&ask(&engine, &queries)), want);
        assert_eq!(engine.stats().restarts, 1);
    }
}

#[tokio::main]
async fn try_all(engine: &Engine, queries: &[Query]) -> Vec<Result<Scores, ScoreError>> {
    join_all(queries.iter().map(|query| engine.score(query.clone()))).await
}

/// A NaN in the slice of rank 1 does not affect the slice of rank 0, but loading the group fails.
#[test]
fn a_rank_reads_only_its_own_weights() {
    let model = TinyLlama { heads: 4, kv_heads: 4, ..TinyLlama::default() };
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = model.write(dir.path(), 5);
    // Rank 1 of 2 has the second half of the columns of every matrix whose input columns are divided among ranks.
    let down = tensors.get_mut("model.layers.1.mlp.down_proj.weight").unwrap();
    let (row, columns) = (7, down.0[1]);
    down.1[row * columns + columns - 1] = f32::NAN;
    surprisal_tests::tiny::write_tensors(dir.path(), &tensors);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let (name, shape) = ("model.layers.1.mlp.down_proj.weight", [model.hidden, model.intermediate]);
    let half = model.intermediate / 2;
    let mut read = Vec::new();
    checkpoint.read_slice(name, shape, [0..model.hidden, 0..half], |_, values| read.extend_from_slice(values)).unwrap();
    let want: Vec<f32> = tensors[name].1.chunks(columns).flat_map(|row| &row[..half]).copied().collect();
    assert_eq!(read, want);
    let error =
        checkpoint.read_slice(name, shape, [0..model.hidden, half..columns], |_, _| ()).unwrap_err().to_string();
    assert!(error.contains(&format!("NaN at index {}", row * columns + columns - 1)), "{error}");
    let error = CpuBackend::load_group(&checkpoint, config(), 2).unwrap_err().to_string();
    assert!(error.contains(name), "{error}");
}

/// Covers the published FP8 layouts of Llama-3.1-405B with all 126 layers, on one rank and on eight.
#[test]
fn llama_405b_in_fp8_matches_its_dequantized_weights() {
    for (seed, layout) in (1..).zip(Layout::ALL) {
        let dir = tempfile::tempdir().unwrap();
        let tensors = layout.write(dir.path(), seed);
        let tokens = random_tokens(&mut ChaCha8Rng::seed_from_u64(seed), large::SHAPE.vocab, 12);
        let want = reference::logprobs(&large::SHAPE, &tensors, &tokens);
        drop(tensors);
        let query = [Query::new(tokens, 1)];
        let one = ask(&alone(dir.path()), &query).remove(0).logprobs;
        let eight = ask(&group(dir.path(), 8, SchedulerConfig::default()), &query).remove(0).logprobs;
        let error = |got: &[f32]| largest_difference(got, &want);
        assert_eq!(one, eight, "{layout:?}");
        println!("{layout:?}: maximal error {:.2e}, on eight ranks {:.2e}", error(&one), error(&eight));
        assert!(one.len() == want.len() && error(&one) < 2e-5 && error(&eight) < 2e-5, "{layout:?}: {one:?} {want:?}");
    }
}
