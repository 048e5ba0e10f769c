//! The order of the chunks in a forward pass.
//!
//! Queries that decode are first, with one token each. Then running queries, whose next chunks have tags, and waiting
//! queries take turns (`queue.rs`). The chunk with the smallest tag takes as many of the remaining tokens as it can. So
//! a long query gives way to other clients after each of its chunks, and a short query of a client that has had less
//! than its share is part of the next pass.

use crate::scheduling::admission::Attempts;
use crate::scheduling::queue::Tag;
use crate::scheduling::running::RunningQuery;
use crate::scheduling::scheduler::{ScheduledBatch, Scheduler};

/// The divisor of a pass's prefill tokens that are reserved for one running query that others would starve: a quarter.
const STARVING_DIVISOR: usize = 4;

/// The tokens of a pass that are reserved for a running query.
#[derive(Clone, Copy)]
struct Reservation {
    /// The query's index in [`Scheduler::running`].
    index: usize,
    tokens: usize,
}

impl Scheduler {
    /// Adds the next tokens of the queries that decode.
    pub(super) fn add_decoding(&self, scheduled: &mut ScheduledBatch) {
        for running in self.running.iter().filter(|running| running.is_decoding()) {
            scheduled.add_chunk(running, self.config.token_budget);
        }
    }

    /// Adds the next chunks of the queries that prefill and starts waiting queries, in the order of their tags, until
    /// the pass is full or nothing more can start.
    pub(super) fn add_in_turn(&mut self, scheduled: &mut ScheduledBatch) {
        let mut reserved = self.reserve_share(scheduled.batch.tokens.len());
        let mut prefilling = self.prefilling();
        let mut attempts = Attempts::new(&self.running);
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

    /// Returns the tags and the indices of the queries that prefill, the greatest tag first.
    fn prefilling(&self) -> Vec<(Tag, usize)> {
        let prefilling = self.running.iter().enumerate().filter(|(_, running)| !running.is_decoding());
        let mut prefilling: Vec<(Tag, usize)> = prefilling.map(|(index, running)| (running.tag(), index)).collect();
        prefilling.sort_unstable_by(|a, b| b.cmp(a));
        prefilling
    }

    /// Reserves a share of a pass, of which `used` tokens are taken, for the query that has run longest of those that
    /// others would starve: more urgent queries wait or run, or it started before its turn, or it is overdue. Unless it
    /// is overdue, at least one token is left to the others.
    fn reserve_share(&self, used: usize) -> Option<Reservation> {
        let prefilling = || self.running.iter().enumerate().filter(|(_, running)| !running.is_decoding());
        let priorities = prefilling().map(|(_, running)| running.priority());
        let most_urgent = priorities.chain(self.waiting.most_urgent()).min()?;
        let is_overdue = |running: &RunningQuery| self.waiting.is_overdue_since(running.turn.served_at);
        let is_starving = |running: &RunningQuery| {
            running.priority() > most_urgent || running.turn.before_turn || is_overdue(running)
        };
        let (index, starving) = prefilling().find(|(_, running)| is_starving(running))?;
        let remaining = self.config.token_budget.saturating_sub(used);
        let most = if is_overdue(starving) { remaining } else { remaining.saturating_sub(1) };
        let share = remaining.div_ceil(STARVING_DIVISOR).min(most);
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
        if in_turn {
            self.waiting.serve_in_turn(running.query.scheduling, running.tag(), tokens as u64);
        } else {
            self.waiting.serve_before_turn(tokens as u64);
        }
        running.turn.served_at = self.waiting.served_tokens();
        tokens
    }
}
