//! The engine's own thread: queries arrive by channel, the scheduler and the backend answer them.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::backend::Backend;
use crate::scheduler::{Finished, QueryId, Scheduler, SchedulerConfig};
use crate::scorer::{ModelCard, Query, ScoreError, ScoreFuture, Scorer, Scores, Stats};

type Answer = oneshot::Sender<Result<Scores, ScoreError>>;

/// A backend behind a scheduler, on a thread of its own.
///
/// Dropping the engine stops it once everything that was asked is answered.
#[derive(Debug)]
pub struct Engine {
    card: ModelCard,
    stats: Arc<Mutex<Stats>>,
    sender: Option<flume::Sender<(Query, Answer)>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the engine's thread.
    ///
    /// `id` is the model's name and `fingerprint` what its numbers depend on; `device` is for people to read.
    pub fn start(
        id: String,
        fingerprint: String,
        device: String,
        backend: impl Backend,
        config: SchedulerConfig,
    ) -> std::io::Result<Self> {
        let limits = backend.limits();
        let max_length = Scheduler::max_length(&limits);
        let card = ModelCard { id, fingerprint, vocab_size: limits.vocab_size, max_length, device };
        let stats = Arc::new(Mutex::new(Stats::default()));
        let (sender, receiver) = flume::unbounded();
        let scheduler = Scheduler::new(limits, config);
        let queue = receiver.clone();
        let worker =
            Worker { scheduler, backend, receiver, answers: HashMap::new(), next_id: 0, stats: Arc::clone(&stats) };
        let thread = std::thread::Builder::new().name("surprisal-engine".to_owned()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| worker.run())).is_err() {
                tracing::error!("the engine stopped: its thread panicked");
                refuse(&queue);
            }
        })?;
        Ok(Self { card, stats, sender: Some(sender), thread: Some(thread) })
    }
}

impl Scorer for Engine {
    fn score(&self, query: Query) -> ScoreFuture<'_> {
        let (answer, receiver) = oneshot::channel();
        let sent = self.sender.as_ref().is_some_and(|sender| sender.send((query, answer)).is_ok());
        Box::pin(async move {
            if !sent {
                return Err(ScoreError::Stopped);
            }
            receiver.await.unwrap_or(Err(ScoreError::Stopped))
        })
    }

    fn describe(&self) -> &ModelCard {
        &self.card
    }

    fn stats(&self) -> Stats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Answers whatever still comes, so that nobody waits for an engine that is gone.
fn refuse(queue: &flume::Receiver<(Query, Answer)>) {
    while let Ok((_, answer)) = queue.recv() {
        let _ = answer.send(Err(ScoreError::Stopped));
    }
}

/// What lives on the engine's thread.
struct Worker<B> {
    scheduler: Scheduler,
    backend: B,
    receiver: flume::Receiver<(Query, Answer)>,
    answers: HashMap<QueryId, Answer>,
    next_id: QueryId,
    stats: Arc<Mutex<Stats>>,
}

impl<B: Backend> Worker<B> {
    fn run(mut self) {
        while self.receive() {
            self.drop_cancelled();
            let step = self.scheduler.next_batch();
            let computed = step.batch.tokens.len() as u64;
            let empty = step.batch.scores.is_empty() && step.batch.tokens.is_empty();
            let result = if empty { Ok(Vec::new()) } else { self.backend.forward(&step.batch) };
            if let Err(error) = &result {
                tracing::error!(%error, "a forward pass failed");
            }
            let finished = self.scheduler.complete(step, result);
            self.update_stats(computed, u64::from(!empty), &finished);
            for (id, outcome) in finished {
                self.answer(id, outcome);
            }
        }
    }

    /// Takes in what has arrived, waiting if there is nothing to do; false when it is time to stop.
    fn receive(&mut self) -> bool {
        if self.scheduler.is_idle() {
            match self.receiver.recv() {
                Ok(asked) => self.submit(asked),
                Err(flume::RecvError::Disconnected) => return false,
            }
        }
        while let Ok(asked) = self.receiver.try_recv() {
            self.submit(asked);
        }
        true
    }

    fn submit(&mut self, (query, answer): (Query, Answer)) {
        let id = self.next_id;
        self.next_id += 1;
        self.answers.insert(id, answer);
        if let Err(error) = self.scheduler.submit(id, query) {
            self.answer(id, Err(error));
        }
    }

    /// The receiver may be gone by now; then nobody is waiting for the answer.
    fn answer(&mut self, id: QueryId, outcome: Result<Scores, ScoreError>) {
        if let Some(answer) = self.answers.remove(&id) {
            let _ = answer.send(outcome);
        }
    }

    fn drop_cancelled(&mut self) {
        let gone: Vec<QueryId> =
            self.answers.iter().filter(|(_, answer)| answer.is_closed()).map(|(&id, _)| id).collect();
        if gone.is_empty() {
            return;
        }
        for id in &gone {
            self.answers.remove(id);
        }
        let cancelled = self.scheduler.cancel(&gone);
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).cancelled_queries += cancelled as u64;
    }

    fn update_stats(&self, computed: u64, passes: u64, finished: &[Finished]) {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.computed_tokens += computed;
        stats.forward_passes += passes;
        for scores in finished.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()) {
            stats.finished_queries += 1;
            stats.cached_tokens += scores.cached_tokens as u64;
            stats.scored_tokens += scores.logprobs.len() as u64;
        }
        let (waiting, running) = self.scheduler.queue();
        (stats.waiting_queries, stats.running_queries) = (waiting as u64, running as u64);
        let cache = self.scheduler.cache_use();
        stats.total_blocks = cache.total as u64;
        stats.active_blocks = cache.held as u64;
        stats.cached_blocks = cache.idle as u64;
        stats.evicted_blocks = cache.evicted;
    }
}
