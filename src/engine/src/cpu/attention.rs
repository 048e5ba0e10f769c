//! Causal attention over paged blocks: online softmax (Milakov and Gimelshein, 2018), tiled as in FlashAttention.
//!
//! Each query row walks its sequence's blocks in order of position, one block a step, whatever the chunk it belongs to:
//! so its bits depend on its past alone. The last, partly visible block is read up to the row's own position and no further.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::kv::LayerKv;
use super::math;
use super::matrix::{PANEL, Panels, Row, Write, product_rows};
use super::rope::Rope;
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

/// Turns the new keys by their positions and writes them and the values to the cache.
pub(crate) fn write_kv(shape: &Shape, rope: &Rope, qkv: &Panels, chunks: &[Chunk], kv: &mut LayerKv) {
    let mut key = vec![[0.0; PANEL]; shape.head_panels];
    let mut value = key.clone();
    for chunk in chunks {
        for (position, row) in (chunk.start..).zip(chunk.rows.clone()) {
            let block = chunk.blocks[position / BLOCK_TOKENS];
            for kv_head in 0..shape.kv_heads {
                for panel in 0..shape.head_panels {
                    key[panel] = *qkv.row(shape.key_panel(kv_head) + panel, row);
                    value[panel] = *qkv.row(shape.value_panel(kv_head) + panel, row);
                }
                rope.rotate(position, &mut key);
                kv.write(block, position % BLOCK_TOKENS, kv_head, &key, &value);
            }
        }
    }
}

/// Attention of all rows; keys and values of the same rows are in the cache already.
pub(crate) fn attend(arch: Arch, shape: &Shape, rope: &Rope, qkv: &Panels, chunks: &[Chunk], kv: &LayerKv) -> Panels {
    let tasks: Vec<(usize, &Chunk, usize)> = chunks
        .iter()
        .flat_map(|chunk| (0..chunk.rows.len()).step_by(TILE).map(move |offset| (chunk, offset)))
        .flat_map(|(chunk, offset)| (0..shape.kv_heads).map(move |kv_head| (kv_head, chunk, offset)))
        .collect();
    let tiles: Vec<Tile> = tasks
        .par_iter()
        .map(|&(kv_head, chunk, offset)| arch.dispatch(Task { shape, rope, qkv, chunk, offset, kv, kv_head }))
        .collect();
    let mut out = Panels::zeros(qkv.rows(), shape.heads * shape.head_panels);
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
    shape: &'a Shape,
    rope: &'a Rope,
    qkv: &'a Panels,
    chunk: &'a Chunk,
    offset: usize,
    kv: &'a LayerKv,
    kv_head: usize,
}

impl WithSimd for Task<'_> {
    type Output = Tile;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Tile {
        let rows = TILE.min(self.chunk.rows.len() - self.offset);
        let first = self.chunk.start + self.offset;
        let head_rows = self.shape.head_panels * rows;
        let queries = self.queries(rows, first);
        let mut heads: Vec<Online> = vec![Online::new(); self.shape.group()];
        let mut out = vec![[0.0; PANEL]; queries.len()];
        let last_block = (first + rows - 1) / BLOCK_TOKENS;
        for (index, &block) in self.chunk.blocks[..=last_block].iter().enumerate() {
            let keys = self.kv.keys(block, self.kv_head);
            let visible = |row: usize| (first + row + 1).saturating_sub(index * BLOCK_TOKENS).min(BLOCK_TOKENS);
            for (head, state) in heads.iter_mut().enumerate() {
                let query = &queries[head * head_rows..][..head_rows];
                let out = &mut out[head * head_rows..][..head_rows];
                let mut scores = [[0.0; PANEL]; TILE];
                product_rows(simd, |p| &query[p * rows..], keys, &mut scores[..rows], Write::Set);
                state.step(&mut scores[..rows], out, visible);
                let values = |panel| self.kv.values(block, self.kv_head, panel);
                accumulate(simd, &scores[..rows], out, visible, values);
            }
        }
        for (head, state) in heads.iter().enumerate() {
            state.finish(&mut out[head * head_rows..][..head_rows], rows);
        }
        Tile { rows, out }
    }
}

impl Task<'_> {
    /// The group's queries, turned by their positions and scaled by 1/sqrt(head dim): `[head][panel][row]`.
    fn queries(&self, rows: usize, first: usize) -> Vec<Row> {
        let panels = self.shape.head_panels;
        let scale = 1.0 / (self.shape.head_dim as f32).sqrt();
        let mut queries = vec![[0.0; PANEL]; self.shape.group() * panels * rows];
        let mut query = vec![[0.0; PANEL]; panels];
        for head in 0..self.shape.group() {
            let source = self.shape.query_panel(self.kv_head * self.shape.group() + head);
            for row in 0..rows {
                for (panel, query) in query.iter_mut().enumerate() {
                    *query = self.qkv.row(source + panel, self.chunk.rows.start + self.offset + row).map(|x| x * scale);
                }
                self.rope.rotate(first + row, &mut query);
                for (panel, query) in query.iter().enumerate() {
                    queries[(head * panels + panel) * rows + row] = *query;
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
    fn step(&mut self, scores: &mut [Row], out: &mut [Row], visible: impl Fn(usize) -> usize) {
        let rows = scores.len();
        for (row, scores) in scores.iter_mut().enumerate() {
            let visible = visible(row);
            if visible == 0 {
                continue;
            }
            scores[visible..].fill(f32::NEG_INFINITY);
            let block_max = math::max(scores);
            let max = if block_max > self.max[row] { block_max } else { self.max[row] };
            for score in scores.iter_mut() {
                *score = math::exp(*score - max);
            }
            scores[visible..].fill(0.0);
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
    visible: impl Fn(usize) -> usize,
    values: impl Fn(usize) -> &'a [Row],
) {
    let rows = weights.len();
    let partial = (0..rows).take_while(|&row| visible(row) < BLOCK_TOKENS).count();
    for (panel, out) in out.chunks_exact_mut(rows).enumerate() {
        let values = values(panel);
        for row in (0..partial).filter(|&row| visible(row) > 0) {
            let values = &values[..visible(row)];
            product_rows(simd, |_| &weights[row..], values, &mut out[row..=row], Write::Add);
        }
        product_rows(simd, |_| &weights[partial..], values, &mut out[partial..], Write::Add);
    }
}
