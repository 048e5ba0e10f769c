//! Tests of several servers as one source: servers that hang, and the choice of a server for each request.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use support::{LONG, Reply, models, options, query, score, serve};
use surprisal_estimator::{HttpOptions, LogprobSource, Replicas, Routing, ScoreQuery, ScoringDialect};

fn answer(path: &str, body: &str) -> Reply {
    if path == "/v1/models" { models() } else { Reply::json(&score(body)) }
}

/// Enough different prefixes that each of two servers gets some.
fn queries() -> Vec<ScoreQuery> {
    (1..17).map(|token| ScoreQuery { context: vec![token], target: vec![3, 4] }).collect()
}

/// The other server is tried even if the request timeout is longer than the time limit for retries.
#[tokio::test]
async fn queries_for_a_server_that_hangs_go_to_another() {
    let hangs = |path: &str, _: &str| if path == "/v1/models" { models() } else { Reply::Silence };
    let urls = [serve(hangs).await, serve(answer).await];
    let give_up_after = Duration::from_millis(100);
    let options = HttpOptions { timeout: 3 * give_up_after, ..options(give_up_after) };
    let replicas = Replicas::connect(&urls, Routing::Affinity, options).await.unwrap();
    assert!(replicas.logprobs(queries()).await.unwrap().iter().all(|logprobs| logprobs.len() == 2));
}

/// A server that hangs costs one timeout, not one for each call with queries for it.
#[tokio::test]
async fn a_server_that_hangs_costs_one_timeout() {
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
    // Two of eight calls get a slot of the server that hangs. After they fail, the other server answers the rest.
    for answer in join_all((0..8).map(|_| call())).await {
        assert_eq!(answer.unwrap().len(), 16);
    }
    assert_eq!(*asked.lock().unwrap(), 2);
    while start.elapsed() < 3 * timeout {
        call().await.unwrap();
    }
    assert!(*asked.lock().unwrap() <= 4, "only one request at a time may probe the server");
}

#[tokio::test]
async fn round_robin_sends_each_server_the_same_number_of_requests() {
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

/// Servers without a listed fingerprint share the one of the first response.
#[tokio::test]
async fn servers_with_other_systems_are_named() {
    let mut urls = Vec::new();
    for system in ["s1", "s2"] {
        let answer = move |path: &str, body: &str| {
            if path == "/v1/models" {
                return Reply::text(200, r#"{"data":[{"id":"m"}]}"#);
            }
            let request: serde_json::Value = serde_json::from_str(body).unwrap();
            let choice = |(index, prompt): (usize, &serde_json::Value)| {
                let tokens = prompt.as_array().unwrap().len();
                json!({"index": index, "logprobs": {"token_logprobs": vec![-1.0; tokens]}})
            };
            let choices: Vec<_> = request["prompt"].as_array().unwrap().iter().enumerate().map(choice).collect();
            Reply::json(&json!({"choices": choices, "system_fingerprint": system}))
        };
        urls.push(serve(answer).await);
    }
    let options = HttpOptions { api: ScoringDialect::OpenAi, ..options(LONG) };
    let replicas = Replicas::connect(&urls, Routing::RoundRobin, options).await.unwrap();
    replicas.logprobs(query()).await.unwrap();
    let error = replicas.logprobs(query()).await.unwrap_err().to_string();
    let [first, second] = [&urls[0], &urls[1]].map(|url| url.trim_end_matches('/'));
    assert!(error.contains(&format!("{first} serves s1, but {second} serves s2")), "{error}");
}
