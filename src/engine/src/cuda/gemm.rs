//! `Gemm`: a matrix product that an accelerator runs, in bf16 or FP8.

use super::memory::DeviceRegion;
use crate::backend::BackendError;

/// Products are computed in tiles of this many rows; rows beyond the last one are never read.
pub const ROW_TILE: usize = 128;

/// `out = x weights^T + bias`: rows of `k` values times `n` rows of `k` values, summed in f32.
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    /// `[rows][n]`: bf16, or f32 if `out_f32`.
    pub out: DeviceRegion,
    /// `[rows][k]`: bf16, or bytes of e4m3 if there are scales.
    pub x: DeviceRegion,
    /// `[n][k]`, in the type of `x`.
    pub weights: DeviceRegion,
    /// `[n]` bf16.
    pub bias: Option<DeviceRegion>,
    /// Rows to compute; `out` and `x` hold whole tiles of [`ROW_TILE`].
    pub rows: usize,
    /// Columns of `out`; a multiple of 8, or of [`FP8_MULTIPLE`].
    pub n: usize,
    /// Columns of `x`; a multiple of 8, or of [`FP8_MULTIPLE`].
    pub k: usize,
    /// True if `out` is f32 instead of bf16.
    pub out_f32: bool,
    /// The scales of a product in FP8, whose `out` is bf16.
    pub scales: Option<GemmScales>,
}

/// The scales of a product in FP8: before the bias is added, each sum is multiplied by its row's and its column's scale.
#[derive(Clone, Copy, Debug)]
pub struct GemmScales {
    /// `[rows]` f32, of `x`, in whole tiles.
    pub rows: DeviceRegion,
    /// `[n]` f32, of `weights`.
    pub columns: DeviceRegion,
}

/// `n` and `k` of a product in FP8 are multiples of this.
pub const FP8_MULTIPLE: usize = 16;

impl Gemm {
    /// Checks that the regions hold their matrices.
    ///
    /// # Errors
    ///
    /// A region is shorter than its matrix, or FP8 has no such product.
    pub fn check(&self) -> Result<(), BackendError> {
        let (rows, value) = (self.rows.next_multiple_of(ROW_TILE), if self.scales.is_some() { 1 } else { 2 });
        self.out.checked_address(rows * self.n * if self.out_f32 { 4 } else { 2 })?;
        self.x.checked_address(rows * self.k * value)?;
        self.weights.checked_address(self.n * self.k * value)?;
        self.bias.map_or(Ok(()), |bias| bias.checked_address(self.n * 2).map(drop))?;
        let Some(scales) = self.scales else { return Ok(()) };
        scales.rows.checked_address(rows * 4)?;
        scales.columns.checked_address(self.n * 4)?;
        if self.out_f32 || !self.n.is_multiple_of(FP8_MULTIPLE) || !self.k.is_multiple_of(FP8_MULTIPLE) {
            let Self { n, k, out_f32, .. } = self;
            return Err(BackendError(format!("no product in FP8 has n {n}, k {k}, wide {out_f32}")));
        }
        Ok(())
    }
}
