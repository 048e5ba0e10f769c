//! `Engine`: the handle to a scheduler and a backend, which run on their own thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use crate::backend::Backend;
use crate::runtime::submission::{Responder, SharedState, Submission};
use crate::runtime::supervisor::{BackendFactory, Supervisor};
use crate::scheduling::SchedulerConfig;
use crate::scorer::{Generation, ModelCard, Query, QueryEvents, ScoreError, ScoreFuture, Scorer, Stats};

/// A scheduler and a backend on their own thread.
///
/// Dropping the engine waits until every query is answered, then stops the thread.
#[derive(Debug)]
pub struct Engine {
    card: ModelCard,
    shared: Arc<SharedState>,
    sender: Option<flume::Sender<Submission>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the engine's thread. If the thread or the backend dies, the engine stays dead and rejects queries.
    ///
    /// `id` is the model's name, `fingerprint` identifies everything that its results depend on, and `device` is a
    /// human-readable description of the device.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be started.
    pub fn start(
        id: String,
        fingerprint: String,
        device: String,
        backend: impl Backend,
        config: SchedulerConfig,
    ) -> std::io::Result<Self> {
        Self::start_supervised(id, fingerprint, device, backend, config, None)
    }

    /// Starts the engine like [`start`](Self::start), but if its thread or its backend dies, `factory` creates a new
    /// backend.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be started.
    pub fn start_supervised<B: Backend>(
        id: String,
        fingerprint: String,
        device: String,
        backend: B,
        config: SchedulerConfig,
        factory: Option<BackendFactory<B>>,
    ) -> std::io::Result<Self> {
        let limits = backend.limits();
        let max_length = limits.max_query_length();
        let card = ModelCard { id, fingerprint, vocab_size: limits.vocab_size, max_length, device };
        let shared = Arc::new(SharedState::default());
        shared.alive.store(true, Ordering::SeqCst);
        let (sender, receiver) = flume::unbounded();
        let supervisor = Supervisor { config, receiver, shared: Arc::clone(&shared), factory };
        let builder = std::thread::Builder::new().name("surprisal-engine".to_owned());
        let thread = builder.spawn(move || supervisor.run(backend))?;
        Ok(Self { card, shared, sender: Some(sender), thread: Some(thread) })
    }

    /// Sends a query to the engine's thread; returns `false` if the engine is dead.
    fn submit(&self, submission: Submission) -> bool {
        self.is_alive() && self.sender.as_ref().is_some_and(|sender| sender.send(submission).is_ok())
    }
}

impl Scorer for Engine {
    fn score(&self, query: Query) -> ScoreFuture<'_> {
        let (sender, receiver) = oneshot::channel();
        let sent = self.submit(Submission { query, responder: Responder::Scores(sender) });
        Box::pin(async move {
            if !sent {
                return Err(ScoreError::Stopped);
            }
            receiver.await.unwrap_or(Err(ScoreError::Stopped))
        })
    }

    fn generate(&self, query: Query, generation: Generation) -> QueryEvents {
        // Capacity for the scores, the tokens, and an error.
        let max_tokens = self.card.max_length.min(generation.max_tokens);
        let (sender, receiver) = mpsc::channel(max_tokens.saturating_add(2));
        let responder = Responder::Events(sender.clone(), generation);
        if !self.submit(Submission { query, responder }) {
            let _ = sender.try_send(Err(ScoreError::Stopped));
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
