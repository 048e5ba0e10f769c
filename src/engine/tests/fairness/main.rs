//! Tests of the order of queries and their chunks: priorities, fairness between clients, and freedom from starvation.
//! They count tokens and passes. `scheduler` tests that the order changes no answer.

#![allow(clippy::unwrap_used)]

mod order;
mod turns;

use surprisal_engine::{
    Limits, Query, QueryId, ScheduledBatch, Scheduler, SchedulerConfig, SchedulingParams, TokenChoice, TokenScore,
};

/// Tokens per query, except for long queries.
pub(crate) const LENGTH: usize = 16;

pub(crate) fn scheduler(token_budget: usize, max_running: usize) -> Scheduler {
    let limits = Limits { vocab_size: 1 << 30, max_length: 4096, blocks: 1000 };
    Scheduler::new(limits, SchedulerConfig { token_budget, max_running })
}

/// Returns a query that shares no prefix with any other.
pub(crate) fn query(id: QueryId, length: usize, priority: i32, client: u64) -> Query {
    let tokens = (0..length as u32).map(|i| id as u32 * 4096 + i).collect();
    Query { scheduling: SchedulingParams { priority, client }, ..Query::new(tokens, length - 1) }
}

/// Runs one forward pass; returns the queries that were answered.
pub(crate) fn pass(scheduler: &mut Scheduler) -> Vec<QueryId> {
    let scheduled = scheduler.next_batch();
    complete(scheduler, scheduled)
}

/// Completes a forward pass; returns the queries that were answered.
pub(crate) fn complete(scheduler: &mut Scheduler, scheduled: ScheduledBatch) -> Vec<QueryId> {
    let scores = scheduled.batch.scores.iter().map(|score| match score.choice {
        TokenChoice::Given(token) => TokenScore { token, logprob: -1.0, position: None },
        TokenChoice::Sampled(_) => TokenScore { token: 7, logprob: -1.0, position: None },
    });
    let scores = scores.collect();
    let mut answered = Vec::new();
    for update in scheduler.complete(scheduled, Ok(scores)) {
        update.result.unwrap();
        answered.push(update.id);
    }
    answered
}

/// Runs passes until nothing is left; returns the queries that were answered, in order.
pub(crate) fn drain(scheduler: &mut Scheduler) -> Vec<QueryId> {
    let mut answered = Vec::new();
    while !scheduler.is_idle() {
        answered.extend(pass(scheduler));
    }
    answered
}
