//! The CUDA backend on the CPU shim: loading a model fails if the device cannot run it, and a lost device is replaced.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering;
use std::time::Duration;

use surprisal_engine::cuda::{CudaBackend, CudaConfig, Precision, Shim};
use surprisal_engine::{
    BackendError, BackendFactory, Engine, LoadError, Query, SchedulerConfig, ScoreError, Scorer, ThreadCommunicator,
};
use surprisal_kernels::cpu::Order;
use surprisal_model::Checkpoint;
use surprisal_tests::tiny::TinyLlama;

const SCHEDULER: SchedulerConfig = SchedulerConfig { token_budget: 64, max_running: 2 };

const CONFIG: CudaConfig = CudaConfig {
    weights: Precision::Bf16,
    cache: Precision::Bf16,
    cache_bytes: Some(1 << 20),
    max_length: Some(1024),
    batch_tokens: SCHEDULER.token_budget,
    batch_sequences: SCHEDULER.max_running,
};

fn shim() -> Shim {
    Shim::new(256 << 20, Order::Forward)
}

fn one_layer() -> TinyLlama {
    TinyLlama { layers: 1, ..TinyLlama::default() }
}

fn load(model: TinyLlama, shim: Shim, config: CudaConfig) -> Result<CudaBackend<Shim>, LoadError> {
    let dir = tempfile::tempdir().unwrap();
    model.write(dir.path(), 1);
    CudaBackend::load(shim, &Checkpoint::open(dir.path()).unwrap(), config)
}

#[test]
fn a_model_that_does_not_fit_is_rejected_before_any_allocation() {
    let refused = |model: TinyLlama, config: CudaConfig| load(model, shim(), config).unwrap_err().to_string();
    let base = one_layer();
    let error = refused(TinyLlama { hidden: 60, ..base }, CONFIG);
    assert_eq!(error, "hidden_size is 60, but on this device it must be a multiple of 8 up to 1048576");
    let error = refused(TinyLlama { head_dim: 258, ..base }, CONFIG);
    assert_eq!(error, "head_dim is 258, but on this device it must be at most 256");
    let error = refused(TinyLlama { hidden: 72, ..base }, CudaConfig { weights: Precision::Fp8, ..CONFIG });
    let limit = "a multiple of 16 up to 1048576 for FP8 weights";
    assert_eq!(error, format!("hidden_size is 72, but on this device it must be {limit}"));
    let error = refused(base, CudaConfig { cache_bytes: Some(1000), ..CONFIG });
    assert!(error.contains("the KV cache has 1000 bytes"), "{error}");
    let error = refused(TinyLlama { vocab: 1_000_000, ..base }, CONFIG);
    assert!(error.contains("bytes of the device's memory") && error.contains("are free"), "{error}");
}

/// GPUs of sm_86, sm_89 and sm_120 give a block 99 KiB of shared memory, less than attention needs for most head sizes.
#[test]
fn a_device_with_too_little_shared_memory_is_rejected() {
    let small = 99 << 10;
    let load = |head_dim: usize, cache: Precision, limit: usize| {
        let model = TinyLlama { heads: 1, kv_heads: 1, head_dim, ..one_layer() };
        load(model, shim().with_shared_memory(limit), CudaConfig { cache, ..CONFIG })
    };
    let refused = [
        (80, Precision::Bf16, 102_400),
        (128, Precision::Bf16, 135_168),
        (128, Precision::Fp8, 117_248),
        (256, Precision::Bf16, 166_912),
    ];
    for (head_dim, cache, needed) in refused {
        let error = load(head_dim, cache, small).unwrap_err().to_string();
        let takes = format!("attention with head_dim {head_dim} needs {needed} bytes of shared memory");
        assert_eq!(error, format!("{takes}, but a thread block on this device has {small}; use another device"));
        load(head_dim, cache, needed).unwrap();
    }
    load(64, Precision::Bf16, small).unwrap();
    load(96, Precision::Fp8, small).unwrap();
}

/// Loading ends with a forward pass, so it detects everything that a device cannot run.
#[test]
fn a_device_that_cannot_run_a_pass_is_rejected() {
    let broken = shim();
    broken.lost_flag().store(true, Ordering::SeqCst);
    let error = load(one_layer(), broken, CONFIG).unwrap_err().to_string();
    assert_eq!(error, "a trial pass failed: the shim is lost");
    // Loading skips the pass of two tokens if a batch has at most one token.
    load(one_layer(), shim(), CudaConfig { batch_tokens: 1, ..CONFIG }).unwrap();
}

#[test]
fn a_group_names_the_device_that_cannot_run_a_pass() {
    let dir = tempfile::tempdir().unwrap();
    one_layer().write(dir.path(), 1);
    let ranks = ThreadCommunicator::group(2).into_iter();
    let shims: Vec<Shim> = ranks.map(|rank| shim().with_communicator(Box::new(rank))).collect();
    shims[1].lost_flag().store(true, Ordering::SeqCst);
    let error = CudaBackend::load_group(shims, &Checkpoint::open(dir.path()).unwrap(), CONFIG).unwrap_err();
    assert_eq!(error.to_string(), "a trial pass failed: rank 1 of 2: the shim is lost");
}

/// Loading runs a pass of one token three times: queued, recorded and replayed. A device that cannot record queues the
/// pass each time, with the same results.
#[tokio::test]
async fn loading_replays_a_pass_if_the_device_can_record_it() {
    let mut answers = Vec::new();
    for (device, replayed) in [(shim(), 1), (shim().without_recording(), 0)] {
        let replays = device.replays();
        let backend = load(one_layer(), device, CONFIG).unwrap();
        assert_eq!(replays.load(Ordering::Relaxed), replayed);
        let (fingerprint, device) = (backend.fingerprint().to_owned(), backend.device());
        let engine = Engine::start("tiny".to_owned(), fingerprint, device, backend, SCHEDULER).unwrap();
        let mut logprobs = Vec::new();
        for tokens in [vec![1, 3], vec![2, 5], vec![4, 8], vec![0, 3, 5, 8]] {
            logprobs.push(engine.score(Query::new(tokens, 1)).await.unwrap().logprobs);
        }
        assert_eq!(replays.load(Ordering::Relaxed) > 1, replayed == 1);
        answers.push(logprobs);
    }
    assert_eq!(answers[0], answers[1]);
}

/// When the device is lost, pending queries fail with the reason, and the model is reloaded on another device.
#[tokio::test]
async fn a_lost_device_is_replaced() {
    let first = shim();
    let lost = first.lost_flag();
    let backend = load(one_layer(), first, CONFIG).unwrap();
    let rebuild: BackendFactory<CudaBackend<Shim>> =
        Box::new(|| load(one_layer(), shim(), CONFIG).map_err(|error| BackendError(error.to_string())));
    let (fingerprint, device) = (backend.fingerprint().to_owned(), backend.device());
    let engine =
        Engine::start_supervised("tiny".to_owned(), fingerprint, device, backend, SCHEDULER, Some(rebuild)).unwrap();
    let query = Query::new(vec![0, 3, 5, 8], 1);
    let before = engine.score(query.clone()).await.unwrap().logprobs;
    lost.store(true, Ordering::SeqCst);
    let told = engine.score(Query::new(vec![0, 4, 6, 9], 1)).await;
    assert_eq!(told, Err(ScoreError::BackendLost("the shim is lost".to_owned())));
    let back = async {
        while !engine.is_alive() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
    assert_eq!(engine.score(query).await.unwrap().logprobs, before);
    assert_eq!(engine.stats().restarts, 1);
}
