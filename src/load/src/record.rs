//! What is noted while a load is on.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::answer::Answer;
use crate::outcome::{Failures, Latency, hit_rate};
use crate::{Ask, Class};

/// Latencies are counted in microseconds, to three digits.
const DIGITS: u8 = 3;

/// What took longer than a day took a day.
const LONGEST: u64 = 86_400_000_000;

/// The notes of all clients.
#[derive(Debug)]
pub(crate) struct Record {
    latencies: BTreeMap<Class, Histogram<u64>>,
    pub(crate) requests: u64,
    pub(crate) queries: u64,
    pub(crate) scored_tokens: u64,
    pub(crate) computed_tokens: Option<u64>,
    pub(crate) cached_tokens: Option<u64>,
    pub(crate) refused: u64,
    pub(crate) failures: BTreeMap<String, Failures>,
    /// When the last answer came, since the measurement's beginning.
    pub(crate) last: Duration,
    samples: Samples,
}

impl Record {
    /// Keeps at most `samples` answers, to be asked for again.
    pub(crate) fn new(samples: usize) -> Self {
        Self {
            latencies: BTreeMap::new(),
            requests: 0,
            queries: 0,
            scored_tokens: 0,
            computed_tokens: Some(0),
            cached_tokens: Some(0),
            refused: 0,
            failures: BTreeMap::new(),
            last: Duration::ZERO,
            samples: Samples { most: samples, stride: 1, kept: BTreeMap::new() },
        }
    }

    /// Work that was finished within the measurement.
    pub(crate) fn finished(&mut self, ask: &Ask, answer: &Answer, now: Duration) {
        self.requests += 1;
        self.queries += ask.pairs.len() as u64;
        self.scored_tokens += ask.scored_tokens() as u64;
        let add = |total: Option<u64>, more: Option<u64>| Some(total? + more?);
        self.computed_tokens = add(self.computed_tokens, answer.computed_tokens);
        self.cached_tokens = add(self.cached_tokens, answer.cached_tokens);
        self.last = self.last.max(now);
    }

    /// How long a request took, from the time it was meant to be sent.
    pub(crate) fn latency(&mut self, class: Class, latency: Duration) {
        if let std::collections::btree_map::Entry::Vacant(place) = self.latencies.entry(class) {
            // Three digits are always allowed.
            let Ok(histogram) = Histogram::new(DIGITS) else { return };
            place.insert(histogram);
        }
        if let Some(histogram) = self.latencies.get_mut(&class) {
            // It grows with what it is given; `saturating_record` would not let it.
            let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            *histogram += micros.min(LONGEST);
        }
    }

    /// A request without a good answer; a client would have waited for it as long as `waited` at least, if it was given up.
    pub(crate) fn failed(&mut self, class: Class, failure: Failure, waited: Duration) {
        let Failure { kind, example, given_up } = failure;
        // An error that comes at once must not make a server look quick.
        if given_up {
            self.latency(class, waited);
        }
        self.failures.entry(kind).or_insert(Failures { count: 0, example }).count += 1;
    }

    pub(crate) fn sample(&mut self, index: u64, logprobs: Option<Vec<f64>>) {
        if let Some(logprobs) = logprobs {
            self.samples.add(index, logprobs);
        }
    }

    /// Answers by the index of their requests.
    pub(crate) fn take_samples(&mut self) -> BTreeMap<u64, Vec<f64>> {
        std::mem::take(&mut self.samples.kept)
    }

    pub(crate) fn latencies(&self) -> BTreeMap<Class, Latency> {
        self.latencies.iter().map(|(&class, histogram)| (class, Latency::of(histogram))).collect()
    }

    /// Which part of the tokens came from a cache, if every answer said so.
    pub(crate) fn hit_rate(&self) -> Option<f64> {
        hit_rate(self.computed_tokens, self.cached_tokens)
    }
}

/// Why a request has no good answer.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: String,
    example: String,
    /// Whether an answer might have come later.
    given_up: bool,
}

impl Failure {
    /// One that was final: a status, a bad answer, a broken connection.
    pub(crate) fn told(kind: impl Into<String>, example: impl Into<String>) -> Self {
        Self { kind: kind.into(), example: example.into(), given_up: false }
    }

    /// One of a client that did not wait any longer.
    pub(crate) fn given_up(kind: impl Into<String>, example: impl Into<String>) -> Self {
        Self { given_up: true, ..Self::told(kind, example) }
    }
}

/// Answers to requests whose indices are multiples of a stride, which grows so that there never are more than `most`.
#[derive(Debug)]
struct Samples {
    most: usize,
    stride: u64,
    kept: BTreeMap<u64, Vec<f64>>,
}

impl Samples {
    fn add(&mut self, index: u64, logprobs: Vec<f64>) {
        if self.most == 0 || !index.is_multiple_of(self.stride) {
            return;
        }
        self.kept.insert(index, logprobs);
        while self.kept.len() > self.most {
            self.stride *= 2;
            let stride = self.stride;
            self.kept.retain(|index, _| index.is_multiple_of(stride));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_spread_over_the_run() {
        let mut record = Record::new(4);
        (0..100).for_each(|index| record.sample(index, Some(vec![index as f64])));
        let kept: Vec<u64> = record.take_samples().into_keys().collect();
        assert_eq!(kept, [0, 32, 64, 96]);
    }

    #[test]
    fn a_total_that_one_answer_lacks_is_none() {
        let mut record = Record::new(0);
        let known = Answer { computed_tokens: Some(3), cached_tokens: Some(1), ..Answer::default() };
        record.finished(&Ask::default(), &known, Duration::ZERO);
        assert_eq!((record.computed_tokens, record.cached_tokens), (Some(3), Some(1)));
        record.finished(&Ask::default(), &Answer { cached_tokens: None, ..known }, Duration::ZERO);
        assert_eq!((record.computed_tokens, record.cached_tokens), (Some(6), None));
    }
}
