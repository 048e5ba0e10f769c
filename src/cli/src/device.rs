//! Where the native engine computes: a GPU if one was asked for, or found, and the CPU otherwise.

use surprisal_engine::{Backend, BackendError, CpuBackend, CpuGroup, Engine, LoadError};
use surprisal_model::Checkpoint;

use crate::error::Error;
use crate::settings::{DeviceChoice, NEEDS_GPU, Settings};

/// Loads a model where the settings say, and starts its engine; `open` opens the checkpoint anew, should the engine die.
pub(crate) fn start(
    checkpoint: &Checkpoint,
    settings: &Settings,
    open: impl Fn() -> Result<Checkpoint, surprisal_model::Error> + Send + 'static,
) -> Result<Engine, Error> {
    #[cfg(feature = "cuda")]
    if let Some(gpu) = gpu::find(settings)? {
        return gpu::start(gpu, checkpoint, settings, open);
    }
    #[cfg(not(feature = "cuda"))]
    if matches!(settings.device, DeviceChoice::Cuda(_)) {
        return Err(Error::NoCuda);
    }
    if settings.needs_gpu() {
        return Err(Error::Usage(NEEDS_GPU.to_owned()));
    }
    let config = settings.cpu();
    match settings.tensor_parallel_size {
        1 => lasting(checkpoint, settings, open, move |checkpoint| {
            let backend = CpuBackend::load(checkpoint, config)?;
            Ok((backend.fingerprint().to_owned(), backend.device(), backend))
        }),
        ranks => lasting(checkpoint, settings, open, move |checkpoint| {
            let backend = CpuGroup::load(checkpoint, config, ranks)?;
            Ok((backend.fingerprint().to_owned(), backend.device(), backend))
        }),
    }
}

/// An engine that loads its model again if need be. `load` gives a fingerprint, the device in words, and the backend.
fn lasting<B: Backend>(
    checkpoint: &Checkpoint,
    settings: &Settings,
    open: impl Fn() -> Result<Checkpoint, surprisal_model::Error> + Send + 'static,
    load: impl Fn(&Checkpoint) -> Result<(String, String, B), LoadError> + Send + 'static,
) -> Result<Engine, Error> {
    let (fingerprint, device, backend) = load(checkpoint)?;
    let rebuild = anew(open, fingerprint.clone(), load);
    let (name, scheduler) = (settings.model.clone(), settings.scheduler());
    Ok(Engine::start_lasting(name, fingerprint, device, backend, scheduler, Some(Box::new(rebuild)))?)
}

/// Loads the model anew; a folder that has another model by now is refused.
fn anew<B>(
    open: impl Fn() -> Result<Checkpoint, surprisal_model::Error>,
    fingerprint: String,
    load: impl Fn(&Checkpoint) -> Result<(String, String, B), LoadError>,
) -> impl FnMut() -> Result<B, BackendError> {
    move || {
        let checkpoint = open().map_err(|error| BackendError(error.to_string()))?;
        match load(&checkpoint).map_err(|error| BackendError(error.to_string()))? {
            (same, _, backend) if same == fingerprint => Ok(backend),
            (other, ..) => Err(BackendError(format!("the model is another one now: {other}, not {fingerprint}"))),
        }
    }
}

#[cfg(feature = "cuda")]
mod gpu {
    //! The GPU's part, of programs that were built with it.

    use std::path::PathBuf;
    use std::sync::Mutex;

    use etcetera::BaseStrategy;
    use surprisal_engine::cuda::{CudaBackend, CudaConfig, Gpu, Precision};

    use super::*;
    use crate::settings::{CacheType, Dtype};

    /// A GPU that is ready, and its index.
    pub(super) struct Found {
        index: usize,
        gpu: Gpu,
    }

    /// None if the CPU is to compute. That there is no GPU is an error only if one was asked for.
    pub(super) fn find(settings: &Settings) -> Result<Option<Found>, Error> {
        match settings.device {
            DeviceChoice::Cuda(index) => Ok(Some(Found { index, gpu: open(index).map_err(LoadError::from)? })),
            DeviceChoice::Auto if settings.is_for_gpu() => match open(0) {
                Ok(gpu) => Ok(Some(Found { index: 0, gpu })),
                Err(error) if settings.needs_gpu() => Err(LoadError::from(error).into()),
                Err(error) => {
                    eprintln!("computing on the CPU: {error}");
                    Ok(None)
                }
            },
            DeviceChoice::Auto | DeviceChoice::Cpu => Ok(None),
        }
    }

    pub(super) fn start(
        found: Found,
        checkpoint: &Checkpoint,
        settings: &Settings,
        reopen: impl Fn() -> Result<Checkpoint, surprisal_model::Error> + Send + 'static,
    ) -> Result<Engine, Error> {
        let (config, Found { index, gpu }) = (config(settings), found);
        let found = Mutex::new(Some(gpu));
        lasting(checkpoint, settings, reopen, move |checkpoint| {
            // The one that was found, and after it, should its engine die, the same one opened anew.
            let gpu = found.lock().ok().and_then(|mut found| found.take());
            let backend = CudaBackend::load(gpu.map_or_else(|| open(index), Ok)?, checkpoint, config)?;
            Ok((backend.fingerprint().to_owned(), backend.device(), backend))
        })
    }

    fn config(settings: &Settings) -> CudaConfig {
        CudaConfig {
            weights: if settings.dtype == Dtype::Fp8 { Precision::Fp8 } else { Precision::Bf16 },
            cache: if settings.kv_cache_dtype == CacheType::Fp8 { Precision::Fp8 } else { Precision::Bf16 },
            cache_bytes: settings.cache_mib.map(|mib| mib.saturating_mul(1 << 20)),
            max_length: settings.max_length,
            batch_tokens: settings.token_budget,
            batch_sequences: settings.max_running,
        }
    }

    /// Kernels that are compiled here are kept in the user's cache folder, if there is one.
    fn open(index: usize) -> Result<Gpu, BackendError> {
        let cache: Option<PathBuf> =
            etcetera::choose_base_strategy().ok().map(|base| base.cache_dir().join("surprisal").join("kernels"));
        Gpu::open(index, cache.as_deref())
    }
}
