//! `ModelShape`: the model's sizes as the kernels see them. Sizes that the kernels do not support are rejected.

use std::ops::Range;

use surprisal_kernels::{attention, rows};
use surprisal_model::{LlamaConfig, Quantization};

use super::config::{CudaConfig, Precision};
use super::gemm::FP8_MULTIPLE;
use crate::load_error::LoadError;
use crate::parallel::rank_slice::RankSlice;

/// Sizes of a Llama model, or of one rank's slice of it. Heads, MLP and vocabulary are padded to sizes that the kernels
/// and matrix products support.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModelShape {
    pub(super) slice: RankSlice,
    pub(super) ranges: RankRanges,
    pub(super) hidden: usize,
    /// Columns of the MLP, padded.
    pub(super) mlp: usize,
    pub(super) layers: usize,
    /// Number of query heads; at least one, because a rank without heads computes one head of zeros.
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    /// Number of query heads per key-value head, in the whole model.
    queries_per_kv_head: usize,
    /// Dimensions of a head in the checkpoint.
    pub(super) head_dim: usize,
    /// Dimensions of a head in the kernels. Each half is padded with zeros.
    pub(super) padded_head_dim: usize,
    /// Number of tokens in the vocabulary, on all ranks together.
    pub(super) vocab: usize,
    /// The token ids in each rank's slice of the vocabulary.
    pub(super) vocabs: Vec<Range<usize>>,
    /// Rows of a rank's embedding and head, padded; the same on all ranks.
    pub(super) vocab_rows: usize,
    pub(super) eps: f32,
    /// Sliding window in tokens; 0 means none.
    pub(super) window: u32,
    pub(super) max_length: usize,
    /// The limit to which activations are clamped before they are quantized; `None` if the layers' weights are bf16.
    pub(super) fp8: Option<f32>,
    /// `true` if the KV cache is FP8.
    pub(super) fp8_cache: bool,
}

/// The ranges of the checkpoint's heads, MLP columns and token ids that belong to a rank.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RankRanges {
    pub(super) heads: Range<usize>,
    pub(super) kv_heads: Range<usize>,
    pub(super) mlp: Range<usize>,
    pub(super) vocab: Range<usize>,
}

impl ModelShape {
    /// Computes the sizes of a rank's slice.
    ///
    /// # Errors
    ///
    /// Fails if the kernels do not support a size.
    pub(super) fn new(config: &LlamaConfig, slice: RankSlice, options: &CudaConfig) -> Result<Self, LoadError> {
        let unsupported = |field, value, limit| Err(LoadError::Unsupported { field, value, limit });
        let fp8 = options.weights == Precision::Fp8;
        let (multiple, limit) = match fp8 {
            true => (FP8_MULTIPLE, "a multiple of 16 up to 1048576 for FP8 weights"),
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
            // A window as long as the longest sequence has no effect.
            window: config.sliding_window.filter(|&window| window < max_length).map_or(0, |window| window as u32),
            max_length,
            fp8: fp8.then_some(match config.quantization {
                Some(Quantization::Rows { activation_limit: Some(limit) }) => limit,
                _ => f32::INFINITY,
            }),
            fp8_cache: options.cache == Precision::Fp8,
        })
    }

    /// Returns the total number of columns of the queries, keys and values.
    pub(super) fn qkv_columns(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.padded_head_dim
    }

    /// Returns the number of columns of the queries.
    pub(super) fn query_columns(&self) -> usize {
        self.heads * self.padded_head_dim
    }

    /// Returns the size in bytes of one layer's keys in a cache slot, which holds one token. The values have the same
    /// size.
    pub(super) fn slot_bytes(&self) -> usize {
        self.kv_heads * self.padded_head_dim * if self.fp8_cache { 1 } else { 2 }
    }

    /// Returns the size in bytes of the scales of one layer's keys in a cache slot. The scales of the values have the
    /// same size.
    pub(super) fn slot_scale_bytes(&self) -> usize {
        if self.fp8_cache { self.kv_heads * 4 } else { 0 }
    }

    /// Returns whether the decode kernel supports the model. The result is the same on all ranks, so all ranks order
    /// rows in the same way.
    pub(super) fn has_decode_kernel(&self) -> bool {
        self.queries_per_kv_head <= attention::LARGEST_GROUP as usize
    }

    /// Returns the size in bytes of the slice that each rank sums, for a residual stream of `rows` rows.
    pub(super) fn rank_sum_bytes(&self, rows: usize) -> usize {
        (rows * self.hidden).div_ceil(self.slice.size).next_multiple_of(8) * 2
    }

    /// Maps a dimension of the original head to its index in the padded head. Each rotary half of the head is padded
    /// separately.
    pub(super) fn padded_dimension(&self, dimension: usize) -> usize {
        let half = self.head_dim / 2;
        if dimension < half { dimension } else { self.padded_head_dim / 2 + dimension - half }
    }

    /// Returns the ratio of a mean over a padded head to the same mean without the padding.
    pub(super) fn head_fill_ratio(&self) -> f32 {
        self.head_dim as f32 / self.padded_head_dim as f32
    }
}
