//! Conversion of the settings to the engine's configuration.

use surprisal_engine::{CpuConfig, SchedulerConfig};

use super::{ActivationDtype, Settings, WeightDtype};

/// The default size of the KV cache on a CPU, in MiB.
const CPU_CACHE_MIB: usize = 1024;

impl Settings {
    /// Returns the scheduler's configuration.
    pub(crate) fn scheduler_config(&self) -> SchedulerConfig {
        SchedulerConfig { token_budget: self.token_budget, max_running: self.max_running }
    }

    /// Returns the CPU backend's configuration.
    pub(crate) fn cpu_config(&self) -> CpuConfig {
        let cache_bytes = self.cache_mib.unwrap_or(CPU_CACHE_MIB).saturating_mul(1 << 20);
        let weights = match self.dtype {
            // FP8 settings are rejected before a CPU backend is configured.
            WeightDtype::Auto | WeightDtype::Fp8 => None,
            WeightDtype::F32 => Some(surprisal_engine::WeightDtype::F32),
            WeightDtype::Bf16 => Some(surprisal_engine::WeightDtype::Bf16),
            WeightDtype::Int8 => Some(surprisal_engine::WeightDtype::Int8),
        };
        let activations = match self.activations {
            ActivationDtype::F32 => surprisal_engine::ActivationDtype::F32,
            ActivationDtype::Bf16 => surprisal_engine::ActivationDtype::Bf16,
        };
        CpuConfig {
            weights,
            activations,
            cache_bytes,
            threads: self.threads,
            max_length: self.max_length,
            ..CpuConfig::default()
        }
    }
}
