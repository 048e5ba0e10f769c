//! The supervisor: runs workers on the engine's thread, and replaces one that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::backend::{Backend, BackendError, Limits};
use crate::runtime::submission::{SharedState, Submission};
use crate::runtime::worker::{Worker, WorkerExit};
use crate::scheduling::{Scheduler, SchedulerConfig};
use crate::scorer::ScoreError;

/// Time for which the supervisor waits before it tries again to make a backend.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Makes a backend to replace one that failed. It must take what the first one took and compute the same numbers.
pub type BackendFactory<B> = Box<dyn FnMut() -> Result<B, BackendError> + Send>;

/// The life of the engine's thread: one worker after another.
pub(crate) struct Supervisor<B> {
    pub(crate) config: SchedulerConfig,
    pub(crate) receiver: flume::Receiver<Submission>,
    pub(crate) shared: Arc<SharedState>,
    pub(crate) factory: Option<BackendFactory<B>>,
}

impl<B: Backend> Supervisor<B> {
    /// Runs a worker over `backend`, and over a new backend after each failure, until the engine is dropped.
    pub(crate) fn run(mut self, backend: B) {
        let advertised = backend.limits();
        let mut next = Some(backend);
        while let Some(backend) = next.take() {
            self.shared.alive.store(true, Ordering::SeqCst);
            let scheduler = Scheduler::new(backend.limits(), self.config);
            let mut worker = Worker::new(scheduler, backend, self.receiver.clone(), Arc::clone(&self.shared));
            let exit = catch_unwind(AssertUnwindSafe(|| worker.run()));
            match &exit {
                Ok(WorkerExit::Disconnected) => return,
                Ok(WorkerExit::BackendUnusable(_)) => {
                    tracing::error!("the engine died: its backend is of no more use");
                }
                Err(_) => tracing::error!("the engine died: its thread panicked"),
            }
            self.mark_dead();
            // Clients with pending queries see the failure only now, when the engine already reports it.
            match exit {
                Ok(WorkerExit::BackendUnusable(error)) => worker.fail_pending(&error),
                _ => drop(worker),
            }
            next = self.reload(advertised);
        }
    }

    /// Reports the engine as dead and fails the queries that no worker has received.
    fn mark_dead(&self) {
        self.shared.alive.store(false, Ordering::SeqCst);
        let mut stats = self.shared.stats();
        (stats.waiting_queries, stats.running_queries, stats.active_blocks, stats.cached_blocks) = (0, 0, 0, 0);
        drop(stats);
        while let Ok(submission) = self.receiver.try_recv() {
            submission.responder.fail(ScoreError::Stopped);
        }
    }

    /// Makes another backend, however long it takes; returns `None` once the engine is dropped.
    fn reload(&mut self, advertised: Limits) -> Option<B> {
        loop {
            if let Some(backend) = self.try_reload(advertised) {
                tracing::warn!("the engine starts again");
                self.shared.stats().restarts += 1;
                return Some(backend);
            }
            if !self.reject_for(RELOAD_INTERVAL) {
                return None;
            }
        }
    }

    /// Makes another backend, if there is a way to make one, and if it takes every query that the first one took.
    fn try_reload(&mut self, advertised: Limits) -> Option<B> {
        let factory = self.factory.as_mut()?;
        match catch_unwind(AssertUnwindSafe(factory)) {
            Ok(Ok(backend)) if covers(advertised, backend.limits()) => return Some(backend),
            Ok(Ok(backend)) => {
                let reloaded = backend.limits();
                tracing::error!(
                    promised = ?advertised,
                    now = ?reloaded,
                    "the engine stays dead: the new backend would take less"
                );
            }
            Ok(Err(error)) => tracing::error!(%error, "the engine stays dead"),
            Err(_) => tracing::error!("the engine stays dead: making a backend panicked"),
        }
        None
    }

    /// Rejects all queries for some time; returns false if the engine is dropped meanwhile.
    fn reject_for(&self, interval: Duration) -> bool {
        let deadline = Instant::now() + interval;
        loop {
            match self.receiver.recv_deadline(deadline) {
                Ok(submission) => submission.responder.fail(ScoreError::Stopped),
                Err(flume::RecvTimeoutError::Timeout) => return true,
                Err(flume::RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

/// Returns whether a backend takes every query that was advertised to clients. The size of the cache may change: on a GPU
/// it depends on what others leave free.
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
