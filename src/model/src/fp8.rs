//! FP8 weights (e4m3) and their scales, in the three layouts that checkpoints use; dequantised to f32.
//!
//! - fbgemm_fp8 (Meta) and compressed-tensors `float-quantized`: `X.weight_scale`, one a row `[out, 1]` or one for all;
//! - block FP8 (`fp8` with `weight_block_size`): `X.weight_scale_inv`, one a block of rows and columns.
//!
//! In all of them a weight is its e4m3 value times its scale.

use std::ops::Range;

use rayon::prelude::*;
use serde_json::{Map, Value};

/// Which layout a checkpoint's `quantization_config` announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantization {
    /// A scale a row, or one for the whole matrix.
    Rows,
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
            "fbgemm_fp8" => Some(Self::Rows),
            "compressed-tensors" => (text("format")? == "float-quantized").then_some(Self::Rows),
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
            Self::Rows => "_scale",
            Self::Blocks { .. } => "_scale_inv",
        }
    }

    /// The shapes a scale may have for a weight of `rows` x `columns`.
    pub(crate) fn shapes(self, rows: usize, columns: usize) -> Vec<Vec<usize>> {
        match self {
            Self::Rows => vec![vec![rows, 1], vec![rows], vec![1], vec![1, 1], vec![]],
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
            Self::Rows => {
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
    use serde_json::json;

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
        Quantization::Rows.scale(&mut values, 3, 0, &(0..3), &[2.0, 3.0]);
        assert_eq!(values, [2.0, 2.0, 2.0, 3.0, 3.0, 3.0]);
        Quantization::Rows.scale(&mut values, 3, 0, &(0..3), &[0.5]);
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
        assert_eq!(parse(json!({"quant_method": "fbgemm_fp8"})), Some(Quantization::Rows));
        let compressed = |format: &str| parse(json!({"quant_method": "compressed-tensors", "format": format}));
        assert_eq!(compressed("float-quantized"), Some(Quantization::Rows));
        assert_eq!(compressed("pack-quantized"), None);
        let block = parse(json!({"quant_method": "fp8", "weight_block_size": [128, 64]}));
        assert_eq!(block, Some(Quantization::Blocks { rows: 128, columns: 64 }));
        assert_eq!(parse(json!({"quant_method": "fp8", "weight_block_size": [0, 64]})), None);
        assert_eq!(parse(json!({"quant_method": "gptq"})), None);
    }
}
