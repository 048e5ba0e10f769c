//! The tokio runtimes that commands run on.

use std::thread::available_parallelism;

use tokio::runtime::Builder;

use crate::error::Error;

/// Runs a future on a new tokio runtime with one thread per core.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    Builder::new_multi_thread().enable_all().build().map_err(Error::Runtime)?.block_on(future)
}

/// Runs a future on a new tokio runtime with one thread per two cores, to leave cores for an engine in the same
/// process.
///
/// A forward pass waits for each of its threads. A woken HTTP thread takes a core from one of them, so fewer HTTP
/// threads, each with more work, disturb the pass less.
pub(crate) fn block_on_beside_engine<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let threads = available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build().map_err(Error::Runtime)?;
    let result = runtime.block_on(future);
    // Work for requests that were dropped at shutdown may still run, and must not delay the end of the process.
    runtime.shutdown_background();
    result
}
