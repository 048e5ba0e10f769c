//! Starts engines that can load their model again after a failure.

use surprisal_engine::{Backend, BackendError, Engine, LoadError};
use surprisal_model::Checkpoint;

use crate::error::Error;
use crate::settings::Settings;

/// A backend that has loaded a model.
pub(super) struct LoadedBackend<B> {
    pub(super) fingerprint: String,
    /// The device, in words.
    pub(super) device: String,
    pub(super) backend: B,
}

/// Loads a model with `load` and starts an engine. If the backend fails, the engine opens the checkpoint with `reopen` and loads it
/// again.
pub(super) fn start_reloadable<B: Backend>(
    checkpoint: &Checkpoint,
    settings: &Settings,
    reopen: impl Fn() -> Result<Checkpoint, surprisal_model::Error> + Send + 'static,
    load: impl Fn(&Checkpoint) -> Result<LoadedBackend<B>, LoadError> + Send + 'static,
) -> Result<Engine, Error> {
    let LoadedBackend { fingerprint, device, backend } = load(checkpoint)?;
    let expected = fingerprint.clone();
    let reload = move || {
        let checkpoint = reopen().map_err(|error| BackendError(error.to_string()))?;
        let reloaded = load(&checkpoint).map_err(|error| BackendError(error.to_string()))?;
        check_same_model(&reloaded.fingerprint, &expected)?;
        Ok(reloaded.backend)
    };
    let (name, scheduler) = (settings.model.clone(), settings.scheduler_config());
    Ok(Engine::start_supervised(name, fingerprint, device, backend, scheduler, Some(Box::new(reload)))?)
}

/// Rejects a folder that has another model by now.
fn check_same_model(found: &str, expected: &str) -> Result<(), BackendError> {
    if found == expected {
        return Ok(());
    }
    Err(BackendError(format!("the model is another one now: {found}, not {expected}")))
}
