//! What a GPU must do as the CPU shim does, and how fast it does it: products and attention, on any accelerator.

// Launches trust their addresses: each is of a region that holds what its shape says.
#![allow(unsafe_code)]

use std::time::Instant;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surprisal_engine::BackendError;
use surprisal_engine::cuda::{Accelerator, Product, ROW_TILE, Region};
use surprisal_kernels::Address;
use surprisal_kernels::attention::{PagedAttention, query_tiles};

/// Tokens a block of the cache.
const BLOCK: u32 = 16;

/// A thing that must hold, and whether it did.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// What was found wrong; nothing if it holds.
    pub failure: Option<String>,
}

/// How long something took.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// What ran.
    pub name: String,
    /// Milliseconds, the mean of several in one queue.
    pub milliseconds: f64,
    /// 10^12 floating-point operations a second.
    pub teraflops: f64,
}

/// Sizes to time: of Llama-3.1-8B for a GPU, or small ones.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of the residual stream.
    pub hidden: usize,
    /// Of the MLP.
    pub mlp: usize,
    /// Query heads and KV heads, each of 128.
    pub heads: (u32, u32),
    /// Decoder layers.
    pub layers: usize,
}

/// The sizes of Llama-3.1-8B.
pub const LLAMA_8B: Sizes = Sizes { hidden: 4096, mlp: 14_336, heads: (32, 8), layers: 32 };

/// Sizes for the shim.
pub const TINY: Sizes = Sizes { hidden: 64, mlp: 96, heads: (2, 1), layers: 2 };

fn random(count: usize, seed: u64) -> Vec<u16> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut value = || ((rng.random_range(-1.0f32..1.0)).to_bits() >> 16) as u16;
    // A large matrix repeats its beginning, at a period that divides no row.
    let some: Vec<u16> = (0..count.min(1_000_003)).map(|_| value()).collect();
    some.iter().copied().cycle().take(count).collect()
}

fn bytes(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn wide(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

fn put<A: Accelerator>(device: &mut A, values: &[u16]) -> Result<Region, BackendError> {
    let region = device.allocate(values.len() * 2)?;
    device.write(region, &bytes(values))?;
    Ok(region)
}

/// The contract of [`Accelerator`]: copies whole and in parts, products right to float64, and each row's bits its own.
///
/// # Errors
///
/// The device fails.
pub fn conformance<A: Accelerator>(device: &mut A) -> Result<Vec<Check>, BackendError> {
    let mut checks = vec![copies(device)?];
    for (n, k, bias) in [(24, 40, true), (136, 256, false), (512, 1024, true)] {
        for wide in [false, true] {
            checks.extend(products(device, n, k, bias && !wide, wide)?);
        }
    }
    Ok(checks)
}

/// More than the staging buffers hold together, at odd lengths.
fn copies<A: Accelerator>(device: &mut A) -> Result<Check, BackendError> {
    let length = (40 << 20) + 3;
    let sent: Vec<u8> = (0..length).map(|i: usize| (i * 31 + (i >> 16)) as u8).collect();
    let (from, to) = (device.allocate(length)?, device.allocate(length)?);
    device.write(from, &sent)?;
    let part = to.part(256, length - 256)?;
    device.copy(from, part)?;
    let mut got = vec![0; length - 256];
    device.read(part, &mut got)?;
    let wrong = got.iter().zip(&sent).position(|(got, sent)| got != sent);
    let failure = wrong.map(|at| format!("byte {at} is {}, but {} was sent", got[at], sent[at]));
    Ok(Check { name: "copies there, on the device, and back".to_owned(), failure })
}

fn products<A: Accelerator>(
    device: &mut A,
    n: usize,
    k: usize,
    has_bias: bool,
    is_wide: bool,
) -> Result<[Check; 2], BackendError> {
    const ROWS: usize = 300;
    let size = if is_wide { 4 } else { 2 };
    let (x, w, b) = (random(ROWS * k, 1), random(n * k, 2), random(n, 3));
    let (weights, bias) = (put(device, &w)?, if has_bias { Some(put(device, &b)?) } else { None });
    let input = device.allocate(ROWS.next_multiple_of(ROW_TILE) * k * 2)?;
    let out = device.allocate(ROWS.next_multiple_of(ROW_TILE) * n * size)?;
    let mut multiply = |first: usize, rows: usize| {
        device.write(input, &bytes(&x[first * k..(first + rows) * k]))?;
        device.multiply(&Product { out, x: input, weights, bias, rows, n, k, wide: is_wide })?;
        let mut got = vec![0; rows * n * size];
        device.read(out, &mut got).map(|()| got)
    };
    let all = multiply(0, ROWS)?;
    let mut moved = None;
    for (first, rows) in [(0, 1), (299, 1), (5, 127), (7, 128), (9, 129), (44, 256)] {
        let same = multiply(first, rows)? == all[first * n * size..(first + rows) * n * size];
        moved = moved.or((!same).then(|| format!("rows {first} to {} have other bits alone", first + rows)));
    }
    let value = |at: usize| match is_wide {
        true => f64::from(f32::from_le_bytes([all[at * 4], all[at * 4 + 1], all[at * 4 + 2], all[at * 4 + 3]])),
        false => wide(u16::from_le_bytes([all[at * 2], all[at * 2 + 1]])),
    };
    let (mut worst, mut total) = (0.0f64, 0.0f64);
    for (at, (row, column)) in (0..ROWS).flat_map(|row| (0..n).map(move |column| (row, column))).enumerate() {
        let terms = x[row * k..][..k].iter().zip(&w[column * k..][..k]).map(|(&x, &w)| wide(x) * wide(w));
        let want = terms.sum::<f64>() + if has_bias { wide(b[column]) } else { 0.0 };
        // NaN is as wrong as can be.
        let error = (value(at) - want).abs();
        worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
        total = total.max(want.abs());
    }
    let limit = total * if is_wide { 1e-5 } else { 1.0 / 256.0 };
    let far = (worst > limit).then(|| format!("an error of {worst:e}, but {limit:e} is the limit"));
    let name =
        format!("n {n}, k {k}, {}{}", if is_wide { "f32" } else { "bf16" }, if has_bias { ", bias" } else { "" });
    Ok([
        Check { name: format!("product against float64: {name}"), failure: far },
        Check { name: format!("bits of rows alone and in company: {name}"), failure: moved },
    ])
}

/// Milliseconds of one of `repeats` runs in one queue, after one that is not counted.
fn time<A: Accelerator>(
    device: &mut A,
    probe: Region,
    repeats: u32,
    mut run: impl FnMut(&mut A) -> Result<(), BackendError>,
) -> Result<f64, BackendError> {
    let mut word = [0; 2];
    run(device)?;
    device.read(probe, &mut word)?;
    let start = Instant::now();
    (0..repeats).try_for_each(|_| run(device))?;
    device.read(probe, &mut word)?;
    Ok(start.elapsed().as_secs_f64() * 1e3 / f64::from(repeats))
}

/// Each of a layer's products and causal attention on `tokens` tokens, and the products of all layers together.
///
/// # Errors
///
/// The device fails, or its memory does not hold it.
pub fn timings<A: Accelerator>(
    device: &mut A,
    sizes: Sizes,
    tokens: usize,
    repeats: u32,
) -> Result<Vec<Timing>, BackendError> {
    let Sizes { hidden, mlp, heads: (heads, kv_heads), layers, .. } = sizes;
    let rows = tokens.next_multiple_of(ROW_TILE);
    let shapes = [
        ("qkv", 128 * (heads + 2 * kv_heads) as usize, hidden),
        ("output", hidden, 128 * heads as usize),
        ("gate and up", 2 * mlp, hidden),
        ("down", hidden, mlp),
    ];
    let mut timings = Vec::new();
    for (name, n, k) in shapes {
        let (x, weights) = (put(device, &random(rows * k, 4))?, put(device, &random(n * k, 5))?);
        let product =
            Product { out: device.allocate(rows * n * 2)?, x, weights, bias: None, rows: tokens, n, k, wide: false };
        let milliseconds = time(device, product.out, repeats, |device| device.multiply(&product))?;
        let teraflops = 2e-9 * (tokens * n * k) as f64 / milliseconds;
        timings.push(Timing { name: format!("{name}, T = {tokens}"), milliseconds, teraflops });
    }
    let all: f64 = timings.iter().map(|timing| timing.milliseconds).sum::<f64>() * layers as f64;
    let operations: usize = shapes.iter().map(|(_, n, k)| 2 * tokens * n * k * layers).sum();
    let name = format!("products of {layers} layers, T = {tokens}");
    timings.push(Timing { name, milliseconds: all, teraflops: 1e-9 * operations as f64 / all });
    let (timing, bits) = attention(device, sizes.heads, tokens, repeats, false)?;
    timings.push(timing);
    match attention(device, sizes.heads, tokens, repeats, true) {
        Ok((mut timing, own)) => {
            let differ = own.chunks(2).zip(bits.chunks(2)).filter(|(own, bits)| own != bits).count();
            timing.name += &format!(" ({differ} of {} values have other bits than mma.sync's)", bits.len() / 2);
            timings.push(timing);
        }
        // Only Hopper has these.
        Err(error) => eprintln!("attention by wgmma is skipped: {error}"),
    }
    Ok(timings)
}

/// Causal attention of one sequence, how long it takes and what comes out.
fn attention<A: Accelerator>(
    device: &mut A,
    (heads, kv_heads): (u32, u32),
    tokens: usize,
    repeats: u32,
    wgmma: bool,
) -> Result<(Timing, Vec<u8>), BackendError> {
    let blocks = tokens.div_ceil(BLOCK as usize);
    let (width, cached) = (tokens * heads as usize * 128, blocks * BLOCK as usize * kv_heads as usize * 128);
    let integers = |device: &mut A, values: Vec<i32>| {
        let region = device.allocate(values.len() * 4)?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        device.write(region, &bytes)?;
        region.holding(bytes.len())
    };
    let tiles = query_tiles(128, &[(tokens as u32, tokens as u32)]);
    let out = device.allocate(width * 2)?;
    let args = PagedAttention {
        out: out.holding(width * 2)?,
        q: put(device, &random(width, 6))?.holding(width * 2)?,
        keys: put(device, &random(cached, 7))?.holding(cached * 2)?,
        values: put(device, &random(cached, 8))?.holding(cached * 2)?,
        key_scales: Address::NULL,
        value_scales: Address::NULL,
        table: integers(device, (0..blocks as i32).collect())?,
        contexts: integers(device, vec![tokens as i32])?,
        starts: integers(device, vec![0, tokens as i32])?,
        tiles: integers(device, tiles.concat())?,
        table_width: blocks as u32,
        block_size: BLOCK,
        heads,
        kv_heads,
        window: 0,
        scale: 128f32.sqrt().recip(),
    };
    let count = tiles.len() as u32;
    let launch = if wgmma { args.launch_wgmma(128, count)? } else { args.launch(128, count)? };
    // SAFETY: every region holds what its matrix takes, tables and tiles index what is there, and all live as long as the
    // device.
    let milliseconds = time(device, out, repeats, |device| unsafe { device.launch(&launch) })?;
    // Two products of half a square, since it is causal.
    let operations = 2.0 * 128.0 * f64::from(heads) * (tokens as f64).powi(2);
    let name = format!("attention by {}, T = {tokens}, head 128", if wgmma { "wgmma" } else { "mma.sync" });
    let mut bits = vec![0; width * 2];
    device.read(out, &mut bits)?;
    Ok((Timing { name, milliseconds, teraflops: 1e-9 * operations / milliseconds }, bits))
}
