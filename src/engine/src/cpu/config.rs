//! Options of the CPU backend.

use super::compute::ActivationDtype;
use super::instructions::Instructions;
use super::packed_matrix::WeightDtype;

/// Options of the CPU backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuConfig {
    /// The storage type of weights; `None` is bf16 for a bf16 checkpoint, which is exact, and f32 for others.
    pub weights: Option<WeightDtype>,
    /// The precision in which products read activations.
    pub activations: ActivationDtype,
    /// The vector instructions; for comparisons, since the default is the fastest.
    pub instructions: Instructions,
    /// Memory for the KV cache, in bytes.
    pub cache_bytes: usize,
    /// Compute threads; 0 means one per core.
    pub threads: usize,
    /// Cap on the model's own longest sequence, in tokens.
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
