//! `WeightSource`: access to tensors by name, in a checkpoint or elsewhere.

use std::ops::Range;

use surprisal_model::{Checkpoint, Error, LlamaConfig, quantize_rows};

/// A model's tensors, identified by their names in the Hugging Face layout.
pub trait WeightSource {
    /// Returns the model's configuration.
    fn config(&self) -> &LlamaConfig;

    /// Returns the string that identifies the weights in fingerprints.
    ///
    /// # Errors
    ///
    /// Fails if the weights cannot be read, or do not match their checksums.
    fn fingerprint(&self) -> Result<String, Error>;

    /// Checks that all tensors of the model exist and have the right shape.
    ///
    /// # Errors
    ///
    /// Returns the error for the first tensor that is missing or misshapen.
    fn check(&self) -> Result<(), Error>;

    /// Returns a tensor's values in row-major order, as little-endian bf16.
    ///
    /// # Errors
    ///
    /// Fails if the tensor is missing or misshapen, or holds a value that is not finite.
    fn bf16(&self, name: &str, shape: &[usize]) -> Result<Vec<u8>, Error>;

    /// Returns a tensor's values in row-major order.
    ///
    /// # Errors
    ///
    /// Same as [`bf16`](Self::bf16).
    fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error>;

    /// Returns a matrix as e4m3 values and a scale for each row. A weight is its e4m3 value times its row's scale.
    ///
    /// # Errors
    ///
    /// Same as [`bf16`](Self::bf16).
    fn fp8(&self, name: &str, shape: [usize; 2]) -> Result<Fp8Matrix, Error> {
        Ok(quantize_rows(&self.f32(name, &shape)?, shape[1]))
    }

    /// Returns some rows and columns of a tensor as [`bf16`](Self::bf16) does. A column is an index of the last
    /// dimension; a row is an index of all other dimensions together.
    ///
    /// # Errors
    ///
    /// Same as [`bf16`](Self::bf16).
    fn bf16_slice(&self, name: &str, shape: &[usize], ranges: [Range<usize>; 2]) -> Result<Vec<u8>, Error> {
        Ok(cut(self.bf16(name, shape)?, shape.last().copied().unwrap_or(1) * 2, 2, ranges))
    }

    /// Returns some rows and columns of a matrix, and the scales of these rows, as [`fp8`](Self::fp8) does.
    ///
    /// # Errors
    ///
    /// Same as [`bf16`](Self::bf16).
    fn fp8_slice(&self, name: &str, shape: [usize; 2], ranges: [Range<usize>; 2]) -> Result<Fp8Matrix, Error> {
        let (bytes, scales) = self.fp8(name, shape)?;
        Ok((cut(bytes, shape[1], 1, ranges.clone()), scales[ranges[0].clone()].to_vec()))
    }

    /// Returns whether a layer's matrix can be FP8 on the device. The matrices that an FP8 checkpoint stores in another
    /// type stay bf16.
    fn is_fp8(&self, _name: &str) -> bool {
        true
    }
}

/// The e4m3 values of a matrix, and a scale for each row.
pub type Fp8Matrix = (Vec<u8>, Vec<f32>);

/// Selects some rows of a matrix, and some columns of these rows. A row has `row` bytes; a value has `value` bytes.
fn cut(all: Vec<u8>, row: usize, value: usize, [rows, columns]: [Range<usize>; 2]) -> Vec<u8> {
    if rows.len() * row == all.len() && columns.len() * value == row {
        return all;
    }
    let part = |row: &[u8]| row[columns.start * value..columns.end * value].to_vec();
    all[rows.start * row..rows.end * row].chunks_exact(row.max(1)).flat_map(part).collect()
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

    fn bf16(&self, name: &str, shape: &[usize]) -> Result<Vec<u8>, Error> {
        self.tensor_bf16(name, shape)
    }

    fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        self.tensor_f32(name, shape)
    }

    fn fp8(&self, name: &str, shape: [usize; 2]) -> Result<Fp8Matrix, Error> {
        self.tensor_fp8(name, shape)
    }

    fn bf16_slice(&self, name: &str, shape: &[usize], ranges: [Range<usize>; 2]) -> Result<Vec<u8>, Error> {
        self.bf16_slice(name, shape, ranges)
    }

    fn fp8_slice(&self, name: &str, shape: [usize; 2], ranges: [Range<usize>; 2]) -> Result<Fp8Matrix, Error> {
        self.fp8_slice(name, shape, ranges)
    }

    fn is_fp8(&self, name: &str) -> bool {
        self.config().quantization.is_none() || self.is_fp8(name)
    }
}
