//! Tests that load-test running servers: requests are answered, and failures are counted.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::time::Duration;

use surprisal_engine::SchedulerConfig;
use surprisal_load::{
    Dialect, Endpoint, Error, LatencyClass, Load, Options, Outcome, Report, Target, Workload, measure,
};
use surprisal_server::ServerConfig;
use surprisal_tests::server::TestServer;
use surprisal_tests::tiny::TinyLlama;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const PAIRS: Workload = Workload::Pairs { contexts: 2, context_length: 40, targets: 3, target_length: 4, prefixes: 4 };

async fn serve(config: ServerConfig) -> TestServer {
    let dir = tempfile::tempdir().unwrap();
    TinyLlama::default().write(dir.path(), 1);
    TestServer::start(dir.path(), SchedulerConfig::default(), config).await
}

async fn discover(url: &str) -> Target {
    Target::discover(url.parse().unwrap(), None, None).await.unwrap()
}

/// Returns options for exactly this number of requests, without a warm-up.
fn exactly(requests: u64) -> Options {
    Options { warm_up: Duration::ZERO, requests: Some(requests), ..Options::default() }
}

async fn load(target: &Target, workload: &Workload, load: Load, options: &Options) -> Outcome {
    measure(target, workload, load, options, &|_| {}).await.unwrap()
}

fn failures(outcome: &Outcome) -> Vec<(&str, u64)> {
    outcome.failures.iter().map(|(kind, failures)| (kind.as_str(), failures.count)).collect()
}

/// The client and the server count the same work, and repeated requests return the same bits.
#[tokio::test]
async fn a_closed_loop_sends_exactly_its_requests() {
    let server = serve(ServerConfig::default()).await;
    let target = discover(&server.url).await;
    assert_eq!((target.vocabulary, target.max_length, target.model.as_str()), (515, Some(1024), "test"));
    let outcome = load(&target, &PAIRS, Load::Closed { clients: 3 }, &exactly(20)).await;
    assert_eq!(failures(&outcome), []);
    assert_eq!((outcome.requests, outcome.queries, outcome.scored_tokens), (20, 120, 480));
    assert_eq!(outcome.latency[&LatencyClass::Bulk].count, 20);
    let counters = &outcome.counters.as_ref().unwrap().0;
    assert_eq!(counters["scored_tokens_total"], 480.0);
    let (computed, cached) = (outcome.computed_tokens.unwrap(), outcome.cached_tokens.unwrap());
    assert_eq!((counters["computed_tokens_total"], counters["cached_tokens_total"]), (computed as f64, cached as f64));
    // Each request has 6 queries of 44 tokens, and computes each of its two contexts at most once.
    assert!(outcome.hit_rate().unwrap() > 0.6, "{outcome}");
    let repeats = outcome.repeats.unwrap();
    assert_eq!((repeats.asked, repeats.same, repeats.largest_difference), (5, 5, 0.0));
}

/// Streams share no documents, so the cache does not help another stream. A repeated stream is cached as a whole.
#[tokio::test]
async fn streams_have_different_requests() {
    let server = serve(ServerConfig::default()).await;
    let target = discover(&server.url).await;
    let documents = Workload::Documents { length: 64 };
    let mut computed = Vec::new();
    for stream in [0, 1, 1] {
        let options = Options { stream, ..exactly(6) };
        let outcome = load(&target, &documents, Load::Closed { clients: 2 }, &options).await;
        computed.push(outcome.computed_tokens.unwrap());
    }
    assert_eq!(computed, [6 * 63, 6 * 63, 0]);
}

/// The server can be load-tested in each of its dialects.
#[tokio::test]
async fn every_dialect_of_the_server_is_measured() {
    let server = serve(ServerConfig::default()).await;
    for dialect in [Dialect::Vllm, Dialect::OpenAi, Dialect::Sglang] {
        let target = discover(&format!("{}+{}", dialect.name(), server.url)).await;
        let before = server.metric("surprisal_scored_tokens_total").await;
        let outcome = load(&target, &PAIRS, Load::Closed { clients: 2 }, &exactly(4)).await;
        assert_eq!((failures(&outcome), outcome.scored_tokens), (vec![], 96), "{dialect:?}");
        let repeats = outcome.repeats.unwrap();
        assert_eq!(repeats.asked, repeats.same);
        assert!(server.metric("surprisal_scored_tokens_total").await - before >= 96.0, "{dialect:?}");
    }
}

#[tokio::test]
async fn an_open_loop_offers_its_rate_for_its_duration() {
    let server = serve(ServerConfig::default()).await;
    let target = discover(&server.url).await;
    let mixed = Workload::Mixed { length: 32, interactive: 0.5, context_length: 8, target_length: 1, prefixes: 2 };
    let options = Options {
        warm_up: Duration::from_secs(1),
        duration: Duration::from_secs(1),
        connections: 64,
        ..Options::default()
    };
    let told = Mutex::new(Vec::new());
    let note = |progress: &_| told.lock().unwrap().push(*progress);
    let outcome = measure(&target, &mixed, Load::Constant { rate: 40.0 }, &options, &note).await.unwrap();
    let counted: u64 = outcome.latency.values().map(|latency| latency.count).sum();
    assert_eq!(counted, 40, "every request that was due counts, whatever its result");
    assert!(
        outcome.latency.contains_key(&LatencyClass::Interactive) && outcome.latency.contains_key(&LatencyClass::Bulk)
    );
    assert_eq!(outcome.seconds, 1.0);
    assert!(told.lock().unwrap()[0].warming_up);
}

/// The server admits one request at a time. Rejected requests wait as long as the server asks, and are answered in the
/// end.
#[tokio::test]
async fn a_rejected_request_is_retried_after_the_delay_that_the_server_asks_for() {
    let server = serve(ServerConfig { max_waiting_tokens: 140, ..ServerConfig::default() }).await;
    let target = discover(&server.url).await;
    let outcome = load(&target, &Workload::Documents { length: 128 }, Load::Closed { clients: 4 }, &exactly(8)).await;
    assert_eq!((failures(&outcome), outcome.requests), (vec![], 8));
    assert!(outcome.refused > 0, "{outcome}");
    assert!(outcome.latency[&LatencyClass::Bulk].max >= 1000.0, "Retry-After was one second: {outcome}");

    // A stream with other documents, which are not in the cache.
    let hasty = Options { timeout: Duration::from_millis(500), stream: 1, ..exactly(8) };
    let outcome = load(&target, &Workload::Documents { length: 128 }, Load::Closed { clients: 4 }, &hasty).await;
    assert!(outcome.failures.contains_key("status 429 to the end"), "{outcome}");
    assert_eq!(outcome.requests + outcome.failed(), 8);
    assert!(
        outcome.latency[&LatencyClass::Bulk].max >= 500.0,
        "the latency of a request that the client gave up on is at least the timeout: {outcome}"
    );
}

/// An open loop's latencies include the wait of every request that was due while the server stalled.
#[tokio::test]
async fn a_stall_is_not_hidden() {
    let url = stub(|request| match request {
        10 => (Duration::from_millis(600), "200 OK", answer("-1")),
        _ => (Duration::ZERO, "200 OK", answer("-1")),
    })
    .await;
    let target = discover(&url).await;
    let options = Options {
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(1),
        connections: 1,
        repeats: 0,
        ..Options::default()
    };
    let outcome = load(&target, &Workload::Documents { length: 2 }, Load::Constant { rate: 100.0 }, &options).await;
    let latency = outcome.latency[&LatencyClass::Bulk];
    assert_eq!(latency.count, 100);
    // 60 requests were due during the stall and waited 300 ms on average. If latency counted from sending, only one
    // request would be slow.
    assert!(latency.p50 > 20.0 && latency.max >= 590.0, "{outcome}");
}

/// Requests that the warm-up leaves in the queue do not count as failures of the measurement.
#[tokio::test]
async fn the_queue_of_the_warm_up_is_not_counted() {
    let url = stub(|request| match request {
        0 => (Duration::ZERO, "200 OK", answer("-1")),
        _ => (Duration::from_millis(200), "200 OK", answer("-1")),
    })
    .await;
    let target = discover(&url).await;
    let options = Options {
        warm_up: Duration::from_millis(500),
        duration: Duration::from_millis(500),
        connections: 1,
        repeats: 0,
        ..Options::default()
    };
    let outcome = load(&target, &Workload::Documents { length: 2 }, Load::Constant { rate: 100.0 }, &options).await;
    assert_eq!(outcome.latency[&LatencyClass::Bulk].count, 50, "{outcome}");
    assert!(outcome.failures["never sent"].count <= 50, "{outcome}");
}

/// Failures have kinds, and quick failures have no latency. A different answer to a repeated request is detected.
#[tokio::test]
async fn failures_are_counted_by_kind() {
    let url = stub(|request| match request {
        1 => (Duration::ZERO, "500 Internal Server Error", "it hurts".into()),
        2 => (Duration::ZERO, "200 OK", answer("-1, -2")),
        3 => (Duration::ZERO, "", String::new()),
        4 => (Duration::from_secs(6), "200 OK", answer("-1")),
        request if request < 10 => (Duration::ZERO, "200 OK", answer("-1")),
        _ => (Duration::ZERO, "200 OK", answer("-1.5")),
    })
    .await;
    let target = discover(&url).await;
    let options = Options { timeout: Duration::from_secs(3), repeats: 100, ..exactly(9) };
    let outcome = load(&target, &Workload::Documents { length: 2 }, Load::Closed { clients: 1 }, &options).await;
    assert_eq!(failures(&outcome), [("bad answer", 1), ("broken connection", 1), ("status 500", 1), ("timeout", 1)]);
    let latency = outcome.latency[&LatencyClass::Bulk];
    assert_eq!(latency.count, 6, "five answers and a timeout: {outcome}");
    assert!(latency.max >= 2990.0, "{outcome}");
    assert!(outcome.failures["status 500"].example.contains("it hurts"));
    assert!(outcome.failures["bad answer"].example.contains("expected 1 log-probabilities for the target, got 2"));
    let repeats = outcome.repeats.unwrap();
    assert_eq!((repeats.asked, repeats.same, repeats.largest_difference), (5, 0, 0.5), "{outcome}");
}

/// Answers that no model gives, and answers longer than any answer, count as failures.
#[tokio::test]
async fn answers_that_cannot_be_right_are_failures() {
    let url = stub(|request| match request {
        1 => (Duration::ZERO, "200 OK", answer("5")),
        2 => (Duration::ZERO, "200 OK", " ".repeat(1 << 20) + &answer("-1")),
        _ => (Duration::ZERO, "200 OK", answer("-1")),
    })
    .await;
    let target = discover(&url).await;
    let options = Options { repeats: 0, ..exactly(3) };
    let outcome = load(&target, &Workload::Documents { length: 2 }, Load::Closed { clients: 1 }, &options).await;
    assert_eq!((failures(&outcome), outcome.requests), (vec![("bad answer", 2)], 1), "{outcome}");
    assert!(outcome.failures["bad answer"].example.contains("log-probability 5; it must be at most 0"), "{outcome}");
    let url = stub(|_| (Duration::ZERO, "200 OK", " ".repeat(1 << 20))).await;
    let target = discover(&url).await;
    let load = Load::Closed { clients: 1 };
    let error = measure(&target, &Workload::Documents { length: 2 }, load, &exactly(1), &|_| {}).await.unwrap_err();
    assert!(matches!(error, Error::Answer { .. }) && error.to_string().contains("is longer than"), "{error}");
}

#[tokio::test]
async fn a_server_that_cannot_be_measured_is_an_error() {
    let gone = Target::discover("http://127.0.0.1:1".parse().unwrap(), None, None).await.unwrap_err();
    assert!(gone.to_string().contains("is a server running there?"), "{gone}");
    let server = serve(ServerConfig::default()).await;
    let target = discover(&server.url).await;
    let refused = |workload, load, options| {
        let target = &target;
        async move { measure(target, &workload, load, &options, &|_| {}).await.unwrap_err().to_string() }
    };
    let one = Load::Closed { clients: 1 };
    let long = refused(Workload::Documents { length: 2000 }, one, exactly(1)).await;
    assert!(long.contains("2000") && long.contains("1024"), "{long}");
    assert!(refused(PAIRS, Load::Closed { clients: 0 }, exactly(1)).await.contains("clients"));
    assert!(refused(PAIRS, one, Options { duration: Duration::ZERO, ..Options::default() }).await.contains("duration"));
    let wrong = Target { vocabulary: 9000, ..target.clone() };
    let outcome = measure(&wrong, &PAIRS, one, &exactly(1), &|_| {}).await.unwrap_err();
    assert!(matches!(outcome, Error::Status { status: 400..=422, .. }), "{outcome}");
}

#[test]
fn invalid_addresses_are_rejected() {
    for wrong in ["localhost:8000", "https://a", "ftp://a", "tgi+http://a", "http://", "http://a b", "http://me@a"] {
        let told = wrong.parse::<Endpoint>().unwrap_err().to_string();
        assert!(told.contains("http://HOST"), "{told}");
    }
    assert_eq!("sglang+http://a:1/base/".parse::<Endpoint>().unwrap().to_string(), "sglang+http://a:1/base");
}

/// A report is read back as it was written, and its page has the curves.
#[tokio::test]
async fn reports_round_trip_and_are_drawn() {
    let server = serve(ServerConfig::default()).await;
    let target = discover(&server.url).await;
    let mut report = Report::new(&target, &PAIRS, &Options::default());
    for clients in [1, 2] {
        report.outcomes.push(load(&target, &PAIRS, Load::Closed { clients }, &exactly(4)).await);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.json");
    report.write(&path).unwrap();
    assert_eq!(Report::read(&path).unwrap(), report);
    assert!(Report::read(dir.path()).is_err());
    Report::write_curves(&[report.clone()], &dir.path().join("curves.html")).unwrap();
    let page = std::fs::read_to_string(dir.path().join("curves.html")).unwrap();
    assert_eq!((page.matches("<svg").count(), page.matches("<circle").count()), (2, 6));
    for name in ["curves.svg", "curves.pdf"] {
        Report::write_curves(&[report.clone(), report.clone()], &dir.path().join(name)).unwrap();
    }
    assert!(std::fs::read(dir.path().join("curves.pdf")).unwrap().starts_with(b"%PDF-"));
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 4, "no temporary files remain: {names:?}");
}

/// Returns an answer to a query with one token.
fn answer(logprobs: &str) -> String {
    format!(
        r#"{{"model":"m","fingerprint":"f","results":[{{"sum":-1,"tokens":1,"cached_tokens":0,"logprobs":[{logprobs}]}}],
        "usage":{{"computed_tokens":1,"cached_tokens":0,"scored_tokens":1}}}}"#
    )
}

/// Starts a server that misbehaves according to a script. Given the number of earlier requests, which is 0 for the
/// probe before a measurement, the script returns a delay, a status (empty to close the connection) and a body.
async fn stub(script: fn(usize) -> (Duration, &'static str, String)) -> String {
    const MODELS: &str = r#"{"data":[{"id":"m","vocab_size":100}]}"#;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let count = count.clone();
            tokio::spawn(async move {
                let mut read = Vec::new();
                while stream.read_buf(&mut read).await.is_ok_and(|bytes| bytes > 0) {
                    let text = String::from_utf8_lossy(&read).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if body.len() < length.map_or(0, |length| length.parse().unwrap()) {
                        continue;
                    }
                    read.clear();
                    let (wait, status, body) = match head.split(' ').nth(1) {
                        Some("/v1/models") => (Duration::ZERO, "200 OK", MODELS.to_owned()),
                        Some("/logprobs") => script(count.fetch_add(1, std::sync::atomic::Ordering::SeqCst)),
                        _ => (Duration::ZERO, "404 Not Found", String::new()),
                    };
                    tokio::time::sleep(wait).await;
                    if status.is_empty() {
                        return;
                    }
                    let reply = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    stream.write_all(reply.as_bytes()).await.unwrap();
                }
            });
        }
    });
    url
}
