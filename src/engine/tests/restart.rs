//! Tests of faults in the backend: the queries that fail, and the engine's recovery.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use surprisal_engine::{
    Backend, BackendError, BackendFactory, Engine, ForwardBatch, Generation, Limits, PositionOptions, Query,
    QueryEvent, Sampling, SchedulerConfig, ScoreError, Scorer, TokenChoice, TokenScore,
};

/// Token that makes a forward pass panic.
const PANICS: u32 = 7;
/// Token that makes a forward pass fail and leaves the backend unusable.
const BREAKS: u32 = 8;
/// Token that makes a forward pass fail and then the engine's own thread panic.
const KILLS: u32 = 9;

/// A backend that fails on demand. Every token has log-probability -1, and every sampled token is 1.
struct FragileBackend {
    /// The largest token of the last forward pass.
    last: u32,
    blocks: usize,
}

/// A new backend: the first one and, in most tests, its replacement.
const NEW: FragileBackend = FragileBackend { last: 0, blocks: 20 };

impl Backend for FragileBackend {
    fn limits(&self) -> Limits {
        Limits { vocab_size: 10, max_length: 100, blocks: self.blocks }
    }

    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError> {
        self.last = batch.tokens.iter().copied().max().unwrap_or(0);
        match self.last {
            PANICS => panic!("a fault in the backend"),
            BREAKS | KILLS => return Err(BackendError("the device is gone".to_owned())),
            _ => {}
        }
        let token = |choice| if let TokenChoice::Given(token) = choice { token } else { 1 };
        Ok(batch.scores.iter().map(|s| TokenScore { token: token(s.choice), logprob: -1.0, position: None }).collect())
    }

    fn is_usable(&self) -> bool {
        assert!(self.last != KILLS, "a fault on the engine's own thread");
        self.last != BREAKS
    }
}

fn engine(factory: Option<BackendFactory<FragileBackend>>) -> Engine {
    let config = SchedulerConfig { token_budget: 64, max_running: 8 };
    let text = || "fragile".to_owned();
    Engine::start_supervised(text(), text(), text(), NEW, config, factory).unwrap()
}

fn query(token: u32) -> Query {
    Query::new(vec![token, 2, 3, token], 1)
}

async fn score_more_than_is_cached(engine: &Engine) {
    for n in 0..40 {
        engine.score(Query::new((0..66).map(|i| (n * i) % 7).collect(), 1)).await.unwrap();
    }
}

async fn wait_until_alive(engine: &Engine) {
    let alive = async {
        while !engine.is_alive() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), alive).await.unwrap();
}

fn long_generation() -> Generation {
    Generation { max_tokens: 90, sampling: Sampling::GREEDY, stop: Vec::new(), options: PositionOptions::default() }
}

#[tokio::test]
async fn a_panic_fails_only_its_own_query() {
    let engine = engine(None);
    let mut events = engine.generate(Query::new(vec![1], 1), long_generation());
    let answers: Vec<_> = (0..6).map(|n| engine.score(query(if n == 3 { PANICS } else { n }))).collect();
    for (n, answer) in answers.into_iter().enumerate() {
        match (n, answer.await) {
            (3, Err(ScoreError::Backend(_))) => {}
            (3, other) => panic!("the query that panics got {other:?}"),
            (_, scores) => assert_eq!(scores.unwrap().logprobs, [-1.0; 3]),
        }
    }
    let mut count = 0;
    while let Some(event) = events.recv().await {
        event.unwrap();
        count += 1;
    }
    assert_eq!(count, 91, "the scores, and each token once");
    let stats = engine.stats();
    assert!(engine.is_alive());
    assert_eq!((stats.restarts, stats.running_queries, stats.active_blocks), (0, 0, 0));
}

#[tokio::test]
async fn a_dead_engine_rejects_queries_and_recovers() {
    for fault in [BREAKS, KILLS] {
        let reloads = Arc::new(AtomicU32::new(0));
        let (allow_reload, reload_allowed) = std::sync::mpsc::channel::<()>();
        let count = Arc::clone(&reloads);
        let factory: BackendFactory<FragileBackend> = Box::new(move || {
            reload_allowed.recv_timeout(Duration::from_secs(20)).map_err(|error| BackendError(error.to_string()))?;
            count.fetch_add(1, Ordering::SeqCst);
            Ok(NEW)
        });
        let engine = engine(Some(factory));
        score_more_than_is_cached(&engine).await;
        assert_eq!(engine.score(query(2)).await.unwrap().logprobs.len(), 3);
        assert!(engine.is_alive());
        let evicted = engine.stats().evicted_blocks;
        assert!(evicted > 0);
        // A query in flight and one that is being generated fail when the engine dies.
        let mut events = engine.generate(Query::new(vec![fault, 1], 2), long_generation());
        let scored = engine.score(query(fault));
        // If the query arrives after the engine has died, the engine rejects it. If it arrives earlier and the backend
        // breaks, the error gives the cause.
        let error = scored.await.unwrap_err();
        let lost = ScoreError::BackendLost("the device is gone".to_owned());
        assert!(error == ScoreError::Stopped || fault == BREAKS && error == lost, "{error:?}");
        while let Some(event) = events.recv().await {
            assert!(!matches!(event, Ok(QueryEvent::Token(_))), "{event:?}");
        }
        assert!(!engine.is_alive());
        assert_eq!(engine.score(query(2)).await, Err(ScoreError::Stopped), "a dead engine rejects at once");
        assert_eq!(engine.generate(query(2), long_generation()).recv().await, Some(Err(ScoreError::Stopped)));
        assert_eq!((engine.stats().running_queries, engine.stats().active_blocks), (0, 0));
        allow_reload.send(()).unwrap();
        wait_until_alive(&engine).await;
        assert_eq!(engine.score(query(2)).await.unwrap().logprobs, [-1.0; 3]);
        assert_eq!((reloads.load(Ordering::SeqCst), engine.stats().restarts), (1, 1));
        assert_eq!(engine.stats().evicted_blocks, evicted, "a restart keeps the count of evicted blocks");
    }
}

/// This happens on a GPU if another process takes some of its memory.
#[tokio::test]
async fn the_next_backend_may_have_fewer_blocks() {
    let engine = engine(Some(Box::new(|| Ok(FragileBackend { blocks: 5, ..NEW }))));
    assert!(engine.score(query(BREAKS)).await.is_err());
    wait_until_alive(&engine).await;
    score_more_than_is_cached(&engine).await;
    assert_eq!((engine.stats().total_blocks, engine.stats().restarts), (5, 1));
}

#[tokio::test]
async fn without_a_factory_an_engine_stays_dead_and_can_be_dropped() {
    let engine = engine(None);
    assert_eq!(engine.score(query(KILLS)).await, Err(ScoreError::Stopped));
    assert!(!engine.is_alive());
    assert_eq!(engine.score(query(2)).await, Err(ScoreError::Stopped));
}
