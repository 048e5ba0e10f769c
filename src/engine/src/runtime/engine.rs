//! `Engine`: the handle to a scheduler and a backend, which run on their own thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use crate::backend::Backend;
use crate::runtime::submission::{Message, Responder, SharedState, Submission};
use crate::runtime::supervisor::{BackendFactory, Supervisor};
use crate::scheduling::SchedulerConfig;
use crate::scorer::{CancelGuard, Generation, ModelCard, Query, QueryEvents, ScoreError, ScoreFuture, Scorer, Stats};

/// A scheduler and a backend on their own thread.
///
/// Dropping the engine waits until every query is answered, then stops the thread.
#[derive(Debug)]
pub struct Engine {
    card: ModelCard,
    shared: Arc<SharedState>,
    /// `None` only while the engine is dropped, which ends the thread. Cancellations do not keep the channel open.
    sender: Option<Arc<Sender<Message>>>,
    next_id: AtomicU64,
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
        // This channel releases the memory of each message once it is received.
        let (sender, receiver) = std::sync::mpsc::channel();
        let supervisor = Supervisor { config, receiver, shared: Arc::clone(&shared), factory };
        let builder = std::thread::Builder::new().name("surprisal-engine".to_owned());
        let thread = builder.spawn(move || supervisor.run(backend))?;
        Ok(Self { card, shared, sender: Some(Arc::new(sender)), next_id: AtomicU64::new(0), thread: Some(thread) })
    }

    /// Sends a query to the engine's thread. Returns the guard that cancels the query; `None` if the engine is dead.
    fn submit(&self, query: Query, generation: Option<Generation>, responder: Responder) -> Option<CancelGuard> {
        let sender = self.sender.as_ref().filter(|_| self.is_alive())?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        sender.send(Message::Submit(Submission { id, query, generation, responder })).ok()?;
        let sender = Arc::downgrade(sender);
        Some(CancelGuard::new(move || {
            if let Some(sender) = sender.upgrade() {
                let _ = sender.send(Message::Cancel(id));
            }
        }))
    }
}

impl Scorer for Engine {
    fn score(&self, query: Query) -> ScoreFuture<'_> {
        let (sender, receiver) = oneshot::channel();
        let guard = self.submit(query, None, Responder::Scores(sender));
        Box::pin(async move {
            let Some(guard) = guard else { return Err(ScoreError::Stopped) };
            let scores = receiver.await.unwrap_or(Err(ScoreError::Stopped));
            guard.disarm();
            scores
        })
    }

    fn generate(&self, query: Query, generation: Generation) -> QueryEvents {
        // Capacity for the scores, the tokens, and an error.
        let max_tokens = self.card.max_length.min(generation.max_tokens);
        let (sender, receiver) = mpsc::channel(max_tokens.saturating_add(2));
        match self.submit(query, Some(generation), Responder::Events(sender.clone())) {
            Some(guard) => QueryEvents::new(receiver, guard),
            None => {
                let _ = sender.try_send(Err(ScoreError::Stopped));
                receiver.into()
            }
        }
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
