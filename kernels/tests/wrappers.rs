//! Checks the device features that the kernels rely on: fragments, shuffles, copies and conversions must behave the
//! same on a GPU and on the shim.

#![allow(clippy::unwrap_used)]

mod support;

use half::bf16;
use rand::RngExt;
use support::{Buffer, ORDERS, e4m3, has_wgmma, random, rng, run, tensor_map};
use surprisal_kernels::cpu::Order;
use surprisal_kernels::{Address, CacheView, Launch, TensorMap};

/// The parameter of every wrapper kernel except the copy engine's.
#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    out: Address,
    x: Address,
    tile: Address,
}

/// Returns a wrapper kernel's output for words and a tile. Checks that the output is the same in every thread order.
fn wrapped(kernel: &'static str, [blocks, block, shared]: [u32; 3], x: &[u32], tile: &[bf16], len: usize) -> Vec<u32> {
    let (x, tile) = (Buffer::of(x), Buffer::of(tile));
    let once = |order: Order| {
        let mut out = Buffer::full(len, u32::MAX);
        let args = Args { out: out.address_mut(), x: x.address(), tile: tile.address() };
        run(order, Ok(Launch { kernel, grid: [blocks, 1, 1], block, shared, args }));
        out.values()
    };
    let out = once(Order::Forward);
    assert!(ORDERS.iter().all(|&order| once(order) == out), "{kernel}");
    out
}

/// Returns small whole numbers, whose sums of products are exact in any order.
fn whole(stream: u64, count: usize) -> Vec<bf16> {
    let mut rng = rng(1, stream);
    (0..count).map(|_| bf16::from_f32(rng.random_range(-9i32..10) as f32)).collect()
}

/// Packs two neighboring values into a register, the first in the low half.
fn pair(values: &[bf16]) -> u32 {
    u32::from(values[0].to_bits()) | u32::from(values[1].to_bits()) << 16
}

/// Returns a lane's part of a 16 x 16 left operand.
fn left(a: &[bf16], lane: usize) -> [u32; 4] {
    let (row, column) = (lane / 4, lane % 4 * 2);
    [(0, 0), (8, 0), (0, 8), (8, 8)].map(|(down, right)| pair(&a[(row + down) * 16 + column + right..]))
}

/// Checks a result against `d` plus the sum of products: exactly if all terms are whole numbers, otherwise up to a
/// device's rounding.
fn check(got: u32, d: f32, terms: impl Iterator<Item = (f64, f64)>, is_whole: bool, what: &str) {
    let products: Vec<f64> = terms.map(|(a, b)| a * b).collect();
    let want = f64::from(d) + products.iter().sum::<f64>();
    let size = f64::from(d).abs() + products.iter().map(|x| x.abs()).sum::<f64>();
    let allowed = if is_whole { 0.0 } else { size * 2f64.powi(-20) };
    let error = (f64::from(f32::from_bits(got)) - want).abs();
    assert!(error <= allowed, "{what}: got {}, expected {want}", f32::from_bits(got));
}

#[test]
fn mma_adds_sixteen_products() {
    for is_whole in [true, false] {
        let values =
            |stream, count| if is_whole { whole(stream, count) } else { random(&mut rng(2, stream), count, 2.0) };
        let (a, b, d) = (values(0, 256), values(1, 128), values(2, 128));
        // b is [16][8]: a register holds two rows of a column.
        let right = |lane: usize, down: usize| {
            let (row, column) = (lane % 4 * 2 + down, lane / 4);
            pair(&[b[row * 8 + column], b[(row + 1) * 8 + column]])
        };
        let place = |lane: usize, i: usize| (lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2);
        let x: Vec<u32> = (0..32)
            .flat_map(|lane| {
                let d = (0..4).map(|i| place(lane, i)).map(|(row, column)| d[row * 8 + column].to_f32().to_bits());
                left(&a, lane).into_iter().chain([right(lane, 0), right(lane, 8)]).chain(d.collect::<Vec<_>>())
            })
            .collect();
        let out = wrapped("wrapper_mma", [1, 32, 0], &x, &[], 128);
        for (at, &got) in out.iter().enumerate() {
            let (row, column) = place(at / 4, at % 4);
            let terms = (0..16).map(|k| (a[row * 16 + k].to_f64(), b[k * 8 + column].to_f64()));
            check(got, d[row * 8 + column].to_f32(), terms, is_whole, &format!("row {row}, column {column}"));
        }
    }
}

#[test]
fn copies_and_ldmatrix_place_every_value() {
    let tile: Vec<bf16> = (0..256).map(|i| bf16::from_bits(i * 251 + 7)).collect();
    let is_real: Vec<u32> = (0..32).map(|row| u32::from(row % 5 != 3)).collect();
    let out = wrapped("wrapper_ldmatrix", [1, 32, 0], &is_real, &tile, 256);
    let value = |row: usize, column: usize| match is_real[row] {
        0 => bf16::ZERO,
        _ => tile[row * 8 + column],
    };
    for (lane, got) in out.chunks(8).enumerate() {
        let (row, column) = (lane / 4, lane % 4 * 2);
        for matrix in 0..4 {
            let at = |row: usize, column: usize| value(matrix * 8 + row, column);
            assert_eq!(got[matrix], pair(&[at(row, column), at(row, column + 1)]), "lane {lane}, matrix {matrix}");
            assert_eq!(got[4 + matrix], pair(&[at(column, row), at(column + 1, row)]), "lane {lane}, transposed");
        }
    }
}

#[test]
fn reductions_are_fixed_trees() {
    let x: Vec<f32> = random(&mut rng(3, 0), 128, 5.0).iter().map(|x| x.to_f32() * 1.000_123).collect();
    let out = wrapped("wrapper_reduce", [1, 128, 0], &x.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), &[], 128 * 9);
    let tree = |values: &[f32], combine: fn(f32, f32) -> f32| -> f32 {
        let mut values = values.to_vec();
        while values.len() > 1 {
            let half = values.len() / 2;
            values = (0..half).map(|i| combine(values[i], values[i + half])).collect();
        }
        values[0]
    };
    let add = |a: f32, b: f32| a + b;
    let mut sums: Vec<f32> = x.chunks(32).map(|warp| tree(warp, add)).collect();
    sums.resize(32, 0.0);
    let largest = x.iter().copied().fold(f32::MIN, f32::max);
    for (thread, got) in out.chunks(9).enumerate() {
        let got: Vec<f32> = got.iter().map(|&bits| f32::from_bits(bits)).collect();
        for (i, &got) in got[..5].iter().enumerate() {
            assert_eq!(got, x[thread ^ 1 << i]);
        }
        let warp = &x[thread / 32 * 32..][..32];
        assert_eq!(got[5..], [tree(warp, add), tree(warp, f32::max), tree(&sums, add), largest], "thread {thread}");
    }
}

#[test]
fn conversions_round_to_nearest_even() {
    let mut rng = rng(4, 0);
    let mut x: Vec<u32> = (0..4096).map(|_| rng.random()).collect();
    // Every midpoint between two e4m3 values, and the floats next to it.
    let values: Vec<f64> = (0..0x7f).map(e4m3).collect();
    for between in values.windows(2).map(|two| ((two[0] + two[1]) / 2.0) as f32) {
        x.extend([between.to_bits() - 1, between.to_bits(), between.to_bits() + 1, (-between).to_bits()]);
    }
    x.extend([f32::NAN, f32::INFINITY, -f32::INFINITY, 0.0, -0.0, 448.0, 463.9, 464.0, 1e9].map(f32::to_bits));
    x.resize(x.len().next_multiple_of(128), 0);
    let out = wrapped("wrapper_convert", [x.len() as u32 / 128, 128, 0], &x, &[], x.len() * 6);
    for (&bits, got) in x.iter().zip(out.chunks(6)) {
        let v = f32::from_bits(bits);
        let rounded = |v: f32| if v.is_nan() { 0x7fff } else { bf16::from_f32(v).to_bits() };
        assert_eq!(got[0], u32::from(rounded(v)), "{v} as bf16");
        assert_eq!(got[1], u32::from(rounded(v)) | u32::from(rounded(-v)) << 16, "{v} and its negative");
        let byte = got[2] as u8;
        if v.is_nan() {
            assert_eq!(byte & 0x7f, 0x7f);
        } else {
            let size = f64::from(v.abs()).min(448.0);
            let nearest = values.iter().map(|value| (value - size).abs()).fold(f64::MAX, f64::min);
            let (at, error) = (byte & 0x7f, (e4m3(byte & 0x7f) - size).abs());
            // A tie rounds to the even byte.
            let is_tie = values.iter().filter(|&value| (value - size).abs() == nearest).count() == 2;
            assert!(error == nearest && (!is_tie || at % 2 == 0), "{v} as e4m3 is {byte:#x}");
            assert_eq!(byte >> 7, (bits >> 31) as u8, "the sign of {v}");
        }
        let back = f64::from(f32::from_bits(got[3]));
        let held = e4m3(bits as u8);
        assert!(back == if held.is_nan() { if bits & 0x80 == 0 { 480.0 } else { -480.0 } } else { held }, "{bits:#x}");
        let near = |got: u32, want: f64| {
            let got = f64::from(f32::from_bits(got));
            got == want || (got - want).abs() <= 1e-6 * want.abs() + 1.2e-38
        };
        if v.is_finite() {
            let power = f64::from(v).exp2();
            let is_large = power > f64::from(f32::MAX);
            assert!(near(got[4], if is_large { f64::INFINITY } else { power }), "2^{v} is {}", f32::from_bits(got[4]));
        }
        if v.is_normal() {
            assert!(near(got[5], 1.0 / f64::from(v.abs()).sqrt()), "1/sqrt({v}) is {}", f32::from_bits(got[5]));
        }
    }
}

#[test]
fn wgmma_reads_swizzled_tiles_both_ways() {
    if !has_wgmma() {
        return;
    }
    const COLUMNS: usize = 128;
    for is_whole in [true, false] {
        let values =
            |stream, count| if is_whole { whole(stream, count) } else { random(&mut rng(5, stream), count, 2.0) };
        let (a, tile, d) = (values(0, 64 * 16), values(1, 64 * COLUMNS), values(2, 64 * 192));
        // Four warps of 16 rows; the 192 columns of d are 64 of the first product and 128 of the second.
        let place = |thread: usize, i: usize| {
            let (row, column) = (thread / 32 * 16 + thread % 32 / 4 + i % 4 / 2 * 8, thread % 4 * 2 + i % 2);
            (row, i / 4 * 8 + column)
        };
        let x: Vec<u32> = (0..128)
            .flat_map(|thread| {
                let d = (0..96).map(|i| place(thread, i)).map(|(row, column)| d[row * 192 + column].to_f32().to_bits());
                left(&a[thread / 32 * 256..], thread % 32).into_iter().chain(d.collect::<Vec<_>>())
            })
            .collect();
        let out = wrapped("wrapper_wgmma", [1, 128, 64 * COLUMNS as u32 * 2], &x, &tile, 128 * 96);
        for (at, &got) in out.iter().enumerate() {
            let (row, column) = place(at / 96, at % 96);
            let b = |k: usize| match column {
                0..64 => tile[column * COLUMNS + 80 + k],
                _ => tile[(32 + k) * COLUMNS + column - 64],
            };
            let terms = (0..16).map(|k| (a[row * 16 + k].to_f64(), b(k).to_f64()));
            check(got, d[row * 192 + column].to_f32(), terms, is_whole, &format!("row {row}, column {column}"));
        }
    }
}

/// The parameter of the copy engine's wrapper kernel.
#[derive(Clone, Copy)]
#[repr(C)]
struct TmaArgs {
    out: Address,
    slot: i32,
    map: TensorMap,
}

#[test]
fn the_copy_engine_swizzles_boxes() {
    if !has_wgmma() {
        return;
    }
    // Each word is its own index in 48 slots with 3 heads of 128 columns; a word holds two columns.
    let cache: Vec<u32> = (0..48 * 3 * 64).collect();
    let cached = Buffer::of(&cache);
    let map = tensor_map(&CacheView { cache: cached.address(), slots: 48, kv_heads: 3, head_size: 128, rows: 16 });
    for (order, slot) in ORDERS.into_iter().zip([0usize, 16, 32]) {
        let mut out = Buffer::full(16 * 32, u32::MAX);
        let args = TmaArgs { out: out.address_mut(), slot: slot as i32, map };
        let shared = 16 * 128 + 8;
        run(order, Ok(Launch { kernel: "wrapper_tma_wgmma", grid: [1, 1, 1], block: 32, shared, args }));
        for (at, got) in out.values().into_iter().enumerate() {
            let (row, chunk, word) = (at / 32, at % 32 / 4, at % 4);
            let column = 32 + (chunk ^ (row % 8)) * 4 + word;
            assert_eq!(got as usize, ((slot + row) * 3 + 1) * 64 + column, "row {row}, chunk {chunk}, word {word}");
        }
    }
}
