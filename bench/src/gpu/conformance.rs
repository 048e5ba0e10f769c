//! Checks that a device fulfills the contract of [`Accelerator`].

use surprisal_engine::BackendError;
use surprisal_engine::cuda::{Accelerator, Gemm, GemmScales, ROW_TILE};
use surprisal_model::quantize_rows;

use super::{Check, bf16_value, bytes, random, upload};

/// Checks the contract of [`Accelerator`]: copies are exact, products match float64, and a row's bits do not depend on
/// the other rows. An operation that fails counts as a failed check.
pub fn check_device<A: Accelerator>(device: &mut A) -> Vec<Check> {
    let mut checks = vec![check_copies(device)];
    let case = |(n, k, has_bias), gemm_type| Case { n, k, has_bias, gemm_type };
    for (n, k, has_bias) in [(24, 40, true), (136, 256, false), (512, 1024, true)] {
        checks.extend(check_products(device, case((n, k, has_bias), GemmType::Bf16)));
        checks.extend(check_products(device, case((n, k, false), GemmType::Bf16ToF32)));
    }
    for shape in [(48, 80, true), (512, 1024, false)] {
        checks.extend(check_products(device, case(shape, GemmType::Fp8)));
    }
    checks
}

/// Checks copies of an odd number of bytes, more than all staging buffers hold.
fn check_copies<A: Accelerator>(device: &mut A) -> Check {
    let failure = wrong_copy(device).unwrap_or_else(|error| Some(error.to_string()));
    Check { name: "copies to, on and from the device".to_owned(), failure }
}

fn wrong_copy<A: Accelerator>(device: &mut A) -> Result<Option<String>, BackendError> {
    let length = (40 << 20) + 3;
    let sent: Vec<u8> = (0..length).map(|i: usize| (i * 31 + (i >> 16)) as u8).collect();
    let (from, to) = (device.allocate(length)?, device.allocate(length)?);
    device.write(from, &sent)?;
    let part = to.subregion(256, length - 256)?;
    device.copy(from, part)?;
    let mut got = vec![0; length - 256];
    device.read(part, &mut got)?;
    let wrong = got.iter().zip(&sent).position(|(got, sent)| got != sent);
    Ok(wrong.map(|at| format!("byte {at} is {}, but must be {}", got[at], sent[at])))
}

/// A matrix product to check.
#[derive(Clone, Copy, Debug)]
struct Case {
    n: usize,
    k: usize,
    has_bias: bool,
    gemm_type: GemmType,
}

/// The data types of a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GemmType {
    /// bf16 to bf16.
    Bf16,
    /// bf16 to f32.
    Bf16ToF32,
    /// e4m3 with scales, to bf16.
    Fp8,
}

/// A matrix in the input type of a product, and its values in f64.
struct Matrix {
    bytes: Vec<u8>,
    values: Vec<f64>,
    /// Bytes per value.
    size: usize,
}

impl Matrix {
    fn random(count: usize, seed: u64, gemm_type: GemmType) -> Self {
        let bits = random(count, seed);
        match gemm_type {
            GemmType::Bf16 | GemmType::Bf16ToF32 => {
                Self { bytes: bytes(&bits), values: bits.iter().map(|&bits| bf16_value(bits)).collect(), size: 2 }
            }
            GemmType::Fp8 => {
                let values: Vec<f32> = bits.iter().map(|&bits| bf16_value(bits) as f32 * 448.0).collect();
                // One scale for all values, 1 or a little less.
                let (bytes, _) = quantize_rows(&values, count);
                Self { values: bytes.iter().map(|&byte| e4m3(byte)).collect(), bytes, size: 1 }
            }
        }
    }
}

/// Returns the value of an e4m3 byte, by definition.
fn e4m3(byte: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f64::from(byte & 7) / 8.0);
    let size = if exponent == 0 { mantissa * 2f64.powi(-6) } else { (1.0 + mantissa) * 2f64.powi(exponent - 7) };
    if byte & 0x80 == 0 { size } else { -size }
}

/// Returns scales that are not powers of two.
fn scales(count: usize) -> Vec<f32> {
    (0..count).map(|i| 0.001 + 0.000_37 * (i % 11) as f32).collect()
}

fn check_products<A: Accelerator>(device: &mut A, case: Case) -> [Check; 2] {
    let failed = |error: BackendError| [Some(error.to_string()), Some(error.to_string())];
    let [inaccurate, unequal] = wrong_products(device, case).unwrap_or_else(failed);
    let Case { n, k, has_bias, gemm_type } = case;
    let types = match gemm_type {
        GemmType::Bf16 => "bf16",
        GemmType::Bf16ToF32 => "bf16 to f32",
        GemmType::Fp8 => "fp8",
    };
    let shape = format!("n {n}, k {k}, {types}{}", if has_bias { ", bias" } else { "" });
    [
        Check { name: format!("product compared with float64: {shape}"), failure: inaccurate },
        Check { name: format!("bits of rows alone and in a batch: {shape}"), failure: unequal },
    ]
}

/// Returns a message if the error compared with float64 is too large, and another if the bits of some rows differ when
/// they are multiplied without the other rows.
fn wrong_products<A: Accelerator>(device: &mut A, case: Case) -> Result<[Option<String>; 2], BackendError> {
    const ROWS: usize = 300;
    let Case { n, k, has_bias, gemm_type } = case;
    let (padded, size) = (ROWS.next_multiple_of(ROW_TILE), if gemm_type == GemmType::Bf16ToF32 { 4 } else { 2 });
    let (x, w, b) = (Matrix::random(ROWS * k, 1, gemm_type), Matrix::random(n * k, 2, gemm_type), random(n, 3));
    let weights = device.allocate(w.bytes.len())?;
    device.write(weights, &w.bytes)?;
    let bias = if has_bias { Some(upload(device, &b)?) } else { None };
    let (row_scales, column_scales) = (scales(ROWS), scales(n + 1)[1..].to_vec());
    let regions = GemmScales { rows: device.allocate(padded * 4)?, columns: device.allocate(n * 4)? };
    let f32_bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    device.write(regions.columns, &f32_bytes(&column_scales))?;
    let (input, out) = (device.allocate(padded * k * x.size)?, device.allocate(padded * n * size)?);
    let mut multiply = |first: usize, rows: usize| {
        device.write(input, &x.bytes[first * k * x.size..(first + rows) * k * x.size])?;
        device.write(regions.rows, &f32_bytes(&row_scales[first..first + rows]))?;
        let scales = (gemm_type == GemmType::Fp8).then_some(regions);
        device.multiply(&Gemm {
            out,
            x: input,
            weights,
            bias,
            rows,
            n,
            k,
            out_f32: gemm_type == GemmType::Bf16ToF32,
            scales,
        })?;
        let mut got = vec![0; rows * n * size];
        device.read(out, &mut got).map(|()| got)
    };
    let all = multiply(0, ROWS)?;
    let mut unequal = None;
    for (first, rows) in [(0, 1), (299, 1), (5, 127), (7, 128), (9, 129), (44, 256)] {
        let same = multiply(first, rows)? == all[first * n * size..(first + rows) * n * size];
        unequal = unequal.or((!same).then(|| format!("rows {first}..{} give different bits when alone", first + rows)));
    }
    let value = |at: usize| match gemm_type {
        GemmType::Bf16ToF32 => {
            f64::from(f32::from_le_bytes([all[at * 4], all[at * 4 + 1], all[at * 4 + 2], all[at * 4 + 3]]))
        }
        _ => bf16_value(u16::from_le_bytes([all[at * 2], all[at * 2 + 1]])),
    };
    let (mut worst, mut total) = (0.0f64, 0.0f64);
    for (at, (row, column)) in (0..ROWS).flat_map(|row| (0..n).map(move |column| (row, column))).enumerate() {
        let terms = x.values[row * k..][..k].iter().zip(&w.values[column * k..][..k]).map(|(x, w)| x * w);
        let scale = if gemm_type == GemmType::Fp8 {
            f64::from(row_scales[row]) * f64::from(column_scales[column])
        } else {
            1.0
        };
        let want = terms.sum::<f64>() * scale + if has_bias { bf16_value(b[column]) } else { 0.0 };
        // A NaN counts as an infinite error.
        let error = (value(at) - want).abs();
        worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
        total = total.max(want.abs());
    }
    let limit = total * if gemm_type == GemmType::Bf16ToF32 { 1e-5 } else { 1.0 / 256.0 };
    let inaccurate = (worst > limit).then(|| format!("the error is {worst:e}, but must be at most {limit:e}"));
    Ok([inaccurate, unequal])
}
