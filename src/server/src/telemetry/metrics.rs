//! Metrics in the namespace `surprisal_`. Metrics that vLLM also has use vLLM's names.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Metric, MetricFamily, MetricType};
use prometheus::{GaugeVec, HistogramOpts, IntCounter, IntCounterVec, Opts, PullingGauge, Registry, TextEncoder};
use surprisal_engine::{Histogram, ModelCard, Scorer, Stats};

use crate::limits::admission::Admission;
use crate::limits::connections::Connections;

/// Upper bounds of the latency histograms, in seconds.
const LATENCIES: [f64; 18] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// The reasons for which a limit closes connections.
const CLOSING_REASONS: [&str; 6] =
    ["displaced", "handshake-timeout", "head-timeout", "idle-timeout", "rejected", "write-timeout"];

/// The server's own counters, and the registry of all metrics. The engine's statistics are read at each scrape.
pub(crate) struct Metrics {
    registry: Registry,
    http_requests: IntCounterVec,
    problems: IntCounterVec,
    latency: prometheus::Histogram,
    first_token: prometheus::Histogram,
    inter_token: prometheus::Histogram,
    successes: IntCounter,
    prompt_tokens: IntCounter,
    abandoned_streams: IntCounter,
    closed_connections: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(
        scorer: &Arc<dyn Scorer>,
        admission: &Admission,
        connections: &Connections,
    ) -> prometheus::Result<Self> {
        let metrics = Self::counters()?;
        let mut collectors: Vec<Box<dyn Collector>> = vec![
            Box::new(metrics.http_requests.clone()),
            Box::new(metrics.problems.clone()),
            Box::new(metrics.latency.clone()),
            Box::new(metrics.first_token.clone()),
            Box::new(metrics.inter_token.clone()),
            Box::new(metrics.successes.clone()),
            Box::new(metrics.prompt_tokens.clone()),
            Box::new(metrics.abandoned_streams.clone()),
            Box::new(metrics.closed_connections.clone()),
            Box::new(connection_gauge(connections)?),
            Box::new(model_info(scorer.describe())?),
            Box::new(EngineCollector::new(scorer.clone())?),
        ];
        for gauge in admission_gauges(admission)? {
            collectors.push(Box::new(gauge));
        }
        for collector in collectors {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// Creates the server's own counters, with an empty registry.
    fn counters() -> prometheus::Result<Self> {
        let http = options("http_requests_total", "HTTP requests by route and status; 499 is a disconnected client.");
        let problem = options("problems_total", "Problems returned, by type.");
        let latency =
            latency_histogram("e2e_request_latency_seconds", "Seconds to answer a scoring or generation request.");
        let first_token = latency_histogram(
            "time_to_first_token_seconds",
            "Seconds from the submission of a completion to its first token.",
        );
        let inter_token =
            latency_histogram("inter_token_latency_seconds", "Seconds between two tokens of a completion.");
        let successes = options("request_success_total", "Scoring and generation requests answered.");
        let prompt_tokens = options(
            "prompt_tokens_total",
            "Tokens of answered requests, as counted by admission: sequences, tokens to generate, and most probable \
             tokens.",
        );
        let abandoned = options("streams_abandoned_total", "Streamed responses whose client disconnected early.");
        let closed = options(
            "closed_connections_total",
            "Connections that a limit closed, by reason: `displaced` and `rejected` by max_connections, and timeouts.",
        );
        let closed_connections = IntCounterVec::new(closed, &["reason"])?;
        for reason in CLOSING_REASONS {
            closed_connections.with_label_values(&[reason]);
        }
        Ok(Self {
            registry: Registry::new(),
            http_requests: IntCounterVec::new(http, &["route", "status"])?,
            problems: IntCounterVec::new(problem, &["type"])?,
            latency: latency?,
            first_token: first_token?,
            inter_token: inter_token?,
            successes: IntCounter::with_opts(successes)?,
            prompt_tokens: IntCounter::with_opts(prompt_tokens)?,
            abandoned_streams: IntCounter::with_opts(abandoned)?,
            closed_connections,
        })
    }

    /// Returns all metrics in Prometheus's text format.
    pub(crate) fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Counts a request to any route, whether it was answered or its client disconnected.
    pub(crate) fn count_http(&self, route: &str, status: u16, problem: Option<&str>) {
        self.http_requests.with_label_values(&[route, status.to_string().as_str()]).inc();
        if let Some(problem) = problem {
            self.problems.with_label_values(&[problem]).inc();
        }
    }

    /// Counts a problem at the end of a stream, whose status has already been sent.
    pub(crate) fn count_problem(&self, problem: &str) {
        self.problems.with_label_values(&[problem]).inc();
    }

    /// Counts a stream whose client disconnected before its end.
    pub(crate) fn count_abandoned_stream(&self) {
        self.abandoned_streams.inc();
    }

    /// Counts connections that a limit closed.
    pub(crate) fn count_closed_connections(&self, reason: &str, connections: usize) {
        self.closed_connections.with_label_values(&[reason]).inc_by(connections as u64);
    }

    /// Records the time to the first token of a completion.
    pub(crate) fn observe_first_token(&self, seconds: f64) {
        self.first_token.observe(seconds);
    }

    /// Records the time between two tokens of a completion.
    pub(crate) fn observe_inter_token(&self, seconds: f64) {
        self.inter_token.observe(seconds);
    }

    /// Counts an answered scoring or generation request.
    pub(crate) fn count_success(&self, seconds: f64, tokens: u32) {
        self.latency.observe(seconds);
        self.successes.inc();
        self.prompt_tokens.inc_by(u64::from(tokens));
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("surprisal")
}

fn latency_histogram(name: &str, help: &str) -> prometheus::Result<prometheus::Histogram> {
    let options = HistogramOpts::new(name, help).namespace("surprisal").buckets(LATENCIES.to_vec());
    prometheus::Histogram::with_opts(options)
}

/// Returns the gauge of open connections, which reads `connections` at each scrape.
fn connection_gauge(connections: &Connections) -> prometheus::Result<PullingGauge> {
    let connections = connections.clone();
    let help = "Open connections, except those of the admin port; limited by max_connections.";
    PullingGauge::new("surprisal_connections", help, Box::new(move || connections.count() as f64))
}

/// Returns the gauges of admitted requests, body bytes, queries, tokens and response bytes, which read `admission` at
/// each scrape.
fn admission_gauges(admission: &Admission) -> prometheus::Result<[PullingGauge; 5]> {
    let gauge = |name: &str, help: &str, read: fn(&Admission) -> u32| {
        let admission = admission.clone();
        PullingGauge::new(name, help, Box::new(move || f64::from(read(&admission))))
    };
    Ok([
        gauge(
            "surprisal_admitted_requests",
            "Requests in flight, including those being read; limited by max_waiting_requests.",
            Admission::requests,
        )?,
        gauge(
            "surprisal_admitted_body_bytes",
            "Bytes of bodies being read or parsed; limited by max_waiting_body_bytes.",
            Admission::body_bytes,
        )?,
        gauge(
            "surprisal_admitted_queries",
            "Queries of requests in flight; limited by max_waiting_queries.",
            Admission::queries,
        )?,
        gauge(
            "surprisal_admitted_tokens",
            "Tokens of requests in flight; limited by max_waiting_tokens.",
            Admission::tokens,
        )?,
        gauge(
            "surprisal_admitted_response_bytes",
            "Memory of responses being written or waiting to be read, and of their compressors; \
             max_waiting_response_bytes limits each of the two.",
            Admission::response_bytes,
        )?,
    ])
}

fn model_info(card: &ModelCard) -> prometheus::Result<GaugeVec> {
    let info =
        GaugeVec::new(options("model_info", "1, labeled with the served model."), &["model", "fingerprint", "device"])?;
    info.with_label_values(&[&card.id, &card.fingerprint, &card.device]).set(1.0);
    Ok(info)
}

/// One counter or gauge of the engine: its name, help and kind, and the function that reads it from [`Stats`].
type EngineMetric = (&'static str, &'static str, MetricType, fn(&Stats) -> f64);

const ENGINE_METRICS: [EngineMetric; 16] = [
    ("num_requests_running", "Queries that are running.", MetricType::GAUGE, |s| s.running_queries as f64),
    ("num_requests_waiting", "Queries waiting to be scheduled.", MetricType::GAUGE, |s| s.waiting_queries as f64),
    ("finished_queries_total", "Queries scored.", MetricType::COUNTER, |s| s.finished_queries as f64),
    (
        "cancelled_queries_total",
        "Queries cancelled: the client disconnected, the request failed or timed out, or a stop string ended generation.",
        MetricType::COUNTER,
        |s| s.cancelled_queries as f64,
    ),
    ("computed_tokens_total", "Tokens processed by the model.", MetricType::COUNTER, |s| s.computed_tokens as f64),
    ("cached_tokens_total", "Tokens found in the prefix cache instead of being processed.", MetricType::COUNTER, |s| {
        s.cached_tokens as f64
    }),
    ("scored_tokens_total", "Tokens scored.", MetricType::COUNTER, |s| s.scored_tokens as f64),
    (
        "recomputed_tokens_total",
        "Tokens processed again to compute requested details, although their keys and values were cached.",
        MetricType::COUNTER,
        |s| s.recomputed_tokens as f64,
    ),
    ("generation_tokens_total", "Tokens generated.", MetricType::COUNTER, |s| s.generated_tokens as f64),
    ("engine_restarts_total", "Restarts of the engine after a failure.", MetricType::COUNTER, |s| s.restarts as f64),
    ("forward_passes_total", "Forward passes of the model.", MetricType::COUNTER, |s| s.forward_passes as f64),
    ("prefix_cache_queries_total", "Tokens looked up in the prefix cache.", MetricType::COUNTER, |s| {
        (s.computed_tokens + s.cached_tokens) as f64
    }),
    ("prefix_cache_hits_total", "Tokens found in the prefix cache.", MetricType::COUNTER, |s| s.cached_tokens as f64),
    ("kv_cache_usage_perc", "Fraction of KV blocks held by running queries, from 0 to 1.", MetricType::GAUGE, |s| {
        s.active_blocks as f64 / s.total_blocks.max(1) as f64
    }),
    ("kv_cache_idle_blocks", "KV blocks with a reusable prefix, held by no running query.", MetricType::GAUGE, |s| {
        s.cached_blocks as f64
    }),
    ("kv_cache_evicted_blocks_total", "Cached KV blocks evicted to make room.", MetricType::COUNTER, |s| {
        s.evicted_blocks as f64
    }),
];

/// One histogram of the engine: its name and help, and the function that reads it from [`Stats`].
type EngineHistogram = (&'static str, &'static str, fn(&Stats) -> Histogram);

const ENGINE_HISTOGRAMS: [EngineHistogram; 5] = [
    ("request_queue_time_seconds", "Seconds from a query's arrival to its first chunk.", |s| s.queue_seconds),
    ("request_prefill_time_seconds", "Seconds from a query's first chunk to its scores.", |s| s.prefill_seconds),
    ("iteration_tokens_total", "Tokens per forward pass.", |s| s.pass_tokens),
    ("iteration_queries", "Queries per forward pass.", |s| s.pass_queries),
    ("iteration_seconds", "Seconds per forward pass.", |s| s.pass_seconds),
];

/// A collector of the engine's statistics, which takes one snapshot per scrape.
struct EngineCollector {
    scorer: Arc<dyn Scorer>,
    descs: Vec<Desc>,
}

impl EngineCollector {
    fn new(scorer: Arc<dyn Scorer>) -> prometheus::Result<Self> {
        let numbers = ENGINE_METRICS.iter().map(|&(name, help, ..)| (name, help));
        let histograms = ENGINE_HISTOGRAMS.iter().map(|&(name, help, _)| (name, help));
        let mut descs = Vec::new();
        for (name, help) in numbers.chain(histograms) {
            descs.push(Desc::new(format!("surprisal_{name}"), help.to_owned(), Vec::new(), HashMap::new())?);
        }
        Ok(Self { scorer, descs })
    }
}

impl Collector for EngineCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let stats = self.scorer.stats();
        let (numbers, histograms) = self.descs.split_at(ENGINE_METRICS.len());
        let mut families = Vec::with_capacity(self.descs.len());
        for (desc, &(_, _, kind, read)) in numbers.iter().zip(&ENGINE_METRICS) {
            families.push(family(desc, kind, number(kind, read(&stats))));
        }
        for (desc, &(_, _, read)) in histograms.iter().zip(&ENGINE_HISTOGRAMS) {
            families.push(family(desc, MetricType::HISTOGRAM, histogram(&read(&stats))));
        }
        families
    }
}

/// Returns a gauge or a counter with this value.
fn number(kind: MetricType, value: f64) -> Metric {
    let mut metric = Metric::default();
    if kind == MetricType::GAUGE {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    } else {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    }
    metric
}

fn histogram(histogram: &Histogram) -> Metric {
    let mut buckets = Vec::new();
    for (bound, count) in histogram.cumulative() {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        buckets.push(bucket);
    }
    let mut proto = prometheus::proto::Histogram::default();
    proto.set_bucket(buckets);
    proto.set_sample_count(histogram.count());
    proto.set_sample_sum(histogram.sum());
    let mut metric = Metric::default();
    metric.set_histogram(proto);
    metric
}

fn family(desc: &Desc, kind: MetricType, metric: Metric) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}
