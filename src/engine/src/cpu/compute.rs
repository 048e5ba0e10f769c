//! The CPU's compute modes: vectors, types and write modes.

use pulp::{Arch, Simd, WithSimd};

/// The precision in which products read activations. Sums, norms, attention and the residual stream are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ActivationDtype {
    /// f32, without rounding.
    #[default]
    F32,
    /// Rounded to bf16, as are f32 weights: about twice the speed where the machine has AVX512-BF16.
    Bf16,
}

/// The vectors and the activation path of products.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ComputeMode {
    pub(crate) arch: Arch,
    pub(crate) activations: ActivationPath,
}

/// The type in which products read activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActivationPath {
    F32,
    /// Rounded to bf16, products by vectors of f32.
    RoundedBf16,
    /// Rounded to bf16, products by the AVX512-BF16 instruction.
    Bf16,
}

impl ActivationPath {
    /// Returns the suffix of fingerprints; each type has its own bits.
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
    /// Replaces it.
    Set,
    /// Adds to it: a residual connection.
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
