//! Kernels that take rows one by one: embeddings, norms, the MLP's gate, FP8, keys and values into the cache; sums over ranks.
//!
//! Rows are bf16, 16-byte aligned, and a multiple of 8 long.

use crate::device::{Address, Launch};
use crate::error::Error;
pub use crate::shape::HEAD_SIZES;
use crate::shape::{by_head_size, check, check_rows, check_scales};

/// A block a row, of whole warps, its size by the row's length alone.
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
    /// The length of a row.
    pub n: u32,
    /// The id that the table begins with.
    pub first: u32,
    /// Rows of the table; other ids give zeros.
    pub count: u32,
    /// Ids beyond it give NaN.
    pub vocabulary: u32,
}

impl Embedding {
    /// # Errors
    ///
    /// A length the kernel does not take.
    pub fn launch(self, rows: u32) -> Result<Launch<Self>, Error> {
        by_row("embedding", rows, self.n, self)
    }
}

/// The sum of the ranks' addends, in f32 in order of rank, rounded once.
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
    /// # Errors
    ///
    /// A number of values that the kernel does not take.
    pub fn launch(self) -> Result<Launch<Self>, Error> {
        let kernel = "rank_sum";
        let fits = self.n > 0 && self.n.is_multiple_of(8) && self.n <= i32::MAX as u32;
        check(fits, kernel, "n", self.n, "a multiple of 8 from 8 to 2147483640")?;
        check((1..=1 << 16).contains(&self.ranks), kernel, "ranks", self.ranks, "from 1 to 65536")?;
        Ok(Launch { kernel, grid: [(self.n / 8).div_ceil(256), 1, 1], block: 256, shared: 0, args: self })
    }
}

/// RMSNorm, and before it, if there is a residual, `residual += x`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RmsNorm {
    /// `[rows][n]` bf16.
    pub out: Address,
    /// `[rows][n]` bf16.
    pub x: Address,
    /// `[rows][n]` bf16, or [`Address::NULL`] to norm `x` itself.
    pub residual: Address,
    /// `[n]` bf16.
    pub weight: Address,
    /// The length of a row.
    pub n: u32,
    /// Added to the mean square.
    pub epsilon: f32,
}

impl RmsNorm {
    /// # Errors
    ///
    /// A length the kernel does not take.
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
    /// The length of a row.
    pub n: u32,
}

impl SiluMul {
    /// # Errors
    ///
    /// A length the kernel does not take.
    pub fn launch(self, rows: u32) -> Result<Launch<Self>, Error> {
        by_row("silu_mul", rows, self.n, self)
    }
}

/// Per-token quantization to FP8 (e4m3): `out = e4m3(x / scale)`, `scale = min(max |x|, limit) / 448`; beyond 448 is 448.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Fp8Quantize {
    /// `[rows][n]` bytes.
    pub out: Address,
    /// `[rows]` f32.
    pub scales: Address,
    /// `[rows][n]` bf16.
    pub x: Address,
    /// The length of a row.
    pub n: u32,
    /// Beyond which values are cut off; infinite for none.
    pub limit: f32,
}

impl Fp8Quantize {
    /// # Errors
    ///
    /// A length the kernel does not take.
    pub fn launch(self, rows: u32) -> Result<Launch<Self>, Error> {
        by_row("fp8_quantize", rows, self.n, self)
    }
}

/// Scales and bias of a product of FP8 matrices, in place: `x = x * (row's scale * column's scale) + bias`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Fp8Scale {
    /// `[rows][n]` bf16.
    pub x: Address,
    /// `[rows]` f32.
    pub rows: Address,
    /// `[n]` f32.
    pub columns: Address,
    /// `[n]` bf16, or [`Address::NULL`].
    pub bias: Address,
    /// The length of a row.
    pub n: u32,
}

impl Fp8Scale {
    /// # Errors
    ///
    /// A length the kernel does not take.
    pub fn launch(self, rows: u32) -> Result<Launch<Self>, Error> {
        by_row("fp8_scale", rows, self.n, self)
    }
}

/// Rotary embedding of queries and keys, their heads normed first if there are norms, and the write of keys and values to the cache.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct WriteKv {
    /// `[tokens][heads][head_size]` bf16.
    pub queries: Address,
    /// `[slots][kv_heads][head_size]`, the cache's keys: bf16, or with scales bytes of e4m3.
    pub keys: Address,
    /// Like `keys`.
    pub values: Address,
    /// `[slots][kv_heads]` f32, powers of two; [`Address::NULL`] for a cache of bf16.
    pub key_scales: Address,
    /// Like `key_scales`.
    pub value_scales: Address,
    /// `[tokens][heads + 2 kv_heads][head_size]` bf16: queries, keys, values.
    pub qkv: Address,
    /// `[positions][head_size]` f32: half cosines, half sines.
    pub cos_sin: Address,
    /// `[tokens]` i32.
    pub positions: Address,
    /// `[tokens]` i32: block x block size + offset, or -1 to write nothing.
    pub slots: Address,
    /// `[head_size]` bf16, or [`Address::NULL`].
    pub query_norm: Address,
    /// `[head_size]` bf16, or [`Address::NULL`].
    pub key_norm: Address,
    /// Query heads.
    pub heads: u32,
    /// Key heads, and value heads.
    pub kv_heads: u32,
    /// Of the heads' norms.
    pub epsilon: f32,
}

impl WriteKv {
    /// # Errors
    ///
    /// A head size the kernel does not take.
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
