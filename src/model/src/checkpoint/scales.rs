//! Dequantization of FP8 weights: values are multiplied by the scales that are stored in the checkpoint.

use rayon::prelude::*;

use super::tensor_slice::TensorSlice;
use crate::config::quantization::Quantization;

/// Multiplies a slice's values, in row-major order, by the tensor's scales, whose shape is one of
/// [`Quantization::scale_shapes`].
pub(super) fn multiply_by_scales(quantization: Quantization, values: &mut [f32], slice: &TensorSlice, scales: &[f32]) {
    let rows = values.par_chunks_exact_mut(slice.columns.len().max(1)).enumerate();
    rows.for_each(|(position, values)| {
        let row = slice.rows.start + position;
        match quantization {
            Quantization::Rows { .. } => {
                let scale = scales[if scales.len() == 1 { 0 } else { row }];
                values.iter_mut().for_each(|value| *value *= scale);
            }
            Quantization::Blocks { rows: block_rows, columns: block_columns } => {
                let scales = &scales[row / block_rows * slice.width.div_ceil(block_columns)..];
                multiply_by_block_scales(values, slice.columns.start, block_columns, scales);
            }
        }
    });
}

/// Multiplies consecutive values of a row, starting at `first_column`, by the scales of the row's blocks.
fn multiply_by_block_scales(values: &mut [f32], first_column: usize, block_columns: usize, scales: &[f32]) {
    let in_first_block = (block_columns - first_column % block_columns).min(values.len());
    let (first, rest) = values.split_at_mut(in_first_block);
    let blocks = std::iter::once(first).chain(rest.chunks_mut(block_columns));
    for (values, scale) in blocks.zip(&scales[first_column / block_columns..]) {
        values.iter_mut().for_each(|value| *value *= scale);
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    const ROWS: Quantization = Quantization::Rows { activation_limit: None };
    const BLOCKS: Quantization = Quantization::Blocks { rows: 2, columns: 2 };

    /// Returns a slice of a three-column matrix of ones after multiplication by the scales.
    fn multiplied(quantization: Quantization, rows: Range<usize>, columns: Range<usize>, scales: &[f32]) -> Vec<f32> {
        let mut values = vec![1.0; rows.len() * columns.len()];
        multiply_by_scales(quantization, &mut values, &TensorSlice { rows, columns, width: 3 }, scales);
        values
    }

    #[test]
    fn scales_apply_by_row_or_by_block() {
        assert_eq!(multiplied(ROWS, 0..2, 0..3, &[2.0, 3.0]), [2.0, 2.0, 2.0, 3.0, 3.0, 3.0]);
        assert_eq!(multiplied(ROWS, 0..2, 0..3, &[0.5]), [0.5; 6]);
        let scales = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(multiplied(BLOCKS, 0..3, 0..3, &scales), [1.0, 1.0, 2.0, 1.0, 1.0, 2.0, 3.0, 3.0, 4.0]);
        assert_eq!(multiplied(BLOCKS, 2..3, 0..3, &scales), [3.0, 3.0, 4.0]);
        assert_eq!(multiplied(BLOCKS, 1..3, 1..3, &scales), [1.0, 2.0, 3.0, 4.0]);
    }
}
