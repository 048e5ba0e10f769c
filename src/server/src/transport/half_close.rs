//! `HalfClose`: distinguishes a client that only stopped sending from one that disconnected.
//!
//! After its request, a client may close its side of the connection and still read the response, as `nc -N` does. A
//! client that disconnects looks the same: both send a FIN. Only the answer to a byte shows the difference, so the
//! server sends `100 Continue`, which a client of HTTP/1.1 must ignore. A client that is gone answers with a reset.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::exchange::{Exchange, Stage};
use super::socket::Socket;

/// The response by which the server checks that the client still reads.
const PROBE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The time from the FIN to the first probe. Most responses are written earlier.
const FIRST_PROBE: Duration = Duration::from_millis(200);

/// The maximum time between two probes; it doubles from the first on.
const MAX_INTERVAL: Duration = Duration::from_secs(5);

/// The time for the response to a client of HTTP/1.0, which cannot be probed.
const UNPROBED: Duration = Duration::from_secs(5);

/// A connection whose client has stopped sending.
#[derive(Debug)]
pub(super) struct HalfClose {
    since: Instant,
    interval: Duration,
    next: Pin<Box<Sleep>>,
}

impl HalfClose {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), interval: FIRST_PROBE, next: Box::pin(sleep(FIRST_PROBE)) }
    }

    /// Waits until the client is gone: for an error of the connection, or for the time after which a client that cannot
    /// be probed counts as gone. `is_flushed` states that no part of an earlier response is unwritten.
    pub(super) fn poll_gone<S: Socket>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        exchange: &Exchange,
        is_flushed: bool,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(error) = stream.take_error()? {
                return Poll::Ready(Err(error));
            }
            ready!(self.next.as_mut().poll(cx));
            let is_waiting = exchange.stage().0 == Stage::Request;
            if is_waiting && exchange.allows_interim() && is_flushed {
                ready!(write_probe(cx, stream))?;
            } else if is_waiting && self.since.elapsed() >= UNPROBED && !exchange.allows_interim() {
                return Poll::Ready(Ok(()));
            }
            self.interval = (self.interval * 2).min(MAX_INTERVAL);
            self.next.as_mut().reset(Instant::now() + self.interval);
        }
    }
}

fn write_probe<S: Socket>(cx: &mut Context<'_>, stream: &mut S) -> Poll<io::Result<()>> {
    let written = ready!(Pin::new(&mut *stream).poll_write(cx, PROBE))?;
    if written < PROBE.len() {
        // No unsent byte is left from earlier, so a socket that takes less than this is broken.
        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
    }
    // With TLS, a part may remain unwritten. The next write of the response continues it.
    let _ = Pin::new(stream).poll_flush(cx)?;
    Poll::Ready(Ok(()))
}
