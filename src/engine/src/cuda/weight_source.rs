//! `WeightSource`: tensors by name, from a checkpoint or elsewhere.

use std::borrow::Cow;
use std::ops::Range;

use surprisal_model::{Checkpoint, Error, LlamaConfig, quantize_rows};

/// A model's tensors by their names in the Hugging Face layout.
pub trait WeightSource {
    /// Returns the model's configuration.
    fn config(&self) -> &LlamaConfig;

    /// Returns the name of the weights in fingerprints.
    ///
    /// # Errors
    ///
    /// The weights cannot be read, or do not match their checksums.
    fn fingerprint(&self) -> Result<String, Error>;

    /// Checks that all tensors of the model exist and have the right shape.
    ///
    /// # Errors
    ///
    /// The first tensor that is missing or misshapen.
    fn check(&self) -> Result<(), Error>;

    /// Returns a tensor's values in row-major order, as little-endian bf16.
    ///
    /// # Errors
    ///
    /// The tensor is missing, misshapen, or not finite.
    fn bf16(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [u8]>, Error>;

    /// Returns a tensor's values in row-major order.
    ///
    /// # Errors
    ///
    /// As [`bf16`](Self::bf16).
    fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error>;

    /// Returns a matrix as bytes of e4m3 and a scale for each row: value = byte x scale.
    ///
    /// # Errors
    ///
    /// As [`bf16`](Self::bf16).
    fn fp8(&self, name: &str, shape: [usize; 2]) -> Result<Fp8Matrix<'_>, Error> {
        let (bytes, scales) = quantize_rows(&self.f32(name, &shape)?, shape[1]);
        Ok((Cow::Owned(bytes), scales))
    }

    /// Returns some rows and columns of a tensor as [`bf16`](Self::bf16) does; a column is an index of the last dimension.
    ///
    /// # Errors
    ///
    /// As [`bf16`](Self::bf16).
    fn bf16_slice(&self, name: &str, shape: &[usize], ranges: [Range<usize>; 2]) -> Result<Cow<'_, [u8]>, Error> {
        Ok(cut(self.bf16(name, shape)?, shape.last().copied().unwrap_or(1) * 2, 2, ranges))
    }

    /// Returns some rows and columns of a matrix as [`fp8`](Self::fp8) does, and the scales of these rows.
    ///
    /// # Errors
    ///
    /// As [`bf16`](Self::bf16).
    fn fp8_slice(&self, name: &str, shape: [usize; 2], ranges: [Range<usize>; 2]) -> Result<Fp8Matrix<'_>, Error> {
        let (bytes, scales) = self.fp8(name, shape)?;
        Ok((cut(bytes, shape[1], 1, ranges.clone()), scales[ranges[0].clone()].to_vec()))
    }

    /// Returns whether a matrix is FP8 in a model with FP8 weights. If a checkpoint stores only some matrices in FP8, the others stay bf16.
    fn is_fp8(&self, _name: &str) -> bool {
        true
    }
}

/// Bytes of e4m3, and a scale for each row of them.
pub type Fp8Matrix<'a> = (Cow<'a, [u8]>, Vec<f32>);

/// Cuts some rows of `row` bytes, and of those some values of `value` bytes.
fn cut(all: Cow<'_, [u8]>, row: usize, value: usize, [rows, columns]: [Range<usize>; 2]) -> Cow<'_, [u8]> {
    if rows.len() * row == all.len() && columns.len() * value == row {
        return all;
    }
    let part = |row: &[u8]| row[columns.start * value..columns.end * value].to_vec();
    Cow::Owned(all[rows.start * row..rows.end * row].chunks_exact(row.max(1)).flat_map(part).collect())
}

impl WeightSource for Checkpoint {
    fn config(&self) -> &LlamaConfig {
        self.config()
    }

    fn fingerprint(&self) -> Result<String, Error> {
        self.fingerprint()
    }

    fn check(&self) -> Result<(), Error> {
        self.check()
    }

    fn bf16(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [u8]>, Error> {
        self.tensor_bf16(name, shape)
    }

    fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        self.tensor_f32(name, shape)
    }

    fn fp8(&self, name: &str, shape: [usize; 2]) -> Result<Fp8Matrix<'_>, Error> {
        self.tensor_fp8(name, shape)
    }

    fn bf16_slice(&self, name: &str, shape: &[usize], ranges: [Range<usize>; 2]) -> Result<Cow<'_, [u8]>, Error> {
        self.bf16_slice(name, shape, ranges)
    }

    fn fp8_slice(&self, name: &str, shape: [usize; 2], ranges: [Range<usize>; 2]) -> Result<Fp8Matrix<'_>, Error> {
        self.fp8_slice(name, shape, ranges)
    }

    fn is_fp8(&self, name: &str) -> bool {
        self.config().quantization.is_none() || self.is_fp8(name)
    }
}
