//! Tests of chunks: clients take turns within long queries, and a short question is part of the next pass.

use std::collections::HashMap;
use std::ops::Range;

use proptest::prelude::*;
use surprisal_engine::{Generation, PositionOptions, Query, QueryId, Sampling, Scheduler, SchedulingParams};

use crate::{LENGTH, complete, drain, pass, query, scheduler};

/// Tokens of a long query.
const LONG: usize = 2000;

/// The client that asks short questions.
const ASKER: u64 = 99;

/// Clients that always have several queries waiting.
struct Flood {
    scheduler: Scheduler,
    clients: u64,
    length: usize,
    next_id: QueryId,
    /// The client of each query.
    owners: HashMap<QueryId, u64>,
    /// Number of queries of each client that are not answered.
    open: HashMap<u64, usize>,
    /// Number of tokens that each client's queries have run through the model.
    computed: HashMap<u64, usize>,
}

impl Flood {
    fn new(scheduler: Scheduler, clients: u64, length: usize) -> Self {
        let (owners, open, computed) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { scheduler, clients, length, next_id: 0, owners, open, computed }
    }

    fn submit(&mut self, length: usize, client: u64) -> QueryId {
        let id = self.next_id;
        self.next_id += 1;
        self.scheduler.submit(id, query(id, length, 0, client)).unwrap();
        self.owners.insert(id, client);
        *self.open.entry(client).or_default() += 1;
        id
    }

    /// Runs a pass beside these texts; returns how many of them it continued, and the queries that it answered.
    fn pass_beside(&mut self, texts: &Range<QueryId>) -> (usize, Vec<QueryId>) {
        let mut answered = self.pass().1;
        let all = answered.len();
        answered.retain(|id| !texts.contains(id));
        (all - answered.len(), answered)
    }

    /// Runs a pass; returns its number of tokens and the queries that it answered.
    fn pass(&mut self) -> (usize, Vec<QueryId>) {
        for client in 0..self.clients {
            while self.open.get(&client).is_none_or(|&open| open < 3) {
                self.submit(self.length, client);
            }
        }
        let scheduled = self.scheduler.next_batch();
        for token in &scheduled.batch.tokens {
            if let Some(&owner) = self.owners.get(&QueryId::from(token / 4096)) {
                *self.computed.entry(owner).or_default() += 1;
            }
        }
        let tokens = scheduled.batch.tokens.len();
        let answered = complete(&mut self.scheduler, scheduled);
        for owner in answered.iter().filter_map(|id| self.owners.get(id)) {
            *self.open.get_mut(owner).unwrap() -= 1;
        }
        (tokens, answered)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The next pass answers a question of a client that has had less than its share, whatever other clients have started.
    #[test]
    fn a_question_is_answered_by_the_next_pass(
        budget in 4usize..600,
        length in 0.0..1.0f64,
        clients in 1u64..9,
        max_running in 16usize..40,
        waits in proptest::collection::vec(0usize..50, 1..12),
    ) {
        let length = 2 + ((budget - 1) as f64 * length) as usize;
        let mut flood = Flood::new(scheduler(budget, max_running), clients, LONG);
        for wait in waits {
            // Afterwards, the others are owed as much as the client has had, and a chunk each.
            for _ in 0..wait + 2 * clients as usize + 2 {
                prop_assert_eq!(flood.pass().0, budget, "a pass is not full");
            }
            let question = flood.submit(length, ASKER);
            prop_assert!(flood.pass().1.contains(&question), "the question waits");
        }
    }

    /// Clients that send long queries advance at the same rate, within a pass and a query.
    #[test]
    fn long_queries_advance_at_the_same_rate(budget in 1usize..600, clients in 2u64..6, passes in 1usize..600) {
        let mut flood = Flood::new(scheduler(budget, 256), clients, LONG);
        for _ in 0..passes {
            flood.pass();
            let computed: Vec<usize> =
                (0..clients).map(|client| flood.computed.get(&client).copied().unwrap_or(0)).collect();
            let spread = computed.iter().max().unwrap() - computed.iter().min().unwrap();
            prop_assert!(spread <= 2 * budget, "{computed:?}");
        }
    }

    /// A client without waiting queries keeps its charges until its next query arrives.
    #[test]
    fn a_client_without_waiting_queries_keeps_its_charges(budget in 8usize..200, short in 50usize..400) {
        let mut flood = Flood::new(scheduler(budget, 256), 0, LONG);
        let lengths = [LONG, short];
        for (client, length) in (0..).zip(lengths) {
            flood.submit(length, client);
        }
        for _ in 0..40_000 / budget {
            for id in flood.pass().1 {
                let client = flood.owners[&id];
                flood.submit(lengths[client as usize], client);
            }
        }
        let (long, short) = (flood.computed[&0], flood.computed[&1]);
        prop_assert!(long.min(short) >= (long + short) / 4, "{long} and {short} tokens");
    }
}

/// New clients whose queries fill every pass do not starve a long query that runs.
#[test]
fn newcomers_do_not_starve_a_running_query() {
    let mut scheduler = scheduler(64, 256);
    scheduler.submit(0, query(0, LONG, 0, 0)).unwrap();
    pass(&mut scheduler);
    for id in (1..).step_by(2) {
        for id in [id, id + 1] {
            scheduler.submit(id, query(id, 65, 0, id)).unwrap();
        }
        if pass(&mut scheduler).contains(&0) {
            break;
        }
        // At least a quarter of every ninth pass.
        assert!(id < 2 * 9 * LONG as u64 / 16, "the long query starves");
    }
}

/// The scheduler refunds the tokens that a cancelled query has not computed.
#[test]
fn cancelled_running_queries_are_refunded() {
    let mut flood = Flood::new(scheduler(64, 256), 1, LONG);
    for _ in 0..20 {
        let id = flood.submit(LONG, ASKER);
        (0..4).for_each(|_| drop(flood.pass()));
        assert_eq!(flood.scheduler.cancel(&[id]), 1);
    }
    let question = flood.submit(65, ASKER);
    let passes = (1..).find(|_| flood.pass().1.contains(&question)).unwrap();
    assert!(passes <= 3, "the client of the cancelled queries waits {passes} passes");
}

fn generation(max_tokens: usize) -> Generation {
    Generation { max_tokens, sampling: Sampling::GREEDY, stop: Vec::new(), options: PositionOptions::default() }
}

/// Queries that generate take at most half of each pass.
#[test]
fn generations_leave_half_of_each_pass() {
    for budget in [2, 16, 64, 512] {
        let mut scheduler = scheduler(budget, 256);
        for id in 0..300 {
            scheduler.submit_generation(id, query(id, 3, 0, id % 3), generation(90)).unwrap();
        }
        (0..50).for_each(|_| drop(pass(&mut scheduler)));
        let decoding = scheduler.queue_lengths().1;
        assert!(decoding <= (budget / 2).max(1) && decoding >= (budget / 2).min(224) * 7 / 8, "{decoding} generate");
        scheduler.submit(1000, query(1000, budget / 2 + 1, 0, ASKER)).unwrap();
        assert!(pass(&mut scheduler).contains(&1000), "the question waits for generations, with budget {budget}");
    }
}

/// Questions of clients that were idle come before texts that are being generated, but not in two passes in a row.
#[test]
fn questions_delay_texts_by_at_most_one_pass() {
    let mut flood = Flood::new(scheduler(64, 256), 2, LONG);
    let texts = 1_000_000..1_000_020;
    for id in texts.clone() {
        flood.scheduler.submit_generation(id, query(id - 900_000, 3, 0, 50), generation(900)).unwrap();
    }
    (0..100).for_each(|_| drop(flood.pass_beside(&texts)));
    for round in 0..10 {
        (0..20).for_each(|_| drop(flood.pass_beside(&texts)));
        // Each question takes a whole pass.
        let questions: Vec<QueryId> = (0..4).map(|client| flood.submit(65, ASKER + client)).collect();
        let passes: Vec<(usize, Vec<QueryId>)> = (0..8).map(|_| flood.pass_beside(&texts)).collect();
        assert!(passes[0].1.contains(&questions[0]), "round {round}: the first question waits");
        assert_eq!(passes[0].0, 0, "round {round}: the first question takes the whole pass");
        assert!(passes.windows(2).all(|pair| pair[0].0 + pair[1].0 >= 20), "round {round}: texts wait two passes");
        let answered = passes.iter().flat_map(|pass| &pass.1).filter(|id| questions.contains(id)).count();
        assert_eq!(answered, 4, "round {round}");
    }
}

/// However many generations wait, scoring queries behind them start: those of other clients, and those of the same one.
#[test]
fn waiting_generations_do_not_hide_scoring_queries() {
    for clients in [1, 500] {
        let mut scheduler = scheduler(64, 256);
        for id in 0..6000 {
            scheduler.submit_generation(id, query(id, 3, 0, id % clients), generation(500)).unwrap();
        }
        // Now every client with waiting generations is overdue.
        (0..40).for_each(|_| drop(pass(&mut scheduler)));
        for (id, client) in [(7000, 0), (7001, ASKER), (7002, 1000)] {
            scheduler.submit(id, query(id, 9, 0, client)).unwrap();
            let answered: Vec<QueryId> = (0..3).flat_map(|_| pass(&mut scheduler)).collect();
            assert!(answered.contains(&id), "the query of client {client} waits");
        }
    }
}

/// The answers that the cache gives in one pass are limited, so they do not delay others without limit.
#[test]
fn the_cache_answers_a_limited_number_of_tokens_in_a_pass() {
    let mut scheduler = scheduler(64, 256);
    scheduler.submit(0, query(0, 1000, 0, 0)).unwrap();
    drain(&mut scheduler);
    let cached = query(0, 1000, 0, 0);
    for id in 1..500 {
        scheduler.submit(id, cached.clone()).unwrap();
    }
    scheduler.submit(1000, query(1000, LONG, 0, 1)).unwrap();
    let mut most = 0;
    while !scheduler.is_idle() {
        most = pass(&mut scheduler).len().max(most);
    }
    assert!(most <= 2, "{most} queries of 1,000 tokens were answered in one pass of 64");
}

/// Long queries fill the cache, and another one waits for blocks, but a short question starts.
#[test]
fn a_query_that_waits_for_blocks_does_not_delay_short_ones() {
    let mut scheduler = scheduler(64, 256);
    // Each takes an eighth of the cache.
    for id in 0..40 {
        scheduler.submit(id, query(id, 4000, 0, id)).unwrap();
    }
    let mut answered: Vec<QueryId> = (0..50).flat_map(|_| pass(&mut scheduler)).collect();
    for id in 1000..1060 {
        (0..10).for_each(|_| answered.extend(pass(&mut scheduler)));
        let scheduling = SchedulingParams { priority: 0, client: ASKER };
        scheduler.submit(id, Query { scheduling, ..query(id, 13, 0, 0) }).unwrap();
        // Queries that take the slots of those that end may be first.
        let passes: Vec<Vec<QueryId>> = (0..4).map(|_| pass(&mut scheduler)).collect();
        assert!(passes.concat().contains(&id), "question {id} waits");
        answered.extend(passes.concat());
    }
    answered.extend(drain(&mut scheduler));
    answered.retain(|&id| id < 40);
    assert_eq!(answered.len(), 40, "every long query is answered");
}

/// A client's short queries fill the pass although its first query cannot start: no more queries may generate.
#[test]
fn short_queries_behind_a_blocked_generation_fill_a_pass() {
    let mut scheduler = scheduler(64, 256);
    for id in 0..40 {
        scheduler.submit_generation(id, query(id, 3, 0, id), generation(900)).unwrap();
    }
    (0..40).for_each(|_| drop(pass(&mut scheduler)));
    scheduler.submit_generation(100, query(100, 3, 0, ASKER), generation(900)).unwrap();
    fill_passes(&mut scheduler, 32);
}

/// A client's short queries fill the pass although its first query waits for a prefix that another one computes.
#[test]
fn short_queries_behind_a_deferred_one_fill_a_pass() {
    let mut scheduler = scheduler(64, 256);
    scheduler.submit(0, query(0, LONG, 1, 0)).unwrap();
    pass(&mut scheduler);
    scheduler.submit(100, query(0, 300, 0, ASKER)).unwrap();
    // A quarter of each pass is reserved for the first query.
    fill_passes(&mut scheduler, 48);
}

/// Submits 100 short queries, and checks that passes answer them until the others leave less than `tokens` tokens.
fn fill_passes(scheduler: &mut Scheduler, tokens: usize) {
    for id in 1000..1100 {
        scheduler.submit(id, query(id, 3, 0, ASKER)).unwrap();
    }
    for _ in 0..3 {
        let answered = pass(scheduler).into_iter().filter(|&id| id >= 1000).count();
        assert!(answered >= tokens / 2, "a pass answered {answered} queries of 2 tokens each");
    }
}

/// A query that others would starve does not take the last token of every pass.
#[test]
fn a_budget_of_one_token_is_shared() {
    let mut scheduler = scheduler(1, 8);
    scheduler.submit(0, query(0, LONG, 1, 0)).unwrap();
    pass(&mut scheduler);
    scheduler.submit(1, query(1, 33, 0, 1)).unwrap();
    let passes = (1..).find(|_| pass(&mut scheduler).contains(&1)).unwrap();
    // The running query has one token of nine.
    assert!(passes <= 32 * 9 / 8 + 1, "the urgent query took {passes} passes");
    assert!(passes > 32, "the running query had no token");
}

/// A text of many tokens that is retried alone after a failed pass does not delay new clients.
#[test]
fn a_retried_generation_does_not_advance_the_clock() {
    let mut scheduler = scheduler(32, 2);
    scheduler.submit_generation(0, query(0, 3, 0, 0), generation(900)).unwrap();
    (0..600).for_each(|_| drop(pass(&mut scheduler)));
    for id in 1..60 {
        scheduler.submit(id, query(id, LENGTH, 0, 1)).unwrap();
    }
    let failing = scheduler.next_batch();
    assert!(scheduler.complete(failing, Ok(Vec::new())).is_empty());
    assert_eq!(pass(&mut scheduler), [0], "the text is retried");
    assert_eq!(pass(&mut scheduler), [1]);
    scheduler.submit(1000, query(1000, LENGTH, 0, ASKER)).unwrap();
    let passes = (1..).find(|_| pass(&mut scheduler).contains(&1000)).unwrap();
    assert!(passes <= 2, "the new client waits {passes} passes");
}

/// A client that sends each query with another priority, and waits for no answer, is not idle.
#[test]
fn a_client_with_many_priorities_does_not_start_first() {
    let mut flood = Flood::new(scheduler(64, 256), 1, LONG);
    (0..40).for_each(|_| drop(flood.pass()));
    let before = flood.computed[&0];
    for priority in 0..40 {
        let id = 10_000 + priority as QueryId;
        flood.scheduler.submit(id, query(id, 65, priority, ASKER)).unwrap();
    }
    (0..40).for_each(|_| drop(flood.pass()));
    let share = flood.computed[&0] - before;
    assert!(share >= 40 * 64 / 2, "{share} of {} tokens are left to the other client", 40 * 64);
}
