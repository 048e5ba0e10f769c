//! Prefill: causal attention of each sequence's last queries (`paged_attention.cu`).

use super::{PagedKv, query_bytes, tile_bytes, tile_keys};
use crate::device::{Address, CacheView, Launch, TensorMap};
use crate::error::Error;
use crate::shape::{check, check_rows};

/// Bytes of a barrier in shared memory.
const BARRIER: u32 = 8;

/// Queries a tile of [`PagedAttention`] for a head size.
#[must_use]
pub fn tile_rows(head_size: u32) -> u32 {
    if head_size > 128 { 64 } else { 128 }
}

/// Bytes of a tile's weighted sums of values, f32.
fn sum_bytes(head_size: u32) -> u32 {
    tile_rows(head_size) * head_size * 4
}

/// Bytes of shared memory that a block of [`PagedAttention`] takes, over a cache of FP8 or of bf16; one of
/// [`PagedDecode`](super::PagedDecode) takes fewer.
#[must_use]
pub fn shared_memory(head_size: u32, fp8: bool) -> u32 {
    tile_bytes(head_size, fp8) + sum_bytes(head_size) + query_bytes(head_size, tile_rows(head_size))
}

/// Causal attention of each sequence's last queries over all its keys.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PagedAttention {
    /// `[tokens][heads][head_size]` bf16.
    pub out: Address,
    /// `[tokens][heads][head_size]` bf16.
    pub q: Address,
    /// Keys and values.
    pub cache: PagedKv,
    /// `[sequences + 1]` i32: first query row of each.
    pub starts: Address,
    /// `[tiles][2]` i32: what [`query_tiles`] made.
    pub tiles: Address,
    /// Query heads.
    pub heads: u32,
    /// The number of keys that a query sees, itself included; 0 for all.
    pub window: u32,
    /// Scale of the scores, usually `1 / sqrt(head_size)`.
    pub scale: f32,
}

impl PagedAttention {
    /// Checks the shape, and lays out the launch.
    ///
    /// # Errors
    ///
    /// A shape the kernel does not take.
    pub fn launch(self, head_size: u32, tiles: u32) -> Result<Launch<Self>, Error> {
        const KERNELS: [[&str; 4]; 2] = [
            ["paged_attention_d64", "paged_attention_d96", "paged_attention_d128", "paged_attention_d256"],
            [
                "paged_attention_fp8_d64",
                "paged_attention_fp8_d96",
                "paged_attention_fp8_d128",
                "paged_attention_fp8_d256",
            ],
        ];
        let kernel = self.cache.kernel(KERNELS, head_size, self.heads)?;
        check_rows(kernel, "tiles", tiles)?;
        check_rows(kernel, "tiles x heads", tiles.saturating_mul(self.heads))?;
        let (block, shared) = (tile_rows(head_size) * 2, shared_memory(head_size, self.cache.is_fp8()));
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
        let fp8 = self.cache.is_fp8();
        check(!fp8, kernel, "key_scales", fp8.into(), "null: the cache is of bf16")?;
        let shared = 4 * tile_keys(head_size) * head_size * 2 + sum_bytes(head_size);
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
        let PagedKv { block_size, kv_heads, .. } = self.cache;
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
