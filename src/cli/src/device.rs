//! Where the native engine computes: GPUs if they were asked for, or found, and the CPU otherwise.

use surprisal_engine::{Backend, BackendError, CpuBackend, Engine, LoadError};
use surprisal_model::Checkpoint;

use crate::error::Error;
use crate::settings::{DeviceChoice, NEEDS_GPU, Settings};

/// Loads a model where the settings say, and starts its engine; `open` opens the checkpoint anew, should the engine die.
pub(crate) fn start(
    checkpoint: &Checkpoint,
    settings: &Settings,
    open: impl Fn() -> Result<Checkpoint, surprisal_model::Error> + Clone + Send + 'static,
) -> Result<Engine, Error> {
    settings.check_max_length(checkpoint.config().max_positions)?;
    #[cfg(feature = "cuda")]
    if let Some(engine) = gpu::start(checkpoint, settings, open.clone())? {
        return Ok(engine);
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
    Ok(Engine::start_supervised(name, fingerprint, device, backend, scheduler, Some(Box::new(rebuild)))?)
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

    use etcetera::BaseStrategy;
    use surprisal_engine::cuda::{CudaBackend, CudaConfig, Gpu, Precision};

    use super::*;
    use crate::settings::{CacheType, Dtype};

    /// None if the CPU is to compute.
    pub(super) fn start(
        checkpoint: &Checkpoint,
        settings: &Settings,
        reopen: impl Fn() -> Result<Checkpoint, surprisal_model::Error> + Send + 'static,
    ) -> Result<Option<Engine>, Error> {
        let first = match settings.device {
            DeviceChoice::Cuda(first) => first,
            DeviceChoice::Auto if settings.is_for_gpu() => 0,
            DeviceChoice::Auto | DeviceChoice::Cpu => return Ok(None),
        };
        match start_on(first, checkpoint, settings, reopen) {
            Err(Error::Load(error)) if leaves_it_to_the_cpu(settings, &error) => {
                eprintln!("computing on the CPU: {error}");
                Ok(None)
            }
            Err(Error::Load(LoadError::Device(error)))
                if settings.device == DeviceChoice::Auto && settings.needs_gpu() =>
            {
                Err(Error::Usage(format!("{error}; {NEEDS_GPU}")))
            }
            engine => engine.map(Some),
        }
    }

    /// Whether nobody asked for a GPU, and this one is not there, fails, or lacks what the model needs. Where its memory is too
    /// small, the error says what to lower.
    fn leaves_it_to_the_cpu(settings: &Settings, error: &LoadError) -> bool {
        settings.device == DeviceChoice::Auto
            && !settings.needs_gpu()
            && matches!(error, LoadError::Device(_) | LoadError::SharedMemory { .. } | LoadError::Unsupported { .. })
    }

    /// On the GPU of this index, or as many as there are ranks, from it on.
    fn start_on(
        first: usize,
        checkpoint: &Checkpoint,
        settings: &Settings,
        reopen: impl Fn() -> Result<Checkpoint, surprisal_model::Error> + Send + 'static,
    ) -> Result<Engine, Error> {
        let (config, ranks) = (config(settings), settings.tensor_parallel_size);
        if ranks > 1 {
            return lasting(checkpoint, settings, reopen, move |checkpoint| {
                let gpus = Gpu::open_group(first, ranks, kernels().as_deref())?;
                let backend = CudaBackend::load_group(gpus, checkpoint, config)?;
                Ok((backend.fingerprint().to_owned(), backend.device(), backend))
            });
        }
        lasting(checkpoint, settings, reopen, move |checkpoint| {
            let backend = CudaBackend::load(Gpu::open(first, kernels().as_deref())?, checkpoint, config)?;
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

    /// Where kernels that are compiled here are kept: in the user's cache folder, if there is one.
    fn kernels() -> Option<PathBuf> {
        etcetera::choose_base_strategy().ok().map(|base| base.cache_dir().join("surprisal").join("kernels"))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn auto_leaves_a_model_that_the_gpu_does_not_take_to_the_cpu() {
            let auto = Settings::default();
            let small = LoadError::SharedMemory { head_dim: 128, needed: 135_168, limit: 101_376 };
            assert!(leaves_it_to_the_cpu(&auto, &small));
            assert!(leaves_it_to_the_cpu(&auto, &BackendError("there is none".to_owned()).into()));
            let full = LoadError::DeviceMemory { needed: 3, weights: 2, free: 1 };
            assert!(!leaves_it_to_the_cpu(&auto, &full));
            let asked = Settings { device: DeviceChoice::Cuda(0), ..Settings::default() };
            assert!(!leaves_it_to_the_cpu(&asked, &small));
            let fp8 = Settings { dtype: Dtype::Fp8, ..Settings::default() };
            assert!(!leaves_it_to_the_cpu(&fp8, &small));
        }
    }
}
