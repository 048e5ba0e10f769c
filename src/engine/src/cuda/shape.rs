//! The model's sizes as the kernels see them, and what of a configuration they do not take.

use std::ops::Range;

use surprisal_kernels::{attention, rows};
use surprisal_model::{LlamaConfig, Quantization};

use super::accelerator::FP8_MULTIPLE;
use super::{CudaConfig, Precision};
use crate::cpu::LoadError;
use crate::part::Part;

/// Sizes of a Llama, or of one rank's part of it; heads, MLP and vocabulary padded to what kernels and products take.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    pub(super) part: Part,
    pub(super) own: Own,
    pub(super) hidden: usize,
    /// Columns of the MLP as the kernels have them.
    pub(super) mlp: usize,
    pub(super) layers: usize,
    /// As the kernels have them: a rank without heads computes with one of zeros.
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    /// Queries that share a key in the whole model.
    group: usize,
    /// A head as the checkpoint has it.
    pub(super) head_dim: usize,
    /// A head as the kernels have it: zeros fill the rest of each half.
    pub(super) head: usize,
    /// Of all ranks.
    pub(super) vocab: usize,
    /// Each rank's tokens.
    pub(super) vocabs: Vec<Range<usize>>,
    /// Rows of the embedding and the head's product, the same on all ranks.
    pub(super) vocab_rows: usize,
    pub(super) eps: f32,
    /// 0: none.
    pub(super) window: u32,
    pub(super) max_length: usize,
    /// Whether products of layers are of FP8, and beyond which activations are cut off before they are quantised.
    pub(super) fp8: Option<f32>,
    /// Whether keys and values are kept in FP8.
    pub(super) fp8_cache: bool,
}

/// What of the checkpoint is this rank's.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Own {
    pub(super) heads: Range<usize>,
    pub(super) kv_heads: Range<usize>,
    pub(super) mlp: Range<usize>,
    pub(super) vocab: Range<usize>,
}

impl Shape {
    /// # Errors
    ///
    /// A size that the kernels do not take.
    pub(super) fn new(config: &LlamaConfig, part: Part, asked: &CudaConfig) -> Result<Self, LoadError> {
        let unsupported = |field, value, limit| Err(LoadError::Unsupported { field, value, limit });
        let fp8 = asked.weights == Precision::Fp8;
        let (multiple, limit) = match fp8 {
            true => (FP8_MULTIPLE, "a multiple of 16 up to 1048576 for weights in FP8"),
            false => (8, "a multiple of 8 up to 1048576"),
        };
        for (field, value) in [("hidden_size", config.hidden_size), ("intermediate_size", config.intermediate_size)] {
            if value == 0 || value % multiple != 0 || value > 1 << 20 {
                return unsupported(field, value, limit);
            }
        }
        let Some(head) = rows::HEAD_SIZES.into_iter().find(|&size| size as usize >= config.head_dim) else {
            return unsupported("head_dim", config.head_dim, "at most 256");
        };
        if config.kv_heads > 65_535 {
            return unsupported("num_key_value_heads", config.kv_heads, "at most 65535");
        }
        let max_length = config.max_positions.min(asked.max_length.unwrap_or(usize::MAX));
        let (heads, kv_heads) = part.heads(config);
        let own = Own { heads, kv_heads, mlp: part.mlp(config), vocab: part.vocab(config) };
        let vocabs: Vec<_> = Part::all(part.size).map(|part| part.vocab(config)).collect();
        Ok(Self {
            part,
            hidden: config.hidden_size,
            mlp: own.mlp.len().next_multiple_of(multiple).max(multiple),
            layers: config.layers,
            heads: own.heads.len().max(1),
            kv_heads: own.kv_heads.len().max(1),
            group: config.heads / config.kv_heads,
            head_dim: config.head_dim,
            head: head as usize,
            vocab: config.vocab_size,
            vocab_rows: vocabs.iter().map(Range::len).max().unwrap_or(0).next_multiple_of(8),
            vocabs,
            own,
            eps: config.rms_norm_eps as f32,
            // A window as long as the longest sequence is none.
            window: config.sliding_window.filter(|&window| window < max_length).map_or(0, |window| window as u32),
            max_length,
            fp8: fp8.then_some(match config.quantization {
                Some(Quantization::Rows { activation_limit: Some(limit) }) => limit,
                _ => f32::INFINITY,
            }),
            fp8_cache: asked.cache == Precision::Fp8,
        })
    }

    /// Columns of the product that makes queries, keys and values.
    pub(super) fn qkv(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head
    }

    /// Columns of all queries.
    pub(super) fn queries(&self) -> usize {
        self.heads * self.head
    }

    /// Bytes of a slot of one layer's keys, or values.
    pub(super) fn slot_bytes(&self) -> usize {
        self.kv_heads * self.head * if self.fp8_cache { 1 } else { 2 }
    }

    /// Bytes of the scales of a slot of one layer's keys, or values.
    pub(super) fn slot_scale_bytes(&self) -> usize {
        if self.fp8_cache { self.kv_heads * 4 } else { 0 }
    }

    /// Whether the kernel for single tokens takes the model. All ranks say the same, so that all have rows in one order.
    pub(super) fn decodes(&self) -> bool {
        self.group <= attention::LARGEST_GROUP as usize
    }

    /// Bytes of what each rank adds up of so many rows as wide as the residual stream.
    pub(super) fn sum_slice(&self, rows: usize) -> usize {
        (rows * self.hidden).div_ceil(self.part.size).next_multiple_of(8) * 2
    }

    /// Where a dimension of a head lies among the padded: rotary halves stay halves.
    pub(super) fn place(&self, dimension: usize) -> usize {
        let half = self.head_dim / 2;
        if dimension < half { dimension } else { self.head / 2 + dimension - half }
    }

    /// By how much the mean over a padded head is smaller than over its real part.
    pub(super) fn filled(&self) -> f32 {
        self.head_dim as f32 / self.head as f32
    }
}
