//! Options of the CUDA backend.

/// The type in which numbers are stored.
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
    /// The matrices of layers. In FP8 they have a scale per output, and each token's activations have a scale. Matrices that an FP8
    /// checkpoint stores in bf16 stay bf16, as do the embedding and the head.
    pub weights: Precision,
    /// The KV cache. In FP8 each head of each token has a scale.
    pub cache: Precision,
    /// Memory for the KV cache of all ranks together, in bytes; `None` is all that is left.
    pub cache_bytes: Option<usize>,
    /// Cap on the model's own longest sequence, in tokens.
    pub max_length: Option<usize>,
    /// The most tokens of one batch: the scheduler's budget.
    pub batch_tokens: usize,
    /// The most sequences of one batch: the queries that the scheduler runs at a time.
    pub batch_sequences: usize,
}
