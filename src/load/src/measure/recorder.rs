//! The recorder of a measurement: counts, latencies, failures, and samples of the answers.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::client::CompleteResponse;
use crate::load::Load;
use crate::outcome::{Failures, Latency, Outcome, hit_rate};
use crate::workload::{LatencyClass, PairRequest};

/// Significant digits of a latency in microseconds.
const SIGNIFICANT_DIGITS: u8 = 3;

/// A day, in microseconds; longer latencies count as a day.
const MAX_LATENCY_MICROS: u64 = 86_400_000_000;

/// The results of all clients.
#[derive(Debug)]
pub(super) struct Recorder {
    latencies: BTreeMap<LatencyClass, Histogram<u64>>,
    pub(super) requests: u64,
    pub(super) queries: u64,
    pub(super) scored_tokens: u64,
    pub(super) computed_tokens: Option<u64>,
    pub(super) cached_tokens: Option<u64>,
    pub(super) refused: u64,
    pub(super) failures: BTreeMap<String, Failures>,
    /// Time of the last answer, from the start of the measurement.
    pub(super) last_answer: Duration,
    samples: Samples,
}

impl Recorder {
    /// Returns an empty recorder. It keeps at most `samples` answers, to compare them with the answers to repeated
    /// requests.
    pub(super) fn new(samples: usize) -> Self {
        Self {
            latencies: BTreeMap::new(),
            requests: 0,
            queries: 0,
            scored_tokens: 0,
            computed_tokens: Some(0),
            cached_tokens: Some(0),
            refused: 0,
            failures: BTreeMap::new(),
            last_answer: Duration::ZERO,
            samples: Samples { capacity: samples, stride: 1, answers: BTreeMap::new() },
        }
    }

    /// Adds an answer that arrived within the measurement.
    pub(super) fn add_response(&mut self, request: &PairRequest, answer: &CompleteResponse, now: Duration) {
        self.requests += 1;
        self.queries += request.pairs.len() as u64;
        self.scored_tokens += request.scored_tokens() as u64;
        let add = |total: Option<u64>, more: Option<u64>| Some(total?.saturating_add(more?));
        self.computed_tokens = add(self.computed_tokens, answer.computed_tokens);
        self.cached_tokens = add(self.cached_tokens, answer.cached_tokens);
        self.last_answer = self.last_answer.max(now);
    }

    /// Adds the latency of a request, from the time at which it was due.
    pub(super) fn add_latency(&mut self, class: LatencyClass, latency: Duration) {
        if let Entry::Vacant(vacant) = self.latencies.entry(class) {
            // A histogram with three digits is always valid.
            let Ok(histogram) = Histogram::new(SIGNIFICANT_DIGITS) else { return };
            vacant.insert(histogram);
        }
        if let Some(histogram) = self.latencies.get_mut(&class) {
            // `+=` lets the histogram grow with its values; `saturating_record` would not.
            let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            *histogram += micros.min(MAX_LATENCY_MICROS);
        }
    }

    /// Adds a failed request. If the client gave up on it, `waited` counts as its latency, which is a lower bound.
    pub(super) fn add_failure(&mut self, class: LatencyClass, failure: Failure, waited: Duration) {
        let Failure { kind, example, gave_up } = failure;
        // Other failures have no latency: quick errors must not make a server look fast.
        if gave_up {
            self.add_latency(class, waited);
        }
        self.failures.entry(kind).or_insert(Failures { count: 0, example }).count += 1;
    }

    /// Adds an answer to the samples.
    pub(super) fn add_sample(&mut self, index: u64, logprobs: Option<Vec<f64>>) {
        if let Some(logprobs) = logprobs {
            self.samples.add(index, logprobs);
        }
    }

    /// Takes the sampled answers, by index of their request.
    pub(super) fn take_samples(&mut self) -> BTreeMap<u64, Vec<f64>> {
        std::mem::take(&mut self.samples.answers)
    }

    /// Returns the latencies so far, by class.
    pub(super) fn latencies(&self) -> BTreeMap<LatencyClass, Latency> {
        self.latencies.iter().map(|(&class, histogram)| (class, quantiles(histogram))).collect()
    }

    /// Returns the outcome of `load` for a measurement of length `measured`, without repeats and server counters.
    pub(super) fn outcome(&self, load: Load, measured: Duration) -> Outcome {
        let seconds = measured.as_secs_f64();
        let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        Outcome {
            load,
            seconds,
            requests: self.requests,
            queries: self.queries,
            scored_tokens: self.scored_tokens,
            computed_tokens: self.computed_tokens,
            cached_tokens: self.cached_tokens,
            requests_per_second: rate(self.requests),
            scored_tokens_per_second: rate(self.scored_tokens),
            latency: self.latencies(),
            refused: self.refused,
            failures: self.failures.clone(),
            repeats: None,
            counters: None,
        }
    }

    /// Returns the fraction of tokens found in a cache; `None` unless every response reports it.
    pub(super) fn hit_rate(&self) -> Option<f64> {
        hit_rate(self.computed_tokens, self.cached_tokens)
    }
}

/// Summarizes a histogram of microseconds, in milliseconds.
fn quantiles(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Latency {
        count: histogram.len(),
        mean: histogram.mean() / 1e3,
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: histogram.max() as f64 / 1e3,
    }
}

/// The failure of one request.
#[derive(Debug)]
pub(super) struct Failure {
    kind: String,
    example: String,
    /// `true` if the client stopped waiting, so that an answer could still have come.
    gave_up: bool,
}

impl Failure {
    /// Returns a failure other than giving up: an error status, an invalid response, or a broken connection.
    pub(super) fn new(kind: impl Into<String>, example: impl Into<String>) -> Self {
        Self { kind: kind.into(), example: example.into(), gave_up: false }
    }

    /// Returns the failure of a request that the client gave up on.
    pub(super) fn gave_up(kind: impl Into<String>, example: impl Into<String>) -> Self {
        Self { gave_up: true, ..Self::new(kind, example) }
    }
}

/// Answers to requests whose indices are multiples of a stride. The stride grows so that at most `capacity` are kept.
#[derive(Debug)]
struct Samples {
    capacity: usize,
    stride: u64,
    answers: BTreeMap<u64, Vec<f64>>,
}

impl Samples {
    fn add(&mut self, index: u64, logprobs: Vec<f64>) {
        if self.capacity == 0 || !index.is_multiple_of(self.stride) {
            return;
        }
        self.answers.insert(index, logprobs);
        while self.answers.len() > self.capacity {
            self.stride *= 2;
            let stride = self.stride;
            self.answers.retain(|index, _| index.is_multiple_of(stride));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_spread_over_the_run() {
        let mut recorder = Recorder::new(4);
        (0..100).for_each(|index| recorder.add_sample(index, Some(vec![index as f64])));
        let kept: Vec<u64> = recorder.take_samples().into_keys().collect();
        assert_eq!(kept, [0, 32, 64, 96]);
    }

    #[test]
    fn a_total_is_none_if_one_answer_lacks_it() {
        let mut recorder = Recorder::new(0);
        let known =
            CompleteResponse { computed_tokens: Some(3), cached_tokens: Some(1), ..CompleteResponse::default() };
        recorder.add_response(&PairRequest::default(), &known, Duration::ZERO);
        assert_eq!((recorder.computed_tokens, recorder.cached_tokens), (Some(3), Some(1)));
        recorder.add_response(
            &PairRequest::default(),
            &CompleteResponse { cached_tokens: None, ..known },
            Duration::ZERO,
        );
        assert_eq!((recorder.computed_tokens, recorder.cached_tokens), (Some(6), None));
    }
}
