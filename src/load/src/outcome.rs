//! What one load on one server came to.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use surprisal_chart::short;

use crate::client::Counters;
use crate::load::Load;
use crate::workload::LatencyClass;

/// The measurement of one load.
///
/// Throughput counts what was finished within the measured time; latencies are of the requests that were due within it, however
/// late they were answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What was put on the server.
    pub load: Load,
    /// The measured time, without the warm-up.
    pub seconds: f64,
    /// Requests answered.
    pub requests: u64,
    /// Their queries: pairs of a context and a target.
    pub queries: u64,
    /// Their log-probabilities. Of llama.cpp's server, which has none, the tokens of targets that went through its model.
    pub scored_tokens: u64,
    /// Tokens that went through the model, where answers say so.
    pub computed_tokens: Option<u64>,
    /// Tokens found in a cache instead, where answers say so.
    pub cached_tokens: Option<u64>,
    /// Requests answered a second.
    pub requests_per_second: f64,
    /// Log-probabilities answered a second.
    pub scored_tokens_per_second: f64,
    /// By class of request.
    pub latency: BTreeMap<LatencyClass, Latency>,
    /// Answers with status 429; each was waited for as the server asked, and sent again.
    pub refused: u64,
    /// Requests without a good answer, by what went wrong.
    pub failures: BTreeMap<String, Failures>,
    /// True if answers have the same bits when they are asked for again.
    pub repeats: Option<Repeats>,
    /// What the server's own counters went up by, from the end of the warm-up to the last answer.
    pub counters: Option<Counters>,
}

/// Latencies in milliseconds, from the time a request was meant to be sent to its last byte.
///
/// Requests that were never sent, because the server was too far behind, count with the time they had waited, and those that were
/// given up with the timeout at least: the least that a client would have waited. Other failures have no latency.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Half are below.
    pub p50: f64,
    /// Nine of ten are below.
    pub p90: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1000 are below.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// Failures of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// What the first one said.
    pub example: String,
}

/// Some requests of the load, asked again when it was over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Repeats {
    /// Requests asked again.
    pub asked: u64,
    /// Of these, with every log-probability the same to the last bit.
    pub same: u64,
    /// The largest difference of a log-probability, in nats.
    pub largest_difference: f64,
}

impl Outcome {
    /// Which part of the tokens came from a cache: by the answers, or else by the server's counters.
    pub fn hit_rate(&self) -> Option<f64> {
        hit_rate(self.computed_tokens, self.cached_tokens).or_else(|| self.counters.as_ref()?.hit_rate())
    }

    /// Requests without a good answer.
    pub fn failed(&self) -> u64 {
        self.failures.values().map(|failures| failures.count).sum()
    }
}

/// Which part of the tokens came from a cache, if there were any and both counts are known.
pub(crate) fn hit_rate(computed: Option<u64>, cached: Option<u64>) -> Option<f64> {
    let (computed, cached) = computed.zip(cached)?;
    (computed + cached > 0).then(|| cached as f64 / (computed + cached) as f64)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { load, seconds, requests_per_second, scored_tokens_per_second, .. } = self;
        writeln!(f, "{load}, {} s", short(*seconds))?;
        write!(f, "  answered   {requests_per_second:.1} requests/s, {scored_tokens_per_second:.0} tokens scored/s")?;
        if let Some(computed) = self.computed_tokens.filter(|_| *seconds > 0.0) {
            write!(f, ", {:.0} computed/s", computed as f64 / seconds)?;
        }
        if let Some(rate) = self.hit_rate() {
            write!(f, ", {:.1}% from the cache", 100.0 * rate)?;
        }
        writeln!(f)?;
        for (class, latency) in &self.latency {
            let name = if *class == LatencyClass::Interactive { "waited for" } else { "latency" };
            let Latency { mean, p50, p90, p99, p999, max, .. } = latency;
            writeln!(
                f,
                "  {name:<10} mean {mean:.1} ms, p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, p99.9 {p999:.1}, max {max:.1}"
            )?;
        }
        if self.refused > 0 {
            writeln!(f, "  refused    {} times with 429, and sent again", self.refused)?;
        }
        for (kind, Failures { count, example }) in &self.failures {
            writeln!(f, "  failed     {count} x {kind}: {example}")?;
        }
        if let Some(Repeats { asked, same, largest_difference }) = self.repeats {
            write!(f, "  repeated   {same} of {asked} requests have the same bits")?;
            if same < asked {
                write!(f, "; the largest difference is {largest_difference:.2e} nats")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
