//! The loop around a scheduler, as in the engine's worker but without threads.

use std::collections::HashMap;

use surprisal_engine::{Backend, GeneratedToken, Query, QueryEvent, QueryId, QueryUpdate, Scheduler, Scores};

use crate::hash_backend::HashBackend;

/// All results of each query.
pub(crate) type Results = HashMap<QueryId, (Scores, Vec<GeneratedToken>)>;

/// Runs passes until nothing is left and returns the results. Every query must be answered exactly once.
pub(crate) fn run_all(scheduler: &mut Scheduler, backend: &mut HashBackend) -> Results {
    let mut results = Results::new();
    while !scheduler.is_idle() {
        run_pass(scheduler, backend, &mut results);
    }
    results
}

/// Runs a pass and adds its results.
pub(crate) fn run_pass(scheduler: &mut Scheduler, backend: &mut HashBackend, results: &mut Results) {
    let scheduled = scheduler.next_batch();
    let is_empty = scheduled.batch.scores.is_empty() && scheduled.batch.tokens.is_empty();
    let result = backend.forward(&scheduled.batch);
    let updates = scheduler.complete(scheduled, result);
    assert!(scheduler.is_idle() || !is_empty || !updates.is_empty(), "the scheduler is stuck");
    for QueryUpdate { id, result } in updates {
        match result.unwrap() {
            QueryEvent::Scores(scores) => {
                assert!(results.insert(id, (scores, Vec::new())).is_none(), "query {id} was answered twice");
            }
            QueryEvent::Token(token) => results.get_mut(&id).expect("the scores come first").1.push(token),
        }
    }
}

/// Submits queries at once and returns their scores, in order.
pub(crate) fn score_all(scheduler: &mut Scheduler, backend: &mut HashBackend, queries: &[Query]) -> Vec<Scores> {
    for (id, query) in queries.iter().enumerate() {
        scheduler.submit(id as QueryId, query.clone()).unwrap();
    }
    let mut results = run_all(scheduler, backend);
    (0..queries.len()).map(|id| results.remove(&(id as QueryId)).unwrap().0).collect()
}
