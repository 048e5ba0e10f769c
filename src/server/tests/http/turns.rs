//! The real engine behind the real server: who is served first while a large request is being worked on.

use std::sync::{Arc, Mutex, mpsc};

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use surprisal_engine::{
    Backend, BackendError, Choice, Engine, ForwardBatch, Limits, SchedulerConfig, Scorer, TokenScore,
};
use surprisal_server::{ApiKeys, ServerConfig};

use crate::support::{BOS, Reply, Server, VOCABULARY, until};

/// Queries of the large request, and the tokens of each.
const BACKLOG: usize = 300;
const LENGTH: usize = 32;

/// The small request's target, which has no token of the large one's.
const SMALL: &str = "~~~~";

/// The tokens of each pass.
type Passes = Arc<Mutex<Vec<Vec<u32>>>>;

/// Runs a pass each time it is told to, and every one once nobody is there to tell it.
struct Stepped {
    steps: mpsc::Receiver<()>,
    passes: Passes,
}

impl Backend for Stepped {
    fn limits(&self) -> Limits {
        Limits { vocab_size: VOCABULARY, max_length: 64, blocks: 2 * BACKLOG }
    }

    fn forward(&mut self, batch: &ForwardBatch) -> Result<Vec<TokenScore>, BackendError> {
        let _ = self.steps.recv();
        self.passes.lock().unwrap().push(batch.tokens.clone());
        let given = |choice| if let Choice::Given(token) = choice { token } else { 0 };
        let score = |token: u32| TokenScore { token, logprob: -(token as f32) / 256.0, position: None };
        Ok(batch.scores.iter().map(|row| score(given(row.choice))).collect())
    }
}

/// A pass holds two queries of the large request.
fn engine() -> (Engine, mpsc::Sender<()>, Passes) {
    let (step, steps) = mpsc::channel();
    let passes = Passes::default();
    let backend = Stepped { steps, passes: Arc::clone(&passes) };
    let config = SchedulerConfig { token_budget: 2 * LENGTH, max_running: 8 };
    let words = || "stepped".to_owned();
    (Engine::start(words(), words(), words(), backend, config).unwrap(), step, passes)
}

fn backlog() -> Value {
    let target =
        |n: usize| -> String { (0..LENGTH).map(|i| char::from(32 + ((n >> (i % 9)) + i * n) as u8 % 90)).collect() };
    let queries: Vec<Value> = (0..BACKLOG).map(|n| json!({"target": target(n)})).collect();
    json!({"queries": queries})
}

/// Sends a large request and, some passes later, a small one; in how many passes more is it computed?
async fn passes_until_served(
    large: impl FnOnce(RequestBuilder) -> RequestBuilder,
    small: impl FnOnce(RequestBuilder) -> RequestBuilder,
    priority: i32,
) -> usize {
    let (engine, step, passes) = engine();
    let server = Server::serve(Arc::new(engine), ServerConfig::default(), Some(BOS), ApiKeys::default()).await;
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
async fn of_one_client_the_more_urgent_goes_first() {
    let named = |request: RequestBuilder| request.header("x-client-id", "alice");
    let passes = passes_until_served(named, named, -1).await;
    assert!(passes <= 4, "after {passes} passes");
    let passes = passes_until_served(named, named, 0).await;
    assert!(passes > 40, "its own requests are served in the order asked, not after {passes} passes");
}
