//! Kernels over rows against float64, in every thread order, each row alone and in company.

#![allow(clippy::unwrap_used)]

mod support;

use half::bf16;
use proptest::prelude::*;
use rand::RngExt;
use support::{Buffer, ORDERS, ULP, bits, e4m3, random, refused, rng, run, worst};
use surprisal_kernels::cpu::Order;
use surprisal_kernels::rows::{Embedding, Fp8Quantize, Fp8Scale, HEAD_SIZES, KvCache, RankSum, RmsNorm, SiluMul};
use surprisal_kernels::{Address, Launch, SOURCES};

/// Out, and the residual if there is one.
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

fn fp8(order: Order, x: &[bf16], n: usize) -> (Vec<u8>, Vec<f32>) {
    fp8_below(f32::INFINITY, order, x, n)
}

fn fp8_below(limit: f32, order: Order, x: &[bf16], n: usize) -> (Vec<u8>, Vec<f32>) {
    let rows = x.len() / n;
    let (mut out, mut scales) = (Buffer::full(x.len(), u8::MAX), Buffer::full(rows, f32::NAN));
    let x = Buffer::of(x);
    let args = Fp8Quantize { out: out.address_mut(), scales: scales.address_mut(), x: x.address(), n: n as u32, limit };
    run(order, args.launch(rows as u32));
    (out.values(), scales.values())
}

fn rank_sum(order: Order, parts: &[bf16], ranks: usize) -> Vec<bf16> {
    let n = parts.len() / ranks;
    let (x, mut out) = (Buffer::of(parts), Buffer::full(n, bf16::NAN));
    run(order, RankSum { out: out.address_mut(), parts: x.address(), n: n as u32, ranks: ranks as u32 }.launch());
    out.values()
}

proptest! {
    #![proptest_config(support::cases(16))]

    /// To float64, and to the bit in order of rank: also where large addends cancel.
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
        // Where a value lies among others, and how many there are, does not matter.
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
            prop_assert!(error < 1.001, "{} half units", error);
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
        prop_assert!(error < 1.001, "{} half units", error);
    }

    #[test]
    fn fp8_takes_the_nearest(rows in 1usize..4, vectors in 1usize..500, spread in 1e-3f32..1e3, seed in any::<u64>()) {
        let n = vectors * 8;
        let mut rng = rng(seed, 0);
        let mut x = random(&mut rng, rows * n, spread);
        for value in &mut x {
            *value = bf16::from_f32(value.to_f32() * 2f32.powi(-rng.random_range(0..16)));  // down to subnormal bytes
        }
        x[..n].fill(bf16::ZERO);
        let (out, scales) = fp8(Order::Forward, &x, n);
        for order in ORDERS {
            prop_assert_eq!(&fp8(order, &x, n), &(out.clone(), scales.clone()));
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
        prop_assert!(error < 1.001, "{} half units", error);
    }

    #[test]
    fn kv_cache_matches_float64(
        size in 0usize..4, heads in 1usize..9, kv_heads in 1usize..4, tokens in 1usize..6, normed in any::<bool>(), fp8 in any::<bool>(), seed in any::<u64>(),
    ) {
        let case = Cache { size: HEAD_SIZES[size] as usize, heads, kv_heads, tokens, normed, fp8, seed };
        let got = case.run(Order::Forward, 0..tokens);
        for order in ORDERS {
            let again = case.run(order, 0..tokens);
            prop_assert_eq!([&again.0, &again.1, &again.2].map(|x| bits(x)), [&got.0, &got.1, &got.2].map(|x| bits(x)));
        }
        let error = case.worst_error(&got);
        prop_assert!(error < 1.01, "{} half units", error);
        let row = heads * case.size;
        for token in 0..tokens {
            let alone = case.run(Order::Forward, token..token + 1);
            prop_assert_eq!(bits(&alone.0), bits(&got.0[token * row..][..row]));
        }
    }
}

/// Tokens on their way into a cache of twice as many slots; every third is padding.
struct Cache {
    size: usize,
    heads: usize,
    kv_heads: usize,
    tokens: usize,
    normed: bool,
    fp8: bool,
    seed: u64,
}

const POSITIONS: usize = 50;

impl Cache {
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

    /// Queries of some tokens, and the cache they leave.
    fn run(&self, order: Order, tokens: std::ops::Range<usize>) -> (Vec<bf16>, Vec<bf16>, Vec<bf16>) {
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
        let args = KvCache {
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
        // A byte times its power of two is a bf16, exactly.
        let held = |cache: &Buffer<u8>, scales: &Buffer<f32>| -> Vec<bf16> {
            let (bytes, scales) = (cache.values(), scales.values());
            if !self.fp8 {
                return bytes.chunks(2).map(|pair| bf16::from_le_bytes([pair[0], pair[1]])).collect();
            }
            let scaled = |(i, byte): (usize, u8)| bf16::from_f64(e4m3(byte) * f64::from(scales[i / self.size]));
            bytes.into_iter().enumerate().map(scaled).collect()
        };
        (queries.values(), held(&keys, &scales[0]), held(&values, &scales[1]))
    }

    fn worst_error(&self, (queries, keys, values): &(Vec<bf16>, Vec<bf16>, Vec<bf16>)) -> f64 {
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
                // What cancels leaves f32's error of what there was.
                errors.push((got.to_f64(), want, rounding + 1e-6 * (direct.abs() + turned.abs()) + 1e-30));
            }
        }
        let row = self.kv_heads * self.size;
        let untouched = (0..2 * self.tokens).filter(|slot| !written.contains(slot));
        let clean = untouched.flat_map(|slot| &keys[slot * row..][..row]).all(|x| x.is_nan());
        if clean { worst(errors) } else { f64::INFINITY }
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
            // Of a rank that has rows 3 to 5, the others' are zeros.
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
fn fp8_is_cut_off_at_the_limit() {
    let x: Vec<bf16> = [1.0, -4.0, 2.0, 0.5, 3.0, -2.0, 0.0, 8.0].map(bf16::from_f32).to_vec();
    let (out, scales) = fp8_below(2.0, Order::Forward, &x, 8);
    assert_eq!(scales, [2.0 / 448.0]);
    let values: Vec<f64> = out.iter().map(|&byte| e4m3(byte)).collect();
    assert_eq!(values, [224.0, -448.0, 448.0, 112.0, 448.0, -448.0, 0.0, 448.0]);
    assert_eq!(fp8_below(8.0, Order::Forward, &x, 8), fp8(Order::Forward, &x, 8));
}

#[test]
fn every_bf16_has_its_fp8() {
    // With 448 in the row the scale is 1, so each byte is the value rounded to nearest, ties to even.
    let mut x: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).filter(|x| x.to_f32().abs() <= 448.0).collect();
    x.resize(x.len().next_multiple_of(8), bf16::from_f32(448.0));
    let (out, scales) = fp8(Order::Forward, &x, x.len());
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

#[test]
fn what_does_not_fit_is_an_error() {
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
    assert_eq!(refused(&launch), "no_such_kernel: no kernel named no_such_kernel");
    launch.kernel = "rms_norm";
    assert_eq!(refused(&launch), "rms_norm: kernel argument 0 has the wrong size");
}

#[test]
fn every_kernel_listed_is_there() {
    for kernel in SOURCES.iter().flat_map(|source| source.kernels) {
        let launch = Launch { kernel, grid: [1; 3], block: 32, shared: 0, args: 0u8 };
        assert_eq!(refused(&launch), format!("{kernel}: kernel argument 0 has the wrong size"));
    }
}
