//! One block's part in attention: scores become weights of an online softmax, weights times values are added up.
//!
//! A row's sums are chains over the tokens that it sees, in their order, whatever rows it shares a register tile with.

use std::ops::Range;

use pulp::Simd;

use super::math;
use super::matrix::{Write, product_rows};
use super::panels::{PANEL, Row};
use crate::backend::BLOCK_TOKENS;

/// Query rows of one task.
pub(crate) const TILE: usize = 24;

/// Rows at the end of their past that share a register tile. More of them share less of what they see.
const FEW: usize = 4;

/// Of each of a tile's rows: what it makes of a block's tokens, and from which to which it sees them.
pub(crate) type Scores = [Row; TILE];
pub(crate) type Seen = [(usize, usize); TILE];

/// The running maximum and sum of each row's softmax.
#[derive(Clone)]
pub(crate) struct Online {
    max: [f32; TILE],
    sum: [f32; TILE],
}

impl Online {
    pub(crate) fn new() -> Self {
        Self { max: [f32::NEG_INFINITY; TILE], sum: [0.0; TILE] }
    }

    /// Turns the scores of some of the tile's rows into weights relative to the new maximum, and rescales what was summed
    /// before. Maxima come first: rows' exponentials then wait for nothing, and overlap.
    #[inline(always)]
    pub(crate) fn step<S: Simd>(
        &mut self,
        simd: S,
        scores: &mut Scores,
        out: &mut [Row],
        rows: usize,
        seen: &Seen,
        range: Range<usize>,
    ) {
        for row in range.clone() {
            let (scores, (from, to)) = (&mut scores[row], seen[row]);
            if from < to {
                scores[..from].fill(f32::NEG_INFINITY);
                scores[to..].fill(f32::NEG_INFINITY);
                self.raise(row, math::max(simd, scores), out, rows);
            }
        }
        for row in range {
            let (scores, (from, to)) = (&mut scores[row], seen[row]);
            if from < to {
                let mut sum = math::exp_row(simd, scores, self.max[row]);
                if to - from < PANEL {
                    scores[..from].fill(0.0);
                    scores[to..].fill(0.0);
                    sum = math::sum(simd, scores);
                }
                self.sum[row] += sum;
            }
        }
    }

    /// Makes what a row has summed so far relative to a greater maximum.
    #[inline(always)]
    fn raise(&mut self, row: usize, max: f32, out: &mut [Row], rows: usize) {
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

    /// Divides by the softmax's denominator.
    #[inline(always)]
    pub(crate) fn finish(&self, out: &mut [Row], rows: usize) {
        for (i, out) in out.iter_mut().enumerate() {
            let inverse = 1.0 / self.sum[i % rows];
            for out in out.iter_mut() {
                *out *= inverse;
            }
        }
    }
}

/// Adds weights times values. Rows that see the whole block share a register tile; the others read only what they see.
#[inline(always)]
pub(crate) fn accumulate<'a, S: Simd>(
    simd: S,
    weights: &Scores,
    out: &mut [Row],
    rows: usize,
    seen: &Seen,
    range: Range<usize>,
    values: impl Fn(usize) -> &'a [Row],
) {
    let whole = |row: &usize| seen[*row].1 - seen[*row].0 == BLOCK_TOKENS;
    let first = range.clone().find(whole).unwrap_or(range.end);
    let last = (first..range.end).find(|row| !whole(row)).unwrap_or(range.end);
    for (panel, out) in out.chunks_exact_mut(rows).enumerate() {
        let values = values(panel);
        product_rows(simd, |_| &weights[first..], values, &mut out[first..last], Write::Add);
        for rows in [range.start..first, last..range.end] {
            accumulate_parts(simd, &weights[rows.clone()], &mut out[rows.clone()], &seen[rows], values);
        }
    }
}

/// For rows that see a part of the block: a few share a register tile as far as all of them see, and each goes on alone from there.
#[inline(always)]
fn accumulate_parts<S: Simd>(simd: S, weights: &[Row], out: &mut [Row], seen: &[(usize, usize)], values: &[Row]) {
    for ((weights, seen), out) in weights.chunks(FEW).zip(seen.chunks(FEW)).zip(out.chunks_mut(FEW)) {
        let from_the_first = seen.iter().all(|&(from, _)| from == 0);
        let shared = if from_the_first { seen.iter().map(|&(_, to)| to).min().unwrap_or(0) } else { 0 };
        let mut sums = [[0.0; PANEL]; FEW];
        product_rows(simd, |_| weights, &values[..shared], &mut sums[..out.len()], Write::Set);
        for (((weights, &(from, to)), sum), out) in weights.iter().zip(seen).zip(sums).zip(out) {
            if from < to {
                let alone = from.max(shared)..to;
                add_row(simd, sum, &weights[alone.clone()], &values[alone], out);
            }
        }
    }
}

/// `out += sum + weights * values`, where `sum` is what the chain has so far.
#[inline(always)]
fn add_row<S: Simd>(simd: S, mut sum: Row, weights: &[f32], values: &[Row], out: &mut Row) {
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
