//! `Pace`: the minimum rate at which a peer must send its request or read its response.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::limits::config::ServerConfig;

/// The error for a peer that is too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fewer than {bytes} bytes arrived in {seconds} s")]
pub(crate) struct TooSlow {
    /// Minimum number of bytes in that time.
    pub(crate) bytes: u64,
    pub(crate) seconds: u64,
}

/// A check that a peer moves a minimum number of bytes in every window of time in which the server waits for it.
///
/// Windows follow each other from the first wait to the end of the transfer. A timeout per read would not suffice: a
/// peer that moves a byte in time, again and again, could hold a request for hours.
#[derive(Debug)]
pub(crate) struct Pace {
    window: Duration,
    /// Minimum number of bytes per window.
    required: u64,
    /// Number of bytes moved in the current window.
    moved: u64,
    /// End of the current window; `None` before the first wait.
    end: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let required = config.min_bytes_per_second.saturating_mul(config.stall_seconds).max(1);
        Self { window: config.stall_window(), required, moved: 0, end: None }
    }

    /// Counts bytes that the peer has moved.
    pub(crate) fn record(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes as u64);
    }

    /// Ends the transfer: the server no longer waits for the peer.
    pub(crate) fn finish(&mut self) {
        self.end = None;
    }

    /// Waits until a window ends in which the peer moved too few bytes. Call it while the server waits for the peer.
    pub(crate) fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<TooSlow> {
        let Self { window, required, moved, end } = self;
        let end = end.get_or_insert_with(|| {
            *moved = 0;
            Box::pin(sleep(*window))
        });
        loop {
            ready!(end.as_mut().poll(cx));
            if *moved < *required {
                return Poll::Ready(TooSlow { bytes: *required, seconds: window.as_secs() });
            }
            *moved = 0;
            end.as_mut().reset(Instant::now() + *window);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Moves this many bytes per second, at most 100 times. Returns the seconds until the peer was too slow.
    async fn seconds_until_too_slow(bytes: usize) -> Option<u64> {
        let config = ServerConfig { stall_seconds: 10, min_bytes_per_second: 5, ..ServerConfig::default() };
        let (mut pace, start) = (Pace::new(&config), Instant::now());
        for _ in 0..100 {
            tokio::select! {
                _ = poll_fn(|cx| pace.poll_too_slow(cx)) => return Some(start.elapsed().as_secs()),
                () = sleep(Duration::from_secs(1)) => {}
            }
            pace.record(bytes);
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_must_keep_moving_bytes() {
        assert_eq!(seconds_until_too_slow(0).await, Some(10));
        assert_eq!(seconds_until_too_slow(4).await, Some(10));
        assert_eq!(seconds_until_too_slow(6).await, None);
    }
}
