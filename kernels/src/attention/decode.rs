//! Decode: attention of one query per sequence, the query of its last token (`paged_decode.cu`).

use super::{PagedKv, SPLIT, query_bytes, tile_bytes};
use crate::device::{Address, Launch};
use crate::error::Error;
use crate::shape::{by_head_size, check, check_rows};

/// The maximum number of query heads that can share a KV head in decode: the number of rows of a tensor-core tile.
pub const LARGEST_GROUP: u32 = 16;

/// The first half of decode: attention of each sequence's query over each split of the sequence's keys.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PagedDecode {
    /// Workspace of [`decode_workspace`] f32 values.
    pub parts: Address,
    /// `[sequences][heads][head_size]` bf16.
    pub q: Address,
    /// Keys and values.
    pub cache: PagedKv,
    /// Query heads.
    pub heads: u32,
    /// The number of keys that a query attends to, including its own; 0 for all.
    pub window: u32,
    /// The number of splits of the longest sequence, from [`decode_splits`].
    pub splits: u32,
    /// Scale of the scores.
    pub scale: f32,
}

impl PagedDecode {
    /// Checks the shape and returns the launch.
    ///
    /// # Errors
    ///
    /// The kernel does not support the shape.
    pub fn launch(self, head_size: u32, sequences: u32) -> Result<Launch<Self>, Error> {
        const KERNELS: [[&str; 4]; 2] = [
            ["paged_decode_d64", "paged_decode_d96", "paged_decode_d128", "paged_decode_d256"],
            ["paged_decode_fp8_d64", "paged_decode_fp8_d96", "paged_decode_fp8_d128", "paged_decode_fp8_d256"],
        ];
        let kernel = self.cache.kernel(KERNELS, head_size, self.heads)?;
        let kv_heads = self.cache.kv_heads;
        let group = self.heads / kv_heads;
        check(group <= LARGEST_GROUP, kernel, "heads / kv_heads", group, "at most 16")?;
        check((1..=65_535).contains(&sequences), kernel, "sequences", sequences, "from 1 to 65535")?;
        check(kv_heads <= 65_535, kernel, "kv_heads", kv_heads, "at most 65535")?;
        check_rows(kernel, "splits", self.splits)?;
        let grid = [self.splits, kv_heads, sequences];
        let shared = tile_bytes(head_size, self.cache.is_fp8()) + query_bytes(head_size, LARGEST_GROUP);
        Ok(Launch { kernel, grid, block: 32, shared, args: self })
    }

    /// Returns the launch of the second half, which merges the splits in order into `out`,
    /// `[sequences][heads][head_size]` bf16.
    ///
    /// # Errors
    ///
    /// The kernel does not support the shape.
    pub fn combine(self, out: Address, head_size: u32, sequences: u32) -> Result<Launch<DecodeCombine>, Error> {
        let kernel = by_head_size(["paged_decode_combine"; 4], head_size)?;
        check((1..=65_535).contains(&sequences), kernel, "sequences", sequences, "from 1 to 65535")?;
        let Self { parts, cache: PagedKv { contexts, .. }, heads, window, splits, scale, .. } = self;
        check_rows(kernel, "heads", heads)?;
        let args = DecodeCombine { out, parts, contexts, heads, window, splits, head_size, scale };
        Ok(Launch { kernel, grid: [heads, sequences, 1], block: head_size, shared: 0, args })
    }
}

/// The parameter of the kernel that [`PagedDecode::combine`] launches.
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

/// Returns the number of splits of a sequence of `longest` keys.
#[must_use]
pub fn decode_splits(longest: u32) -> u32 {
    longest.div_ceil(SPLIT)
}

/// Returns the number of f32 values in [`PagedDecode::parts`].
#[must_use]
pub fn decode_workspace(head_size: u32, heads: u32, sequences: u32, splits: u32) -> usize {
    sequences as usize * heads as usize * splits as usize * (head_size as usize + 2)
}
