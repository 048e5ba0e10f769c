//! The loop of the engine's thread: receives queries from a channel and answers them with the scheduler and the
//! backend.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError};
use std::time::Instant;

use crate::backend::{Backend, BackendError, ForwardBatch, TokenScore};
use crate::runtime::submission::{Message, Responder, SharedState, Submission};
use crate::scheduling::{QueryId, QueryUpdate, ScheduledBatch, Scheduler};
use crate::scorer::{QueryEvent, ScoreError};
use crate::shrink::shrink;

/// The reason a worker ended.
pub(crate) enum WorkerExit {
    /// The engine was dropped, and every query is answered.
    Disconnected,
    /// The backend reports that it is unusable.
    BackendUnusable(BackendError),
}

/// A query that has not ended.
struct PendingQuery {
    responder: Responder,
    /// The time at which the query arrived or, once it has started, the time at which it started; `None` once it has a
    /// result.
    phase_start: Option<Instant>,
}

/// A worker, which owns the scheduler and the backend and runs the loop.
pub(crate) struct Worker<'a, B> {
    scheduler: Scheduler,
    backend: B,
    receiver: &'a Receiver<Message>,
    pending: HashMap<QueryId, PendingQuery>,
    /// Queries for whose answers nobody waits. Some of them may have ended.
    cancelled: Vec<QueryId>,
    /// Number of blocks that earlier workers evicted.
    evicted_before: u64,
    shared: Arc<SharedState>,
}

impl<'a, B: Backend> Worker<'a, B> {
    pub(crate) fn new(
        scheduler: Scheduler,
        backend: B,
        receiver: &'a Receiver<Message>,
        shared: Arc<SharedState>,
    ) -> Self {
        let evicted_before = shared.stats().evicted_blocks;
        let (pending, cancelled) = (HashMap::new(), Vec::new());
        Self { scheduler, backend, receiver, pending, cancelled, evicted_before, shared }
    }

    /// Answers queries until the engine is dropped or the backend is unusable.
    pub(crate) fn run(&mut self) -> WorkerExit {
        while self.receive() {
            self.drop_cancelled();
            let scheduled = self.scheduler.next_batch();
            self.record_started(&scheduled);
            let result = self.run_batch(&scheduled);
            if let Err(error) = &result {
                tracing::error!(%error, "forward pass failed");
                if !self.backend.is_usable() {
                    return WorkerExit::BackendUnusable(error.clone());
                }
            }
            let updates = self.scheduler.complete(scheduled, result);
            self.record_updates(&updates);
            for update in updates {
                self.respond(update.id, update.result);
            }
        }
        WorkerExit::Disconnected
    }

    /// Fails all pending queries, because the backend is lost.
    pub(crate) fn fail_pending(mut self, error: &BackendError) {
        for (_, query) in self.pending.drain() {
            query.responder.fail(ScoreError::BackendLost(error.0.clone()));
        }
    }

    /// Handles newly arrived messages. If the scheduler is idle, first waits for a query. Returns `false` once the
    /// engine is dropped and no query is left.
    fn receive(&mut self) -> bool {
        while self.scheduler.is_idle() {
            match self.receiver.recv() {
                Ok(message) => self.handle(message),
                Err(RecvError) => return false,
            }
        }
        while let Ok(message) = self.receiver.try_recv() {
            self.handle(message);
        }
        true
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Submit(submission) => self.submit(submission),
            Message::Cancel(id) => self.cancelled.push(id),
        }
    }

    fn submit(&mut self, Submission { id, query, generation, responder }: Submission) {
        let submitted = match generation {
            None => self.scheduler.submit(id, query),
            Some(generation) => self.scheduler.submit_generation(id, query, generation),
        };
        match submitted {
            Ok(()) => {
                self.pending.insert(id, PendingQuery { responder, phase_start: Some(Instant::now()) });
            }
            Err(error) => responder.fail(error),
        }
    }

    /// Cancels the queries whose answers nobody waits for.
    fn drop_cancelled(&mut self) {
        let mut cancelled = std::mem::take(&mut self.cancelled);
        cancelled.retain(|id| self.pending.remove(id).is_some());
        if cancelled.is_empty() {
            return;
        }
        shrink(&mut self.pending);
        let count = self.scheduler.cancel(&cancelled);
        self.shared.stats().cancelled_queries += count as u64;
    }

    /// Runs a scheduled batch, unless it is empty.
    fn run_batch(&mut self, scheduled: &ScheduledBatch) -> Result<Vec<TokenScore>, BackendError> {
        let batch = &scheduled.batch;
        if batch.scores.is_empty() && batch.tokens.is_empty() {
            return Ok(Vec::new());
        }
        let start = Instant::now();
        let result = self.forward(batch);
        self.record_pass(scheduled, start);
        result
    }

    /// Runs a batch; a panic counts as a failure of this pass.
    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError> {
        let forward = AssertUnwindSafe(|| self.backend.forward(batch));
        catch_unwind(forward).unwrap_or_else(|_| Err(BackendError("it panicked; see the log".to_owned())))
    }

    /// Sends an event to the query's client, and forgets the query after its last event.
    fn respond(&mut self, id: QueryId, event: Result<QueryEvent, ScoreError>) {
        let Some(query) = self.pending.get(&id) else { return };
        if query.responder.expects_more_after(&event) {
            query.responder.send(event);
        } else if let Some(query) = self.pending.remove(&id) {
            query.responder.finish(event);
            shrink(&mut self.pending);
        }
    }

    /// Records how long the queries that start in this pass have waited.
    fn record_started(&mut self, scheduled: &ScheduledBatch) {
        let mut stats = self.shared.stats();
        for id in scheduled.started() {
            if let Some(phase_start) = self.pending.get_mut(id).and_then(|query| query.phase_start.as_mut()) {
                stats.queue_seconds.observe(phase_start.elapsed().as_secs_f64());
                *phase_start = Instant::now();
            }
        }
    }

    fn record_pass(&self, scheduled: &ScheduledBatch, start: Instant) {
        let tokens = scheduled.batch.tokens.len();
        let mut stats = self.shared.stats();
        stats.forward_passes += 1;
        stats.computed_tokens += tokens as u64;
        stats.pass_queries.observe(scheduled.queries() as f64);
        stats.pass_tokens.observe(tokens as f64);
        stats.pass_seconds.observe(start.elapsed().as_secs_f64());
    }

    fn record_updates(&mut self, updates: &[QueryUpdate]) {
        let mut stats = self.shared.stats();
        for update in updates {
            let phase_start = self.pending.get_mut(&update.id).and_then(|query| query.phase_start.take());
            match &update.result {
                Ok(QueryEvent::Scores(scores)) => {
                    if let Some(phase_start) = phase_start {
                        stats.prefill_seconds.observe(phase_start.elapsed().as_secs_f64());
                    }
                    stats.recomputed_tokens += scores.recomputed_tokens as u64;
                    stats.finished_queries += 1;
                    stats.cached_tokens += scores.cached_tokens as u64;
                    stats.scored_tokens += scores.logprobs.len() as u64;
                }
                Ok(QueryEvent::Token(_)) => stats.generated_tokens += 1,
                Err(_) => {}
            }
        }
        let (waiting, running) = self.scheduler.queue_lengths();
        (stats.waiting_queries, stats.running_queries) = (waiting as u64, running as u64);
        let cache = self.scheduler.cache_usage();
        stats.total_blocks = cache.total as u64;
        stats.active_blocks = cache.held as u64;
        stats.cached_blocks = cache.idle as u64;
        stats.evicted_blocks = self.evicted_before + cache.evicted;
    }
}
