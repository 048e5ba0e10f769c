//! Attention over the paged cache: prefill of any mix of chunks, and decode of one token a sequence.

use crate::error::check;
use crate::rows::{by_head_size, check_rows, check_scales};
use crate::{Address, CacheView, Error, Launch, TensorMap};

/// Keys with a softmax of their own; splits lie at multiples of it.
pub const SPLIT: u32 = 512;

/// Query heads that may share a KV head in decode: the rows of a tensor core's tile.
pub const LARGEST_GROUP: u32 = 16;

/// Bytes of a barrier in shared memory.
const BARRIER: u32 = 8;

/// Keys a tile of the kernels.
fn tile_keys(head_size: u32) -> u32 {
    if head_size > 128 { 32 } else { 64 }
}

/// Bytes for tiles of keys and of values, rows padded by 16 bytes: two stages of bf16, or one, and what it is widened from
/// with its scales.
fn tile_bytes(head_size: u32, fp8: bool) -> u32 {
    let (keys, padded) = (tile_keys(head_size), 2 * (head_size + 8));
    if fp8 { 2 * keys * (padded + head_size + 4) } else { 4 * keys * padded }
}

/// Bytes of what a tile of queries has summed: 16 for 4 values.
fn sums(head_size: u32) -> u32 {
    tile_rows(head_size) * head_size * 4
}

/// Bytes of rows of queries that registers do not hold.
fn far_queries(head_size: u32, rows: u32) -> u32 {
    if head_size > 128 { rows * (head_size + 8) * 2 } else { 0 }
}

/// Bytes of shared memory that a block of [`PagedAttention`] takes, over a cache of FP8 or of bf16; one of [`PagedDecode`] takes fewer.
#[must_use]
pub fn shared_memory(head_size: u32, fp8: bool) -> u32 {
    tile_bytes(head_size, fp8) + sums(head_size) + far_queries(head_size, tile_rows(head_size))
}

fn check_heads(kernel: &'static str, heads: u32, kv_heads: u32, block_size: u32) -> Result<(), Error> {
    check(kv_heads > 0, kernel, "kv_heads", kv_heads, "at least 1")?;
    check(heads > 0 && heads.is_multiple_of(kv_heads), kernel, "heads", heads, "a multiple of kv_heads")?;
    let fits = block_size.is_power_of_two() && (16..=256).contains(&block_size);
    check(fits, kernel, "block_size", block_size, "16, 32, 64, 128 or 256")
}

/// Causal attention of each sequence's last queries over all its keys.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PagedAttention {
    /// `[tokens][heads][head_size]` bf16.
    pub out: Address,
    /// `[tokens][heads][head_size]` bf16.
    pub q: Address,
    /// `[blocks][block_size][kv_heads][head_size]`: bf16, or with scales bytes of e4m3.
    pub keys: Address,
    /// As `keys`.
    pub values: Address,
    /// `[blocks][block_size][kv_heads]` f32, powers of two; [`Address::NULL`] for a cache of bf16.
    pub key_scales: Address,
    /// As `key_scales`.
    pub value_scales: Address,
    /// `[sequences][table_width]` i32 blocks.
    pub table: Address,
    /// `[sequences]` i32: keys each has, its queries' included.
    pub contexts: Address,
    /// `[sequences + 1]` i32: first query row of each.
    pub starts: Address,
    /// `[tiles][2]` i32: what [`query_tiles`] made.
    pub tiles: Address,
    /// Blocks a row of the table.
    pub table_width: u32,
    /// Tokens a block.
    pub block_size: u32,
    /// Query heads.
    pub heads: u32,
    /// Key heads, and value heads.
    pub kv_heads: u32,
    /// How many keys a query sees, itself included; 0 for all.
    pub window: u32,
    /// Of the scores: usually `1 / sqrt(head_size)`.
    pub scale: f32,
}

impl PagedAttention {
    /// # Errors
    ///
    /// A shape the kernel does not take.
    pub fn launch(self, head_size: u32, tiles: u32) -> Result<Launch<Self>, Error> {
        const BF16: [&str; 4] =
            ["paged_attention_d64", "paged_attention_d96", "paged_attention_d128", "paged_attention_d256"];
        const FP8: [&str; 4] = [
            "paged_attention_fp8_d64",
            "paged_attention_fp8_d96",
            "paged_attention_fp8_d128",
            "paged_attention_fp8_d256",
        ];
        let fp8 = self.key_scales != Address::NULL;
        let kernel = by_head_size(if fp8 { FP8 } else { BF16 }, head_size)?;
        check_scales(kernel, fp8, self.value_scales)?;
        check_heads(kernel, self.heads, self.kv_heads, self.block_size)?;
        check_rows(kernel, "tiles", tiles)?;
        check_rows(kernel, "tiles x heads", tiles.saturating_mul(self.heads))?;
        let (block, shared) = (tile_rows(head_size) * 2, shared_memory(head_size, fp8));
        Ok(Launch { kernel, grid: [tiles * self.heads, 1, 1], block, shared, args: self })
    }

    /// The same on Hopper's own tensor cores (wgmma): a cache of bf16, heads of 64 or 128, an image for sm_90a. Whether its
    /// sums have the bits of the other kernels' is the hardware's to say, so it is chosen for all of a model or not at all.
    ///
    /// # Errors
    ///
    /// A shape the kernel does not take.
    pub fn launch_wgmma(self, head_size: u32, tiles: u32) -> Result<Launch<Self>, Error> {
        let Launch { grid, block, args, .. } = self.launch(head_size, tiles)?;
        let kernel = if head_size == 64 { "paged_attention_wgmma_d64" } else { "paged_attention_wgmma_d128" };
        check(matches!(head_size, 64 | 128), kernel, "head_size", head_size, "64 or 128")?;
        let fp8 = self.key_scales != Address::NULL;
        check(!fp8, kernel, "key_scales", fp8.into(), "null: the cache is of bf16")?;
        let shared = 4 * tile_keys(head_size) * head_size * 2 + sums(head_size);
        Ok(Launch { kernel, grid, block, shared, args })
    }

    /// The same with tiles that the copy engine (TMA) fetches, block by block: it has the bits of [`launch_wgmma`](Self::launch_wgmma).
    /// The maps are of [`view`](Self::view)s of the keys and of the values.
    ///
    /// # Errors
    ///
    /// As [`launch_wgmma`](Self::launch_wgmma).
    pub fn launch_tma(
        self,
        head_size: u32,
        tiles: u32,
        [keys, values]: [TensorMap; 2],
    ) -> Result<Launch<PagedAttentionTma>, Error> {
        let Launch { grid, block, shared, args, .. } = self.launch_wgmma(head_size, tiles)?;
        let kernel = if head_size == 64 { "paged_attention_wgmma_tma_d64" } else { "paged_attention_wgmma_tma_d128" };
        let args = PagedAttentionTma { attention: args, keys, values };
        Ok(Launch { kernel, grid, block, shared: shared + 2 * BARRIER, args })
    }

    /// The keys or the values as [`launch_tma`](Self::launch_tma) needs them mapped, of so many blocks.
    #[must_use]
    pub fn view(&self, cache: Address, head_size: u32, blocks: u32) -> CacheView {
        let Self { block_size, kv_heads, .. } = *self;
        CacheView { cache, slots: blocks * block_size, kv_heads, head_size, rows: block_size.min(tile_keys(head_size)) }
    }
}

/// The parameter of [`PagedAttention::launch_tma`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PagedAttentionTma {
    attention: PagedAttention,
    keys: TensorMap,
    values: TensorMap,
}

/// Queries a tile of [`PagedAttention`] for a head size.
#[must_use]
pub fn tile_rows(head_size: u32) -> u32 {
    if head_size > 128 { 64 } else { 128 }
}

/// The work of a prefill: `(sequence, tile)` for every tile of positions that has queries, most keys first, so that the
/// longest blocks start first. `lengths`: keys and queries of each sequence, at most as many queries as keys.
///
/// ```
/// // A prompt of 200 tokens, and the last 3 of 140: positions 137 to 139 lie in tile 1.
/// assert_eq!(surprisal_kernels::attention::query_tiles(128, &[(200, 200), (140, 3)]), [[0, 1], [1, 1], [0, 0]]);
/// ```
#[must_use]
pub fn query_tiles(head_size: u32, lengths: &[(u32, u32)]) -> Vec<[i32; 2]> {
    let rows = tile_rows(head_size);
    let of = |(sequence, &(keys, queries)): (usize, &(u32, u32))| {
        (keys.saturating_sub(queries) / rows..keys.div_ceil(rows))
            .map(move |tile| (keys.min((tile + 1) * rows), [sequence as i32, tile as i32]))
    };
    let mut tiles: Vec<(u32, [i32; 2])> = lengths.iter().enumerate().filter(|(_, l)| l.1 > 0).flat_map(of).collect();
    tiles.sort_by_key(|&(keys, _)| std::cmp::Reverse(keys));
    tiles.into_iter().map(|(_, tile)| tile).collect()
}

/// The first half of decode: each split of the keys of each sequence's one query.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PagedDecode {
    /// Workspace, [`decode_workspace`] f32.
    pub parts: Address,
    /// `[sequences][heads][head_size]` bf16.
    pub q: Address,
    /// As of [`PagedAttention`].
    pub keys: Address,
    /// As `keys`.
    pub values: Address,
    /// As of [`PagedAttention`].
    pub key_scales: Address,
    /// As `key_scales`.
    pub value_scales: Address,
    /// `[sequences][table_width]` i32 blocks.
    pub table: Address,
    /// `[sequences]` i32: keys each has, its query's included.
    pub contexts: Address,
    /// Blocks a row of the table.
    pub table_width: u32,
    /// Tokens a block.
    pub block_size: u32,
    /// Query heads.
    pub heads: u32,
    /// Key heads, and value heads.
    pub kv_heads: u32,
    /// How many keys a query sees, itself included; 0 for all.
    pub window: u32,
    /// Splits of the longest sequence: [`decode_splits`].
    pub splits: u32,
    /// Of the scores.
    pub scale: f32,
}

impl PagedDecode {
    /// # Errors
    ///
    /// A shape the kernel does not take.
    pub fn launch(self, head_size: u32, sequences: u32) -> Result<Launch<Self>, Error> {
        const BF16: [&str; 4] = ["paged_decode_d64", "paged_decode_d96", "paged_decode_d128", "paged_decode_d256"];
        const FP8: [&str; 4] =
            ["paged_decode_fp8_d64", "paged_decode_fp8_d96", "paged_decode_fp8_d128", "paged_decode_fp8_d256"];
        let fp8 = self.key_scales != Address::NULL;
        let kernel = by_head_size(if fp8 { FP8 } else { BF16 }, head_size)?;
        check_scales(kernel, fp8, self.value_scales)?;
        check_heads(kernel, self.heads, self.kv_heads, self.block_size)?;
        let group = self.heads / self.kv_heads;
        check(group <= LARGEST_GROUP, kernel, "heads / kv_heads", group, "at most 16")?;
        check((1..=65_535).contains(&sequences), kernel, "sequences", sequences, "from 1 to 65535")?;
        check(self.kv_heads <= 65_535, kernel, "kv_heads", self.kv_heads, "at most 65535")?;
        check_rows(kernel, "splits", self.splits)?;
        let grid = [self.splits, self.kv_heads, sequences];
        let shared = tile_bytes(head_size, fp8) + far_queries(head_size, LARGEST_GROUP);
        Ok(Launch { kernel, grid, block: 32, shared, args: self })
    }

    /// The second half: adds the splits up in order, into `out`, `[sequences][heads][head_size]` bf16.
    ///
    /// # Errors
    ///
    /// A shape the kernel does not take.
    pub fn combine(self, out: Address, head_size: u32, sequences: u32) -> Result<Launch<DecodeCombine>, Error> {
        let kernel = by_head_size(["paged_decode_combine"; 4], head_size)?;
        check((1..=65_535).contains(&sequences), kernel, "sequences", sequences, "from 1 to 65535")?;
        let Self { parts, contexts, heads, window, splits, scale, .. } = self;
        check_rows(kernel, "heads", heads)?;
        let args = DecodeCombine { out, parts, contexts, heads, window, splits, head_size, scale };
        Ok(Launch { kernel, grid: [heads, sequences, 1], block: head_size, shared: 0, args })
    }
}

/// The parameter of [`PagedDecode::combine`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct DecodeCombine {
    out: Address,
    parts: Address,
    contexts: Address,
    heads: u32,
    window: u32,
    splits: u32,
    head_size: u32,
    scale: f32,
}

/// Splits of a sequence of so many keys.
#[must_use]
pub fn decode_splits(longest: u32) -> u32 {
    longest.div_ceil(SPLIT)
}

/// f32 values of [`PagedDecode::parts`].
#[must_use]
pub fn decode_workspace(head_size: u32, heads: u32, sequences: u32, splits: u32) -> usize {
    sequences as usize * heads as usize * splits as usize * (head_size as usize + 2)
}
