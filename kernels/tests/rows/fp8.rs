//! Tests of FP8: quantization of rows, and scales applied to a matrix product.

use half::bf16;
use proptest::prelude::*;
use rand::RngExt;
use surprisal_kernels::Address;
use surprisal_kernels::cpu::Order;
use surprisal_kernels::rows::{Fp8Quantize, Fp8Scale};

use crate::support::{self, Buffer, ORDERS, ULP, bits, e4m3, random, rng, run, worst};

/// Returns the quantized bytes and each row's scale.
fn quantize(order: Order, x: &[bf16], n: usize) -> (Vec<u8>, Vec<f32>) {
    quantize_below(f32::INFINITY, order, x, n)
}

fn quantize_below(limit: f32, order: Order, x: &[bf16], n: usize) -> (Vec<u8>, Vec<f32>) {
    let rows = x.len() / n;
    let (mut out, mut scales) = (Buffer::full(x.len(), u8::MAX), Buffer::full(rows, f32::NAN));
    let x = Buffer::of(x);
    let args = Fp8Quantize { out: out.address_mut(), scales: scales.address_mut(), x: x.address(), n: n as u32, limit };
    run(order, args.launch(rows as u32));
    (out.values(), scales.values())
}

proptest! {
    #![proptest_config(support::proptest_config(16))]

    #[test]
    fn fp8_rounds_to_nearest(rows in 1usize..4, vectors in 1usize..500, spread in 1e-3f32..1e3, seed in any::<u64>()) {
        let n = vectors * 8;
        let mut rng = rng(seed, 0);
        let mut x = random(&mut rng, rows * n, spread);
        for value in &mut x {
            *value = bf16::from_f32(value.to_f32() * 2f32.powi(-rng.random_range(0..16)));  // some become subnormal
        }
        x[..n].fill(bf16::ZERO);
        let (out, scales) = quantize(Order::Forward, &x, n);
        for order in ORDERS {
            prop_assert_eq!(&quantize(order, &x, n), &(out.clone(), scales.clone()));
        }
        let all: Vec<f64> = (0..=255).map(e4m3).filter(|v| !v.is_nan()).collect();
        prop_assert_eq!((&out[..n], scales[0]), (&vec![0; n][..], 0.0));
        for (i, (x, &byte)) in x.iter().zip(&out).enumerate().skip(n) {
            let scale = f64::from(scales[i / n]);
            let want = x.to_f64() / scale;
            let nearest = all.iter().map(|v| (v - want).abs()).fold(f64::MAX, f64::min);
            prop_assert!((e4m3(byte) - want).abs() <= nearest + 1e-5 * want.abs(), "{} as {}", want, e4m3(byte));
        }
        for (row, scale) in x.chunks(n).zip(&scales) {
            let largest = row.iter().map(|x| x.to_f32().abs()).fold(0.0, f32::max);
            prop_assert_eq!(*scale, largest / 448.0);
        }
    }

    #[test]
    fn fp8_scales_match_float64(rows in 1usize..4, vectors in 1usize..300, has_bias in any::<bool>(), seed in any::<u64>()) {
        let n = vectors * 8;
        let mut rng = rng(seed, 0);
        let (x, bias) = (random(&mut rng, rows * n, 1e4), random(&mut rng, n, 3.0));
        let [of_rows, of_columns] = [rows, n].map(|len| (0..len).map(|_| rng.random_range(0.0..1e-2f32)).collect::<Vec<_>>());
        let scaled = |order: Order| {
            let [r, c] = [&of_rows, &of_columns].map(|scales| Buffer::of(scales));
            let (mut out, added) = (Buffer::of(&x), Buffer::of(&bias));
            let args = Fp8Scale {
                x: out.address_mut(),
                rows: r.address(),
                columns: c.address(),
                bias: if has_bias { added.address() } else { Address::NULL },
                n: n as u32,
            };
            run(order, args.launch(rows as u32));
            out.values()
        };
        let out = scaled(Order::Forward);
        for order in ORDERS {
            prop_assert_eq!(bits(&scaled(order)), bits(&out));
        }
        let error = worst((0..rows * n).map(|i| {
            let product = x[i].to_f64() * f64::from(of_rows[i / n]) * f64::from(of_columns[i % n]);
            let want = product + if has_bias { bias[i % n].to_f64() } else { 0.0 };
            (out[i].to_f64(), want, ULP * want.abs() + 1e-6 * product.abs() + 1e-30)
        }));
        prop_assert!(error < 1.001, "{} half units in the last place", error);
    }
}

#[test]
fn fp8_clips_at_the_limit() {
    let x: Vec<bf16> = [1.0, -4.0, 2.0, 0.5, 3.0, -2.0, 0.0, 8.0].map(bf16::from_f32).to_vec();
    let (out, scales) = quantize_below(2.0, Order::Forward, &x, 8);
    assert_eq!(scales, [2.0 / 448.0]);
    let values: Vec<f64> = out.iter().map(|&byte| e4m3(byte)).collect();
    assert_eq!(values, [224.0, -448.0, 448.0, 112.0, 448.0, -448.0, 0.0, 448.0]);
    assert_eq!(quantize_below(8.0, Order::Forward, &x, 8), quantize(Order::Forward, &x, 8));
}

#[test]
fn every_bf16_rounds_to_nearest_even() {
    // With 448 in the row the scale is 1, so each byte is the value rounded to nearest, ties to even.
    let mut x: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).filter(|x| x.to_f32().abs() <= 448.0).collect();
    x.resize(x.len().next_multiple_of(8), bf16::from_f32(448.0));
    let (out, scales) = quantize(Order::Forward, &x, x.len());
    assert_eq!(scales, [1.0]);
    for (x, &byte) in x.iter().zip(&out) {
        let (size, down) = (x.to_f64().abs(), (0..=0x7e).rev().find(|&b| e4m3(b) <= x.to_f64().abs()).unwrap());
        let up = (down + 1).min(0x7e);
        let (below, above) = (size - e4m3(down), e4m3(up) - size);
        let nearest = if below < above || (below == above && down % 2 == 0) { down } else { up };
        let sign = if x.is_sign_negative() { 0x80 } else { 0 };
        assert_eq!(byte, sign | nearest, "{x}");
    }
}
