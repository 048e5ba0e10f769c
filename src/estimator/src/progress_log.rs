//! Log lines about steps that take long.

use std::time::{Duration, Instant};

/// The interval between two log lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// The log target of progress messages, which `surprisal` shows by default.
pub(crate) const LOG_TARGET: &str = "surprisal::progress";

/// A clock that limits the log to one line in ten seconds.
pub(crate) struct LogClock(Instant);

impl LogClock {
    /// Starts the clock; the first line is due after one interval.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Returns `true` if a line is due, and starts the next interval.
    pub(crate) fn is_due(&mut self) -> bool {
        let due = self.0.elapsed() >= INTERVAL;
        if due {
            self.0 = Instant::now();
        }
        due
    }
}
