//! Kernels that process each row independently: embeddings, norms, the MLP's gate, FP8 quantization and scales, sums
//! over ranks, and the write to the KV cache.
//!
//! Rows are bf16, 16-byte aligned, and a multiple of 8 elements long.

use crate::device::{Address, Launch};
use crate::error::Error;
pub use crate::shape::HEAD_SIZES;
use crate::shape::{by_head_size, check, check_rows, check_scales};

/// Returns a launch of one block per row. A block consists of whole warps, and its size depends only on the row's
/// length.
fn by_row<A>(kernel: &'static str, rows: u32, n: u32, args: A) -> Result<Launch<A>, Error> {
    check(n > 0 && n.is_multiple_of(8) && n <= 1 << 20, kernel, "n", n, "a multiple of 8 from 8 to 1048576")?;
    check_rows(kernel, "rows", rows)?;
    let block = n.div_ceil(8).next_multiple_of(32).min(512);
    Ok(Launch { kernel, grid: [rows, 1, 1], block, shared: 0, args })
}

/// Token embeddings: `out[row] = table[ids[row]]`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Embedding {
    /// `[rows][n]` bf16.
    pub out: Address,
    /// `[count][n]` bf16.
    pub table: Address,
    /// `[rows]` i32.
    pub ids: Address,
    /// Elements per row.
    pub n: u32,
    /// The id of the table's first row.
    pub first: u32,
    /// The number of rows of the table. Ids of the vocabulary that are not in the table give zeros.
    pub count: u32,
    /// The size of the vocabulary. Ids outside the vocabulary give NaN.
    pub vocabulary: u32,
}

impl Embedding {
    /// Checks the shape and returns the launch.
    ///
    /// # Errors
    ///
    /// The kernel does not support the shape.
    pub fn launch(self, rows: u32) -> Result<Launch<Self>, Error> {
        by_row("embedding", rows, self.n, self)
    }
}

/// The sum of all ranks' partial results, computed in f32 in order of rank and rounded once.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RankSum {
    /// `[n]` bf16.
    pub out: Address,
    /// `[ranks][n]` bf16.
    pub parts: Address,
    /// The number of values.
    pub n: u32,
    /// The number of ranks.
    pub ranks: u32,
}

impl RankSum {
    /// Checks the shape and returns the launch.
    ///
    /// # Errors
    ///
    /// The kernel does not support the number of values or ranks.
    pub fn launch(self) -> Result<Launch<Self>, Error> {
        let kernel = "rank_sum";
        let fits = self.n > 0 && self.n.is_multiple_of(8) && self.n <= i32::MAX as u32;
        check(fits, kernel, "n", self.n, "a multiple of 8 from 8 to 2147483640")?;
        check((1..=1 << 16).contains(&self.ranks), kernel, "ranks", self.ranks, "from 1 to 65536")?;
        Ok(Launch { kernel, grid: [(self.n / 8).div_ceil(256), 1, 1], block: 256, shared: 0, args: self })
    }
}

/// RMSNorm of `x`. With a residual, the kernel first computes `residual += x`, then normalizes that sum.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RmsNorm {
    /// `[rows][n]` bf16.
    pub out: Address,
    /// `[rows][n]` bf16.
    pub x: Address,
    /// `[rows][n]` bf16, or [`Address::NULL`] to normalize `x` itself.
    pub residual: Address,
    /// `[n]` bf16.
    pub weight: Address,
    /// Elements per row.
    pub n: u32,
    /// Term added to the mean square.
    pub epsilon: f32,
}

impl RmsNorm {
    /// Checks the shape and returns the launch.
    ///
    /// # Errors
    ///
    /// The kernel does not support the shape.
    pub fn launch(self, rows: u32) -> Result<Launch<Self>, Error> {
        by_row("rms_norm", rows, self.n, self)
    }
}

/// The gate of a Llama MLP: `silu(gate) * up`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SiluMul {
    /// `[rows][n]` bf16.
    pub out: Address,
    /// `[rows][2][n]` bf16, gate before up.
    pub gate_up: Address,
    /// Elements per row.
    pub n: u32,
}

impl SiluMul {
    /// Checks the shape and returns the launch.
    ///
    /// # Errors
    ///
    /// The kernel does not support the shape.
    pub fn launch(self, rows: u32) -> Result<Launch<Self>, Error> {
        by_row("silu_mul", rows, self.n, self)
    }
}

/// Per-token quantization to FP8 (e4m3), saturating at 448: `out = e4m3(x / scale)`, where `scale` is
/// `min(max |x|, limit) / 448`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Fp8Quantize {
    /// `[rows][n]` bytes.
    pub out: Address,
    /// `[rows]` f32.
    pub scales: Address,
    /// `[rows][n]` bf16.
    pub x: Address,
    /// Elements per row.
    pub n: u32,
    /// The largest magnitude; larger values are clipped. Infinity for no limit.
    pub limit: f32,
}

impl Fp8Quantize {
    /// Checks the shape and returns the launch.
    ///
    /// # Errors
    ///
    /// The kernel does not support the shape.
    pub fn launch(self, rows: u32) -> Result<Launch<Self>, Error> {
        by_row("fp8_quantize", rows, self.n, self)
    }
}

/// The scales and the bias of a product of FP8 matrices, applied in place:
/// `x = x * (row's scale * column's scale) + bias`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Fp8Scale {
    /// `[rows][n]` bf16.
    pub x: Address,
    /// `[rows]` f32.
    pub rows: Address,
    /// `[n]` f32.
    pub columns: Address,
    /// `[n]` bf16, or [`Address::NULL`] for no bias.
    pub bias: Address,
    /// Elements per row.
    pub n: u32,
}

impl Fp8Scale {
    /// Checks the shape and returns the launch.
    ///
    /// # Errors
    ///
    /// The kernel does not support the shape.
    pub fn launch(self, rows: u32) -> Result<Launch<Self>, Error> {
        by_row("fp8_scale", rows, self.n, self)
    }
}

/// Rotary embedding of queries and keys, after an optional norm of each head, and the write of keys and values to the
/// cache.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct WriteKv {
    /// `[tokens][heads][head_size]` bf16.
    pub queries: Address,
    /// `[slots][kv_heads][head_size]`, the cached keys: bf16, or e4m3 bytes if there are scales.
    pub keys: Address,
    /// The cached values, like `keys`.
    pub values: Address,
    /// `[slots][kv_heads]` f32, powers of two; [`Address::NULL`] for a bf16 cache.
    pub key_scales: Address,
    /// Like `key_scales`.
    pub value_scales: Address,
    /// `[tokens][heads + 2 kv_heads][head_size]` bf16: queries, keys, values.
    pub qkv: Address,
    /// `[positions][head_size]` f32: cosines in the first half, sines in the second.
    pub cos_sin: Address,
    /// `[tokens]` i32.
    pub positions: Address,
    /// `[tokens]` i32: block x block size + offset, or -1 to cache nothing.
    pub slots: Address,
    /// `[head_size]` bf16, or [`Address::NULL`] for no norm.
    pub query_norm: Address,
    /// `[head_size]` bf16, or [`Address::NULL`] for no norm.
    pub key_norm: Address,
    /// Query heads.
    pub heads: u32,
    /// KV heads: the number of key heads, and of value heads.
    pub kv_heads: u32,
    /// Term added to the mean square in the heads' norms.
    pub epsilon: f32,
}

impl WriteKv {
    /// Checks the shape and returns the launch.
    ///
    /// # Errors
    ///
    /// The kernel does not support the shape.
    pub fn launch(self, tokens: u32, head_size: u32) -> Result<Launch<Self>, Error> {
        const BF16: [&str; 4] = ["kv_cache_d64", "kv_cache_d96", "kv_cache_d128", "kv_cache_d256"];
        const FP8: [&str; 4] = ["kv_cache_fp8_d64", "kv_cache_fp8_d96", "kv_cache_fp8_d128", "kv_cache_fp8_d256"];
        let fp8 = self.key_scales != Address::NULL;
        let kernel = by_head_size(if fp8 { FP8 } else { BF16 }, head_size)?;
        check_scales(kernel, fp8, self.value_scales)?;
        check_rows(kernel, "tokens", tokens)?;
        check(self.heads > 0, kernel, "heads", self.heads, "at least 1")?;
        check(self.kv_heads > 0, kernel, "kv_heads", self.kv_heads, "at least 1")?;
        Ok(Launch { kernel, grid: [tokens, 1, 1], block: 256, shared: 0, args: self })
    }
}
