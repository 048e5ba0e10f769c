//! Memory beside the weights: what a forward pass works in, and the KV cache; how much of each is known before any is taken.

use surprisal_kernels::{Address, attention, logprobs};

use super::accelerator::{Arena, ROW_TILE, Region};
use super::plan::Room;
use super::shape::Shape;
use crate::backend::{BLOCK_TOKENS, BackendError};

/// Scored rows whose logits exist at a time.
pub(super) const SCORE_ROWS: usize = 512;

/// Rows whose logits ranks gather at a time, where tokens are drawn.
pub(super) const DRAWN_ROWS: usize = 8;

/// What a forward pass works in. `[rows]` are a batch's tokens, rounded up to whole tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workspace {
    /// The plan's integers.
    pub(super) ints: Region,
    /// `[rows][hidden]` bf16, the stream that layers add to.
    pub(super) residual: Region,
    /// `[rows][hidden]` bf16, what a layer adds; a slice for each rank, the last ones rounded up.
    pub(super) delta: Region,
    /// As `delta`: what ranks have of this rank's slice.
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
    /// `[rows][columns]` e4m3, what a product in FP8 reads; nothing in a model without.
    pub(super) quantized: Region,
    /// `[rows]` f32, its scales.
    pub(super) row_scales: Region,
    /// Decode's splits.
    pub(super) parts: Region,
    /// `[SCORE_ROWS][hidden]` bf16.
    pub(super) scored: Region,
    /// `[SCORE_ROWS][vocab_rows]` f32.
    pub(super) logits: Region,
    /// `[ranks][DRAWN_ROWS][vocab_rows]` f32.
    pub(super) drawn: Region,
    /// `[ranks][SCORE_ROWS]` f32.
    pub(super) target_logits: Region,
    /// `[ranks][SCORE_ROWS][tiles]`, of the vocabulary's tiles.
    pub(super) logprob_parts: Region,
    /// `[scores]` f32.
    pub(super) logprobs: Region,
    /// `[scores]` i32 and f32.
    pub(super) ranks: Region,
    pub(super) entropies: Region,
    /// `[SCORE_ROWS][words]`, a bit a token, and `[scores]` f32.
    pub(super) members: Region,
    pub(super) subsets: Region,
    pub(super) listed: Listed,
}

/// The most probable tokens of scored rows, up to [`LARGEST_TOP`](logprobs::LARGEST_TOP) of each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    /// `[ranks][SCORE_ROWS][tiles][top]` f32 and i32.
    pub(super) tile_logits: Region,
    pub(super) tile_ids: Region,
    /// `[scores][top]` f32 and i32.
    pub(super) logprobs: Region,
    pub(super) ids: Region,
}

impl Listed {
    fn lay_out(arena: &mut Arena, tiles: usize, scores: usize) -> Self {
        let mut list = |rows: usize| arena.take(rows * logprobs::LARGEST_TOP as usize * 4);
        let (tile_logits, tile_ids) = (list(SCORE_ROWS * tiles), list(SCORE_ROWS * tiles));
        Self { tile_logits, tile_ids, logprobs: list(scores), ids: list(scores) }
    }
}

impl Workspace {
    pub(super) fn lay_out(arena: &mut Arena, shape: &Shape, room: &Room) -> Self {
        let rows = room.rows.next_multiple_of(ROW_TILE);
        let mut matrix = |columns: usize| arena.take(rows * columns * 2);
        let residual = matrix(shape.hidden);
        let (qkv, queries, attended) = (matrix(shape.qkv()), matrix(shape.queries()), matrix(shape.queries()));
        let (gate_up, inner) = (matrix(2 * shape.mlp), matrix(shape.mlp));
        let ranks = shape.part.size;
        let mut slices = |ranks: usize| arena.take(ranks * shape.sum_slice(rows));
        let (delta, addends) = (slices(ranks), slices(if ranks > 1 { ranks } else { 0 }));
        let widest = if shape.fp8.is_some() { shape.hidden.max(shape.queries()).max(shape.mlp) } else { 0 };
        let splits = attention::decode_splits(shape.max_length as u32);
        let decodes = if shape.decodes() { room.chunks as u32 } else { 0 };
        let parts = attention::decode_workspace(shape.head as u32, shape.heads as u32, decodes, splits);
        let tiles = logprobs::tiles(shape.vocab_rows as u32) as usize;
        Self {
            ints: arena.take(room.ints(shape) * 4),
            residual,
            delta,
            addends,
            qkv,
            queries,
            attended,
            gate_up,
            inner,
            quantized: arena.take(rows * widest),
            row_scales: arena.take(rows * 4),
            parts: arena.take(parts * 4),
            scored: arena.take(SCORE_ROWS * shape.hidden * 2),
            logits: arena.take(SCORE_ROWS * shape.vocab_rows * 4),
            drawn: arena.take(ranks * DRAWN_ROWS * shape.vocab_rows * 4),
            target_logits: arena.take(ranks * SCORE_ROWS * 4),
            logprob_parts: arena.take(ranks * SCORE_ROWS * tiles * logprobs::PART_BYTES),
            logprobs: arena.take(room.scores() * 4),
            ranks: arena.take(room.scores() * 4),
            entropies: arena.take(room.scores() * 4),
            members: arena.take(SCORE_ROWS * logprobs::words(shape.vocab_rows as u32) as usize * 4),
            subsets: arena.take(room.scores() * 4),
            listed: Listed::lay_out(arena, ranks * tiles, room.scores()),
        }
    }
}

/// Keys and values of all layers, and hidden states.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    pub(super) layers: Vec<LayerCache>,
    /// `[blocks + rows][hidden]` bf16: the states after each block's last token, then those of the batch at hand.
    pub(super) hidden: Region,
}

/// A layer's keys and values.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerCache {
    /// `[blocks][BLOCK_TOKENS][kv_heads][head]`: bf16, or with scales bytes of e4m3.
    pub(super) keys: Region,
    pub(super) values: Region,
    /// `[blocks][BLOCK_TOKENS][kv_heads]` f32, of keys and of values.
    pub(super) scales: Option<(Region, Region)>,
}

impl LayerCache {
    /// What is in it, each with the bytes of a slot.
    pub(super) fn parts(&self, shape: &Shape) -> impl Iterator<Item = (Region, usize)> {
        let held = [self.keys, self.values].map(|region| (region, shape.slot_bytes()));
        let scale = shape.slot_scale_bytes();
        held.into_iter().chain(self.scales.into_iter().flat_map(move |(keys, values)| [(keys, scale), (values, scale)]))
    }

    /// As kernels take it: keys, values, and scales of both.
    pub(super) fn addresses(&self) -> Result<[Address; 4], BackendError> {
        let whole = |region: Region| region.holding(region.bytes());
        let (key_scales, value_scales) = match self.scales {
            Some((keys, values)) => (whole(keys)?, whole(values)?),
            None => (Address::NULL, Address::NULL),
        };
        Ok([whole(self.keys)?, whole(self.values)?, key_scales, value_scales])
    }
}

impl Cache {
    pub(super) fn lay_out(arena: &mut Arena, shape: &Shape, room: &Room) -> Self {
        let slots = room.blocks * BLOCK_TOKENS;
        let rows = room.blocks + room.rows.next_multiple_of(ROW_TILE);
        let mut half = |bytes: usize| arena.take(slots * bytes);
        let layers = (0..shape.layers).map(|_| LayerCache {
            keys: half(shape.slot_bytes()),
            values: half(shape.slot_bytes()),
            scales: shape.fp8_cache.then(|| (half(shape.slot_scale_bytes()), half(shape.slot_scale_bytes()))),
        });
        Self { layers: layers.collect(), hidden: arena.take(rows * shape.hidden * 2) }
    }

    /// Bytes of one block, of all layers.
    pub(super) fn block_bytes(shape: &Shape) -> usize {
        2 * shape.layers * BLOCK_TOKENS * (shape.slot_bytes() + shape.slot_scale_bytes()) + shape.hidden * 2
    }
}
