//! The head, which computes log-probabilities, token ranks, entropies, most probable tokens and sampled tokens from
//! hidden states.
//!
//! Each rank computes the logits of its slice of the vocabulary, which is divided into tiles. The ranks first gather
//! the targets' logits, then the sums and most probable tokens of each tile. They gather whole rows of logits only to
//! sample tokens, [`SAMPLED_ROWS`] rows at a time.

use std::ops::Range;

use surprisal_kernels::Address;
use surprisal_kernels::logprobs::{LogprobCombine, LogprobOut, LogprobTargets, LogprobTiles, PART_BYTES, tiles, words};

use super::accelerator::Accelerator;
use super::forward::{ForwardPass, QueueResult, RowTable};
use super::gemm::Gemm;
use super::memory::{DeviceRegion, int_bytes, int_region};
use super::weights::DeviceLinear;
use super::workspace::{SAMPLED_ROWS, SCORE_ROWS};
use crate::backend::{BackendError, TokenScore};
use crate::parallel::rank_slice::{RankSlice, VOCAB_GRANULE};
use crate::sampling::Sample;
use crate::scorer::{PositionDetails, PositionOptions};

impl<A: Accelerator> ForwardPass<'_, A> {
    /// Queues the computation of all scores, in tiles of [`SCORE_ROWS`] scores, and returns their tokens. Waits for the
    /// device only to sample a token.
    pub(super) fn queue_scores(&mut self) -> Result<Vec<u32>, BackendError> {
        let work = self.work;
        let states = self.capacity.blocks + self.capacity.rows;
        let states = RowTable { rows: self.cache.hidden, first: 0, count: states, total: states };
        let all = self.plan.scored.len();
        let mut tokens: Vec<u32> =
            self.plan.ints[self.plan.targets.clone()].iter().map(|&token| token as u32).collect();
        for first in (0..all).step_by(SCORE_ROWS) {
            let rows = first..all.min(first + SCORE_ROWS);
            let ids = self.tile_ints(&self.plan.scored, &rows)?;
            self.queue_gather_rows(work.scored, states, ids, rows.len())?;
            let DeviceLinear { weights, bias, n, k, .. } = self.weights.head;
            let product = Gemm {
                out: work.logits,
                x: work.scored,
                weights,
                bias,
                rows: rows.len(),
                n,
                k,
                out_f32: true,
                scales: None,
            };
            self.device.multiply(&product)?;
            self.sample_targets(first, &mut tokens[rows.clone()])?;
            self.queue_target_logits(&rows)?;
            self.queue_logprobs(&rows)?;
        }
        Ok(tokens)
    }

    /// Returns the address of the plan's integers for a tile of scores.
    fn tile_ints(&self, all: &Range<usize>, rows: &Range<usize>) -> Result<Address, BackendError> {
        self.ints(&(all.start + rows.start..all.start + rows.end))
    }

    /// Returns the beginning of a region, with `bytes` bytes for each rank, and this rank's slice of it.
    fn rank_regions(&self, region: DeviceRegion, bytes: usize) -> Result<(DeviceRegion, DeviceRegion), BackendError> {
        let RankSlice { rank, size } = self.shape.slice;
        let all = region.subregion(0, size * bytes)?;
        Ok((all, all.slice(rank, size)?))
    }

    /// Queues the lookup of the logits of a tile's targets, and their exchange among ranks.
    fn queue_target_logits(&mut self, rows: &Range<usize>) -> QueueResult {
        let bytes = rows.len() * 4;
        let (all, slice) = self.rank_regions(self.work.target_logits, bytes)?;
        let (stride, vocab) = (self.shape.vocab_rows, &self.shape.ranges.vocab);
        let args = LogprobTargets {
            out: slice.checked_address(bytes)?,
            logits: self.work.logits.checked_address(rows.len() * stride * 4)?,
            targets: self.tile_ints(&self.plan.targets, rows)?,
            stride: stride as u64,
            rows: rows.len() as u32,
            first: vocab.start as u32,
            vocabulary: vocab.len() as u32,
        };
        self.launch(args.launch())?;
        self.device.gather(all)
    }

    /// Queues the computation of a tile's scores from its logits and its targets' logits.
    fn queue_logprobs(&mut self, rows: &Range<usize>) -> QueueResult {
        let (work, shape, top) = (self.work, self.shape, self.plan.top);
        let (first, count) = (rows.start, rows.len());
        let tiles = tiles(shape.vocab_rows as u32);
        let members = self.subset_masks(rows.clone())?;
        let (sums, listed) = (count * tiles as usize * PART_BYTES, count * tiles as usize * top * 4);
        let (parts, own_parts) = self.rank_regions(work.logprob_parts, sums)?;
        let (logits, own_logits) = self.rank_regions(work.top.tile_logits, listed)?;
        let (ids, own_ids) = self.rank_regions(work.top.tile_ids, listed)?;
        let listing =
            |region: DeviceRegion| if top == 0 { Ok(Address::NULL) } else { region.checked_address(region.bytes()) };
        let target_logits = self.rank_regions(work.target_logits, count * 4)?.0.checked_address(count * 4)?;
        let args = LogprobTiles {
            parts: own_parts.checked_address(sums)?,
            top_logits: listing(own_logits)?,
            top_ids: listing(own_ids)?,
            logits: work.logits.checked_address(count * shape.vocab_rows * 4)?,
            target_logits,
            members,
            stride: shape.vocab_rows as u64,
            first: shape.ranges.vocab.start as u32,
            vocabulary: shape.ranges.vocab.len() as u32,
            ranks: shape.slice.size as u32,
            top: top as u32,
        };
        self.launch(args.launch(count as u32, tiles))?;
        let to_gather = if top == 0 { &[parts][..] } else { &[parts, logits, ids] };
        to_gather.iter().try_for_each(|&all| self.device.gather(all))?;
        let values = |region: DeviceRegion| region.subregion(first * 4, count * 4)?.checked_address(count * 4);
        let lists = |region: DeviceRegion| listing(region.subregion(first * top * 4, count * top * 4)?);
        let out = LogprobOut {
            logprobs: values(work.logprobs)?,
            ranks: values(work.token_ranks)?,
            entropies: values(work.entropies)?,
            subsets: values(work.subsets)?,
            top_logprobs: lists(work.top.logprobs)?,
            top_ids: lists(work.top.ids)?,
        };
        let args = LogprobCombine {
            out,
            parts: parts.checked_address(parts.bytes())?,
            top_logits: listing(logits)?,
            top_ids: listing(ids)?,
            target_logits,
            ranks: shape.slice.size as u32,
            tiles,
            top: top as u32,
        };
        self.launch(args.launch(count as u32))
    }

    /// Writes the rows' subsets to the device, as bitmaps of this rank's columns. Returns the address of the bitmaps,
    /// or null if no row has a subset.
    fn subset_masks(&mut self, rows: Range<usize>) -> Result<Address, BackendError> {
        let options = &self.plan.options[rows];
        if options.iter().all(|options| options.subset.is_none()) {
            return Ok(Address::NULL);
        }
        let vocab = &self.shape.ranges.vocab;
        let (first, words) = (vocab.start / VOCAB_GRANULE, words(vocab.len() as u32) as usize);
        let row = |options: &PositionOptions| -> Vec<i32> {
            let word = |index| options.subset.as_ref().map_or(0, |subset| subset.word(first + index).cast_signed());
            (0..words).map(word).collect()
        };
        let all: Vec<i32> = options.iter().flat_map(row).collect();
        let region = self.work.subset_masks.subregion(0, all.len() * 4)?;
        self.device.write(region, &int_bytes(&all))?;
        region.checked_address(all.len() * 4)
    }

    /// Samples a tile's tokens on the host, as every backend does, and writes them to the targets, next to the given
    /// tokens.
    fn sample_targets(&mut self, first: usize, tokens: &mut [u32]) -> QueueResult {
        let tile = first..first + tokens.len();
        let sampled: Vec<(usize, Sample)> = self
            .plan
            .sampled
            .iter()
            .filter(|(at, _)| tile.contains(at))
            .map(|&(at, sample)| (at - first, sample))
            .collect();
        for batch in sampled.chunks(SAMPLED_ROWS) {
            let logits = self.full_logits(&batch.iter().map(|row| row.0).collect::<Vec<_>>())?;
            for (&(at, sample), logits) in batch.iter().zip(&logits) {
                let token = sample.pick(logits);
                tokens[at] = token;
                let target = int_region(self.work.ints, self.plan.targets.start + first + at, 1)?;
                self.device.write(target, &int_bytes(&[token as i32]))?;
            }
        }
        Ok(())
    }

    /// Reads the logits of the whole vocabulary for some of a tile's rows.
    fn full_logits(&mut self, rows: &[usize]) -> Result<Vec<Vec<f32>>, BackendError> {
        let row = self.shape.vocab_rows * 4;
        let (all, slice) = self.rank_regions(self.work.sampled_logits, rows.len() * row)?;
        for (i, &at) in rows.iter().enumerate() {
            self.device.copy(self.work.logits.subregion(at * row, row)?, slice.subregion(i * row, row)?)?;
        }
        self.device.gather(all)?;
        let mut bytes = vec![0; all.bytes()];
        self.device.read(all, &mut bytes)?;
        let of_rank = |(rank, vocab): (usize, &Range<usize>), i: usize| {
            floats(&bytes[(rank * rows.len() + i) * row..][..vocab.len() * 4])
        };
        let whole = |i| self.shape.vocabs.iter().enumerate().flat_map(|rank| of_rank(rank, i)).collect();
        Ok((0..rows.len()).map(whole).collect())
    }

    /// Waits for the device and reads the scores.
    pub(super) fn read_scores(&mut self, tokens: Vec<u32>) -> Result<Vec<TokenScore>, BackendError> {
        let (work, top, rows) = (self.work, self.plan.top, tokens.len());
        let logprobs = floats(&self.words(work.logprobs, rows)?);
        let options = &self.plan.options;
        if options.iter().all(PositionOptions::is_empty) {
            let scores = tokens.into_iter().zip(logprobs);
            return Ok(scores.map(|(token, logprob)| TokenScore { token, logprob, position: None }).collect());
        }
        let (ranks, entropies) =
            (integers(&self.words(work.token_ranks, rows)?), floats(&self.words(work.entropies, rows)?));
        let subsets = floats(&self.words(work.subsets, rows)?);
        let top_tokens = work.top;
        let top_logprobs = floats(&self.words(top_tokens.logprobs, rows * top)?);
        let top_ids = integers(&self.words(top_tokens.ids, rows * top)?);
        let position = |row: usize| {
            let options = &options[row];
            let listed = top_ids.iter().zip(&top_logprobs).skip(row * top).take(options.top.into());
            PositionDetails {
                rank: options.rank.then_some(ranks[row] as u32),
                entropy: options.entropy.then_some(entropies[row]),
                subset: options.subset.as_ref().map(|_| subsets[row]),
                // The vocabulary may have fewer tokens than were requested.
                top: listed.filter(|(id, _)| **id >= 0).map(|(&id, &logprob)| (id as u32, logprob)).collect(),
            }
        };
        let scores = tokens.into_iter().zip(logprobs).enumerate();
        Ok(scores
            .map(|(row, (token, logprob))| {
                let position = (!options[row].is_empty()).then(|| Box::new(position(row)));
                TokenScore { token, logprob, position }
            })
            .collect())
    }

    /// Reads the first `count` 4-byte words of a region.
    fn words(&mut self, region: DeviceRegion, count: usize) -> Result<Vec<u8>, BackendError> {
        let mut bytes = vec![0; count * 4];
        if count > 0 {
            self.device.read(region, &mut bytes)?;
        }
        Ok(bytes)
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn integers(bytes: &[u8]) -> Vec<i32> {
    bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
