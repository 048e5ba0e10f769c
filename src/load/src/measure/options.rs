//! Options of a measurement.

use std::time::Duration;

use crate::error::Error;

/// Number of streams of requests of one seed.
const STREAMS: u64 = 1_000_000;

/// Options of a measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Seed of every request and of every send time. A server that has seen it before may have answers in its cache.
    pub seed: u64,
    /// Which of the seed's streams of requests to send, below a million. Streams share contexts of the pool, and no requests.
    pub stream: u64,
    /// Duration of the load before the measurement.
    pub warm_up: Duration,
    /// Duration of the measurement.
    pub duration: Duration,
    /// Ends the measurement after this number of requests instead, however long they take.
    pub requests: Option<u64>,
    /// Requests of an open loop in flight at once. Requests that are due beyond it wait, and the wait is part of their latency.
    pub connections: usize,
    /// A request without an answer for this long has failed.
    pub timeout: Duration,
    /// Number of requests to repeat at the end, to see whether their answers have the same bits.
    pub repeats: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            stream: 0,
            warm_up: Duration::from_secs(2),
            duration: Duration::from_secs(10),
            requests: None,
            connections: 256,
            timeout: Duration::from_secs(120),
            repeats: 8,
        }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.connections == 0 {
            return Err(Error::invalid("connections", 0, "at least 1"));
        }
        if self.requests.is_none() && self.duration.is_zero() {
            return Err(Error::invalid("duration", 0, "more than 0 seconds"));
        }
        if self.stream >= STREAMS {
            return Err(Error::invalid("stream", self.stream, "below a million"));
        }
        Ok(())
    }
}
