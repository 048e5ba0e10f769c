//! Prefill: causal attention of each sequence's last queries (`paged_attention.cu`).

use super::{PagedKv, query_bytes, tile_bytes, tile_keys};
use crate::device::{Address, CacheView, Launch, TensorMap};
use crate::error::Error;
use crate::shape::{check, check_rows};

/// The size of a barrier in shared memory, in bytes.
const BARRIER: u32 = 8;

/// Returns the number of queries per tile of [`PagedAttention`].
#[must_use]
pub fn tile_rows(head_size: u32) -> u32 {
    if head_size > 128 { 64 } else { 128 }
}

/// Returns the size in bytes of a tile's weighted sums of values, which are f32.
fn sum_bytes(head_size: u32) -> u32 {
    tile_rows(head_size) * head_size * 4
}

/// Returns the shared memory in bytes that a thread block of [`PagedAttention`] needs, for an FP8 or a bf16 cache.
/// [`PagedDecode`](super::PagedDecode) needs less.
#[must_use]
pub fn shared_memory(head_size: u32, fp8: bool) -> u32 {
    tile_bytes(head_size, fp8) + sum_bytes(head_size) + query_bytes(head_size, tile_rows(head_size))
}

/// Causal attention of each sequence's last queries over all keys of the sequence.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PagedAttention {
    /// `[tokens][heads][head_size]` bf16.
    pub out: Address,
    /// `[tokens][heads][head_size]` bf16.
    pub q: Address,
    /// Keys and values.
    pub cache: PagedKv,
    /// `[sequences + 1]` i32: each sequence's first query row, then the total number of rows.
    pub starts: Address,
    /// `[tiles][2]` i32, from [`query_tiles`].
    pub tiles: Address,
    /// Query heads.
    pub heads: u32,
    /// The number of keys that a query attends to, including its own; 0 for all.
    pub window: u32,
    /// Scale of the scores, usually `1 / sqrt(head_size)`.
    pub scale: f32,
}

impl PagedAttention {
    /// Checks the shape and returns the launch.
    ///
    /// # Errors
    ///
    /// The kernel does not support the shape.
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

    /// Returns the launch of the wgmma variant. This kernel needs a bf16 cache, heads of size 64 or 128, and an image
    /// for sm_90a. Only a GPU can confirm that the kernel's sums have the same bits as those of the other kernels, so a
    /// model must use it for all prefill or for none.
    ///
    /// # Errors
    ///
    /// The kernel does not support the shape.
    pub fn launch_wgmma(self, head_size: u32, tiles: u32) -> Result<Launch<Self>, Error> {
        let Launch { grid, block, args, .. } = self.launch(head_size, tiles)?;
        let kernel = if head_size == 64 { "paged_attention_wgmma_d64" } else { "paged_attention_wgmma_d128" };
        check(matches!(head_size, 64 | 128), kernel, "head_size", head_size, "64 or 128")?;
        let fp8 = self.cache.is_fp8();
        check(!fp8, kernel, "key_scales", fp8.into(), "null, for a bf16 cache")?;
        let shared = 4 * tile_keys(head_size) * head_size * 2 + sum_bytes(head_size);
        Ok(Launch { kernel, grid, block, shared, args })
    }

    /// Returns the launch of the wgmma variant whose tiles the copy engine (TMA) fetches, block by block. The result
    /// has the same bits as that of [`launch_wgmma`](Self::launch_wgmma). `keys` and `values` are the tensor maps of
    /// their [`view`](Self::view)s.
    ///
    /// # Errors
    ///
    /// The same as for [`launch_wgmma`](Self::launch_wgmma).
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

    /// Returns the view of `blocks` blocks of keys or values. Its tensor map is an argument of
    /// [`launch_tma`](Self::launch_tma).
    #[must_use]
    pub fn view(&self, cache: Address, head_size: u32, blocks: u32) -> CacheView {
        let PagedKv { block_size, kv_heads, .. } = self.cache;
        CacheView { cache, slots: blocks * block_size, kv_heads, head_size, rows: block_size.min(tile_keys(head_size)) }
    }
}

/// The parameter of the kernel that [`PagedAttention::launch_tma`] launches.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PagedAttentionTma {
    attention: PagedAttention,
    keys: TensorMap,
    values: TensorMap,
}

/// Returns the work of a prefill: `[sequence, tile]` for every tile of positions that has queries. Tiles with the most
/// keys come first, so that the longest thread blocks start first. `lengths` has the number of keys and the number of
/// queries of each sequence; a sequence has at most as many queries as keys.
///
/// ```
/// // All 200 tokens of a prompt, and the last 3 of 140: positions 137 to 139 lie in tile 1.
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
