//! The HTTP source against a small server that answers, refuses, and fails on cue.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use surprisal_api::{
    Bos, LogprobsRequest, LogprobsResponse, ModelInfo, ModelList, PROBLEM_JSON, Problem, QueryResult, Text,
    TokenizeRequest, TokenizeResponse, Usage,
};
use surprisal_estimator::{
    Api, Corpus, ExactSource, HttpOptions, HttpSource, LogprobSource, Pairing, Plan, Replicas, Retry, Routing, SantaFe,
    ScoreQuery, Spacing, run,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Status, extra header line, content type, body. Status 0: the connection breaks within the body; 1: nothing comes.
struct Reply(u16, &'static str, &'static str, String);

fn json(body: &impl Serialize) -> Reply {
    Reply(200, "", "application/json", serde_json::to_string(body).unwrap())
}

fn problem(status: u16, header: &'static str, problem: &Problem) -> Reply {
    Reply(status, header, PROBLEM_JSON, serde_json::to_string(problem).unwrap())
}

/// Serves `answer(path, body)` on a free port until the test ends; the URL.
async fn serve(answer: impl Fn(&str, &str) -> Reply + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move { exchange(stream, &*answer).await });
        }
    });
    url
}

/// One request, one reply.
async fn exchange(stream: TcpStream, answer: &(impl Fn(&str, &str) -> Reply + Sync)) {
    let mut stream = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).await.unwrap();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        match line.trim().to_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let path = first.split(' ').nth(1).unwrap_or_default();
    let Reply(status, header, kind, text) = answer(path, std::str::from_utf8(&body).unwrap());
    if status == 1 {
        return std::future::pending().await;
    }
    if status == 0 {
        let half = b"HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\nhalf";
        return stream.write_all(half).await.unwrap();
    }
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n{header}\r\n",
        text.len()
    );
    stream.write_all(format!("{head}{text}").as_bytes()).await.unwrap();
}

fn process() -> SantaFe {
    SantaFe::new(50, 1.3, 1e-3).unwrap()
}

fn models() -> Reply {
    let info = ModelInfo {
        id: "oracle".to_owned(),
        object: "model".to_owned(),
        created: 0,
        owned_by: "surprisal".to_owned(),
        max_model_len: 512,
        vocab_size: 101,
        fingerprint: "f1".to_owned(),
    };
    json(&ModelList { object: "list".to_owned(), data: vec![info] })
}

fn ids(text: &Text) -> &[u32] {
    match text {
        Text::Tokens(tokens) => tokens,
        Text::String(_) => panic!("token ids were expected"),
    }
}

/// The oracle, as a server would answer.
fn score(body: &str) -> LogprobsResponse {
    let request: LogprobsRequest = serde_json::from_str(body).unwrap();
    let result = |query: &surprisal_api::QuerySpec| {
        let exact = process().logprobs(ids(&query.context), ids(&query.target)).unwrap();
        QueryResult {
            sum: exact.iter().sum(),
            tokens: exact.len(),
            logprobs: Some(exact.iter().map(|&logprob| logprob as f32).collect()),
            ..QueryResult::default()
        }
    };
    LogprobsResponse {
        model: "oracle".to_owned(),
        fingerprint: "f1".to_owned(),
        results: request.queries.unwrap().iter().map(result).collect(),
        usage: Usage::default(),
    }
}

fn options(patience: Duration) -> HttpOptions {
    HttpOptions {
        retry: Retry { first: Duration::from_millis(1), longest: Duration::from_millis(20), patience },
        ..HttpOptions::default()
    }
}

const LONG: Duration = Duration::from_secs(60);

fn query() -> Vec<ScoreQuery> {
    vec![ScoreQuery { context: vec![1, 2], target: vec![3, 4] }]
}

#[tokio::test]
async fn a_served_oracle_gives_the_exact_source_s_estimates() {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let noted = sizes.clone();
    let url = serve(move |path, body| match path {
        "/v1/models" => models(),
        "/logprobs" => {
            let answer = score(body);
            noted.lock().unwrap().push(answer.results.len());
            json(&answer)
        }
        other => panic!("{other}"),
    })
    .await;
    let limits = HttpOptions { queries_per_request: 5, ..options(LONG) };
    let source = HttpSource::connect(&url, limits).await.unwrap();
    assert_eq!((source.model().name.as_str(), source.model().max_length), ("oracle", 512));
    assert_eq!(source.vocabulary(), Some(101));

    let plan = Plan::new(12, &[2, 8, 32], Pairing::Same, 1).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let documents: Vec<_> = (0..12).map(|_| process().sample(plan.window(), &mut rng)).collect();
    // Spawned: a caller may put an experiment on any thread.
    let (its_plan, its_documents) = (plan.clone(), documents.clone());
    let served = tokio::spawn(async move { run(&source, &its_documents, &its_plan, None, |_| {}).await });
    let served = served.await.unwrap().unwrap();
    let exact = run(&ExactSource::new(process()), &documents, &plan, None, |_| {}).await.unwrap();
    assert_eq!(served, exact);
    assert!(sizes.lock().unwrap().iter().all(|&size| size <= 5));
}

#[tokio::test]
async fn failures_that_pass_are_tried_again() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let url = serve(move |path, body| {
        if path == "/v1/models" {
            return models();
        }
        let busy = Problem::new(429, "busy", "Too many requests", "the queue is full");
        match counted.fetch_add(1, Ordering::SeqCst) {
            0 => problem(429, "retry-after: 0\r\n", &busy),
            1 => Reply(502, "", "text/html", "<h1>bad gateway</h1>".to_owned()),
            2 => Reply(503, "", "text/plain", String::new()),
            3 => Reply(504, "", "text/plain", String::new()),
            4 => Reply(0, "", "", String::new()),
            5 => Reply(500, "", "text/plain", "a worker died".to_owned()),
            _ => json(&score(body)),
        }
    })
    .await;
    let source = HttpSource::connect(&url, options(LONG)).await.unwrap();
    assert_eq!(source.logprobs(query()).await.unwrap()[0].len(), 2);
    assert_eq!(attempts.load(Ordering::SeqCst), 7);
}

#[tokio::test]
async fn refusals_are_shown_and_not_repeated() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let url = serve(move |path, _| {
        if path == "/v1/models" {
            return models();
        }
        counted.fetch_add(1, Ordering::SeqCst);
        let mut refusal = Problem::new(422, "token-out-of-range", "Token out of range", "no such token");
        refusal.field = Some("queries[0].target[1]".to_owned());
        refusal.value = Some(400.into());
        refusal.limit = Some(101.into());
        problem(422, "", &refusal)
    })
    .await;
    let source = HttpSource::connect(&url, options(LONG)).await.unwrap();
    let error = source.logprobs(query()).await.unwrap_err().to_string();
    assert!(error.contains("/logprobs refused: Token out of range (422): no such token"), "{error}");
    assert!(error.contains("field queries[0].target[1], value 400, limit 101"), "{error}");
    assert_eq!(attempts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn patience_ends() {
    let url = serve(|_, _| Reply(503, "retry-after: 3600\r\n", "text/plain", "draining".to_owned())).await;
    let error = HttpSource::connect(&url, options(Duration::from_millis(100))).await.unwrap_err().to_string();
    assert!(error.starts_with("gave up after") && error.ends_with("503: draining"), "{error}");

    // Nobody listens there any more.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = HttpSource::connect(&url, options(Duration::from_millis(5))).await.unwrap_err().to_string();
    assert!(error.contains("refused") && error.contains("/v1/models"), "{error}");
}

/// Though a request may take longer than failures are borne with.
#[tokio::test]
async fn a_server_that_hangs_is_left_for_another() {
    let hangs = |path: &str, _: &str| if path == "/v1/models" { models() } else { Reply(1, "", "", String::new()) };
    let answers = |path: &str, body: &str| if path == "/v1/models" { models() } else { json(&score(body)) };
    let urls = [serve(hangs).await, serve(answers).await];
    let patience = Duration::from_millis(100);
    let options = HttpOptions { timeout: 3 * patience, ..options(patience) };
    let replicas = Replicas::connect(&urls, Routing::Affinity, options).await.unwrap();
    // So many beginnings that some are the first server's.
    let queries = (1..17).map(|token| ScoreQuery { context: vec![token], target: vec![3, 4] }).collect();
    assert!(replicas.logprobs(queries).await.unwrap().iter().all(|logprobs| logprobs.len() == 2));
}

/// One that hangs costs its timeout once, not once for each call that has something for it.
#[tokio::test]
async fn a_server_that_hangs_is_not_waited_for_again_and_again() {
    let asked = Arc::new(Mutex::new(0));
    let counted = asked.clone();
    let hangs = move |path: &str, _: &str| {
        if path == "/v1/models" {
            return models();
        }
        *counted.lock().unwrap() += 1;
        Reply(1, "", "", String::new())
    };
    let answers = |path: &str, body: &str| if path == "/v1/models" { models() } else { json(&score(body)) };
    let urls = [serve(hangs).await, serve(answers).await];
    let timeout = Duration::from_millis(400);
    let options = HttpOptions { timeout, concurrency: 2, ..options(LONG) };
    let replicas = Replicas::connect(&urls, Routing::Affinity, options).await.unwrap();
    let call =
        || replicas.logprobs((1..17).map(|token| ScoreQuery { context: vec![token], target: vec![3, 4] }).collect());
    let start = Instant::now();
    // Of eight calls two find a place at the first server; the others are answered by the second when they have failed.
    join_all((0..8).map(|_| call())).await.into_iter().for_each(|answer| assert_eq!(answer.unwrap().len(), 16));
    assert_eq!(*asked.lock().unwrap(), 2);
    while start.elapsed() < 3 * timeout {
        call().await.unwrap();
    }
    assert!(*asked.lock().unwrap() <= 4, "one request at a time sees whether it answers again");
}

#[tokio::test]
async fn two_servers_in_turns_are_asked_equally_often() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let mut urls = Vec::new();
    for server in 0..2 {
        let asked = asked.clone();
        let answer = move |path: &str, body: &str| {
            if path == "/v1/models" {
                return models();
            }
            asked.lock().unwrap().push(server);
            json(&score(body))
        };
        urls.push(serve(answer).await);
    }
    let replicas = Replicas::connect(&urls, Routing::RoundRobin, options(LONG)).await.unwrap();
    for _ in 0..4 {
        replicas.logprobs(query()).await.unwrap();
    }
    assert_eq!(*asked.lock().unwrap(), [0, 1, 0, 1]);
}

/// Answers depend on the BOS that a server is sent: kept ones are asked again when it is another.
#[tokio::test]
async fn a_bos_of_ones_own_is_in_the_fingerprint() {
    let nameless = serve(|_, _| Reply(200, "", "application/json", r#"{"data":[{"id":"m"}]}"#.to_owned())).await;
    let named = serve(|_, _| models()).await;
    for (url, api, bos, fingerprint) in [
        (&nameless, Api::Vllm, None, "vllm:m"),
        (&nameless, Api::Vllm, Some(1), "vllm:m, bos 1"),
        (&nameless, Api::Sglang, Some(2), "sglang:m, bos 2"),
        (&named, Api::OpenAi, Some(2), "f1, bos 2"),
        (&named, Api::Surprisal, None, "f1"),
        (&named, Api::Surprisal, Some(2), "f1, bos 2"),
    ] {
        let source = HttpSource::connect(url, HttpOptions { api, bos, ..options(LONG) }).await.unwrap();
        assert_eq!(source.model().fingerprint, fingerprint);
    }
}

/// A surprisal server whose model has no BOS is told to add none, and sent the one that was given.
#[tokio::test]
async fn a_bos_of_ones_own_is_sent_with_every_context() {
    let url = serve(|path, body| {
        if path == "/v1/models" {
            return models();
        }
        let mut request: LogprobsRequest = serde_json::from_str(body).unwrap();
        assert_eq!(request.bos, Bos::None);
        for query in request.queries.iter_mut().flatten() {
            let rest = ids(&query.context).strip_prefix(&[77]).unwrap().to_vec();
            query.context = rest.into();
        }
        json(&score(&serde_json::to_string(&request).unwrap()))
    })
    .await;
    let source = HttpSource::connect(&url, HttpOptions { bos: Some(77), ..options(LONG) }).await.unwrap();
    let exact: Vec<f32> = process().logprobs(&[1, 2], &[3, 4]).unwrap().iter().map(|&exact| exact as f32).collect();
    assert_eq!(source.logprobs(query()).await.unwrap(), [exact]);
}

#[tokio::test]
async fn answers_to_another_question_are_refused() {
    for (change, message) in [
        ((|a| a.fingerprint = "f2".to_owned()) as fn(&mut LogprobsResponse), "fingerprint f1 became f2"),
        (|a| a.results.clear(), "1 queries, 0 results"),
        (|a| a.results[0].logprobs = None, "2 target tokens, its result 0"),
    ] {
        let url = serve(move |path, body| {
            if path == "/v1/models" {
                return models();
            }
            let mut answer = score(body);
            change(&mut answer);
            json(&answer)
        })
        .await;
        let source = HttpSource::connect(&url, options(LONG)).await.unwrap();
        let error = source.logprobs(query()).await.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[tokio::test]
async fn a_text_becomes_windows_of_the_server_s_tokens() {
    let url = serve(|path, body| match path {
        "/v1/models" => models(),
        "/tokenize" => {
            let request: TokenizeRequest = serde_json::from_str(body).unwrap();
            assert!(!request.add_special_tokens);
            let tokens: Vec<u32> = request.prompt.bytes().map(u32::from).collect();
            json(&TokenizeResponse { count: tokens.len(), tokens, max_model_len: 512 })
        }
        "/detokenize" => Reply(200, "", "application/json", r#"{"prompt":"back"}"#.to_owned()),
        other => panic!("{other}"),
    })
    .await;
    let source = HttpSource::connect(&url, options(LONG)).await.unwrap();
    let text = "It was a dark night.\n".repeat(30_000);
    let corpus = Corpus::from_text(&source, &text).await.unwrap();
    assert_eq!(corpus.tokens().len(), text.len());
    let windows = corpus.windows(10, 21, Spacing::Even, 0).unwrap();
    assert_eq!(windows[0], text.bytes().take(21).map(u32::from).collect::<Vec<_>>());
    assert_eq!(source.detokenize(&[1]).await.unwrap(), "back");
}

#[tokio::test]
async fn no_concurrency_is_no_option() {
    let none = HttpOptions { concurrency: 0, ..options(LONG) };
    let error = HttpSource::connect("http://127.0.0.1:1", none).await.unwrap_err().to_string();
    assert_eq!(error, "concurrency is 0; it must be at least 1");
}
