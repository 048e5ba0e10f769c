//! `Retry-After` under overload: the more requests are rejected for each that is admitted, the longer.
//!
//! Rejected clients retry. If all retried after a second, a heavily overloaded server would spend its time rejecting them. So
//! `Retry-After` is the number of requests rejected for each that was admitted, in seconds, smoothed over some seconds. With n
//! clients that retry for ever and capacity for r of them a second, it settles at `sqrt(n / r)` seconds, with about
//! `sqrt(n r)` rejections a second instead of n.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time over which requests are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// The weight of one window in the smoothed ratio; with more, waits oscillate as all clients retry at once.
const SMOOTHING: f64 = 0.125;

/// The longest wait, in seconds.
const MAX_RETRY_AFTER: f64 = 30.0;

/// The requests admitted and rejected recently.
#[derive(Debug)]
pub(crate) struct Pressure(Mutex<Window>);

#[derive(Debug)]
struct Window {
    start: Instant,
    admitted: u64,
    rejected: u64,
    /// Rejected for each that was admitted, smoothed.
    ratio: f64,
}

impl Pressure {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(Window { start: now, admitted: 0, rejected: 0, ratio: 0.0 }))
    }

    /// Records an admitted request.
    pub(crate) fn record_admitted(&self, now: Instant) {
        self.window(now).admitted += 1;
    }

    /// Records a rejected request; returns the seconds after which its client may retry.
    pub(crate) fn record_rejected(&self, now: Instant) -> u64 {
        let mut window = self.window(now);
        window.rejected += 1;
        window.retry_after()
    }

    /// Locks the current window; begins a new one where the last has passed.
    fn window(&self, now: Instant) -> MutexGuard<'_, Window> {
        // Counts are consistent after each step, so a panic elsewhere leaves them right.
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(window.start) >= WINDOW {
            window.roll_over(now);
        }
        window
    }
}

impl Window {
    fn retry_after(&self) -> u64 {
        self.ratio.clamp(1.0, MAX_RETRY_AFTER).ceil() as u64
    }

    /// Begins a new window. Logs one line for all rejected requests: a line for each would be more work for an overloaded
    /// server.
    fn roll_over(&mut self, now: Instant) {
        let (admitted, rejected) = (self.admitted, self.rejected);
        let windows = now.duration_since(self.start).as_secs_f64() / WINDOW.as_secs_f64();
        let latest = rejected as f64 / admitted.max(1) as f64;
        self.ratio += SMOOTHING * (latest - self.ratio);
        // Nothing was rejected in windows without requests.
        self.ratio *= (1.0 - SMOOTHING).powf(windows - 1.0);
        if rejected > 0 {
            tracing::warn!(
                taken = admitted,
                refused = rejected,
                retry_after = self.retry_after(),
                "full: requests were refused"
            );
        }
        *self = Self { start: now, admitted: 0, rejected: 0, ratio: self.ratio };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the rejections a second of a server that admits `capacity` requests a second, with clients that obey
    /// `Retry-After`.
    fn rejections(clients: u64, capacity: u64) -> f64 {
        let start = Instant::now();
        let pressure = Pressure::new(start);
        let mut due_times: Vec<u64> = (0..clients).map(|client| client % 5).collect();
        let mut late = 0_u32;
        for second in 0..300 {
            let (mut left, mut rejected) = (capacity, 0_u32);
            for place in 0..clients {
                // Another client is first each second.
                let due = &mut due_times[((place + 7 * second) % clients) as usize];
                if *due > second {
                    continue;
                }
                let now = start + Duration::from_secs(second) + Duration::from_micros(400 * place);
                *due = second + 1;
                if left > 0 {
                    left -= 1;
                    pressure.record_admitted(now);
                } else {
                    rejected += 1;
                    *due = second + pressure.record_rejected(now);
                }
            }
            late += if second >= 200 { rejected } else { 0 };
        }
        f64::from(late) / 100.0
    }

    #[test]
    fn rejections_grow_with_the_root_of_the_waiting_clients() {
        for (clients, capacity) in [(500, 150), (2000, 150), (2000, 20)] {
            let (found, expected) = (rejections(clients, capacity), (clients as f64 * capacity as f64).sqrt());
            assert!(
                (0.4..1.6).contains(&(found / expected)),
                "{clients} for {capacity}: {found} a second, not about {expected}"
            );
        }
        assert_eq!(rejections(100, 150), 0.0);
    }

    #[test]
    fn a_wait_is_a_second_at_first_half_a_minute_at_most_and_forgotten() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let pressure = Pressure::new(start);
        assert_eq!(pressure.record_rejected(start), 1);
        let waits: Vec<u64> =
            (1..60).map(|at| (0..100).map(|_| pressure.record_rejected(start + at * second)).max().unwrap()).collect();
        assert!(waits.is_sorted() && waits[0] == 1 && waits[58] == 30, "{waits:?}");
        assert_eq!(pressure.record_rejected(start + 200 * second), 1);
    }
}
