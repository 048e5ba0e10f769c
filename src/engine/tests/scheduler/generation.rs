//! Tests of generation: the tokens that each pass samples, and the requests that are rejected.

use proptest::prelude::*;
use surprisal_engine::{
    Backend, Generation, PositionOptions, Query, QueryEvent, QueryId, QueryUpdate, Sampling, Scheduler,
    SchedulerConfig, ScoreError,
};

use crate::driver::{Results, run_all, run_pass};
use crate::hash_backend::{HashBackend, continuation, expected, expected_positions};
use crate::strategies::{generation, generations};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A text is continued with the same tokens and the same log-probabilities whether it runs alone or with others.
    /// Later rounds find the tokens in the cache.
    #[test]
    fn sampled_tokens_depend_only_on_the_query(
        rounds in proptest::collection::vec(generations(), 1..4),
        blocks in 10usize..40,
        token_budget in 1usize..100,
        max_running in 1usize..12,
    ) {
        let mut backend = HashBackend::new(blocks);
        let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget, max_running });
        for requests in rounds {
            for (id, (query, generation)) in requests.iter().enumerate() {
                match generation {
                    Some(generation) => scheduler.submit_generation(id as QueryId, query.clone(), generation.clone()),
                    None => scheduler.submit(id as QueryId, query.clone()),
                }.unwrap();
            }
            let results = run_all(&mut scheduler, &mut backend);
            prop_assert_eq!(results.len(), requests.len());
            for (id, (query, generation)) in requests.iter().enumerate() {
                let (scores, tokens) = &results[&(id as QueryId)];
                prop_assert_eq!(&scores.logprobs, &expected(query));
                let want = generation.as_ref().map_or(Vec::new(), |generation| continuation(query, generation));
                prop_assert_eq!(tokens, &want);
                prop_assert_eq!(&scores.positions, &expected_positions(query));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Queries arrive and are cancelled between passes, in a cache that is too small for all of them. None of the
    /// others is lost, and their results are the same as alone.
    #[test]
    fn no_query_is_lost_when_others_come_and_go(
        requests in generations(),
        gaps in proptest::collection::vec((0usize..3, any::<bool>()), 30),
        // Nine blocks hold the longest query, of 267 tokens.
        blocks in 9usize..24,
        token_budget in 1usize..80,
        max_running in 1usize..8,
    ) {
        let mut backend = HashBackend::new(blocks);
        let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget, max_running });
        let (mut results, mut cancelled) = (Results::new(), Vec::new());
        for (id, ((query, generation), &(passes, is_cancelled))) in (0..).zip(requests.iter().zip(&gaps)) {
            match generation {
                Some(generation) => scheduler.submit_generation(id, query.clone(), generation.clone()),
                None => scheduler.submit(id, query.clone()),
            }.unwrap();
            for _ in 0..passes {
                run_pass(&mut scheduler, &mut backend, &mut results);
            }
            // Half of the cancelled queries have had a pass or more.
            let cancels = is_cancelled.then(|| id - id % 2);
            if cancels.is_some_and(|id| scheduler.cancel(&[id]) == 1) {
                cancelled.extend(cancels);
            }
        }
        while !scheduler.is_idle() {
            run_pass(&mut scheduler, &mut backend, &mut results);
        }
        for (id, (query, generation)) in (0..).zip(&requests) {
            if cancelled.contains(&id) {
                continue;
            }
            let (scores, tokens) = &results[&id];
            prop_assert_eq!(&scores.logprobs, &expected(query));
            let want = generation.as_ref().map_or(Vec::new(), |generation| continuation(query, generation));
            prop_assert_eq!(tokens, &want);
        }
    }
}

/// A long prompt does not delay a text that is being generated.
#[test]
fn each_pass_samples_a_token() {
    let mut backend = HashBackend::new(100);
    let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget: 16, max_running: 8 });
    let generation = generation(10, 1, PositionOptions::default(), Vec::new());
    scheduler.submit_generation(0, Query::new(vec![1, 2, 3], 3), generation).unwrap();
    let first = scheduler.next_batch();
    let result = backend.forward(&first.batch);
    assert_eq!(scheduler.complete(first, result).len(), 2);
    scheduler.submit(1, Query::new(vec![4; 900], 1)).unwrap();
    scheduler.submit(2, Query::new(vec![5; 900], 1)).unwrap();
    for pass in 0..9 {
        let scheduled = scheduler.next_batch();
        assert_eq!(scheduled.batch.tokens.len(), 16, "pass {pass} is full");
        let result = backend.forward(&scheduled.batch);
        let updates = scheduler.complete(scheduled, result);
        let is_token = matches!(updates.as_slice(), [QueryUpdate { id: 0, result: Ok(QueryEvent::Token(_)) }]);
        assert!(is_token, "pass {pass}: {updates:?}");
    }
}

#[test]
fn parameters_out_of_range_are_rejected_by_name() {
    let mut scheduler = Scheduler::new(HashBackend::new(4).limits, SchedulerConfig::default());
    let good = generation(1, 1, PositionOptions::default(), Vec::new());
    let query = Query::new(vec![1, 2], 2);
    for (field, generation) in [
        ("max_tokens", Generation { max_tokens: 0, ..good.clone() }),
        ("temperature", Generation { sampling: Sampling { temperature: f32::NAN, ..good.sampling }, ..good.clone() }),
        ("temperature", Generation { sampling: Sampling { temperature: -1.0, ..good.sampling }, ..good.clone() }),
        ("top_p", Generation { sampling: Sampling { top_p: 0.0, ..good.sampling }, ..good.clone() }),
    ] {
        let error = scheduler.submit_generation(0, query.clone(), generation).unwrap_err();
        assert!(matches!(error, ScoreError::Sampling { field: found, .. } if found == field), "{error}");
    }
    let long = Generation { max_tokens: 128, ..good.clone() };
    let error = scheduler.submit_generation(0, query.clone(), long).unwrap_err();
    assert_eq!(error, ScoreError::TooLong { len: 130, limit: 129 });
    let options = PositionOptions { top: 65, ..PositionOptions::default() };
    let error = scheduler.submit(0, Query { options, ..Query::new(vec![1, 2], 1) }).unwrap_err();
    assert_eq!(error, ScoreError::TooManyAlternatives { top: 65, limit: 64 });
    assert!(scheduler.is_idle());
}
