//! Starts engines that can reload their model after a failure.

use surprisal_engine::{Backend, BackendError, Engine, LoadError};
use surprisal_model::Checkpoint;

use crate::error::Error;
use crate::settings::Settings;

/// A backend that has loaded a model.
pub(super) struct LoadedBackend<B> {
    pub(super) fingerprint: String,
    /// Description of the device.
    pub(super) device: String,
    pub(super) backend: B,
}

/// Loads a model with `load` and starts an engine. If the backend fails, the engine opens the checkpoint with `reopen`
/// and reloads the model.
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

/// Rejects a checkpoint that changed since the first load.
fn check_same_model(found: &str, expected: &str) -> Result<(), BackendError> {
    if found == expected {
        return Ok(());
    }
    Err(BackendError(format!(
        "the checkpoint has changed: expected fingerprint {expected}, got {found}; restart the server to serve it"
    )))
}
