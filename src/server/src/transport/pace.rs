//! `Pace`: the minimum rate at which a peer must send its request or read its response.
//!
//! This is the only rule about slow peers. It applies while the server waits for the peer, so neither a long
//! computation nor an idle connection counts.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::limits::config::ServerConfig;

/// The maximum number of bytes that the kernel takes at a time once its buffer has been full: it takes none until half
/// of the unsent bytes that it accepts are sent. So a client that reads slowly moves that many bytes at once.
const KERNEL_STEP_BYTES: u64 = 128 << 10;

/// The error for a peer that is too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fewer than {bytes} bytes arrived in {seconds} s")]
pub(crate) struct TooSlow {
    /// Minimum number of bytes in that time.
    pub(crate) bytes: u64,
    pub(crate) seconds: u64,
}

/// A check that a peer moves a number of bytes, again and again, each time within a window of time.
///
/// A window begins with the first wait for the peer, and again whenever the peer has moved that many bytes. It stops
/// while the server does something else. A timeout per read would not suffice: a peer that moves a byte in time, again
/// and again, could hold a request for hours.
#[derive(Debug)]
pub(crate) struct Pace {
    window: Duration,
    /// Minimum number of bytes per window.
    required: u64,
    /// Number of bytes moved in the current window.
    moved: u64,
    /// Remaining time of the current window at the beginning of the current wait, or of the next one.
    left: Duration,
    /// End of the current window; `None` while the server does not wait for the peer.
    end: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Returns the pace of a client that sends a body: `min_bytes_per_second`, measured over `stall_seconds`.
    pub(crate) fn of_body(config: &ServerConfig) -> Self {
        let required = config.min_bytes_per_second.saturating_mul(config.stall_seconds).max(1);
        Self::new(config.stall_window(), required)
    }

    /// Returns the pace of a client that reads a response. A window lasts for `stall_seconds`, and at least as long as
    /// a client takes for a step of the kernel at `min_bytes_per_second`.
    pub(crate) fn of_response(config: &ServerConfig) -> Self {
        let step = Duration::from_secs(KERNEL_STEP_BYTES.checked_div(config.min_bytes_per_second).unwrap_or(0));
        Self::new(config.stall_window().max(step), 1)
    }

    fn new(window: Duration, required: u64) -> Self {
        Self { window, required, moved: 0, left: window, end: None }
    }

    /// Counts bytes that the peer has moved.
    pub(crate) fn record(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes as u64);
        if self.moved >= self.required {
            (self.moved, self.left) = (0, self.window);
            if let Some(end) = &mut self.end {
                end.as_mut().reset(Instant::now() + self.window);
            }
        }
    }

    /// Stops the window until the server waits for the peer again.
    pub(crate) fn pause(&mut self) {
        if let Some(end) = self.end.take() {
            self.left = end.deadline().saturating_duration_since(Instant::now());
        }
    }

    /// Ends the transfer. The next one begins a new window.
    pub(crate) fn finish(&mut self) {
        (self.moved, self.left, self.end) = (0, self.window, None);
    }

    /// Waits until a window ends in which the peer moved too few bytes. Call it while the server waits for the peer.
    pub(crate) fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<TooSlow> {
        let Self { window, required, left, end, .. } = self;
        let end = end.get_or_insert_with(|| Box::pin(sleep(*left)));
        end.as_mut().poll(cx).map(|()| TooSlow { bytes: *required, seconds: window.as_secs() })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Moves `bytes` every `period` seconds, 100 times. Returns the seconds until the peer was too slow.
    async fn seconds_until_too_slow(mut pace: Pace, bytes: usize, period: u64) -> Option<u64> {
        let start = Instant::now();
        for _ in 0..100 {
            tokio::select! {
                _ = poll_fn(|cx| pace.poll_too_slow(cx)) => return Some(start.elapsed().as_secs()),
                () = sleep(Duration::from_secs(period)) => {}
            }
            pace.record(bytes);
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_must_keep_moving_bytes() {
        let config = ServerConfig { stall_seconds: 10, min_bytes_per_second: 5, ..ServerConfig::default() };
        let seconds = |bytes| seconds_until_too_slow(Pace::of_body(&config), bytes, 1);
        assert_eq!(seconds(0).await, Some(10));
        assert_eq!(seconds(4).await, Some(10));
        assert_eq!(seconds(6).await, None);
    }

    /// The kernel takes 128 KiB of a response at a time, at the client's rate.
    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_above_the_minimum_rate_is_not_too_slow() {
        for (rate, stall_seconds) in [(4096, 30), (512, 30), (1 << 20, 30), (1 << 20, 1)] {
            let config = ServerConfig { stall_seconds, min_bytes_per_second: rate, ..ServerConfig::default() };
            let pace = || Pace::of_response(&config);
            let window = stall_seconds.max(KERNEL_STEP_BYTES / rate);
            let step = KERNEL_STEP_BYTES as usize;
            assert_eq!(seconds_until_too_slow(pace(), step, window - 1).await, None, "{rate} B/s");
            assert_eq!(seconds_until_too_slow(pace(), step, window + 1).await, Some(window), "{rate} B/s");
            assert_eq!(seconds_until_too_slow(pace(), 0, window).await, Some(window), "{rate} B/s");
        }
    }

    /// The server computes between two parts of a response. It flushes each part, and does not wait for the client.
    #[tokio::test(start_paused = true)]
    async fn a_computation_does_not_count() {
        let config = ServerConfig::default();
        let mut pace = Pace::of_response(&config);
        for _ in 0..3 {
            tokio::select! {
                _ = poll_fn(|cx| pace.poll_too_slow(cx)) => panic!("the client has taken the part"),
                () = sleep(Duration::from_secs(1)) => {}
            }
            pace.record(1);
            pace.finish();
            sleep(Duration::from_secs(3600)).await;
        }
    }

    /// A chunk of a body may wait for its turn to be decoded. That time does not count, but the waits before and after
    /// it are one window.
    #[tokio::test(start_paused = true)]
    async fn only_waits_for_the_body_count() {
        let config = ServerConfig { stall_seconds: 10, min_bytes_per_second: 5, ..ServerConfig::default() };
        for (bytes, expected) in [(4, Some(10)), (6, None)] {
            let (mut pace, mut waited) = (Pace::of_body(&config), None);
            for second in 1..100 {
                tokio::select! {
                    biased;
                    _ = poll_fn(|cx| pace.poll_too_slow(cx)) => {
                        waited = Some(second);
                        break;
                    }
                    () = sleep(Duration::from_secs(1)) => {}
                }
                pace.record(bytes);
                pace.pause();
                sleep(Duration::from_secs(3600)).await;
            }
            assert_eq!(waited, expected, "{bytes} bytes per second");
        }
    }
}
