//! `Gemm`: a matrix product that an accelerator runs, in bf16 or FP8.

use super::memory::DeviceRegion;
use crate::backend::BackendError;

/// Rows per tile of a matrix product. A product may compute whole tiles; rows of `out` after the last requested row are
/// never read.
pub const ROW_TILE: usize = 128;

/// The matrix product `out = x weights^T + bias`, with sums in f32: `rows` rows of `k` values times `n` rows of `k`
/// values.
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    /// `[rows][n]`: bf16, or f32 if `out_f32`.
    pub out: DeviceRegion,
    /// `[rows][k]`: bf16, or e4m3 if there are scales.
    pub x: DeviceRegion,
    /// `[n][k]`, in the type of `x`.
    pub weights: DeviceRegion,
    /// `[n]` bf16; `None` if there is no bias.
    pub bias: Option<DeviceRegion>,
    /// Number of rows to compute. The regions `out` and `x` hold whole tiles of [`ROW_TILE`] rows.
    pub rows: usize,
    /// Number of columns of `out`; a multiple of 8, or of [`FP8_MULTIPLE`] in FP8.
    pub n: usize,
    /// Number of columns of `x`; a multiple of 8, or of [`FP8_MULTIPLE`] in FP8.
    pub k: usize,
    /// `true` if `out` is f32 instead of bf16.
    pub out_f32: bool,
    /// The scales of an FP8 product, whose `out` must be bf16; `None` for a bf16 product.
    pub scales: Option<GemmScales>,
}

/// The scales of an FP8 product. Each sum is multiplied by the scales of its row and its column before the bias is
/// added.
#[derive(Clone, Copy, Debug)]
pub struct GemmScales {
    /// `[rows]` f32, the scales of the rows of `x`, in whole tiles.
    pub rows: DeviceRegion,
    /// `[n]` f32, the scales of the rows of `weights`.
    pub columns: DeviceRegion,
}

/// Required divisor of `n` and `k` in an FP8 product.
pub const FP8_MULTIPLE: usize = 16;

impl Gemm {
    /// Checks that each region is large enough for its matrix, and that the sizes and types of an FP8 product are
    /// supported.
    ///
    /// # Errors
    ///
    /// Fails if a region is too short for its matrix, or if `n`, `k` or the type of `out` is not supported in FP8.
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
            return Err(BackendError(format!(
                "in FP8, n and k must be multiples of {FP8_MULTIPLE}, and out_f32 must be false; \
                 got n = {n}, k = {k}, out_f32 = {out_f32}"
            )));
        }
        Ok(())
    }
}
