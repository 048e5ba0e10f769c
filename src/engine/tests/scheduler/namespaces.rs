//! Tests of the cache's namespaces: they change no answer, and no query learns what queries of another one asked.

use proptest::prelude::*;
use surprisal_engine::{CacheNamespace, Query, Scheduler, SchedulerConfig, Scores};

use crate::driver::{run_all, score_all};
use crate::hash_backend::{HashBackend, continuation, expected};
use crate::strategies::{generation, queries};

fn namespace(salt: u8) -> CacheNamespace {
    CacheNamespace::default().salted(&[salt])
}

fn in_namespace(queries: &[Query], namespace: CacheNamespace) -> Vec<Query> {
    queries.iter().map(|query| Query { namespace, ..query.clone() }).collect()
}

fn new_scheduler(backend: &HashBackend, token_budget: usize) -> Scheduler {
    Scheduler::new(backend.limits, SchedulerConfig { token_budget, max_running: 64 })
}

proptest! {
    /// Queries have the same answers, and reuse as many tokens, whether or not others asked the same before in another
    /// namespace.
    #[test]
    fn other_namespaces_leave_no_trace(queries in queries(), token_budget in 1usize..300) {
        let (mine, theirs) = (in_namespace(&queries, namespace(1)), in_namespace(&queries, namespace(2)));
        let mut backend = HashBackend::new(800);
        let mut scheduler = new_scheduler(&backend, token_budget);
        // One after the other: the order of queries that wait at the same time may depend on others.
        let one_by_one = |scheduler: &mut Scheduler, backend: &mut HashBackend| -> Vec<Scores> {
            mine.iter().flat_map(|query| score_all(scheduler, backend, std::slice::from_ref(query))).collect()
        };
        let alone = one_by_one(&mut scheduler, &mut backend);
        let mut backend = HashBackend::new(800);
        let mut scheduler = new_scheduler(&backend, token_budget);
        score_all(&mut scheduler, &mut backend, &theirs);
        let after = one_by_one(&mut scheduler, &mut backend);
        prop_assert_eq!(&after, &alone);
        for (query, scores) in queries.iter().zip(&after) {
            prop_assert_eq!(&scores.logprobs, &expected(query));
        }
        let again = score_all(&mut scheduler, &mut backend, &mine);
        prop_assert!(again.iter().all(|scores| scores.computed_tokens == 0), "a namespace has its own prefixes");
    }
}

/// A query that starts while one of another namespace computes the same prefix does not wait for it.
#[test]
fn queries_do_not_wait_for_other_namespaces() {
    let mut backend = HashBackend::new(100);
    let mut scheduler = new_scheduler(&backend, 512);
    let tokens: Vec<u32> = (0..200).map(|i| i % 7).collect();
    for (id, salt) in [(0, 1), (1, 2), (2, 1)] {
        let query = Query { namespace: namespace(salt), ..Query::new(tokens.clone(), 1) };
        scheduler.submit(id, query).unwrap();
    }
    let first = scheduler.next_batch();
    assert_eq!(first.batch.tokens.len(), 2 * 199, "one query of each namespace runs at once");
    let empty = scheduler.complete(first, Err(surprisal_engine::BackendError("again".into())));
    assert!(empty.is_empty());
    let results = run_all(&mut scheduler, &mut backend);
    let cached: Vec<usize> = (0..3).map(|id| results[&id].0.cached_tokens).collect();
    assert_eq!(cached, [0, 0, 200]);
}

/// A query that takes the whole cache gives up its prefix, but stays in its namespace.
#[test]
fn a_query_without_its_prefix_stays_in_its_namespace() {
    let mut backend = HashBackend::new(4);
    let mut scheduler = new_scheduler(&backend, 512);
    let tokens: Vec<u32> = (0..129).map(|i| i % 7).collect();
    let whole = |salt: u8, from| Query { namespace: namespace(salt), ..Query::new(tokens.clone(), from) };
    // The partly matching block of the first query's prefix is one block too many for the second one.
    let part = Query { namespace: namespace(1), ..Query::new([&tokens[..100], &[7; 20]].concat(), 1) };
    score_all(&mut scheduler, &mut backend, &[part]);
    for salt in [1, 2, 1] {
        let scores = score_all(&mut scheduler, &mut backend, &[whole(salt, 1)]).remove(0);
        assert_eq!(scores.logprobs, expected(&whole(salt, 1)));
        assert_eq!(scores.cached_tokens, 0, "namespace {salt}");
    }
}

#[test]
fn generated_tokens_do_not_depend_on_the_namespace() {
    let mut backend = HashBackend::new(100);
    let mut scheduler = new_scheduler(&backend, 64);
    let generation = generation(40, 3, surprisal_engine::PositionOptions::default(), Vec::new());
    let query = Query::new((0..50).map(|i| i % 7).collect(), 50);
    for (id, namespace) in [(0, namespace(1)), (1, namespace(2)), (2, CacheNamespace::default())] {
        let query = Query { namespace, ..query.clone() };
        scheduler.submit_generation(id, query, generation.clone()).unwrap();
    }
    let results = run_all(&mut scheduler, &mut backend);
    for id in 0..3 {
        assert_eq!((&results[&id].1, results[&id].0.cached_tokens), (&continuation(&query, &generation), 0));
    }
}
