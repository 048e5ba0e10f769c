//! Attention over the paged cache: [`PagedAttention`] prefills any mix of chunks, [`PagedDecode`] decodes one token per
//! sequence.
//!
//! Both walk the same tiles of keys (`attention_tile.cuh`), so decoding a token gives the same bits as prefilling it.
//! This file has what the two share: the cache and the sizes of tiles.

mod decode;
mod prefill;

pub use decode::{DecodeCombine, LARGEST_GROUP, PagedDecode, decode_splits, decode_workspace};
pub use prefill::{PagedAttention, PagedAttentionTma, query_tiles, shared_memory, tile_rows};

use crate::device::Address;
use crate::error::Error;
use crate::shape::{by_head_size, check, check_scales};

/// Keys per split. Each split has its own softmax and begins at a multiple of `SPLIT`.
pub const SPLIT: u32 = 512;

/// A paged KV cache, and the sequences in it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PagedKv {
    /// `[blocks][block_size][kv_heads][head_size]`: bf16, or e4m3 bytes if there are scales.
    pub keys: Address,
    /// The values, like `keys`.
    pub values: Address,
    /// `[blocks][block_size][kv_heads]` f32, powers of two; [`Address::NULL`] for a bf16 cache.
    pub key_scales: Address,
    /// Like `key_scales`.
    pub value_scales: Address,
    /// `[sequences][table_width]` i32: each sequence's blocks.
    pub table: Address,
    /// `[sequences]` i32: the number of keys of each sequence, including those of its queries.
    pub contexts: Address,
    /// Blocks per row of the table.
    pub table_width: u32,
    /// Tokens per block.
    pub block_size: u32,
    /// KV heads: the number of key heads, and of value heads.
    pub kv_heads: u32,
}

impl PagedKv {
    /// Returns whether keys and values are e4m3 bytes.
    fn is_fp8(&self) -> bool {
        self.key_scales != Address::NULL
    }

    /// Returns the kernel for the cache's precision and a head size, and checks that it supports the cache.
    fn kernel(&self, [bf16, fp8]: [[&'static str; 4]; 2], head_size: u32, heads: u32) -> Result<&'static str, Error> {
        let kernel = by_head_size(if self.is_fp8() { fp8 } else { bf16 }, head_size)?;
        check_scales(kernel, self.is_fp8(), self.value_scales)?;
        check(self.kv_heads > 0, kernel, "kv_heads", self.kv_heads, "at least 1")?;
        let is_multiple = heads > 0 && heads.is_multiple_of(self.kv_heads);
        check(is_multiple, kernel, "heads", heads, "a multiple of kv_heads")?;
        let fits = self.block_size.is_power_of_two() && (16..=256).contains(&self.block_size);
        check(fits, kernel, "block_size", self.block_size, "16, 32, 64, 128 or 256")?;
        Ok(kernel)
    }
}

/// Returns the number of keys per tile.
fn tile_keys(head_size: u32) -> u32 {
    if head_size > 128 { 32 } else { 64 }
}

/// Returns the size in bytes of a thread block's tiles of keys and values, with rows padded by 16 bytes: two stages in
/// bf16 or, for FP8, one stage with its packed bytes and their scales.
fn tile_bytes(head_size: u32, fp8: bool) -> u32 {
    let (keys, padded) = (tile_keys(head_size), 2 * (head_size + 8));
    if fp8 { 2 * keys * (padded + head_size + 4) } else { 4 * keys * padded }
}

/// Returns the shared memory for rows of queries, in bytes; 0 if they fit in registers.
fn query_bytes(head_size: u32, rows: u32) -> u32 {
    if head_size > 128 { rows * (head_size + 8) * 2 } else { 0 }
}
