//! Tests of the reference pages: `metrics.md` is generated from `/metrics`, and `limits.md` has every setting with its
//! default.
//!
//! To update the page of metrics: `UPDATE_DOCS=1 cargo test -p surprisal-server --test http reference`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use surprisal_server::ServerConfig;

use crate::reference::{check_page, read_page};
use crate::support::Server;

const INTRODUCTION: &str = "# Metrics

This page lists every metric of `/metrics`, in Prometheus's format. It is generated from the server. A histogram has \
    the series `_bucket`, `_sum` and `_count`. [Limits](limits.md) explains the metrics of each limit.

| metric | type | labels | meaning |
|---|---|---|---|
";

/// A metric as `/metrics` describes it.
#[derive(Default)]
struct Described {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

#[tokio::test]
async fn the_metrics_reference_matches_the_metrics() {
    let server = Server::start().await;
    // Counters of requests and problems appear with the first one.
    assert_eq!(server.get("/unknown").await.status, 404);
    let mut page = INTRODUCTION.to_owned();
    for (name, metric) in describe(&server.get("/metrics").await.text) {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{name}` | {} | {} | {} |\n", metric.kind, labels.join(", "), metric.help);
        page += &row.replace("|  |", "| |");
    }
    check_page("metrics.md", &page);
}

/// Reads the metrics in Prometheus's text format.
fn describe(text: &str) -> BTreeMap<String, Described> {
    let mut metrics: BTreeMap<String, Described> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            metrics.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((name, labels)) = line.split_once('{')
            && let Some(metric) = metrics.get_mut(name)
        {
            let (labels, _) = labels.rsplit_once('}').unwrap();
            metric.labels.extend(labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned())));
        }
    }
    assert!(metrics.values().all(|metric| !metric.kind.is_empty() && metric.help.ends_with('.')));
    metrics
}

/// The tables of limits name each setting of the server once, with its default, and only metrics that exist.
#[test]
fn every_limit_is_documented_with_its_default() {
    let page = read_page("limits.md");
    let rows: Vec<Vec<&str>> = page.lines().map(|line| line.split(" | ").collect()).collect();
    let Value::Object(settings) = serde_json::to_value(ServerConfig::default()).unwrap() else { panic!() };
    for (setting, default) in &settings {
        let cells: Vec<_> = rows.iter().filter(|row| row[0] == format!("| `server.{setting}`")).collect();
        let [cells] = cells[..] else { panic!("limits.md has {} rows for {setting}", cells.len()) };
        let expected = match default {
            Value::Array(list) if list.is_empty() => "none".to_owned(),
            Value::Bool(value) => format!("`{value}`"),
            other => other.to_string(),
        };
        assert_eq!(plain_number(cells[1]), expected, "{setting}");
    }
    let documented = page.split("| `server.").skip(1).filter_map(|row| row.split('`').next());
    assert_eq!(documented.filter(|name| !settings.contains_key(*name)).collect::<Vec<_>>(), [""; 0]);

    let metrics = read_page("metrics.md");
    for name in page.split("`surprisal_").skip(1).filter_map(|rest| rest.split(['`', '{']).next()) {
        assert!(metrics.contains(&format!("| `surprisal_{name}` |")), "surprisal_{name} is not a metric");
    }
}

/// Converts a number of the documentation, such as `64 MiB` or `65,536`, to plain digits.
fn plain_number(cell: &str) -> String {
    let scale = |unit: &str| match unit {
        "KiB" => 1_u64 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => panic!("{unit} is not a unit of this table"),
    };
    match cell.split_once(' ') {
        Some((number, unit)) => (number.parse::<u64>().unwrap() * scale(unit)).to_string(),
        None => cell.replace(',', ""),
    }
}
