//! Tests of reuse: cached results are not computed again.

use proptest::prelude::*;
use surprisal_engine::{PositionOptions, Query, Scheduler, SchedulerConfig};

use crate::driver::{run_all, score_all};
use crate::hash_backend::{HashBackend, expected, expected_positions};
use crate::strategies::{generation, queries};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// In a cache that is large enough, nothing is computed twice.
    #[test]
    fn a_repeated_query_computes_nothing(queries in queries(), token_budget in 1usize..300) {
        let mut backend = HashBackend::new(400);
        let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget, max_running: 64 });
        score_all(&mut scheduler, &mut backend, &queries);
        let computed = backend.computed;
        let again = score_all(&mut scheduler, &mut backend, &queries);
        prop_assert_eq!(backend.computed, computed);
        for (query, scores) in queries.iter().zip(&again) {
            prop_assert_eq!(&scores.logprobs, &expected(query));
            prop_assert_eq!(scores.computed_tokens, 0);
        }
    }

    /// The most probable token is kept with the log-probability, and is not mistaken for a longer list.
    #[test]
    fn a_repeated_query_with_top_1_computes_nothing(
        queries in queries(),
        plain_first in any::<bool>(),
        token_budget in 1usize..300,
    ) {
        let mut backend = HashBackend::new(400);
        let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget, max_running: 64 });
        if plain_first {
            score_all(&mut scheduler, &mut backend, &queries);
        }
        let first = score_all(&mut scheduler, &mut backend, &with_top(&queries, 1));
        let computed = backend.computed;
        let again = score_all(&mut scheduler, &mut backend, &with_top(&queries, 1));
        prop_assert_eq!(backend.computed, computed);
        score_all(&mut scheduler, &mut backend, &queries);
        prop_assert_eq!(backend.computed, computed);
        let listed = score_all(&mut scheduler, &mut backend, &with_top(&queries, 2));
        for (query, ((first, again), listed)) in queries.iter().zip(first.iter().zip(&again).zip(&listed)) {
            for (scores, top) in [(first, 1), (again, 1), (listed, 2)] {
                prop_assert_eq!(&scores.logprobs, &expected(query));
                let query = Query { options: top_options(top), ..query.clone() };
                prop_assert_eq!(&scores.positions, &expected_positions(&query));
            }
        }
    }

    /// A generated text is scored from the cache: its last token never ran through the model, but its score is known.
    #[test]
    fn a_generated_text_is_in_the_cache(
        query in queries().prop_map(|mut queries| queries.remove(0)),
        max_tokens in 1usize..90,
    ) {
        let mut backend = HashBackend::new(400);
        let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig::default());
        let generation = generation(max_tokens, 5, PositionOptions::default(), Vec::new());
        scheduler.submit_generation(0, query.clone(), generation).unwrap();
        let (_, generated) = run_all(&mut scheduler, &mut backend).remove(&0).unwrap();
        let computed = backend.computed;
        let tokens: Vec<u32> = query.tokens.iter().copied().chain(generated.iter().map(|token| token.id)).collect();
        let whole = Query { namespace: query.namespace, ..Query::new(tokens, query.score_from) };
        let scores = score_all(&mut scheduler, &mut backend, std::slice::from_ref(&whole)).remove(0);
        prop_assert_eq!(scores.logprobs, expected(&whole));
        prop_assert_eq!(backend.computed, computed);
    }
}

fn top_options(top: u16) -> PositionOptions {
    PositionOptions { top, ..PositionOptions::default() }
}

fn with_top(queries: &[Query], top: u16) -> Vec<Query> {
    queries.iter().map(|query| Query { options: top_options(top), ..query.clone() }).collect()
}

/// With contexts x targets, each context is computed once and read by all its targets.
#[test]
fn a_shared_context_is_computed_once() {
    let (contexts, targets) = (3, 20);
    let queries: Vec<Query> = (0..contexts * targets)
        .map(|i| {
            let (context, target) = (i / targets, i % targets);
            let context = (0..100u32).map(|p| if p == 0 { 0 } else { (p * (context + 3) + p / 5) % 8 });
            let target = (0..6u32).map(|p| (target >> p) % 2 + p % 3);
            Query::new(context.chain(target).collect(), 100)
        })
        .collect();
    let mut backend = HashBackend::new(400);
    let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget: 512, max_running: 256 });
    let answers = score_all(&mut scheduler, &mut backend, &queries);
    for (query, scores) in queries.iter().zip(&answers) {
        assert_eq!(scores.logprobs, expected(query));
    }
    // Each context's 100 tokens and, for each target, at most the context's last token again and the target's first
    // five.
    let bound = (contexts * 100 + contexts * targets * 6) as usize;
    assert!(backend.computed <= bound, "{} tokens were computed, but {bound} suffice", backend.computed);
}
