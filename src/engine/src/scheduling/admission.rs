//! The start of waiting queries: from their cached prefixes, as far as running slots and blocks allow.
//!
//! If a running query is computing the beginning of a waiting one, the waiting query is deferred, and later reads that
//! beginning from the cache.
//!
//! A query that generates holds its slot and its blocks for many passes. So queries that generate may not hold all of
//! them: a part is left to scoring queries, and half of this part also to the first generation of each client.
//! Generations also leave at least half of each pass's tokens. A query that could not start even if all scoring queries
//! ended waits until generations end. Meanwhile, no further generation starts, but scoring queries do not wait for it.
//!
//! A scoring query of more tokens than the budget of a pass is long. Besides overdue ones, a long query starts only
//! while fewer than [`MAX_LONG`] scoring queries run on after the pass. Such queries leave a running slot, and enough
//! blocks for the queries of one pass. While a query waits for blocks, only queries that end in the same pass start, so
//! that it gets the blocks that become available.

use crate::backend::{BLOCK_TOKENS, BlockId};
use crate::scheduling::cache::CachedPrefix;
use crate::scheduling::candidates::{Candidate, SkippedQueries, Successors};
use crate::scheduling::client_queue::{PrefixDependency, WaitingQuery};
use crate::scheduling::job::{Job, QueryId};
use crate::scheduling::queue::{QueueKey, Tag};
use crate::scheduling::running::{RunningQuery, Turn};
use crate::scheduling::scheduler::{QueryUpdate, ScheduledBatch, Scheduler, SchedulerConfig};
use crate::scorer::{CacheNamespace, QueryEvent, Scores};

/// Maximum number of queries that the scheduler defers in one pass. After that, it looks for no more queries to start.
const MAX_DEFERRED: usize = 512;

/// Maximum number of queries that the scheduler skips in one pass because running slots or blocks are missing.
const MAX_REJECTED: usize = 4096;

/// Number of tokens of queries that a pass may answer from the cache or defer, for each token of the token budget. Each
/// lookup for a query that adds no tokens to the pass counts as a block more.
const LOOKUPS_PER_TOKEN: usize = 16;

/// Number of scoring queries that run on after a pass, not counting less urgent ones, at which no long query starts.
const MAX_LONG: usize = 8;

/// The divisor of the running slots and blocks that generations leave to scoring queries: one eighth.
const RESERVED_DIVISOR: usize = 8;

/// The outcome of an attempt to start a query.
enum Admission {
    /// The query waits for a prefix that another query computes.
    Deferred,
    /// The query waits until other queries have ended generating.
    Blocked,
    /// The cache has too few available blocks, for this query or for one that was tried before.
    NoBlocks,
    /// Too many scoring queries run on after this pass, or only one running slot is left.
    Crowded,
    /// All of the query's scores are in the cache.
    Answered(QueryId, Scores),
    Running(Box<RunningQuery>),
}

/// The attempts to start queries in one pass.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    skipped: SkippedQueries,
    deferred: usize,
    /// Number of queries that could not start.
    rejected: usize,
    skipped_scoring: usize,
    /// Number of tokens that count against [`LOOKUPS_PER_TOKEN`].
    looked_up: usize,
    /// `true` once a query has been blocked. Then only queries that do not generate can start.
    only_scoring: bool,
    /// `true` once blocks were missing. Then only queries that end in this pass can start.
    no_blocks: bool,
    /// `true` once a long query did not start because too many scoring queries run on after this pass.
    crowded: bool,
    /// The priorities of the running scoring queries that do not end in this pass.
    lasting_scoring: Vec<i32>,
    /// Number of running queries that do not end in this pass, as far as is known.
    lasting: usize,
}

impl Attempts {
    /// Creates the state of a pass that begins with these running queries.
    pub(super) fn new(running: &[RunningQuery]) -> Self {
        let scoring = running.iter().filter(|running| !running.generates());
        let lasting_scoring = scoring.map(RunningQuery::priority).collect();
        Self { lasting_scoring, lasting: running.len(), ..Self::default() }
    }

    /// Records that the pass has the last chunk of a running query.
    pub(super) fn record_end(&mut self, running: &RunningQuery) {
        if running.generates() {
            return;
        }
        self.lasting -= 1;
        if let Some(index) = self.lasting_scoring.iter().position(|&priority| priority == running.priority()) {
            self.lasting_scoring.swap_remove(index);
        }
        // A query that was skipped may take the slot.
        if self.crowded {
            self.crowded = false;
            self.skipped = self.skipped.restart();
            self.skipped_scoring = 0;
        }
    }

    /// Records that a query has started, and whether it ends in this pass.
    fn record_start(&mut self, running: &RunningQuery, ends: bool) {
        self.lasting += usize::from(!ends);
        self.lasting_scoring.extend((!ends && !running.generates()).then_some(running.priority()));
    }

    /// Returns the reason why a query cannot start, if an earlier attempt shows one. The query is lasting if it does
    /// not end in this pass.
    fn reject(&self, is_lasting: bool, is_long: bool, before_turn: bool) -> Option<Admission> {
        if self.no_blocks && is_lasting {
            return Some(Admission::NoBlocks);
        }
        (self.crowded && is_long && !before_turn).then_some(Admission::Crowded)
    }
}

impl Scheduler {
    /// Returns the waiting query to try next, unless none can start or the next chunk of a running query, with the tag
    /// `running`, is first.
    pub(super) fn next_candidate(&self, attempts: &mut Attempts, running: Option<Tag>) -> Option<Candidate> {
        if self.can_start(attempts) { self.waiting.next(&mut attempts.skipped, running) } else { None }
    }

    /// Returns whether another waiting query may start in this pass.
    pub(super) fn can_start(&self, attempts: &Attempts) -> bool {
        let SchedulerConfig { token_budget, max_running } = self.config;
        attempts.deferred < MAX_DEFERRED
            && attempts.rejected < MAX_REJECTED
            && attempts.looked_up < LOOKUPS_PER_TOKEN.saturating_mul(token_budget)
            && self.running.len() < max_running
            && !(attempts.only_scoring && self.waiting.scoring() == attempts.skipped_scoring)
    }

    /// Tries to start a waiting query as [`start_or_reject`](Self::start_or_reject) does, and skips it if it cannot start.
    pub(super) fn try_start(
        &mut self,
        candidate: Candidate,
        attempts: &mut Attempts,
        limit: usize,
        scheduled: &mut ScheduledBatch,
    ) {
        let Some(successors) = self.start_or_reject(candidate, attempts, limit, scheduled) else { return };
        let is_scoring = self.waiting.get(candidate.key).is_some_and(|waiting| !waiting.generates());
        attempts.skipped_scoring += usize::from(is_scoring);
        self.waiting.skip(candidate, &mut attempts.skipped, successors);
        if attempts.only_scoring {
            attempts.skipped.omit_generations();
        }
    }

    /// Tries to start a waiting query, and adds its first chunk to a pass that may then have `limit` tokens.
    /// Returns `None` if the query starts; otherwise, the queries of its client that may start before it.
    pub(super) fn start_or_reject(
        &mut self,
        candidate: Candidate,
        attempts: &mut Attempts,
        limit: usize,
        scheduled: &mut ScheduledBatch,
    ) -> Option<Successors> {
        let (used, looked_up) = (scheduled.batch.tokens.len(), attempts.looked_up);
        let successor = self.waiting.successor(candidate.key);
        let successors = match self.admit(candidate, attempts, limit - used) {
            Admission::Answered(id, scores) => {
                attempts.skipped.replace(candidate.key, successor);
                scheduled.started.push(id);
                scheduled.answered.push(QueryUpdate { id, result: Ok(QueryEvent::Scores(scores)) });
                return None;
            }
            Admission::Running(running) => {
                let ends = !running.generates() && running.uncomputed_tokens() <= limit - used;
                attempts.record_start(&running, ends);
                attempts.skipped.replace(candidate.key, successor);
                scheduled.started.push(running.id);
                self.running.push(*running);
                self.schedule_chunk(scheduled, self.running.len() - 1, limit, !candidate.before_turn);
                if scheduled.batch.tokens.len() > used {
                    attempts.looked_up = looked_up;
                }
                return None;
            }
            Admission::Deferred => Successors::All,
            Admission::Blocked => Successors::Scoring,
            Admission::NoBlocks | Admission::Crowded => Successors::None,
        };
        match successors {
            Successors::All => attempts.deferred += 1,
            Successors::Scoring | Successors::None => attempts.rejected += 1,
        }
        Some(successors)
    }

    /// Tries to start a waiting query: answers it from the cache, defers it, or reserves its blocks. The pass has
    /// `remaining` tokens left.
    fn admit(&mut self, candidate: Candidate, attempts: &mut Attempts, remaining: usize) -> Admission {
        let Candidate { key, before_turn, .. } = candidate;
        let Some(waiting) = self.waiting.get(key) else { return Admission::NoBlocks };
        let (job, generates) = (&waiting.job, waiting.generates());
        if generates && (attempts.only_scoring || !self.has_slot_to_generate(job.query.scheduling.client)) {
            attempts.only_scoring = true;
            return Admission::Blocked;
        }
        if self.must_wait(waiting) {
            return Admission::Deferred;
        }
        let is_lasting = generates || waiting.uncomputed.is_some_and(|uncomputed| uncomputed > remaining);
        let is_long = !generates && waiting.uncomputed.is_some_and(|uncomputed| uncomputed > self.config.token_budget);
        if let Some(rejected) = attempts.reject(is_lasting, is_long, before_turn) {
            return rejected;
        }
        // An overdue query does not wait again. Otherwise it could wait forever, if every query that computes part of
        // its prefix is cancelled.
        let may_wait = waiting.dependency.is_none() || !self.waiting.is_overdue(key);
        let required = job.required_scores();
        let prefix = self.cache.acquire(job.query.namespace, job.reusable_tokens(), required);
        attempts.looked_up += BLOCK_TOKENS;
        if job.generation.is_none() && required.from + prefix.scores.len() == job.query.tokens.len() {
            attempts.looked_up += job.query.tokens.len();
            return self.answer_from_cache(candidate, &prefix);
        }
        if may_wait && let Some(dependency) = self.find_dependency(job, &prefix) {
            self.cache.release_prefix(&prefix);
            attempts.looked_up += job.query.tokens.len();
            self.waiting.defer(key, dependency);
            return Admission::Deferred;
        }
        self.start(candidate, prefix, attempts, remaining)
    }

    /// Returns whether one more query of a client may generate.
    fn has_slot_to_generate(&self, client: u64) -> bool {
        let SchedulerConfig { token_budget, max_running } = self.config;
        // Each query that generates takes a slot and, in most passes, one token of the budget.
        let limit = self.unreserved(max_running.min(token_budget / 2).max(1), client);
        self.running.iter().filter(|running| running.generates()).count() < limit
    }

    /// Returns how many of `total` slots or blocks queries that generate may hold for a query of a client to start.
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
    fn answer_from_cache(&mut self, Candidate { key, before_turn, .. }: Candidate, prefix: &CachedPrefix) -> Admission {
        self.cache.release_prefix(prefix);
        let Some(job) = self.waiting.take(key, before_turn, 0) else { return Admission::NoBlocks };
        self.waiting.end(job.query.scheduling, 0, 0);
        let scores = Scores {
            logprobs: prefix.scores.iter().map(|score| score.logprob).collect(),
            positions: job.cached_positions(&prefix.scores),
            cached_tokens: job.query.tokens.len(),
            ..Scores::default()
        };
        Admission::Answered(job.id, scores)
    }

    /// Starts a waiting query with the blocks that it needs beyond its cached prefix, if it may run beside the others.
    fn start(
        &mut self,
        candidate: Candidate,
        prefix: CachedPrefix,
        attempts: &mut Attempts,
        remaining: usize,
    ) -> Admission {
        let Candidate { key, before_turn, .. } = candidate;
        let Some(waiting) = self.waiting.get(key) else { return Admission::NoBlocks };
        if !self.fits_beside_generation(waiting, &prefix) {
            self.cache.release_prefix(&prefix);
            attempts.only_scoring = true;
            return Admission::Blocked;
        }
        let (job, generates) = (&waiting.job, waiting.generates());
        let uncomputed = job.tokens_to_compute() - prefix.reusable_len(job.query.score_from);
        let is_long = !generates && uncomputed > self.config.token_budget;
        attempts.crowded |= is_long && !before_turn && self.is_crowded(key, attempts);
        let is_lasting = generates || uncomputed > remaining;
        let takes_last_slot = is_lasting && !generates && !before_turn && self.has_one_slot(attempts);
        let rejected = attempts.reject(is_lasting, is_long, before_turn);
        if let Some(rejected) = rejected.or_else(|| takes_last_slot.then_some(Admission::Crowded)) {
            self.cache.release_prefix(&prefix);
            self.waiting.set_uncomputed(key, uncomputed);
            return rejected;
        }
        match self.start_with_blocks(candidate, prefix, is_lasting) {
            Some(running) => Admission::Running(Box::new(running)),
            None => {
                attempts.no_blocks = true;
                self.waiting.set_uncomputed(key, uncomputed);
                Admission::NoBlocks
            }
        }
    }

    /// Starts a waiting query if enough blocks are available. A query that lasts longer than this pass leaves some.
    fn start_with_blocks(
        &mut self,
        Candidate { key, before_turn, .. }: Candidate,
        prefix: CachedPrefix,
        is_lasting: bool,
    ) -> Option<RunningQuery> {
        let job = &self.waiting.get(key)?.job;
        let (namespace, blocks) = (job.query.namespace, job.blocks());
        let (score_from, tokens_to_compute) = (job.query.score_from, job.tokens_to_compute());
        let cached_kv = self.cache.cached_kv_len(namespace, &job.query.tokens);
        let min_available = if is_lasting { self.blocks_of_a_pass() } else { 0 };
        let (prefix, blocks) = self.reserve_blocks(namespace, blocks, prefix, min_available)?;
        let uncomputed = tokens_to_compute - prefix.reusable_len(score_from);
        let job = self.waiting.take(key, before_turn, uncomputed)?;
        let turn = Turn {
            start: self.waiting.clamp_to_earliest_start(key.tag()),
            before_turn,
            served_at: self.waiting.served_tokens(),
        };
        Some(RunningQuery::new(job, prefix, blocks, cached_kv, turn, &mut self.cache))
    }

    /// Returns whether so many scoring queries run on after this pass that no long query of this priority may start.
    fn is_crowded(&self, key: QueueKey, attempts: &Attempts) -> bool {
        attempts.lasting_scoring.iter().filter(|&&priority| priority <= key.tag().priority).count() >= MAX_LONG
    }

    /// Returns whether queries that do not end in this pass take all running slots except one, which is left to
    /// queries that do.
    fn has_one_slot(&self, attempts: &Attempts) -> bool {
        attempts.lasting > 0 && attempts.lasting + 1 >= self.config.max_running
    }

    /// Returns how many blocks queries that last longer than a pass leave to the others: enough for the tokens of one
    /// pass, but at most an eighth.
    fn blocks_of_a_pass(&self) -> usize {
        let blocks = self.config.token_budget.div_ceil(BLOCK_TOKENS) + 1;
        blocks.min(self.cache.usage().total / RESERVED_DIVISOR)
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

    /// Returns the block table of a query with `total` blocks: the blocks of the prefix, then new ones. If fewer than
    /// `min_available` blocks would remain available, releases the prefix and returns `None`.
    ///
    /// If no other query is running, the query gives up its cached prefix instead, so that it can start.
    fn reserve_blocks(
        &mut self,
        namespace: CacheNamespace,
        total: usize,
        mut prefix: CachedPrefix,
        min_available: usize,
    ) -> Option<(CachedPrefix, Vec<BlockId>)> {
        if total - prefix.blocks.len() + min_available > self.cache.available() {
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
