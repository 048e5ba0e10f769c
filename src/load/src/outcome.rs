//! The outcome of one load on one server.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use surprisal_chart::short;

use crate::client::Counters;
use crate::load::Load;
use crate::workload::LatencyClass;

/// The result of measuring one load.
///
/// Throughput counts the requests answered within the measured time. Latencies cover the requests that were due within
/// that time, even if the answer came later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The load.
    pub load: Load,
    /// Duration of the measurement in seconds, without the warm-up.
    pub seconds: f64,
    /// Number of answered requests.
    pub requests: u64,
    /// Number of queries in the answered requests; a query is a context and a target.
    pub queries: u64,
    /// Number of log-probabilities in the answers. llama.cpp returns none; for llama.cpp, this is the number of target
    /// tokens.
    pub scored_tokens: u64,
    /// Tokens that went through the model; `None` unless every response reports them.
    pub computed_tokens: Option<u64>,
    /// Tokens found in a cache; `None` unless every response reports them.
    pub cached_tokens: Option<u64>,
    /// Requests answered per second.
    pub requests_per_second: f64,
    /// Log-probabilities returned per second.
    pub scored_tokens_per_second: f64,
    /// Latencies, by class of request.
    pub latency: BTreeMap<LatencyClass, Latency>,
    /// Number of responses with status 429. These requests are retried after the delay that the server asks for.
    pub refused: u64,
    /// Failed requests, by kind of failure.
    pub failures: BTreeMap<String, Failures>,
    /// Comparison of sampled answers with the answers to the same requests, sent again; `None` without samples.
    pub repeats: Option<Repeats>,
    /// Increases of the server's counters from the end of the warm-up to the last answer; `None` if the server has no
    /// counters.
    pub counters: Option<Counters>,
}

/// Latencies in milliseconds, from the time a request was due to the last byte of its response.
///
/// A request that the client gave up on has a lower bound as its latency: if it was never sent, because the server was
/// too far behind, the time that it waited; otherwise, at least the timeout. All other failures have no latency.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Number of latencies.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Maximum.
    pub max: f64,
}

/// The failures of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Failures {
    /// Number of failures.
    pub count: u64,
    /// Message of the first failure.
    pub example: String,
}

/// The result of repeating sampled requests after the end of a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Repeats {
    /// Number of repeated requests.
    pub asked: u64,
    /// Number of repeated requests whose log-probabilities were all bit-identical.
    pub same: u64,
    /// Largest difference between two log-probabilities, in nats.
    pub largest_difference: f64,
}

impl Outcome {
    /// Returns the fraction of tokens found in a cache, according to the responses or, if they do not report it, the
    /// server's counters.
    pub fn hit_rate(&self) -> Option<f64> {
        hit_rate(self.computed_tokens, self.cached_tokens).or_else(|| self.counters.as_ref()?.hit_rate())
    }

    /// Returns the number of failed requests.
    pub fn failed(&self) -> u64 {
        self.failures.values().map(|failures| failures.count).sum()
    }
}

/// Returns the fraction of tokens found in a cache; `None` if there are no tokens or a count is unknown.
pub(crate) fn hit_rate(computed: Option<u64>, cached: Option<u64>) -> Option<f64> {
    let (computed, cached) = computed.zip(cached)?;
    let all = computed as f64 + cached as f64;
    (all > 0.0).then(|| cached as f64 / all)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { load, seconds, requests_per_second, scored_tokens_per_second, .. } = self;
        writeln!(f, "{load}, {} s", short(*seconds))?;
        write!(f, "  answered    {requests_per_second:.1} requests/s, {scored_tokens_per_second:.0} tokens scored/s")?;
        if let Some(computed) = self.computed_tokens.filter(|_| *seconds > 0.0) {
            write!(f, ", {:.0} computed/s", computed as f64 / seconds)?;
        }
        if let Some(rate) = self.hit_rate() {
            write!(f, ", {:.1}% from the cache", 100.0 * rate)?;
        }
        writeln!(f)?;
        for (class, latency) in &self.latency {
            let name = if *class == LatencyClass::Interactive { "interactive" } else { "latency" };
            let Latency { mean, p50, p90, p99, p999, max, .. } = latency;
            writeln!(
                f,
                "  {name:<11} mean {mean:.1} ms, p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, p99.9 {p999:.1}, max {max:.1}"
            )?;
        }
        if self.refused > 0 {
            writeln!(f, "  rejected    {} times with 429 (retried)", self.refused)?;
        }
        for (kind, Failures { count, example }) in &self.failures {
            writeln!(f, "  failed      {count} x {kind}: {example}")?;
        }
        if let Some(Repeats { asked, same, largest_difference }) = self.repeats {
            write!(f, "  repeated    {same} of {asked} requests returned the same bits")?;
            if same < asked {
                write!(f, "; largest difference {largest_difference:.2e} nats")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
