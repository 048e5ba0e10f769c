//! Tests of a cache and of running slots that are full of queries that generate: queries that are only scored start
//! within a few passes.

use surprisal_engine::{
    Backend, GeneratedToken, PositionOptions, Query, QueryEvent, QueryId, Scheduler, SchedulerConfig, SchedulingParams,
};

use crate::hash_backend::{HashBackend, continuation, expected};
use crate::strategies::generation;

/// The first id of the queries that generate.
const GENERATIONS: QueryId = 1000;

fn by_client(client: u64, tokens: Vec<u32>, score_from: usize) -> Query {
    Query { scheduling: SchedulingParams { priority: 0, client }, ..Query::new(tokens, score_from) }
}

/// Returns a query to be continued, whose prompt no other query shares.
fn prompt(number: u64, client: u64) -> Query {
    let tokens: Vec<u32> = (0..40).map(|i| ((number >> (3 * (i % 4))) % 8) as u32).collect();
    by_client(client, tokens, 40)
}

/// A scheduler whose client 0 generates many long texts.
struct Busy {
    backend: HashBackend,
    scheduler: Scheduler,
    passes: usize,
    max_tokens: usize,
    generations: u64,
    /// The queries that were scored, and the pass in which each was.
    scored: Vec<(QueryId, usize)>,
    generated: Vec<(QueryId, GeneratedToken)>,
}

impl Busy {
    fn start(blocks: usize, config: SchedulerConfig, generations: u64, max_tokens: usize) -> Self {
        let backend = HashBackend::new(blocks);
        let mut scheduler = Scheduler::new(backend.limits, config);
        for number in 0..generations {
            let generation = generation(max_tokens, number, PositionOptions::default(), Vec::new());
            scheduler.submit_generation(GENERATIONS + number, prompt(number, 0), generation).unwrap();
        }
        let (scored, generated) = (Vec::new(), Vec::new());
        let mut busy = Self { backend, scheduler, passes: 0, max_tokens, generations, scored, generated };
        (0..20).for_each(|_| busy.pass());
        assert!(busy.scheduler.queue_lengths().0 > 0, "not all texts fit at once");
        busy
    }

    fn pass(&mut self) {
        let scheduled = self.scheduler.next_batch();
        let result = self.backend.forward(&scheduled.batch);
        self.passes += 1;
        for update in self.scheduler.complete(scheduled, result) {
            match update.result.unwrap() {
                QueryEvent::Scores(scores) => {
                    assert!(scores.logprobs.is_empty() || update.id < GENERATIONS);
                    self.scored.push((update.id, self.passes));
                }
                QueryEvent::Token(token) => self.generated.push((update.id, token)),
            }
        }
    }

    /// Submits a query and returns the number of passes until it is scored, which must be at most `limit`.
    fn passes_until_scored(&mut self, id: QueryId, query: Query, limit: usize) -> usize {
        self.scheduler.submit(id, query).unwrap();
        for passes in 1..=limit {
            self.pass();
            if self.scored.iter().any(|&(scored, _)| scored == id) {
                return passes;
            }
        }
        panic!("query {id} was not scored in {limit} passes");
    }

    /// Runs until nothing is left, and checks all texts.
    fn finish(mut self) {
        while !self.scheduler.is_idle() {
            self.pass();
        }
        for number in 0..self.generations {
            let texts = self.generated.iter().filter(|(id, _)| *id == GENERATIONS + number);
            let tokens: Vec<GeneratedToken> = texts.map(|(_, token)| token.clone()).collect();
            let generation = generation(self.max_tokens, number, PositionOptions::default(), Vec::new());
            assert_eq!(tokens, continuation(&prompt(number, 0), &generation), "text {number}");
        }
    }
}

/// Sixty-four texts of up to 512 tokens need nine times the cache.
#[test]
fn a_small_query_starts_while_the_cache_is_full_of_generations() {
    let config = SchedulerConfig { token_budget: 64, max_running: 256 };
    let mut busy = Busy::start(120, config, 64, 512);
    for id in 0..20 {
        let tokens: Vec<u32> = (0..13).map(|i| (i * (id as u32 + 1) + 3) % 8).collect();
        let passes = busy.passes_until_scored(id, by_client(1 + id % 3, tokens, 1), 4);
        assert!(passes <= 4);
    }
    busy.finish();
}

/// The first text of another client starts, too, and small queries still do.
#[test]
fn another_clients_first_text_starts_while_the_cache_is_full_of_generations() {
    let config = SchedulerConfig { token_budget: 64, max_running: 256 };
    let mut busy = Busy::start(120, config, 64, 512);
    for client in 1..4 {
        let id = GENERATIONS + 100 * client;
        let generation = generation(40, client, PositionOptions::default(), Vec::new());
        busy.scheduler.submit_generation(id, prompt(3 * client + 1, client), generation).unwrap();
        let tokens = |busy: &Busy| busy.generated.iter().filter(|(generated, _)| *generated == id).count();
        (0..3).for_each(|_| busy.pass());
        assert!(tokens(&busy) > 0, "the text of client {client} has not started");
        busy.passes_until_scored(client, by_client(5, vec![1, 2, client as u32], 1), 4);
        while tokens(&busy) < 40 {
            busy.pass();
        }
    }
    busy.finish();
}

/// Short generations hold all running slots except the reserved ones.
#[test]
fn a_small_query_starts_while_most_running_slots_generate() {
    for (max_running, token_budget) in [(8, 64), (256, 16), (2, 64)] {
        let mut busy = Busy::start(2000, SchedulerConfig { token_budget, max_running }, 64, 400);
        for id in 0..8 {
            let tokens: Vec<u32> = (0..7).map(|i| (i * (id as u32 + 3) + 5) % 8).collect();
            busy.passes_until_scored(id, by_client(1, tokens, 1), 8);
        }
        busy.finish();
    }
}

/// A document that does not fit beside the texts waits for some of them to end, while small queries do not wait for the
/// document. No further text starts before the document.
#[test]
fn a_document_waits_for_texts_to_end_and_small_queries_do_not_wait_for_the_document() {
    let config = SchedulerConfig { token_budget: 64, max_running: 256 };
    let mut busy = Busy::start(120, config, 64, 200);
    let document = by_client(1, (0..900).map(|i| (i * i + i / 7) % 8).collect(), 1);
    busy.scheduler.submit(500, document.clone()).unwrap();
    for id in 0..5 {
        let tokens: Vec<u32> = (0..13).map(|i| (i * (id as u32 + 1) + 3) % 8).collect();
        busy.passes_until_scored(id, by_client(2, tokens, 1), 4);
    }
    let is_scored = |busy: &Busy| busy.scored.iter().any(|&(id, _)| id == 500);
    assert!(!is_scored(&busy), "the document does not fit yet");
    while !is_scored(&busy) {
        busy.pass();
        // The texts that run end after 200 tokens; then the document runs.
        assert!(busy.passes < 400, "the document starves");
    }
    busy.finish();
    let mut backend = HashBackend::new(120);
    let mut scheduler = Scheduler::new(backend.limits, config);
    let scores = crate::driver::score_all(&mut scheduler, &mut backend, std::slice::from_ref(&document));
    assert_eq!(scores[0].logprobs, expected(&document));
}

/// A text that needs more than its share of the cache runs alone.
#[test]
fn a_text_that_needs_the_whole_cache_runs() {
    let mut backend = HashBackend::new(8);
    let mut scheduler = Scheduler::new(backend.limits, SchedulerConfig { token_budget: 16, max_running: 8 });
    let long = generation(8 * 32 + 1 - 40, 1, PositionOptions::default(), Vec::new());
    let short = generation(20, 2, PositionOptions::default(), Vec::new());
    for number in 0..6 {
        let generation = if number == 2 { &long } else { &short };
        scheduler.submit_generation(number, prompt(number, number), generation.clone()).unwrap();
    }
    let results = crate::driver::run_all(&mut scheduler, &mut backend);
    for number in 0..6 {
        let generation = if number == 2 { &long } else { &short };
        assert_eq!(results[&number].1, continuation(&prompt(number, number), generation));
    }
}
