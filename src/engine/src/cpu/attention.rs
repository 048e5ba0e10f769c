//! Causal attention over paged blocks: online softmax (Milakov and Gimelshein, 2018), tiled as in FlashAttention.
//!
//! Each query row walks its sequence's blocks in order of position, one block per step, regardless of the chunk that
//! the row belongs to. So the row's bits depend only on the tokens up to its own. Blocks that are only partly visible,
//! at the row's own position and at the edge of a sliding window, are read only from the first visible token to the
//! row's own token.
//!
//! A task computes one tile of rows. A tile combines the rows of several short chunks, and reads a block that they
//! share only once.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::compute::WriteMode;
use super::gemm::gemm_rows;
use super::kv::{BlockMut, LayerKv};
use super::math;
use super::panel_matrix::{PANEL_WIDTH, PanelMatrix, PanelRow};
use super::pool;
use super::rope::Angles;
use super::softmax::{OnlineSoftmax, TILE_ROWS, TileScores, accumulate};
use crate::backend::{BLOCK_TOKENS, BlockId, Chunk};

/// The shape of one attention layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Panels per head: `head_dim` rounded up to whole panels.
    pub(crate) head_panels: usize,
    /// Maximum number of tokens that a token sees, including itself.
    pub(crate) window: usize,
    /// Epsilon of the head norms.
    pub(crate) eps: f64,
}

/// The weights of the query norm and the key norm.
#[derive(Clone, Debug)]
pub(crate) struct HeadNorms {
    pub(crate) query: Vec<PanelRow>,
    pub(crate) key: Vec<PanelRow>,
}

/// The inputs of attention, apart from the KV cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionInputs<'a> {
    pub(crate) shape: &'a AttentionShape,
    pub(crate) norms: Option<&'a HeadNorms>,
    pub(crate) angles: &'a Angles,
    pub(crate) qkv: &'a PanelMatrix,
    pub(crate) chunks: &'a [Chunk],
}

impl AttentionShape {
    /// Returns the number of query heads that share a key-value head.
    pub(crate) fn queries_per_kv_head(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Returns the first panel of a query head in the fused q, k, v activations.
    pub(crate) fn query_panel(&self, head: usize) -> usize {
        head * self.head_panels
    }

    /// Returns the first panel of a key head.
    pub(crate) fn key_panel(&self, kv_head: usize) -> usize {
        (self.heads + kv_head) * self.head_panels
    }

    /// Returns the first panel of a value head.
    pub(crate) fn value_panel(&self, kv_head: usize) -> usize {
        (self.heads + self.kv_heads + kv_head) * self.head_panels
    }
}

/// Normalizes (if the model has head norms) and rotates the new keys, then writes keys and values to the cache.
pub(crate) fn write_kv(arch: Arch, inputs: &AttentionInputs<'_>, kv: &mut LayerKv) {
    let mut writes: Vec<(BlockId, usize, Range<usize>)> = inputs.chunks.iter().flat_map(block_rows).collect();
    writes.sort_unstable_by_key(|&(block, ..)| block);
    let ids: Vec<BlockId> = writes.iter().map(|&(block, ..)| block).collect();
    let blocks = kv.blocks_mut(&ids);
    pool::for_each(blocks.into_iter().zip(&writes), |(block, (_, slot, rows))| {
        arch.dispatch(WriteBlock { inputs, block, slot: *slot, rows: rows.clone() });
    });
}

/// Returns the blocks to which a chunk's rows are written: each block, its first slot, and the rows.
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

/// A task that writes rows of a batch to one block, from `slot` on.
struct WriteBlock<'a> {
    inputs: &'a AttentionInputs<'a>,
    block: BlockMut<'a>,
    slot: usize,
    rows: Range<usize>,
}

impl WithSimd for WriteBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        let AttentionInputs { shape, norms, angles, qkv, .. } = self.inputs;
        let mut key = vec![[0.0; PANEL_WIDTH]; shape.head_panels];
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
                self.block.write_token(slot, kv_head, &key, &value);
            }
        }
    }
}

/// Computes attention for all rows. Their own keys and values must already be in the cache.
pub(crate) fn attend(arch: Arch, inputs: &AttentionInputs<'_>, kv: &LayerKv, out: &mut PanelMatrix) {
    let shape = inputs.shape;
    let tiles = tiles(inputs.chunks);
    // Work head by head, so that a prefix shared by many chunks stays in the core's cache.
    let outputs: Vec<Vec<PanelRow>> = pool::map(0..shape.kv_heads * tiles.len(), |task| {
        let (kv_head, spans) = (task / tiles.len(), &tiles[task % tiles.len()]);
        arch.dispatch(TileTask { inputs, spans, kv, kv_head })
    });
    out.reshape(inputs.qkv.rows(), shape.heads * shape.head_panels);
    pool::for_each(out.panels_mut().enumerate(), |(panel, out)| {
        let group_panels = shape.queries_per_kv_head() * shape.head_panels;
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
struct TileSpan<'a> {
    chunk: &'a Chunk,
    /// Index of the first row in the chunk.
    offset: usize,
    /// The span's rows in the tile.
    rows: Range<usize>,
}

/// Divides the rows of a batch into tiles of at most [`TILE_ROWS`] rows.
fn tiles(chunks: &[Chunk]) -> Vec<Vec<TileSpan<'_>>> {
    let mut tiles: Vec<Vec<TileSpan<'_>>> = Vec::new();
    let mut used = TILE_ROWS;
    for chunk in chunks {
        let mut offset = 0;
        while offset < chunk.rows.len() {
            if used == TILE_ROWS {
                tiles.push(Vec::new());
                used = 0;
            }
            let rows = used..TILE_ROWS.min(used + chunk.rows.len() - offset);
            let span = TileSpan { chunk, offset, rows };
            (used, offset) = (span.rows.end, offset + span.rows.len());
            tiles.last_mut().into_iter().for_each(|tile| tile.push(span.clone()));
        }
    }
    tiles
}

fn tile_rows(spans: &[TileSpan<'_>]) -> usize {
    spans.last().map_or(0, |span| span.rows.end)
}

impl TileSpan<'_> {
    /// Returns the span's rows in the batch.
    fn batch_rows(&self) -> Range<usize> {
        let first = self.chunk.rows.start + self.offset;
        first..first + self.rows.len()
    }

    /// Returns the positions of the first and the last row in the sequence.
    fn positions(&self) -> (usize, usize) {
        let first = self.chunk.start + self.offset;
        (first, first + self.rows.len() - 1)
    }

    /// Returns the sequence's `index`-th block; `None` if no row of the span sees any of the block's tokens.
    fn block(&self, index: usize, window: usize) -> Option<BlockId> {
        let (first, last) = self.positions();
        let visible = (first + 1).saturating_sub(window) / BLOCK_TOKENS..=last / BLOCK_TOKENS;
        visible.contains(&index).then(|| self.chunk.blocks[index])
    }
}

/// A task that computes one tile's attention for all query heads that share a key-value head. It returns the tile's
/// rows for each panel of those heads.
struct TileTask<'a> {
    inputs: &'a AttentionInputs<'a>,
    spans: &'a [TileSpan<'a>],
    kv: &'a LayerKv,
    kv_head: usize,
}

/// A task's queries, and its results so far: both `[head][panel][row]`.
struct TileState {
    rows: usize,
    head_rows: usize,
    queries: Vec<PanelRow>,
    heads: Vec<OnlineSoftmax>,
    out: Vec<PanelRow>,
    /// Scores of the current head and block.
    scores: TileScores,
}

impl WithSimd for TileTask<'_> {
    type Output = Vec<PanelRow>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<PanelRow> {
        let shape = self.inputs.shape;
        let rows = tile_rows(self.spans);
        let queries = self.queries(rows);
        let out = vec![[0.0; PANEL_WIDTH]; queries.len()];
        let heads = vec![OnlineSoftmax::new(); shape.queries_per_kv_head()];
        let scores = [[0.0; PANEL_WIDTH]; TILE_ROWS];
        let mut state = TileState { rows, head_rows: shape.head_panels * rows, queries, heads, out, scores };
        let last = self.spans.iter().map(|span| span.positions().1 / BLOCK_TOKENS).max().unwrap_or(0);
        for index in 0..=last {
            let block = |span: &TileSpan<'_>| span.block(index, shape.window);
            for spans in self.spans.chunk_by(|one, next| block(one) == block(next)) {
                if let Some(block) = block(&spans[0]) {
                    self.attend_block(simd, &mut state, spans, index, block);
                }
            }
        }
        for (head, softmax) in state.heads.iter().enumerate() {
            softmax.finish(&mut state.out[head * state.head_rows..][..state.head_rows], rows);
        }
        state.out
    }
}

impl TileTask<'_> {
    /// Attends to one block, which is the `index`-th block of every span.
    #[inline(always)]
    fn attend_block<S: Simd>(
        &self,
        simd: S,
        state: &mut TileState,
        spans: &[TileSpan<'_>],
        index: usize,
        block: BlockId,
    ) {
        let keys = self.kv.keys(block, self.kv_head);
        let values = |panel| self.kv.values(block, self.kv_head, panel);
        let range = spans[0].rows.start..tile_rows(spans);
        let mut visible = [(0, 0); TILE_ROWS];
        for span in spans {
            for (position, row) in (span.positions().0..).zip(span.rows.clone()) {
                visible[row] = visible_range(position, index * BLOCK_TOKENS, self.inputs.shape.window);
            }
        }
        let TileState { rows, head_rows, queries, heads, out, scores } = state;
        let rows = *rows;
        let per_head = queries.chunks_exact(*head_rows).zip(out.chunks_exact_mut(*head_rows));
        for (softmax, (query, out)) in heads.iter_mut().zip(per_head) {
            let query = |p| &query[p * rows..][range.clone()];
            gemm_rows(simd, query, keys, &mut scores[range.clone()], WriteMode::Set);
            softmax.update(simd, scores, out, rows, &visible, range.clone());
            accumulate(simd, scores, out, rows, &visible, range.clone(), values);
        }
    }
}

/// Returns the tokens that the query at `position` sees in the block that begins at `start`: a range `(from, to)`
/// relative to `start`, empty if the query sees none of the block's tokens.
#[inline(always)]
fn visible_range(position: usize, start: usize, window: usize) -> (usize, usize) {
    let to = (position + 1).saturating_sub(start).min(BLOCK_TOKENS);
    let from = (position + 1).saturating_sub(window).saturating_sub(start).min(to);
    (from, to)
}

impl TileTask<'_> {
    /// Returns the queries, normalized (if the model has head norms), rotated, and scaled by 1/sqrt(head dim):
    /// `[head][panel][row]`.
    #[inline(always)]
    fn queries(&self, rows: usize) -> Vec<PanelRow> {
        let AttentionInputs { shape, norms, angles, qkv, .. } = self.inputs;
        let panels = shape.head_panels;
        let scale = 1.0 / (shape.head_dim as f32).sqrt();
        let mut queries = vec![[0.0; PANEL_WIDTH]; shape.queries_per_kv_head() * panels * rows];
        let mut query = vec![[0.0; PANEL_WIDTH]; panels];
        for head in 0..shape.queries_per_kv_head() {
            let source = shape.query_panel(self.kv_head * shape.queries_per_kv_head() + head);
            let batch_rows = self.spans.iter().flat_map(TileSpan::batch_rows);
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
