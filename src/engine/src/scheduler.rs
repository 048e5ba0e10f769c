//! The scheduler: which tokens of which queries go into the next forward pass.
//!
//! A query is admitted when the cache has a block for each of its tokens, so nothing ever has to be preempted. Long ones
//! are cut into chunks by the token budget. A query whose beginning is being computed by another waits for it and then
//! reads it from the cache. The last token of a query is scored but never runs through the model.
//!
//! Who is next is the queue's to say (`queue.rs`): by priority, then by turns.
//!
//! A query that generates has a block for each token that it may come to. Once its own tokens are computed it adds one token
//! to each pass, before the chunks of others, so that a long text does not hold up those that are being written.

use std::collections::HashSet;

use crate::backend::{BLOCK_TOKENS, BackendError, BlockId, ForwardBatch, Limits, TokenScore};
use crate::cache::{CacheUse, KvCache, Prefix};
use crate::queue::{Leader, Passed, Place, Queue};
use crate::running::{Job, Part, Running};
use crate::scorer::{Event, Generation, MAX_TOP, Query, ScoreError, Scores};

/// How far the scheduler looks past waiting queries that it defers.
const LOOKAHEAD: usize = 512;

/// The longest running query's part of a pass that more urgent ones would fill.
const SHARE: usize = 4;

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

/// What became known of a query, or why no more will. A query that does not generate ends with its scores.
pub type Progress = (QueryId, Result<Event, ScoreError>);

/// One forward pass and what is to become of its results.
#[derive(Debug, Default)]
pub struct Step {
    /// What the backend runs; it may be empty.
    pub batch: ForwardBatch,
    parts: Vec<Part>,
    known: Vec<Progress>,
    /// Queries that left the queue.
    started: Vec<QueryId>,
}

impl Step {
    /// Queries that this pass computes.
    pub(crate) fn queries(&self) -> usize {
        self.parts.len()
    }

    /// Queries that waited until now: those that run for the first time, and those that the cache answers.
    pub(crate) fn started(&self) -> &[QueryId] {
        &self.started
    }
}

/// Queries in, forward passes out, results in, answers out.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    limits: Limits,
    cache: KvCache,
    waiting: Queue,
    running: Vec<Running>,
}

impl Scheduler {
    /// A scheduler for a backend with these limits.
    pub fn new(limits: Limits, config: SchedulerConfig) -> Self {
        let cache = KvCache::new(limits.blocks);
        Self { config, limits, cache, waiting: Queue::default(), running: Vec::new() }
    }

    /// The longest query that fits, in tokens: what the model takes, or what the cache holds (and the last, which needs no room).
    pub fn max_length(limits: &Limits) -> usize {
        limits.max_length.min(limits.blocks * BLOCK_TOKENS + 1)
    }

    /// Accepts a query, or says what is wrong with it.
    pub fn submit(&mut self, id: QueryId, query: Query) -> Result<(), ScoreError> {
        self.enqueue(Job { id, query, generation: None })
    }

    /// Accepts a query that is to be continued, or says what is wrong with it.
    pub fn submit_generation(&mut self, id: QueryId, query: Query, generation: Generation) -> Result<(), ScoreError> {
        self.enqueue(Job { id, query, generation: Some(generation) })
    }

    fn enqueue(&mut self, job: Job) -> Result<(), ScoreError> {
        check(&job, &self.limits)?;
        self.waiting.push(job);
        Ok(())
    }

    /// Forgets these queries and frees their blocks; returns how many there were.
    pub fn cancel(&mut self, ids: &[QueryId]) -> usize {
        let before = self.waiting.len() + self.running.len();
        let gone: HashSet<QueryId> = ids.iter().copied().collect();
        self.waiting.cancel(&gone);
        let (cancelled, running) = std::mem::take(&mut self.running).into_iter().partition(|r| gone.contains(&r.id));
        self.running = running;
        let cancelled: Vec<Running> = cancelled;
        cancelled.iter().for_each(|running| self.release(running));
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
        if let Some(suspect) = self.running.iter().find(|running| running.alone) {
            step.parts.extend(suspect.add_chunk(&mut step.batch, budget));
            return step;
        }
        self.add_running(&mut step);
        let mut passed = Passed::default();
        while passed.count < LOOKAHEAD
            && self.running.len() < self.config.max_running
            && step.batch.tokens.len() < budget
        {
            let Some(place) = self.waiting.next(&passed) else { break };
            match self.admit(place) {
                Admission::Deferred => self.waiting.pass(place, &mut passed),
                Admission::NoRoom => break,
                Admission::Answered(scores) => {
                    step.started.push(scores.0);
                    step.known.push(scores);
                }
                Admission::Running(running) => {
                    step.started.push(running.id);
                    step.parts.extend(running.add_chunk(&mut step.batch, budget));
                    self.running.push(*running);
                }
            }
        }
        step
    }

    /// Adds the next chunks of running queries: first of those that draw, then by priority. While a more urgent query waits
    /// or runs, the longest running one is left a share of the pass, so that neither holds up the other.
    fn add_running(&self, step: &mut Step) {
        let budget = self.config.token_budget;
        let (drawing, mut reading): (Vec<_>, Vec<_>) = self.running.iter().partition(|running| running.is_drawing());
        for running in drawing {
            step.parts.extend(running.add_chunk(&mut step.batch, budget));
        }
        let priority = |running: &&Running| running.query.turn.priority;
        let most_urgent = reading.iter().map(priority).chain(self.waiting.most_urgent()).min();
        if let Some(oldest) = reading.first().copied().filter(|oldest| most_urgent < Some(priority(oldest))) {
            reading.remove(0);
            let left = budget.saturating_sub(step.batch.tokens.len());
            let share = step.batch.tokens.len() + left.div_ceil(SHARE);
            step.parts.extend(oldest.add_chunk(&mut step.batch, share));
        }
        reading.sort_by_key(priority);
        for running in reading {
            step.parts.extend(running.add_chunk(&mut step.batch, budget));
        }
    }

    /// Takes the results of a step; returns what became known, in order.
    ///
    /// When a pass of several queries fails, each is tried alone, so that only those that cannot be computed fail.
    pub fn complete(&mut self, step: Step, result: Result<Vec<TokenScore>, BackendError>) -> Vec<Progress> {
        let Step { batch, parts, mut known, .. } = step;
        let scores = match result {
            Ok(scores) if scores.len() == batch.scores.len() => Ok(scores),
            Ok(short) => Err(format!("{} scores came back for {}", short.len(), batch.scores.len())),
            Err(error) => Err(error.to_string()),
        };
        match scores {
            Ok(scores) => {
                let mut scores = scores.into_iter();
                for part in parts {
                    let own = scores.by_ref().take(part.scores).collect();
                    self.advance(&part, own, &mut known);
                }
            }
            Err(error) => match parts.as_slice() {
                [part] => known.extend(self.end(part.id).map(|id| (id, Err(ScoreError::Backend(error))))),
                parts => {
                    let failed: HashSet<QueryId> = parts.iter().map(|part| part.id).collect();
                    self.running.iter_mut().for_each(|running| running.alone |= failed.contains(&running.id));
                }
            },
        }
        known
    }

    /// Notes what a step computed for a running query.
    fn advance(&mut self, part: &Part, scores: Vec<TokenScore>, known: &mut Vec<Progress>) {
        let Some(running) = self.running.iter_mut().find(|running| running.id == part.id) else { return };
        if let Some(at) = scores.iter().position(|score| !score.logprob.is_finite()) {
            let (position, logprob) = (running.next_score() + at, scores[at].logprob);
            let error = format!("the log-probability of token {position} is {logprob}");
            self.end(part.id);
            known.push((part.id, Err(ScoreError::Backend(error))));
            return;
        }
        let events = running.advance(part, scores, &mut self.cache);
        known.extend(events.into_iter().map(|event| (part.id, Ok(event))));
        if running.is_done() {
            self.end(part.id);
        }
    }

    /// Takes a query out of those that run, and its blocks back.
    fn end(&mut self, id: QueryId) -> Option<QueryId> {
        let index = self.running.iter().position(|running| running.id == id)?;
        let ended = self.running.remove(index);
        self.release(&ended);
        Some(id)
    }

    /// Takes a query's blocks back, and its client is not charged for what was not drawn.
    fn release(&mut self, running: &Running) {
        running.release(&mut self.cache);
        self.waiting.refund(running.query.turn, running.undrawn());
    }

    /// Tries to start the query at this place of the queue.
    fn admit(&mut self, place: Place) -> Admission {
        let Some(waiting) = self.waiting.get(place) else { return Admission::NoRoom };
        if let Some(leader) = waiting.behind {
            let waits = |running: &Running| running.id == leader.id && running.published() < leader.tokens;
            if self.running.iter().any(waits) {
                return Admission::Deferred;
            }
        }
        // Another one may always be computing some of it, and be cancelled: once overdue, a query waits for no second one.
        let may_wait = waiting.behind.is_none() || !self.waiting.is_overdue(place);
        let job = &waiting.job;
        let (len, wanted, longest) = (job.query.tokens.len(), job.wanted(), job.longest());
        let prefix = self.cache.acquire(job.reusable(), wanted);
        if job.generation.is_none() && prefix.known.len() == len - wanted.from {
            let logprobs = prefix.known.iter().map(|known| known.logprob).collect();
            let positions = job.positions(&prefix.known);
            self.give_back(&prefix);
            let scores = Scores { logprobs, positions, cached_tokens: len, ..Scores::default() };
            return self.take(place, |job| Admission::Answered((job.id, Ok(Event::Scores(scores)))));
        }
        if let Some(leader) = self.leader(job, &prefix).filter(|_| may_wait) {
            self.give_back(&prefix);
            self.waiting.defer(place, leader);
            return Admission::Deferred;
        }
        let held = self.cache.held(&job.query.tokens);
        let Some((prefix, blocks)) = self.reserve(longest, prefix) else { return Admission::NoRoom };
        self.take(place, |job| Admission::Running(Box::new(Running::new(job, prefix, blocks, held))))
    }

    fn take(&mut self, place: Place, then: impl FnOnce(Job) -> Admission) -> Admission {
        self.waiting.take(place).map_or(Admission::NoRoom, then)
    }

    fn give_back(&mut self, prefix: &Prefix) {
        for &block in prefix.partial.iter().map(|(block, _)| block).chain(prefix.blocks.iter().rev()) {
            self.cache.release(block);
        }
    }

    /// Allocates the blocks that a query needs beyond its prefix; or nothing, and the prefix is given back.
    ///
    /// A query that would have the cache for itself gives up its prefix if the rest does not fit beside it.
    fn reserve(&mut self, longest: usize, prefix: Prefix) -> Option<(Prefix, Vec<BlockId>)> {
        let total = (longest - 1).div_ceil(BLOCK_TOKENS);
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
    fn leader(&self, job: &Job, prefix: &Prefix) -> Option<Leader> {
        let (query, wanted) = (job.reusable(), job.wanted());
        let rest = job.query.tokens.len() - 1 - prefix.computed.min(job.query.tokens.len() - 1);
        let unknown = wanted.from + prefix.known.len();
        self.running.iter().find_map(|running| {
            let common = query.iter().zip(&running.query.tokens).take_while(|(a, b)| a == b).count();
            // From the first token on of which it does not learn what is asked, all it computes must be computed again.
            let learns = running.query.score_from <= unknown && (!wanted.best || running.query.extras.top > 0);
            let useful = if learns { common } else { common.min(unknown) };
            let tokens = useful.min(running.promised());
            let gain = tokens.saturating_sub(prefix.computed);
            let worth = gain >= BLOCK_TOKENS || (gain > 0 && gain * 4 >= rest);
            (worth && running.published() < tokens).then_some(Leader { id: running.id, tokens })
        })
    }
}

enum Admission {
    Deferred,
    NoRoom,
    Answered(Progress),
    Running(Box<Running>),
}

fn check(job: &Job, limits: &Limits) -> Result<(), ScoreError> {
    let Job { query, generation, .. } = job;
    let (len, limit) = (query.tokens.len(), Scheduler::max_length(limits));
    if query.score_from == 0 {
        return Err(ScoreError::NothingGiven(0));
    }
    if query.score_from + usize::from(generation.is_none()) > len {
        return Err(ScoreError::NothingToScore { score_from: query.score_from, len });
    }
    if job.longest() > limit {
        return Err(ScoreError::TooLong { len: job.longest(), limit });
    }
    let top = query.extras.top.max(generation.as_ref().map_or(0, |generation| generation.extras.top));
    if top > MAX_TOP {
        return Err(ScoreError::TooManyAlternatives { top, limit: MAX_TOP });
    }
    generation.as_ref().map_or(Ok(()), Generation::check)?;
    let vocab = limits.vocab_size;
    let subsets = [Some(&query.extras), generation.as_ref().map(|generation| &generation.extras)];
    for subset in subsets.into_iter().flatten().filter_map(|extras| extras.subset.as_deref()) {
        let largest = subset.largest();
        if largest.is_none_or(|largest| largest as usize >= vocab) {
            return Err(ScoreError::Subset { largest, limit: vocab });
        }
    }
    match query.tokens.iter().position(|&token| token as usize >= vocab) {
        Some(position) => Err(ScoreError::TokenOutOfRange { token: query.tokens[position], position, limit: vocab }),
        None => Ok(()),
    }
}
