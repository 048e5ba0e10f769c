//! `ModelShape`: the model's sizes as the kernels see them, and the sizes that they do not support.

use std::ops::Range;

use surprisal_kernels::{attention, rows};
use surprisal_model::{LlamaConfig, Quantization};

use super::config::{CudaConfig, Precision};
use super::gemm::FP8_MULTIPLE;
use crate::load_error::LoadError;
use crate::parallel::rank_slice::RankSlice;

/// Sizes of a Llama, or of one rank's slice of it. Heads, MLP and vocabulary are padded to sizes that kernels and products support.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModelShape {
    pub(super) slice: RankSlice,
    pub(super) ranges: RankRanges,
    pub(super) hidden: usize,
    /// Columns of the MLP, padded.
    pub(super) mlp: usize,
    pub(super) layers: usize,
    /// At least one: a rank without heads computes with a head of zeros.
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    /// Queries that share a key in the whole model.
    queries_per_kv_head: usize,
    /// Dimensions of a head in the checkpoint.
    pub(super) head_dim: usize,
    /// Dimensions of a head in the kernels: zeros pad each half.
    pub(super) padded_head_dim: usize,
    /// Tokens of the vocabulary, of all ranks.
    pub(super) vocab: usize,
    /// Each rank's tokens.
    pub(super) vocabs: Vec<Range<usize>>,
    /// Rows of the embedding and the head's product, the same on all ranks.
    pub(super) vocab_rows: usize,
    pub(super) eps: f32,
    /// Sliding window in tokens; 0 means none.
    pub(super) window: u32,
    pub(super) max_length: usize,
    /// If products of layers are FP8, the limit to which activations are clamped before they are quantized.
    pub(super) fp8: Option<f32>,
    /// True if the KV cache is FP8.
    pub(super) fp8_cache: bool,
}

/// The rank's ranges of the checkpoint's dimensions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RankRanges {
    pub(super) heads: Range<usize>,
    pub(super) kv_heads: Range<usize>,
    pub(super) mlp: Range<usize>,
    pub(super) vocab: Range<usize>,
}

impl ModelShape {
    /// # Errors
    ///
    /// The kernels do not support a size.
    pub(super) fn new(config: &LlamaConfig, slice: RankSlice, options: &CudaConfig) -> Result<Self, LoadError> {
        let unsupported = |field, value, limit| Err(LoadError::Unsupported { field, value, limit });
        let fp8 = options.weights == Precision::Fp8;
        let (multiple, limit) = match fp8 {
            true => (FP8_MULTIPLE, "a multiple of 16 up to 1048576 for weights in FP8"),
            false => (8, "a multiple of 8 up to 1048576"),
        };
        for (field, value) in [("hidden_size", config.hidden_size), ("intermediate_size", config.intermediate_size)] {
            if value == 0 || value % multiple != 0 || value > 1 << 20 {
                return unsupported(field, value, limit);
            }
        }
        let Some(padded_head_dim) = rows::HEAD_SIZES.into_iter().find(|&size| size as usize >= config.head_dim) else {
            return unsupported("head_dim", config.head_dim, "at most 256");
        };
        if config.kv_heads > 65_535 {
            return unsupported("num_key_value_heads", config.kv_heads, "at most 65535");
        }
        let max_length = config.max_positions.min(options.max_length.unwrap_or(usize::MAX));
        let (heads, kv_heads) = slice.heads(config);
        let ranges = RankRanges { heads, kv_heads, mlp: slice.mlp(config), vocab: slice.vocab(config) };
        let vocabs: Vec<_> = RankSlice::all(slice.size).map(|slice| slice.vocab(config)).collect();
        Ok(Self {
            slice,
            hidden: config.hidden_size,
            mlp: ranges.mlp.len().next_multiple_of(multiple).max(multiple),
            layers: config.layers,
            heads: ranges.heads.len().max(1),
            kv_heads: ranges.kv_heads.len().max(1),
            queries_per_kv_head: config.heads / config.kv_heads,
            head_dim: config.head_dim,
            padded_head_dim: padded_head_dim as usize,
            vocab: config.vocab_size,
            vocab_rows: vocabs.iter().map(Range::len).max().unwrap_or(0).next_multiple_of(8),
            vocabs,
            ranges,
            eps: config.rms_norm_eps as f32,
            // A window as long as the longest sequence is none.
            window: config.sliding_window.filter(|&window| window < max_length).map_or(0, |window| window as u32),
            max_length,
            fp8: fp8.then_some(match config.quantization {
                Some(Quantization::Rows { activation_limit: Some(limit) }) => limit,
                _ => f32::INFINITY,
            }),
            fp8_cache: options.cache == Precision::Fp8,
        })
    }

    /// Returns the columns of queries, keys and values.
    pub(super) fn qkv_columns(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.padded_head_dim
    }

    /// Returns the columns of queries.
    pub(super) fn query_columns(&self) -> usize {
        self.heads * self.padded_head_dim
    }

    /// Returns the bytes of a slot of one layer's keys, or values.
    pub(super) fn slot_bytes(&self) -> usize {
        self.kv_heads * self.padded_head_dim * if self.fp8_cache { 1 } else { 2 }
    }

    /// Returns the bytes of the scales of a slot of one layer's keys, or values.
    pub(super) fn slot_scale_bytes(&self) -> usize {
        if self.fp8_cache { self.kv_heads * 4 } else { 0 }
    }

    /// Returns whether the decode kernel supports the model. All ranks agree, so that all order rows alike.
    pub(super) fn has_decode_kernel(&self) -> bool {
        self.queries_per_kv_head <= attention::LARGEST_GROUP as usize
    }

    /// Returns the bytes that each rank sums of `rows` rows of the residual stream.
    pub(super) fn rank_sum_bytes(&self, rows: usize) -> usize {
        (rows * self.hidden).div_ceil(self.slice.size).next_multiple_of(8) * 2
    }

    /// Returns the padded position of a head's dimension: rotary halves stay halves.
    pub(super) fn padded_dimension(&self, dimension: usize) -> usize {
        let half = self.head_dim / 2;
        if dimension < half { dimension } else { self.padded_head_dim / 2 + dimension - half }
    }

    /// Returns the ratio of the mean over a padded head to the mean over its real dimensions.
    pub(super) fn head_fill_ratio(&self) -> f32 {
        self.head_dim as f32 / self.padded_head_dim as f32
    }
}
