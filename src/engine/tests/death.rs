//! Faults injected into the backend: what they take with them, and how the engine comes back.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use surprisal_engine::{
    Backend, BackendError, Choice, Engine, Event, Extras, ForwardBatch, Generation, Limits, Query, Rebuild, Sampling,
    SchedulerConfig, ScoreError, Scorer, TokenScore,
};

/// A forward pass with this token panics.
const PANICS: u32 = 7;
/// One with this token fails, and then the backend says it is of no more use.
const BREAKS: u32 = 8;
/// One with this token fails, and then the engine's own thread panics.
const KILLS: u32 = 9;

/// Every token has the log-probability -1, and 1 is drawn.
struct Fragile {
    last: u32,
    blocks: usize,
}

/// The first one, and usually the next.
const NEW: Fragile = Fragile { last: 0, blocks: 20 };

impl Backend for Fragile {
    fn limits(&self) -> Limits {
        Limits { vocab_size: 10, max_length: 100, blocks: self.blocks }
    }

    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError> {
        self.last = batch.tokens.iter().copied().max().unwrap_or(0);
        match self.last {
            PANICS => panic!("a defect of the backend"),
            BREAKS | KILLS => return Err(BackendError("the device is gone".to_owned())),
            _ => {}
        }
        let token = |choice| if let Choice::Given(token) = choice { token } else { 1 };
        Ok(batch.scores.iter().map(|s| TokenScore { token: token(s.choice), logprob: -1.0, position: None }).collect())
    }

    fn is_usable(&self) -> bool {
        assert!(self.last != KILLS, "a defect on the engine's own thread");
        self.last != BREAKS
    }
}

fn engine(rebuild: Option<Rebuild<Fragile>>) -> Engine {
    let config = SchedulerConfig { token_budget: 64, max_running: 8 };
    let words = || "fragile".to_owned();
    Engine::start_lasting(words(), words(), words(), NEW, config, rebuild).unwrap()
}

fn query(token: u32) -> Query {
    Query::new(vec![token, 2, 3, token], 1)
}

async fn score_more_than_is_cached(engine: &Engine) {
    for n in 0..40 {
        engine.score(Query::new((0..66).map(|i| (n * i) % 7).collect(), 1)).await.unwrap();
    }
}

async fn until_it_lives(engine: &Engine) {
    let back = async {
        while !engine.is_alive() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
}

fn write_forever() -> Generation {
    Generation { max_tokens: 90, sampling: Sampling::GREEDY, stop: Vec::new(), extras: Extras::default() }
}

#[tokio::test]
async fn a_panic_fails_its_own_query_alone() {
    let engine = engine(None);
    let mut written = engine.generate(Query::new(vec![1], 1), write_forever());
    let asked: Vec<_> = (0..6).map(|n| engine.score(query(if n == 3 { PANICS } else { n }))).collect();
    for (n, answer) in asked.into_iter().enumerate() {
        match (n, answer.await) {
            (3, Err(ScoreError::Backend(_))) => {}
            (3, other) => panic!("the culprit is answered {other:?}"),
            (_, scores) => assert_eq!(scores.unwrap().logprobs, [-1.0; 3]),
        }
    }
    let mut events = 0;
    while let Some(event) = written.recv().await {
        event.unwrap();
        events += 1;
    }
    assert_eq!(events, 91, "its scores, and each token once");
    let stats = engine.stats();
    assert!(engine.is_alive());
    assert_eq!((stats.restarts, stats.running_queries, stats.active_blocks), (0, 0, 0));
}

#[tokio::test]
async fn a_dead_engine_says_so_and_comes_back() {
    for fault in [BREAKS, KILLS] {
        let built = Arc::new(AtomicU32::new(0));
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let count = Arc::clone(&built);
        let rebuild: Rebuild<Fragile> = Box::new(move || {
            held.recv_timeout(Duration::from_secs(20)).map_err(|error| BackendError(error.to_string()))?;
            count.fetch_add(1, Ordering::SeqCst);
            Ok(NEW)
        });
        let engine = engine(Some(rebuild));
        score_more_than_is_cached(&engine).await;
        assert_eq!(engine.score(query(2)).await.unwrap().logprobs.len(), 3);
        assert!(engine.is_alive());
        let evicted = engine.stats().evicted_blocks;
        assert!(evicted > 0);
        // A query in flight, and one that is being written, are told when the engine dies.
        let mut written = engine.generate(Query::new(vec![fault, 1], 2), write_forever());
        let scored = engine.score(query(fault));
        // Whether it arrives before the engine dies is a matter of time; a backend that breaks has told those in flight why.
        let told = scored.await.unwrap_err();
        let why = ScoreError::Lost("the device is gone".to_owned());
        assert!(told == ScoreError::Stopped || fault == BREAKS && told == why, "{told:?}");
        while let Some(event) = written.recv().await {
            assert!(!matches!(event, Ok(Event::Token(_))), "{event:?}");
        }
        assert!(!engine.is_alive());
        assert_eq!(engine.score(query(2)).await, Err(ScoreError::Stopped), "while it is dead it refuses at once");
        assert_eq!(engine.generate(query(2), write_forever()).recv().await, Some(Err(ScoreError::Stopped)));
        assert_eq!((engine.stats().running_queries, engine.stats().active_blocks), (0, 0));
        hold.send(()).unwrap();
        until_it_lives(&engine).await;
        assert_eq!(engine.score(query(2)).await.unwrap().logprobs, [-1.0; 3]);
        assert_eq!((built.load(Ordering::SeqCst), engine.stats().restarts), (1, 1));
        assert_eq!(engine.stats().evicted_blocks, evicted, "what was evicted stays evicted");
    }
}

/// As a GPU's, part of whose memory is another's by then.
#[tokio::test]
async fn the_next_backend_may_have_fewer_blocks() {
    let engine = engine(Some(Box::new(|| Ok(Fragile { blocks: 5, ..NEW }))));
    assert!(engine.score(query(BREAKS)).await.is_err());
    until_it_lives(&engine).await;
    score_more_than_is_cached(&engine).await;
    assert_eq!((engine.stats().total_blocks, engine.stats().restarts), (5, 1));
}

#[tokio::test]
async fn without_another_backend_it_stays_dead_and_can_be_dropped() {
    let engine = engine(None);
    assert_eq!(engine.score(query(KILLS)).await, Err(ScoreError::Stopped));
    assert!(!engine.is_alive());
    assert_eq!(engine.score(query(2)).await, Err(ScoreError::Stopped));
}
