//! Log-probabilities of given tokens: the head in tiles, with an online log-sum-exp. The logits never exist as a whole.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::math;
use super::matrix::{Compute, Left, Product, Write};
use super::panels::{PANEL, Panels};
use super::weights::Weights;

/// Vocabulary panels whose sums are kept together; fixed, so that the order of summation is.
const CHUNK_PANELS: usize = 32;

/// Rows of one task: enough to reuse a panel of weights while it is in the core's cache.
const TASK_ROWS: usize = 192;

/// Rows whose logits of one panel exist at a time.
const TILE_ROWS: usize = 48;

/// `logit[target] - ln sum_v e^logit[v]` for each row of `hidden` and its target, in nats.
pub(crate) fn logprobs(
    compute: Compute,
    hidden: &Panels,
    head: &Weights,
    vocab_size: usize,
    targets: &[u32],
) -> Vec<f32> {
    let hidden = &Left::new(compute, hidden);
    let chunks = head.panels().div_ceil(CHUNK_PANELS);
    let blocks = targets.len().div_ceil(TASK_ROWS);
    let partials: Vec<Vec<Partial>> = (0..blocks * chunks)
        .into_par_iter()
        .map(|task| {
            let (block, chunk) = (task / chunks, task % chunks);
            let first = block * TASK_ROWS;
            let targets = &targets[first..targets.len().min(first + TASK_ROWS)];
            compute.arch.dispatch(Task { hidden, head, vocab_size, first, targets, chunk })
        })
        .collect();
    partials.chunks(chunks.max(1)).flat_map(combine).collect()
}

/// A row's log-sum-exp over one chunk of the vocabulary, and its target's logit if it is there.
#[derive(Clone, Copy, Debug)]
struct Partial {
    max: f32,
    sum: f32,
    target: Option<f32>,
}

/// Puts the chunks of a block of rows together, in order, in f64.
fn combine(chunks: &[Vec<Partial>]) -> Vec<f32> {
    let rows = chunks.first().map_or(0, Vec::len);
    (0..rows)
        .map(|row| {
            let parts = chunks.iter().map(|chunk| chunk[row]);
            let max = parts.clone().map(|part| part.max).fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = parts.clone().map(|p| f64::from(p.sum) * f64::from(p.max - max).exp()).sum();
            let target = parts.filter_map(|part| part.target).fold(f32::NAN, |_, logit| logit);
            (f64::from(target) - f64::from(max) - sum.ln()) as f32
        })
        .collect()
}

struct Task<'a> {
    hidden: &'a Left<'a>,
    head: &'a Weights,
    vocab_size: usize,
    first: usize,
    targets: &'a [u32],
    chunk: usize,
}

impl WithSimd for Task<'_> {
    type Output = Vec<Partial>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<Partial> {
        let mut partials = vec![Partial { max: f32::NEG_INFINITY, sum: 0.0, target: None }; self.targets.len()];
        let mut tile = [[0.0; PANEL]; TILE_ROWS];
        let first_panel = self.chunk * CHUNK_PANELS;
        for panel in first_panel..self.head.panels().min(first_panel + CHUNK_PANELS) {
            let real = (self.vocab_size - panel * PANEL).min(PANEL);
            let blocks = partials.chunks_mut(TILE_ROWS).zip(self.targets.chunks(TILE_ROWS));
            for (first, (partials, targets)) in (self.first..).step_by(TILE_ROWS).zip(blocks) {
                let out = &mut tile[..targets.len()];
                Product { a: self.hidden, first, w: self.head, panel, out, write: Write::Set }.with_simd(simd);
                for ((logits, partial), &target) in tile.iter_mut().zip(partials).zip(targets) {
                    logits[real..].fill(f32::NEG_INFINITY);
                    if target as usize / PANEL == panel {
                        partial.target = Some(logits[target as usize % PANEL]);
                    }
                    partial.add(simd, logits, real);
                }
            }
        }
        partials
    }
}

impl Partial {
    /// Takes in one panel of logits, of which the first `real` are of the vocabulary.
    #[inline(always)]
    fn add<S: Simd>(&mut self, simd: S, logits: &mut [f32; PANEL], real: usize) {
        let panel_max = math::max(simd, logits);
        if panel_max > self.max {
            let shrink = if self.sum == 0.0 { 0.0 } else { math::exp(self.max - panel_max) };
            self.sum *= shrink;
            self.max = panel_max;
        }
        let sum = math::exp_row(simd, logits, self.max);
        // What lies beyond the vocabulary was -inf, whose exponential is not quite zero.
        self.sum += if real == PANEL { sum } else { math::sum(simd, &zeros_from(logits, real)) };
    }
}

fn zeros_from(row: &[f32; PANEL], real: usize) -> [f32; PANEL] {
    std::array::from_fn(|i| if i < real { row[i] } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use pulp::Arch;

    use super::super::matrix::ActivationType;
    use super::super::weights::WeightType;
    use super::*;

    #[test]
    fn matches_float64_also_with_a_dominating_logit() {
        let (rows, depth, vocab) = (50, 40, 2100);
        let value = |i: usize| ((i * 7919 % 2003) as f32 / 1001.5 - 1.0) * 0.9;
        let mut hidden = Panels::zeros(rows, 2);
        for m in 0..rows {
            for k in 0..depth {
                hidden.row_mut(k / PANEL, m)[k % PANEL] = value(m * depth + k) * if m == 3 { 40.0 } else { 1.0 };
            }
        }
        let weights: Vec<f32> = (0..vocab * depth).map(|i| value(i + 5)).collect();
        let mut head = Weights::zeros(WeightType::F32, vocab, depth);
        head.set_rows(&weights, depth, |n| n, |k| k);
        let compute = Compute { arch: Arch::new(), activations: ActivationType::F32 };
        let targets: Vec<u32> = (0..rows as u32).map(|m| m * 41 % 2100).collect();
        let got = logprobs(compute, &hidden, &head, vocab, &targets);
        for (m, (&got, &target)) in got.iter().zip(&targets).enumerate() {
            let logits: Vec<f64> = weights
                .chunks(depth)
                .map(|w| {
                    w.iter()
                        .enumerate()
                        .map(|(k, &w)| f64::from(w) * f64::from(hidden.row(k / PANEL, m)[k % PANEL]))
                        .sum()
                })
                .collect();
            let max = logits.iter().copied().fold(f64::MIN, f64::max);
            let want = logits[target as usize] - max - logits.iter().map(|l| (l - max).exp()).sum::<f64>().ln();
            assert!((f64::from(got) - want).abs() < 2e-6 * (1.0 + want.abs()), "row {m}: {got} {want}");
        }
    }
}
