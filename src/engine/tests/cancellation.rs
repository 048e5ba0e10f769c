//! Tests of cancellation: a query ends once nobody waits for its answer, however many there are.

#![allow(clippy::unwrap_used)]

use std::sync::mpsc;
use std::time::Duration;

use surprisal_engine::{
    Backend, BackendError, Engine, ForwardBatch, Generation, Limits, PositionOptions, Query, QueryEvent, Sampling,
    SchedulerConfig, Scorer, TokenChoice, TokenScore,
};

/// A backend that runs one pass per received step, and runs freely once the sender is dropped.
struct SteppedBackend(mpsc::Receiver<()>);

impl Backend for SteppedBackend {
    fn limits(&self) -> Limits {
        Limits { vocab_size: 1 << 20, max_length: 100, blocks: 40 }
    }

    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError> {
        let _ = self.0.recv();
        let token = |choice| if let TokenChoice::Given(token) = choice { token } else { 1 };
        Ok(batch.scores.iter().map(|s| TokenScore { token: token(s.choice), logprob: -1.0, position: None }).collect())
    }
}

fn engine() -> (Engine, mpsc::Sender<()>) {
    let (step, steps) = mpsc::channel();
    let name = || "stepped".to_owned();
    let config = SchedulerConfig { token_budget: 64, max_running: 8 };
    (Engine::start(name(), name(), name(), SteppedBackend(steps), config).unwrap(), step)
}

fn generation() -> Generation {
    Generation { max_tokens: 90, sampling: Sampling::GREEDY, stop: Vec::new(), options: PositionOptions::default() }
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the condition becomes true in time");
}

#[tokio::test]
async fn a_burst_of_queries_is_cancelled_and_the_next_one_answered() {
    const QUERIES: u32 = 100_000;
    let (engine, step) = engine();
    let burst: Vec<_> = (0..QUERIES).map(|id| engine.score(Query::new(vec![id, 1], 1))).collect();
    drop(burst);
    let next = engine.score(Query::new(vec![7, 8, 9], 1));
    drop(step);
    assert_eq!(next.await.unwrap().logprobs, [-1.0; 2]);
    until(|| engine.stats().waiting_queries + engine.stats().running_queries == 0).await;
    let stats = engine.stats();
    assert_eq!(stats.cancelled_queries + stats.finished_queries, u64::from(QUERIES) + 1);
    assert!(stats.finished_queries < 100, "{} cancelled queries were computed", stats.finished_queries);
    assert_eq!(stats.active_blocks, 0);
}

#[tokio::test]
async fn dropped_or_closed_events_cancel_their_query() {
    let (engine, step) = engine();
    let mut closed = engine.generate(Query::new(vec![1], 1), generation());
    let dropped = engine.generate(Query::new(vec![2], 1), generation());
    let mut kept = engine.generate(Query::new(vec![3], 1), generation());
    // The first pass may begin before the other queries arrive.
    (0..4).for_each(|_| step.send(()).unwrap());
    until(|| engine.stats().forward_passes == 4).await;
    closed.close();
    drop(dropped);
    drop(step);
    let mut count = 0;
    while let Some(event) = kept.recv().await {
        event.unwrap();
        count += 1;
    }
    assert_eq!(count, 91, "the scores, and each token");
    until(|| engine.stats().cancelled_queries == 2).await;
    assert!(matches!(closed.recv().await, Some(Ok(QueryEvent::Scores(_)))), "past events can still be received");
    // Events keep no engine alive.
    let late = engine.generate(Query::new(vec![4], 1), generation());
    drop(engine);
    drop(late);
}
