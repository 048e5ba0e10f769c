//! Log-probabilities and position details match float64.

use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use surprisal_engine::cuda::{CudaConfig, Precision};
use surprisal_engine::{PositionOptions, Query, SchedulerConfig, Subset};
use surprisal_kernels::cpu::Order;
use surprisal_model::Checkpoint;
use surprisal_tests::reference;
use surprisal_tests::tiny::{TinyLlama, random_tokens};

use super::{ask, bits, config, engine, engine_with, errors, rounded};

/// Covers every head size of the kernels, padded heads, GQA groups of several sizes and tied embeddings. The float64
/// reference has the same bf16 weights, so only the rounding of activations differs.
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

/// Weights are quantized on load, with and without padded heads. The reference is float64 with the same quantized
/// weights. The error must be close to that of a float64 model whose activations are quantized token by token. (The
/// results are not compared with that model itself, because rounding to bf16 changes some quantized bytes.)
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
            // The checkpoint is f32, so that there is no other rounding before quantization.
            let original = Checkpoint::open(dir.path()).unwrap().tensor_f32(name, shape).unwrap();
            let scales = original.chunks(shape[1]).map(|row| row.iter().fold(0f32, |a, x| a.max(x.abs())) / 448.0);
            let (bytes, given) = surprisal_model::quantize_rows(&original, shape[1]);
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
        println!("{model:?} in FP8: mean error {mean:.1e}, {least:.1e} for float64 with quantized activations");
        assert!(mean < 1.3 * least, "{model:?}: mean error {mean:e}, expected less than 1.3 times {least:e}");
    }
}

/// Entropies, most probable tokens and subset probabilities match float64 within the error of bf16, and ranks agree
/// with the lists of most probable tokens. Requesting these details does not change the bits of the log-probabilities.
#[test]
fn position_details_match_float64_and_change_no_bits() {
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
        // The target's log-probability is in the list at its rank.
        let rank = position.rank.unwrap() as usize;
        if rank <= 7 {
            assert_eq!(position.top[rank - 1].1.to_bits(), more.logprobs[row].to_bits(), "row {row}");
        } else {
            assert!(more.logprobs[row] <= position.top[6].1, "row {row}");
        }
    }
}
