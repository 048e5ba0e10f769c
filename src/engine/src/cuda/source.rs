//! Where weights come from: a checkpoint's files, or whatever else has tensors by name.

use std::borrow::Cow;
use std::ops::Range;

use surprisal_model::{Checkpoint, Error, LlamaConfig, quantise_rows};

/// A model's tensors by their names in the Hugging Face layout.
pub trait Source {
    /// The model they are of.
    fn config(&self) -> &LlamaConfig;

    /// Names the weights in fingerprints.
    ///
    /// # Errors
    ///
    /// They cannot be read, or are not what their checksums say.
    fn fingerprint(&self) -> Result<String, Error>;

    /// Whether all tensors of the model are there, each in its shape.
    ///
    /// # Errors
    ///
    /// The first that is missing or misshapen.
    fn check(&self) -> Result<(), Error>;

    /// A tensor's values in row-major order, as little-endian bf16.
    ///
    /// # Errors
    ///
    /// It is missing, misshapen, or not finite.
    fn bf16(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [u8]>, Error>;

    /// A tensor's values in row-major order.
    ///
    /// # Errors
    ///
    /// As [`bf16`](Self::bf16).
    fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error>;

    /// A matrix as bytes of e4m3 and a scale for each row: value = byte x scale.
    ///
    /// # Errors
    ///
    /// As [`bf16`](Self::bf16).
    fn fp8(&self, name: &str, shape: [usize; 2]) -> Result<Fp8<'_>, Error> {
        let (bytes, scales) = quantise_rows(&self.f32(name, &shape)?, shape[1]);
        Ok((Cow::Owned(bytes), scales))
    }

    /// Some rows and columns of a tensor, as [`bf16`](Self::bf16) has it; a column is an index of the last dimension.
    ///
    /// # Errors
    ///
    /// As [`bf16`](Self::bf16).
    fn bf16_part(&self, name: &str, shape: &[usize], own: [Range<usize>; 2]) -> Result<Cow<'_, [u8]>, Error> {
        Ok(cut(self.bf16(name, shape)?, shape.last().copied().unwrap_or(1) * 2, 2, own))
    }

    /// Some rows and columns of a matrix, as [`fp8`](Self::fp8) has it, and the scales of these rows.
    ///
    /// # Errors
    ///
    /// As [`bf16`](Self::bf16).
    fn fp8_part(&self, name: &str, shape: [usize; 2], own: [Range<usize>; 2]) -> Result<Fp8<'_>, Error> {
        let (bytes, scales) = self.fp8(name, shape)?;
        Ok((cut(bytes, shape[1], 1, own.clone()), scales[own[0].clone()].to_vec()))
    }

    /// Whether a matrix is to be FP8 in a model that is. Where some are stored so, the others were left out for a reason.
    fn is_fp8(&self, _name: &str) -> bool {
        true
    }
}

/// Bytes of e4m3, and a scale for each row of them.
pub type Fp8<'a> = (Cow<'a, [u8]>, Vec<f32>);

/// Some of the rows, each so many bytes, and of those some values, each so many bytes.
fn cut(all: Cow<'_, [u8]>, row: usize, value: usize, [rows, columns]: [Range<usize>; 2]) -> Cow<'_, [u8]> {
    if rows.len() * row == all.len() && columns.len() * value == row {
        return all;
    }
    let part = |row: &[u8]| row[columns.start * value..columns.end * value].to_vec();
    Cow::Owned(all[rows.start * row..rows.end * row].chunks_exact(row.max(1)).flat_map(part).collect())
}

impl Source for Checkpoint {
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

    fn fp8(&self, name: &str, shape: [usize; 2]) -> Result<Fp8<'_>, Error> {
        self.tensor_fp8(name, shape)
    }

    fn bf16_part(&self, name: &str, shape: &[usize], own: [Range<usize>; 2]) -> Result<Cow<'_, [u8]>, Error> {
        self.part_bf16(name, shape, own)
    }

    fn fp8_part(&self, name: &str, shape: [usize; 2], own: [Range<usize>; 2]) -> Result<Fp8<'_>, Error> {
        self.part_fp8(name, shape, own)
    }

    fn is_fp8(&self, name: &str) -> bool {
        self.config().quantization.is_none() || self.is_fp8(name)
    }
}
