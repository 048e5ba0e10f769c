//! The real engine behind the real server: the order of requests while a large one is running, and the priorities that
//! clients may send.

use std::sync::Arc;

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use surprisal_engine::Scorer;
use surprisal_server::{ApiKeys, ServerConfig};

use crate::support::stepped::{LENGTH, stepped_engine};
use crate::support::{BOS, LetterScorer, Reply, Server, until};

/// Number of queries of the large request, each of [`LENGTH`] tokens.
const BACKLOG: usize = 300;

/// The small request's target, which shares no token with the large request.
const SMALL: &str = "~~~~";

fn backlog() -> Value {
    let target =
        |n: usize| -> String { (0..LENGTH).map(|i| char::from(32 + ((n >> (i % 9)) + i * n) as u8 % 90)).collect() };
    let queries: Vec<Value> = (0..BACKLOG).map(|n| json!({"target": target(n)})).collect();
    json!({"queries": queries})
}

/// Sends a large request and, some passes later, a small one. Returns the number of passes until the small one is
/// served.
async fn passes_until_served(
    large: impl FnOnce(RequestBuilder) -> RequestBuilder,
    small: impl FnOnce(RequestBuilder) -> RequestBuilder,
    priority: i32,
) -> usize {
    let (engine, step, passes) = stepped_engine();
    let config = ServerConfig { min_priority: -1, ..ServerConfig::default() };
    let server = Server::with_scorer(Arc::new(engine), config, Some(BOS), ApiKeys::default()).await;
    let ask = |body: &Value| server.client.post(format!("{}/logprobs", server.url)).json(body);
    let send = |request: RequestBuilder| tokio::spawn(async move { Reply::read(request.send().await.unwrap()).await });
    let run = async |count: usize| {
        let before = server.scorer.stats().forward_passes;
        (0..count).for_each(|_| step.send(()).unwrap());
        until(async || server.scorer.stats().forward_passes == before + count as u64).await;
    };
    let large = send(large(ask(&backlog())));
    until(async || server.metric("surprisal_admitted_tokens").await == (BACKLOG * (LENGTH + 1)) as f64).await;
    run(5).await;
    let asked = json!({"queries": [{"target": SMALL}], "detail": "tokens", "priority": priority});
    let small = send(small(ask(&asked)));
    let both = BACKLOG * (LENGTH + 1) + SMALL.len() + 1;
    until(async || server.metric("surprisal_admitted_tokens").await == both as f64).await;
    run(60).await;
    let served = passes.lock().unwrap().iter().position(|tokens| tokens.contains(&u32::from(b'~'))).unwrap_or(65);
    drop(step);
    let small = small.await.unwrap();
    assert_eq!(small.json()["results"][0]["logprobs"], json!(vec![-126.0 / 256.0; 4]), "{small:?}");
    let large = large.await.unwrap();
    assert_eq!((large.status, large.json()["results"].as_array().unwrap().len()), (200, BACKLOG));
    served - 5
}

#[tokio::test]
async fn a_small_request_overtakes_a_large_one() {
    let passes = passes_until_served(|request| request, |request| request, 0).await;
    assert!(passes <= 4, "after {passes} passes");
}

#[tokio::test]
async fn a_clients_more_urgent_request_goes_first() {
    let named = |request: RequestBuilder| request.header("x-client-id", "alice");
    let passes = passes_until_served(named, named, -1).await;
    assert!(passes <= 4, "after {passes} passes");
    let passes = passes_until_served(named, named, 0).await;
    assert!(passes > 40, "a client's requests run in the order sent, but this one overtook after {passes} passes");
}

/// Sends a priority on each route with a key; returns the status of each, after checking the problems.
async fn statuses(server: &Server<LetterScorer>, key: &str, priority: i32, limit: i32) -> [u16; 3] {
    let mut statuses = [0; 3];
    // Greater values are more urgent on SGLang's route.
    let sglang = priority.saturating_neg();
    for (at, (path, body)) in [
        ("/logprobs", json!({"queries": [{"target": "a"}], "priority": priority})),
        ("/v1/completions", json!({"prompt": "a", "max_tokens": 1, "priority": priority})),
        ("/generate", json!({"text": "a", "priority": sglang})),
    ]
    .into_iter()
    .enumerate()
    {
        let request = server.client.post(format!("{}{path}", server.url)).bearer_auth(key).json(&body);
        let reply = Reply::read(request.send().await.unwrap()).await;
        statuses[at] = reply.status;
        if reply.status != 200 {
            let (_, name, problem) = reply.problem();
            let (priority, limit) = if at == 2 { (sglang, -limit) } else { (priority, limit) };
            assert_eq!((name.as_str(), &problem["field"]), ("out-of-range", &json!("priority")), "{problem}");
            assert_eq!((&problem["value"], &problem["limit"]), (&json!(priority), &json!(limit)), "{problem}");
        }
    }
    statuses
}

#[tokio::test]
async fn a_client_may_not_send_more_urgent_requests_than_its_key_permits() {
    let keys = || ApiKeys::parse("plain\nurgent min_priority=-10\nslow min_priority=5\n");
    for (server_limit, cases) in
        [(0, [("plain", 0), ("urgent", -10), ("slow", 5)]), (-3, [("plain", -3), ("urgent", -10), ("slow", 5)])]
    {
        let config = ServerConfig { min_priority: server_limit, ..ServerConfig::default() };
        let server = Server::with_scorer(Arc::new(LetterScorer::new()), config, Some(BOS), keys()).await;
        for (key, limit) in cases {
            assert_eq!(statuses(&server, key, limit, limit).await, [200; 3], "{key}");
            assert_eq!(statuses(&server, key, i32::MAX, limit).await, [200; 3], "{key}");
            assert_eq!(statuses(&server, key, limit - 1, limit).await, [400; 3], "{key}");
            assert_eq!(statuses(&server, key, i32::MIN + 1, limit).await, [400; 3], "{key}");
        }
    }
    // Without keys, the setting holds for everyone.
    let server = Server::start().await;
    assert_eq!(statuses(&server, "", -1, 0).await, [400; 3]);
    assert_eq!(statuses(&server, "", 0, 0).await, [200; 3]);
}
