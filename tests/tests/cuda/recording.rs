//! Recorded forward passes are replayed.

use std::sync::atomic::Ordering;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use surprisal_engine::cuda::{Accelerator, CudaBackend, Gemm, ROW_TILE, Shim};
use surprisal_engine::{Query, SchedulerConfig};
use surprisal_kernels::cpu::Order;
use surprisal_model::Checkpoint;
use surprisal_tests::tiny::{TinyLlama, random_tokens};

use super::generation::write_all;
use super::{MEMORY, ask, bits, config, gpu, load, start};

/// A recording of a matrix product and a copy runs once when it is made. Each replay reads the current contents of the
/// recorded buffers.
#[test]
fn a_replay_computes_with_new_values() {
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
    let gemm = Gemm { out, x, weights, bias: None, rows: 1, n: N, k: K, out_f32: false, scales: None };
    // The first product chooses the algorithm before the recording starts, as in forward passes.
    device.multiply(&gemm).unwrap();
    let recording = device.record(|device| device.multiply(&gemm).and_then(|()| device.copy(out, copied))).unwrap();
    let mut got = vec![0; 2 * N];
    device.read(copied, &mut got).unwrap();
    assert_eq!(got, all(40.0, N));
    device.write(x, &all(2.0, ROW_TILE * K)).unwrap();
    device.replay(&recording).unwrap();
    device.read(copied, &mut got).unwrap();
    assert_eq!(got, all(80.0, N));
}

/// Forward passes of single tokens are recorded when they repeat. Tokens from replayed passes have the same bits as
/// scored tokens, even after sequences have grown, joined or ended.
#[test]
fn repeated_passes_are_replayed() {
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
