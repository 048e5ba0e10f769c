//! The scheduler, which chooses the tokens of each forward pass.
//!
//! A query starts once the cache has blocks for all its tokens, so no query ever loses its blocks. The token budget
//! cuts long queries into chunks. The last token of a query is scored but never runs through the model. `turns.rs`
//! decides whose chunk is next, `queue.rs` whose turn it is among waiting queries, and `admission.rs` starts them.
//!
//! A query that generates also reserves blocks for all tokens that it may sample. Once its own tokens are computed, it
//! adds one token to each pass before other queries prefill, so that a long prompt does not delay texts that are being
//! generated. Only short queries of clients that have been idle come earlier.

use std::collections::HashSet;

use crate::backend::{BackendError, ForwardBatch, Limits, TokenScore};
use crate::scheduling::cache::{CacheUsage, KvCache};
use crate::scheduling::job::{Job, QueryId};
use crate::scheduling::queue::Queue;
use crate::scheduling::running::{RunningQuery, ScheduledChunk};
use crate::scorer::{Generation, Query, QueryEvent, ScoreError};

/// The limits of the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Maximum number of tokens that a forward pass computes.
    pub token_budget: usize,
    /// Maximum number of queries that run at the same time.
    pub max_running: usize,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self { token_budget: 512, max_running: 256 }
    }
}

/// A result of a query, or the error that ends it. A query that does not generate ends with its scores.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryUpdate {
    /// The query.
    pub id: QueryId,
    /// An event of the query, or the error that ends it.
    pub result: Result<QueryEvent, ScoreError>,
}

/// A forward pass and the queries that its results belong to.
#[derive(Debug, Default)]
pub struct ScheduledBatch {
    /// The batch that the backend runs; it may be empty.
    pub batch: ForwardBatch,
    chunks: Vec<ScheduledChunk>,
    /// Queries that the cache answers.
    pub(super) answered: Vec<QueryUpdate>,
    /// Queries that left the queue for this pass.
    pub(super) started: Vec<QueryId>,
}

impl ScheduledBatch {
    /// Returns how many queries this pass computes.
    pub(crate) fn queries(&self) -> usize {
        self.chunks.len()
    }

    /// Returns the queries that waited until now: those that run for the first time, and those that the cache answers.
    pub(crate) fn started(&self) -> &[QueryId] {
        &self.started
    }

    /// Adds the next chunk of a query, up to `limit` tokens in the batch; returns whether there was anything to add.
    pub(super) fn add_chunk(&mut self, running: &RunningQuery, limit: usize) -> bool {
        let chunk = running.add_chunk(&mut self.batch, limit);
        self.chunks.extend(chunk);
        chunk.is_some()
    }
}

/// A scheduler, which turns queries into forward passes and their results into answers.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) config: SchedulerConfig,
    limits: Limits,
    pub(super) cache: KvCache,
    pub(super) waiting: Queue,
    pub(super) running: Vec<RunningQuery>,
    /// `true` if the last pass began with queries of clients that had been idle.
    pub(super) began_with_idle: bool,
}

impl Scheduler {
    /// Creates a scheduler for a backend with these limits.
    pub fn new(limits: Limits, config: SchedulerConfig) -> Self {
        let (cache, waiting) = (KvCache::new(limits.blocks), Queue::new(config.token_budget));
        Self { config, limits, cache, waiting, running: Vec::new(), began_with_idle: false }
    }

    /// Queues a query; returns an error if the query is invalid.
    pub fn submit(&mut self, id: QueryId, query: Query) -> Result<(), ScoreError> {
        self.enqueue(Job { id, query, generation: None })
    }

    /// Queues a query to be scored and continued; returns an error if it is invalid.
    pub fn submit_generation(&mut self, id: QueryId, query: Query, generation: Generation) -> Result<(), ScoreError> {
        self.enqueue(Job { id, query, generation: Some(Box::new(generation)) })
    }

    fn enqueue(&mut self, job: Job) -> Result<(), ScoreError> {
        job.check(&self.limits)?;
        self.waiting.push(job);
        Ok(())
    }

    /// Returns the next forward pass. Its results must be passed to [`Scheduler::complete`].
    pub fn next_batch(&mut self) -> ScheduledBatch {
        let mut scheduled = ScheduledBatch::default();
        if let Some(suspect) = self.running.iter().position(|running| running.retry_alone) {
            let in_turn = !self.running[suspect].is_decoding();
            self.schedule_chunk(&mut scheduled, suspect, self.config.token_budget, in_turn);
            return scheduled;
        }
        let turns = self.begin_turns();
        self.add_idle(&mut scheduled);
        self.add_decoding(&mut scheduled);
        self.add_in_turn(&mut scheduled, turns);
        scheduled
    }

    /// Records the results of a batch and returns the resulting updates, in order.
    ///
    /// If a pass with several queries fails, each query is retried alone, so that only the queries that cannot be
    /// computed fail.
    pub fn complete(
        &mut self,
        scheduled: ScheduledBatch,
        result: Result<Vec<TokenScore>, BackendError>,
    ) -> Vec<QueryUpdate> {
        let ScheduledBatch { batch, chunks, answered: mut updates, .. } = scheduled;
        let scores = match result {
            Ok(scores) if scores.len() == batch.scores.len() => Ok(scores),
            Ok(short) => Err(format!("it returned {} scores; expected {}", short.len(), batch.scores.len())),
            Err(error) => Err(error.to_string()),
        };
        match scores {
            Ok(scores) => {
                let mut scores = scores.into_iter();
                for chunk in chunks {
                    let chunk_scores = scores.by_ref().take(chunk.scores).collect();
                    self.advance(&chunk, chunk_scores, &mut updates);
                }
            }
            Err(error) => self.fail(&chunks, error, &mut updates),
        }
        updates
    }

    /// Records what a batch computed for a running query.
    fn advance(&mut self, chunk: &ScheduledChunk, scores: Vec<TokenScore>, updates: &mut Vec<QueryUpdate>) {
        let Some(running) = self.running.iter_mut().find(|running| running.id == chunk.id) else { return };
        if let Some(at) = scores.iter().position(|score| !score.logprob.is_finite()) {
            let (position, logprob) = (running.next_score() + at, scores[at].logprob);
            let error = format!("the log-probability at position {position} is {logprob}; it must be finite");
            self.end(chunk.id);
            updates.push(QueryUpdate { id: chunk.id, result: Err(ScoreError::Backend(error)) });
            return;
        }
        let events = running.advance(chunk, scores, &mut self.cache);
        updates.extend(events.into_iter().map(|event| QueryUpdate { id: chunk.id, result: Ok(event) }));
        if running.is_done() {
            self.end(chunk.id);
        }
    }

    /// Handles a failed pass: ends its query if it has only one; otherwise marks all of its queries to be retried
    /// alone.
    fn fail(&mut self, chunks: &[ScheduledChunk], error: String, updates: &mut Vec<QueryUpdate>) {
        if let [chunk] = chunks {
            if self.end(chunk.id) {
                updates.push(QueryUpdate { id: chunk.id, result: Err(ScoreError::Backend(error)) });
            }
            return;
        }
        let suspects: HashSet<QueryId> = chunks.iter().map(|chunk| chunk.id).collect();
        for running in &mut self.running {
            running.retry_alone |= suspects.contains(&running.id);
        }
    }

    /// Removes a running query and releases its blocks; returns whether the query was running.
    fn end(&mut self, id: QueryId) -> bool {
        let Some(index) = self.running.iter().position(|running| running.id == id) else { return false };
        let ended = self.running.remove(index);
        self.release(&ended);
        true
    }

    /// Releases a query's blocks and refunds its client for the tokens that were neither computed nor sampled.
    fn release(&mut self, running: &RunningQuery) {
        running.release(&mut self.cache);
        self.waiting.end(running.query.scheduling, running.sampled_tokens(), running.unused_tokens());
    }

    /// Cancels queries and frees their blocks; returns how many were waiting or running.
    pub fn cancel(&mut self, ids: &[QueryId]) -> usize {
        let waiting = ids.iter().filter(|&&id| self.waiting.cancel(id)).count();
        let ids: HashSet<QueryId> = ids.iter().copied().collect();
        let (cancelled, running): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.running).into_iter().partition(|running| ids.contains(&running.id));
        self.running = running;
        for query in &cancelled {
            self.release(query);
        }
        waiting + cancelled.len()
    }

    /// Returns `true` if no query waits or runs.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Returns the number of waiting queries and the number of running queries.
    pub fn queue_lengths(&self) -> (usize, usize) {
        (self.waiting.len(), self.running.len())
    }

    pub(crate) fn cache_usage(&self) -> CacheUsage {
        self.cache.usage()
    }
}
