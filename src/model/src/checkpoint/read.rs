//! Access to tensors, or slices of them, as f32, bf16 or FP8 values. Only the requested slice is read.

use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use super::scales::multiply_by_scales;
use super::tensor_slice::TensorSlice;
use super::{Checkpoint, ReadPurpose};
use crate::config::quantization::Quantization;
use crate::error::Error;
use crate::fp8::{from_e4m3, quantize_rows};

/// Number of values that are converted to f32 at a time, rounded down to whole rows, but at least one row.
pub(super) const SLAB_VALUES: usize = 1 << 22;

impl Checkpoint {
    /// Reads a tensor's values as f32 in row-major order. The stored type may be f32, f16, bf16, or FP8 with scales.
    ///
    /// # Errors
    ///
    /// Fails if the tensor is missing, has the wrong shape or type, or holds a value that is not finite.
    pub fn tensor_f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let mut values = Vec::new();
        self.read_slabs(name, shape, |_, slab| values.extend_from_slice(slab))?;
        Ok(values)
    }

    /// Reads a tensor like [`tensor_f32`](Self::tensor_f32), but a few rows at a time: each call of `on_slab` receives
    /// the index of the first of these rows, and the rows' values. So the tensor need not fit in memory twice.
    ///
    /// # Errors
    ///
    /// Same as [`tensor_f32`](Self::tensor_f32).
    pub fn read_slabs(&self, name: &str, shape: &[usize], on_slab: impl FnMut(usize, &[f32])) -> Result<(), Error> {
        self.check_tensor(name, shape)?;
        self.read_f32(name, &TensorSlice::whole(shape), on_slab)
    }

    /// Reads a slice of a matrix, given by its rows and columns, like [`read_slabs`](Self::read_slabs). The slice's
    /// first row has index 0.
    ///
    /// # Errors
    ///
    /// Same as [`tensor_f32`](Self::tensor_f32), but values outside the slice are not checked.
    ///
    /// # Panics
    ///
    /// Panics if a row or column is outside the matrix.
    pub fn read_slice(
        &self,
        name: &str,
        shape: [usize; 2],
        ranges: [Range<usize>; 2],
        on_slab: impl FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        let slice = TensorSlice::new(&shape, ranges);
        self.check_tensor(name, &shape)?;
        self.read_f32(name, &slice, on_slab)
    }

    fn read_f32(&self, name: &str, slice: &TensorSlice, mut on_slab: impl FnMut(usize, &[f32])) -> Result<(), Error> {
        if slice.columns.is_empty() {
            return Ok(());
        }
        let (info, shard) = self.find(name)?;
        let scales = match self.config.quantization {
            Some(quantization) if info.dtype == Dtype::F8_E4M3 => {
                Some((quantization, self.read_scales(name, quantization)?))
            }
            _ => None,
        };
        let value_bytes = info.dtype.bitsize() / 8;
        let mut stored = Vec::new();
        let slab_rows = (SLAB_VALUES / slice.columns.len()).max(1);
        for first in slice.rows.clone().step_by(slab_rows) {
            let slab = slice.with_rows(first..slice.rows.end.min(first + slab_rows));
            shard.read(info, slab.row_bytes(value_bytes), &mut stored)?;
            let mut values = to_f32(info.dtype, &slab.select_columns(&stored, value_bytes));
            if let Some((quantization, scales)) = &scales {
                multiply_by_scales(*quantization, &mut values, &slab, scales);
            }
            if let Some(position) = values.par_iter().position_any(|value| !value.is_finite()) {
                return Err(Error::not_finite(name, values[position], slab.index_of(position)));
            }
            on_slab(first - slice.rows.start, &values);
            self.observe(ReadPurpose::Weights, values.len() * value_bytes);
        }
        Ok(())
    }

    /// Reads the scales of an FP8 tensor.
    fn read_scales(&self, name: &str, quantization: Quantization) -> Result<Vec<f32>, Error> {
        let scale = format!("{name}{}", quantization.scale_suffix());
        let shape = &self.find(&scale)?.0.shape;
        self.tensor_f32(&scale, shape)
    }

    /// Reads a tensor's values as little-endian bf16 in row-major order. Values of other types are rounded to nearest.
    ///
    /// # Errors
    ///
    /// Same as [`tensor_f32`](Self::tensor_f32).
    pub fn tensor_bf16(&self, name: &str, shape: &[usize]) -> Result<Vec<u8>, Error> {
        self.read_bf16(name, shape, &TensorSlice::whole(shape))
    }

    /// Reads a slice of a tensor, given by its rows and columns, like [`tensor_bf16`](Self::tensor_bf16). A column is
    /// an index of the last dimension; a row is an index of all other dimensions together.
    ///
    /// # Errors
    ///
    /// Same as [`tensor_f32`](Self::tensor_f32), but values outside the slice are not checked.
    ///
    /// # Panics
    ///
    /// Panics if a row or column is outside the tensor.
    pub fn bf16_slice(&self, name: &str, shape: &[usize], ranges: [Range<usize>; 2]) -> Result<Vec<u8>, Error> {
        self.read_bf16(name, shape, &TensorSlice::new(shape, ranges))
    }

    fn read_bf16(&self, name: &str, shape: &[usize], slice: &TensorSlice) -> Result<Vec<u8>, Error> {
        self.check_tensor(name, shape)?;
        let (info, shard) = self.find(name)?;
        if info.dtype != Dtype::BF16 {
            let mut bytes = Vec::new();
            self.read_f32(name, slice, |_, slab| {
                bytes.par_extend(slab.par_iter().flat_map_iter(|&value| bf16::from_f32(value).to_le_bytes()));
            })?;
            return Ok(bytes);
        }
        let mut stored = Vec::new();
        shard.read(info, slice.row_bytes(2), &mut stored)?;
        let bytes = slice.take_columns(stored, 2);
        let value = |pair: &[u8]| bf16::from_le_bytes([pair[0], pair[1]]);
        if let Some(position) = bytes.par_chunks_exact(2).position_any(|pair| !value(pair).is_finite()) {
            return Err(Error::not_finite(name, value(&bytes[2 * position..]), slice.index_of(position)));
        }
        self.observe(ReadPurpose::Weights, bytes.len());
        Ok(bytes)
    }

    /// Reads a matrix as e4m3 bytes in row-major order and a scale for each row. A matrix that is stored in FP8 with
    /// one scale per row, or one for all rows, is read as stored. Any other matrix is quantized by [`quantize_rows`].
    ///
    /// # Errors
    ///
    /// Same as [`tensor_f32`](Self::tensor_f32).
    pub fn tensor_fp8(&self, name: &str, [rows, columns]: [usize; 2]) -> Result<(Vec<u8>, Vec<f32>), Error> {
        self.fp8_slice(name, [rows, columns], [0..rows, 0..columns])
    }

    /// Reads a slice of a matrix, given by its rows and columns, like [`tensor_fp8`](Self::tensor_fp8). If the matrix
    /// must be quantized, a row's scale depends only on the slice's columns.
    ///
    /// # Errors
    ///
    /// Same as [`tensor_f32`](Self::tensor_f32), but values outside the slice are not checked.
    ///
    /// # Panics
    ///
    /// Panics if a row or column is outside the matrix.
    pub fn fp8_slice(
        &self,
        name: &str,
        shape: [usize; 2],
        ranges: [Range<usize>; 2],
    ) -> Result<(Vec<u8>, Vec<f32>), Error> {
        let (info, shard) = self.find(name)?;
        let quantization = match self.config.quantization {
            Some(quantization @ Quantization::Rows { .. }) if info.dtype == Dtype::F8_E4M3 => quantization,
            _ => {
                let (columns, mut values) = (ranges[1].len(), Vec::new());
                self.read_slice(name, shape, ranges, |_, slab| values.extend_from_slice(slab))?;
                let (bytes, scales) = quantize_rows(&values, columns);
                return Ok((bytes, scales));
            }
        };
        let slice = TensorSlice::new(&shape, ranges);
        self.check_tensor(name, &shape)?;
        let scales = self.read_scales(name, quantization)?;
        let mut stored = Vec::new();
        shard.read(info, slice.row_bytes(1), &mut stored)?;
        let bytes = slice.take_columns(stored, 1);
        if let Some(position) = bytes.par_iter().position_any(|byte| byte & 0x7f == 0x7f) {
            return Err(Error::not_finite(name, "NaN", slice.index_of(position)));
        }
        let scales = if scales.len() == 1 { vec![scales[0]; slice.rows.len()] } else { scales[slice.rows].to_vec() };
        Ok((bytes, scales))
    }
}

/// Converts little-endian values of the given type to f32.
fn to_f32(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F32 => bytes.par_chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::F16 => bytes.par_chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::F8_E4M3 => bytes.par_iter().map(|&byte| from_e4m3(byte)).collect(),
        _ => bytes.par_chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
    }
}
