//! The start of waiting queries: from their cached prefixes, as far as running places and blocks allow.
//!
//! If a running query is computing the beginning of a waiting one, the waiting query is deferred, and later reads that
//! beginning from the cache.
//!
//! A query that generates holds its place and its blocks for many passes. So queries that generate may not hold all of
//! them: a part is left to scoring queries, each of which ends after a few passes, and half of this part also to the
//! first generation of each client. A query that could not start even if all scoring queries ended waits until
//! generations end. Meanwhile, no further generation starts, but scoring queries do not wait for it.

use crate::backend::BlockId;
use crate::scheduling::cache::CachedPrefix;
use crate::scheduling::client_queue::{PrefixDependency, WaitingQuery};
use crate::scheduling::job::{Job, QueryId};
use crate::scheduling::queue::{QueueKey, SkippedQueries};
use crate::scheduling::running::RunningQuery;
use crate::scheduling::scheduler::{QueryUpdate, ScheduledBatch, Scheduler, SchedulerConfig};
use crate::scorer::{CacheNamespace, Query, QueryEvent, Scores};

/// Maximum number of queries that the scheduler defers in one pass. After that, it looks for no more queries to start.
const MAX_DEFERRED: usize = 512;

/// Maximum number of queries that the scheduler skips in one pass because too many others generate.
const MAX_BLOCKED: usize = 4096;

/// The divisor of the running slots and blocks that generations leave to scoring queries: one eighth.
const RESERVED_DIVISOR: usize = 8;

/// The outcome of an attempt to start a query.
enum Admission {
    /// The query waits for a prefix that another query computes.
    Deferred,
    /// The query waits until other queries have ended generating.
    Blocked,
    /// The cache has too few available blocks.
    NoBlocks,
    /// All of the query's scores are in the cache.
    Answered(QueryId, Scores),
    Running(Box<RunningQuery>),
}

impl Scheduler {
    /// Starts queries from the queue and adds their first chunks, until the pass is full or nothing more can start.
    pub(super) fn admit_waiting(&mut self, scheduled: &mut ScheduledBatch) {
        let SchedulerConfig { token_budget, max_running } = self.config;
        let mut skipped = SkippedQueries::default();
        let (mut deferred, mut blocked, mut skipped_scoring) = (0, 0, 0);
        while deferred < MAX_DEFERRED
            && blocked < MAX_BLOCKED
            && self.running.len() < max_running
            && scheduled.batch.tokens.len() < token_budget
        {
            // Once a query is blocked, only queries that do not generate can start.
            if blocked > 0 && self.waiting.scoring() == skipped_scoring {
                return;
            }
            let Some(key) = self.waiting.next(&mut skipped) else { return };
            match self.admit(key, blocked > 0) {
                outcome @ (Admission::Deferred | Admission::Blocked) => {
                    let count = if matches!(outcome, Admission::Deferred) { &mut deferred } else { &mut blocked };
                    *count += 1;
                    skipped_scoring += usize::from(self.waiting.get(key).is_some_and(|waiting| !waiting.generates()));
                    self.waiting.skip(key, &mut skipped);
                }
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

    /// Tries to start a waiting query: answers it from the cache, defers it, or reserves its blocks. If `only_scoring`
    /// is set, queries that generate are blocked.
    fn admit(&mut self, key: QueueKey, only_scoring: bool) -> Admission {
        let Some(waiting) = self.waiting.get(key) else { return Admission::NoBlocks };
        let job = &waiting.job;
        if waiting.generates() && (only_scoring || !self.has_place_to_generate(job.query.scheduling.client)) {
            return Admission::Blocked;
        }
        if self.must_wait(waiting) {
            return Admission::Deferred;
        }
        // An overdue query does not wait again. Otherwise it could wait forever, if every query that computes part of
        // its prefix is cancelled.
        let may_wait = waiting.dependency.is_none() || !self.waiting.is_overdue(key);
        let required = job.required_scores();
        let prefix = self.cache.acquire(job.query.namespace, job.reusable_tokens(), required);
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

    /// Returns whether one more query of a client may generate.
    fn has_place_to_generate(&self, client: u64) -> bool {
        let SchedulerConfig { token_budget, max_running } = self.config;
        // Each query that generates takes a place and, in most passes, one token of the budget.
        let limit = self.unreserved(max_running.min(token_budget), client);
        self.running.iter().filter(|running| running.generates()).count() < limit
    }

    /// Returns how many of `total` places or blocks queries that generate may hold for a query of a client to start.
    fn unreserved(&self, total: usize, client: u64) -> usize {
        let generates = |running: &RunningQuery| running.generates() && running.query.scheduling.client == client;
        let share = if self.running.iter().any(generates) { RESERVED_DIVISOR } else { 2 * RESERVED_DIVISOR };
        total - (total / share).max(1).min(total - 1)
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
        if !self.fits_beside_generation(waiting, &prefix) {
            self.cache.release_prefix(&prefix);
            return Admission::Blocked;
        }
        let Query { namespace, tokens, .. } = &waiting.job.query;
        let (namespace, blocks) = (*namespace, waiting.job.blocks());
        let cached_kv = self.cache.cached_kv_len(namespace, tokens);
        let Some((prefix, blocks)) = self.reserve_blocks(namespace, blocks, prefix) else { return Admission::NoBlocks };
        let Some(job) = self.waiting.take(key) else { return Admission::NoBlocks };
        Admission::Running(Box::new(RunningQuery::new(job, prefix, blocks, cached_kv, &mut self.cache)))
    }

    /// Returns whether a query would fit into the cache if all other queries that do not generate ended. If it
    /// generates, it may use only the blocks that are not reserved, unless no other query generates.
    fn fits_beside_generation(&self, waiting: &WaitingQuery, prefix: &CachedPrefix) -> bool {
        let (held, total) = (self.cache.generating(), self.cache.usage().total);
        if held == 0 {
            return true;
        }
        let client = waiting.job.query.scheduling.client;
        let limit = if waiting.generates() { self.unreserved(total, client) } else { total };
        let borrowed = prefix.partial.iter().map(|(block, _)| block);
        let shared = prefix.blocks.iter().chain(borrowed).filter(|&&block| self.cache.is_generating(block)).count();
        held + waiting.job.blocks() + usize::from(prefix.partial.is_some()) <= limit + shared
    }

    /// Returns the block table of a query with `total` blocks: the blocks of the prefix, then new ones. If too few
    /// blocks are available, releases the prefix and returns `None`.
    ///
    /// If no other query is running, the query gives up its cached prefix instead, so that it can start.
    fn reserve_blocks(
        &mut self,
        namespace: CacheNamespace,
        total: usize,
        mut prefix: CachedPrefix,
    ) -> Option<(CachedPrefix, Vec<BlockId>)> {
        if total - prefix.blocks.len() > self.cache.available() {
            self.cache.release_prefix(&prefix);
            if !self.running.is_empty() {
                return None;
            }
            prefix = CachedPrefix::empty(namespace);
        }
        let mut blocks = prefix.blocks.clone();
        while blocks.len() < total {
            blocks.push(self.cache.allocate()?);
        }
        Some((prefix, blocks))
    }
}
