//! The order of the chunks in a forward pass.
//!
//! Short queries of clients that have been idle are first, but not in two passes in a row. Then queries decode, with
//! one token each. Then running queries, whose next chunks have tags, and waiting queries take turns (`queue.rs`). The
//! chunk with the smallest tag takes as many of the remaining tokens as it can. So a long query gives way to other
//! clients after each of its chunks, and a short query of a client that has had less than its share is part of the next
//! pass.

use crate::scheduling::admission::Attempts;
use crate::scheduling::candidates::Candidate;
use crate::scheduling::queue::Tag;
use crate::scheduling::running::RunningQuery;
use crate::scheduling::scheduler::{ScheduledBatch, Scheduler};

/// The divisor of a pass's prefill tokens that are reserved for one running query that others would starve: a quarter.
/// It is halved after a pass that began with queries of clients that had been idle.
const STARVING_DIVISOR: usize = 4;

/// The tokens of a pass that are reserved for a running query.
#[derive(Clone, Copy)]
struct Reservation {
    /// The query's index in [`Scheduler::running`].
    index: usize,
    tokens: usize,
}

/// The state of a pass while queries take turns.
pub(super) struct Turns {
    /// The tags and the indices of the running queries that prefill, the greatest tag first.
    prefilling: Vec<(Tag, usize)>,
    attempts: Attempts,
    /// The divisor of the tokens that are reserved for a query that others would starve.
    starving_divisor: usize,
}

impl Scheduler {
    /// Creates the state at the beginning of a pass.
    pub(super) fn begin_turns(&self) -> Turns {
        let prefilling = self.running.iter().enumerate().filter(|(_, running)| !running.is_decoding());
        let mut prefilling: Vec<(Tag, usize)> = prefilling.map(|(index, running)| (running.tag(), index)).collect();
        prefilling.sort_unstable_by(|a, b| b.cmp(a));
        let starving_divisor = if self.began_with_idle { STARVING_DIVISOR / 2 } else { STARVING_DIVISOR };
        Turns { prefilling, attempts: Attempts::new(&self.running), starving_divisor }
    }

    /// Runs short queries of clients that have been idle, unless the last pass began with such queries. They end in this
    /// pass, and no more urgent query waits or runs. One that cannot start is tried again in its turn.
    pub(super) fn add_idle(&mut self, scheduled: &mut ScheduledBatch) {
        if std::mem::take(&mut self.began_with_idle) || self.waiting.first_after_idle().is_none() {
            return;
        }
        let priorities = self.running.iter().map(RunningQuery::priority).chain(self.waiting.most_urgent());
        let Some(most_urgent) = priorities.min() else { return };
        let limit = self.config.token_budget;
        let mut attempts = Attempts::new(&self.running);
        while self.can_start(&attempts)
            && let Some(key) = self.waiting.first_after_idle().filter(|key| key.tag().priority <= most_urgent)
            && let Some(tokens) = self.waiting.get(key).map(|waiting| waiting.job.tokens_to_compute())
            && scheduled.batch.tokens.len() + tokens <= limit
        {
            if self.start_or_reject(Candidate::in_turn(key), &mut attempts, limit, scheduled).is_some() {
                self.waiting.forget_idle(key);
            }
        }
        self.began_with_idle = !scheduled.batch.tokens.is_empty();
    }

    /// Adds the next tokens of the queries that decode, until the pass is full.
    pub(super) fn add_decoding(&self, scheduled: &mut ScheduledBatch) {
        for running in self.running.iter().filter(|running| running.is_decoding()) {
            scheduled.add_chunk(running, self.config.token_budget);
        }
    }

    /// Adds the next chunks of the queries that prefill and starts waiting queries, in the order of their tags, until
    /// the pass is full or nothing more can start.
    pub(super) fn add_in_turn(&mut self, scheduled: &mut ScheduledBatch, turns: Turns) {
        let mut reserved = self.reserve_share(&turns, scheduled.batch.tokens.len());
        let Turns { mut prefilling, mut attempts, .. } = turns;
        loop {
            let limit = self.config.token_budget - reserved.map_or(0, |reserved| reserved.tokens);
            if scheduled.batch.tokens.len() >= limit {
                break;
            }
            let running = prefilling.last().map(|&(tag, _)| tag);
            if let Some(candidate) = self.next_candidate(&mut attempts, running) {
                self.try_start(candidate, &mut attempts, limit, scheduled);
            } else if let Some((_, index)) = prefilling.pop() {
                reserved = reserved.filter(|reserved| reserved.index != index);
                let reserved_tokens = reserved.map_or(0, |reserved| reserved.tokens);
                let tokens = self.schedule_chunk(scheduled, index, self.config.token_budget - reserved_tokens, true);
                if tokens == self.running[index].uncomputed_tokens() {
                    attempts.record_end(&self.running[index]);
                }
            } else {
                break;
            }
        }
        if let Some(Reservation { index, .. }) = reserved {
            self.schedule_chunk(scheduled, index, self.config.token_budget, false);
        }
    }

    /// Reserves a share of a pass, of which `used` tokens are taken, for the query that has run longest of those that
    /// others would starve: more urgent queries wait or run, or it started before its turn, or it is overdue. Unless it
    /// is overdue, at least one token is left to the others.
    fn reserve_share(&self, turns: &Turns, used: usize) -> Option<Reservation> {
        let priorities = turns.prefilling.iter().map(|(tag, _)| tag.priority);
        let most_urgent = priorities.chain(self.waiting.most_urgent()).min()?;
        let is_overdue = |running: &RunningQuery| self.waiting.is_overdue_since(running.turn.served_at);
        let is_starving = |running: &RunningQuery| {
            running.priority() > most_urgent || running.turn.before_turn || is_overdue(running)
        };
        let starving = turns.prefilling.iter().filter(|&&(_, index)| is_starving(&self.running[index]));
        let index = starving.map(|&(_, index)| index).min()?;
        let starving = &self.running[index];
        let remaining = self.config.token_budget.saturating_sub(used);
        let most = if is_overdue(starving) { remaining } else { remaining.saturating_sub(1) };
        let share = remaining.div_ceil(turns.starving_divisor).min(most);
        Some(Reservation { index, tokens: share.min(starving.uncomputed_tokens()) })
    }

    /// Adds the next chunk of a running query to a pass that may then have `limit` tokens; returns its number of
    /// tokens.
    pub(super) fn schedule_chunk(
        &mut self,
        scheduled: &mut ScheduledBatch,
        index: usize,
        limit: usize,
        in_turn: bool,
    ) -> usize {
        let running = &mut self.running[index];
        let before = scheduled.batch.tokens.len();
        if !scheduled.add_chunk(running, limit) {
            return 0;
        }
        let tokens = scheduled.batch.tokens.len() - before;
        if in_turn && !running.turn.before_turn {
            self.waiting.serve_in_turn(running.query.scheduling, running.tag(), tokens as u64);
        } else {
            self.waiting.serve_before_turn(tokens as u64);
        }
        running.turn.served_at = self.waiting.served_tokens();
        tokens
    }
}
