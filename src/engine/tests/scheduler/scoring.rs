//! Tests of scores: they depend only on the query, whatever else the scheduler does.

use std::collections::HashMap;

use proptest::prelude::*;
use surprisal_engine::{
    BLOCK_TOKENS, Backend, BackendError, Query, QueryEvent, QueryId, Scheduler, SchedulerConfig, ScoreError,
};

use crate::driver::score_all;
use crate::hash_backend::{HashBackend, expected};
use crate::strategies::queries;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Every answer depends only on the query's own tokens, whatever the size of the cache and the budget, and whatever
    /// else runs.
    #[test]
    fn answers_depend_only_on_the_query(
        rounds in proptest::collection::vec(queries(), 1..4),
        blocks in 6usize..40,
        token_budget in 1usize..200,
        max_running in 1usize..12,
    ) {
        let mut backend = HashBackend::new(blocks);
        let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget, max_running });
        for queries in rounds {
            let answers = score_all(&mut scheduler, &mut backend, &queries);
            for (query, scores) in queries.iter().zip(&answers) {
                prop_assert_eq!(&scores.logprobs, &expected(query));
            }
        }
    }

    /// Cancelled queries release their blocks, so a query that needs the whole cache still runs.
    #[test]
    fn cancelled_queries_free_their_blocks(queries in queries(), steps in 0usize..6, blocks in 6usize..20) {
        let mut backend = HashBackend::new(blocks);
        let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget: 40, max_running: 8 });
        for (id, query) in queries.iter().enumerate() {
            scheduler.submit(id as QueryId, query.clone()).unwrap();
        }
        let mut finished = 0;
        for _ in 0..steps {
            let scheduled = scheduler.next_batch();
            let result = backend.forward(&scheduled.batch);
            finished += scheduler.complete(scheduled, result).len();
        }
        let ids: Vec<QueryId> = (0..queries.len() as QueryId).collect();
        prop_assert_eq!(scheduler.cancel(&ids), queries.len() - finished);
        prop_assert!(scheduler.is_idle());
        let whole = Query::new((0..=(blocks * BLOCK_TOKENS) as u32).map(|i| i % 5).collect(), 1);
        let answers = score_all(&mut scheduler, &mut backend, std::slice::from_ref(&whole));
        prop_assert_eq!(&answers[0].logprobs, &expected(&whole));
    }

    /// A failed pass fails only the queries that cannot be computed: here those that contain token 7.
    #[test]
    fn a_failed_pass_fails_only_the_queries_that_cause_it(queries in queries(), token_budget in 8usize..200) {
        let mut backend = HashBackend::new(40);
        let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget, max_running: 4 });
        for (id, query) in queries.iter().enumerate() {
            scheduler.submit(id as QueryId, query.clone()).unwrap();
        }
        let mut outcomes = HashMap::new();
        while !scheduler.is_idle() {
            let scheduled = scheduler.next_batch();
            let result = match scheduled.batch.tokens.contains(&7) {
                true => Err(BackendError("a 7".into())),
                false => backend.forward(&scheduled.batch),
            };
            for update in scheduler.complete(scheduled, result) {
                prop_assert!(outcomes.insert(update.id, update.result).is_none());
            }
        }
        for (id, query) in queries.iter().enumerate() {
            let outcome = outcomes.remove(&(id as QueryId)).unwrap();
            // The last token never runs through the model.
            if query.tokens[..query.tokens.len() - 1].contains(&7) {
                prop_assert_eq!(outcome, Err(ScoreError::Backend("a 7".into())));
            } else {
                let Ok(QueryEvent::Scores(scores)) = outcome else { panic!("{outcome:?}") };
                prop_assert_eq!(scores.logprobs, expected(query));
            }
        }
    }
}
