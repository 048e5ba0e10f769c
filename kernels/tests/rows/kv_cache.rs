//! Tests of the write to the KV cache: norms of heads, rotary embedding, bf16 and FP8 slots.

use std::ops::Range;

use half::bf16;
use proptest::prelude::*;
use rand::RngExt;
use surprisal_kernels::Address;
use surprisal_kernels::cpu::Order;
use surprisal_kernels::rows::{HEAD_SIZES, WriteKv};

use crate::support::{self, Buffer, ORDERS, ULP, bits, e4m3, random, rng, run, worst};

/// Tokens to write to a cache with twice as many slots. Every third token is padding.
struct Case {
    size: usize,
    heads: usize,
    kv_heads: usize,
    tokens: usize,
    normed: bool,
    fp8: bool,
    seed: u64,
}

const POSITIONS: usize = 50;

/// The queries, and the cached keys and values, as bf16.
struct Written {
    queries: Vec<bf16>,
    keys: Vec<bf16>,
    values: Vec<bf16>,
}

impl Written {
    fn all_bits(&self) -> [Vec<u16>; 3] {
        [&self.queries, &self.keys, &self.values].map(|x| bits(x))
    }
}

impl Case {
    fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.size
    }

    fn qkv(&self) -> Vec<bf16> {
        random(&mut rng(self.seed, 0), self.tokens * self.width(), 4.0)
    }

    fn norms(&self) -> [Vec<bf16>; 2] {
        [1, 2].map(|stream| random(&mut rng(self.seed, stream), self.size, 1.5))
    }

    fn positions(&self) -> Vec<i32> {
        let mut rng = rng(self.seed, 3);
        (0..self.tokens).map(|_| rng.random_range(0..POSITIONS as i32)).collect()
    }

    fn cos_sin(&self) -> Vec<f32> {
        let half = self.size / 2;
        let angle = |p: usize, i: usize| p as f64 * 10000f64.powf(-(i as f64) / half as f64);
        let row = |p: usize| (0..half).map(move |i| angle(p, i).cos()).chain((0..half).map(move |i| angle(p, i).sin()));
        (0..POSITIONS).flat_map(row).map(|x| x as f32).collect()
    }

    fn slots(&self) -> Vec<i32> {
        (0..self.tokens).map(|t| if t % 3 == 2 { -1 } else { 2 * t as i32 + 1 }).collect()
    }

    /// Runs the kernel on a range of the tokens.
    fn run(&self, order: Order, tokens: Range<usize>) -> Written {
        let (width, row) = (self.width(), self.kv_heads * self.size);
        let qkv = Buffer::of(&self.qkv()[tokens.start * width..tokens.end * width]);
        let cos_sin = Buffer::of(&self.cos_sin());
        let [positions, slots] = [self.positions(), self.slots()].map(|values| Buffer::of(&values[tokens.clone()]));
        let norms = self.norms().map(|norm| Buffer::of(&norm));
        let mut queries = Buffer::full(tokens.len() * self.heads * self.size, bf16::NAN);
        let len = 2 * self.tokens * row * if self.fp8 { 1 } else { 2 };
        let (mut keys, mut values) = (Buffer::full(len, u8::MAX), Buffer::full(len, u8::MAX));
        let mut scales = [(); 2].map(|()| Buffer::full(2 * self.tokens * self.kv_heads, f32::NAN));
        let norm = |index: usize| if self.normed { norms[index].address() } else { Address::NULL };
        let args = WriteKv {
            queries: queries.address_mut(),
            keys: keys.address_mut(),
            values: values.address_mut(),
            key_scales: if self.fp8 { scales[0].address_mut() } else { Address::NULL },
            value_scales: if self.fp8 { scales[1].address_mut() } else { Address::NULL },
            qkv: qkv.address(),
            cos_sin: cos_sin.address(),
            positions: positions.address(),
            slots: slots.address(),
            query_norm: norm(0),
            key_norm: norm(1),
            heads: self.heads as u32,
            kv_heads: self.kv_heads as u32,
            epsilon: 1e-6,
        };
        run(order, args.launch(tokens.len() as u32, self.size as u32));
        // A byte times its power of two is exactly a bf16.
        let held = |cache: &Buffer<u8>, scales: &Buffer<f32>| -> Vec<bf16> {
            let (bytes, scales) = (cache.values(), scales.values());
            if !self.fp8 {
                return bytes.chunks(2).map(|pair| bf16::from_le_bytes([pair[0], pair[1]])).collect();
            }
            let scaled = |(i, byte): (usize, u8)| bf16::from_f64(e4m3(byte) * f64::from(scales[i / self.size]));
            bytes.into_iter().enumerate().map(scaled).collect()
        };
        let (keys, values) = (held(&keys, &scales[0]), held(&values, &scales[1]));
        Written { queries: queries.values(), keys, values }
    }

    fn worst_error(&self, Written { queries, keys, values }: &Written) -> f64 {
        let (qkv, norms, positions) = (self.qkv(), self.norms(), self.positions());
        let (all, half, table) = (self.heads + 2 * self.kv_heads, self.size / 2, self.cos_sin());
        let mut errors = Vec::new();
        let written: Vec<usize> = self.slots().iter().filter(|&&slot| slot >= 0).map(|&slot| slot as usize).collect();
        for (token, head) in (0..self.tokens).flat_map(|token| (0..all).map(move |head| (token, head))) {
            let x: Vec<f64> = qkv[(token * all + head) * self.size..][..self.size].iter().map(|x| x.to_f64()).collect();
            let slot = self.slots()[token];
            let kind = if head < self.heads { 0 } else { 1 + (head - self.heads) / self.kv_heads };
            let at = |slot: i32| (slot as usize * self.kv_heads + (head - self.heads) % self.kv_heads) * self.size;
            let got = match kind {
                0 => &queries[(token * self.heads + head) * self.size..],
                _ if slot < 0 => continue,
                1 => &keys[at(slot)..],
                _ => &values[at(slot)..],
            };
            let scale = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / self.size as f64 + 1e-6).sqrt();
            let normed = |i: usize| if self.normed && kind < 2 { x[i] * scale * norms[kind][i].to_f64() } else { x[i] };
            let angles = &table[positions[token] as usize * self.size..];
            let rotated = |i: usize| {
                let (cos, sin) = (f64::from(angles[i % half]), f64::from(angles[half + i % half]));
                let other = if i < half { -normed(i + half) } else { normed(i - half) };
                if kind == 2 { (x[i], 0.0) } else { (normed(i) * cos, other * sin) }
            };
            let largest = (0..self.size).map(|i| rotated(i).0 + rotated(i).1).fold(0.0, |a, x| x.abs().max(a));
            let step = 2f64.powf((largest / 448.0).log2().ceil()) * 2f64.powi(-9);
            for (i, got) in got.iter().enumerate().take(self.size) {
                let (direct, turned) = rotated(i);
                let want = direct + turned;
                let rounding =
                    if self.fp8 && kind > 0 { (16.0 * ULP * want.abs()).max(step / 2.0) } else { ULP * want.abs() };
                // Cancellation leaves the f32 error of the terms.
                errors.push((got.to_f64(), want, rounding + 1e-6 * (direct.abs() + turned.abs()) + 1e-30));
            }
        }
        let row = self.kv_heads * self.size;
        let untouched = (0..2 * self.tokens).filter(|slot| !written.contains(slot));
        let clean = untouched.flat_map(|slot| &keys[slot * row..][..row]).all(|x| x.is_nan());
        if clean { worst(errors) } else { f64::INFINITY }
    }
}

proptest! {
    #![proptest_config(support::proptest_config(16))]

    #[test]
    fn kv_cache_matches_float64(
        size in 0usize..4, heads in 1usize..9, kv_heads in 1usize..4, tokens in 1usize..6, normed in any::<bool>(), fp8 in any::<bool>(), seed in any::<u64>(),
    ) {
        let case = Case { size: HEAD_SIZES[size] as usize, heads, kv_heads, tokens, normed, fp8, seed };
        let got = case.run(Order::Forward, 0..tokens);
        for order in ORDERS {
            let again = case.run(order, 0..tokens);
            prop_assert_eq!(again.all_bits(), got.all_bits());
        }
        let error = case.worst_error(&got);
        prop_assert!(error < 1.01, "{} half units in the last place", error);
        let row = heads * case.size;
        for token in 0..tokens {
            let alone = case.run(Order::Forward, token..token + 1);
            prop_assert_eq!(bits(&alone.queries), bits(&got.queries[token * row..][..row]));
        }
    }
}
