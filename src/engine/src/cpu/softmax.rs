//! The online softmax of attention: a block's scores become weights, and the values times their weights are added up.
//!
//! A row's sums run over the tokens that the row sees, in order, regardless of which rows share its register tile.

use std::ops::Range;

use pulp::Simd;

use super::compute::WriteMode;
use super::gemm::gemm_rows;
use super::math;
use super::panel_matrix::{PANEL_WIDTH, PanelRow};
use crate::backend::BLOCK_TOKENS;

/// Query rows per task.
pub(crate) const TILE_ROWS: usize = 24;

/// Number of rows with partly visible blocks that share a register tile. The more rows share a tile, the fewer tokens
/// are visible to all of them.
const PARTIAL_ROWS: usize = 4;

/// Scores of a tile's rows over the tokens of a block.
pub(crate) type TileScores = [PanelRow; TILE_ROWS];

/// The range of a block's tokens that each row of a tile sees, as `(from, to)`.
pub(crate) type VisibleRanges = [(usize, usize); TILE_ROWS];

/// The running maximum and sum of each row's softmax.
#[derive(Clone)]
pub(crate) struct OnlineSoftmax {
    max: [f32; TILE_ROWS],
    sum: [f32; TILE_ROWS],
}

impl OnlineSoftmax {
    pub(crate) fn new() -> Self {
        Self { max: [f32::NEG_INFINITY; TILE_ROWS], sum: [0.0; TILE_ROWS] }
    }

    /// Turns the scores of some of the tile's rows into weights relative to the new maximum, and rescales earlier sums.
    /// All maxima are found first, so that the CPU can overlap the exponentials of different rows.
    #[inline(always)]
    pub(crate) fn update<S: Simd>(
        &mut self,
        simd: S,
        scores: &mut TileScores,
        out: &mut [PanelRow],
        rows: usize,
        visible: &VisibleRanges,
        range: Range<usize>,
    ) {
        for row in range.clone() {
            let (scores, (from, to)) = (&mut scores[row], visible[row]);
            if from < to {
                scores[..from].fill(f32::NEG_INFINITY);
                scores[to..].fill(f32::NEG_INFINITY);
                self.rescale(row, math::max(simd, scores), out, rows);
            }
        }
        for row in range {
            let (scores, (from, to)) = (&mut scores[row], visible[row]);
            if from < to {
                let mut sum = math::exp_row(simd, scores, self.max[row]);
                if to - from < PANEL_WIDTH {
                    scores[..from].fill(0.0);
                    scores[to..].fill(0.0);
                    sum = math::sum(simd, scores);
                }
                self.sum[row] += sum;
            }
        }
    }

    /// Rescales a row's sums to a new maximum, if it is greater.
    #[inline(always)]
    fn rescale(&mut self, row: usize, max: f32, out: &mut [PanelRow], rows: usize) {
        if max > self.max[row] {
            let shrink = if self.sum[row] == 0.0 { 0.0 } else { math::exp(self.max[row] - max) };
            self.sum[row] *= shrink;
            for out in out.iter_mut().skip(row).step_by(rows) {
                for out in out.iter_mut() {
                    *out *= shrink;
                }
            }
            self.max[row] = max;
        }
    }

    /// Divides each row by its softmax denominator.
    #[inline(always)]
    pub(crate) fn finish(&self, out: &mut [PanelRow], rows: usize) {
        for (i, out) in out.iter_mut().enumerate() {
            let inverse = 1.0 / self.sum[i % rows];
            for out in out.iter_mut() {
                *out *= inverse;
            }
        }
    }
}

/// Adds weights times values to `out`. Rows that see the whole block share a register tile; the other rows read only
/// the tokens that they see.
#[inline(always)]
pub(crate) fn accumulate<'a, S: Simd>(
    simd: S,
    weights: &TileScores,
    out: &mut [PanelRow],
    rows: usize,
    visible: &VisibleRanges,
    range: Range<usize>,
    values: impl Fn(usize) -> &'a [PanelRow],
) {
    let whole = |row: &usize| visible[*row].1 - visible[*row].0 == BLOCK_TOKENS;
    let first = range.clone().find(whole).unwrap_or(range.end);
    let last = (first..range.end).find(|row| !whole(row)).unwrap_or(range.end);
    for (panel, out) in out.chunks_exact_mut(rows).enumerate() {
        let values = values(panel);
        gemm_rows(simd, |_| &weights[first..], values, &mut out[first..last], WriteMode::Add);
        for rows in [range.start..first, last..range.end] {
            accumulate_partial(simd, &weights[rows.clone()], &mut out[rows.clone()], &visible[rows], values);
        }
    }
}

/// Adds weights times values for rows that see part of the block. A few rows share a register tile for the tokens that
/// all of them see; after those, each row continues separately.
#[inline(always)]
fn accumulate_partial<S: Simd>(
    simd: S,
    weights: &[PanelRow],
    out: &mut [PanelRow],
    visible: &[(usize, usize)],
    values: &[PanelRow],
) {
    for ((weights, visible), out) in
        weights.chunks(PARTIAL_ROWS).zip(visible.chunks(PARTIAL_ROWS)).zip(out.chunks_mut(PARTIAL_ROWS))
    {
        let from_the_first = visible.iter().all(|&(from, _)| from == 0);
        let shared = if from_the_first { visible.iter().map(|&(_, to)| to).min().unwrap_or(0) } else { 0 };
        let mut sums = [[0.0; PANEL_WIDTH]; PARTIAL_ROWS];
        gemm_rows(simd, |_| weights, &values[..shared], &mut sums[..out.len()], WriteMode::Set);
        for (((weights, &(from, to)), sum), out) in weights.iter().zip(visible).zip(sums).zip(out) {
            if from < to {
                let alone = from.max(shared)..to;
                add_row(simd, sum, &weights[alone.clone()], &values[alone], out);
            }
        }
    }
}

/// Computes `out += sum + weights * values`, where `sum` is the row's sum over the block's earlier tokens.
#[inline(always)]
fn add_row<S: Simd>(simd: S, mut sum: PanelRow, weights: &[f32], values: &[PanelRow], out: &mut PanelRow) {
    let sums = S::as_mut_simd_f32s(&mut sum).0;
    for (&weight, value) in weights.iter().zip(values) {
        let weight = simd.splat_f32s(weight);
        for (sum, &value) in sums.iter_mut().zip(S::as_simd_f32s(value).0) {
            *sum = simd.mul_add_f32s(weight, value, *sum);
        }
    }
    for (out, &sum) in S::as_mut_simd_f32s(out).0.iter_mut().zip(&*sums) {
        *out = simd.add_f32s(*out, sum);
    }
}
