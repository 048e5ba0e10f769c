//! How long those who are refused are told to wait: the more of them there are for each that finds room, the longer.
//!
//! Whoever is refused comes back. If all came back after a second, a server that is asked for many times what it can do would
//! be busy with refusing them. So `Retry-After` is as many seconds as requests were refused for each that was taken, smoothed
//! over some seconds: with n clients that come back for ever and room for r of them a second, that settles at `sqrt(n / r)`
//! seconds, and some `sqrt(n r)` refusals a second instead of n.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Requests are counted for so long at a time.
const WINDOW: Duration = Duration::from_secs(1);

/// What one window changes; more, and waits swing as all come back at once.
const WEIGHT: f64 = 0.125;

/// The longest wait, in seconds.
const LONGEST: f64 = 30.0;

/// Requests taken and refused of late.
#[derive(Debug)]
pub(crate) struct Pressure(Mutex<Window>);

#[derive(Debug)]
struct Window {
    began: Instant,
    taken: u64,
    refused: u64,
    /// Refused for each that was taken, smoothed.
    ratio: f64,
}

impl Pressure {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(Window { began: now, taken: 0, refused: 0, ratio: 0.0 }))
    }

    /// Notes a request that found room.
    pub(crate) fn taken(&self, now: Instant) {
        self.with(now, |window| window.taken += 1);
    }

    /// Notes one that did not; returns the seconds after which it may try again.
    pub(crate) fn refused(&self, now: Instant) -> u64 {
        self.with(now, |window| {
            window.refused += 1;
            window.retry_after()
        })
    }

    fn with<T>(&self, now: Instant, note: impl FnOnce(&mut Window) -> T) -> T {
        // Counts are whole after each step, so a panic elsewhere leaves them right.
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(window.began) >= WINDOW {
            window.turn(now);
        }
        note(&mut window)
    }
}

impl Window {
    fn retry_after(&self) -> u64 {
        self.ratio.clamp(1.0, LONGEST).ceil() as u64
    }

    /// Begins anew. The log has a line for all that were refused: a line each would be work for a server that has too much.
    fn turn(&mut self, now: Instant) {
        let (taken, refused) = (self.taken, self.refused);
        let windows = now.duration_since(self.began).as_secs_f64() / WINDOW.as_secs_f64();
        let now_refused = refused as f64 / taken.max(1) as f64;
        self.ratio += WEIGHT * (now_refused - self.ratio);
        // Nothing was refused in the windows that nobody asked in.
        self.ratio *= (1.0 - WEIGHT).powf(windows - 1.0);
        if refused > 0 {
            tracing::warn!(taken, refused, retry_after = self.retry_after(), "full: requests were refused");
        }
        *self = Self { began: now, taken: 0, refused: 0, ratio: self.ratio };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients that come back as they are told, beside a server that takes so many a second and is never without work.
    fn refusals(clients: u64, room: u64) -> f64 {
        let start = Instant::now();
        let pressure = Pressure::new(start);
        let mut due: Vec<u64> = (0..clients).map(|client| client % 5).collect();
        let mut late = 0_u32;
        for second in 0..300 {
            let (mut left, mut refused) = (room, 0_u32);
            for place in 0..clients {
                // Another one is first each time.
                let due = &mut due[((place + 7 * second) % clients) as usize];
                if *due > second {
                    continue;
                }
                let now = start + Duration::from_secs(second) + Duration::from_micros(400 * place);
                *due = second + 1;
                if left > 0 {
                    left -= 1;
                    pressure.taken(now);
                } else {
                    refused += 1;
                    *due = second + pressure.refused(now);
                }
            }
            late += if second >= 200 { refused } else { 0 };
        }
        f64::from(late) / 100.0
    }

    #[test]
    fn refusals_grow_with_the_root_of_those_who_wait() {
        for (clients, room) in [(500, 150), (2000, 150), (2000, 20)] {
            let (found, expected) = (refusals(clients, room), (clients as f64 * room as f64).sqrt());
            assert!(
                (0.4..1.6).contains(&(found / expected)),
                "{clients} for {room}: {found} a second, not about {expected}"
            );
        }
        assert_eq!(refusals(100, 150), 0.0);
    }

    #[test]
    fn a_wait_is_a_second_at_first_half_a_minute_at_most_and_forgotten() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let pressure = Pressure::new(start);
        assert_eq!(pressure.refused(start), 1);
        let waits: Vec<u64> =
            (1..60).map(|at| (0..100).map(|_| pressure.refused(start + at * second)).max().unwrap()).collect();
        assert!(waits.is_sorted() && waits[0] == 1 && waits[58] == 30, "{waits:?}");
        assert_eq!(pressure.refused(start + 200 * second), 1);
    }
}
