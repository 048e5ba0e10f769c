//! The CPU's compute modes: vector instructions, activation types and write modes.

use pulp::{Arch, Simd, WithSimd};

/// The precision in which products read activations. Sums, norms, attention and the residual stream are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ActivationDtype {
    /// f32, without rounding.
    #[default]
    F32,
    /// Rounded to bf16. On machines with AVX512-BF16, products are about twice as fast, and also round f32 weights to
    /// bf16.
    Bf16,
}

/// The vector instructions and the activation path of products.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ComputeMode {
    pub(crate) arch: Arch,
    pub(crate) activations: ActivationPath,
}

/// The type in which products read activations, and the instructions that multiply them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActivationPath {
    F32,
    /// bf16, widened to f32 and multiplied with f32 vector instructions.
    RoundedBf16,
    /// bf16, multiplied with the AVX512-BF16 instruction.
    Bf16,
}

impl ActivationPath {
    /// Returns the path's suffix in fingerprints. Each path has its own, because it computes different bits.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            ActivationPath::F32 => "",
            ActivationPath::RoundedBf16 => "-a16",
            ActivationPath::Bf16 => "-a16-avx512bf16",
        }
    }
}

/// A product's effect on its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteMode {
    /// Replaces the output.
    Set,
    /// Adds to the output, as in a residual connection.
    Add,
}

/// A [`WithSimd`] operation that returns the vector width in bits.
pub(crate) struct VectorBits;

impl WithSimd for VectorBits {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES * 32
    }
}
