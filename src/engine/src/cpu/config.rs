//! Options of the CPU backend.

use super::compute::ActivationDtype;
use super::instructions::Instructions;
use super::packed_matrix::WeightDtype;

/// Options of the CPU backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuConfig {
    /// The storage type of weights; `None` means bf16 (exact) for a bf16 checkpoint and f32 for others.
    pub weights: Option<WeightDtype>,
    /// The precision in which products read activations.
    pub activations: ActivationDtype,
    /// The vector instructions. The default is the fastest; the others are for comparisons.
    pub instructions: Instructions,
    /// Size of the KV cache, in bytes.
    pub cache_bytes: usize,
    /// Number of compute threads; 0 means one per core.
    pub threads: usize,
    /// Limit on the sequence length, in tokens, in addition to the model's own limit; `None` for no additional limit.
    pub max_length: Option<usize>,
}

impl Default for CpuConfig {
    fn default() -> Self {
        Self {
            weights: None,
            activations: ActivationDtype::F32,
            instructions: Instructions::Best,
            cache_bytes: 1 << 30,
            threads: 0,
            max_length: None,
        }
    }
}
