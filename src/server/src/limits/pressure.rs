//! `Retry-After` under overload, which grows with the number of rejected requests per admitted one.
//!
//! Rejected clients retry. If all retried after a second, a heavily overloaded server would spend its time rejecting
//! them. So `Retry-After` in seconds is the number of rejected requests per admitted one, smoothed over several
//! seconds. With n clients that retry forever, and capacity for r requests per second, `Retry-After` settles at
//! `sqrt(n / r)` seconds, and the server rejects about `sqrt(n r)` requests per second instead of n.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time over which requests are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// The weight of one window in the smoothed ratio; with a larger weight, the waits oscillate because all clients retry
/// at the same time.
const SMOOTHING: f64 = 0.125;

/// The maximum of `Retry-After`, in seconds.
const MAX_RETRY_AFTER: f64 = 30.0;

/// Counts of recently admitted and rejected requests.
#[derive(Debug)]
pub(crate) struct Pressure(Mutex<Window>);

#[derive(Debug)]
struct Window {
    start: Instant,
    admitted: u64,
    rejected: u64,
    /// Smoothed number of rejected requests per admitted one.
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

    /// Records a rejected request. Returns the number of seconds after which its client may retry.
    pub(crate) fn record_rejected(&self, now: Instant) -> u64 {
        let mut window = self.window(now);
        window.rejected += 1;
        window.retry_after()
    }

    /// Locks the window. If it is over, begins a new one first.
    fn window(&self, now: Instant) -> MutexGuard<'_, Window> {
        // Every update leaves the counts consistent, so a panic while the lock is held does no harm.
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

    /// Begins a new window. Logs one line for all requests that were rejected in the previous window: one line per
    /// request would be more work for an overloaded server.
    fn roll_over(&mut self, now: Instant) {
        let (admitted, rejected) = (self.admitted, self.rejected);
        let windows = now.duration_since(self.start).as_secs_f64() / WINDOW.as_secs_f64();
        let latest = rejected as f64 / admitted.max(1) as f64;
        self.ratio += SMOOTHING * (latest - self.ratio);
        // Nothing was rejected in windows without requests.
        self.ratio *= (1.0 - SMOOTHING).powf(windows - 1.0);
        if rejected > 0 {
            tracing::warn!(admitted, rejected, retry_after = self.retry_after(), "overloaded; requests rejected");
        }
        *self = Self { start: now, admitted: 0, rejected: 0, ratio: self.ratio };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the rejections per second of a server that admits `capacity` requests per second, with clients that
    /// respect `Retry-After`.
    fn rejections(clients: u64, capacity: u64) -> f64 {
        let start = Instant::now();
        let pressure = Pressure::new(start);
        let mut due_times: Vec<u64> = (0..clients).map(|client| client % 5).collect();
        let mut late = 0_u32;
        for second in 0..300 {
            let (mut left, mut rejected) = (capacity, 0_u32);
            for place in 0..clients {
                // A different client is first each second.
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
    fn rejections_grow_with_the_square_root_of_the_number_of_clients() {
        for (clients, capacity) in [(500, 150), (2000, 150), (2000, 20)] {
            let (found, expected) = (rejections(clients, capacity), (clients as f64 * capacity as f64).sqrt());
            assert!(
                (0.4..1.6).contains(&(found / expected)),
                "{clients} clients, capacity {capacity}: {found} rejections per second, expected about {expected}"
            );
        }
        assert_eq!(rejections(100, 150), 0.0);
    }

    #[test]
    fn retry_after_begins_at_one_second_grows_to_thirty_and_decays() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let pressure = Pressure::new(start);
        assert_eq!(pressure.record_rejected(start), 1);
        let waits: Vec<u64> =
            (1..60).map(|at| (0..100).map(|_| pressure.record_rejected(start + at * second)).max().unwrap()).collect();
        assert!(waits.is_sorted() && waits[0] == 1 && waits[58] == 30, "{waits:?}");
        assert_eq!(pressure.record_rejected(start + 200 * second), 1);
    }
}
