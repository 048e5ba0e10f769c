//! The state of a running measurement: which request is next, which connections are free, and what was recorded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::options::Options;
use super::recorder::Recorder;
use crate::client::{Connection, ExchangeError, Response, Target};
use crate::outcome::Latency;
use crate::workload::{PairRequest, STREAM_LENGTH, Workload};

/// The warm-up's requests have indices from here on, so that the measured requests are the same however long it is.
const FIRST_WARM_UP_INDEX: u64 = 1 << 62;

/// The progress of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Time since it began, warm-up included.
    pub elapsed: Duration,
    /// True during the warm-up.
    pub warming_up: bool,
    /// Requests answered in the measurement.
    pub requests: u64,
    /// Their log-probabilities.
    pub scored_tokens: u64,
    /// Requests answered a second.
    pub requests_per_second: f64,
    /// Log-probabilities answered a second.
    pub scored_tokens_per_second: f64,
    /// Latencies so far, of the class that has the most.
    pub latency: Option<Latency>,
    /// Fraction of the tokens that came from a cache, where answers state it.
    pub hit_rate: Option<f64>,
    /// Answers with status 429.
    pub refused: u64,
    /// Requests without a good answer.
    pub failed: u64,
}

/// The index of a request, and the time at which it is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScheduledRequest {
    pub(super) index: u64,
    pub(super) due: Instant,
}

impl ScheduledRequest {
    /// Returns whether it belongs to the measurement and not to the warm-up.
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
    /// The end of the warm-up.
    pub(super) warm_up_end: Instant,
    /// Nothing is sent from here on; `None` where the number of requests decides.
    pub(super) end: Option<Instant>,
    recorder: Mutex<Recorder>,
    /// Connections that are free, the most recently used one last.
    idle: Mutex<Vec<Connection>>,
    /// The next request's index, in the warm-up and in the measurement.
    next_index: [AtomicU64; 2],
}

impl Run {
    /// Starts the clock.
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
        // A connection is in it or not, even if a client panicked.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        // Records are complete between calls, even if a client panicked.
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request over the connection that was free last, as a client with a pool does. A request that waits to be sent
    /// again holds no connection.
    pub(super) async fn post(&self, path: &str, body: Bytes) -> Result<Response, ExchangeError> {
        let idle = self.idle().pop();
        let mut connection = idle.unwrap_or_else(|| self.target.connect(self.options.timeout));
        let response = connection.post(path, body).await;
        self.idle().push(connection);
        response
    }

    /// Returns whether the measurement has ended by `now`.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.end.is_some_and(|end| now >= end)
    }

    /// Schedules the next request for the time `due`; `None` when there are no more.
    pub(super) fn schedule(&self, due: Instant) -> Option<ScheduledRequest> {
        let measured = due >= self.warm_up_end;
        let index = self.next_index[usize::from(measured)].fetch_add(1, Ordering::Relaxed);
        let limit = self.options.requests.filter(|_| measured);
        let limit = limit.map(|count| self.options.stream * STREAM_LENGTH + count);
        let over = self.is_over(due) || limit.is_some_and(|limit| index >= limit);
        (!over).then_some(ScheduledRequest { index, due })
    }

    /// Returns the request at an index of the workload.
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
