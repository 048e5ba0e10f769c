//! Causal attention over paged blocks: online softmax (Milakov and Gimelshein, 2018), tiled as in FlashAttention.
//!
//! Each query row walks its sequence's blocks in order of position, one block a step, whatever the chunk it belongs to:
//! so its bits depend on its past alone. Partly visible blocks, at the end of its past and at the edge of a sliding window,
//! are read from the first token it sees to its own and no further.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::kv::LayerKv;
use super::math;
use super::matrix::{Write, product_rows};
use super::panels::{PANEL, Panels, Row};
use super::rope::Angles;
use crate::backend::{BLOCK_TOKENS, Chunk};

/// Query rows of one task.
const TILE: usize = 24;

/// The shape of one attention layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Panels of one head: `head_dim` rounded up to whole panels.
    pub(crate) head_panels: usize,
    /// How many tokens back a token sees, itself included.
    pub(crate) window: usize,
    /// Added to the mean square where heads are normed.
    pub(crate) eps: f64,
}

/// The weights of a layer that norms its queries and keys.
#[derive(Clone, Debug)]
pub(crate) struct HeadNorms {
    pub(crate) query: Vec<Row>,
    pub(crate) key: Vec<Row>,
}

/// What attention reads beside the cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) norms: Option<&'a HeadNorms>,
    pub(crate) angles: &'a Angles,
    pub(crate) qkv: &'a Panels,
    pub(crate) chunks: &'a [Chunk],
}

impl Shape {
    pub(crate) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// First panel of a query head in the fused q, k, v activations.
    pub(crate) fn query_panel(&self, head: usize) -> usize {
        head * self.head_panels
    }

    pub(crate) fn key_panel(&self, kv_head: usize) -> usize {
        (self.heads + kv_head) * self.head_panels
    }

    pub(crate) fn value_panel(&self, kv_head: usize) -> usize {
        (self.heads + self.kv_heads + kv_head) * self.head_panels
    }
}

/// Norms (if need be) and turns the new keys, and writes them and the values to the cache.
pub(crate) fn write_kv(inputs: &Inputs<'_>, kv: &mut LayerKv) {
    let Inputs { shape, norms, angles, qkv, chunks } = inputs;
    let mut key = vec![[0.0; PANEL]; shape.head_panels];
    let mut value = key.clone();
    for chunk in *chunks {
        for (position, row) in (chunk.start..).zip(chunk.rows.clone()) {
            let block = chunk.blocks[position / BLOCK_TOKENS];
            for kv_head in 0..shape.kv_heads {
                for panel in 0..shape.head_panels {
                    key[panel] = *qkv.row(shape.key_panel(kv_head) + panel, row);
                    value[panel] = *qkv.row(shape.value_panel(kv_head) + panel, row);
                }
                if let Some(norms) = norms {
                    math::head_norm(&mut key, shape.head_dim, shape.eps, &norms.key);
                }
                angles.rotate(row, &mut key);
                kv.write(block, position % BLOCK_TOKENS, kv_head, &key, &value);
            }
        }
    }
}

/// Attention of all rows; keys and values of the same rows are in the cache already.
pub(crate) fn attend(arch: Arch, inputs: &Inputs<'_>, kv: &LayerKv) -> Panels {
    let shape = inputs.shape;
    let tasks: Vec<(usize, &Chunk, usize)> = inputs
        .chunks
        .iter()
        .flat_map(|chunk| (0..chunk.rows.len()).step_by(TILE).map(move |offset| (chunk, offset)))
        .flat_map(|(chunk, offset)| (0..shape.kv_heads).map(move |kv_head| (kv_head, chunk, offset)))
        .collect();
    let tiles: Vec<Tile> = tasks
        .par_iter()
        .map(|&(kv_head, chunk, offset)| arch.dispatch(Task { inputs, chunk, offset, kv, kv_head }))
        .collect();
    let mut out = Panels::zeros(inputs.qkv.rows(), shape.heads * shape.head_panels);
    for (&(kv_head, chunk, offset), tile) in tasks.iter().zip(&tiles) {
        let first = shape.query_panel(kv_head * shape.group());
        for (panel, rows) in tile.out.chunks_exact(tile.rows).enumerate() {
            for (row, values) in rows.iter().enumerate() {
                *out.row_mut(first + panel, chunk.rows.start + offset + row) = *values;
            }
        }
    }
    out
}

/// One task's result: for each panel of the group's heads, `rows` rows.
struct Tile {
    rows: usize,
    out: Vec<Row>,
}

/// Up to [`TILE`] query rows of one chunk, for all query heads that share a key-value head.
struct Task<'a> {
    inputs: &'a Inputs<'a>,
    chunk: &'a Chunk,
    offset: usize,
    kv: &'a LayerKv,
    kv_head: usize,
}

impl WithSimd for Task<'_> {
    type Output = Tile;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Tile {
        let shape = self.inputs.shape;
        let rows = TILE.min(self.chunk.rows.len() - self.offset);
        let first = self.chunk.start + self.offset;
        let head_rows = shape.head_panels * rows;
        let queries = self.queries(rows);
        let mut heads: Vec<Online> = vec![Online::new(); shape.group()];
        let mut out = vec![[0.0; PANEL]; queries.len()];
        let first_block = (first + 1).saturating_sub(shape.window) / BLOCK_TOKENS;
        let last_block = (first + rows - 1) / BLOCK_TOKENS;
        for index in first_block..=last_block {
            let block = self.chunk.blocks[index];
            let keys = self.kv.keys(block, self.kv_head);
            let mut seen = [(0, 0); TILE];
            for (row, seen) in seen.iter_mut().enumerate() {
                *seen = visible(first + row, index * BLOCK_TOKENS, shape.window);
            }
            let seen = &seen[..rows];
            for (head, state) in heads.iter_mut().enumerate() {
                let query = &queries[head * head_rows..][..head_rows];
                let out = &mut out[head * head_rows..][..head_rows];
                let mut scores = [[0.0; PANEL]; TILE];
                product_rows(simd, |p| &query[p * rows..], keys, &mut scores[..rows], Write::Set);
                state.step(&mut scores[..rows], out, seen);
                let values = |panel| self.kv.values(block, self.kv_head, panel);
                accumulate(simd, &scores[..rows], out, seen, values);
            }
        }
        for (head, state) in heads.iter().enumerate() {
            state.finish(&mut out[head * head_rows..][..head_rows], rows);
        }
        Tile { rows, out }
    }
}

/// Which of the tokens `start..start + 32` a query sees: from, to; nothing where they are equal.
#[inline(always)]
fn visible(position: usize, start: usize, window: usize) -> (usize, usize) {
    let to = (position + 1).saturating_sub(start).min(BLOCK_TOKENS);
    let from = (position + 1).saturating_sub(window).saturating_sub(start).min(to);
    (from, to)
}

impl Task<'_> {
    /// The group's queries, normed (if need be), turned, and scaled by 1/sqrt(head dim): `[head][panel][row]`.
    fn queries(&self, rows: usize) -> Vec<Row> {
        let Inputs { shape, norms, angles, qkv, .. } = self.inputs;
        let panels = shape.head_panels;
        let scale = 1.0 / (shape.head_dim as f32).sqrt();
        let mut queries = vec![[0.0; PANEL]; shape.group() * panels * rows];
        let mut query = vec![[0.0; PANEL]; panels];
        for head in 0..shape.group() {
            let source = shape.query_panel(self.kv_head * shape.group() + head);
            for row in 0..rows {
                let batch_row = self.chunk.rows.start + self.offset + row;
                for (panel, query) in query.iter_mut().enumerate() {
                    *query = *qkv.row(source + panel, batch_row);
                }
                if let Some(norms) = norms {
                    math::head_norm(&mut query, shape.head_dim, shape.eps, &norms.query);
                }
                angles.rotate(batch_row, &mut query);
                for (panel, query) in query.iter().enumerate() {
                    queries[(head * panels + panel) * rows + row] = query.map(|x| x * scale);
                }
            }
        }
        queries
    }
}

/// The running maximum and sum of each row's softmax.
#[derive(Clone)]
struct Online {
    max: [f32; TILE],
    sum: [f32; TILE],
}

impl Online {
    fn new() -> Self {
        Self { max: [f32::NEG_INFINITY; TILE], sum: [0.0; TILE] }
    }

    /// Turns scores into weights relative to the new maximum, and rescales what was summed before.
    #[inline(always)]
    fn step(&mut self, scores: &mut [Row], out: &mut [Row], seen: &[(usize, usize)]) {
        let rows = scores.len();
        for (row, (scores, &(from, to))) in scores.iter_mut().zip(seen).enumerate() {
            if from == to {
                continue;
            }
            scores[..from].fill(f32::NEG_INFINITY);
            scores[to..].fill(f32::NEG_INFINITY);
            let block_max = math::max(scores);
            let max = if block_max > self.max[row] { block_max } else { self.max[row] };
            for score in scores.iter_mut() {
                *score = math::exp(*score - max);
            }
            scores[..from].fill(0.0);
            scores[to..].fill(0.0);
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
            self.sum[row] += math::sum(scores);
        }
    }

    /// Divides by the softmax's denominator.
    #[inline(always)]
    fn finish(&self, out: &mut [Row], rows: usize) {
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
fn accumulate<'a, S: Simd>(
    simd: S,
    weights: &[Row],
    out: &mut [Row],
    seen: &[(usize, usize)],
    values: impl Fn(usize) -> &'a [Row],
) {
    let rows = weights.len();
    let whole = |&(from, to): &(usize, usize)| to - from == BLOCK_TOKENS;
    let first = seen.iter().position(whole).unwrap_or(rows);
    let last = first + seen[first..].iter().take_while(|seen| whole(seen)).count();
    for (panel, out) in out.chunks_exact_mut(rows).enumerate() {
        let values = values(panel);
        product_rows(simd, |_| &weights[first..], values, &mut out[first..last], Write::Add);
        for row in (0..first).chain(last..rows) {
            let (from, to) = seen[row];
            if from < to {
                let shifted = [std::array::from_fn(|k| weights[row].get(from + k).copied().unwrap_or(0.0))];
                product_rows(simd, |_| &shifted, &values[from..to], &mut out[row..=row], Write::Add);
            }
        }
    }
}
