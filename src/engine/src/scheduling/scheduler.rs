//! The scheduler, which chooses the tokens of each forward pass.
//!
//! A query starts once the cache has blocks for all its tokens, so no query is ever preempted. The token budget cuts
//! long queries into chunks. If a running query is computing the beginning of a waiting one, the waiting query is
//! deferred, and later reads that beginning from the cache. The last token of a query is scored but never runs through
//! the model. `queue.rs` decides which query runs next.
//!
//! A query that generates also reserves blocks for all tokens that it may sample. Once its own tokens are computed, it
//! adds one token to each pass, before the chunks of other queries, so that a long prompt does not delay texts that are
//! being generated.

use std::collections::HashSet;

use crate::backend::{BLOCK_TOKENS, BackendError, BlockId, ForwardBatch, Limits, TokenScore};
use crate::scheduling::cache::{CacheUsage, CachedPrefix, KvCache};
use crate::scheduling::job::{Job, QueryId};
use crate::scheduling::queue::{PrefixDependency, Queue, QueueKey, SkippedQueries, WaitingQuery};
use crate::scheduling::running::{RunningQuery, ScheduledChunk};
use crate::scorer::{Generation, Query, QueryEvent, ScoreError, Scores};

/// Maximum number of queries that the scheduler defers in one pass. After that, it looks for no more queries to start.
const LOOKAHEAD: usize = 512;

/// The reciprocal of a share of a pass's prefill tokens. That share is reserved for the oldest running query while more
/// urgent queries wait or run.
const OLDEST_SHARE: usize = 4;

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
    answered: Vec<QueryUpdate>,
    /// Queries that left the queue for this pass.
    started: Vec<QueryId>,
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

    fn add_chunk(&mut self, running: &RunningQuery, budget: usize) {
        self.chunks.extend(running.add_chunk(&mut self.batch, budget));
    }
}

/// A scheduler, which turns queries into forward passes and their results into answers.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    limits: Limits,
    cache: KvCache,
    waiting: Queue,
    running: Vec<RunningQuery>,
}

/// The outcome of an attempt to start a query.
enum Admission {
    /// The query waits for a prefix that another query computes.
    Deferred,
    /// The cache has too few available blocks.
    NoBlocks,
    /// All of the query's scores are in the cache.
    Answered(QueryId, Scores),
    Running(Box<RunningQuery>),
}

impl Scheduler {
    /// Creates a scheduler for a backend with these limits.
    pub fn new(limits: Limits, config: SchedulerConfig) -> Self {
        let cache = KvCache::new(limits.blocks);
        Self { config, limits, cache, waiting: Queue::default(), running: Vec::new() }
    }

    /// Queues a query; returns an error if the query is invalid.
    pub fn submit(&mut self, id: QueryId, query: Query) -> Result<(), ScoreError> {
        self.enqueue(Job { id, query, generation: None })
    }

    /// Queues a query to be scored and continued; returns an error if it is invalid.
    pub fn submit_generation(&mut self, id: QueryId, query: Query, generation: Generation) -> Result<(), ScoreError> {
        self.enqueue(Job { id, query, generation: Some(generation) })
    }

    fn enqueue(&mut self, job: Job) -> Result<(), ScoreError> {
        job.check(&self.limits)?;
        self.waiting.push(job);
        Ok(())
    }

    /// Returns the next forward pass. Its results must be passed to [`Scheduler::complete`].
    pub fn next_batch(&mut self) -> ScheduledBatch {
        let mut scheduled = ScheduledBatch::default();
        if let Some(suspect) = self.running.iter().find(|running| running.retry_alone) {
            scheduled.add_chunk(suspect, self.config.token_budget);
            return scheduled;
        }
        self.add_running(&mut scheduled);
        self.admit_waiting(&mut scheduled);
        scheduled
    }

    /// Adds the next chunks of running queries: first those that decode, then the others by priority. While a more
    /// urgent query waits or runs, the query that has run longest keeps a share of the pass, so that neither starves
    /// the other.
    fn add_running(&self, scheduled: &mut ScheduledBatch) {
        let budget = self.config.token_budget;
        let (decoding, mut prefilling): (Vec<_>, Vec<_>) =
            self.running.iter().partition(|running| running.is_decoding());
        for running in decoding {
            scheduled.add_chunk(running, budget);
        }
        let running_priorities = prefilling.iter().map(|running| running.priority());
        let most_urgent = running_priorities.chain(self.waiting.most_urgent()).min();
        if let Some(&oldest) = prefilling.first()
            && most_urgent < Some(oldest.priority())
        {
            prefilling.remove(0);
            let used = scheduled.batch.tokens.len();
            let share = budget.saturating_sub(used).div_ceil(OLDEST_SHARE);
            scheduled.add_chunk(oldest, used + share);
        }
        prefilling.sort_by_key(|running| running.priority());
        for running in prefilling {
            scheduled.add_chunk(running, budget);
        }
    }

    /// Starts queries from the queue and adds their first chunks, until the pass is full or nothing more can start.
    fn admit_waiting(&mut self, scheduled: &mut ScheduledBatch) {
        let SchedulerConfig { token_budget, max_running } = self.config;
        let mut skipped = SkippedQueries::default();
        while skipped.count < LOOKAHEAD
            && self.running.len() < max_running
            && scheduled.batch.tokens.len() < token_budget
        {
            let Some(key) = self.waiting.next(&skipped) else { return };
            match self.admit(key) {
                Admission::Deferred => self.waiting.skip(key, &mut skipped),
                Admission::NoBlocks => return,
                Admission::Answered(id, scores) => {
                    scheduled.started.push(id);
                    scheduled.answered.push(QueryUpdate { id, result: Ok(QueryEvent::Scores(scores)) });
                }
                Admission::Running(running) => {
                    scheduled.started.push(running.id);
                    scheduled.add_chunk(&running, token_budget);
                    self.running.push(*running);
                }
            }
        }
    }

    /// Tries to start a waiting query: answers it from the cache, defers it, or reserves its blocks.
    fn admit(&mut self, key: QueueKey) -> Admission {
        let Some(waiting) = self.waiting.get(key) else { return Admission::NoBlocks };
        if self.must_wait(waiting) {
            return Admission::Deferred;
        }
        // An overdue query does not wait again. Otherwise it could wait forever, if every query that computes part of
        // its prefix is cancelled.
        let may_wait = waiting.dependency.is_none() || !self.waiting.is_overdue(key);
        let job = &waiting.job;
        let required = job.required_scores();
        let prefix = self.cache.acquire(job.reusable_tokens(), required);
        if job.generation.is_none() && required.from + prefix.scores.len() == job.query.tokens.len() {
            return self.answer_from_cache(key, &prefix);
        }
        if may_wait && let Some(dependency) = self.find_dependency(job, &prefix) {
            self.cache.release_prefix(&prefix);
            self.waiting.defer(key, dependency);
            return Admission::Deferred;
        }
        self.start(key, prefix)
    }

    /// Returns whether the query that `waiting` depends on has yet to publish their common prefix.
    fn must_wait(&self, waiting: &WaitingQuery) -> bool {
        let Some(dependency) = waiting.dependency else { return false };
        let is_pending =
            |running: &RunningQuery| running.id == dependency.on && running.published_tokens() < dependency.tokens;
        self.running.iter().any(is_pending)
    }

    /// Returns a dependency on a running query that is about to compute much of what `job` needs.
    fn find_dependency(&self, job: &Job, prefix: &CachedPrefix) -> Option<PrefixDependency> {
        self.running.iter().find_map(|running| running.dependency_of(job, prefix))
    }

    /// Answers a query whose scores are all in its cached prefix.
    fn answer_from_cache(&mut self, key: QueueKey, prefix: &CachedPrefix) -> Admission {
        self.cache.release_prefix(prefix);
        let Some(job) = self.waiting.take(key) else { return Admission::NoBlocks };
        let scores = Scores {
            logprobs: prefix.scores.iter().map(|score| score.logprob).collect(),
            positions: job.cached_positions(&prefix.scores),
            cached_tokens: job.query.tokens.len(),
            ..Scores::default()
        };
        Admission::Answered(job.id, scores)
    }

    /// Starts a waiting query with the blocks that it needs beyond its cached prefix.
    fn start(&mut self, key: QueueKey, prefix: CachedPrefix) -> Admission {
        let Some(waiting) = self.waiting.get(key) else { return Admission::NoBlocks };
        let cached_kv = self.cache.cached_kv_len(&waiting.job.query.tokens);
        let max_len = waiting.job.max_len();
        let Some((prefix, blocks)) = self.reserve_blocks(max_len, prefix) else { return Admission::NoBlocks };
        let Some(job) = self.waiting.take(key) else { return Admission::NoBlocks };
        Admission::Running(Box::new(RunningQuery::new(job, prefix, blocks, cached_kv)))
    }

    /// Returns the block table for `max_len` tokens: the blocks of the prefix, then new ones. If too few blocks are
    /// available, releases the prefix and returns `None`.
    ///
    /// If no other query is running, the query gives up its cached prefix instead, so that it can start.
    fn reserve_blocks(&mut self, max_len: usize, mut prefix: CachedPrefix) -> Option<(CachedPrefix, Vec<BlockId>)> {
        let total = (max_len - 1).div_ceil(BLOCK_TOKENS);
        if total - prefix.blocks.len() > self.cache.available() {
            self.cache.release_prefix(&prefix);
            if !self.running.is_empty() {
                return None;
            }
            prefix = CachedPrefix::default();
        }
        let mut blocks = prefix.blocks.clone();
        while blocks.len() < total {
            blocks.push(self.cache.allocate()?);
        }
        Some((prefix, blocks))
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

    /// Releases a query's blocks and refunds its client for the tokens that were not sampled.
    fn release(&mut self, running: &RunningQuery) {
        running.release(&mut self.cache);
        self.waiting.refund(running.query.scheduling, running.unsampled_tokens());
    }

    /// Cancels queries and frees their blocks; returns how many were waiting or running.
    pub fn cancel(&mut self, ids: &[QueryId]) -> usize {
        let before = self.waiting.len() + self.running.len();
        let ids: HashSet<QueryId> = ids.iter().copied().collect();
        self.waiting.cancel(&ids);
        let (cancelled, running): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.running).into_iter().partition(|running| ids.contains(&running.id));
        self.running = running;
        for query in &cancelled {
            self.release(query);
        }
        before - self.waiting.len() - self.running.len()
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
