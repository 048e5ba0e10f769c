//! Options of a measurement.

use std::time::Duration;

use crate::error::Error;

/// Number of request streams per seed.
const STREAMS: u64 = 1_000_000;

/// Options of a measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Seed for the requests and their send times. A server that has seen this seed before may answer from its cache.
    pub seed: u64,
    /// Index of the request stream to send, less than 1,000,000. Streams of a seed share pooled contexts, but no
    /// requests.
    pub stream: u64,
    /// Duration of the warm-up before the measurement.
    pub warm_up: Duration,
    /// Duration of the measurement.
    pub duration: Duration,
    /// Number of requests in the measurement; `None` if `duration` ends it instead.
    pub requests: Option<u64>,
    /// Maximum number of requests in flight in an open loop. Further requests that are due wait, and the wait counts
    /// as latency.
    pub connections: usize,
    /// Timeout of a request.
    pub timeout: Duration,
    /// Number of requests to repeat at the end, to check that the responses are bit-identical.
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
            return Err(Error::invalid("stream", self.stream, "less than 1000000"));
        }
        Ok(())
    }
}
