//! Tests of the HTTP source against a small server that responds, rejects requests or fails on cue.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use support::{LONG, Reply, ids, models, options, process, query, score, serve};
use surprisal_api::{
    Bos, LogprobsRequest, LogprobsResponse, PROBLEM_JSON, Problem, QuerySpec, TokenizeRequest, TokenizeResponse,
};
use surprisal_estimator::{
    ExactSource, HttpOptions, HttpSource, LogprobSource, Pairing, Plan, ScoringDialect, Spacing, TokenizedText, run,
};
use tokio::net::TcpListener;

fn problem(status: u16, header: &'static str, problem: &Problem) -> Reply {
    let body = serde_json::to_string(problem).unwrap();
    Reply::Response { status, header, content_type: PROBLEM_JSON, body }
}

#[tokio::test]
async fn a_served_oracle_gives_the_estimates_of_the_exact_source() {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let noted = sizes.clone();
    let url = serve(move |path, body| match path {
        "/v1/models" => models(),
        "/logprobs" => {
            let answer = score(body);
            noted.lock().unwrap().push(answer.results.len());
            Reply::json(&answer)
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
    // Spawn the run, because a caller may run an experiment on any thread.
    let (its_plan, its_documents) = (plan.clone(), documents.clone());
    let served = tokio::spawn(async move { run(&source, &its_documents, &its_plan, None, |_| {}).await });
    let served = served.await.unwrap().unwrap();
    let exact = run(&ExactSource::new(process()), &documents, &plan, None, |_| {}).await.unwrap();
    assert_eq!(served, exact);
    assert!(sizes.lock().unwrap().iter().all(|&size| size <= 5));
}

#[tokio::test]
async fn transient_failures_are_retried() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let url = serve(move |path, body| {
        if path == "/v1/models" {
            return models();
        }
        let busy = Problem::new(429, "busy", "Too many requests", "the queue is full");
        match counted.fetch_add(1, Ordering::SeqCst) {
            0 => problem(429, "retry-after: 0\r\n", &busy),
            1 => Reply::text(502, "<h1>bad gateway</h1>"),
            2 => Reply::text(503, ""),
            3 => Reply::text(504, ""),
            4 => Reply::BrokenBody,
            5 => Reply::text(500, "a worker died"),
            _ => Reply::json(&score(body)),
        }
    })
    .await;
    let source = HttpSource::connect(&url, options(LONG)).await.unwrap();
    assert_eq!(source.logprobs(query()).await.unwrap()[0].len(), 2);
    assert_eq!(attempts.load(Ordering::SeqCst), 7);
}

#[tokio::test]
async fn rejections_are_reported_and_not_retried() {
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
    assert!(error.contains("/logprobs rejected the request: Token out of range (422): no such token"), "{error}");
    assert!(error.contains("field queries[0].target[1], value 400, limit 101"), "{error}");
    assert_eq!(attempts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn retries_stop_at_the_time_limit() {
    let draining = |_: &str, _: &str| Reply::Response {
        status: 503,
        header: "retry-after: 3600\r\n",
        content_type: "text/plain",
        body: "draining".to_owned(),
    };
    let url = serve(draining).await;
    let error = HttpSource::connect(&url, options(Duration::from_millis(100))).await.unwrap_err().to_string();
    assert!(error.starts_with("gave up after") && error.ends_with("503: draining"), "{error}");

    // Nothing listens at this address anymore.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = HttpSource::connect(&url, options(Duration::from_millis(5))).await.unwrap_err().to_string();
    assert!(error.contains("refused") && error.contains("/v1/models"), "{error}");
}

/// Answers depend on the BOS that the client sends, so saved answers for another BOS must not be used.
#[tokio::test]
async fn the_clients_bos_is_in_the_fingerprint() {
    let nameless = serve(|_, _| Reply::text(200, r#"{"data":[{"id":"m"}]}"#)).await;
    let named = serve(|_, _| models()).await;
    for (url, api, bos, fingerprint) in [
        (&nameless, ScoringDialect::Vllm, None, "vllm:m"),
        (&nameless, ScoringDialect::Vllm, Some(1), "vllm:m, bos 1"),
        (&nameless, ScoringDialect::Sglang, Some(2), "sglang:m, bos 2"),
        (&named, ScoringDialect::OpenAi, Some(2), "f1, bos 2"),
        (&named, ScoringDialect::Surprisal, None, "f1"),
        (&named, ScoringDialect::Surprisal, Some(2), "f1, bos 2"),
    ] {
        let source = HttpSource::connect(url, HttpOptions { api, bos, ..options(LONG) }).await.unwrap();
        assert_eq!(source.model().fingerprint, fingerprint);
    }
}

/// Requests to a surprisal server set `bos` to `none` if they already contain a BOS.
#[tokio::test]
async fn the_clients_bos_is_sent_with_every_context() {
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
        Reply::json(&score(&serde_json::to_string(&request).unwrap()))
    })
    .await;
    let source = HttpSource::connect(&url, HttpOptions { bos: Some(77), ..options(LONG) }).await.unwrap();
    let exact: Vec<f32> = process().logprobs(&[1, 2], &[3, 4]).unwrap().iter().map(|&exact| exact as f32).collect();
    assert_eq!(source.logprobs(query()).await.unwrap(), [exact]);
}

#[tokio::test]
async fn responses_that_do_not_match_the_request_are_rejected() {
    for (change, message) in [
        ((|a| a.fingerprint = "f2".to_owned()) as fn(&mut LogprobsResponse), "fingerprint f1 became f2"),
        (|a| a.results.clear(), "results: expected 1, got 0"),
        (|a| a.results[0].logprobs = None, "query 0: expected 2 log-probabilities for the target, got 0"),
        (|a| a.results[0].logprobs = Some(vec![-1.0, 5.0]), "query 0: target token 1 has log-probability 5"),
        (
            |a| a.results[0].token_ids = Some(vec![3, 9]),
            "query 0: target token 1 was sent as 4, but the response has 9",
        ),
    ] {
        let url = serve(move |path, body| {
            if path == "/v1/models" {
                return models();
            }
            let mut answer = score(body);
            change(&mut answer);
            Reply::json(&answer)
        })
        .await;
        let source = HttpSource::connect(&url, options(LONG)).await.unwrap();
        let error = source.logprobs(query()).await.unwrap_err().to_string();
        assert!(error.contains(message) && error.starts_with(source.url()), "{error}");
    }
}

/// A client need not read more than a response to its request can have.
#[tokio::test]
async fn responses_longer_than_any_answer_are_cut_off() {
    let url = serve(|path, _| if path == "/v1/models" { models() } else { Reply::Flood(200) }).await;
    let source = HttpSource::connect(&url, options(LONG)).await.unwrap();
    let request = LogprobsRequest { queries: Some(vec![QuerySpec::new("a".into(), "b".into())]), ..Default::default() };
    for error in [
        source.logprobs(query()).await.unwrap_err(),
        source.tokenize("a text").await.unwrap_err(),
        source.post_logprobs(&request).await.unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(error.starts_with(source.url()) && error.contains("it is longer than"), "{error}");
    }
    let url = serve(|_, _| Reply::Flood(200)).await;
    let error = HttpSource::connect(&url, options(LONG)).await.unwrap_err().to_string();
    assert!(error.contains("/v1/models returned an unexpected response: it is longer than"), "{error}");
    let url = serve(|_, _| Reply::Flood(404)).await;
    let error = HttpSource::connect(&url, options(LONG)).await.unwrap_err().to_string();
    assert!(error.contains("/v1/models returned 404"), "{error}");
}

/// Servers other than surprisal's may state the fingerprint of their system with each response.
#[tokio::test]
async fn a_system_fingerprint_that_changes_ends_the_run() {
    let asked = Arc::new(AtomicUsize::new(0));
    let url = serve(move |path, _| {
        if path == "/v1/models" {
            return Reply::text(200, r#"{"data":[{"id":"m"}]}"#);
        }
        let system = if asked.fetch_add(1, Ordering::SeqCst) < 2 { "s1" } else { "s2" };
        let logprobs = json!({"token_logprobs": [null, -1.0, -2.0, -3.0]});
        let choices = [json!({"index": 0, "logprobs": logprobs})];
        Reply::json(&json!({"choices": choices, "system_fingerprint": system}))
    })
    .await;
    let options = HttpOptions { api: ScoringDialect::OpenAi, ..options(LONG) };
    let source = HttpSource::connect(&url, options).await.unwrap();
    for _ in 0..2 {
        source.logprobs(query()).await.unwrap();
    }
    let error = source.logprobs(query()).await.unwrap_err().to_string();
    assert!(error.starts_with(source.url()) && error.contains("fingerprint s1 became s2"), "{error}");
}

#[tokio::test]
async fn a_text_is_cut_into_windows_of_the_servers_tokens() {
    let url = serve(|path, body| match path {
        "/v1/models" => models(),
        "/tokenize" => {
            let request: TokenizeRequest = serde_json::from_str(body).unwrap();
            assert_eq!(request.add_special_tokens, Some(false));
            let tokens: Vec<u32> = request.prompt.bytes().map(u32::from).collect();
            Reply::json(&TokenizeResponse {
                count: tokens.len(),
                tokens,
                token_strs: None,
                offsets: None,
                max_model_len: 512,
            })
        }
        other => panic!("{other}"),
    })
    .await;
    let source = HttpSource::connect(&url, options(LONG)).await.unwrap();
    let text = "It was a dark night.\n".repeat(30_000);
    let corpus = TokenizedText::from_text(&source, &text).await.unwrap();
    assert_eq!(corpus.tokens().len(), text.len());
    let windows = corpus.windows(10, 21, Spacing::Even, 0).unwrap();
    assert_eq!(windows[0], text.bytes().take(21).map(u32::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_concurrency_of_zero_is_rejected() {
    let none = HttpOptions { concurrency: 0, ..options(LONG) };
    let error = HttpSource::connect("http://127.0.0.1:1", none).await.unwrap_err().to_string();
    assert_eq!(error, "concurrency is 0; it must be at least 1");
}
