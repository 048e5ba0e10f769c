//! Starts the native engine, on GPUs if they are requested or available, otherwise on the CPU.

use surprisal_engine::{CpuBackend, Engine};
use surprisal_model::Checkpoint;

#[cfg(feature = "cuda")]
use super::gpu;
use super::reload::{LoadedBackend, start_reloadable};
use crate::error::Error;
#[cfg(not(feature = "cuda"))]
use crate::settings::DeviceChoice;
use crate::settings::{GPU_REQUIRED, Settings};

/// Loads a model on the device that the settings choose, and starts its engine. If the backend fails, the engine opens
/// the checkpoint with `reopen` and reloads the model.
pub(super) fn start_engine(
    checkpoint: &Checkpoint,
    settings: &Settings,
    reopen: impl Fn() -> Result<Checkpoint, surprisal_model::Error> + Clone + Send + 'static,
) -> Result<Engine, Error> {
    settings.check_max_length(checkpoint.config().max_positions)?;
    #[cfg(feature = "cuda")]
    if let Some(engine) = gpu::start_engine(checkpoint, settings, reopen.clone())? {
        return Ok(engine);
    }
    #[cfg(not(feature = "cuda"))]
    if matches!(settings.device, DeviceChoice::Cuda(_)) {
        return Err(Error::NoCuda);
    }
    if settings.requires_gpu() {
        return Err(Error::Usage(GPU_REQUIRED.to_owned()));
    }
    let (config, ranks) = (settings.cpu_config(), settings.tensor_parallel_size);
    if ranks > 1 {
        return start_reloadable(checkpoint, settings, reopen, move |checkpoint| {
            let backend = CpuBackend::load_group(checkpoint, config, ranks)?;
            let (fingerprint, device) = (backend.fingerprint().to_owned(), backend.device());
            Ok(LoadedBackend { fingerprint, device, backend })
        });
    }
    start_reloadable(checkpoint, settings, reopen, move |checkpoint| {
        let backend = CpuBackend::load(checkpoint, config)?;
        let (fingerprint, device) = (backend.fingerprint().to_owned(), backend.device());
        Ok(LoadedBackend { fingerprint, device, backend })
    })
}
