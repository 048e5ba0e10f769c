//! Where the native engine computes: GPUs if they were asked for, or found, and the CPU otherwise.

use surprisal_engine::{Backend, BackendError, CpuBackend, Engine, LoadError};
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
    if let Some(gpus) = gpu::find(settings)? {
        return gpu::start(gpus, checkpoint, settings, open);
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
            let backend = CpuBackend::load_group(checkpoint, config, ranks)?;
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
    //! The GPUs' part, of programs that were built with it.

    use std::path::PathBuf;
    use std::sync::Mutex;

    use etcetera::BaseStrategy;
    use surprisal_engine::cuda::{CudaBackend, CudaConfig, Gpu, Precision};

    use super::*;
    use crate::settings::{CacheType, Dtype};

    /// GPUs that are ready, one for each rank, and the first one's index.
    pub(super) struct Found {
        first: usize,
        gpus: Vec<Gpu>,
    }

    /// None if the CPU is to compute. That there are too few GPUs is an error only if they were asked for.
    pub(super) fn find(settings: &Settings) -> Result<Option<Found>, Error> {
        let open = |first| open(first, settings.tensor_parallel_size).map(|gpus| Some(Found { first, gpus }));
        match settings.device {
            DeviceChoice::Cuda(first) => Ok(open(first).map_err(LoadError::from)?),
            DeviceChoice::Auto if settings.is_for_gpu() => match open(0) {
                Err(error) if !settings.needs_gpu() => {
                    eprintln!("computing on the CPU: {error}");
                    Ok(None)
                }
                found => Ok(found.map_err(LoadError::from)?),
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
        let (config, ranks, Found { first, gpus }) = (config(settings), settings.tensor_parallel_size, found);
        let found = Mutex::new(Some(gpus));
        // Those that were found, and after them, should their engine die, the same ones opened anew.
        let take = move || {
            let gpus = found.lock().ok().and_then(|mut found| found.take());
            gpus.map_or_else(|| open(first, ranks), Ok)
        };
        if ranks > 1 {
            return lasting(checkpoint, settings, reopen, move |checkpoint| {
                let backend = CudaBackend::load_group(take()?, checkpoint, config)?;
                Ok((backend.fingerprint().to_owned(), backend.device(), backend))
            });
        }
        lasting(checkpoint, settings, reopen, move |checkpoint| {
            let gpu = take()?.pop().ok_or_else(|| BackendError("no GPU was opened".to_owned()))?;
            let backend = CudaBackend::load(gpu, checkpoint, config)?;
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

    /// So many GPUs from an index on. Kernels that are compiled here are kept in the user's cache folder, if there is one.
    fn open(first: usize, ranks: usize) -> Result<Vec<Gpu>, BackendError> {
        let cache: Option<PathBuf> =
            etcetera::choose_base_strategy().ok().map(|base| base.cache_dir().join("surprisal").join("kernels"));
        match ranks {
            1 => Ok(vec![Gpu::open(first, cache.as_deref())?]),
            ranks => Gpu::open_group(first, ranks, cache.as_deref()),
        }
    }
}
