//! Tests of the order in which queries are answered, and of starvation.

use std::collections::HashMap;

use proptest::prelude::*;
use surprisal_engine::{Generation, PositionOptions, Query, QueryId, Sampling, Scheduler, SchedulingParams};

use crate::{LENGTH, complete, drain, pass, query, scheduler};

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
    fn more_urgent_queries_are_answered_first(turns in proptest::collection::vec((any::<i32>(), 0u64..4), 1..9)) {
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
            prop_assert!(passes <= 25 * (before + 1), "{left} of {} still wait after {passes} passes", before + 1);
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
    for id in 0..3 {
        scheduler.submit(id, query(id, LENGTH, 0, 0)).unwrap();
    }
    let mut answered = Vec::new();
    for id in 100..120 {
        scheduler.submit(id, query(id, LENGTH, 0, id)).unwrap();
        answered.extend(pass(&mut scheduler));
    }
    let at = |answered: &[QueryId], id| answered.iter().position(|&answered| answered == id).unwrap();
    let overdue = [at(&answered, 1), at(&answered, 2)];
    // The pass after eight others begins with a client that was idle.
    assert_eq!(overdue, [10, 18], "the first client's other two queries run once they are overdue: {answered:?}");
    scheduler.submit(200, query(200, LENGTH, 0, 100)).unwrap();
    scheduler.submit(201, query(201, LENGTH, 0, 201)).unwrap();
    let answered = drain(&mut scheduler);
    let is_first = at(&answered, 201) < at(&answered, 200);
    assert!(is_first, "the new client's query waited for another client's second query: {answered:?}");
}

/// Runs passes while urgent queries of 2,000 tokens wait, until the `count` other queries are answered. Returns the
/// number of tokens computed until then.
fn tokens_until_answered(token_budget: usize, count: u64) -> usize {
    let mut scheduler = scheduler(token_budget, 256);
    for id in 0..200 {
        scheduler.submit(id, query(id, 2000, i32::MIN, 0)).unwrap();
    }
    let small = 1000..1000 + count;
    for id in small.clone() {
        scheduler.submit(id, query(id, 13, 0, id)).unwrap();
    }
    let (mut left, mut tokens) = (count as usize, 0);
    while left > 0 {
        assert!(!scheduler.is_idle(), "{left} queries were not answered");
        let scheduled = scheduler.next_batch();
        tokens += scheduled.batch.tokens.len();
        left -= complete(&mut scheduler, scheduled).iter().filter(|id| small.contains(id)).count();
    }
    tokens
}

/// The longest wait is bounded in tokens, however long the overtaking queries are, and many small queries do not wait
/// one after the other.
#[test]
fn long_urgent_queries_delay_small_ones_by_a_bounded_number_of_tokens() {
    for token_budget in [64, 512] {
        // Eight full passes overtake; then a query of 2,000 tokens may be running.
        let bound = 8 * token_budget + 3 * 2000;
        let tokens = tokens_until_answered(token_budget, 1);
        assert!(tokens <= bound, "one query was answered after {tokens} tokens; the bound is {bound}");
        let bound = bound + 100 * 13 * 9;
        let tokens = tokens_until_answered(token_budget, 100);
        assert!(tokens <= bound, "100 queries were answered after {tokens} tokens; the bound is {bound}");
    }
}

/// Each cancellation takes logarithmic time: in linear time, this test would take hours.
#[test]
fn many_queries_are_cancelled_one_by_one() {
    const QUERIES: u64 = 200_000;
    let mut scheduler = scheduler(LENGTH, 1);
    let tokens = |id: QueryId| vec![id as u32, 1];
    for id in 0..QUERIES {
        let scheduling = SchedulingParams { priority: (id % 3) as i32, client: id % 7 };
        scheduler.submit(id, Query { scheduling, ..Query::new(tokens(id), 1) }).unwrap();
    }
    // Newest first, then oldest first, except for one query in the middle.
    let kept = QUERIES / 2;
    for id in (kept + 1..QUERIES).rev().chain(0..kept) {
        assert_eq!(scheduler.cancel(&[id]), 1);
        assert_eq!(scheduler.cancel(&[id]), 0, "a query is cancelled once");
    }
    assert_eq!(scheduler.queue_lengths(), (1, 0));
    assert_eq!(drain(&mut scheduler), [kept]);
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
    for id in 2.. {
        let scheduling = SchedulingParams { priority: 0, client: 2 };
        scheduler.submit(id, Query { scheduling, ..shared(id, 193, 16, 193) }).unwrap();
        if pass(&mut scheduler).contains(&1) {
            break;
        }
        // Three clients take turns.
        assert!(id <= 3 * 193 / LENGTH as u64 + 8, "the document waits");
    }
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
