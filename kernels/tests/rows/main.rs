//! Compares the row kernels with float64, in every thread order, each row alone and in a batch.

#![allow(clippy::unwrap_used)]

mod fp8;
mod kv_cache;
#[path = "../support/mod.rs"]
mod support;

use half::bf16;
use proptest::prelude::*;
use support::{Buffer, ORDERS, ULP, bits, launch_error, random, rng, run, worst};
use surprisal_kernels::cpu::Order;
use surprisal_kernels::rows::{Embedding, RankSum, RmsNorm, SiluMul};
use surprisal_kernels::{Address, Launch, SOURCES};

/// Returns the output, and the residual if there is one.
fn rms_norm(order: Order, x: &[bf16], residual: Option<&[bf16]>, weight: &[bf16]) -> (Vec<bf16>, Vec<bf16>) {
    let n = weight.len();
    let (xs, ws, mut out) = (Buffer::of(x), Buffer::of(weight), Buffer::full(x.len(), bf16::NAN));
    let mut sum = Buffer::of(residual.unwrap_or_default());
    let args = RmsNorm {
        out: out.address_mut(),
        x: xs.address(),
        residual: if residual.is_some() { sum.address_mut() } else { Address::NULL },
        weight: ws.address(),
        n: n as u32,
        epsilon: 1e-5,
    };
    run(order, args.launch((x.len() / n) as u32));
    (out.values(), sum.values())
}

fn silu_mul(order: Order, gate_up: &[bf16], n: usize) -> Vec<bf16> {
    let (x, mut out) = (Buffer::of(gate_up), Buffer::full(gate_up.len() / 2, bf16::NAN));
    let args = SiluMul { out: out.address_mut(), gate_up: x.address(), n: n as u32 };
    run(order, args.launch((gate_up.len() / 2 / n) as u32));
    out.values()
}

fn rank_sum(order: Order, parts: &[bf16], ranks: usize) -> Vec<bf16> {
    let n = parts.len() / ranks;
    let (x, mut out) = (Buffer::of(parts), Buffer::full(n, bf16::NAN));
    run(order, RankSum { out: out.address_mut(), parts: x.address(), n: n as u32, ranks: ranks as u32 }.launch());
    out.values()
}

proptest! {
    #![proptest_config(support::proptest_config(16))]

    /// Results are close to float64, and bit-identical to a sum in order of rank, even where large addends cancel.
    #[test]
    fn ranks_are_added_in_order(ranks in 1usize..10, vectors in 1usize..600, seed in any::<u64>()) {
        let n = vectors * 8;
        let mut rng = rng(seed, 0);
        let mut parts = random(&mut rng, ranks * n, 3.0);
        for value in parts.iter_mut().step_by(3) {
            *value = bf16::from_f32(value.to_f32() * 1e4);
        }
        let out = rank_sum(Order::Forward, &parts, ranks);
        for order in ORDERS {
            prop_assert_eq!(bits(&rank_sum(order, &parts, ranks)), bits(&out));
        }
        for (i, out) in out.iter().enumerate() {
            let own = || parts.iter().skip(i).step_by(n);
            let chain = own().fold(0.0, |sum, x| sum + x.to_f32());
            prop_assert_eq!(out.to_bits(), bf16::from_f32(chain).to_bits());
            let (sum, size): (f64, f64) = own().fold((0.0, 0.0), |(sum, size), x| (sum + x.to_f64(), size + x.to_f64().abs()));
            prop_assert!((out.to_f64() - sum).abs() <= ULP * sum.abs() + 1e-6 * size, "{} {}", out, sum);
        }
        // Neither the number of values nor a value's position matters.
        let half = (vectors / 2).max(1) * 8;
        let first: Vec<bf16> = parts.chunks(n).flat_map(|part| &part[n - half..]).copied().collect();
        prop_assert_eq!(bits(&rank_sum(Order::Forward, &first, ranks)), bits(&out[n - half..]));
    }

    #[test]
    fn rms_norm_matches_float64(rows in 1usize..4, vectors in 1usize..700, fused in any::<bool>(), seed in any::<u64>()) {
        let n = vectors * 8;
        let mut rng = rng(seed, 0);
        let (x, old, w) = (random(&mut rng, rows * n, 3.0), random(&mut rng, rows * n, 3.0), random(&mut rng, n, 1.2));
        let residual = fused.then_some(&old[..]);
        let (out, sum) = rms_norm(Order::Forward, &x, residual, &w);
        for order in ORDERS {
            prop_assert_eq!(bits(&rms_norm(order, &x, residual, &w).0), bits(&out));
        }
        for row in 0..rows {
            let at = row * n..(row + 1) * n;
            let alone = rms_norm(Order::Forward, &x[at.clone()], residual.map(|r| &r[at.clone()]), &w);
            prop_assert_eq!(bits(&alone.0), bits(&out[at.clone()]));
            let normed: Vec<f64> = if fused {
                let added = x[at.clone()].iter().zip(&old[at.clone()]).map(|(a, b)| bf16::from_f32(a.to_f32() + b.to_f32()));
                prop_assert_eq!(bits(&added.collect::<Vec<_>>()), bits(&sum[at.clone()]));
                sum[at.clone()].iter().map(|x| x.to_f64()).collect()
            } else {
                x[at.clone()].iter().map(|x| x.to_f64()).collect()
            };
            let scale = 1.0 / (normed.iter().map(|a| a * a).sum::<f64>() / n as f64 + 1e-5).sqrt();
            let want = normed.iter().zip(&w).map(|(x, w)| x * scale * w.to_f64());
            let error = worst(out[at].iter().zip(want).map(|(got, want)| (got.to_f64(), want, ULP * want.abs() + 1e-30)));
            prop_assert!(error < 1.001, "{} half units in the last place", error);
        }
    }

    #[test]
    fn silu_mul_matches_float64(rows in 1usize..4, vectors in 1usize..600, seed in any::<u64>()) {
        let n = vectors * 8;
        let x = random(&mut rng(seed, 0), rows * 2 * n, 20.0);
        let out = silu_mul(Order::Forward, &x, n);
        for order in ORDERS {
            prop_assert_eq!(bits(&silu_mul(order, &x, n)), bits(&out));
        }
        let error = worst((0..rows * n).map(|i| {
            let (gate, up) = (x[i / n * 2 * n + i % n].to_f64(), x[(i / n * 2 + 1) * n + i % n].to_f64());
            let want = gate / (1.0 + (-gate).exp()) * up;
            (out[i].to_f64(), want, ULP * want.abs() + 1e-30)
        }));
        prop_assert!(error < 1.001, "{} half units in the last place", error);
    }
}

#[test]
fn embeddings_are_rows_of_the_table() {
    let (vocabulary, ids) = (11usize, [10i32, 0, 3, 3, 11, -1]);
    for n in [8usize, 72, 4104] {
        let table = random(&mut rng(5, n as u64), vocabulary * n, 1.0);
        let (from, listed) = (Buffer::of(&table), Buffer::of(&ids));
        for order in ORDERS {
            let mut out = Buffer::full(ids.len() * n, bf16::NAN);
            let args = Embedding {
                out: out.address_mut(),
                table: from.address(),
                ids: listed.address(),
                n: n as u32,
                first: 0,
                count: vocabulary as u32,
                vocabulary: vocabulary as u32,
            };
            run(order, args.launch(ids.len() as u32));
            // On a rank that has rows 3 to 5, other ids give zeros.
            let mut own = Buffer::full(ids.len() * n, bf16::NAN);
            let rows = Buffer::of(&table[3 * n..6 * n]);
            let part = Embedding { out: own.address_mut(), table: rows.address(), first: 3, count: 3, ..args };
            run(order, part.launch(ids.len() as u32));
            for (row, &id) in own.values().chunks(n).zip(&ids) {
                match id {
                    3 => assert_eq!(bits(row), bits(&table[3 * n..4 * n])),
                    0 | 10 => assert!(row.iter().all(|x| x.to_bits() == 0)),
                    _ => assert!(row.iter().all(|x| x.is_nan())),
                }
            }
            for (row, &id) in out.values().chunks(n).zip(&ids) {
                match usize::try_from(id).ok().filter(|&id| id < vocabulary) {
                    Some(id) => assert_eq!(bits(row), bits(&table[id * n..][..n])),
                    None => assert!(row.iter().all(|x| x.is_nan())),
                }
            }
        }
    }
}

#[test]
fn unsupported_shapes_are_rejected() {
    let null = Address::NULL;
    let args = SiluMul { out: null, gate_up: null, n: 12 };
    assert_eq!(
        args.launch(1).unwrap_err().to_string(),
        "silu_mul: n is 12, but must be a multiple of 8 from 8 to 1048576"
    );
    let args = SiluMul { n: 16, ..args };
    assert_eq!(args.launch(0).unwrap_err().to_string(), "silu_mul: rows is 0, but must be from 1 to 2147483647");

    let mut launch = args.launch(1).unwrap();
    launch.kernel = "no_such_kernel";
    assert_eq!(launch_error(&launch), "no_such_kernel: no kernel named no_such_kernel");
    launch.kernel = "rms_norm";
    assert_eq!(launch_error(&launch), "rms_norm: kernel argument 0 has the wrong size");
}

#[test]
fn every_listed_kernel_exists() {
    for kernel in SOURCES.iter().flat_map(|source| source.kernels) {
        let launch = Launch { kernel, grid: [1; 3], block: 32, shared: 0, args: 0u8 };
        assert_eq!(launch_error(&launch), format!("{kernel}: kernel argument 0 has the wrong size"));
    }
}
