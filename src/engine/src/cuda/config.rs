//! Options of the CUDA backend.

/// The type in which weights or the KV cache are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// bf16.
    Bf16,
    /// e4m3 with scales.
    Fp8,
}

impl Precision {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
        }
    }
}

/// Options of the CUDA backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaConfig {
    /// The type of the layers' weight matrices. In FP8, each row of a matrix has a scale, as does each token's input to
    /// the matrix. Matrices that an FP8 checkpoint stores in bf16 stay bf16, as do the embedding and the head.
    pub weights: Precision,
    /// The type of the KV cache. In FP8, each token has, per head, one scale for its key and one for its value.
    pub cache: Precision,
    /// Limit on the KV cache of all ranks together, in bytes; `None` to use all remaining memory.
    pub cache_bytes: Option<usize>,
    /// Limit on the length of a sequence, in tokens; `None` for no limit except the model's, which always applies.
    pub max_length: Option<usize>,
    /// Maximum tokens per batch: the scheduler's token budget.
    pub batch_tokens: usize,
    /// Maximum sequences per batch: the number of queries that the scheduler runs at a time.
    pub batch_sequences: usize,
}
