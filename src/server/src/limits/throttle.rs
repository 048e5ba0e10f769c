//! `LogThrottle`: at most one log line per second for an event that attackers can cause at will.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The minimum time between two lines.
const INTERVAL: Duration = Duration::from_secs(1);

/// A count of the events that no line has reported.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<Unreported>);

#[derive(Debug, Default)]
struct Unreported {
    events: u64,
    last_line: Option<Instant>,
}

impl LogThrottle {
    /// Counts events. If a line is due, returns the number of events to report.
    pub(crate) fn count(&self, events: usize) -> Option<u64> {
        // Every update leaves the counts consistent, so a panic while the lock is held does no harm.
        let mut unreported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        unreported.events += events as u64;
        if unreported.last_line.is_some_and(|last| last.elapsed() < INTERVAL) {
            return None;
        }
        unreported.last_line = Some(Instant::now());
        Some(std::mem::take(&mut unreported.events))
    }
}
