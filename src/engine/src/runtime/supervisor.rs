//! The supervisor: runs workers on the engine's thread, and replaces one that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::backend::{Backend, BackendError, Limits};
use crate::runtime::submission::{Message, SharedState};
use crate::runtime::worker::{Worker, WorkerExit};
use crate::scheduling::{Scheduler, SchedulerConfig};
use crate::scorer::ScoreError;

/// Time between attempts to create a backend.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// A function that creates a backend to replace one that failed. The new backend must accept the same queries as the
/// first one and compute the same numbers.
pub type BackendFactory<B> = Box<dyn FnMut() -> Result<B, BackendError> + Send>;

/// A supervisor, which runs one worker after another on the engine's thread.
pub(crate) struct Supervisor<B> {
    pub(crate) config: SchedulerConfig,
    pub(crate) receiver: Receiver<Message>,
    pub(crate) shared: Arc<SharedState>,
    pub(crate) factory: Option<BackendFactory<B>>,
}

impl<B: Backend> Supervisor<B> {
    /// Runs a worker with `backend`, and one with a new backend after each failure, until the engine is dropped.
    pub(crate) fn run(mut self, backend: B) {
        let advertised = backend.limits();
        let mut next = Some(backend);
        while let Some(backend) = next.take() {
            self.shared.alive.store(true, Ordering::SeqCst);
            let scheduler = Scheduler::new(backend.limits(), self.config);
            let mut worker = Worker::new(scheduler, backend, &self.receiver, Arc::clone(&self.shared));
            let exit = catch_unwind(AssertUnwindSafe(|| worker.run()));
            match &exit {
                Ok(WorkerExit::Disconnected) => return,
                Ok(WorkerExit::BackendUnusable(_)) => {
                    tracing::error!("engine died: the backend is unusable");
                }
                Err(_) => tracing::error!("engine died: the thread panicked"),
            }
            self.mark_dead();
            // Fail pending queries only now: a client whose query fails must already see a dead engine.
            match exit {
                Ok(WorkerExit::BackendUnusable(error)) => worker.fail_pending(&error),
                _ => drop(worker),
            }
            next = self.reload(advertised);
        }
    }

    /// Marks the engine as dead and fails the queries that no worker has received.
    fn mark_dead(&self) {
        self.shared.alive.store(false, Ordering::SeqCst);
        let mut stats = self.shared.stats();
        (stats.waiting_queries, stats.running_queries, stats.active_blocks, stats.cached_blocks) = (0, 0, 0, 0);
        drop(stats);
        while let Ok(message) = self.receiver.try_recv() {
            message.reject(ScoreError::Stopped);
        }
    }

    /// Creates a new backend and retries until it succeeds; returns `None` once the engine is dropped.
    fn reload(&mut self, advertised: Limits) -> Option<B> {
        loop {
            if let Some(backend) = self.try_reload(advertised) {
                tracing::warn!("backend reloaded; restarting the engine");
                self.shared.stats().restarts += 1;
                return Some(backend);
            }
            if !self.reject_for(RELOAD_INTERVAL) {
                return None;
            }
        }
    }

    /// Creates a new backend; returns `None` if there is no factory, if the factory fails, or if the new backend does
    /// not accept every query that the first one accepted.
    fn try_reload(&mut self, advertised: Limits) -> Option<B> {
        let factory = self.factory.as_mut()?;
        match catch_unwind(AssertUnwindSafe(factory)) {
            Ok(Ok(backend)) if covers(advertised, backend.limits()) => return Some(backend),
            Ok(Ok(backend)) => {
                let reloaded = backend.limits();
                tracing::error!(
                    promised = ?advertised,
                    now = ?reloaded,
                    "reload failed: the new backend supports less than advertised; retrying"
                );
            }
            Ok(Err(error)) => tracing::error!(%error, "reload failed; retrying"),
            Err(_) => tracing::error!("reload failed: creating the backend panicked; retrying"),
        }
        None
    }

    /// Rejects all queries for the given time; returns `false` if the engine is dropped meanwhile.
    fn reject_for(&self, interval: Duration) -> bool {
        let deadline = Instant::now() + interval;
        loop {
            match self.receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(message) => message.reject(ScoreError::Stopped),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

/// Returns whether a reloaded backend accepts every query within the limits that were advertised to clients. The size
/// of the cache may change: on a GPU it depends on how much memory other processes leave free.
fn covers(advertised: Limits, reloaded: Limits) -> bool {
    reloaded.vocab_size == advertised.vocab_size && reloaded.max_query_length() >= advertised.max_query_length()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_may_shrink_as_long_as_the_longest_sequence_fits() {
        let advertised = Limits { vocab_size: 10, max_length: 100, blocks: 20 };
        assert!(covers(advertised, Limits { blocks: 40, ..advertised }));
        assert!(covers(advertised, Limits { blocks: 4, ..advertised }));
        assert!(!covers(advertised, Limits { blocks: 3, ..advertised }));
        assert!(!covers(advertised, Limits { vocab_size: 11, ..advertised }));
    }
}
