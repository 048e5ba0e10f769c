//! The CUDA backend on the CPU shim: log-probabilities match float64, and are bit-identical whatever the batch, the
//! chunks and the state of the cache.
//!
//! With `SURPRISAL_TEST_GPU=N` the engines run on that GPU instead.

#![allow(clippy::unwrap_used)]

mod accuracy;
mod bits;
mod generation;
mod recording;

use std::path::Path;

use futures_util::future::join_all;
use surprisal_engine::cuda::{Accelerator, CudaBackend, CudaConfig, Gpu, Precision, Shim};
use surprisal_engine::{Engine, LoadError, Query, SchedulerConfig, Scorer, Scores};
use surprisal_kernels::cpu::Order;
use surprisal_model::Checkpoint;
use surprisal_tests::tiny::Tensors;

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

/// Returns the GPU that `SURPRISAL_TEST_GPU` selects; `None` if the variable is not set.
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

/// Rounds weights to bf16.
fn rounded(mut tensors: Tensors) -> Tensors {
    for value in tensors.values_mut().flat_map(|(_, values)| values) {
        let bits = value.to_bits();
        *value = f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000);
    }
    tensors
}

/// Returns the mean and the largest error of log-probabilities.
fn errors(got: &[f32], want: &[f64]) -> (f64, f64) {
    assert_eq!(got.len(), want.len());
    let errors: Vec<f64> = got.iter().zip(want).map(|(&got, want)| (f64::from(got) - want).abs()).collect();
    assert!(errors.iter().all(|error| error.is_finite()));
    (errors.iter().sum::<f64>() / errors.len() as f64, errors.into_iter().fold(0.0, f64::max))
}
