//! Several servers as one source: what happens when one hangs, and who gets which request.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use support::{LONG, Reply, models, options, query, score, serve};
use surprisal_estimator::{HttpOptions, LogprobSource, Replicas, Routing, ScoreQuery};

fn answer(path: &str, body: &str) -> Reply {
    if path == "/v1/models" { models() } else { Reply::json(&score(body)) }
}

/// So many beginnings that each of two servers gets some.
fn queries() -> Vec<ScoreQuery> {
    (1..17).map(|token| ScoreQuery { context: vec![token], target: vec![3, 4] }).collect()
}

/// Even if a request may take longer than the time after which retries end.
#[tokio::test]
async fn a_server_that_hangs_is_left_for_another() {
    let hangs = |path: &str, _: &str| if path == "/v1/models" { models() } else { Reply::Silence };
    let urls = [serve(hangs).await, serve(answer).await];
    let give_up_after = Duration::from_millis(100);
    let options = HttpOptions { timeout: 3 * give_up_after, ..options(give_up_after) };
    let replicas = Replicas::connect(&urls, Routing::Affinity, options).await.unwrap();
    assert!(replicas.logprobs(queries()).await.unwrap().iter().all(|logprobs| logprobs.len() == 2));
}

/// A server that hangs costs its timeout once, not once for each call with a query for it.
#[tokio::test]
async fn a_server_that_hangs_is_not_waited_for_again_and_again() {
    let asked = Arc::new(Mutex::new(0));
    let counted = asked.clone();
    let hangs = move |path: &str, _: &str| {
        if path == "/v1/models" {
            return models();
        }
        *counted.lock().unwrap() += 1;
        Reply::Silence
    };
    let urls = [serve(hangs).await, serve(answer).await];
    let timeout = Duration::from_millis(400);
    let options = HttpOptions { timeout, concurrency: 2, ..options(LONG) };
    let replicas = Replicas::connect(&urls, Routing::Affinity, options).await.unwrap();
    let call = || replicas.logprobs(queries());
    let start = Instant::now();
    // Of eight calls two find a place at the first server; the others are answered by the second when they have failed.
    for answer in join_all((0..8).map(|_| call())).await {
        assert_eq!(answer.unwrap().len(), 16);
    }
    assert_eq!(*asked.lock().unwrap(), 2);
    while start.elapsed() < 3 * timeout {
        call().await.unwrap();
    }
    assert!(*asked.lock().unwrap() <= 4, "one request at a time sees whether it answers again");
}

#[tokio::test]
async fn two_servers_in_turns_get_equally_many_requests() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let mut urls = Vec::new();
    for server in 0..2 {
        let asked = asked.clone();
        let counted = move |path: &str, body: &str| {
            if path == "/v1/models" {
                return models();
            }
            asked.lock().unwrap().push(server);
            Reply::json(&score(body))
        };
        urls.push(serve(counted).await);
    }
    let replicas = Replicas::connect(&urls, Routing::RoundRobin, options(LONG)).await.unwrap();
    for _ in 0..4 {
        replicas.logprobs(query()).await.unwrap();
    }
    assert_eq!(*asked.lock().unwrap(), [0, 1, 0, 1]);
}
