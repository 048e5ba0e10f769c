//! Strategies for random queries and generations.

use proptest::prelude::*;
use surprisal_engine::{CacheNamespace, Generation, PositionOptions, Query, Sampling, SchedulingParams};

/// Generates queries that share beginnings: each is a prefix of one of three base texts, followed by its own tail. Some
/// are more urgent than others, and some have a namespace of their own.
pub(crate) fn queries() -> impl Strategy<Value = Vec<Query>> {
    let scheduling = (-2i32..3, 0u64..3).prop_map(|(priority, client)| SchedulingParams { priority, client });
    let namespace = prop_oneof![Just(CacheNamespace::default()), Just(CacheNamespace::default().salted(b"a"))];
    let tail = proptest::collection::vec(0u32..8, 0..40);
    let query = (0u32..3, 1usize..150, tail, 0.0..1.0f64, scheduling, namespace);
    let query = query.prop_map(|(base, cut, tail, from, scheduling, namespace)| {
        let text = (0..cut as u32).map(|i| if i == 0 { 0 } else { (i * (base + 2) + i / 7) % 8 });
        let mut tokens: Vec<u32> = text.chain(tail).collect();
        tokens.resize(tokens.len().max(2), 1);
        let score_from = 1 + ((tokens.len() - 1) as f64 * from) as usize;
        Query { scheduling, namespace, ..Query::new(tokens, score_from) }
    });
    proptest::collection::vec(query, 1..30)
}

/// Returns a generation that samples at temperature 1.
pub(crate) fn generation(max_tokens: usize, seed: u64, options: PositionOptions, stop: Vec<u32>) -> Generation {
    let sampling = Sampling { temperature: 1.0, seed, ..Sampling::GREEDY };
    Generation { max_tokens, sampling, stop, options }
}

/// The options and the continuation that [`generations`] adds to a query.
#[derive(Clone, Debug)]
struct Addition {
    options: PositionOptions,
    generation: Option<Generation>,
    /// `true` if the query is only continued, not scored, when it has a continuation.
    generate_only: bool,
}

impl Addition {
    fn apply(self, mut query: Query) -> (Query, Option<Generation>) {
        query.options = self.options;
        if self.generation.is_some() && self.generate_only {
            query.score_from = query.tokens.len();
        }
        (query, self.generation)
    }
}

/// Generates queries that share beginnings, some with a continuation and some that request details.
pub(crate) fn generations() -> impl Strategy<Value = Vec<(Query, Option<Generation>)>> {
    let options = (0u16..3, any::<bool>(), any::<bool>()).prop_map(|(top, rank, entropy)| PositionOptions {
        top,
        rank,
        entropy,
        subset: None,
    });
    let options = prop_oneof![Just(PositionOptions::default()), options];
    let stop = proptest::collection::vec(0u32..8, 0..2);
    let addition = (options.clone(), options, 0usize..80, 0u64..3, stop, any::<bool>());
    let addition = addition.prop_map(|(options, sampled, max_tokens, seed, stop, generate_only)| {
        let generation = (max_tokens > 0).then(|| generation(max_tokens, seed, sampled, stop));
        Addition { options, generation, generate_only }
    });
    let additions = proptest::collection::vec(addition, 30);
    (queries(), additions).prop_map(|(queries, additions)| {
        queries.into_iter().zip(additions).map(|(query, addition)| addition.apply(query)).collect()
    })
}
