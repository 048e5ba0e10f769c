//! The state of a running measurement: the next request, idle connections, and recorded results.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::options::Options;
use super::recorder::Recorder;
use crate::client::{Connection, ExchangeError, Response, Target};
use crate::outcome::Latency;
use crate::workload::{PairRequest, STREAM_LENGTH, Workload};

/// First index of the warm-up's requests. They have separate indices, so that the length of the warm-up does not change
/// the measured requests.
const FIRST_WARM_UP_INDEX: u64 = 1 << 62;

/// The progress of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Time since the start, including the warm-up.
    pub elapsed: Duration,
    /// `true` during the warm-up.
    pub warming_up: bool,
    /// Requests answered so far in the measurement.
    pub requests: u64,
    /// Log-probabilities returned so far.
    pub scored_tokens: u64,
    /// Requests answered per second.
    pub requests_per_second: f64,
    /// Log-probabilities returned per second.
    pub scored_tokens_per_second: f64,
    /// Latencies so far, of the class with the most requests; `None` before the first latency.
    pub latency: Option<Latency>,
    /// Fraction of tokens found in a cache; `None` unless every response reports it.
    pub hit_rate: Option<f64>,
    /// Responses with status 429.
    pub refused: u64,
    /// Failed requests.
    pub failed: u64,
}

/// The index of a request, and the time at which it is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScheduledRequest {
    pub(super) index: u64,
    pub(super) due: Instant,
}

impl ScheduledRequest {
    /// Returns whether the request belongs to the measurement rather than the warm-up.
    pub(super) fn is_measured(self) -> bool {
        self.index < FIRST_WARM_UP_INDEX
    }
}

/// The state that all clients of a measurement share.
pub(super) struct Run {
    pub(super) target: Target,
    pub(super) workload: Workload,
    pub(super) options: Options,
    pub(super) start: Instant,
    /// End of the warm-up.
    pub(super) warm_up_end: Instant,
    /// Time after which no request is sent; `None` if the number of requests ends the measurement.
    pub(super) end: Option<Instant>,
    recorder: Mutex<Recorder>,
    /// Idle connections, the most recently used one last.
    idle: Mutex<Vec<Connection>>,
    /// Index of the next request: for the warm-up, then for the measurement.
    next_index: [AtomicU64; 2],
}

impl Run {
    /// Creates the state, and starts the measurement's clock.
    pub(super) fn new(target: Target, workload: Workload, options: Options) -> Self {
        let start = Instant::now();
        let warm_up_end = start + options.warm_up;
        let end = options.requests.is_none().then(|| warm_up_end + options.duration);
        let recorder = Mutex::new(Recorder::new(options.repeats));
        let first = options.stream * STREAM_LENGTH;
        let next_index = [AtomicU64::new(FIRST_WARM_UP_INDEX + first), AtomicU64::new(first)];
        Self { target, workload, options, start, warm_up_end, end, recorder, idle: Mutex::default(), next_index }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        // The list is valid even if a client panicked.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        // The recorder is consistent between calls, even if a client panicked.
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request over the most recently used idle connection, like a client with a pool. A request that waits for
    /// its retry holds no connection.
    pub(super) async fn post(
        &self,
        path: &str,
        body: Bytes,
        max_response_bytes: usize,
    ) -> Result<Response, ExchangeError> {
        let idle = self.idle().pop();
        let mut connection = idle.unwrap_or_else(|| self.target.connect(self.options.timeout));
        let response = connection.post(path, body, max_response_bytes).await;
        self.idle().push(connection);
        response
    }

    /// Returns whether the measurement has ended by `now`.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.end.is_some_and(|end| now >= end)
    }

    /// Schedules the next request for the time `due`; `None` after the last one.
    pub(super) fn schedule(&self, due: Instant) -> Option<ScheduledRequest> {
        let measured = due >= self.warm_up_end;
        let index = self.next_index[usize::from(measured)].fetch_add(1, Ordering::Relaxed);
        let limit = self.options.requests.filter(|_| measured);
        let limit = limit.map(|count| self.options.stream * STREAM_LENGTH + count);
        let over = self.is_over(due) || limit.is_some_and(|limit| index >= limit);
        (!over).then_some(ScheduledRequest { index, due })
    }

    /// Returns the workload's request at this index.
    pub(super) fn request(&self, index: u64) -> PairRequest {
        self.workload.request(self.options.seed, index, self.target.vocabulary)
    }

    pub(super) fn progress(&self) -> Progress {
        let now = Instant::now();
        let recorder = self.recorder();
        let measured = now.saturating_duration_since(self.warm_up_end);
        let seconds = self.end.map_or(measured, |_| measured.min(self.options.duration)).as_secs_f64();
        let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        Progress {
            elapsed: now.saturating_duration_since(self.start),
            warming_up: now < self.warm_up_end,
            requests: recorder.requests,
            scored_tokens: recorder.scored_tokens,
            requests_per_second: rate(recorder.requests),
            scored_tokens_per_second: rate(recorder.scored_tokens),
            latency: recorder.latencies().into_values().max_by_key(|latency| latency.count),
            hit_rate: recorder.hit_rate(),
            refused: recorder.refused,
            failed: recorder.failures.values().map(|failures| failures.count).sum(),
        }
    }
}
