//! Metrics, the page that shows them, and the trace context of a response.

use std::collections::HashSet;

use serde_json::json;

use crate::support::Server;

#[tokio::test]
async fn metrics_are_in_prometheus_text_format() {
    let server = Server::start().await;
    let query = json!({"context": "It was", "target": " a dark night"});
    server.post("/logprobs", &json!({"queries": [query, query]})).await;
    server.post("/logprobs", &json!({"queries": []})).await;
    server.get("/no/such/route").await;
    let reply = server.get("/metrics").await;
    assert_eq!(reply.content_type, "text/plain; version=0.0.4");

    let mut typed = HashSet::new();
    for line in reply.text.lines() {
        if let Some(header) = line.strip_prefix("# TYPE ") {
            let (name, kind) = header.split_once(' ').unwrap();
            assert!(name.starts_with("surprisal_") && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(typed.insert(name.to_owned()), "{name} appears twice");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            let name = series.split('{').next().unwrap();
            let parts = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            assert!(typed.contains(name) || parts.is_some_and(|name| typed.contains(name)), "{line}");
        }
    }
    for (series, value) in [
        ("surprisal_num_requests_running", 0.0),
        ("surprisal_num_requests_waiting", 0.0),
        ("surprisal_kv_cache_usage_perc", 0.25),
        ("surprisal_prompt_tokens_total", 40.0),
        ("surprisal_prefix_cache_queries_total", 400.0),
        ("surprisal_prefix_cache_hits_total", 100.0),
        ("surprisal_computed_tokens_total", 300.0),
        ("surprisal_cached_tokens_total", 100.0),
        ("surprisal_scored_tokens_total", 0.0),
        ("surprisal_request_success_total", 1.0),
        ("surprisal_e2e_request_latency_seconds_count", 1.0),
        (r#"surprisal_http_requests_total{route="/logprobs",status="200"}"#, 1.0),
        (r#"surprisal_http_requests_total{route="/logprobs",status="400"}"#, 1.0),
        (r#"surprisal_http_requests_total{route="none",status="404"}"#, 1.0),
        (r#"surprisal_problems_total{type="no-queries"}"#, 1.0),
        (r#"surprisal_problems_total{type="route-not-found"}"#, 1.0),
    ] {
        assert_eq!(server.metric(series).await, value, "{series}");
    }
}

#[tokio::test]
async fn histograms_have_the_series_that_prometheus_reads() {
    let server = Server::start().await;
    for name in
        ["request_queue_time_seconds", "request_prefill_time_seconds", "iteration_tokens_total", "iteration_queries"]
    {
        assert_eq!(server.metric(&format!("surprisal_{name}_bucket{{le=\"+Inf\"}}")).await, 0.0);
        assert_eq!(server.metric(&format!("surprisal_{name}_count")).await, 0.0);
    }
    server.post("/v1/completions", &json!({"prompt": "a", "max_tokens": 2})).await;
    assert_eq!(server.metric("surprisal_e2e_request_latency_seconds_count").await, 1.0);
}

/// Each completion has one first token, whether it is streamed or not, and a scored prompt has none.
#[tokio::test]
async fn the_times_of_generated_tokens_are_recorded() {
    let server = Server::start().await;
    let counts = async || {
        let first = server.metric("surprisal_time_to_first_token_seconds_count").await;
        (first, server.metric("surprisal_inter_token_latency_seconds_count").await)
    };
    server.post("/v1/completions", &json!({"prompt": "a", "max_tokens": 0, "echo": true, "logprobs": 0})).await;
    assert_eq!(counts().await, (0.0, 0.0));
    server.post("/v1/completions", &json!({"prompt": ["a", "b"], "max_tokens": 3})).await;
    assert_eq!(counts().await, (2.0, 4.0));
    let streamed = json!({"text": "a", "sampling_params": {"max_new_tokens": 5}, "stream": true});
    server.post("/generate", &streamed).await;
    assert_eq!(counts().await, (3.0, 8.0));
}

/// Every number that the dashboard reads is one of the metrics, and the dashboard loads nothing from elsewhere.
#[tokio::test]
async fn the_dashboard_reads_existing_metrics() {
    let server = Server::start().await;
    let page = server.get("/").await;
    assert_eq!((page.status, page.content_type.as_str()), (200, "text/html; charset=utf-8"));
    let metrics = server.get("/metrics").await.text;
    let quoted = page.text.split('"').filter(|word| word.ends_with("_total") || word.ends_with("_seconds"));
    let direct = page.text.split("now.").skip(1).map(|rest| {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap();
        &rest[..end]
    });
    let names: HashSet<&str> = quoted.chain(direct.filter(|name| !["at", "model"].contains(name))).collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        assert!(metrics.contains(&format!("# HELP surprisal_{name} ")), "{name}");
    }
    assert!(!page.text.replace("http://www.w3.org/2000/svg", "").contains("http"), "no external asset");
}

#[tokio::test]
async fn a_trace_continues_in_the_response() {
    let server = Server::start().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let get = async |given: Option<String>| {
        let mut request = server.client.get(format!("{}/health", server.url));
        if let Some(given) = given {
            request = request.header("traceparent", given);
        }
        let answer = request.send().await.unwrap();
        answer.headers()["traceparent"].to_str().unwrap().to_owned()
    };
    let answered = get(Some(format!("00-{trace}-00f067aa0ba902b7-01"))).await;
    assert!(answered.starts_with(&format!("00-{trace}-")) && answered.ends_with("-01"), "{answered}");
    assert!(!answered.contains("00f067aa0ba902b7"), "the span is the server's own");
    let (one, other) = (get(None).await, get(Some("nonsense".to_owned())).await);
    assert!(one.len() == 55 && one[..35] != other[..35], "{one} {other}");
}
