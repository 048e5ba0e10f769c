//! Products with a fixed order of reduction.
//!
//! `out[m][n] = sum_k a[m][k] * w[n][k]` is computed as a chain of fused multiply-adds over k within blocks of
//! at most [`DEPTH_BLOCK`], the blocks' sums added in order. No element's value depends on how many rows there are, on the
//! register tile it falls into, on the vector width or on the number of threads. Weights in bf16 or int8 are read as the
//! f32 values they stand for, a block at a time.
//!
//! With activations in bf16 the same holds, but for the instruction that sums pairs (see [`super::bf16`]), where the machine has it:
//! then the bits are those of that instruction.

use std::borrow::Cow;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::bf16::{self, PairPanels};
use super::panels::{PANEL, Panels, Row};
use super::weights::{DEPTH_BLOCK, Slice, Weights};

/// Rows that one task takes: enough to reuse a weight panel, few enough to share the work.
const TASK_ROWS: usize = 96;

/// How wide the vectors are that products are computed with.
pub(crate) struct VectorBits;

impl WithSimd for VectorBits {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES * 32
    }
}

/// What products are computed with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compute {
    pub(crate) arch: Arch,
    pub(crate) activations: ActivationType,
}

/// How products read activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActivationType {
    F32,
    /// Rounded to bf16, products by vectors of f32.
    RoundedBf16,
    /// Rounded to bf16, products by an instruction of the machine's.
    Bf16,
}

impl ActivationType {
    /// What fingerprints call it: each kind has bits of its own.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            ActivationType::F32 => "",
            ActivationType::RoundedBf16 => "-a16",
            ActivationType::Bf16 => "-a16-avx512bf16",
        }
    }
}

/// Activations as a product reads them.
pub(crate) enum Left<'a> {
    F32(Cow<'a, Panels>),
    Bf16(PairPanels),
}

impl<'a> Left<'a> {
    pub(crate) fn new(compute: Compute, a: &'a Panels) -> Self {
        match compute.activations {
            ActivationType::F32 => Left::F32(Cow::Borrowed(a)),
            ActivationType::RoundedBf16 => Left::F32(Cow::Owned(bf16::rounded(compute.arch, a))),
            ActivationType::Bf16 => Left::Bf16(PairPanels::new(compute.arch, a)),
        }
    }
}

/// What becomes of the output's former value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// It is replaced.
    Set,
    /// It is added to: a residual connection.
    Add,
}

/// `out (+)= a * w^T`.
pub(crate) fn multiply(compute: Compute, a: &Panels, w: &Weights, out: &mut Panels, write: Write) {
    debug_assert_eq!((a.panels(), out.panels(), out.rows()), (w.depth_panels(), w.panels(), a.rows()));
    let a = &Left::new(compute, a);
    products(compute, a, w, out.panels_mut(), |panel| (panel, w.blocks()), write);
}

/// What is to be added up for some panels of `a * w^T`: the sum of each of the depth's blocks, `[block][panel][row]`.
pub(crate) fn terms(compute: Compute, a: &Left<'_>, rows: usize, w: &Weights, panels: Range<usize>) -> Vec<f32> {
    let (count, blocks) = (panels.len(), w.blocks().len());
    let mut out = Panels::zeros(rows, count * blocks);
    let which = |at: usize| (panels.start + at % count, &w.blocks()[at / count..][..1]);
    products(compute, a, w, out.panels_mut(), which, Write::Set);
    out.into_values()
}

/// Each panel of `out` is a panel of outputs, over some blocks of the depth.
fn products<'a>(
    compute: Compute,
    a: &Left<'_>,
    w: &Weights,
    out: rayon::slice::ChunksMut<'_, Row>,
    which: impl Fn(usize) -> (usize, &'a [Range<usize>]) + Sync,
    write: Write,
) {
    out.enumerate()
        .flat_map(|(at, out)| out.par_chunks_mut(TASK_ROWS).enumerate().map(move |(task, out)| (at, task, out)))
        .for_each(|(at, task, out)| {
            let (panel, blocks) = which(at);
            compute.arch.dispatch(Product { a, first: task * TASK_ROWS, w, panel, blocks, out, write });
        });
}

/// One panel of outputs for the rows from `first` on.
pub(crate) struct Product<'a> {
    pub(crate) a: &'a Left<'a>,
    pub(crate) first: usize,
    pub(crate) w: &'a Weights,
    pub(crate) panel: usize,
    /// Of the depth.
    pub(crate) blocks: &'a [Range<usize>],
    pub(crate) out: &'a mut [Row],
    pub(crate) write: Write,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let writes = std::iter::once(self.write).chain(std::iter::repeat(Write::Add));
        for (block, write) in self.blocks.iter().zip(writes) {
            let (k, slice) = (block.start, self.w.slice(self.panel, block.clone()));
            match self.a {
                Left::F32(a) => {
                    let mut buffer;
                    let w = match slice {
                        Slice::F32(rows) => rows,
                        packed => {
                            buffer = [[0.0; PANEL]; DEPTH_BLOCK];
                            packed.rows(simd, &mut buffer)
                        }
                    };
                    product_rows(simd, |p| &a.panel(k / PANEL + p)[self.first..], w, self.out, write);
                }
                Left::Bf16(a) => {
                    let mut buffer;
                    let (w, scales) = match slice {
                        Slice::Bf16(pairs) => (pairs, None),
                        other => {
                            buffer = [[0; PANEL]; DEPTH_BLOCK / 2];
                            other.pairs(&mut buffer)
                        }
                    };
                    bf16::product_rows(a, k / PANEL, self.first, w, scales, self.out, write);
                }
            }
        }
    }
}

/// `out[m] (+)= sum over panels p of a(p)[m] * w[32 p ..]`, in register tiles fit for the vector width.
#[inline(always)]
pub(crate) fn product_rows<'a, S: Simd>(
    simd: S,
    a: impl Fn(usize) -> &'a [Row] + Copy,
    w: &[Row],
    out: &mut [Row],
    write: Write,
) {
    match S::F32_LANES {
        16 => columns::<S, 12, 2>(simd, a, w, out, write),
        8 => columns::<S, 6, 2>(simd, a, w, out, write),
        4 => columns::<S, 6, 4>(simd, a, w, out, write),
        _ => columns::<S, 2, 4>(simd, a, w, out, write),
    }
}

/// All columns, `NV` vectors at a time.
#[inline(always)]
fn columns<'a, S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    a: impl Fn(usize) -> &'a [Row] + Copy,
    w: &[Row],
    out: &mut [Row],
    write: Write,
) {
    for column in (0..PANEL / S::F32_LANES).step_by(NV) {
        let mut row = 0;
        while row + MR <= out.len() {
            tile::<S, MR, NV>(simd, |p| &a(p)[row..], w, &mut out[row..], column, write);
            row += MR;
        }
        while row + 4 <= out.len() {
            tile::<S, 4, NV>(simd, |p| &a(p)[row..], w, &mut out[row..], column, write);
            row += 4;
        }
        // What is left is one tile too: a single row waits for its own sum at each step.
        match out.len() - row {
            3 => tile::<S, 3, NV>(simd, |p| &a(p)[row..], w, &mut out[row..], column, write),
            2 => tile::<S, 2, NV>(simd, |p| &a(p)[row..], w, &mut out[row..], column, write),
            1 => tile::<S, 1, NV>(simd, |p| &a(p)[row..], w, &mut out[row..], column, write),
            _ => {}
        }
    }
}

/// `MR` rows of `NV` vectors, summed in registers.
#[inline(always)]
fn tile<'a, S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    a: impl Fn(usize) -> &'a [Row],
    w: &[Row],
    out: &mut [Row],
    column: usize,
    write: Write,
) {
    let mut sums = [[simd.splat_f32s(0.0); NV]; MR];
    for (p, w) in w.chunks(PANEL).enumerate() {
        let rows = &a(p)[..MR];
        for (k, w) in w.iter().enumerate().take(PANEL) {
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
                Write::Set => sum,
                Write::Add => simd.add_f32s(*out, sum),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::panels::panels_for;
    use super::super::weights::WeightType;
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
        (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    fn panels(values: &[f32], rows: usize, columns: usize) -> Panels {
        let mut out = Panels::zeros(rows, panels_for(columns));
        for m in 0..rows {
            for k in 0..columns {
                out.row_mut(k / PANEL, m)[k % PANEL] = values[m * columns + k];
            }
        }
        out
    }

    fn packed(kind: WeightType, values: &[f32], outputs: usize, depth: usize) -> Weights {
        let mut weights = Weights::zeros(kind, outputs, depth);
        weights.set_rows(values, depth, |n| n, |k| k);
        weights
    }

    /// All that this machine can do; what it lacks is named.
    fn computes() -> Vec<Compute> {
        let mut all = vec![];
        for arch in [Arch::new(), Arch::Scalar] {
            for activations in [ActivationType::F32, ActivationType::RoundedBf16, ActivationType::Bf16] {
                if activations == ActivationType::Bf16 && !bf16::is_available() {
                    eprintln!("skipped: products of pairs, for which this machine has no AVX512-BF16");
                } else {
                    all.push(Compute { arch, activations });
                }
            }
        }
        all
    }

    const KINDS: [WeightType; 3] = [WeightType::F32, WeightType::Bf16, WeightType::Int8];

    fn rounded(values: &[f32]) -> Vec<f32> {
        values.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect()
    }

    /// Against the product of the values as they are stored and read, so that only the sums' rounding is left.
    #[test]
    fn products_match_float64() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (rows, depth, outputs) in [(1, 32, 32), (5, 70, 33), (13, 600, 64), (205, 300, 96)] {
            let (a, w) = (random(&mut rng, rows * depth), random(&mut rng, outputs * depth));
            for (compute, kind) in computes().into_iter().flat_map(|compute| KINDS.map(|kind| (compute, kind))) {
                let (left, right) = (panels(&a, rows, depth), packed(kind, &w, outputs, depth));
                let mut out = Panels::zeros(rows, panels_for(outputs));
                multiply(compute, &left, &right, &mut out, Write::Set);
                multiply(compute, &left, &right, &mut out, Write::Add);
                let is_f32 = compute.activations == ActivationType::F32;
                let a = if is_f32 { a.clone() } else { rounded(&a) };
                for n in 0..outputs {
                    let w: Vec<f32> =
                        (0..right.depth_panels()).flat_map(|p| right.output_panel(n, p)).take(depth).collect();
                    let is_paired = compute.activations == ActivationType::Bf16 && kind == WeightType::F32;
                    let w = if is_paired { rounded(&w) } else { w };
                    for m in 0..rows {
                        let terms = (0..depth).map(|k| f64::from(a[m * depth + k]) * f64::from(w[k]));
                        let (want, size) = terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                        let got = f64::from(out.row(n / PANEL, m)[n % PANEL]);
                        let close = (got - 2.0 * want).abs() < 5e-7 * size;
                        assert!(close, "{compute:?} {kind:?} {rows}x{depth}x{outputs}: {got} {}", 2.0 * want);
                    }
                }
            }
        }
    }

    /// The heart of "same query, same bits": a row's product is the same alone, in any company, and without SIMD.
    #[test]
    fn bits_do_not_depend_on_the_batch_or_the_vector_width() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let (rows, depth, outputs) = (131, 320, 64);
        let (a, w) = (random(&mut rng, rows * depth), random(&mut rng, outputs * depth));
        let left = panels(&a, rows, depth);
        for kind in KINDS {
            let right = packed(kind, &w, outputs, depth);
            for compute in computes() {
                let mut all = Panels::zeros(rows, panels_for(outputs));
                multiply(Compute { arch: Arch::new(), ..compute }, &left, &right, &mut all, Write::Set);
                for m in [0, 1, 50, 95, 96, 130] {
                    let mut alone = Panels::zeros(1, panels_for(outputs));
                    multiply(compute, &left.gather(&[m]), &right, &mut alone, Write::Set);
                    for n in 0..panels_for(outputs) {
                        assert_eq!(alone.row(n, 0).map(f32::to_bits), all.row(n, m).map(f32::to_bits), "{compute:?}");
                    }
                }
            }
        }
    }
}
