//! What a GPU must do as the CPU shim does, and how fast it does it: products and attention, on any accelerator.

// Launches trust their addresses: each is of a region that holds what its shape says.
#![allow(unsafe_code)]

use std::time::Instant;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use surprisal_engine::BackendError;
use surprisal_engine::cuda::{Accelerator, Product, ROW_TILE, Region, Scales};
use surprisal_kernels::attention::{PagedAttention, query_tiles};
use surprisal_kernels::{Address, Launch};
use surprisal_model::quantise_rows;

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

/// Kernels for attention that only Hopper has.
pub const HOPPER: [&str; 2] = ["wgmma", "wgmma and TMA"];

/// What the time of a pass's products together is called.
#[must_use]
pub fn all_products(precision: &str, tokens: usize) -> String {
    format!("all products of a pass, {precision}, T = {tokens}")
}

/// Whether a device has what Hopper alone has; the shim does as if.
pub fn has_hopper<A: Accelerator>(device: &A) -> bool {
    let numerics = device.numerics();
    numerics == "shim" || numerics.contains("sm_90a")
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
    /// Token ids.
    pub vocabulary: usize,
}

impl Sizes {
    /// Llama-3.1-8B's.
    pub const LLAMA_8B: Self = Self { hidden: 4096, mlp: 14_336, heads: (32, 8), layers: 32, vocabulary: 128_256 };

    /// For the shim.
    pub const TINY: Self = Self { hidden: 64, mlp: 96, heads: (2, 1), layers: 2, vocabulary: 504 };

    /// A config.json of such a Llama.
    #[must_use]
    pub fn config(&self) -> String {
        let Self { hidden, mlp, heads: (heads, kv_heads), layers, vocabulary } = self;
        json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "intermediate_size": mlp,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": 128,
            "num_hidden_layers": layers, "vocab_size": vocabulary, "rope_theta": 500000.0,
            "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        })
        .to_string()
    }
}

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
/// What the device fails to do at all does not hold.
pub fn conformance<A: Accelerator>(device: &mut A) -> Vec<Check> {
    let mut checks = vec![copies(device)];
    let case = |(n, k, has_bias), kind| Case { n, k, has_bias, kind };
    for (n, k, has_bias) in [(24, 40, true), (136, 256, false), (512, 1024, true)] {
        checks.extend(products(device, case((n, k, has_bias), Kind::Narrow)));
        checks.extend(products(device, case((n, k, false), Kind::Wide)));
    }
    for shape in [(48, 80, true), (512, 1024, false)] {
        checks.extend(products(device, case(shape, Kind::Fp8)));
    }
    checks
}

/// More than the staging buffers hold together, at odd lengths.
fn copies<A: Accelerator>(device: &mut A) -> Check {
    let failure = wrong_copy(device).unwrap_or_else(|error| Some(error.to_string()));
    Check { name: "copies there, on the device, and back".to_owned(), failure }
}

fn wrong_copy<A: Accelerator>(device: &mut A) -> Result<Option<String>, BackendError> {
    let length = (40 << 20) + 3;
    let sent: Vec<u8> = (0..length).map(|i: usize| (i * 31 + (i >> 16)) as u8).collect();
    let (from, to) = (device.allocate(length)?, device.allocate(length)?);
    device.write(from, &sent)?;
    let part = to.part(256, length - 256)?;
    device.copy(from, part)?;
    let mut got = vec![0; length - 256];
    device.read(part, &mut got)?;
    let wrong = got.iter().zip(&sent).position(|(got, sent)| got != sent);
    Ok(wrong.map(|at| format!("byte {at} is {}, but {} was sent", got[at], sent[at])))
}

/// A product to check.
#[derive(Clone, Copy, Debug)]
struct Case {
    n: usize,
    k: usize,
    has_bias: bool,
    kind: Kind,
}

/// What a product reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// bf16 to bf16.
    Narrow,
    /// bf16 to f32.
    Wide,
    /// e4m3 with scales to bf16.
    Fp8,
}

/// A matrix as a product reads it, and its values.
struct Matrix {
    bytes: Vec<u8>,
    values: Vec<f64>,
    /// Bytes of a value.
    size: usize,
}

impl Matrix {
    fn random(count: usize, seed: u64, kind: Kind) -> Self {
        let drawn = random(count, seed);
        match kind {
            Kind::Narrow | Kind::Wide => {
                Self { bytes: bytes(&drawn), values: drawn.iter().map(|&bits| wide(bits)).collect(), size: 2 }
            }
            Kind::Fp8 => {
                let values: Vec<f32> = drawn.iter().map(|&bits| wide(bits) as f32 * 448.0).collect();
                // With one scale for all, 1 or a little less.
                let (bytes, _) = quantise_rows(&values, count);
                Self { values: bytes.iter().map(|&byte| e4m3(byte)).collect(), bytes, size: 1 }
            }
        }
    }
}

/// A byte of e4m3 by its definition.
fn e4m3(byte: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f64::from(byte & 7) / 8.0);
    let size = if exponent == 0 { mantissa * 2f64.powi(-6) } else { (1.0 + mantissa) * 2f64.powi(exponent - 7) };
    if byte & 0x80 == 0 { size } else { -size }
}

/// Scales that no power of two hides.
fn scales(count: usize) -> Vec<f32> {
    (0..count).map(|i| 0.001 + 0.000_37 * (i % 11) as f32).collect()
}

fn products<A: Accelerator>(device: &mut A, case: Case) -> [Check; 2] {
    let failed = |error: BackendError| [Some(error.to_string()), Some(error.to_string())];
    let [far, moved] = wrong_products(device, case).unwrap_or_else(failed);
    let Case { n, k, has_bias, kind } = case;
    let kind = match kind {
        Kind::Narrow => "bf16",
        Kind::Wide => "bf16 to f32",
        Kind::Fp8 => "fp8",
    };
    let shape = format!("n {n}, k {k}, {kind}{}", if has_bias { ", bias" } else { "" });
    [
        Check { name: format!("product against float64: {shape}"), failure: far },
        Check { name: format!("bits of rows alone and in company: {shape}"), failure: moved },
    ]
}

/// How far it is from float64, if that is too far, and which rows have other bits alone, if any have.
fn wrong_products<A: Accelerator>(device: &mut A, case: Case) -> Result<[Option<String>; 2], BackendError> {
    const ROWS: usize = 300;
    let Case { n, k, has_bias, kind } = case;
    let (padded, size) = (ROWS.next_multiple_of(ROW_TILE), if kind == Kind::Wide { 4 } else { 2 });
    let (x, w, b) = (Matrix::random(ROWS * k, 1, kind), Matrix::random(n * k, 2, kind), random(n, 3));
    let weights = device.allocate(w.bytes.len())?;
    device.write(weights, &w.bytes)?;
    let bias = if has_bias { Some(put(device, &b)?) } else { None };
    let (of_rows, of_columns) = (scales(ROWS), scales(n + 1)[1..].to_vec());
    let scaled = Scales { rows: device.allocate(padded * 4)?, columns: device.allocate(n * 4)? };
    let four = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    device.write(scaled.columns, &four(&of_columns))?;
    let (input, out) = (device.allocate(padded * k * x.size)?, device.allocate(padded * n * size)?);
    let mut multiply = |first: usize, rows: usize| {
        device.write(input, &x.bytes[first * k * x.size..(first + rows) * k * x.size])?;
        device.write(scaled.rows, &four(&of_rows[first..first + rows]))?;
        let scales = (kind == Kind::Fp8).then_some(scaled);
        device.multiply(&Product { out, x: input, weights, bias, rows, n, k, wide: kind == Kind::Wide, scales })?;
        let mut got = vec![0; rows * n * size];
        device.read(out, &mut got).map(|()| got)
    };
    let all = multiply(0, ROWS)?;
    let mut moved = None;
    for (first, rows) in [(0, 1), (299, 1), (5, 127), (7, 128), (9, 129), (44, 256)] {
        let same = multiply(first, rows)? == all[first * n * size..(first + rows) * n * size];
        moved = moved.or((!same).then(|| format!("rows {first} to {} have other bits alone", first + rows)));
    }
    let value = |at: usize| match kind {
        Kind::Wide => f64::from(f32::from_le_bytes([all[at * 4], all[at * 4 + 1], all[at * 4 + 2], all[at * 4 + 3]])),
        _ => wide(u16::from_le_bytes([all[at * 2], all[at * 2 + 1]])),
    };
    let (mut worst, mut total) = (0.0f64, 0.0f64);
    for (at, (row, column)) in (0..ROWS).flat_map(|row| (0..n).map(move |column| (row, column))).enumerate() {
        let terms = x.values[row * k..][..k].iter().zip(&w.values[column * k..][..k]).map(|(x, w)| x * w);
        let scale = if kind == Kind::Fp8 { f64::from(of_rows[row]) * f64::from(of_columns[column]) } else { 1.0 };
        let want = terms.sum::<f64>() * scale + if has_bias { wide(b[column]) } else { 0.0 };
        // NaN is as wrong as can be.
        let error = (value(at) - want).abs();
        worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
        total = total.max(want.abs());
    }
    let limit = total * if kind == Kind::Wide { 1e-5 } else { 1.0 / 256.0 };
    let far = (worst > limit).then(|| format!("an error of {worst:e}, but {limit:e} is the limit"));
    Ok([far, moved])
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

/// Scored rows whose logits a pass computes at a time.
const HEAD_ROWS: usize = 512;

/// Every product of scoring `tokens` tokens, layers' in FP8 or not, and all of them together.
///
/// # Errors
///
/// The device fails, or its memory does not hold it.
pub fn timings<A: Accelerator>(
    device: &mut A,
    sizes: Sizes,
    tokens: usize,
    repeats: u32,
    fp8: bool,
) -> Result<Vec<Timing>, BackendError> {
    let Sizes { hidden, mlp, heads: (heads, kv_heads), layers, vocabulary } = sizes;
    // Name, rows at a time, columns, terms, whether sums stay f32, and how often a pass has it.
    let products = [
        ("qkv", tokens, 128 * (heads + 2 * kv_heads) as usize, hidden, false, layers as f64),
        ("output", tokens, hidden, 128 * heads as usize, false, layers as f64),
        ("gate and up", tokens, 2 * mlp, hidden, false, layers as f64),
        ("down", tokens, hidden, mlp, false, layers as f64),
        ("head", tokens.min(HEAD_ROWS), vocabulary, hidden, true, tokens as f64 / tokens.min(HEAD_ROWS) as f64),
    ];
    let (mut timings, mut all, mut operations) = (Vec::new(), 0.0, 0.0);
    for (name, rows, n, k, wide, count) in products {
        let padded = rows.next_multiple_of(ROW_TILE);
        let mut matrix = |count: usize, seed: u64| match fp8 && !wide {
            true => put(device, &random(count / 2, seed).iter().map(|bits| bits & 0xf7f7).collect::<Vec<_>>()),
            false => put(device, &random(count, seed)),
        };
        let (x, weights) = (matrix(padded * k, 4)?, matrix(n * k, 5)?);
        let out = device.allocate(padded * n * if wide { 4 } else { 2 })?;
        let scales = match fp8 && !wide {
            true => {
                Some(Scales { rows: put(device, &random(2 * padded, 6))?, columns: put(device, &random(2 * n, 7))? })
            }
            false => None,
        };
        let product = Product { out, x, weights, bias: None, rows, n, k, wide, scales };
        let milliseconds = time(device, out, repeats, |device| device.multiply(&product))?;
        let work = 2e-9 * (rows * n * k) as f64;
        let of = if product.scales.is_some() { "fp8" } else { "bf16" };
        timings.push(Timing {
            name: format!("{name}, {of}, {rows} rows"),
            milliseconds,
            teraflops: work / milliseconds,
        });
        (all, operations) = (all + count * milliseconds, operations + count * work);
    }
    let name = all_products(if fp8 { "fp8" } else { "bf16" }, tokens);
    timings.push(Timing { name, milliseconds: all, teraflops: operations / all });
    Ok(timings)
}

/// Causal attention of one sequence, by mma.sync.
///
/// # Errors
///
/// As [`timings`].
pub fn attention<A: Accelerator>(
    device: &mut A,
    sizes: Sizes,
    tokens: usize,
    repeats: u32,
) -> Result<Timing, BackendError> {
    attend(device, sizes.heads, tokens, repeats, "mma.sync").map(|(timing, _)| timing)
}

/// The same by one of [`HOPPER`]'s kernels, and how many values have other bits.
///
/// # Errors
///
/// As [`timings`]; the device does not have the kernel.
pub fn hopper_attention<A: Accelerator>(
    device: &mut A,
    sizes: Sizes,
    tokens: usize,
    repeats: u32,
    kernel: &str,
) -> Result<Timing, BackendError> {
    let (_, bits) = attend(device, sizes.heads, tokens, 1, "mma.sync")?;
    let (mut timing, own) = attend(device, sizes.heads, tokens, repeats, kernel)?;
    let differ = own.chunks(2).zip(bits.chunks(2)).filter(|(own, bits)| own != bits).count();
    timing.name += &format!(" ({differ} of {} values have other bits than mma.sync's)", bits.len() / 2);
    Ok(timing)
}

/// Causal attention of one sequence, how long it takes and what comes out.
fn attend<A: Accelerator>(
    device: &mut A,
    (heads, kv_heads): (u32, u32),
    tokens: usize,
    repeats: u32,
    kernel: &str,
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
    let milliseconds = match kernel {
        "mma.sync" => launched(device, out, repeats, &args.launch(128, count)?)?,
        "wgmma" => launched(device, out, repeats, &args.launch_wgmma(128, count)?)?,
        _ => {
            let [keys, values] = [args.keys, args.values].map(|cache| args.view(cache, 128, blocks as u32));
            let maps = [device.tensor_map(&keys)?, device.tensor_map(&values)?];
            launched(device, out, repeats, &args.launch_tma(128, count, maps)?)?
        }
    };
    // Two products of half a square, since it is causal.
    let operations = 2.0 * 128.0 * f64::from(heads) * (tokens as f64).powi(2);
    let name = format!("attention by {kernel}, T = {tokens}, head 128");
    let mut bits = vec![0; width * 2];
    device.read(out, &mut bits)?;
    Ok((Timing { name, milliseconds, teraflops: 1e-9 * operations / milliseconds }, bits))
}

/// Milliseconds of a launch of attention.
fn launched<A: Accelerator, T: Copy + Send + 'static>(
    device: &mut A,
    out: Region,
    repeats: u32,
    launch: &Launch<T>,
) -> Result<f64, BackendError> {
    // SAFETY: every region holds what its matrix takes, tables and tiles index what is there, and all live as long as the device.
    time(device, out, repeats, |device| unsafe { device.launch(launch) })
}
