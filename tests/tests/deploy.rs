//! Dashboards, alerts and autoscalers use only metrics that `/metrics` has.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use surprisal_engine::SchedulerConfig;
use surprisal_server::ServerConfig;
use surprisal_tests::server::TestServer;
use surprisal_tests::tiny::TinyLlama;

const MODEL: TinyLlama = TinyLlama {
    vocab: 64,
    hidden: 32,
    intermediate: 48,
    layers: 1,
    heads: 2,
    kv_heads: 1,
    head_dim: 16,
    tied: true,
    max_positions: 64,
};

/// Returns the words of a text that begin with `surprisal_`.
fn metrics_named(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("surprisal_"))
        .map(str::to_owned)
        .collect()
}

/// Returns the names of all metric series of a server that has answered one request and rejected another.
async fn metrics_served() -> BTreeSet<String> {
    let dir = tempfile::tempdir().unwrap();
    MODEL.write(dir.path(), 1);
    let server = TestServer::start(dir.path(), SchedulerConfig::default(), ServerConfig::default()).await;
    server.logprobs(&json!({"queries": [{"context": [1, 2], "target": [3]}]})).await;
    let client = reqwest::Client::new();
    let refused = client.post(format!("{}/logprobs", server.url)).body("{}").send().await.unwrap();
    assert!(refused.status().is_client_error());
    let text = client.get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboards_alerts_and_autoscalers_name_only_metrics_that_exist() {
    let served = metrics_served().await;
    for file in ["grafana/dashboards/surprisal.json", "alerts.yml", "kubernetes/base/autoscaler.yaml"] {
        let named = metrics_named(&std::fs::read_to_string(Path::new("../docker").join(file)).unwrap());
        assert!(!named.is_empty(), "{file}");
        let unknown: Vec<_> = named.difference(&served).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}, which /metrics does not have");
    }
}

#[test]
fn every_panel_has_a_query() {
    let text = std::fs::read_to_string("../docker/grafana/dashboards/surprisal.json").unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(!panels.is_empty());
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(
            !targets.is_empty() && targets.iter().all(|one| !metrics_named(one["expr"].as_str().unwrap()).is_empty())
        );
    }
}
