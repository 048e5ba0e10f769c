//! Tests of the order of queries: priorities, fairness between clients, and freedom from starvation.
//! `scheduler/scoring.rs` tests that the order changes no answer.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use proptest::prelude::*;
use surprisal_engine::{
    Generation, Limits, PositionOptions, Query, QueryId, Sampling, Scheduler, SchedulerConfig, SchedulingParams,
    TokenChoice, TokenScore,
};

/// Tokens per query, except for long queries.
const LENGTH: usize = 16;

fn scheduler(token_budget: usize, max_running: usize) -> Scheduler {
    let limits = Limits { vocab_size: 1 << 30, max_length: 4096, blocks: 1000 };
    Scheduler::new(limits, SchedulerConfig { token_budget, max_running })
}

/// Returns a query that shares no prefix with any other.
fn query(id: QueryId, length: usize, priority: i32, client: u64) -> Query {
    let tokens = (0..length as u32).map(|i| id as u32 * 4096 + i).collect();
    Query { scheduling: SchedulingParams { priority, client }, ..Query::new(tokens, length - 1) }
}

/// Runs one forward pass; returns the queries that were answered.
fn pass(scheduler: &mut Scheduler) -> Vec<QueryId> {
    let scheduled = scheduler.next_batch();
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
fn drain(scheduler: &mut Scheduler) -> Vec<QueryId> {
    let mut answered = Vec::new();
    while !scheduler.is_idle() {
        answered.extend(pass(scheduler));
    }
    answered
}

/// Submits queries at once and returns the order in which they are answered.
fn order(turns: &[(i32, u64)]) -> Vec<QueryId> {
    let mut scheduler = scheduler(LENGTH, 1);
    for (id, &(priority, client)) in (0..).zip(turns) {
        scheduler.submit(id, query(id, LENGTH, priority, client)).unwrap();
    }
    drain(&mut scheduler)
}

proptest! {
    /// A client's queries of one priority are answered in the order of submission, each exactly once.
    #[test]
    fn a_clients_queries_are_answered_in_order(turns in proptest::collection::vec((-2i32..3, 0u64..4), 1..80)) {
        let answered = order(&turns);
        let mut sorted = answered.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..turns.len() as QueryId).collect::<Vec<_>>());
        let mut last = HashMap::new();
        for id in answered {
            if let Some(before) = last.insert(turns[id as usize], id) {
                prop_assert!(before < id, "query {before} was answered before query {id}");
            }
        }
    }

    /// Queries with smaller priority values are answered sooner, regardless of their client.
    #[test]
    fn more_urgent_queries_are_answered_first(turns in proptest::collection::vec((any::<i32>(), 0u64..4), 1..16)) {
        let answered = order(&turns);
        let priorities: Vec<i32> = answered.iter().map(|&id| turns[id as usize].0).collect();
        prop_assert!(priorities.is_sorted(), "{priorities:?}");
    }

    /// Cancelled queries are refunded: all other queries, submitted before or after, are answered as if the cancelled
    /// ones had never been submitted.
    #[test]
    fn cancelled_queries_are_refunded(
        queries in proptest::collection::vec((-1i32..2, 0u64..3, 2usize..100, any::<bool>()), 1..60),
    ) {
        let order = |with_cancelled: bool| {
            let mut scheduler = scheduler(LENGTH, 1);
            let submissions = (0..).zip(&queries);
            for (id, &(priority, client, length, is_cancelled)) in submissions.clone() {
                if with_cancelled || !is_cancelled {
                    scheduler.submit(id, query(id, length, priority, client)).unwrap();
                }
            }
            let cancelled = submissions.filter(|(_, (.., is_cancelled))| *is_cancelled);
            let cancelled: Vec<QueryId> = cancelled.map(|(id, _)| id).collect();
            scheduler.cancel(&cancelled);
            for client in 0..4 {
                scheduler.submit(1000 + client, query(1000 + client, LENGTH, 0, client)).unwrap();
            }
            drain(&mut scheduler)
        };
        prop_assert_eq!(order(true), order(false));
    }

    /// Queries are answered even if more urgent queries of new clients keep arriving.
    #[test]
    fn no_query_waits_forever(before in 0usize..20, priority in 0i32..=i32::MAX, newcomers in 1usize..4) {
        let mut scheduler = scheduler(LENGTH, 4);
        let (mut id, mut passes, mut left) = (0, 0, before + 1);
        for _ in 0..=before {
            scheduler.submit(id, query(id, LENGTH, priority, 0)).unwrap();
            id += 1;
        }
        while left > 0 {
            for _ in 0..newcomers {
                scheduler.submit(id, query(id, LENGTH, -1, id)).unwrap();
                id += 1;
            }
            left -= pass(&mut scheduler).iter().filter(|&&id| id <= before as QueryId).count();
            passes += 1;
            prop_assert!(passes <= 40 * (before + 1), "{left} of {} still wait after {passes} passes", before + 1);
        }
    }
}

#[test]
fn clients_take_turns() {
    let mut turns = vec![(0, 1); 200];
    turns.extend([(0, 2); 20]);
    let answered = order(&turns);
    for (nth, id) in (200..220).enumerate() {
        let at = answered.iter().position(|&answered| answered == id).unwrap();
        assert!(at <= 2 * nth + 3, "query {nth} of the second client is answered at position {at}");
    }
}

/// A client is charged for the tokens that were sampled, not for those that could have been, whether generation ends at
/// a stop token or is cancelled.
#[test]
fn tokens_that_were_not_sampled_are_refunded() {
    let cancelled = |scheduler: &mut Scheduler, id| scheduler.cancel(&[id]);
    let ended = |_: &mut Scheduler, _| 0;
    for (stop, end) in [(vec![], cancelled as fn(&mut Scheduler, QueryId) -> usize), (vec![7], ended)] {
        let mut scheduler = scheduler(2 * LENGTH, 2);
        for id in 0..60 {
            scheduler.submit(id, query(id, LENGTH, 0, 0)).unwrap();
        }
        let mut answered = Vec::new();
        for id in 100..110 {
            let (sampling, options) = (Sampling::GREEDY, PositionOptions::default());
            let generation = Generation { max_tokens: 1000, sampling, stop: stop.clone(), options };
            scheduler.submit_generation(id, query(id, LENGTH, 0, 1), generation).unwrap();
            let before = answered.len();
            while !answered.contains(&id) {
                answered.extend(pass(&mut scheduler));
                assert!(answered.len() <= before + 6, "text {id} waited for {} answers", answered.len() - before);
            }
            end(&mut scheduler, id);
        }
    }
}

/// An overdue query is taken before its turn, but this does not delay a new client's turn.
#[test]
fn an_overdue_query_does_not_delay_newcomers() {
    let mut scheduler = scheduler(LENGTH, 1);
    for (id, client) in (0..).zip([0; 3].into_iter().chain(1..=40).chain(1..=40)) {
        scheduler.submit(id, query(id, LENGTH, 0, client)).unwrap();
    }
    let answered: Vec<QueryId> = (0..35).flat_map(|_| pass(&mut scheduler)).collect();
    assert_eq!((answered[17], answered[34]), (1, 2), "the first client's other two queries run once they are overdue");
    scheduler.submit(100, query(100, LENGTH, 0, 100)).unwrap();
    let answered = drain(&mut scheduler);
    let at = |id| answered.iter().position(|&answered| answered == id);
    assert!(at(100) < at(43), "the new client's query waited for another client's second query: {answered:?}");
}

/// Returns a query that begins with the same `common` tokens as others, followed by `tail` tokens of its own.
fn shared(id: QueryId, common: u32, tail: u32, score_from: usize) -> Query {
    let tokens = (0..common).chain((0..tail).map(|i| id as u32 * 4096 + i)).collect();
    Query { scheduling: SchedulingParams { priority: 0, client: id }, ..Query::new(tokens, score_from) }
}

/// A document is scored even if queries that use it as their context keep arriving. Its query does not wait for them,
/// because they do not compute its log-probabilities.
#[test]
fn no_query_waits_for_queries_that_cannot_help() {
    let mut scheduler = scheduler(LENGTH, 8);
    scheduler.submit(0, shared(0, 193, 25, 193)).unwrap();
    scheduler.submit(1, shared(1, 193, 0, 1)).unwrap();
    for id in 2..50 {
        // Each query starts in the pass in which the previous one ends, and at that time has published at most 192
        // tokens.
        scheduler.submit(id, shared(id, 193, 16, 193)).unwrap();
    }
    assert_eq!(drain(&mut scheduler)[..2], [0, 1]);
}

/// There is always a running query that computes what the urgent query needs, but each of them is cancelled before it
/// finishes.
#[test]
fn an_overdue_query_does_not_wait_repeatedly() {
    let mut scheduler = scheduler(LENGTH, 8);
    scheduler.submit(0, shared(0, 19, 181, 1)).unwrap();
    pass(&mut scheduler);
    let urgent = SchedulingParams { priority: -1, client: 100 };
    scheduler.submit(100, Query { scheduling: urgent, ..shared(100, 19, 1, 1) }).unwrap();
    for id in 1.. {
        scheduler.submit(id, shared(id, 19, 181, 1)).unwrap();
        if pass(&mut scheduler).contains(&100) {
            break;
        }
        assert!(id < 40, "the urgent query still waits");
        scheduler.cancel(&[id - 1]);
    }
}

#[test]
fn a_long_query_and_urgent_ones_do_not_starve_each_other() {
    let mut scheduler = scheduler(LENGTH, 8);
    scheduler.submit(0, query(0, 900, 0, 0)).unwrap();
    pass(&mut scheduler);
    scheduler.submit(1, query(1, 8, -1, 1)).unwrap();
    assert_eq!(pass(&mut scheduler), [1], "the urgent query is answered in the next pass");
    let mut passes = 0;
    let done = |answered: Vec<QueryId>| answered.contains(&0);
    while !done(pass(&mut scheduler)) {
        passes += 1;
        scheduler.submit(1 + passes, query(1 + passes, LENGTH, -1, passes)).unwrap();
        assert!(passes <= 300, "the long query did not get its share of each pass");
    }
}
