//! `out = a w^T` on the CPU, with a fixed order of summation.
//!
//! `out[m][n] = sum_k a[m][k] * w[n][k]` is a chain of fused multiply-adds over k within depth blocks of at most
//! [`DEPTH_BLOCK`]; the blocks' sums are added in order. An element does not depend on the number of rows, its register
//! tile, the vector width or the number of threads. Weights in bf16 or int8 are read as the f32 values that they
//! represent, one block at a time.
//!
//! The same holds for activations in bf16, except where the machine has an instruction that multiplies pairs of bf16
//! (see [`gemm_bf16`]). There, the instruction determines the bits.

use std::borrow::Cow;
use std::ops::Range;
use std::slice::ChunksMut;

use pulp::{Simd, WithSimd};

use super::compute::{ActivationPath, ComputeMode, WriteMode};
use super::gemm_bf16::{self, Bf16PairMatrix};
use super::packed_matrix::{DEPTH_BLOCK, PackedMatrix, PackedSlice};
use super::panel_matrix::{PANEL_WIDTH, PanelMatrix, PanelRow};
use super::pool;

/// Rows per task: enough to reuse a weight panel, few enough to divide the work among threads.
const TASK_ROWS: usize = 96;

/// The left operand: activations in the type in which the product reads them.
pub(super) enum GemmInput<'a> {
    F32(Cow<'a, PanelMatrix>),
    Bf16(Bf16PairMatrix),
}

impl<'a> GemmInput<'a> {
    /// Converts activations to the precision in which products read them; borrows them if that is f32.
    pub(super) fn new(compute: ComputeMode, a: &'a PanelMatrix) -> Self {
        match compute.activations {
            ActivationPath::F32 => GemmInput::F32(Cow::Borrowed(a)),
            ActivationPath::RoundedBf16 => GemmInput::F32(Cow::Owned(gemm_bf16::round_to_bf16(compute.arch, a))),
            ActivationPath::Bf16 => GemmInput::Bf16(Bf16PairMatrix::new(compute.arch, a)),
        }
    }
}

/// Computes `out (+)= a * w^T`.
pub(super) fn multiply(
    compute: ComputeMode,
    a: &PanelMatrix,
    w: &PackedMatrix,
    out: &mut PanelMatrix,
    write: WriteMode,
) {
    debug_assert_eq!((a.panels(), out.panels(), out.rows()), (w.depth_panels(), w.output_panels(), a.rows()));
    let a = &GemmInput::new(compute, a);
    run_tasks(compute, a, w, out.panels_mut(), |panel| (panel, w.depth_blocks()), write);
}

/// Returns some panels of `a * w^T` with a separate sum for each depth block: `[block][panel][row]`.
pub(super) fn partial_sums(
    compute: ComputeMode,
    a: &GemmInput<'_>,
    rows: usize,
    w: &PackedMatrix,
    panels: Range<usize>,
) -> Vec<f32> {
    let (count, blocks) = (panels.len(), w.depth_blocks().len());
    let mut out = PanelMatrix::zeros(rows, count * blocks);
    let operands = |at: usize| (panels.start + at % count, &w.depth_blocks()[at / count..][..1]);
    run_tasks(compute, a, w, out.panels_mut(), operands, WriteMode::Set);
    out.into_values()
}

/// Runs a [`GemmTask`] for each panel of `out` and each group of [`TASK_ROWS`] rows. `operands` maps a panel of `out`
/// to a panel of outputs and the depth blocks to sum over.
fn run_tasks<'a>(
    compute: ComputeMode,
    a: &GemmInput<'_>,
    w: &PackedMatrix,
    out: ChunksMut<'_, PanelRow>,
    operands: impl Fn(usize) -> (usize, &'a [Range<usize>]) + Sync,
    write: WriteMode,
) {
    let tasks = out
        .enumerate()
        .flat_map(|(at, out)| out.chunks_mut(TASK_ROWS).enumerate().map(move |(task, out)| (at, task, out)));
    pool::for_each(tasks, |(at, task, out)| {
        let (panel, blocks) = operands(at);
        compute.arch.dispatch(GemmTask { a, first: task * TASK_ROWS, w, panel, blocks, out, write });
    });
}

/// A task that computes a panel of outputs for the rows from `first` on.
pub(super) struct GemmTask<'a> {
    pub(super) a: &'a GemmInput<'a>,
    pub(super) first: usize,
    pub(super) w: &'a PackedMatrix,
    pub(super) panel: usize,
    /// The depth blocks to sum over.
    pub(super) blocks: &'a [Range<usize>],
    pub(super) out: &'a mut [PanelRow],
    pub(super) write: WriteMode,
}

impl WithSimd for GemmTask<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let writes = std::iter::once(self.write).chain(std::iter::repeat(WriteMode::Add));
        for (block, write) in self.blocks.iter().zip(writes) {
            let (k, slice) = (block.start, self.w.slice(self.panel, block.clone()));
            match self.a {
                GemmInput::F32(a) => {
                    let mut buffer;
                    let w = match slice {
                        PackedSlice::F32(rows) => rows,
                        packed => {
                            buffer = [[0.0; PANEL_WIDTH]; DEPTH_BLOCK];
                            packed.unpack_f32(simd, &mut buffer)
                        }
                    };
                    gemm_rows(simd, |p| &a.panel(k / PANEL_WIDTH + p)[self.first..], w, self.out, write);
                }
                GemmInput::Bf16(a) => {
                    let mut buffer;
                    let (w, scales) = match slice {
                        PackedSlice::Bf16(pairs) => (pairs, None),
                        other => {
                            buffer = [[0; PANEL_WIDTH]; DEPTH_BLOCK / 2];
                            other.unpack_bf16_pairs(&mut buffer)
                        }
                    };
                    gemm_bf16::gemm_rows(a, k / PANEL_WIDTH, self.first, w, scales, self.out, write);
                }
            }
        }
    }
}

/// Computes `out[m] (+)= sum over panels p of a(p)[m] * w[32 p ..]`, in register tiles that fit the vector width.
#[inline(always)]
pub(super) fn gemm_rows<'a, S: Simd>(
    simd: S,
    a: impl Fn(usize) -> &'a [PanelRow] + Copy,
    w: &[PanelRow],
    out: &mut [PanelRow],
    write: WriteMode,
) {
    match S::F32_LANES {
        16 => all_columns::<S, 12, 2>(simd, a, w, out, write),
        8 => all_columns::<S, 6, 2>(simd, a, w, out, write),
        4 => all_columns::<S, 6, 4>(simd, a, w, out, write),
        _ => all_columns::<S, 2, 4>(simd, a, w, out, write),
    }
}

/// Computes all columns, `NV` vectors at a time.
#[inline(always)]
fn all_columns<'a, S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    a: impl Fn(usize) -> &'a [PanelRow] + Copy,
    w: &[PanelRow],
    out: &mut [PanelRow],
    write: WriteMode,
) {
    for column in (0..PANEL_WIDTH / S::F32_LANES).step_by(NV) {
        let mut row = 0;
        while row + MR <= out.len() {
            tile::<S, MR, NV>(simd, |p| &a(p)[row..], w, &mut out[row..], column, write);
            row += MR;
        }
        while row + 4 <= out.len() {
            tile::<S, 4, NV>(simd, |p| &a(p)[row..], w, &mut out[row..], column, write);
            row += 4;
        }
        // The remaining rows share a tile, because a single row would wait for its own sum at each step.
        match out.len() - row {
            3 => tile::<S, 3, NV>(simd, |p| &a(p)[row..], w, &mut out[row..], column, write),
            2 => tile::<S, 2, NV>(simd, |p| &a(p)[row..], w, &mut out[row..], column, write),
            1 => tile::<S, 1, NV>(simd, |p| &a(p)[row..], w, &mut out[row..], column, write),
            _ => {}
        }
    }
}

/// Computes `MR` rows of `NV` vectors each, with the sums in registers.
#[inline(always)]
fn tile<'a, S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    a: impl Fn(usize) -> &'a [PanelRow],
    w: &[PanelRow],
    out: &mut [PanelRow],
    column: usize,
    write: WriteMode,
) {
    let mut sums = [[simd.splat_f32s(0.0); NV]; MR];
    for (p, w) in w.chunks(PANEL_WIDTH).enumerate() {
        let rows = &a(p)[..MR];
        for (k, w) in w.iter().enumerate().take(PANEL_WIDTH) {
            let w = &S::as_simd_f32s(w).0[column..][..NV];
            for r in 0..MR {
                let value = simd.splat_f32s(rows[r][k]);
                for v in 0..NV {
                    sums[r][v] = simd.mul_add_f32s(value, w[v], sums[r][v]);
                }
            }
        }
    }
    for (out, sums) in out[..MR].iter_mut().zip(&sums) {
        let out = &mut S::as_mut_simd_f32s(out).0[column..][..NV];
        for (out, &sum) in out.iter_mut().zip(sums) {
            *out = match write {
                WriteMode::Set => sum,
                WriteMode::Add => simd.add_f32s(*out, sum),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packed_matrix::WeightDtype;
    use super::super::panel_matrix::panels_for;
    use super::*;
    use pulp::Arch;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
        (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    fn panels(values: &[f32], rows: usize, columns: usize) -> PanelMatrix {
        let mut out = PanelMatrix::zeros(rows, panels_for(columns));
        for m in 0..rows {
            for k in 0..columns {
                out.row_mut(k / PANEL_WIDTH, m)[k % PANEL_WIDTH] = values[m * columns + k];
            }
        }
        out
    }

    fn packed(weight_dtype: WeightDtype, values: &[f32], outputs: usize, depth: usize) -> PackedMatrix {
        let mut weights = PackedMatrix::zeros(weight_dtype, outputs, depth);
        weights.pack_rows(values, depth, |n| n, |k| k);
        weights
    }

    /// Returns all modes that this machine supports; prints those that it skips.
    fn computes() -> Vec<ComputeMode> {
        let mut all = vec![];
        for arch in [Arch::new(), Arch::Scalar] {
            for activations in [ActivationPath::F32, ActivationPath::RoundedBf16, ActivationPath::Bf16] {
                if activations == ActivationPath::Bf16 && !gemm_bf16::is_available() {
                    eprintln!("skipped: products of bf16 pairs; this machine has no AVX512-BF16");
                } else {
                    all.push(ComputeMode { arch, activations });
                }
            }
        }
        all
    }

    const WEIGHT_DTYPES: [WeightDtype; 3] = [WeightDtype::F32, WeightDtype::Bf16, WeightDtype::Int8];

    fn rounded(values: &[f32]) -> Vec<f32> {
        values.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect()
    }

    /// The reference multiplies the values as they are stored and read, so that only the rounding of sums differs.
    #[test]
    fn products_match_float64() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (rows, depth, outputs) in [(1, 32, 32), (5, 70, 33), (13, 600, 64), (205, 300, 96)] {
            let (a, w) = (random(&mut rng, rows * depth), random(&mut rng, outputs * depth));
            for (compute, weight_dtype) in
                computes().into_iter().flat_map(|compute| WEIGHT_DTYPES.map(|weight_dtype| (compute, weight_dtype)))
            {
                let (left, right) = (panels(&a, rows, depth), packed(weight_dtype, &w, outputs, depth));
                let mut out = PanelMatrix::zeros(rows, panels_for(outputs));
                multiply(compute, &left, &right, &mut out, WriteMode::Set);
                multiply(compute, &left, &right, &mut out, WriteMode::Add);
                let is_f32 = compute.activations == ActivationPath::F32;
                let a = if is_f32 { a.clone() } else { rounded(&a) };
                for n in 0..outputs {
                    let w: Vec<f32> =
                        (0..right.depth_panels()).flat_map(|p| right.output_panel(n, p)).take(depth).collect();
                    let is_paired = compute.activations == ActivationPath::Bf16 && weight_dtype == WeightDtype::F32;
                    let w = if is_paired { rounded(&w) } else { w };
                    for m in 0..rows {
                        let terms = (0..depth).map(|k| f64::from(a[m * depth + k]) * f64::from(w[k]));
                        let (want, size) = terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                        let got = f64::from(out.row(n / PANEL_WIDTH, m)[n % PANEL_WIDTH]);
                        let close = (got - 2.0 * want).abs() < 5e-7 * size;
                        assert!(
                            close,
                            "{compute:?} {weight_dtype:?} {rows}x{depth}x{outputs}: got {got}, expected {}",
                            2.0 * want
                        );
                    }
                }
            }
        }
    }

    /// The heart of "same query, same bits": a row's product is the same alone, in any batch, and without SIMD.
    #[test]
    fn bits_do_not_depend_on_the_batch_or_the_vector_width() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let (rows, depth, outputs) = (131, 320, 64);
        let (a, w) = (random(&mut rng, rows * depth), random(&mut rng, outputs * depth));
        let left = panels(&a, rows, depth);
        for weight_dtype in WEIGHT_DTYPES {
            let right = packed(weight_dtype, &w, outputs, depth);
            for compute in computes() {
                let mut all = PanelMatrix::zeros(rows, panels_for(outputs));
                multiply(ComputeMode { arch: Arch::new(), ..compute }, &left, &right, &mut all, WriteMode::Set);
                for m in [0, 1, 50, 95, 96, 130] {
                    let mut alone = PanelMatrix::zeros(1, panels_for(outputs));
                    multiply(compute, &left.gather(&[m]), &right, &mut alone, WriteMode::Set);
                    for n in 0..panels_for(outputs) {
                        assert_eq!(alone.row(n, 0).map(f32::to_bits), all.row(n, m).map(f32::to_bits), "{compute:?}");
                    }
                }
            }
        }
    }
}
