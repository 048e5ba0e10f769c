//! `Engine`: a thread of its own for scheduler and backend, and another one should it die.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::backend::{Backend, BackendError, Limits};
use crate::scheduler::{Scheduler, SchedulerConfig};
use crate::scorer::{Events, Generation, ModelCard, Query, ScoreError, ScoreFuture, Scorer, Stats};
use crate::worker::{Answer, Asked, End, Shared, Worker};

/// How long the engine waits before it tries again to make a backend.
const REBUILD_AFTER: Duration = Duration::from_secs(5);

/// Makes a backend anew, that takes what the first one took and has its numbers, after the engine's thread died.
pub type Rebuild<B> = Box<dyn FnMut() -> Result<B, BackendError> + Send>;

/// A backend behind a scheduler, on a thread of its own.
///
/// Dropping the engine stops it once everything that was asked is answered.
#[derive(Debug)]
pub struct Engine {
    card: ModelCard,
    shared: Arc<Shared>,
    sender: Option<flume::Sender<Asked>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the engine's thread. Should it die, the engine stays dead and says so.
    ///
    /// `id` is the model's name and `fingerprint` what its numbers depend on; `device` is for people to read.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        id: String,
        fingerprint: String,
        device: String,
        backend: impl Backend,
        config: SchedulerConfig,
    ) -> std::io::Result<Self> {
        Self::start_lasting(id, fingerprint, device, backend, config, None)
    }

    /// As [`start`](Self::start); should the thread die, `rebuild` makes a backend for another one.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start_lasting<B: Backend>(
        id: String,
        fingerprint: String,
        device: String,
        backend: B,
        config: SchedulerConfig,
        rebuild: Option<Rebuild<B>>,
    ) -> std::io::Result<Self> {
        let limits = backend.limits();
        let max_length = Scheduler::max_length(&limits);
        let card = ModelCard { id, fingerprint, vocab_size: limits.vocab_size, max_length, device };
        let shared = Arc::new(Shared::default());
        shared.alive.store(true, Ordering::SeqCst);
        let (sender, receiver) = flume::unbounded();
        let life = Life { config, receiver, shared: Arc::clone(&shared), rebuild };
        let thread =
            std::thread::Builder::new().name("surprisal-engine".to_owned()).spawn(move || life.run(backend))?;
        Ok(Self { card, shared, sender: Some(sender), thread: Some(thread) })
    }

    fn ask(&self, asked: Asked) -> bool {
        self.is_alive() && self.sender.as_ref().is_some_and(|sender| sender.send(asked).is_ok())
    }
}

impl Scorer for Engine {
    fn score(&self, query: Query) -> ScoreFuture<'_> {
        let (answer, receiver) = oneshot::channel();
        let sent = self.ask(Asked { query, answer: Answer::Scores(answer) });
        Box::pin(async move {
            if !sent {
                return Err(ScoreError::Stopped);
            }
            receiver.await.unwrap_or(Err(ScoreError::Stopped))
        })
    }

    fn generate(&self, query: Query, generation: Generation) -> Events {
        // The scores, the tokens, and an error.
        let longest = self.card.max_length.min(generation.max_tokens);
        let (answer, receiver) = mpsc::channel(longest.saturating_add(2));
        let refusal = answer.clone();
        if !self.ask(Asked { query, answer: Answer::Events(answer, generation) }) {
            let _ = refusal.try_send(Err(ScoreError::Stopped));
        }
        receiver
    }

    fn describe(&self) -> &ModelCard {
        &self.card
    }

    fn stats(&self) -> Stats {
        *self.shared.stats()
    }

    fn is_alive(&self) -> bool {
        self.shared.alive.load(Ordering::SeqCst)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The engine's thread, through the lives of its workers.
struct Life<B> {
    config: SchedulerConfig,
    receiver: flume::Receiver<Asked>,
    shared: Arc<Shared>,
    rebuild: Option<Rebuild<B>>,
}

impl<B: Backend> Life<B> {
    fn run(mut self, backend: B) {
        let promised = backend.limits();
        let mut next = Some(backend);
        while let Some(backend) = next.take() {
            self.shared.alive.store(true, Ordering::SeqCst);
            let scheduler = Scheduler::new(backend.limits(), self.config);
            let mut worker = Worker::new(scheduler, backend, self.receiver.clone(), Arc::clone(&self.shared));
            let ended = catch_unwind(AssertUnwindSafe(|| worker.run()));
            match &ended {
                Ok(End::NobodyAsks) => return,
                Ok(End::Unusable(_)) => tracing::error!("the engine died: its backend is of no more use"),
                Err(_) => tracing::error!("the engine died: its thread panicked"),
            }
            self.bury();
            // Only now do those who wait for it see that it is gone.
            match ended {
                Ok(End::Unusable(error)) => worker.lose(&error),
                _ => drop(worker),
            }
            next = self.rebuilt(promised);
        }
    }

    /// Whoever waits is told.
    fn bury(&self) {
        self.shared.alive.store(false, Ordering::SeqCst);
        let mut stats = self.shared.stats();
        (stats.waiting_queries, stats.running_queries, stats.active_blocks, stats.cached_blocks) = (0, 0, 0, 0);
        drop(stats);
        while let Ok(asked) = self.receiver.try_recv() {
            asked.answer.refuse(ScoreError::Stopped);
        }
    }

    /// Another backend, however long it takes; none once nobody can ask, or if there is no way to make one.
    fn rebuilt(&mut self, promised: Limits) -> Option<B> {
        loop {
            if let Some(rebuild) = &mut self.rebuild {
                match catch_unwind(AssertUnwindSafe(rebuild)) {
                    Ok(Ok(backend)) if keeps(promised, backend.limits()) => {
                        tracing::warn!("the engine starts again");
                        self.shared.stats().restarts += 1;
                        return Some(backend);
                    }
                    Ok(Ok(backend)) => {
                        let now = backend.limits();
                        tracing::error!(?promised, ?now, "the engine stays dead: the new backend would take less");
                    }
                    Ok(Err(error)) => tracing::error!(%error, "the engine stays dead"),
                    Err(_) => tracing::error!("the engine stays dead: making a backend panicked"),
                }
            }
            let again = Instant::now() + REBUILD_AFTER;
            loop {
                match self.receiver.recv_deadline(again) {
                    Ok(asked) => asked.answer.refuse(ScoreError::Stopped),
                    Err(flume::RecvTimeoutError::Timeout) => break,
                    Err(flume::RecvTimeoutError::Disconnected) => return None,
                }
            }
        }
    }
}

/// Whether a backend takes every query that clients were told of. How much it caches may change: a GPU has what others leave it.
fn keeps(promised: Limits, now: Limits) -> bool {
    now.vocab_size == promised.vocab_size && Scheduler::max_length(&now) >= Scheduler::max_length(&promised)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_may_shrink_as_long_as_the_longest_sequence_fits() {
        let promised = Limits { vocab_size: 10, max_length: 100, blocks: 20 };
        assert!(keeps(promised, Limits { blocks: 40, ..promised }));
        assert!(keeps(promised, Limits { blocks: 4, ..promised }));
        assert!(!keeps(promised, Limits { blocks: 3, ..promised }));
        assert!(!keeps(promised, Limits { vocab_size: 11, ..promised }));
    }
}
