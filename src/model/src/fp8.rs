//! FP8 weights (e4m3) and their scales, in the three layouts that checkpoints use; dequantised to f32, or quantised by row.
//!
//! - fbgemm_fp8 (Meta) and compressed-tensors `float-quantized`: `X.weight_scale`, one a row `[out, 1]` or one for all;
//! - block FP8 (`fp8` with `weight_block_size`): `X.weight_scale_inv`, one a block of rows and columns.
//!
//! In all of them a weight is its e4m3 value times its scale.

use std::ops::Range;

use rayon::prelude::*;
use serde_json::{Map, Value};

/// Which layout a checkpoint's `quantization_config` announces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Quantization {
    /// A scale a row, or one for the whole matrix.
    Rows {
        /// Beyond which activations were cut off before they were quantised, `activation_scale_ub`.
        activation_limit: Option<f32>,
    },
    /// A scale for each block of so many rows and columns.
    Blocks {
        /// Rows of a block.
        rows: usize,
        /// Columns of a block.
        columns: usize,
    },
}

impl Quantization {
    /// Reads a `quantization_config`; `None` if it is of a kind that is not supported.
    pub(crate) fn parse(config: &Map<String, Value>) -> Option<Self> {
        let text = |field: &str| config.get(field).and_then(Value::as_str);
        match text("quant_method")? {
            "fbgemm_fp8" => {
                let limit = config.get("activation_scale_ub").and_then(Value::as_f64).filter(|&limit| limit > 0.0);
                Some(Self::Rows { activation_limit: limit.map(|limit| limit as f32) })
            }
            "compressed-tensors" => {
                (text("format")? == "float-quantized").then_some(Self::Rows { activation_limit: None })
            }
            "fp8" => {
                let block = config.get("weight_block_size")?.as_array()?;
                let size = |i: usize| {
                    usize::try_from(block.get(i)?.as_u64()?).ok().filter(|size| (1..=1 << 20).contains(size))
                };
                Some(Self::Blocks { rows: size(0)?, columns: size(1)? })
            }
            _ => None,
        }
    }

    /// What follows the weight's name in its scale's name.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Rows { .. } => "_scale",
            Self::Blocks { .. } => "_scale_inv",
        }
    }

    /// The shapes a scale may have for a weight of `rows` x `columns`.
    pub(crate) fn shapes(self, rows: usize, columns: usize) -> Vec<Vec<usize>> {
        match self {
            Self::Rows { .. } => vec![vec![rows, 1], vec![rows], vec![1], vec![1, 1], vec![]],
            Self::Blocks { rows: r, columns: c } => vec![vec![rows.div_ceil(r), columns.div_ceil(c)]],
        }
    }

    /// Multiplies some rows (from `first_row` on) and columns of a matrix, row-major, by its scales, whose shape is one of
    /// [`Quantization::shapes`].
    pub(crate) fn scale(
        self,
        values: &mut [f32],
        columns: usize,
        first_row: usize,
        own: &Range<usize>,
        scales: &[f32],
    ) {
        let rows = values.par_chunks_exact_mut(own.len().max(1)).enumerate();
        rows.map(|(row, values)| (first_row + row, values)).for_each(|(row, values)| match self {
            Self::Rows { .. } => {
                let scale = scales[if scales.len() == 1 { 0 } else { row }];
                values.iter_mut().for_each(|value| *value *= scale);
            }
            Self::Blocks { rows: r, columns: c } => {
                let scales = &scales[row / r * columns.div_ceil(c)..];
                let (first, rest) = values.split_at_mut((c - own.start % c).min(own.len()));
                let blocks = std::iter::once(first).chain(rest.chunks_mut(c));
                for (values, scale) in blocks.zip(&scales[own.start / c..]) {
                    values.iter_mut().for_each(|value| *value *= scale);
                }
            }
        });
    }
}

/// The largest value of e4m3.
const LARGEST: f32 = 448.0;

/// Rows as e4m3 bytes and a scale each, so that byte times scale is the value, rounded to nearest: the scale brings the row's
/// largest to e4m3's largest. A row of zeros has scale 0.
pub fn quantise_rows(values: &[f32], columns: usize) -> (Vec<u8>, Vec<f32>) {
    let mut bytes = vec![0; values.len()];
    let rows = values.par_chunks(columns.max(1)).zip(bytes.par_chunks_mut(columns.max(1)));
    let scales = rows.map(|(row, bytes)| {
        let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let inverse = if largest > 0.0 { LARGEST / largest } else { 0.0 };
        bytes.iter_mut().zip(row).for_each(|(byte, value)| *byte = to_e4m3(value * inverse));
        largest / LARGEST
    });
    let scales = scales.collect();
    (bytes, scales)
}

/// The nearest e4m3, ties to even; beyond the largest, the largest; NaN for NaN.
fn to_e4m3(value: f32) -> u8 {
    let sign = (value.to_bits() >> 24 & 0x80) as u8;
    let size = value.abs();
    if value.is_nan() {
        return 0x7f;
    }
    if size < 2f32.powi(-6) {
        // Steps of 2^-9: an addition rounds.
        return sign | ((size + 16384.0).to_bits() - 16384f32.to_bits()) as u8;
    }
    let bits = size.min(LARGEST).to_bits();
    // Three of 23 bits of the mantissa stay; the exponent's bias goes from 127 to 7.
    let rounded = bits + 0x7_ffff + (bits >> 20 & 1);
    sign | ((rounded >> 20) - (120 << 3)) as u8
}

/// The value of an e4m3 byte (the "fn" kind: no infinities, NaN at 0x7f and 0xff).
pub(crate) fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 8.0 * 2f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const ROWS: Quantization = Quantization::Rows { activation_limit: None };

    #[test]
    fn bytes_have_the_values_of_the_standard() {
        for (byte, value) in
            [(0x00, 0.0), (0x01, 2f32.powi(-9)), (0x08, 2f32.powi(-6)), (0x38, 1.0), (0xb9, -1.125), (0x7e, 448.0)]
        {
            assert_eq!(e4m3(byte), value);
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
    }

    #[test]
    fn scales_go_by_row_or_by_block() {
        let mut values = [1.0; 6];
        ROWS.scale(&mut values, 3, 0, &(0..3), &[2.0, 3.0]);
        assert_eq!(values, [2.0, 2.0, 2.0, 3.0, 3.0, 3.0]);
        ROWS.scale(&mut values, 3, 0, &(0..3), &[0.5]);
        assert_eq!(values, [1.0, 1.0, 1.0, 1.5, 1.5, 1.5]);
        let mut values = [1.0; 9];
        Quantization::Blocks { rows: 2, columns: 2 }.scale(&mut values, 3, 0, &(0..3), &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(values, [1.0, 1.0, 2.0, 1.0, 1.0, 2.0, 3.0, 3.0, 4.0]);
        let mut last = [1.0; 3];
        Quantization::Blocks { rows: 2, columns: 2 }.scale(&mut last, 3, 2, &(0..3), &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(last, [3.0, 3.0, 4.0]);
        let mut part = [1.0; 4];
        Quantization::Blocks { rows: 2, columns: 2 }.scale(&mut part, 3, 1, &(1..3), &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(part, [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn layouts_are_told_apart_and_others_refused() {
        let parse = |value: Value| Quantization::parse(value.as_object().unwrap());
        assert_eq!(parse(json!({"quant_method": "fbgemm_fp8"})), Some(ROWS));
        let limited = parse(json!({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}));
        assert_eq!(limited, Some(Quantization::Rows { activation_limit: Some(1200.0) }));
        let compressed = |format: &str| parse(json!({"quant_method": "compressed-tensors", "format": format}));
        assert_eq!(compressed("float-quantized"), Some(ROWS));
        assert_eq!(compressed("pack-quantized"), None);
        let block = parse(json!({"quant_method": "fp8", "weight_block_size": [128, 64]}));
        assert_eq!(block, Some(Quantization::Blocks { rows: 128, columns: 64 }));
        assert_eq!(parse(json!({"quant_method": "fp8", "weight_block_size": [0, 64]})), None);
        assert_eq!(parse(json!({"quant_method": "gptq"})), None);
    }

    #[test]
    fn a_row_of_zeros_has_no_scale() {
        assert_eq!(quantise_rows(&[0.0, 0.0, 1.0, -2.0], 2), (vec![0, 0, 0x76, 0xfe], vec![0.0, 2.0 / 448.0]));
    }

    proptest! {
        /// Every byte is the nearest to its value over the scale.
        #[test]
        fn values_take_the_nearest_byte(values in proptest::collection::vec(-500f32..500.0, 1..40), shrink in 0i32..18) {
            let values: Vec<f32> = values.iter().enumerate().map(|(i, x)| if i % 2 == 1 { x * 2f32.powi(-shrink) } else { *x }).collect();
            let (bytes, scales) = quantise_rows(&values, values.len());
            let all: Vec<f32> = (0..=255).map(e4m3).filter(|value| !value.is_nan()).collect();
            for (value, &byte) in values.iter().zip(&bytes) {
                let want = if scales[0] > 0.0 { value / scales[0] } else { 0.0 };
                let nearest = all.iter().map(|x| (x - want).abs()).fold(f32::MAX, f32::min);
                prop_assert!((e4m3(byte) - want).abs() <= nearest + 1e-5 * want.abs(), "{} as {}", want, e4m3(byte));
            }
        }

        /// A value of e4m3 is its own byte.
        #[test]
        fn bytes_survive(byte in any::<u8>().prop_filter("NaN", |byte| byte & 0x7f != 0x7f)) {
            prop_assert_eq!(to_e4m3(e4m3(byte)), byte);
        }
    }
}
