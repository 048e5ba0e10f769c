//! The scheduler: which tokens of which queries go into the next forward pass.
//!
//! A query is admitted when the cache has a block for each of its tokens, so nothing ever has to be preempted. Long ones
//! are cut into chunks by the token budget. A query whose beginning is being computed by another waits for it and then
//! reads it from the cache. The last token of a query is scored but never runs through the model.

use std::collections::{HashSet, VecDeque};

use crate::backend::{BLOCK_TOKENS, BackendError, BlockCopy, BlockId, Chunk, ForwardBatch, Hidden, Limits, ScoreRow};
use crate::cache::{CacheUse, KvCache, Prefix};
use crate::chain::Chain;
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

/// What a step does for one running query.
#[derive(Debug)]
struct Part {
    id: QueryId,
    rows: usize,
    scores: usize,
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

/// A query that holds its blocks.
#[derive(Debug)]
struct Running {
    id: QueryId,
    query: Query,
    /// Block table for all tokens but the last.
    blocks: Vec<BlockId>,
    /// Tokens found in the cache.
    cached: usize,
    /// Tokens with keys and values, those found and those computed.
    computed: usize,
    /// Blocks that can be found by others, and the chain to their end.
    published: usize,
    chain: Chain,
    /// Known log-probabilities of `tokens[score_from..]`.
    logprobs: Vec<f32>,
    /// For the first chunk: a block to copy from and one whose hidden state is read; both held until it is done.
    copy: Option<BlockCopy>,
    hidden: Option<BlockId>,
    borrowed: Option<BlockId>,
}

impl Running {
    /// Tokens that run through the model in all: every one but the last.
    fn target(&self) -> usize {
        self.query.tokens.len() - 1
    }

    /// Index of the first scored token whose log-probability is unknown.
    fn next_score(&self) -> usize {
        self.query.score_from + self.logprobs.len()
    }

    /// The known log-probabilities of `tokens[from..to]`.
    fn known(&self, from: usize, to: usize) -> Vec<Option<f32>> {
        let score = |i: usize| i.checked_sub(self.query.score_from).and_then(|i| self.logprobs.get(i).copied());
        (from..to).map(score).collect()
    }
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
            self.release(running);
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
        for running in &mut self.running {
            add_chunk(running, &mut step, self.config.token_budget);
        }
        let mut at = 0;
        while at < self.waiting.len().min(LOOKAHEAD)
            && self.running.len() < self.config.max_running
            && step.batch.tokens.len() < self.config.token_budget
        {
            match self.admit(at) {
                Admission::Deferred => at += 1,
                Admission::NoRoom => break,
                Admission::Answered(finished) => step.finished.push(finished),
                Admission::Running(mut running) => {
                    add_chunk(&mut running, &mut step, self.config.token_budget);
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
                self.release(&running);
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
        running.logprobs.extend_from_slice(logprobs);
        running.computed += part.rows;
        running.copy = None;
        running.hidden = None;
        if let Some(block) = running.borrowed.take() {
            self.cache.release(block);
        }
        publish(&mut self.cache, running);
        (running.computed == running.target()).then(|| {
            Ok(Scores {
                cached_tokens: running.cached,
                computed_tokens: running.target() - running.cached,
                logprobs: std::mem::take(&mut running.logprobs),
            })
        })
    }

    /// Gives back all blocks, the last first, so that the beginning of a prefix outlives its end.
    fn release(&mut self, running: &Running) {
        for &block in running.borrowed.iter().chain(running.blocks.iter().rev()) {
            self.cache.release(block);
        }
    }

    /// Tries to start the waiting query at `at`.
    fn admit(&mut self, at: usize) -> Admission {
        if let Some(leader) = self.waiting[at].behind {
            let waits = |running: &Running| running.id == leader.id && running.published * BLOCK_TOKENS < leader.tokens;
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
        self.take(at, |id, query| Admission::Running(Box::new(start(id, query, prefix, blocks))))
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
            (worth && running.published * BLOCK_TOKENS < tokens).then_some(Leader { id: running.id, tokens })
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

/// A query with its blocks: it starts where the prefix ends, or one token earlier if that token's hidden state is needed and not kept.
fn start(id: QueryId, query: Query, prefix: Prefix, blocks: Vec<BlockId>) -> Running {
    let needs_hidden = prefix.computed > 0 && query.score_from + prefix.logprobs.len() == prefix.computed;
    let hidden = prefix.hidden.filter(|_| needs_hidden);
    let computed = prefix.computed - usize::from(needs_hidden && hidden.is_none());
    let own = prefix.blocks.len();
    let copy = prefix.partial.filter(|&(_, tokens)| tokens > 0 && own < blocks.len()).map(|(from, tokens)| BlockCopy {
        from,
        to: blocks[own],
        tokens,
    });
    Running {
        id,
        query,
        blocks,
        cached: computed,
        computed,
        published: own,
        chain: prefix.chain,
        logprobs: prefix.logprobs,
        copy,
        hidden,
        borrowed: prefix.partial.map(|(block, _)| block),
    }
}

/// Adds a running query's next tokens to the step, as many as the budget leaves.
fn add_chunk(running: &mut Running, step: &mut Step, budget: usize) {
    let batch = &mut step.batch;
    let base = batch.tokens.len();
    let rows = (running.target() - running.computed).min(budget.saturating_sub(base));
    let end = running.computed + rows;
    let scored = batch.scores.len();
    for i in running.next_score()..running.query.tokens.len().min(end + 1) {
        let from = match ((i - 1).checked_sub(running.computed), running.hidden) {
            (Some(row), _) => Hidden::Row(base + row),
            (None, Some(block)) => Hidden::Block(block),
            (None, None) => break,
        };
        batch.scores.push(ScoreRow { from, target: running.query.tokens[i] });
    }
    let scores = batch.scores.len() - scored;
    if rows + scores == 0 {
        return;
    }
    for position in running.computed..end {
        if (position + 1) % BLOCK_TOKENS == 0 || position + 1 == running.target() {
            batch.keep.push((base + position - running.computed, running.blocks[position / BLOCK_TOKENS]));
        }
    }
    batch.copies.extend(running.copy.take());
    if rows > 0 {
        batch.tokens.extend_from_slice(&running.query.tokens[running.computed..end]);
        let blocks = running.blocks[..end.div_ceil(BLOCK_TOKENS)].to_vec();
        batch.chunks.push(Chunk { rows: base..base + rows, start: running.computed, blocks });
    }
    step.parts.push(Part { id: running.id, rows, scores });
}

/// Makes a running query's finished blocks findable, and the unfinished last one when it is done.
fn publish(cache: &mut KvCache, running: &mut Running) {
    let (len, target) = (running.query.tokens.len(), running.target());
    loop {
        let from = running.published * BLOCK_TOKENS;
        let full = from + BLOCK_TOKENS <= running.computed;
        let last = running.computed == target && target > from;
        let (to, computed) = match (full, last) {
            (true, _) => (from + BLOCK_TOKENS, BLOCK_TOKENS),
            (false, true) => (len, target - from),
            (false, false) => return,
        };
        let logprobs = running.known(from, to);
        let block = &mut running.blocks[running.published];
        let (chain, kept) = cache.publish(*block, running.chain, &running.query.tokens[from..to], computed, logprobs);
        *block = kept;
        running.chain = chain;
        running.published += 1;
    }
}
