//! Two hundred clients that are killed while they wait: the server releases everything they held.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use surprisal_engine::Scorer;
use surprisal_server::{ApiKeys, ServerConfig};

use crate::support::stepped::stepped_engine;
use crate::support::{BOS, Server, until};

const CLIENTS: usize = 200;

/// A client that sends a request with shell builtins only, and reads the response until it is killed. Its arguments are
/// the port, the path, the accepted media type and the body.
const CLIENT: &str = r#"exec 3<>"/dev/tcp/127.0.0.1/$0"
printf 'POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\naccept: %s\r\ncontent-length: %d\r\n\r\n%s' "$1" "$2" "${#3}" "$3" >&3
while read -r _ <&3; do :; done"#;

/// Returns the target of a client's query.
fn target(number: usize, query: usize) -> String {
    format!("{number:03} {query} and some more of it")
}

/// Starts a client that waits for a JSON response, for NDJSON lines or for a generated text, depending on its number.
fn client(port: &str, number: usize) -> Child {
    let queries: Vec<Value> = (0..3).map(|query| json!({"target": target(number, query)})).collect();
    let queries = json!({ "queries": queries });
    let text = json!({"prompt": target(number, 0), "max_tokens": 20, "stream": true});
    let (path, accept, body) = match number % 3 {
        0 => ("/logprobs", "application/json", queries),
        1 => ("/logprobs", "application/x-ndjson", queries),
        _ => ("/v1/completions", "text/event-stream", text),
    };
    let body = body.to_string();
    let mut command = Command::new("bash");
    command.args(["-c", CLIENT, port, path, accept, &body]).stdout(Stdio::null()).stdin(Stdio::null());
    command.spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_clients_leave_nothing_behind() {
    let (engine, step, _) = stepped_engine();
    let server = Server::with_scorer(Arc::new(engine), ServerConfig::default(), Some(BOS), ApiKeys::default()).await;
    let queries = |stats: surprisal_engine::Stats| stats.waiting_queries + stats.running_queries;
    let asked = json!({"queries": [{"target": target(CLIENTS, 0)}], "detail": "tokens"});
    step.send(()).unwrap();
    let before = server.post("/logprobs", &asked).await.json();

    let port = server.url.rsplit(':').next().unwrap().to_owned();
    let mut clients: Vec<Child> = (0..CLIENTS).map(|number| client(&port, number)).collect();
    let expected = (0..CLIENTS).map(|number| if number % 3 == 2 { 1 } else { 3 }).sum::<u64>();
    let admitted = async || server.metric("surprisal_admitted_tokens").await;
    let length = 1 + target(0, 0).len();
    let tokens = (0..CLIENTS).map(|number| if number % 3 == 2 { length + 20 } else { 3 * length }).sum::<usize>();
    until(async || admitted().await == tokens as f64).await;
    for _ in 0..6 {
        step.send(()).unwrap();
    }
    until(async || server.scorer.stats().forward_passes == 7).await;
    assert!(server.scorer.stats().active_blocks > 0, "some queries are running");

    for client in &mut clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    until(async || admitted().await == 0.0).await;
    drop(step);
    until(async || queries(server.scorer.stats()) == 0).await;
    let stats = server.scorer.stats();
    assert_eq!(stats.active_blocks, 0, "{stats:?}");
    assert!(stats.cancelled_queries > expected / 2, "{stats:?}");
    assert_eq!(server.metric("surprisal_kv_cache_usage_perc").await, 0.0);

    // A query that was scored before, and one that was cancelled with its client.
    let after = server.post("/logprobs", &asked).await.json();
    assert_eq!(after["results"][0]["logprobs"], before["results"][0]["logprobs"]);
    let again = json!({"queries": [{"target": target(CLIENTS - 2, 2)}], "detail": "tokens"});
    let want: Vec<f64> = target(CLIENTS - 2, 2).bytes().map(|byte| -f64::from(byte) / 256.0).collect();
    assert_eq!(server.post("/logprobs", &again).await.json()["results"][0]["logprobs"], json!(want));
    assert_eq!(server.metric("surprisal_admitted_tokens").await, 0.0);
}
