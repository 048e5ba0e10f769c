//! The scheduler: which tokens of which queries go into the next forward pass.
//!
//! A query is admitted when the cache has a block for each of its tokens, so nothing ever has to be preempted. Long ones
//! are cut into chunks by the token budget. A query whose beginning is being computed by another waits for it and then
//! reads it from the cache. The last token of a query is scored but never runs through the model.

use std::collections::{HashSet, VecDeque};

use crate::backend::{BLOCK_TOKENS, BackendError, BlockId, ForwardBatch, Limits};
use crate::cache::{CacheUse, KvCache, Prefix};
use crate::running::{Part, Running};
use crate::scorer::{Query, ScoreError, Scores};

/// How far the scheduler looks past waiting queries that it defers.
const LOOKAHEAD: usize = 512;

/// Bounds of one forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Tokens a forward pass computes at most.
    pub token_budget: usize,
    /// Queries that are computed at a time at most.
    pub max_running: usize,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self { token_budget: 512, max_running: 256 }
    }
}

/// The caller's name for a query.
pub type QueryId = u64;

/// An answer, or why there is none.
pub type Finished = (QueryId, Result<Scores, ScoreError>);

/// One forward pass and what is to become of its results.
#[derive(Debug, Default)]
pub struct Step {
    /// What the backend runs; it may be empty.
    pub batch: ForwardBatch,
    parts: Vec<Part>,
    finished: Vec<Finished>,
}

/// A query that waits, maybe for another one.
#[derive(Debug)]
struct Waiting {
    id: QueryId,
    query: Query,
    behind: Option<Leader>,
}

/// The query that computes what another needs, until it has published that many tokens.
#[derive(Clone, Copy, Debug)]
struct Leader {
    id: QueryId,
    tokens: usize,
}

/// Queries in, forward passes out, results in, answers out.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    limits: Limits,
    cache: KvCache,
    waiting: VecDeque<Waiting>,
    running: Vec<Running>,
}

impl Scheduler {
    /// A scheduler for a backend with these limits.
    pub fn new(limits: Limits, config: SchedulerConfig) -> Self {
        let cache = KvCache::new(limits.blocks);
        Self { config, limits, cache, waiting: VecDeque::new(), running: Vec::new() }
    }

    /// The longest query that fits, in tokens: what the model takes, or what the cache holds (and the last, which needs no room).
    pub fn max_length(limits: &Limits) -> usize {
        limits.max_length.min(limits.blocks * BLOCK_TOKENS + 1)
    }

    /// Accepts a query, or says what is wrong with it.
    pub fn submit(&mut self, id: QueryId, query: Query) -> Result<(), ScoreError> {
        check(&query, &self.limits)?;
        self.waiting.push_back(Waiting { id, query, behind: None });
        Ok(())
    }

    /// Forgets these queries and frees their blocks; returns how many there were.
    pub fn cancel(&mut self, ids: &[QueryId]) -> usize {
        let before = self.waiting.len() + self.running.len();
        let gone: HashSet<QueryId> = ids.iter().copied().collect();
        self.waiting.retain(|waiting| !gone.contains(&waiting.id));
        let (cancelled, running) = std::mem::take(&mut self.running).into_iter().partition(|r| gone.contains(&r.id));
        self.running = running;
        let cancelled: Vec<Running> = cancelled;
        for running in &cancelled {
            running.release(&mut self.cache);
        }
        before - self.waiting.len() - self.running.len()
    }

    /// True when there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// How many queries wait and how many run.
    pub fn queue(&self) -> (usize, usize) {
        (self.waiting.len(), self.running.len())
    }

    pub(crate) fn cache_use(&self) -> CacheUse {
        self.cache.usage()
    }

    /// The next forward pass. Its results must be given to [`Scheduler::complete`].
    pub fn next_batch(&mut self) -> Step {
        let mut step = Step::default();
        let budget = self.config.token_budget;
        for running in &mut self.running {
            step.parts.extend(running.add_chunk(&mut step.batch, budget));
        }
        let mut at = 0;
        while at < self.waiting.len().min(LOOKAHEAD)
            && self.running.len() < self.config.max_running
            && step.batch.tokens.len() < budget
        {
            match self.admit(at) {
                Admission::Deferred => at += 1,
                Admission::NoRoom => break,
                Admission::Answered(finished) => step.finished.push(finished),
                Admission::Running(mut running) => {
                    step.parts.extend(running.add_chunk(&mut step.batch, budget));
                    self.running.push(*running);
                }
            }
        }
        step
    }

    /// Takes the results of a step; returns the queries it finished.
    pub fn complete(&mut self, step: Step, result: Result<Vec<f32>, BackendError>) -> Vec<Finished> {
        let mut finished = step.finished;
        let logprobs = match result {
            Ok(logprobs) if logprobs.len() == step.batch.scores.len() => Ok(logprobs),
            Ok(short) => Err(format!("{} log-probabilities came back for {}", short.len(), step.batch.scores.len())),
            Err(error) => Err(error.to_string()),
        };
        let mut at = 0;
        for part in &step.parts {
            let Some(index) = self.running.iter().position(|running| running.id == part.id) else { continue };
            let outcome = match &logprobs {
                Ok(logprobs) => self.advance(index, part, &logprobs[at..at + part.scores]),
                Err(error) => Some(Err(ScoreError::Backend(error.clone()))),
            };
            at += part.scores;
            if let Some(outcome) = outcome {
                let running = self.running.remove(index);
                running.release(&mut self.cache);
                finished.push((part.id, outcome));
            }
        }
        finished
    }

    /// Notes what a step computed for a running query; its outcome, if that ends it.
    fn advance(&mut self, index: usize, part: &Part, logprobs: &[f32]) -> Option<Result<Scores, ScoreError>> {
        let running = &mut self.running[index];
        if let Some(at) = logprobs.iter().position(|logprob| !logprob.is_finite()) {
            let position = running.next_score() + at;
            return Some(Err(ScoreError::Backend(format!(
                "the log-probability of token {position} is {}",
                logprobs[at]
            ))));
        }
        running.advance(part.rows, logprobs, &mut self.cache);
        (running.computed == running.target()).then(|| {
            Ok(Scores {
                cached_tokens: running.cached,
                computed_tokens: running.target() - running.cached,
                logprobs: std::mem::take(&mut running.logprobs),
            })
        })
    }

    /// Tries to start the waiting query at `at`.
    fn admit(&mut self, at: usize) -> Admission {
        if let Some(leader) = self.waiting[at].behind {
            let waits = |running: &Running| running.id == leader.id && running.published() < leader.tokens;
            if self.running.iter().any(waits) {
                return Admission::Deferred;
            }
        }
        let query = &self.waiting[at].query;
        let prefix = self.cache.acquire(&query.tokens, query.score_from);
        let len = query.tokens.len();
        if prefix.logprobs.len() == len - query.score_from {
            self.give_back(&prefix);
            let scores = Scores { cached_tokens: len, computed_tokens: 0, logprobs: prefix.logprobs };
            return self.take(at, |id, _| Admission::Answered((id, Ok(scores))));
        }
        if let Some(leader) = self.leader(&self.waiting[at].query, &prefix) {
            self.give_back(&prefix);
            self.waiting[at].behind = Some(leader);
            return Admission::Deferred;
        }
        let Some((prefix, blocks)) = self.reserve(at, prefix) else { return Admission::NoRoom };
        self.take(at, |id, query| Admission::Running(Box::new(Running::new(id, query, prefix, blocks))))
    }

    fn take(&mut self, at: usize, then: impl FnOnce(QueryId, Query) -> Admission) -> Admission {
        match self.waiting.remove(at) {
            Some(waiting) => then(waiting.id, waiting.query),
            None => Admission::NoRoom,
        }
    }

    fn give_back(&mut self, prefix: &Prefix) {
        for &block in prefix.partial.iter().map(|(block, _)| block).chain(prefix.blocks.iter().rev()) {
            self.cache.release(block);
        }
    }

    /// Allocates the blocks that a query needs beyond its prefix; or nothing, and the prefix is given back.
    ///
    /// A query that would have the cache for itself gives up its prefix if the rest does not fit beside it.
    fn reserve(&mut self, at: usize, prefix: Prefix) -> Option<(Prefix, Vec<BlockId>)> {
        let total = (self.waiting[at].query.tokens.len() - 1).div_ceil(BLOCK_TOKENS);
        let mut prefix = prefix;
        if total - prefix.blocks.len() > self.cache.available() {
            self.give_back(&prefix);
            if !self.running.is_empty() {
                return None;
            }
            prefix = Prefix::default();
        }
        let mut blocks = prefix.blocks.clone();
        while blocks.len() < total {
            blocks.push(self.cache.allocate()?);
        }
        Some((prefix, blocks))
    }

    /// A running query that is about to compute much of what this one needs.
    fn leader(&self, query: &Query, prefix: &Prefix) -> Option<Leader> {
        let rest = query.tokens.len() - 1 - prefix.computed.min(query.tokens.len() - 1);
        self.running.iter().find_map(|running| {
            let common = query.tokens.iter().zip(&running.query.tokens).take_while(|(a, b)| a == b).count();
            let tokens = common.min(running.target());
            let gain = tokens.saturating_sub(prefix.computed);
            let worth = gain >= BLOCK_TOKENS || (gain > 0 && gain * 4 >= rest);
            (worth && running.published() < tokens).then_some(Leader { id: running.id, tokens })
        })
    }
}

enum Admission {
    Deferred,
    NoRoom,
    Answered(Finished),
    Running(Box<Running>),
}

fn check(query: &Query, limits: &Limits) -> Result<(), ScoreError> {
    let (len, limit) = (query.tokens.len(), Scheduler::max_length(limits));
    if query.score_from == 0 {
        return Err(ScoreError::NothingGiven(0));
    }
    if query.score_from >= len {
        return Err(ScoreError::NothingToScore { score_from: query.score_from, len });
    }
    if len > limit {
        return Err(ScoreError::TooLong { len, limit });
    }
    let vocab = limits.vocab_size;
    match query.tokens.iter().position(|&token| token as usize >= vocab) {
        Some(position) => Err(ScoreError::TokenOutOfRange { token: query.tokens[position], position, limit: vocab }),
        None => Ok(()),
    }
}
