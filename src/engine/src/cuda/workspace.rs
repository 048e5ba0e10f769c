//! Memory beside the weights: the workspace of a forward pass, and the KV cache. Their sizes are known before any is allocated.

use surprisal_kernels::{Address, attention, logprobs};

use super::batch_plan::Capacity;
use super::gemm::ROW_TILE;
use super::memory::{Arena, Region};
use super::model_shape::ModelShape;
use crate::backend::{BLOCK_TOKENS, BackendError};

/// Scored rows whose logits exist at a time.
pub(super) const SCORE_ROWS: usize = 512;

/// Rows whose logits ranks gather at a time, where tokens are sampled.
pub(super) const SAMPLED_ROWS: usize = 8;

/// The workspace of a forward pass. `[rows]` are a batch's tokens, rounded up to whole tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workspace {
    /// The plan's integers.
    pub(super) ints: Region,
    /// `[rows][hidden]` bf16, the residual stream.
    pub(super) residual: Region,
    /// `[rows][hidden]` bf16, what a layer adds to the residual stream; divided into a slice per rank, and rounded up.
    pub(super) delta: Region,
    /// As `delta`: all ranks' addends of this rank's slice.
    pub(super) addends: Region,
    /// `[rows][heads + 2 kv_heads][head]` bf16.
    pub(super) qkv: Region,
    /// `[rows][heads][head]` bf16.
    pub(super) queries: Region,
    /// As `queries`.
    pub(super) attended: Region,
    /// `[rows][2][mlp]` bf16.
    pub(super) gate_up: Region,
    /// `[rows][mlp]` bf16.
    pub(super) inner: Region,
    /// `[rows][columns]` e4m3, the input of a product in FP8; empty in a bf16 model.
    pub(super) quantized: Region,
    /// `[rows]` f32, the scales of `quantized`.
    pub(super) row_scales: Region,
    /// Partial results of decode's splits.
    pub(super) decode_parts: Region,
    /// `[SCORE_ROWS][hidden]` bf16.
    pub(super) scored: Region,
    /// `[SCORE_ROWS][vocab_rows]` f32.
    pub(super) logits: Region,
    /// `[ranks][SAMPLED_ROWS][vocab_rows]` f32.
    pub(super) sampled_logits: Region,
    /// `[ranks][SCORE_ROWS]` f32.
    pub(super) target_logits: Region,
    /// `[ranks][SCORE_ROWS][tiles]`, the statistics of the vocabulary's tiles.
    pub(super) logprob_parts: Region,
    /// `[scores]` f32.
    pub(super) logprobs: Region,
    /// `[scores]` i32 and f32.
    pub(super) token_ranks: Region,
    pub(super) entropies: Region,
    /// `[SCORE_ROWS][words]`, a bit per token, and `[scores]` f32.
    pub(super) subset_masks: Region,
    pub(super) subsets: Region,
    pub(super) top: TopTokens,
}

/// The most probable tokens of scored rows, up to [`LARGEST_TOP`](logprobs::LARGEST_TOP) of each.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopTokens {
    /// `[ranks][SCORE_ROWS][tiles][top]` f32 and i32.
    pub(super) tile_logits: Region,
    pub(super) tile_ids: Region,
    /// `[scores][top]` f32 and i32.
    pub(super) logprobs: Region,
    pub(super) ids: Region,
}

impl TopTokens {
    fn lay_out(arena: &mut Arena, tiles: usize, scores: usize) -> Self {
        let mut list = |rows: usize| arena.take(rows * logprobs::LARGEST_TOP as usize * 4);
        let (tile_logits, tile_ids) = (list(SCORE_ROWS * tiles), list(SCORE_ROWS * tiles));
        Self { tile_logits, tile_ids, logprobs: list(scores), ids: list(scores) }
    }
}

impl Workspace {
    /// Lays the workspace out in memory.
    pub(super) fn lay_out(arena: &mut Arena, shape: &ModelShape, capacity: &Capacity) -> Self {
        let rows = capacity.rows.next_multiple_of(ROW_TILE);
        let mut matrix = |columns: usize| arena.take(rows * columns * 2);
        let residual = matrix(shape.hidden);
        let (qkv, queries, attended) =
            (matrix(shape.qkv_columns()), matrix(shape.query_columns()), matrix(shape.query_columns()));
        let (gate_up, inner) = (matrix(2 * shape.mlp), matrix(shape.mlp));
        let ranks = shape.slice.size;
        let mut slices = |ranks: usize| arena.take(ranks * shape.rank_sum_bytes(rows));
        let (delta, addends) = (slices(ranks), slices(if ranks > 1 { ranks } else { 0 }));
        let quantized_columns =
            if shape.fp8.is_some() { shape.hidden.max(shape.query_columns()).max(shape.mlp) } else { 0 };
        let splits = attention::decode_splits(shape.max_length as u32);
        let decode_sequences = if shape.has_decode_kernel() { capacity.chunks as u32 } else { 0 };
        let parts =
            attention::decode_workspace(shape.padded_head_dim as u32, shape.heads as u32, decode_sequences, splits);
        let tiles = logprobs::tiles(shape.vocab_rows as u32) as usize;
        Self {
            ints: arena.take(capacity.ints(shape) * 4),
            residual,
            delta,
            addends,
            qkv,
            queries,
            attended,
            gate_up,
            inner,
            quantized: arena.take(rows * quantized_columns),
            row_scales: arena.take(rows * 4),
            decode_parts: arena.take(parts * 4),
            scored: arena.take(SCORE_ROWS * shape.hidden * 2),
            logits: arena.take(SCORE_ROWS * shape.vocab_rows * 4),
            sampled_logits: arena.take(ranks * SAMPLED_ROWS * shape.vocab_rows * 4),
            target_logits: arena.take(ranks * SCORE_ROWS * 4),
            logprob_parts: arena.take(ranks * SCORE_ROWS * tiles * logprobs::PART_BYTES),
            logprobs: arena.take(capacity.scores() * 4),
            token_ranks: arena.take(capacity.scores() * 4),
            entropies: arena.take(capacity.scores() * 4),
            subset_masks: arena.take(SCORE_ROWS * logprobs::words(shape.vocab_rows as u32) as usize * 4),
            subsets: arena.take(capacity.scores() * 4),
            top: TopTokens::lay_out(arena, ranks * tiles, capacity.scores()),
        }
    }
}

/// The KV cache of all layers, and hidden states.
#[derive(Clone, Debug)]
pub(super) struct PagedCache {
    pub(super) layers: Vec<LayerCache>,
    /// `[blocks + rows][hidden]` bf16: the states after each block's last token, then those of the current batch.
    pub(super) hidden: Region,
}

/// A layer's keys and values.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerCache {
    /// `[blocks][BLOCK_TOKENS][kv_heads][head]`: bf16, or bytes of e4m3 if there are scales.
    pub(super) keys: Region,
    pub(super) values: Region,
    /// `[blocks][BLOCK_TOKENS][kv_heads]` f32, of keys and of values.
    pub(super) scales: Option<(Region, Region)>,
}

impl LayerCache {
    /// Returns its regions, each with the bytes of a slot.
    pub(super) fn regions(&self, shape: &ModelShape) -> impl Iterator<Item = (Region, usize)> {
        let keys_and_values = [self.keys, self.values].map(|region| (region, shape.slot_bytes()));
        let scale = shape.slot_scale_bytes();
        keys_and_values
            .into_iter()
            .chain(self.scales.into_iter().flat_map(move |(keys, values)| [(keys, scale), (values, scale)]))
    }

    /// Returns the addresses for kernels: keys, values, and the scales of both.
    pub(super) fn addresses(&self) -> Result<[Address; 4], BackendError> {
        let whole = |region: Region| region.checked_address(region.bytes());
        let (key_scales, value_scales) = match self.scales {
            Some((keys, values)) => (whole(keys)?, whole(values)?),
            None => (Address::NULL, Address::NULL),
        };
        Ok([whole(self.keys)?, whole(self.values)?, key_scales, value_scales])
    }
}

impl PagedCache {
    pub(super) fn lay_out(arena: &mut Arena, shape: &ModelShape, capacity: &Capacity) -> Self {
        let slots = capacity.blocks * BLOCK_TOKENS;
        let rows = capacity.blocks + capacity.rows.next_multiple_of(ROW_TILE);
        let mut half = |bytes: usize| arena.take(slots * bytes);
        let layers = (0..shape.layers).map(|_| LayerCache {
            keys: half(shape.slot_bytes()),
            values: half(shape.slot_bytes()),
            scales: shape.fp8_cache.then(|| (half(shape.slot_scale_bytes()), half(shape.slot_scale_bytes()))),
        });
        Self { layers: layers.collect(), hidden: arena.take(rows * shape.hidden * 2) }
    }

    /// Returns the bytes of one block, of all layers.
    pub(super) fn block_bytes(shape: &ModelShape) -> usize {
        2 * shape.layers * BLOCK_TOKENS * (shape.slot_bytes() + shape.slot_scale_bytes()) + shape.hidden * 2
    }
}
