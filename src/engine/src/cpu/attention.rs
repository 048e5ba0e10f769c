//! Causal attention over paged blocks: online softmax (Milakov and Gimelshein, 2018), tiled as in FlashAttention.
//!
//! Each query row walks its sequence's blocks in order of position, one block a step, whatever the chunk it belongs to:
//! so its bits depend on its past alone. Partly visible blocks, at the end of its past and at the edge of a sliding window,
//! are read from the first token it sees to its own and no further.
//!
//! A task's tile holds rows of several chunks if they are short, and reads a block that they share once for all of them.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::kv::{BlockMut, LayerKv};
use super::math;
use super::matrix::{Write, product_rows};
use super::panels::{PANEL, Panels, Row};
use super::rope::Angles;
use super::softmax::{self, Online, Scores, TILE};
use crate::backend::{BLOCK_TOKENS, BlockId, Chunk};

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
pub(crate) fn write_kv(arch: Arch, inputs: &Inputs<'_>, kv: &mut LayerKv) {
    let mut writes: Vec<(BlockId, usize, Range<usize>)> = inputs.chunks.iter().flat_map(block_rows).collect();
    writes.sort_unstable_by_key(|&(block, ..)| block);
    let ids: Vec<BlockId> = writes.iter().map(|&(block, ..)| block).collect();
    let blocks = kv.blocks_mut(&ids);
    blocks.into_par_iter().zip(&writes).for_each(|(block, (_, slot, rows))| {
        arch.dispatch(WriteBlock { inputs, block, slot: *slot, rows: rows.clone() });
    });
}

/// Which of a chunk's rows go to which block, from which slot on.
fn block_rows(chunk: &Chunk) -> impl Iterator<Item = (BlockId, usize, Range<usize>)> + '_ {
    let mut row = chunk.rows.start;
    std::iter::from_fn(move || {
        let position = chunk.start + row - chunk.rows.start;
        let slot = position % BLOCK_TOKENS;
        let rows = row..chunk.rows.end.min(row + BLOCK_TOKENS - slot);
        row = rows.end;
        (!rows.is_empty()).then(|| (chunk.blocks[position / BLOCK_TOKENS], slot, rows))
    })
}

/// The rows of a batch that go to one block, from `slot` on.
struct WriteBlock<'a> {
    inputs: &'a Inputs<'a>,
    block: BlockMut<'a>,
    slot: usize,
    rows: Range<usize>,
}

impl WithSimd for WriteBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        let Inputs { shape, norms, angles, qkv, .. } = self.inputs;
        let mut key = vec![[0.0; PANEL]; shape.head_panels];
        let mut value = key.clone();
        for (slot, row) in (self.slot..).zip(self.rows) {
            for kv_head in 0..shape.kv_heads {
                for panel in 0..shape.head_panels {
                    key[panel] = *qkv.row(shape.key_panel(kv_head) + panel, row);
                    value[panel] = *qkv.row(shape.value_panel(kv_head) + panel, row);
                }
                if let Some(norms) = norms {
                    math::head_norm(&mut key, shape.head_dim, shape.eps, &norms.key);
                }
                angles.rotate(row, &mut key);
                self.block.write(slot, kv_head, &key, &value);
            }
        }
    }
}

/// Attention of all rows, to `out`; keys and values of the same rows are in the cache already.
pub(crate) fn attend(arch: Arch, inputs: &Inputs<'_>, kv: &LayerKv, out: &mut Panels) {
    let shape = inputs.shape;
    let tiles = tiles(inputs.chunks);
    // Head by head, so that a prefix that many chunks share stays in the core's cache.
    let outputs: Vec<Vec<Row>> = (0..shape.kv_heads * tiles.len())
        .into_par_iter()
        .map(|task| {
            let (kv_head, spans) = (task / tiles.len(), &tiles[task % tiles.len()]);
            arch.dispatch(Task { inputs, spans, kv, kv_head })
        })
        .collect();
    out.reshape(inputs.qkv.rows(), shape.heads * shape.head_panels);
    out.panels_mut().enumerate().for_each(|(panel, out)| {
        let group_panels = shape.group() * shape.head_panels;
        let outputs = &outputs[panel / group_panels * tiles.len()..][..tiles.len()];
        for (spans, values) in tiles.iter().zip(outputs) {
            let rows = tile_rows(spans);
            let values = &values[panel % group_panels * rows..][..rows];
            for span in spans {
                out[span.batch_rows()].copy_from_slice(&values[span.rows.clone()]);
            }
        }
    });
}

/// Consecutive rows of one chunk in a tile.
#[derive(Clone, Debug)]
struct Span<'a> {
    chunk: &'a Chunk,
    /// The first of them in the chunk.
    offset: usize,
    /// Where they are in the tile.
    rows: Range<usize>,
}

/// All rows of a batch, in tiles of at most [`TILE`].
fn tiles(chunks: &[Chunk]) -> Vec<Vec<Span<'_>>> {
    let mut tiles: Vec<Vec<Span<'_>>> = Vec::new();
    let mut used = TILE;
    for chunk in chunks {
        let mut offset = 0;
        while offset < chunk.rows.len() {
            if used == TILE {
                tiles.push(Vec::new());
                used = 0;
            }
            let rows = used..TILE.min(used + chunk.rows.len() - offset);
            let span = Span { chunk, offset, rows };
            (used, offset) = (span.rows.end, offset + span.rows.len());
            tiles.last_mut().into_iter().for_each(|tile| tile.push(span.clone()));
        }
    }
    tiles
}

fn tile_rows(spans: &[Span<'_>]) -> usize {
    spans.last().map_or(0, |span| span.rows.end)
}

impl Span<'_> {
    fn batch_rows(&self) -> Range<usize> {
        let first = self.chunk.rows.start + self.offset;
        first..first + self.rows.len()
    }

    /// The sequence's positions of the first and the last row.
    fn positions(&self) -> (usize, usize) {
        let first = self.chunk.start + self.offset;
        (first, first + self.rows.len() - 1)
    }

    /// The block of the sequence's `index`-th [`BLOCK_TOKENS`] tokens, if any row sees some of them.
    fn block(&self, index: usize, window: usize) -> Option<BlockId> {
        let (first, last) = self.positions();
        let seen = (first + 1).saturating_sub(window) / BLOCK_TOKENS..=last / BLOCK_TOKENS;
        seen.contains(&index).then(|| self.chunk.blocks[index])
    }
}

/// One tile, for all query heads that share a key-value head. Its result: for each panel of those heads, the tile's rows.
struct Task<'a> {
    inputs: &'a Inputs<'a>,
    spans: &'a [Span<'a>],
    kv: &'a LayerKv,
    kv_head: usize,
}

/// What a task has so far, all of it `[head][panel][row]`.
struct State {
    rows: usize,
    head_rows: usize,
    queries: Vec<Row>,
    heads: Vec<Online>,
    out: Vec<Row>,
    /// Of the head and the block in hand.
    scores: Scores,
}

impl WithSimd for Task<'_> {
    type Output = Vec<Row>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<Row> {
        let shape = self.inputs.shape;
        let rows = tile_rows(self.spans);
        let queries = self.queries(rows);
        let out = vec![[0.0; PANEL]; queries.len()];
        let heads = vec![Online::new(); shape.group()];
        let scores = [[0.0; PANEL]; TILE];
        let mut state = State { rows, head_rows: shape.head_panels * rows, queries, heads, out, scores };
        let last = self.spans.iter().map(|span| span.positions().1 / BLOCK_TOKENS).max().unwrap_or(0);
        for index in 0..=last {
            let block = |span: &Span<'_>| span.block(index, shape.window);
            for spans in self.spans.chunk_by(|one, next| block(one) == block(next)) {
                if let Some(block) = block(&spans[0]) {
                    self.step(simd, &mut state, spans, index, block);
                }
            }
        }
        for (head, online) in state.heads.iter().enumerate() {
            online.finish(&mut state.out[head * state.head_rows..][..state.head_rows], rows);
        }
        state.out
    }
}

impl Task<'_> {
    /// Takes in one block, which all of `spans` have as their `index`-th.
    #[inline(always)]
    fn step<S: Simd>(&self, simd: S, state: &mut State, spans: &[Span<'_>], index: usize, block: BlockId) {
        let keys = self.kv.keys(block, self.kv_head);
        let values = |panel| self.kv.values(block, self.kv_head, panel);
        let range = spans[0].rows.start..tile_rows(spans);
        let mut seen = [(0, 0); TILE];
        for span in spans {
            for (position, row) in (span.positions().0..).zip(span.rows.clone()) {
                seen[row] = visible(position, index * BLOCK_TOKENS, self.inputs.shape.window);
            }
        }
        let State { rows, head_rows, queries, heads, out, scores } = state;
        let rows = *rows;
        let of_heads = queries.chunks_exact(*head_rows).zip(out.chunks_exact_mut(*head_rows));
        for (online, (query, out)) in heads.iter_mut().zip(of_heads) {
            let query = |p| &query[p * rows..][range.clone()];
            product_rows(simd, query, keys, &mut scores[range.clone()], Write::Set);
            online.step(simd, scores, out, rows, &seen, range.clone());
            softmax::accumulate(simd, scores, out, rows, &seen, range.clone(), values);
        }
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
    #[inline(always)]
    fn queries(&self, rows: usize) -> Vec<Row> {
        let Inputs { shape, norms, angles, qkv, .. } = self.inputs;
        let panels = shape.head_panels;
        let scale = 1.0 / (shape.head_dim as f32).sqrt();
        let mut queries = vec![[0.0; PANEL]; shape.group() * panels * rows];
        let mut query = vec![[0.0; PANEL]; panels];
        for head in 0..shape.group() {
            let source = shape.query_panel(self.kv_head * shape.group() + head);
            let batch_rows = self.spans.iter().flat_map(Span::batch_rows);
            for (row, batch_row) in batch_rows.enumerate() {
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
