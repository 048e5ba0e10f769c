//! The scheduler and the cache against a backend that computes nothing but a hash of everything it can see.
//!
//! `Glass` reads each token's whole past through the block table, as attention does. Were any block wrong, stale, evicted too
//! early or copied short, the hash would differ from the one taken directly from the query's tokens.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use proptest::prelude::*;
use surprisal_engine::{
    BLOCK_TOKENS, Backend, BackendError, ForwardBatch, Hidden, Limits, Query, QueryId, Scheduler, SchedulerConfig,
    Scores,
};

const NOTHING: u32 = u32::MAX;

/// A backend whose keys are the tokens themselves.
struct Glass {
    limits: Limits,
    slots: Vec<[u32; BLOCK_TOKENS]>,
    hidden: Vec<u64>,
    computed: usize,
}

fn hash(tokens: impl IntoIterator<Item = u32>) -> u64 {
    tokens
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, token| (h ^ u64::from(token)).wrapping_mul(0x0100_0000_01b3) ^ (h >> 29))
}

/// A "log-probability" that tells any two (past, token) pairs apart.
fn logprob(hidden: u64, target: u32) -> f32 {
    let mixed = (hidden ^ u64::from(target).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    -((mixed >> 41) as f32) / 1024.0
}

fn expected(query: &Query) -> Vec<f32> {
    (query.score_from..query.tokens.len())
        .map(|i| logprob(hash(query.tokens[..i].iter().copied()), query.tokens[i]))
        .collect()
}

impl Glass {
    fn new(blocks: usize) -> Self {
        let limits = Limits { vocab_size: 8, max_length: 1000, blocks };
        Self { limits, slots: vec![[NOTHING; BLOCK_TOKENS]; blocks], hidden: vec![0; blocks], computed: 0 }
    }
}

impl Backend for Glass {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<f32>, BackendError> {
        for copy in &batch.copies {
            let source = self.slots[copy.from as usize];
            self.slots[copy.to as usize] = [NOTHING; BLOCK_TOKENS];
            self.slots[copy.to as usize][..copy.tokens].copy_from_slice(&source[..copy.tokens]);
            self.hidden[copy.to as usize] = self.hidden[copy.from as usize];
        }
        let mut rows = vec![0; batch.tokens.len()];
        for chunk in &batch.chunks {
            for (position, row) in (chunk.start..).zip(chunk.rows.clone()) {
                self.slots[chunk.blocks[position / BLOCK_TOKENS] as usize][position % BLOCK_TOKENS] = batch.tokens[row];
            }
            for (position, row) in (chunk.start..).zip(chunk.rows.clone()) {
                let past =
                    (0..=position).map(|i| self.slots[chunk.blocks[i / BLOCK_TOKENS] as usize][i % BLOCK_TOKENS]);
                rows[row] = hash(past);
            }
        }
        self.computed += batch.tokens.len();
        let logprobs = batch.scores.iter().map(|score| match score.from {
            Hidden::Row(row) => logprob(rows[row], score.target),
            Hidden::Block(block) => logprob(self.hidden[block as usize], score.target),
        });
        let logprobs = logprobs.collect();
        for &(row, block) in &batch.keep {
            self.hidden[block as usize] = rows[row];
        }
        Ok(logprobs)
    }
}

/// Runs until nothing is left; every query must be answered exactly once.
fn drain(scheduler: &mut Scheduler, backend: &mut Glass) -> HashMap<QueryId, Scores> {
    let mut answers = HashMap::new();
    while !scheduler.is_idle() {
        let step = scheduler.next_batch();
        let before = answers.len();
        let progress = !step.batch.scores.is_empty() || !step.batch.tokens.is_empty();
        let result = backend.forward(&step.batch);
        for (id, outcome) in scheduler.complete(step, result) {
            assert!(answers.insert(id, outcome.unwrap()).is_none(), "query {id} was answered twice");
        }
        assert!(progress || answers.len() > before, "the scheduler is stuck");
    }
    answers
}

fn ask(scheduler: &mut Scheduler, backend: &mut Glass, queries: &[Query]) -> Vec<Scores> {
    for (id, query) in queries.iter().enumerate() {
        scheduler.submit(id as QueryId, query.clone()).unwrap();
    }
    let mut answers = drain(scheduler, backend);
    (0..queries.len()).map(|id| answers.remove(&(id as QueryId)).unwrap()).collect()
}

/// Queries that share beginnings: a cut of one of three base texts, and a tail of its own.
fn queries() -> impl Strategy<Value = Vec<Query>> {
    let query = (0u32..3, 1usize..150, proptest::collection::vec(0u32..8, 0..40), 0.0..1.0f64);
    let query = query.prop_map(|(base, cut, tail, from)| {
        let text = (0..cut as u32).map(|i| if i == 0 { 0 } else { (i * (base + 2) + i / 7) % 8 });
        let mut tokens: Vec<u32> = text.chain(tail).collect();
        tokens.resize(tokens.len().max(2), 1);
        let score_from = 1 + ((tokens.len() - 1) as f64 * from) as usize;
        Query { tokens, score_from }
    });
    proptest::collection::vec(query, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Every answer is what the query's own tokens say, however small the cache, the budget and the company.
    #[test]
    fn answers_depend_on_the_query_alone(
        rounds in proptest::collection::vec(queries(), 1..4),
        blocks in 6usize..40,
        token_budget in 1usize..200,
        max_running in 1usize..12,
    ) {
        let mut backend = Glass::new(blocks);
        let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget, max_running });
        for queries in rounds {
            let answers = ask(&mut scheduler, &mut backend, &queries);
            for (query, scores) in queries.iter().zip(&answers) {
                prop_assert_eq!(&scores.logprobs, &expected(query));
            }
        }
    }

    /// With room for everything, what was asked once is never computed again.
    #[test]
    fn a_second_asking_computes_nothing(queries in queries(), token_budget in 1usize..300) {
        let mut backend = Glass::new(400);
        let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget, max_running: 64 });
        ask(&mut scheduler, &mut backend, &queries);
        let computed = backend.computed;
        let again = ask(&mut scheduler, &mut backend, &queries);
        prop_assert_eq!(backend.computed, computed);
        for (query, scores) in queries.iter().zip(&again) {
            prop_assert_eq!(&scores.logprobs, &expected(query));
            prop_assert_eq!(scores.computed_tokens, 0);
        }
    }

    /// Cancelled queries give back their blocks: a query that needs the whole cache still runs.
    #[test]
    fn cancelled_queries_free_their_blocks(queries in queries(), steps in 0usize..6, blocks in 6usize..20) {
        let mut backend = Glass::new(blocks);
        let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget: 40, max_running: 8 });
        for (id, query) in queries.iter().enumerate() {
            scheduler.submit(id as QueryId, query.clone()).unwrap();
        }
        let mut finished = 0;
        for _ in 0..steps {
            let step = scheduler.next_batch();
            let result = backend.forward(&step.batch);
            finished += scheduler.complete(step, result).len();
        }
        let ids: Vec<QueryId> = (0..queries.len() as QueryId).collect();
        prop_assert_eq!(scheduler.cancel(&ids), queries.len() - finished);
        prop_assert!(scheduler.is_idle());
        let whole = Query { tokens: (0..=(blocks * BLOCK_TOKENS) as u32).map(|i| i % 5).collect(), score_from: 1 };
        let answers = ask(&mut scheduler, &mut backend, std::slice::from_ref(&whole));
        prop_assert_eq!(&answers[0].logprobs, &expected(&whole));
    }

    /// A failed forward pass fails its queries and harms nobody after them.
    #[test]
    fn a_failed_pass_leaves_no_trace(queries in queries()) {
        let mut backend = Glass::new(40);
        let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget: 64, max_running: 4 });
        for (id, query) in queries.iter().enumerate() {
            scheduler.submit(id as QueryId, query.clone()).unwrap();
        }
        let step = scheduler.next_batch();
        let failed = scheduler.complete(step, Err(BackendError("out of order".into())));
        prop_assert!(failed.iter().all(|(_, outcome)| outcome.is_err()));
        let answers = drain(&mut scheduler, &mut backend);
        prop_assert_eq!(answers.len() + failed.len(), queries.len());
        for (id, scores) in answers {
            prop_assert_eq!(scores.logprobs, expected(&queries[id as usize]));
        }
    }
}

/// contexts x targets: each context is computed once, and read by all its targets.
#[test]
fn a_shared_context_is_computed_once() {
    let (contexts, targets) = (3, 20);
    let queries: Vec<Query> = (0..contexts * targets)
        .map(|i| {
            let (context, target) = (i / targets, i % targets);
            let context = (0..100u32).map(|p| if p == 0 { 0 } else { (p * (context + 3) + p / 5) % 8 });
            let target = (0..6u32).map(|p| (target >> p) % 2 + p % 3);
            Query { tokens: context.chain(target).collect(), score_from: 100 }
        })
        .collect();
    let mut backend = Glass::new(400);
    let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget: 512, max_running: 256 });
    let answers = ask(&mut scheduler, &mut backend, &queries);
    for (query, scores) in queries.iter().zip(&answers) {
        assert_eq!(scores.logprobs, expected(query));
    }
    // Each context's 100 tokens, and at most: its last one again for the boundary, and the target's first five.
    let bound = (contexts * 100 + contexts * targets * 6) as usize;
    assert!(backend.computed <= bound, "{} tokens were computed, {bound} suffice", backend.computed);
}
