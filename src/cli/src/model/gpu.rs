//! Starts the native engine on GPUs, in builds with the feature cuda.

use std::path::PathBuf;

use etcetera::BaseStrategy;
use surprisal_engine::cuda::{CudaBackend, CudaConfig, Gpu, Precision};

use surprisal_engine::{Engine, LoadError};
use surprisal_model::Checkpoint;

use super::reload::{LoadedBackend, start_reloadable};
use crate::error::Error;
use crate::output::print_status;
use crate::settings::{DeviceChoice, GPU_REQUIRED, KvCacheDtype, Settings, WeightDtype};

/// Starts the engine on GPUs; returns `None` if the caller must use the CPU.
pub(super) fn start_engine(
    checkpoint: &Checkpoint,
    settings: &Settings,
    reopen: impl Fn() -> Result<Checkpoint, surprisal_model::Error> + Send + 'static,
) -> Result<Option<Engine>, Error> {
    let first = match settings.device {
        DeviceChoice::Cuda(first) => first,
        DeviceChoice::Auto if settings.is_gpu_compatible() => 0,
        DeviceChoice::Auto | DeviceChoice::Cpu => return Ok(None),
    };
    match start_on(first, checkpoint, settings, reopen) {
        Err(Error::Load(error)) if falls_back_to_cpu(settings, &error) => {
            print_status(format_args!("using the CPU instead: {error}"));
            Ok(None)
        }
        Err(Error::Load(LoadError::Device(error)))
            if settings.device == DeviceChoice::Auto && settings.requires_gpu() =>
        {
            Err(Error::Usage(format!("{error}; {GPU_REQUIRED}")))
        }
        engine => engine.map(Some),
    }
}

/// Returns `true` if the CPU can replace the GPU after this error: the settings do not require a GPU, and the GPU is
/// absent, fails, or lacks a feature that the model needs. If GPU memory is too small, there is no fallback: the error
/// says which setting to lower.
fn falls_back_to_cpu(settings: &Settings, error: &LoadError) -> bool {
    settings.device == DeviceChoice::Auto
        && !settings.requires_gpu()
        && matches!(error, LoadError::Device(_) | LoadError::SharedMemory { .. } | LoadError::Unsupported { .. })
}

/// Starts the engine on the GPU with this index; with several ranks, on consecutive GPUs from this index on.
fn start_on(
    first: usize,
    checkpoint: &Checkpoint,
    settings: &Settings,
    reopen: impl Fn() -> Result<Checkpoint, surprisal_model::Error> + Send + 'static,
) -> Result<Engine, Error> {
    let (config, ranks) = (cuda_config(settings), settings.tensor_parallel_size);
    if ranks > 1 {
        return start_reloadable(checkpoint, settings, reopen, move |checkpoint| {
            let gpus = Gpu::open_group(first, ranks, kernel_cache_dir().as_deref())?;
            let backend = CudaBackend::load_group(gpus, checkpoint, config)?;
            let (fingerprint, device) = (backend.fingerprint().to_owned(), backend.device());
            Ok(LoadedBackend { fingerprint, device, backend })
        });
    }
    start_reloadable(checkpoint, settings, reopen, move |checkpoint| {
        let backend = CudaBackend::load(Gpu::open(first, kernel_cache_dir().as_deref())?, checkpoint, config)?;
        let (fingerprint, device) = (backend.fingerprint().to_owned(), backend.device());
        Ok(LoadedBackend { fingerprint, device, backend })
    })
}

/// Returns the CUDA backend's configuration.
fn cuda_config(settings: &Settings) -> CudaConfig {
    CudaConfig {
        weights: if settings.dtype == WeightDtype::Fp8 { Precision::Fp8 } else { Precision::Bf16 },
        cache: if settings.kv_cache_dtype == KvCacheDtype::Fp8 { Precision::Fp8 } else { Precision::Bf16 },
        cache_bytes: settings.cache_mib.map(|mib| mib.saturating_mul(1 << 20)),
        max_length: settings.max_length,
        batch_tokens: settings.token_budget,
        batch_sequences: settings.max_running,
    }
}

/// Returns the folder for compiled kernels in the user's cache folder; `None` if the user has no cache folder.
fn kernel_cache_dir() -> Option<PathBuf> {
    etcetera::choose_base_strategy().ok().map(|base| base.cache_dir().join("surprisal").join("kernels"))
}

#[cfg(test)]
mod tests {
    use surprisal_engine::BackendError;

    use super::*;

    #[test]
    fn auto_uses_the_cpu_for_a_model_that_the_gpu_does_not_support() {
        let auto = Settings::default();
        let small = LoadError::SharedMemory { head_dim: 128, needed: 135_168, limit: 101_376 };
        assert!(falls_back_to_cpu(&auto, &small));
        assert!(falls_back_to_cpu(&auto, &BackendError("no GPU".to_owned()).into()));
        let full = LoadError::DeviceMemory { needed: 3, weights: 2, free: 1 };
        assert!(!falls_back_to_cpu(&auto, &full));
        let asked = Settings { device: DeviceChoice::Cuda(0), ..Settings::default() };
        assert!(!falls_back_to_cpu(&asked, &small));
        let fp8 = Settings { dtype: WeightDtype::Fp8, ..Settings::default() };
        assert!(!falls_back_to_cpu(&fp8, &small));
    }
}
