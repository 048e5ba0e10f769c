//! The head: turns hidden states into log-probabilities of given and sampled tokens.
//!
//! Start with [`Head::scores`]. The vocabulary is cut into chunks of fixed size. [`Head`] computes the logits of a
//! chunk tile by tile and folds them into [`chunk_stats`], an online log-sum-exp. [`vocab_stats`] merges the chunks in
//! order, then the ranks of a group. The full logits are never in memory, except for a few rows at a time from which
//! tokens are sampled.

mod chunk_stats;
#[cfg(test)]
mod tests;
mod vocab_stats;

use std::ops::Range;

use pulp::{Simd, WithSimd};

use self::chunk_stats::{ChunkStats, Target};
use self::vocab_stats::VocabStats;
use super::compute::{ComputeMode, WriteMode};
use super::gemm::{GemmInput, GemmTask};
use super::packed_matrix::PackedMatrix;
use super::panel_matrix::{PANEL_WIDTH, PanelMatrix, PanelRow};
use super::pool;
use crate::backend::{ScoreRow, TokenChoice, TokenScore};
use crate::parallel::communicator::{RankCommunicator, RankLost};
use crate::sampling::Sample;
use crate::scorer::PositionOptions;

/// Vocabulary panels per chunk; fixed, so that the order of summation is fixed.
const CHUNK_PANELS: usize = 32;

/// Rows per task: enough to reuse a panel of weights while it is in the core's cache.
const TASK_ROWS: usize = 192;

/// Number of rows whose logits for one panel are in memory at a time.
const TILE_ROWS: usize = 48;

/// Number of rows whose full logits are in memory at a time when tokens are sampled.
const SAMPLED_ROWS: usize = 8;

/// The output matrix, or a rank's rows of it, and the compute mode of products with it.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) compute: ComputeMode,
    pub(super) weights: &'a PackedMatrix,
    /// The matrix's panels of the vocabulary, in [chunks](vocab_chunks).
    pub(super) chunks: &'a [Range<usize>],
    /// Number of tokens in the whole vocabulary.
    pub(super) vocab_size: usize,
}

/// Cuts pieces of the vocabulary's panels into chunks; no chunk spans two pieces.
pub(super) fn vocab_chunks(pieces: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    for piece in pieces {
        for first in piece.clone().step_by(CHUNK_PANELS) {
            chunks.push(first..piece.end.min(first + CHUNK_PANELS));
        }
    }
    chunks
}

impl Head<'_> {
    /// Returns `logit[token] - ln sum_v e^logit[v]` in nats, for the given or sampled token of each row of `hidden`.
    pub(super) fn scores(
        self,
        hidden: &PanelMatrix,
        rows: &[ScoreRow],
        communicator: &mut RankCommunicator,
    ) -> Result<Vec<TokenScore>, RankLost> {
        let mut scores: Vec<Option<TokenScore>> = vec![None; rows.len()];
        let (mut given, mut targets, mut sampled) = (Vec::new(), Vec::new(), Vec::new());
        for (at, row) in rows.iter().enumerate() {
            match row.choice {
                TokenChoice::Given(token) => {
                    given.push(at);
                    targets.push(Target { token, logit: 0.0, options: row.options.clone() });
                }
                TokenChoice::Sampled(sample) => sampled.push((at, sample, &row.options)),
            }
        }
        let given_scores = if sampled.is_empty() {
            self.score_given(hidden, targets, communicator)?
        } else {
            self.score_given(&hidden.gather(&given), targets, communicator)?
        };
        for (at, score) in given.into_iter().zip(given_scores) {
            scores[at] = Some(score);
        }
        for batch in sampled.chunks(SAMPLED_ROWS) {
            let hidden = hidden.gather(&batch.iter().map(|row| row.0).collect::<Vec<_>>());
            let samples: Vec<_> = batch.iter().map(|&(_, sample, options)| (sample, options)).collect();
            for (&(at, ..), score) in batch.iter().zip(self.score_sampled(&hidden, &samples, communicator)?) {
                scores[at] = Some(score);
            }
        }
        Ok(scores.into_iter().flatten().collect())
    }

    /// Returns the panel of the vocabulary at which the matrix begins.
    fn first_panel(self) -> usize {
        self.chunks.first().map_or(0, |chunk| chunk.start)
    }

    fn score_given(
        self,
        hidden: &PanelMatrix,
        mut targets: Vec<Target>,
        communicator: &mut RankCommunicator,
    ) -> Result<Vec<TokenScore>, RankLost> {
        let hidden = &GemmInput::new(self.compute, hidden);
        self.compute_target_logits(hidden, &mut targets, communicator)?;
        let (chunks, blocks) = (self.chunks.len(), targets.len().div_ceil(TASK_ROWS));
        let chunk_stats: Vec<Vec<ChunkStats>> = pool::map(0..blocks * chunks, |task| {
            let (block, chunk) = (task / chunks, task % chunks);
            let first = block * TASK_ROWS;
            let targets = &targets[first..targets.len().min(first + TASK_ROWS)];
            self.compute.arch.dispatch(ChunkTask { head: self, hidden, first, targets, chunk: &self.chunks[chunk] })
        });
        if chunks == 0 {
            // This rank has no rows of the matrix.
            let empty = vec![VocabStats::default(); targets.len()];
            return self.finish(&targets, empty, communicator);
        }
        let mut stats = Vec::with_capacity(targets.len());
        for (block, targets) in chunk_stats.chunks(chunks).zip(targets.chunks(TASK_ROWS)) {
            for row in 0..targets.len() {
                stats.push(VocabStats::merge_chunks(block.iter().map(|chunk| &chunk[row])));
            }
        }
        self.finish(&targets, stats, communicator)
    }

    /// Computes the logits of targets whose ranks in the vocabulary are requested.
    fn compute_target_logits(
        self,
        hidden: &GemmInput<'_>,
        targets: &mut [Target],
        communicator: &mut RankCommunicator,
    ) -> Result<(), RankLost> {
        if !targets.iter().any(|target| target.options.rank) {
            return Ok(());
        }
        let ranked = targets.iter_mut().enumerate().filter(|(_, target)| target.options.rank);
        pool::for_each(ranked, |(first, target)| {
            let (panel, w, mut out) = (target.token as usize / PANEL_WIDTH, self.weights, [[0.0; PANEL_WIDTH]]);
            let Some(panel) = panel.checked_sub(self.first_panel()).filter(|&panel| panel < w.output_panels()) else {
                return;
            };
            let (blocks, out) = (w.depth_blocks(), &mut out);
            self.compute.arch.dispatch(GemmTask { a: hidden, first, w, panel, blocks, out, write: WriteMode::Set });
            target.logit = out[0][target.token as usize % PANEL_WIDTH];
        });
        if let Some(communicator) = communicator {
            let mut logits: Vec<f32> = targets.iter().map(|target| target.logit).collect();
            let term = std::mem::replace(&mut logits, vec![0.0; targets.len()]);
            communicator.all_reduce(&mut logits, term)?;
            targets.iter_mut().zip(logits).for_each(|(target, logit)| target.logit = logit);
        }
        Ok(())
    }

    /// Samples a token for each row, and scores it as if it were given: the same sums in the same order.
    fn score_sampled(
        self,
        hidden: &PanelMatrix,
        samples: &[(Sample, &PositionOptions)],
        communicator: &mut RankCommunicator,
    ) -> Result<Vec<TokenScore>, RankLost> {
        let rank_logits = self.full_logits(hidden);
        let all = self.gather_logits(&rank_logits, communicator)?;
        let target = |(logits, &(sample, options)): (&Vec<f32>, &(Sample, &PositionOptions))| {
            let token = sample.pick(logits);
            Target { token, logit: logits[token as usize], options: options.clone() }
        };
        let targets: Vec<Target> = pool::map(all.iter().zip(samples), target);
        let stats = pool::map(rank_logits.iter().zip(&targets), |(logits, target)| self.row_stats(logits, target));
        self.finish(&targets, stats, communicator)
    }

    /// Computes all logits of this rank's tokens, as panels for each row.
    fn full_logits(self, hidden: &PanelMatrix) -> Vec<Vec<PanelRow>> {
        let rows = hidden.rows();
        let hidden = &GemmInput::new(self.compute, hidden);
        // `[panel][row]`
        let mut logits = vec![[0.0; PANEL_WIDTH]; rows * self.weights.output_panels()];
        pool::for_each(logits.chunks_mut(rows.max(1)).enumerate(), |(panel, out)| {
            let w = self.weights;
            let blocks = w.depth_blocks();
            self.compute.arch.dispatch(GemmTask { a: hidden, first: 0, w, panel, blocks, out, write: WriteMode::Set });
        });
        (0..rows).map(|row| logits.iter().skip(row).step_by(rows).copied().collect()).collect()
    }

    /// Computes the statistics of one row's logits, chunk by chunk.
    fn row_stats(self, logits: &[PanelRow], target: &Target) -> VocabStats {
        let mut chunk_stats = Vec::with_capacity(self.chunks.len());
        for chunk in self.chunks {
            let first = chunk.start - self.first_panel();
            let logits = &logits[first..first + chunk.len()];
            let task = RowChunkTask { vocab_size: self.vocab_size, target, first: chunk.start, logits };
            chunk_stats.push(self.compute.arch.dispatch(task));
        }
        VocabStats::merge_chunks(&chunk_stats)
    }

    /// Gathers each row's logits of the whole vocabulary from all ranks.
    fn gather_logits(
        self,
        rank_logits: &[Vec<PanelRow>],
        communicator: &mut RankCommunicator,
    ) -> Result<Vec<Vec<f32>>, RankLost> {
        let outputs = self.weights.output_panels() * PANEL_WIDTH;
        let columns = self.vocab_size.saturating_sub(self.first_panel() * PANEL_WIDTH).min(outputs);
        let rank_rows = rank_logits.iter().map(|row| row.as_flattened()[..columns].to_vec());
        let Some(communicator) = communicator else {
            return Ok(rank_rows.collect());
        };
        let rows = rank_logits.len();
        let ranks = communicator.all_gather(rank_rows.flatten().map(f64::from).collect())?;
        let mut all = vec![Vec::new(); rows];
        for logits in &ranks {
            let columns = logits.len() / rows;
            for (row, all) in all.iter_mut().enumerate() {
                all.extend(logits[row * columns..(row + 1) * columns].iter().map(|&logit| logit as f32));
            }
        }
        Ok(all)
    }

    /// Merges all ranks' statistics and scores the targets.
    fn finish(
        self,
        targets: &[Target],
        rank_stats: Vec<VocabStats>,
        communicator: &mut RankCommunicator,
    ) -> Result<Vec<TokenScore>, RankLost> {
        let Some(communicator) = communicator else {
            return Ok(targets.iter().zip(rank_stats).map(|(target, stats)| stats.score(target)).collect());
        };
        let mut numbers = vec![self.chunks.len() as f64];
        for (target, stats) in targets.iter().zip(&rank_stats) {
            numbers.extend(stats.to_numbers(target));
        }
        let gathered = communicator.all_gather(numbers)?;
        let mut ranks: Vec<_> = gathered
            .iter()
            .filter_map(|rank| rank.split_first())
            .map(|(&chunks, numbers)| (chunks as usize, numbers.iter().copied()))
            .collect();
        let score = |target: &Target| {
            let stats = ranks.iter_mut().map(|(chunks, numbers)| VocabStats::from_numbers(target, *chunks, numbers));
            VocabStats::merge_ranks(stats).score(target)
        };
        Ok(targets.iter().map(score).collect())
    }
}

/// A task that computes the statistics of some rows over one chunk of the vocabulary.
struct ChunkTask<'a> {
    head: Head<'a>,
    hidden: &'a GemmInput<'a>,
    first: usize,
    targets: &'a [Target],
    chunk: &'a Range<usize>,
}

impl WithSimd for ChunkTask<'_> {
    type Output = Vec<ChunkStats>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<ChunkStats> {
        let mut stats: Vec<ChunkStats> = self.targets.iter().map(ChunkStats::new).collect();
        let mut tile = [[0.0; PANEL_WIDTH]; TILE_ROWS];
        let vocab_size = self.head.vocab_size;
        for at in self.chunk.clone() {
            let panel = at - self.head.first_panel();
            let blocks = stats.chunks_mut(TILE_ROWS).zip(self.targets.chunks(TILE_ROWS));
            for (first, (stats, targets)) in (self.first..).step_by(TILE_ROWS).zip(blocks) {
                let (w, out) = (self.head.weights, &mut tile[..targets.len()]);
                let blocks = w.depth_blocks();
                GemmTask { a: self.hidden, first, w, panel, blocks, out, write: WriteMode::Set }.with_simd(simd);
                for ((logits, stats), target) in tile.iter_mut().zip(stats).zip(targets) {
                    stats.add(simd, target, at, logits, vocab_size);
                }
            }
        }
        stats
    }
}

/// A task that computes the statistics of one row over one chunk of the vocabulary, from known logits.
struct RowChunkTask<'a> {
    vocab_size: usize,
    target: &'a Target,
    first: usize,
    logits: &'a [PanelRow],
}

impl WithSimd for RowChunkTask<'_> {
    type Output = ChunkStats;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> ChunkStats {
        let mut stats = ChunkStats::new(self.target);
        for (panel, logits) in (self.first..).zip(self.logits) {
            stats.add(simd, self.target, panel, &mut logits.clone(), self.vocab_size);
        }
        stats
    }
}
