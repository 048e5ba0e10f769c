//! `Instructions`: the vector instructions of the CPU backend.

use pulp::Arch;

use super::compute::{ActivationDtype, ActivationPath, ComputeMode};
use super::gemm_bf16;

/// A choice of vector instructions. f32 products are bit-identical with every choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Instructions {
    /// The widest vector instructions that the machine has.
    #[default]
    Best,
    /// AVX-512, and AVX512-BF16 if the machine has it.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// NEON.
    Neon,
    /// Only instructions that every machine of the architecture has.
    Portable,
}

impl Instructions {
    /// All choices, for tests.
    pub const ALL: [Self; 5] = [Self::Best, Self::Avx512, Self::Avx2, Self::Neon, Self::Portable];

    /// Returns the compute mode on this machine; `None` if it lacks the instructions.
    pub(crate) fn compute(self, activations: ActivationDtype) -> Option<ComputeMode> {
        let has_pairs = matches!(self, Self::Best | Self::Avx512) && gemm_bf16::is_available();
        let activations = match activations {
            ActivationDtype::F32 => ActivationPath::F32,
            ActivationDtype::Bf16 if has_pairs => ActivationPath::Bf16,
            ActivationDtype::Bf16 => ActivationPath::RoundedBf16,
        };
        Some(ComputeMode { arch: self.arch()?, activations })
    }

    fn arch(self) -> Option<Arch> {
        match self {
            Self::Best => Some(Arch::new()),
            Self::Portable => Some(Arch::Scalar),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => pulp::x86::V4::try_new().map(Arch::V4),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::try_new().map(Arch::V3),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => pulp::aarch64::Neon::try_new().map(Arch::Neon),
            _ => None,
        }
    }
}
