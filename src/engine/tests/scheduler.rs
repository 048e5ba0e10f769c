//! The scheduler and the cache against a backend that computes nothing but a hash of everything it can see.
//!
//! `Glass` reads each token's whole past through the block table, as attention does. Were any block wrong, stale, evicted too
//! early or copied short, the hash would differ from the one taken directly from the query's tokens.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use proptest::prelude::*;
use surprisal_engine::{
    BLOCK_TOKENS, Backend, BackendError, Choice, Event, Extras, Finish, ForwardBatch, Generation, Hidden, Limits,
    Position, Query, QueryId, Sampling, Scheduler, SchedulerConfig, ScoreError, Scores, Token, TokenScore, Turn,
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

/// What is drawn after a past: by the noise alone, and so that the noise matters.
fn drawn(hidden: u64, uniform: f64) -> u32 {
    ((hidden >> 7) % 8) as u32 ^ u32::from(uniform > 0.5)
}

/// What else is told of a position.
fn position(hidden: u64, target: u32, extras: &Extras) -> Position {
    let top = (0..extras.top.into()).map(|id| (id, logprob(hidden, id))).collect();
    let rank = extras.rank.then(|| (hidden % 8) as u32 + target);
    Position { rank, entropy: extras.entropy.then(|| logprob(hidden, 100)), top, subset: None }
}

/// The tokens that must be drawn after a query's, with their log-probabilities.
fn continuation(query: &Query, generation: &Generation) -> Vec<Token> {
    let (mut tokens, mut drawn_tokens) = (query.tokens.clone(), Vec::new());
    for left in (0..generation.max_tokens).rev() {
        let past = hash(tokens.iter().copied());
        let id = drawn(past, generation.sampling.at(tokens.len()).uniform);
        let finish =
            if generation.stop.contains(&id) { Some(Finish::Stop) } else { (left == 0).then_some(Finish::Length) };
        let position = position(past, id, &generation.extras);
        drawn_tokens.push(Token { id, logprob: logprob(past, id), position, finish });
        tokens.push(id);
        if finish.is_some() {
            break;
        }
    }
    drawn_tokens
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

    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError> {
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
        let scores = batch.scores.iter().map(|score| {
            let past = match score.from {
                Hidden::Row(row) => rows[row],
                Hidden::Block(block) => self.hidden[block as usize],
            };
            let token = match score.choice {
                Choice::Given(token) => token,
                Choice::Drawn(draw) => drawn(past, draw.uniform),
            };
            let position = (!score.extras.is_empty()).then(|| Box::new(position(past, token, &score.extras)));
            TokenScore { token, logprob: logprob(past, token), position }
        });
        let scores = scores.collect();
        for &(row, block) in &batch.keep {
            self.hidden[block as usize] = rows[row];
        }
        Ok(scores)
    }
}

/// Everything that became known of each query, in order.
type Told = HashMap<QueryId, (Scores, Vec<Token>)>;

/// Runs until nothing is left; every query must be answered exactly once.
fn drain_all(scheduler: &mut Scheduler, backend: &mut Glass) -> Told {
    let mut told = Told::new();
    while !scheduler.is_idle() {
        let step = scheduler.next_batch();
        let progress = !step.batch.scores.is_empty() || !step.batch.tokens.is_empty();
        let result = backend.forward(&step.batch);
        let known = scheduler.complete(step, result);
        assert!(progress || !known.is_empty(), "the scheduler is stuck");
        for (id, event) in known {
            match event.unwrap() {
                Event::Scores(scores) => {
                    assert!(told.insert(id, (scores, Vec::new())).is_none(), "query {id} was answered twice");
                }
                Event::Token(token) => told.get_mut(&id).expect("the scores come first").1.push(token),
            }
        }
    }
    told
}

fn drain(scheduler: &mut Scheduler, backend: &mut Glass) -> HashMap<QueryId, Scores> {
    drain_all(scheduler, backend).into_iter().map(|(id, (scores, _))| (id, scores)).collect()
}

fn ask(scheduler: &mut Scheduler, backend: &mut Glass, queries: &[Query]) -> Vec<Scores> {
    for (id, query) in queries.iter().enumerate() {
        scheduler.submit(id as QueryId, query.clone()).unwrap();
    }
    let mut answers = drain(scheduler, backend);
    (0..queries.len()).map(|id| answers.remove(&(id as QueryId)).unwrap()).collect()
}

/// Queries that share beginnings: a cut of one of three base texts, and a tail of its own. Some are more urgent than others.
fn queries() -> impl Strategy<Value = Vec<Query>> {
    let turn = (-2i32..3, 0u64..3).prop_map(|(priority, client)| Turn { priority, client });
    let query = (0u32..3, 1usize..150, proptest::collection::vec(0u32..8, 0..40), 0.0..1.0f64, turn);
    let query = query.prop_map(|(base, cut, tail, from, turn)| {
        let text = (0..cut as u32).map(|i| if i == 0 { 0 } else { (i * (base + 2) + i / 7) % 8 });
        let mut tokens: Vec<u32> = text.chain(tail).collect();
        tokens.resize(tokens.len().max(2), 1);
        let score_from = 1 + ((tokens.len() - 1) as f64 * from) as usize;
        Query { turn, ..Query::new(tokens, score_from) }
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

    /// The most probable token is kept beside the log-probability, and is not mistaken for a longer list.
    #[test]
    fn a_second_asking_for_the_best_computes_nothing(queries in queries(), plain_first in any::<bool>(), token_budget in 1usize..300) {
        let mut backend = Glass::new(400);
        let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget, max_running: 64 });
        let asking = |top| queries.iter().map(|query| Query { extras: Extras { top, ..Extras::default() }, ..query.clone() }).collect::<Vec<_>>();
        if plain_first {
            ask(&mut scheduler, &mut backend, &queries);
        }
        let first = ask(&mut scheduler, &mut backend, &asking(1));
        let computed = backend.computed;
        let again = ask(&mut scheduler, &mut backend, &asking(1));
        prop_assert_eq!(backend.computed, computed);
        ask(&mut scheduler, &mut backend, &queries);
        prop_assert_eq!(backend.computed, computed);
        let listed = ask(&mut scheduler, &mut backend, &asking(2));
        for (query, ((first, again), listed)) in queries.iter().zip(first.iter().zip(&again).zip(&listed)) {
            let tops = |top| (query.score_from..query.tokens.len())
                .map(|i| position(hash(query.tokens[..i].iter().copied()), 0, &Extras { top, ..Extras::default() }).top)
                .collect::<Vec<_>>();
            for (scores, top) in [(first, 1), (again, 1), (listed, 2)] {
                prop_assert_eq!(&scores.logprobs, &expected(query));
                prop_assert_eq!(scores.positions.iter().map(|position| position.top.clone()).collect::<Vec<_>>(), tops(top));
            }
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
        let whole = Query::new((0..=(blocks * BLOCK_TOKENS) as u32).map(|i| i % 5).collect(), 1);
        let answers = ask(&mut scheduler, &mut backend, std::slice::from_ref(&whole));
        prop_assert_eq!(&answers[0].logprobs, &expected(&whole));
    }

    /// A pass that fails takes only what cannot be computed with it: here the queries that have a token 7.
    #[test]
    fn a_failed_pass_fails_its_culprits_alone(queries in queries(), token_budget in 8usize..200) {
        let mut backend = Glass::new(40);
        let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget, max_running: 4 });
        for (id, query) in queries.iter().enumerate() {
            scheduler.submit(id as QueryId, query.clone()).unwrap();
        }
        let mut outcomes = HashMap::new();
        while !scheduler.is_idle() {
            let step = scheduler.next_batch();
            let result = match step.batch.tokens.contains(&7) {
                true => Err(BackendError("a 7".into())),
                false => backend.forward(&step.batch),
            };
            for (id, outcome) in scheduler.complete(step, result) {
                prop_assert!(outcomes.insert(id, outcome).is_none());
            }
        }
        for (id, query) in queries.iter().enumerate() {
            let outcome = outcomes.remove(&(id as QueryId)).unwrap();
            // The last token never runs through the model.
            if query.tokens[..query.tokens.len() - 1].contains(&7) {
                prop_assert_eq!(outcome, Err(ScoreError::Backend("a 7".into())));
            } else {
                let Ok(Event::Scores(scores)) = outcome else { panic!("{outcome:?}") };
                prop_assert_eq!(scores.logprobs, expected(query));
            }
        }
    }

    /// Texts are continued in any company as they are alone: same tokens, same log-probabilities, then found in the cache.
    #[test]
    fn what_is_drawn_depends_on_the_query_alone(
        rounds in proptest::collection::vec(generations(), 1..4),
        blocks in 10usize..40,
        token_budget in 1usize..100,
        max_running in 1usize..12,
    ) {
        let mut backend = Glass::new(blocks);
        let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget, max_running });
        for asked in rounds {
            for (id, (query, generation)) in asked.iter().enumerate() {
                match generation {
                    Some(generation) => scheduler.submit_generation(id as QueryId, query.clone(), generation.clone()),
                    None => scheduler.submit(id as QueryId, query.clone()),
                }.unwrap();
            }
            let told = drain_all(&mut scheduler, &mut backend);
            prop_assert_eq!(told.len(), asked.len());
            for (id, (query, generation)) in asked.iter().enumerate() {
                let (scores, tokens) = &told[&(id as QueryId)];
                prop_assert_eq!(&scores.logprobs, &expected(query));
                let want = generation.as_ref().map_or(Vec::new(), |generation| continuation(query, generation));
                prop_assert_eq!(tokens, &want);
                let extras = &query.extras;
                let position = |i: usize| position(hash(query.tokens[..i].iter().copied()), query.tokens[i], extras);
                let positions: Vec<_> =
                    (query.score_from..query.tokens.len()).filter(|_| !extras.is_empty()).map(position).collect();
                prop_assert_eq!(&scores.positions, &positions);
            }
        }
    }

    /// What was written is scored from the cache, but for its last token, which never ran through the model.
    #[test]
    fn a_text_that_was_written_is_in_the_cache(query in queries().prop_map(|mut queries| queries.remove(0)), max_tokens in 1usize..90) {
        let mut backend = Glass::new(400);
        let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig::default());
        let generation = generation(max_tokens, 5, Extras::default(), Vec::new());
        scheduler.submit_generation(0, query.clone(), generation).unwrap();
        let (_, written) = drain_all(&mut scheduler, &mut backend).remove(&0).unwrap();
        let computed = backend.computed;
        let tokens: Vec<u32> = query.tokens.iter().copied().chain(written.iter().map(|token| token.id)).collect();
        let whole = Query::new(tokens, query.score_from);
        let scores = ask(&mut scheduler, &mut backend, std::slice::from_ref(&whole)).remove(0);
        prop_assert_eq!(scores.logprobs, expected(&whole));
        prop_assert_eq!(backend.computed, computed);
    }
}

fn generation(max_tokens: usize, seed: u64, extras: Extras, stop: Vec<u32>) -> Generation {
    let sampling = Sampling { temperature: 1.0, seed, ..Sampling::GREEDY };
    Generation { max_tokens, sampling, stop, extras }
}

type Own = (Extras, Extras, usize, u64, Vec<u32>, bool);

/// Queries that share beginnings, some to be continued, some with more asked than a log-probability.
fn generations() -> impl Strategy<Value = Vec<(Query, Option<Generation>)>> {
    let extras = (0u16..3, any::<bool>(), any::<bool>()).prop_map(|(top, rank, entropy)| Extras {
        top,
        rank,
        entropy,
        subset: None,
    });
    let extras = prop_oneof![Just(Extras::default()), extras];
    let own = (extras.clone(), extras, 0usize..80, 0u64..3, proptest::collection::vec(0u32..8, 0..2), any::<bool>());
    let own = proptest::collection::vec(own, 30);
    (queries(), own).prop_map(|(queries, own)| {
        let one = |(mut query, (extras, drawn, max_tokens, seed, stop, all)): (Query, Own)| {
            query.extras = extras;
            let generation = (max_tokens > 0).then(|| generation(max_tokens, seed, drawn, stop));
            if generation.is_some() && all {
                query.score_from = query.tokens.len();
            }
            (query, generation)
        };
        queries.into_iter().zip(own).map(one).collect()
    })
}

/// A long text does not hold up one that is being written.
#[test]
fn a_token_is_drawn_in_each_pass() {
    let mut backend = Glass::new(100);
    let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget: 16, max_running: 8 });
    scheduler
        .submit_generation(0, Query::new(vec![1, 2, 3], 3), generation(10, 1, Extras::default(), Vec::new()))
        .unwrap();
    let first = scheduler.next_batch();
    let result = backend.forward(&first.batch);
    assert_eq!(scheduler.complete(first, result).len(), 2);
    scheduler.submit(1, Query::new(vec![4; 900], 1)).unwrap();
    scheduler.submit(2, Query::new(vec![5; 900], 1)).unwrap();
    for pass in 0..9 {
        let step = scheduler.next_batch();
        assert_eq!(step.batch.tokens.len(), 16, "pass {pass} is full");
        let result = backend.forward(&step.batch);
        let known = scheduler.complete(step, result);
        assert!(matches!(known.as_slice(), [(0, Ok(Event::Token(_)))]), "pass {pass}: {known:?}");
    }
}

#[test]
fn what_says_nothing_is_refused_by_name() {
    let mut scheduler = Scheduler::new(Glass::new(4).limits, SchedulerConfig::default());
    let good = generation(1, 1, Extras::default(), Vec::new());
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
    let extras = Extras { top: 65, ..Extras::default() };
    let error = scheduler.submit(0, Query { extras, ..Query::new(vec![1, 2], 1) }).unwrap_err();
    assert_eq!(error, ScoreError::TooManyAlternatives { top: 65, limit: 64 });
    assert!(scheduler.is_idle());
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
            Query::new(context.chain(target).collect(), 100)
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
