//! `Workspace`: the memory of a forward pass, except the weights and the KV cache. Its size is known before it is
//! allocated.

use surprisal_kernels::{attention, logprobs};

use super::batch_plan::Capacity;
use super::gemm::ROW_TILE;
use super::memory::{Arena, DeviceRegion};
use super::model_shape::ModelShape;

/// Number of scored rows whose logits are in memory at a time.
pub(super) const SCORE_ROWS: usize = 512;

/// Number of rows whose logits ranks gather at a time, to sample tokens.
pub(super) const SAMPLED_ROWS: usize = 8;

/// The workspace of a forward pass. `rows` is the maximum number of tokens per batch, rounded up to whole tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workspace {
    /// The integers of the batch plan.
    pub(super) ints: DeviceRegion,
    /// `[rows][hidden]` bf16, the residual stream.
    pub(super) residual: DeviceRegion,
    /// `[rows][hidden]` bf16, the values to add to the residual stream; rounded up so that it can be divided into one
    /// slice per rank.
    pub(super) delta: DeviceRegion,
    /// The addends of all ranks for this rank's slice of `delta`; as long as `delta`, or empty if there is only one
    /// rank.
    pub(super) addends: DeviceRegion,
    /// `[rows][heads + 2 kv_heads][head]` bf16.
    pub(super) qkv: DeviceRegion,
    /// `[rows][heads][head]` bf16.
    pub(super) queries: DeviceRegion,
    /// `[rows][heads][head]` bf16.
    pub(super) attended: DeviceRegion,
    /// `[rows][2][mlp]` bf16.
    pub(super) gate_up: DeviceRegion,
    /// `[rows][mlp]` bf16.
    pub(super) inner: DeviceRegion,
    /// `[rows][columns]` e4m3, the input of a product in FP8; empty in a bf16 model.
    pub(super) quantized: DeviceRegion,
    /// `[rows]` f32, the scales of `quantized`.
    pub(super) row_scales: DeviceRegion,
    /// Partial results of the splits of the decode kernel.
    pub(super) decode_parts: DeviceRegion,
    /// `[SCORE_ROWS][hidden]` bf16.
    pub(super) scored: DeviceRegion,
    /// `[SCORE_ROWS][vocab_rows]` f32.
    pub(super) logits: DeviceRegion,
    /// `[ranks][SAMPLED_ROWS][vocab_rows]` f32.
    pub(super) sampled_logits: DeviceRegion,
    /// `[ranks][SCORE_ROWS]` f32.
    pub(super) target_logits: DeviceRegion,
    /// `[ranks][SCORE_ROWS][tiles]`, the statistics of the tiles of the vocabulary.
    pub(super) logprob_parts: DeviceRegion,
    /// `[scores]` f32.
    pub(super) logprobs: DeviceRegion,
    /// `[scores]` i32; `entropies` are `[scores]` f32.
    pub(super) token_ranks: DeviceRegion,
    pub(super) entropies: DeviceRegion,
    /// `[SCORE_ROWS][words]`, a bit per token; `subsets` are `[scores]` f32.
    pub(super) subset_masks: DeviceRegion,
    pub(super) subsets: DeviceRegion,
    pub(super) top: TopTokens,
}

/// The most probable tokens for each scored row, up to [`LARGEST_TOP`](logprobs::LARGEST_TOP) tokens per row.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopTokens {
    /// `[ranks][SCORE_ROWS][tiles][top]` f32; `tile_ids` are i32.
    pub(super) tile_logits: DeviceRegion,
    pub(super) tile_ids: DeviceRegion,
    /// `[scores][top]` f32; `ids` are i32.
    pub(super) logprobs: DeviceRegion,
    pub(super) ids: DeviceRegion,
}

impl TopTokens {
    fn lay_out(arena: &mut Arena, tiles: usize, scores: usize) -> Self {
        let mut list = |rows: usize| arena.take(rows * logprobs::LARGEST_TOP as usize * 4);
        let (tile_logits, tile_ids) = (list(SCORE_ROWS * tiles), list(SCORE_ROWS * tiles));
        Self { tile_logits, tile_ids, logprobs: list(scores), ids: list(scores) }
    }
}

impl Workspace {
    /// Lays out the workspace in memory.
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
