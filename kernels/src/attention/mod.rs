//! Attention over the paged cache: [`PagedAttention`] prefills any mix of chunks, [`PagedDecode`] decodes one token a sequence.
//!
//! Both walk the same tiles of keys (`attention_tile.cuh`), so a decoded token has the bits of a prefilled one. This file
//! has what they share: the cache they read, and the sizes of tiles.

mod decode;
mod prefill;

pub use decode::{DecodeCombine, LARGEST_GROUP, PagedDecode, decode_splits, decode_workspace};
pub use prefill::{PagedAttention, PagedAttentionTma, query_tiles, shared_memory, tile_rows};

use crate::device::Address;
use crate::error::Error;
use crate::shape::{by_head_size, check, check_scales};

/// Keys with a softmax of their own; splits lie at multiples of it.
pub const SPLIT: u32 = 512;

/// A paged KV cache, and the sequences in it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PagedKv {
    /// `[blocks][block_size][kv_heads][head_size]`: bf16, or with scales bytes of e4m3.
    pub keys: Address,
    /// Like `keys`.
    pub values: Address,
    /// `[blocks][block_size][kv_heads]` f32, powers of two; [`Address::NULL`] for a cache of bf16.
    pub key_scales: Address,
    /// Like `key_scales`.
    pub value_scales: Address,
    /// `[sequences][table_width]` i32 blocks.
    pub table: Address,
    /// `[sequences]` i32: keys each has, its queries' included.
    pub contexts: Address,
    /// Blocks a row of the table.
    pub table_width: u32,
    /// Tokens a block.
    pub block_size: u32,
    /// Key heads, and value heads.
    pub kv_heads: u32,
}

impl PagedKv {
    /// Returns whether keys and values are bytes of e4m3.
    fn is_fp8(&self) -> bool {
        self.key_scales != Address::NULL
    }

    /// Picks the kernel of a precision and a head size, and checks that the cache fits it.
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

/// Keys a tile.
fn tile_keys(head_size: u32) -> u32 {
    if head_size > 128 { 32 } else { 64 }
}

/// Bytes of a block's tiles of keys and of values, rows padded by 16 bytes: two stages of bf16; for FP8 one, with the
/// packed bytes that it is widened from and their scales.
fn tile_bytes(head_size: u32, fp8: bool) -> u32 {
    let (keys, padded) = (tile_keys(head_size), 2 * (head_size + 8));
    if fp8 { 2 * keys * (padded + head_size + 4) } else { 4 * keys * padded }
}

/// Bytes of shared memory for rows of queries, where registers do not hold them.
fn query_bytes(head_size: u32, rows: u32) -> u32 {
    if head_size > 128 { rows * (head_size + 8) * 2 } else { 0 }
}
