//! Times the matrix products of a forward pass.

use surprisal_engine::BackendError;
use surprisal_engine::cuda::{Accelerator, Gemm, GemmScales, ROW_TILE};

use super::{Sizes, Timing, random, time, upload};

/// Returns the name of the timing of all matrix products of a pass.
#[must_use]
pub fn all_products(precision: &str, tokens: usize) -> String {
    format!("all products of a pass, {precision}, T = {tokens}")
}

/// Rows whose logits a pass computes at a time.
const HEAD_ROWS: usize = 512;

/// Times each matrix product of a pass that scores `tokens` tokens, and adds up their times. If `fp8` is `true`, the
/// products of the layers are in FP8, otherwise in bf16.
///
/// # Errors
///
/// The device fails, or its memory is too small.
pub fn timings<A: Accelerator>(
    device: &mut A,
    sizes: Sizes,
    tokens: usize,
    repeats: u32,
    fp8: bool,
) -> Result<Vec<Timing>, BackendError> {
    let Sizes { hidden, mlp, heads: (heads, kv_heads), layers, vocabulary } = sizes;
    // Name, rows at a time, columns, terms, whether the output is f32, and runs per pass.
    let products = [
        ("qkv", tokens, 128 * (heads + 2 * kv_heads) as usize, hidden, false, layers as f64),
        ("output", tokens, hidden, 128 * heads as usize, false, layers as f64),
        ("gate and up", tokens, 2 * mlp, hidden, false, layers as f64),
        ("down", tokens, hidden, mlp, false, layers as f64),
        ("head", tokens.min(HEAD_ROWS), vocabulary, hidden, true, tokens as f64 / tokens.min(HEAD_ROWS) as f64),
    ];
    let (mut timings, mut total, mut operations) = (Vec::new(), 0.0, 0.0);
    for (name, rows, n, k, out_f32, count) in products {
        let padded = rows.next_multiple_of(ROW_TILE);
        let mut matrix = |count: usize, seed: u64| match fp8 && !out_f32 {
            true => upload(device, &random(count / 2, seed).iter().map(|bits| bits & 0xf7f7).collect::<Vec<_>>()),
            false => upload(device, &random(count, seed)),
        };
        let (x, weights) = (matrix(padded * k, 4)?, matrix(n * k, 5)?);
        let out = device.allocate(padded * n * if out_f32 { 4 } else { 2 })?;
        let scales = match fp8 && !out_f32 {
            true => Some(GemmScales {
                rows: upload(device, &random(2 * padded, 6))?,
                columns: upload(device, &random(2 * n, 7))?,
            }),
            false => None,
        };
        let gemm = Gemm { out, x, weights, bias: None, rows, n, k, out_f32, scales };
        let milliseconds = time(device, out, repeats, |device| device.multiply(&gemm))?;
        let work = 2e-9 * (rows * n * k) as f64;
        let precision = if gemm.scales.is_some() { "fp8" } else { "bf16" };
        timings.push(Timing {
            name: format!("{name}, {precision}, {rows} rows"),
            milliseconds,
            teraflops: work / milliseconds,
        });
        (total, operations) = (total + count * milliseconds, operations + count * work);
    }
    let name = all_products(if fp8 { "fp8" } else { "bf16" }, tokens);
    timings.push(Timing { name, milliseconds: total, teraflops: operations / total });
    Ok(timings)
}
