//! The head: from hidden states to log-probabilities, ranks, entropies, most probable tokens, and drawn tokens.

use std::ops::Range;

use surprisal_kernels::Address;
use surprisal_kernels::logprobs::{LogprobOut, LogprobTiles, PART_BYTES, tiles, words};

use super::accelerator::{Accelerator, Product, Region};
use super::forward::Pass;
use super::weights::{Linear, int_bytes, ints};
use super::workspace::SCORE_ROWS;
use crate::backend::{BackendError, TokenScore};
use crate::scorer::{Extras, Position};

impl<A: Accelerator> Pass<'_, A> {
    /// Scores all rows, tile by tile, and returns their tokens. Only to draw a token does it wait for the device.
    pub(super) fn score(&mut self) -> Result<Vec<u32>, BackendError> {
        let (work, shape) = (self.work, self.shape);
        let states = self.room.blocks + self.room.rows;
        let all = self.plan.scored.len();
        let mut tokens: Vec<u32> =
            self.plan.ints[self.plan.targets.clone()].iter().map(|&token| token as u32).collect();
        for first in (0..all).step_by(SCORE_ROWS) {
            let rows = (all - first).min(SCORE_ROWS);
            let at = |range: &std::ops::Range<usize>| range.start + first..range.start + first + rows;
            let ids = self.ints(&at(&self.plan.scored))?;
            self.gather(work.scored, self.cache.hidden, states, ids, rows)?;
            let Linear { weights, bias, n, k } = self.weights.head;
            let product = Product { out: work.logits, x: work.scored, weights, bias, rows, n, k, wide: true };
            self.device.multiply(&product)?;
            self.draw(first, &mut tokens[first..first + rows])?;

            let (listed, top) = (work.listed, self.plan.top);
            let tiled = rows * tiles(shape.vocab as u32) as usize;
            let members = self.members(first..first + rows)?;
            let listing = |region: Region, at: usize, count: usize| match top {
                0 => Ok(Address::NULL),
                _ => region.part(at * top * 4, count * top * 4)?.holding(count * top * 4),
            };
            let args = LogprobTiles {
                parts: work.logprob_parts.holding(tiled * PART_BYTES)?,
                top_logits: listing(listed.tile_logits, 0, tiled)?,
                top_ids: listing(listed.tile_ids, 0, tiled)?,
                logits: work.logits.holding(rows * n * 4)?,
                targets: self.ints(&at(&self.plan.targets))?,
                members,
                stride: n as u64,
                vocabulary: shape.vocab as u32,
                top: top as u32,
            };
            let values = |region: Region| region.part(first * 4, rows * 4)?.holding(rows * 4);
            let out = LogprobOut {
                logprobs: values(work.logprobs)?,
                ranks: values(work.ranks)?,
                entropies: values(work.entropies)?,
                subsets: values(work.subsets)?,
                top_logprobs: listing(listed.logprobs, first, rows)?,
                top_ids: listing(listed.ids, first, rows)?,
            };
            self.launch(args.launch(rows as u32))?;
            self.launch(args.combine(out, rows as u32))?;
        }
        Ok(tokens)
    }

    /// The bitmaps of the subsets that some rows are to be told of, on the device; null where there are none.
    fn members(&mut self, rows: Range<usize>) -> Result<Address, BackendError> {
        let extras = &self.plan.extras[rows];
        if extras.iter().all(|extras| extras.subset.is_none()) {
            return Ok(Address::NULL);
        }
        let words = words(self.shape.vocab as u32) as usize;
        let row = |extras: &Extras| -> Vec<i32> {
            let word = |index| extras.subset.as_ref().map_or(0, |subset| subset.word(index).cast_signed());
            (0..words).map(word).collect()
        };
        let all: Vec<i32> = extras.iter().flat_map(row).collect();
        let region = self.work.members.part(0, all.len() * 4)?;
        self.device.write(region, &int_bytes(&all))?;
        region.holding(all.len() * 4)
    }

    /// Draws the tokens of a tile that are to be drawn, as every backend does, and makes them targets like those given.
    fn draw(&mut self, first: usize, tokens: &mut [u32]) -> Result<(), BackendError> {
        let row = self.weights.head.n * 4;
        let tile = first..first + tokens.len();
        let here = self.plan.drawn.iter().filter(|(at, _)| tile.contains(at));
        for &(at, draw) in here {
            let mut bytes = vec![0; self.shape.vocab * 4];
            self.device.read(self.work.logits.part((at - first) * row, bytes.len())?, &mut bytes)?;
            let token = draw.pick(&floats(&bytes));
            tokens[at - first] = token;
            let target = ints(self.work.ints, self.plan.targets.start + at, 1)?;
            self.device.write(target, &int_bytes(&[token as i32]))?;
        }
        Ok(())
    }

    /// Waits for everything, and reads what was asked of each row.
    pub(super) fn answers(&mut self, tokens: Vec<u32>) -> Result<Vec<TokenScore>, BackendError> {
        let (work, top, rows) = (self.work, self.plan.top, tokens.len());
        let logprobs = floats(&self.words(work.logprobs, rows)?);
        let extras = &self.plan.extras;
        if extras.iter().all(Extras::is_empty) {
            let scores = tokens.into_iter().zip(logprobs);
            return Ok(scores.map(|(token, logprob)| TokenScore { token, logprob, position: None }).collect());
        }
        let (ranks, entropies) = (integers(&self.words(work.ranks, rows)?), floats(&self.words(work.entropies, rows)?));
        let subsets = floats(&self.words(work.subsets, rows)?);
        let listed = work.listed;
        let top_logprobs = floats(&self.words(listed.logprobs, rows * top)?);
        let top_ids = integers(&self.words(listed.ids, rows * top)?);
        let position = |row: usize| {
            let extras = &extras[row];
            let listed = top_ids.iter().zip(&top_logprobs).skip(row * top).take(extras.top.into());
            Position {
                rank: extras.rank.then_some(ranks[row] as u32),
                entropy: extras.entropy.then_some(entropies[row]),
                subset: extras.subset.as_ref().map(|_| subsets[row]),
                // A vocabulary may have fewer tokens than were asked for.
                top: listed.filter(|(id, _)| **id >= 0).map(|(&id, &logprob)| (id as u32, logprob)).collect(),
            }
        };
        let scores = tokens.into_iter().zip(logprobs).enumerate();
        Ok(scores
            .map(|(row, (token, logprob))| {
                let position = (!extras[row].is_empty()).then(|| Box::new(position(row)));
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
