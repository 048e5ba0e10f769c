//! The head: from hidden states to log-probabilities, ranks, entropies, most probable tokens, and drawn tokens.
//!
//! Ranks have each its columns of the logits. They gather the targets' logits, and then their tiles' sums and best tokens, never
//! the logits, but for [`DRAWN_ROWS`] rows at a time that tokens are drawn from.

use std::ops::Range;

use surprisal_kernels::Address;
use surprisal_kernels::logprobs::{LogprobCombine, LogprobOut, LogprobTargets, LogprobTiles, PART_BYTES, tiles, words};

use super::accelerator::{Accelerator, Product, Region};
use super::forward::{Done, Pass, Table};
use super::weights::{Linear, int_bytes, ints};
use super::workspace::{DRAWN_ROWS, SCORE_ROWS};
use crate::backend::{BackendError, TokenScore};
use crate::part::{GROUP_TOKENS, Part};
use crate::sampling::Sample;
use crate::scorer::{PositionDetails, PositionOptions};

impl<A: Accelerator> Pass<'_, A> {
    /// Scores all rows, tile by tile, and returns their tokens. Only to draw a token does it wait for the device.
    pub(super) fn score(&mut self) -> Result<Vec<u32>, BackendError> {
        let work = self.work;
        let states = self.room.blocks + self.room.rows;
        let states = Table { rows: self.cache.hidden, first: 0, count: states, of: states };
        let all = self.plan.scored.len();
        let mut tokens: Vec<u32> =
            self.plan.ints[self.plan.targets.clone()].iter().map(|&token| token as u32).collect();
        for first in (0..all).step_by(SCORE_ROWS) {
            let rows = first..all.min(first + SCORE_ROWS);
            let ids = self.tile(&self.plan.scored, &rows)?;
            self.gather(work.scored, states, ids, rows.len())?;
            let Linear { weights, bias, n, k, .. } = self.weights.head;
            let product = Product {
                out: work.logits,
                x: work.scored,
                weights,
                bias,
                rows: rows.len(),
                n,
                k,
                wide: true,
                scales: None,
            };
            self.device.multiply(&product)?;
            self.draw(first, &mut tokens[rows.clone()])?;
            self.target_logits(&rows)?;
            self.sums(&rows)?;
        }
        Ok(tokens)
    }

    /// Some of the plan's integers, one for each score.
    fn tile(&self, all: &Range<usize>, rows: &Range<usize>) -> Result<Address, BackendError> {
        self.ints(&(all.start + rows.start..all.start + rows.end))
    }

    /// The beginning of a region that has so many bytes for each rank, and this rank's among them.
    fn ranked(&self, region: Region, bytes: usize) -> Result<(Region, Region), BackendError> {
        let Part { rank, size } = self.shape.part;
        let all = region.part(0, size * bytes)?;
        Ok((all, all.slice(rank, size)?))
    }

    /// The logits of the targets of a tile of scores.
    fn target_logits(&mut self, rows: &Range<usize>) -> Done {
        let bytes = rows.len() * 4;
        let (all, own) = self.ranked(self.work.target_logits, bytes)?;
        let (stride, vocab) = (self.shape.vocab_rows, &self.shape.own.vocab);
        let args = LogprobTargets {
            out: own.holding(bytes)?,
            logits: self.work.logits.holding(rows.len() * stride * 4)?,
            targets: self.tile(&self.plan.targets, rows)?,
            stride: stride as u64,
            rows: rows.len() as u32,
            first: vocab.start as u32,
            vocabulary: vocab.len() as u32,
        };
        self.launch(args.launch())?;
        self.device.gather(all)
    }

    /// A tile of scores from its logits and those of the targets.
    fn sums(&mut self, rows: &Range<usize>) -> Done {
        let (work, shape, top) = (self.work, self.shape, self.plan.top);
        let (first, count) = (rows.start, rows.len());
        let tiles = tiles(shape.vocab_rows as u32);
        let members = self.members(rows.clone())?;
        let (sums, listed) = (count * tiles as usize * PART_BYTES, count * tiles as usize * top * 4);
        let (parts, own_parts) = self.ranked(work.logprob_parts, sums)?;
        let (logits, own_logits) = self.ranked(work.listed.tile_logits, listed)?;
        let (ids, own_ids) = self.ranked(work.listed.tile_ids, listed)?;
        let listing = |region: Region| if top == 0 { Ok(Address::NULL) } else { region.holding(region.bytes()) };
        let target_logits = self.ranked(work.target_logits, count * 4)?.0.holding(count * 4)?;
        let args = LogprobTiles {
            parts: own_parts.holding(sums)?,
            top_logits: listing(own_logits)?,
            top_ids: listing(own_ids)?,
            logits: work.logits.holding(count * shape.vocab_rows * 4)?,
            target_logits,
            members,
            stride: shape.vocab_rows as u64,
            first: shape.own.vocab.start as u32,
            vocabulary: shape.own.vocab.len() as u32,
            ranks: shape.part.size as u32,
            top: top as u32,
        };
        self.launch(args.launch(count as u32, tiles))?;
        let told = if top == 0 { &[parts][..] } else { &[parts, logits, ids] };
        told.iter().try_for_each(|&all| self.device.gather(all))?;
        let values = |region: Region| region.part(first * 4, count * 4)?.holding(count * 4);
        let lists = |region: Region| listing(region.part(first * top * 4, count * top * 4)?);
        let out = LogprobOut {
            logprobs: values(work.logprobs)?,
            ranks: values(work.ranks)?,
            entropies: values(work.entropies)?,
            subsets: values(work.subsets)?,
            top_logprobs: lists(work.listed.logprobs)?,
            top_ids: lists(work.listed.ids)?,
        };
        let args = LogprobCombine {
            out,
            parts: parts.holding(parts.bytes())?,
            top_logits: listing(logits)?,
            top_ids: listing(ids)?,
            target_logits,
            ranks: shape.part.size as u32,
            tiles,
            top: top as u32,
        };
        self.launch(args.launch(count as u32))
    }

    /// The bitmaps, of this rank's columns, of the subsets that some rows are to be told of, on the device; null where there are none.
    fn members(&mut self, rows: Range<usize>) -> Result<Address, BackendError> {
        let options = &self.plan.options[rows];
        if options.iter().all(|options| options.subset.is_none()) {
            return Ok(Address::NULL);
        }
        let own = &self.shape.own.vocab;
        let (first, words) = (own.start / GROUP_TOKENS, words(own.len() as u32) as usize);
        let row = |options: &PositionOptions| -> Vec<i32> {
            let word = |index| options.subset.as_ref().map_or(0, |subset| subset.word(first + index).cast_signed());
            (0..words).map(word).collect()
        };
        let all: Vec<i32> = options.iter().flat_map(row).collect();
        let region = self.work.members.part(0, all.len() * 4)?;
        self.device.write(region, &int_bytes(&all))?;
        region.holding(all.len() * 4)
    }

    /// Draws the tokens of a tile that are to be drawn, as every backend does, and makes them targets like those given.
    fn draw(&mut self, first: usize, tokens: &mut [u32]) -> Done {
        let tile = first..first + tokens.len();
        let here: Vec<(usize, Sample)> =
            self.plan.drawn.iter().filter(|(at, _)| tile.contains(at)).map(|&(at, draw)| (at - first, draw)).collect();
        for some in here.chunks(DRAWN_ROWS) {
            let logits = self.whole_rows(&some.iter().map(|row| row.0).collect::<Vec<_>>())?;
            for (&(at, draw), logits) in some.iter().zip(&logits) {
                let token = draw.pick(logits);
                tokens[at] = token;
                let target = ints(self.work.ints, self.plan.targets.start + first + at, 1)?;
                self.device.write(target, &int_bytes(&[token as i32]))?;
            }
        }
        Ok(())
    }

    /// Logits of the whole vocabulary of some of a tile's rows.
    fn whole_rows(&mut self, rows: &[usize]) -> Result<Vec<Vec<f32>>, BackendError> {
        let row = self.shape.vocab_rows * 4;
        let (all, own) = self.ranked(self.work.drawn, rows.len() * row)?;
        for (i, &at) in rows.iter().enumerate() {
            self.device.copy(self.work.logits.part(at * row, row)?, own.part(i * row, row)?)?;
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

    /// Waits for everything, and reads what was asked of each row.
    pub(super) fn answers(&mut self, tokens: Vec<u32>) -> Result<Vec<TokenScore>, BackendError> {
        let (work, top, rows) = (self.work, self.plan.top, tokens.len());
        let logprobs = floats(&self.words(work.logprobs, rows)?);
        let options = &self.plan.options;
        if options.iter().all(PositionOptions::is_empty) {
            let scores = tokens.into_iter().zip(logprobs);
            return Ok(scores.map(|(token, logprob)| TokenScore { token, logprob, position: None }).collect());
        }
        let (ranks, entropies) = (integers(&self.words(work.ranks, rows)?), floats(&self.words(work.entropies, rows)?));
        let subsets = floats(&self.words(work.subsets, rows)?);
        let listed = work.listed;
        let top_logprobs = floats(&self.words(listed.logprobs, rows * top)?);
        let top_ids = integers(&self.words(listed.ids, rows * top)?);
        let position = |row: usize| {
            let options = &options[row];
            let listed = top_ids.iter().zip(&top_logprobs).skip(row * top).take(options.top.into());
            PositionDetails {
                rank: options.rank.then_some(ranks[row] as u32),
                entropy: options.entropy.then_some(entropies[row]),
                subset: options.subset.as_ref().map(|_| subsets[row]),
                // A vocabulary may have fewer tokens than were asked for.
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

    /// The first words of a region.
    fn words(&mut self, region: Region, count: usize) -> Result<Vec<u8>, BackendError> {
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
